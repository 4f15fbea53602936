//! Configurations and checkpoints of every family, from the directories of `tests/golden/e2e`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::models::arranged::{Arranged, transposed};
use crate::models::{Safetensors, open, open_for, write_untrained};
use crate::nn::Unit;
use crate::tensors::{HostTensors, encode};

const FAMILIES: [&str; 22] = [
    "llama",
    "qwen2",
    "qwen3",
    "qwen3_variants",
    "gpt2",
    "gemma3_text",
    "glm",
    "glm4",
    "bloom",
    "mixtral",
    "qwen2_moe",
    "qwen3_moe",
    "deepseek",
    "../tasks/bert/seq_cls",
    "../tasks/bert/qa",
    "../tasks/bert/features",
    "../tasks/roberta/seq_reg",
    "../tasks/roberta/token_cls",
    "../tasks/distilbert/seq_cls",
    "../tasks/llama/token_cls",
    T5,
    T5_V1_1,
];

const T5: &str = "../tasks/t5/seq2seq_relu_tied";
const T5_V1_1: &str = "../tasks/t5/seq2seq_gated_untied";

fn base(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/e2e").join(family).join("base")
}

fn with(family: &str, key: &str, value: Value) -> Result<ModelConfig> {
    let text = std::fs::read(base(family).join("config.json")).unwrap();
    let mut keys: Value = serde_json::from_slice(&text).unwrap();
    keys[key] = value;
    ModelConfig::from_json(keys.to_string().as_bytes(), Path::new("config.json"))
}

fn config(family: &str) -> ModelConfig {
    with(family, "transformers_version", json!("5")).unwrap()
}

#[test]
fn what_is_written_reads_back() {
    for family in FAMILIES {
        let config = config(family);
        let text = config.to_json("float32").to_string();
        assert_eq!(ModelConfig::from_json(text.as_bytes(), Path::new("config.json")).unwrap(), config, "{family}");
    }
}

#[test]
fn other_maths_is_refused_by_name() {
    for (family, key, value) in [
        ("qwen3", "use_sliding_window", json!("yes")),
        ("qwen3", "hidden_act", json!("gelu")),
        ("gpt2", "n_embd", json!(0)),
        ("gpt2", "n_head", json!(5)),
        ("gpt2", "n_positions", json!(0)),
        ("gpt2", "activation_function", json!("relu")),
        ("gpt2", "scale_attn_weights", json!(false)),
        ("gpt2", "scale_attn_by_inverse_layer_idx", json!(true)),
        ("gpt2", "add_cross_attention", json!(true)),
        ("gpt2", "layer_norm_epsilon", json!(-1)),
        ("gemma3_text", "hidden_activation", json!("silu")),
        ("gemma3_text", "final_logit_softcapping", json!(30.0)),
        ("gemma3_text", "attention_bias", json!(true)),
        ("gemma3_text", "use_bidirectional_attention", json!(true)),
        ("gemma3_text", "layer_types", json!(["full_attention"])),
        ("gemma3_text", "layer_types", json!(["chunked_attention", "a", "b", "c"])),
        ("gemma3_text", "query_pre_attn_scalar", json!(0)),
        ("gemma3_text", "sliding_window", json!(0)),
        ("glm4", "hidden_act", json!("gelu")),
        ("glm4", "head_dim", json!(10)),
        ("bloom", "n_head", json!(7)),
        ("bloom", "apply_residual_connection_post_layernorm", json!("no")),
        ("mixtral", "sliding_window", json!(0)),
        ("mixtral", "output_router_logits", json!(true)),
        ("mixtral", "router_jitter_noise", json!(0.1)),
        ("mixtral", "num_local_experts", json!(null)),
        ("mixtral", "num_experts_per_tok", json!(9)),
        ("qwen2_moe", "mlp_only_layers", json!([-1])),
        ("qwen2_moe", "moe_intermediate_size", json!(0)),
        ("qwen3_moe", "norm_topk_prob", json!(1)),
        ("deepseek", "aux_loss_alpha", json!(0.001)),
        ("deepseek", "scoring_func", json!("sigmoid")),
        ("deepseek", "moe_layer_freq", json!(2)),
        ("../tasks/bert/qa", "position_embedding_type", json!("relative_key")),
        ("../tasks/bert/qa", "is_decoder", json!(true)),
        ("../tasks/bert/qa", "add_cross_attention", json!(true)),
        ("../tasks/bert/qa", "hidden_act", json!("silu")),
        ("../tasks/bert/qa", "layer_norm_eps", json!(0)),
        ("../tasks/bert/qa", "type_vocab_size", json!(0)),
        ("../tasks/bert/qa", "num_attention_heads", json!(5)),
        ("../tasks/roberta/qa", "intermediate_size", json!(null)),
        ("../tasks/roberta/qa", "max_position_embeddings", json!(2)),
        ("../tasks/distilbert/qa", "activation", json!("silu")),
        ("../tasks/distilbert/qa", "dim", json!(0)),
        ("../tasks/distilbert/qa", "n_heads", json!(5)),
        ("../tasks/distilbert/qa", "n_layers", json!(null)),
        ("../tasks/distilbert/qa", "hidden_dim", json!(0)),
        (T5, "feed_forward_proj", json!("gated-silu")),
        (T5, "dense_act_fn", json!("gelu_new")),
        (T5, "is_gated_act", json!(true)),
        (T5_V1_1, "dense_act_fn", json!("gelu")),
        (T5, "scalable_attention", json!(true)),
        (T5, "is_decoder", json!(true)),
        (T5, "num_layers", json!(0)),
        (T5, "num_decoder_layers", json!(0)),
        (T5, "d_ff", json!(0)),
        (T5, "relative_attention_num_buckets", json!(3)),
        (T5, "relative_attention_max_distance", json!(4)),
        (T5, "decoder_start_token_id", json!(128)),
    ] {
        let message = match with(family, key, value.clone()) {
            Ok(_) => panic!("{family}: {key} {value} was accepted"),
            Err(error) => error.to_string(),
        };
        assert!(message.contains(key) && message.contains("config.json"), "{family}, {key}: {message}");
    }
}

#[test]
fn absent_keys_have_the_defaults_of_transformers() {
    let gemma = with("gemma3_text", "layer_types", json!(null)).unwrap();
    assert_eq!(Gemma3Config::of(&gemma.architecture).unwrap().sliding, [true; 4]);
    assert!(with("gemma3_text", "tie_word_embeddings", json!(null)).unwrap().tie_word_embeddings);
    let gpt2 = with("gpt2", "n_inner", json!(null)).unwrap();
    assert_eq!(Gpt2Config::of(&gpt2.architecture).unwrap().n_inner, 4 * gpt2.hidden_size);
    let glm = with("glm4", "rope_parameters", json!(null)).unwrap();
    assert_eq!(GlmConfig::of(&glm.architecture).unwrap().partial_rotary_factor, 0.5);
    assert_eq!(with("qwen3", "head_dim", json!(null)).unwrap().head_dim, 128);
}

#[test]
fn positions_are_those_of_the_table_that_texts_may_have() {
    assert_eq!(config("../tasks/bert/qa").positions(), 32);
    assert_eq!(config("../tasks/roberta/qa").positions(), 34 - 2);
    assert_eq!(with("../tasks/roberta/qa", "pad_token_id", json!(0)).unwrap().positions(), 34 - 1);
    assert_eq!(with("../tasks/roberta/qa", "pad_token_id", json!(null)).unwrap().positions(), 34 - 2);
}

#[test]
fn units_go_by_their_names() {
    for (name, unit) in Unit::NAMES {
        let bert = with("../tasks/bert/qa", "hidden_act", json!(name)).unwrap();
        assert_eq!(BertConfig::of(&bert.architecture).unwrap().hidden_act, unit);
    }
    let distilbert = with("../tasks/distilbert/qa", "activation", json!(null)).unwrap();
    assert_eq!(DistilBertConfig::of(&distilbert.architecture).unwrap().activation, Unit::Gelu);
}

#[test]
fn encoders_do_not_generate() {
    for set in ["bert/features", "roberta/qa", "distilbert/seq_cls"] {
        let path = base("../tasks").parent().unwrap().join(set).join("base").display().to_string();
        let error = open(&path, Path::new("/")).unwrap().check_generates().unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("does not generate"), "{error}");
        let Err(error) = open_for(&path, Path::new("/"), Some(Task::CausalLm)) else { panic!("{set} is a decoder") };
        assert!(error.to_string().contains("causal_lm") && error.to_string().contains("token_cls"), "{error}");
    }
    open("tiny", Path::new("")).unwrap().check_generates().unwrap();
}

/// Files that came from TensorFlow: other names of the norms, numbers of positions, and a head for masked tokens.
#[test]
fn old_files_of_bert_are_the_same_model() {
    let base = base("../tasks/bert/features");
    let opened = open(&base.display().to_string(), Path::new("/")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    opened.tokenizer.save(dir.path()).unwrap();
    let keys = std::fs::read_to_string(base.join("config.json")).unwrap().replace("BertModel", "BertForMaskedLM");
    std::fs::write(dir.path().join("config.json"), keys).unwrap();
    let file = base.join("model.safetensors");
    let stored = crate::tensors::decode(&std::fs::read(&file).unwrap(), &file).unwrap();
    let renamed = |name: &str| {
        let name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        format!("bert.{name}")
    };
    let mut old: HostTensors = stored.iter().map(|(name, tensor)| (renamed(name), tensor.clone())).collect();
    for extra in ["bert.embeddings.position_ids", "cls.predictions.bias", "cls.predictions.transform.LayerNorm.gamma"] {
        old.insert(extra.into(), old["bert.embeddings.LayerNorm.gamma"].clone());
    }
    std::fs::write(dir.path().join("model.safetensors"), encode(&old).unwrap()).unwrap();
    let old = open(&dir.path().display().to_string(), Path::new("/")).unwrap();
    assert_eq!(old.config, opened.config);
    for (name, _) in opened.config.tensors() {
        assert_eq!(old.weights.read(&name).unwrap(), opened.weights.read(&name).unwrap(), "{name}");
    }
}

#[test]
fn t5_fills_in_what_files_leave_out() {
    let own = |key: &str, value: Value| {
        let config = with(T5, key, value).unwrap();
        (T5Config::of(&config.architecture).unwrap().clone(), config)
    };
    let (first, config) = own("d_kv", json!(null));
    assert_eq!((config.task, config.head_dim), (Task::Seq2seqLm, 64));
    assert!(first.scale_decoder_outputs && config.tie_word_embeddings && !first.gated);
    assert_eq!(own("num_decoder_layers", json!(null)).0.num_decoder_layers, 2);
    assert_eq!(own("decoder_start_token_id", json!(5)).0.decoder_start_token_id, 5);
    let keys = ["relative_attention_num_buckets", "relative_attention_max_distance"];
    assert_eq!(own(keys[0], json!(16)).0.relative_attention_num_buckets, 16);
    assert_eq!(own(keys[1], json!(null)).0.relative_attention_max_distance, 128);
    assert_eq!(with(T5, "architectures", json!(["T5WithLMHeadModel"])).unwrap().task, Task::Seq2seqLm);
    let refused = open_for(&base(T5).display().to_string(), Path::new("/"), Some(Task::TokenCls)).err().unwrap();
    assert!(refused.to_string().contains("token_cls of a t5"), "{refused}");
}

/// Whether the head of T5 is the embedding table is told by the weights: files may hold copies.
#[test]
fn a_copy_of_the_table_is_no_head() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(base(T5).join(file), dir.path().join(file)).unwrap();
    }
    let file = base(T5).join("model.safetensors");
    let mut tensors = crate::tensors::decode(&std::fs::read(&file).unwrap(), &file).unwrap();
    for copy in ["lm_head", "encoder.embed_tokens", "decoder.embed_tokens"] {
        tensors.insert(format!("{copy}.weight"), tensors["shared.weight"].clone());
    }
    let tied = |tensors: &HostTensors| {
        std::fs::write(dir.path().join("model.safetensors"), encode(tensors).unwrap()).unwrap();
        let config = open(&dir.path().display().to_string(), Path::new("/")).unwrap().config;
        let text = config.to_json("float32").to_string();
        let again = ModelConfig::from_json(text.as_bytes(), Path::new("config.json")).unwrap();
        assert!(T5Config::of(&again.architecture).unwrap().scale_decoder_outputs);
        config.tie_word_embeddings
    };
    assert!(tied(&tensors));
    tensors["lm_head.weight"].values[0] += 1.0;
    assert!(!tied(&tensors));
}

/// Old files of GPT-2: no prefix, and the causal mask among the weights.
#[test]
fn files_without_the_prefix_are_the_same_model() {
    let opened = open(&base("gpt2").display().to_string(), Path::new("/")).unwrap();
    let file = base("gpt2").join("model.safetensors");
    let stored = crate::tensors::decode(&std::fs::read(&file).unwrap(), &file).unwrap();
    let bare = |name: &str| name.strip_prefix("transformer.").unwrap_or(name).to_string();
    let mut old: HostTensors = stored.iter().map(|(name, tensor)| (bare(name), tensor.clone())).collect();
    old.insert("h.0.attn.bias".into(), old["ln_f.bias"].clone());
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("model.safetensors"), encode(&old).unwrap()).unwrap();
    let old = Arranged::around(Box::new(Safetensors::open_dir(dir.path()).unwrap()), &opened.config);
    for (name, shape) in opened.config.tensors() {
        assert_eq!(old.shape(&name), Some(shape), "{name}");
        assert_eq!(old.read(&name).unwrap(), opened.weights.read(&name).unwrap(), "{name}");
    }
    let (name, hidden) = ("transformer.h.1.attn.c_attn.weight", opened.config.hidden_size);
    assert_eq!(old.read(name).unwrap(), transposed(&stored[name].values, [hidden, 3 * hidden]));
    assert!(opened.config.architecture.family().ignored().iter().any(|end| "transformer.h.0.attn.bias".ends_with(end)));
}

#[test]
fn untrained_models_of_every_family_have_all_their_tensors() {
    for family in FAMILIES {
        let (config, dir) = (config(family), tempfile::tempdir().unwrap());
        write_untrained(&config, 1, dir.path()).unwrap();
        let weights = Arranged::around(Box::new(Safetensors::open_dir(dir.path()).unwrap()), &config);
        for (name, shape) in config.tensors() {
            assert_eq!(weights.shape(&name), Some(shape), "{family} {name}");
        }
        assert_eq!(weights.names().len(), config.tensors().len(), "{family}");
    }
}

/// The slopes of transformers.
#[test]
fn alibi_slopes_are_a_geometric_sequence() {
    let file = base("bloom").join("../fixtures.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    let fixtures = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for heads in [1, 2, 4, 6, 8, 12, 16, 20, 32, 112] {
        let expected = fixtures.tensor(&format!("alibi_slopes.{heads}")).unwrap();
        let expected = expected.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let ours = bloom::slopes(heads);
        assert_eq!(ours.len(), heads);
        assert!(ours.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{heads}: {ours:?}");
    }
}
