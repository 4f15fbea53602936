//! `lowrank estimate`: sizes before anything runs, as text and as JSON, and what a run of the same recipe comes to.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden");

fn run(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lowrank"));
    let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn printed(arguments: &[&str]) -> String {
    let (code, stdout, stderr) = run(arguments);
    assert_eq!((code, stderr.as_str()), (0, ""), "{arguments:?}");
    stdout
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&printed(&[arguments, &["--format", "json"]].concat())).unwrap()
}

fn refused(arguments: &[&str]) -> String {
    let (code, stdout, stderr) = run(arguments);
    assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr
}

/// The costs of a method at a rank.
fn of<'a>(survey: &'a Value, method: &str, rank: u64) -> &'a Value {
    let costs = survey["costs"].as_array().unwrap().iter();
    costs.into_iter().find(|costs| costs["method"] == method && costs["rank"] == rank).unwrap()
}

#[test]
fn every_method_is_counted_at_every_rank() {
    let survey = json(&["estimate", "llama-3.2-3b", "--rank", "32,256"]);
    assert_eq!(
        (&survey["model"]["parameters"], survey["modules"].as_array().unwrap().len()),
        (&3_212_749_824_u64.into(), 56)
    );
    for (method, rank, expected) in
        [("lora", 32, 9_175_040_u64), ("lora_fa", 32, 3_670_016), ("dora", 32, 9_289_728), ("vera", 256, 129_024)]
    {
        assert_eq!(of(&survey, method, rank)["trainable"]["value"], expected, "{method}");
    }
    let lora = of(&survey, "lora", 32);
    assert_eq!(lora["trainable"]["formula"], "r (in + out)");
    assert_eq!((&lora["modules"], &lora["inputs"], &lora["outputs"]), (&56.into(), &172_032.into(), &114_688.into()));
    assert_eq!(lora["memory"]["optimizer"]["value"], 8 * 9_175_040_u64);
    assert_eq!(survey["weights"]["f32"]["formula"], "4 bytes x 3,212,749,824");
    let parts = lora["memory"].as_object().unwrap().values().filter_map(|figure| figure["value"].as_u64());
    let weights = survey["weights"]["nf4"]["value"].as_u64().unwrap();
    assert_eq!(lora["peak"]["nf4"], weights + parts.sum::<u64>());
}

#[test]
fn the_text_fits_a_narrow_terminal_and_has_formulas() {
    for model in ["llama-3.2-3b", "mixtral-8x7b", "bert-base", "chatglm-6b", "glm-4-9b", "bloom-7b1", "tiny"] {
        let text = printed(&["estimate", model]);
        let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= 80, "{model}: {widest}\n{text}");
        for part in ["r (in + out) + out", "bits x ", "adalora, rank 5, 11, 43", "lora of rank 2 r", "over nf4"] {
            assert!(text.contains(part), "{model}: {part}\n{text}");
        }
        assert!(text.lines().all(|line| line.trim_end() == line) && !text.contains('\x1b'), "{text}");
    }
    assert!(printed(&["estimate", "chatglm-6b"]).contains("known for its size alone"));
    let text = printed(&["estimate", "gpt2", "--targets", "all-linear", "--rank", "4"]);
    assert!(
        text.contains("all-linear:\n            c_attn c_proj c_fc\n") && text.contains("Training at rank 4"),
        "{text}"
    );
    // Methods that cannot be said of these modules are named, not left out silently.
    let (code, text, told) = run(&["estimate", "gpt2", "--targets", "wte"]);
    assert_eq!((code, told.lines().filter(|line| line.starts_with("left out: ")).count()), (0, 5), "{told}");
    assert!(!text.contains("vera") && told.contains("left out: vera: "), "{text}");
    assert!(printed(&["estimate", "--help"]).contains("roberta-large"));
}

/// A run's estimate is the same sum, at the rows that it has.
#[test]
fn a_recipe_is_estimated_as_it_would_be_before_its_run() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let batch = "train.batch=2";
    let sets =
        ["--set", batch, "--set", "data.max_len=64", "--set", "base.quant.nf4.block=64", "--set", "train.eval_every=0"];
    let short = ["--max-steps", "1", "--set", "data.max_rows=4", "--set", "train.eval_generate=0", "--no-tui", "--out"];
    let (code, _, told) = run(&[&["train", "tiny/lora"][..], &sets, &short, &[out.to_str().unwrap()]].concat());
    assert_eq!(code, 0, "{told}");
    let started = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let started: Value = serde_json::from_str(started.lines().next().unwrap()).unwrap();
    let estimate = json(&[&["estimate", "tiny", "--recipe", "tiny/lora"][..], &sets].concat());
    assert_eq!(started["params_trainable"], estimate["costs"]["trainable"]["value"]);
    assert_eq!(started["memory"]["base"], estimate["weights"]["value"]);
    assert_eq!(started["memory"]["adapter"], estimate["costs"]["memory"]["adapter"]["value"]);
    assert_eq!(started["memory"]["optimizer"], estimate["costs"]["memory"]["optimizer"]["value"]);
    // Full rows are at least as long as those that there are.
    assert!(started["memory"]["peak"].as_u64() <= estimate["peak"].as_u64());
    let file = out.join("final/adapter_model.safetensors");
    assert_eq!(std::fs::metadata(file).unwrap().len(), estimate["costs"]["file"]["value"].as_u64().unwrap());
    let text = printed(&[&["estimate", "tiny", "--recipe", "tiny/lora"][..], &sets].concat());
    for part in
        ["2 rows x 64 tokens", "linears nf4 (block 64, double)", "two moments", "the sum, from weights to process"]
    {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn gguf_directory_and_configuration_are_models() {
    let gguf = json(&["estimate", &format!("{GOLDEN}/gguf/llama.gguf")]);
    assert_eq!((&gguf["model"]["model_type"], &gguf["model"]["vocab_size"]), (&"llama".into(), &512.into()));
    let directory = format!("{GOLDEN}/e2e/llama/base");
    let file = format!("{directory}/config.json");
    assert_eq!(json(&["estimate", &directory])["costs"], json(&["estimate", &file])["costs"]);
}

#[test]
fn what_cannot_be_estimated_is_refused() {
    assert!(refused(&["estimate", "meta-llama/Llama-3.2-3B"]).contains("did you mean `llama-3.2-3b`?"));
    assert!(refused(&["estimate", "gpt2", "--rank", "0"]).contains("1..=65536"));
    assert!(refused(&["estimate", "gpt2", "--max-len", "2000"]).contains("at most 1024"));
    assert!(refused(&["estimate", "gpt2", "--targets", "q_proj"]).contains("c_attn"));
    assert!(refused(&["estimate", "gpt2", "--recipe", "tiny/lora", "--rank", "4"]).contains("--rank"));
    assert!(refused(&["estimate", "gpt2", "--recipe", "tiny/lroa"]).contains("did you mean `tiny/lora`?"));
    assert!(refused(&["estimate", "gpt2", "--set", "seed=1"]).contains("--recipe"));

    let folder = tempfile::tempdir().unwrap();
    let recipe = |rest: &str| {
        let text = format!("[model]\npath = \"absent\"\n[data]\ntrain = \"absent.csv\"\n{rest}\n");
        let path = folder.path().join("my.toml");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    };
    // Neither the recipe's model nor its data are looked for.
    printed(&["estimate", "gpt2", "--recipe", &recipe("[adapter.lora]\ntargets = [\"c_attn\"]")]);
    for (rest, parts) in [
        ("[adapter.lora]\ntargets = [\"q_proj\"]", &["my.toml", "key adapter.lora.targets", "c_attn"][..]),
        ("[adapter.lora]\nmodules_to_save = [\"score\"]", &["my.toml", "key adapter.lora.modules_to_save"]),
        ("max_len = 2000\n[adapter.lora]", &["my.toml", "key data.max_len", "at most 1024"]),
        ("[adapter.lora]\nalhpa = 1", &["my.toml", "did you mean `alpha`?"]),
    ] {
        let told = refused(&["estimate", "gpt2", "--recipe", &recipe(rest)]);
        assert!(parts.iter().all(|part| told.contains(part)), "{rest}: {told}");
    }
    let quantised = folder.path().join("config.json");
    let config = std::fs::read_to_string(Path::new(GOLDEN).join("e2e/llama/base/config.json")).unwrap();
    let quant = "{\"quantization_config\": {\"load_in_4bit\": true, \"bnb_4bit_quant_type\": \"nf4\"},";
    std::fs::write(&quantised, config.replacen('{', quant, 1)).unwrap();
    let quantised = quantised.to_str().unwrap();
    let text = printed(&["estimate", quantised, "--recipe", &recipe("[adapter.lora]")]);
    assert!(text.contains("linears nf4 (block 64)"), "{text}");
    assert!(refused(&["estimate", quantised, "--recipe", &recipe("[adapter.full]")]).contains("trains every weight"));
    let other = recipe("[adapter.lora]\n[base.quant.fp4]");
    assert!(refused(&["estimate", quantised, "--recipe", &other]).contains("key base.quant"));
}
