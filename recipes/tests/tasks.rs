//! Each task as a user meets it: train on a few rows, evaluate, predict, merge, with tiny models of untrained weights.

#![cfg(feature = "flex")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn run(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lowrank"));
    let Output { status, stdout, stderr } = command.args(arguments).stdin(Stdio::null()).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn printed(arguments: &[&str]) -> String {
    let (code, stdout, stderr) = run(arguments);
    assert_eq!(code, 0, "{arguments:?}: {stderr}");
    stdout
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&printed(&[arguments, &["--format", "json"]].concat())).unwrap()
}

fn model(set: &str) -> String {
    let tasks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tasks");
    tasks.join(set).join("base").display().to_string()
}

/// A recipe over `rows` in a folder of its own, and the directory of its run once it has trained.
struct Trained {
    _folder: tempfile::TempDir,
    recipe: String,
    out: PathBuf,
}

fn recipe(task: &str, set: &str, rows: &str) -> Trained {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rows.jsonl"), rows).unwrap();
    let text = format!(
        "version = 1\ntask = \"{task}\"\n[model]\npath = {:?}\n[adapter.lora]\nrank = 2\ntargets = \"all-linear\"\n\
         [data]\ntrain = \"rows.jsonl\"\neval = \"rows.jsonl\"\nmax_len = 32\nstride = 4\n[optim]\nadamw = {{ lr = 1e-2 }}\n\
         [train]\nbatch = 2\nmax_steps = 3\n",
        model(set)
    );
    let (recipe, out) = (folder.path().join("my.toml"), folder.path().join("run"));
    std::fs::write(&recipe, text).unwrap();
    Trained { recipe: recipe.display().to_string(), out, _folder: folder }
}

impl Trained {
    fn out(&self) -> &str {
        self.out.to_str().unwrap()
    }

    fn train(self) -> Self {
        printed(&["train", &self.recipe, "--no-tui", "--device", "flex", "--out", self.out()]);
        let config = std::fs::read_to_string(self.out.join("final/adapter_config.json")).unwrap();
        assert!(config.contains("\"modules_to_save\""), "{config}");
        self
    }

    /// What training says of rows that cannot be.
    fn refusal(self) -> String {
        let (code, _, stderr) = run(&["train", &self.recipe, "--no-tui", "--device", "flex", "--out", self.out()]);
        assert!(code == 2 && !self.out.exists(), "{code}: {stderr}");
        stderr
    }

    fn eval(&self) -> Value {
        json(&["eval", self.out()])["metrics"].clone()
    }
}

const INTENTS: &str = r#"{"text": "good day", "label": "hello"}
{"text": "so long", "label": "bye"}
{"text": "see you", "label": "bye"}
"#;

#[test]
fn texts_are_classified() {
    // The head of the file tells three classes, and the rows two: the file's is for another task, so that a head is made.
    let run = recipe("seq_cls", "bert/token_cls", INTENTS).train();
    assert!(run.eval()["accuracy"].as_f64().is_some());
    let found = json(&["predict", run.out(), "so long", "good day"]);
    assert_eq!(found.as_array().unwrap().len(), 2);
    let label = found[0]["label"].as_str().unwrap();
    assert!(["bye", "hello"].contains(&label) && found[0]["probability"].as_f64().unwrap() >= 0.5, "{found}");
    let shown = printed(&["predict", run.out(), "so long"]);
    assert!(shown.starts_with("label") && shown.contains("so long"), "{shown}");
    // Merged it is a model with that head.
    let merged = run.out.join("merged").display().to_string();
    printed(&["merge", run.out(), "--out", &merged]);
    assert_eq!(json(&["predict", &merged, "so long", "good day"])[0]["label"], found[0]["label"]);
}

#[test]
fn decoders_classify_too_and_numbers_are_told() {
    let rows = "{\"text\": \"good\", \"label\": 0.9}\n{\"text\": \"bad\", \"label\": 0.1}\n{\"text\": \"fair\", \"label\": 0.5}\n";
    for set in ["llama/seq_reg", "roberta/seq_reg"] {
        let run = recipe("seq_cls", set, rows).train();
        assert!(run.eval().get("spearman").is_some());
        assert!(json(&["predict", run.out(), "good"])[0]["number"].as_f64().is_some());
    }
}

#[test]
fn words_are_tagged() {
    let rows =
        "{\"tokens\": [\"Ann\", \"ran\"], \"tags\": [\"B-PER\", \"O\"]}\n{\"tokens\": [\"go\"], \"tags\": [\"O\"]}\n";
    let run = recipe("token_cls", "distilbert/features", rows).train();
    assert!(run.eval()["f1"].as_f64().is_some());
    let found = json(&["predict", run.out(), "Ann ran"]);
    assert_eq!(found[0]["tokens"], serde_json::json!(["Ann", "ran"]));
    assert_eq!(found[0]["tags"].as_array().unwrap().len(), 2);
    assert_eq!(printed(&["predict", run.out(), "Ann ran"]).lines().count(), 3);
}

#[test]
fn questions_are_answered_from_windows() {
    let rows = "{\"question\": \"who?\", \"context\": \"it was Ann who ran to the far hill\", \"answer\": \"Ann\", \"answer_start\": 7}\n\
                {\"question\": \"who?\", \"context\": \"rain\", \"answers\": {\"text\": [], \"answer_start\": []}}\n";
    let run = recipe("question_ans", "bert/qa", rows).train();
    assert!(run.eval()["exact_match"].as_f64().is_some());
    let context = "it was Ann who ran to the far hill";
    let found = json(&["predict", run.out(), "--question", "who?", "--context", context]);
    let answer = &found[0]["answer"];
    assert!(answer.is_null() || context.contains(answer.as_str().unwrap()), "{found}");
}

#[test]
fn texts_become_vectors() {
    let rows = "{\"text\": \"good day\", \"positive\": \"hello\"}\n{\"text\": \"so long\", \"positive\": \"bye\"}\n";
    let run = recipe("feature_extraction", "bert/features", rows).train();
    assert!(run.eval()["recall_at_1"].as_f64().is_some());
    let found = json(&["embed", run.out(), "good day", "so long"]);
    let vector: Vec<f64> = serde_json::from_value(found[1]["vector"].clone()).unwrap();
    assert!((vector.iter().map(|value| value * value).sum::<f64>() - 1.0).abs() < 1e-5);
    // Any model with a backbone gives some.
    let file = run.out.join("vectors.safetensors");
    printed(&["embed", &model("bert/seq_cls"), "good day", "--out", file.to_str().unwrap()]);
    assert!(std::fs::metadata(file).unwrap().len() > 32 * 4);
}

/// The vectors of the real model, where `LOWRANK_MINILM` names its directory.
#[test]
fn embeddings_of_minilm_are_those_of_sentence_transformers() {
    let Ok(model) = std::env::var("LOWRANK_MINILM") else {
        eprintln!("skipped: LOWRANK_MINILM does not name a directory with all-MiniLM-L6-v2");
        return;
    };
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/minilm/embeddings.json");
    let golden: Value = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
    let of = |value: &Value| serde_json::from_value::<Vec<f64>>(value.clone()).unwrap();
    let texts: Vec<String> = serde_json::from_value(golden["texts"].clone()).unwrap();
    let arguments: Vec<&str> = ["embed", &model].into_iter().chain(texts.iter().map(String::as_str)).collect();
    let found = json(&arguments);
    for (i, expected) in golden["vectors"].as_array().unwrap().iter().enumerate() {
        let pairs = of(&found[i]["vector"]).into_iter().zip(of(expected));
        assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-5), "{}", texts[i]);
    }
}

#[test]
fn what_cannot_be_is_told_before_training() {
    let told = recipe("causal_lm", "bert/seq_cls", INTENTS).refusal();
    assert!(told.contains("causal_lm") && told.contains("seq_cls"), "{told}");
    let told = recipe("seq_cls", "bert/seq_cls", INTENTS).refusal();
    assert!(told.contains("head does not fit") && told.contains("3 outputs") && told.contains("bye"), "{told}");
    let rows = "{\"tokens\": [\"a\"], \"tags\": [\"B-PER\"]}\n{\"tokens\": [\"a\", \"b\"], \"tags\": [\"O\"]}\n";
    let told = recipe("token_cls", "bert/features", rows).refusal();
    assert!(told.contains("line 2") && told.contains("1 tags"), "{told}");
    let row = "{\"question\": \"who?\", \"context\": \"rain\", \"answer\": \"Ann\", \"answer_start\": 9}\n";
    let told = recipe("question_ans", "bert/qa", row).refusal();
    assert!(told.contains("line 1"), "{told}");
    let told = recipe("seq_cls", "bert/features", "{\"text\": \"good\"}\n").refusal();
    assert!(told.contains("label"), "{told}");
}
