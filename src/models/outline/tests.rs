use std::fs;

use super::*;
use crate::models::ModelConfig;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

fn refusal(name: &str) -> String {
    Outline::find(name).err().unwrap_or_else(|| panic!("{name} was accepted")).to_string()
}

/// All parameters as the models' own pages, or transformers' `num_parameters()`, give them.
#[test]
fn built_in_models_have_their_published_sizes() {
    let published = [
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-3.2-3b", 3_212_749_824),
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-2-7b", 6_738_415_616),
        ("smollm2-135m", 134_515_008),
        ("deepseek-llm-7b", 6_910_365_696),
        ("mistral-7b", 7_241_732_096),
        ("mixtral-8x7b", 46_702_792_704),
        ("qwen2.5-0.5b", 494_032_768),
        ("qwen2.5-1.5b", 1_543_714_304),
        ("qwen2.5-3b", 3_085_938_688),
        ("qwen2.5-7b", 7_615_616_512),
        ("qwen3-0.6b", 596_049_920),
        ("qwen3-8b", 8_190_735_360),
        ("gemma-3-1b", 999_885_952),
        ("glm-4-9b", 9_399_951_360),
        ("chatglm-6b", 6_173_286_400),
        ("bloom-560m", 559_214_592),
        ("bloom-7b1", 7_069_016_064),
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        // Without the pooler, which is a head.
        ("bert-base", 108_891_648),
        ("roberta-base", 124_055_040),
        ("roberta-large", 354_310_144),
    ];
    assert!(built_in_names().skip(1).eq(published.map(|(name, _)| name)));
    let sizes = published.map(|(name, _)| (name, Outline::find(name).unwrap().0.parameters()));
    assert_eq!(sizes, published);
    let sketched = built_in_names().filter(|name| !Outline::find(name).unwrap().0.runs());
    assert!(sketched.eq(["chatglm-6b"]));
}

#[test]
fn an_embedded_model_is_built_in() {
    let (tiny, source) = Outline::find("tiny").unwrap();
    let opened = crate::models::open("tiny", Path::new("")).unwrap();
    assert_eq!((tiny, source), (Outline::of(&opened.config), OutlineSource::BuiltIn));
    assert_eq!(OutlineSource::BuiltIn.to_string(), "built in");
}

/// The header of a GGUF file of this configuration, as the converter writes it: no data follow.
fn gguf_header(config: &ModelConfig) -> Vec<u8> {
    let sizes = [
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("block_count", config.num_hidden_layers),
        ("feed_forward_length", config.llama().intermediate_size),
        ("attention.head_count", config.num_attention_heads),
        ("attention.head_count_kv", config.num_key_value_heads),
    ];
    let mut bytes = b"GGUF".to_vec();
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    };
    bytes.extend(3u32.to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.extend((sizes.len() as u64 + 2).to_le_bytes());
    text(&mut bytes, "general.architecture");
    bytes.extend(8u32.to_le_bytes());
    text(&mut bytes, "llama");
    for (key, size) in sizes {
        text(&mut bytes, &format!("llama.{key}"));
        bytes.extend(4u32.to_le_bytes());
        bytes.extend((size as u32).to_le_bytes());
    }
    text(&mut bytes, "llama.attention.layer_norm_rms_epsilon");
    bytes.extend(6u32.to_le_bytes());
    bytes.extend(1e-5f32.to_le_bytes());
    text(&mut bytes, "token_embd.weight");
    bytes.extend(2u32.to_le_bytes());
    bytes.extend((config.hidden_size as u64).to_le_bytes());
    bytes.extend((config.vocab_size as u64).to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes
}

#[test]
fn one_model_is_the_same_by_name_by_configuration_and_by_header() {
    let (by_name, _) = Outline::find("smollm2-135m").unwrap();
    let config = ModelConfig::from_json(built_in::find("smollm2-135m").unwrap(), Path::new("m")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("config.json"), config.to_json("float32").to_string()).unwrap();
    fs::write(at("m.gguf"), gguf_header(&config)).unwrap();
    for (path, source) in [
        (dir.path().to_path_buf(), OutlineSource::Config(at("config.json"))),
        (at("config.json"), OutlineSource::Config(at("config.json"))),
        (at("m.gguf"), OutlineSource::Gguf(at("m.gguf"))),
    ] {
        assert_eq!(Outline::find(path.to_str().unwrap()).unwrap(), (by_name.clone(), source), "{}", path.display());
    }
    // Header and data in one file say the same.
    let whole = Outline::find(&format!("{GOLDEN}/gguf/llama.gguf")).unwrap().0;
    let opened = crate::models::open("gguf/llama.gguf", Path::new(GOLDEN)).unwrap();
    assert_eq!(whole, Outline::of(&opened.config));
    // A header that is cut short is none.
    fs::write(at("m.gguf"), &gguf_header(&config)[..200]).unwrap();
    assert!(refusal(at("m.gguf").to_str().unwrap()).contains("ends early"));
}

#[test]
fn a_quantised_checkpoint_says_so_in_its_configuration() {
    let of = |keys: &str| {
        let config = std::str::from_utf8(built_in::find("smollm2-135m").unwrap()).unwrap();
        let config = config.trim_end_matches([' ', '}']).to_string() + keys + " }";
        Outline::from_json(config.as_bytes(), Path::new("config.json"))
    };
    let quant = ", \"quantization_config\": { \"load_in_4bit\": true, \"bnb_4bit_quant_type\": \"nf4\" }";
    assert_eq!(of(quant).unwrap().quant.unwrap().describe(), "nf4 (block 64)");
    assert_eq!(of("").unwrap().quant, None);
    let refused = of(", \"quantization_config\": { \"quant_method\": \"gptq\" }").unwrap_err().to_string();
    assert!(refused.contains("quantization_config.quant_method"), "{refused}");
}

#[test]
fn what_is_no_model_is_refused_with_what_would_be() {
    for (name, near) in [
        ("llama-3.2-3B", "`llama-3.2-3b`"),
        ("meta-llama/Llama-3.2-3B", "`llama-3.2-3b`"),
        ("qwen2.5_7b", "`qwen2.5-7b`"),
        ("roberta-bse", "`roberta-base`"),
    ] {
        let told = refusal(name);
        assert!(
            told.contains(&format!("did you mean {near}?")) && told.contains("one of tiny, llama-3.2-1b"),
            "{told}"
        );
    }
    assert!(!refusal("xyz").contains("did you mean"));
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let write = |name: &str, text: &str| fs::write(at(name), text).unwrap();
    assert!(refusal(dir.path().to_str().unwrap()).contains("config.json"));
    write("adapter_config.json", "{}");
    assert!(refusal(dir.path().to_str().unwrap()).contains("it is an adapter"));
    write("notes.txt", "hello");
    assert!(refusal(&at("notes.txt")).contains("says nothing about the size"));
    write("fake.gguf", "hello");
    assert!(refusal(&at("fake.gguf")).contains("not a GGUF file"));
    for (text, parts) in [
        ("[]", &["not a model configuration"][..]),
        ("{}", &["key model_type", "nothing", "chatglm"]),
        ("{\"model_type\": \"mamba\"}", &["key model_type", "found \"mamba\"", "bert", "llama"]),
        ("{\"model_type\": \"llama\"}", &["missing", "key intermediate_size"]),
        ("{\"model_type\": \"bert\", \"vocab_size\": 10}", &["missing", "key intermediate_size"]),
        ("{\"model_type\": \"chatglm\", \"vocab_size\": 0}", &["key vocab_size", "found 0"]),
        ("{\"model_type\": \"chatglm\", \"vocab_size\": \"10\"}", &["key vocab_size", "a whole number"]),
    ] {
        write("config.json", text);
        let told = refusal(&at("config.json"));
        assert!(parts.iter().all(|part| told.contains(part)) && told.contains("config.json"), "{text}: {told}");
    }
}
