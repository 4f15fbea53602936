//! Makes the embedded base `tiny` from nothing: generated corpus, tokenizer, untrained model, pretraining.
//!
//!     cargo run --release --bin pretrain -- OUT [KEY=VALUE]...
//!
//! OUT/model is then a Hugging Face directory in bfloat16; the one shipped lies in src/models/tiny.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lowrank::adapters::merge::{OutDtype, convert};
use lowrank::data::Tokenizer;
use lowrank::data::synthetic::{corpus, train_tokenizer};
use lowrank::events::{Color, Console, Control, Format, Status};
use lowrank::models::families::LlamaConfig;
use lowrank::models::{self, ModelConfig, Rope, RopeScaling, Sliding, write_untrained};
use lowrank::recipe::Task;
use lowrank::train::{Job, Options};
use lowrank::{Error, Result};
use lowrank_cli::{SHIPPED, pick, report_error};
use serde_json::json;

const SEED: u64 = 2026;
const DOCUMENTS: usize = 140_000;
const VOCABULARY: usize = 2048;

fn main() -> ExitCode {
    match pretrain() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report_error::report(&error, Color::Auto),
    }
}

fn pretrain() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let out = PathBuf::from(arguments.next().ok_or_else(|| Error::input("usage: pretrain OUT [KEY=VALUE]..."))?);
    let start = out.join("untrained");
    fs::create_dir_all(&start).map_err(Error::io(&start))?;

    let files = train_tokenizer(corpus(SEED, DOCUMENTS), VOCABULARY)?;
    Tokenizer::from_json(&files.tokenizer_json, Some(&files.tokenizer_config_json), &start)?.save(&start)?;
    write_untrained(&architecture(), SEED, &start)?;
    let data = out.join("corpus.jsonl");
    let rows: String = corpus(SEED, DOCUMENTS).map(|text| json!({ "text": text }).to_string() + "\n").collect();
    fs::write(&data, rows).map_err(Error::io(&data))?;

    let mut sets: Vec<String> = arguments.collect();
    sets.push(format!("model.path={:?}", start.display().to_string()));
    sets.push(format!("data.train={:?}", data.display().to_string()));
    let mut job = Job::prepare(&SHIPPED.load("tiny/pretrain", &sets)?, &pick("auto")?)?;
    eprint!("{}", job.banner());
    let begun = job.begin(&Options { out: Some(out.join("run")), resume: None })?;
    let run = begun.run.ok_or_else(|| Error::Failed("nothing to train".into()))?;
    let bus = run.bus()?.with(Console::stderr(Format::Text, Color::Auto, run.job.recipe.log.every));
    let control = Control::new();
    control.install_signal_handlers()?;
    let outcome = run.train(&bus, &control)?;
    if outcome.status == Status::Interrupted {
        return Err(Error::Interrupted { signal: outcome.signal.unwrap_or(2) });
    }

    write_bf16(&out.join("run/final"), &out.join("model"))
}

/// A small Llama: one million parameters, most of them in four blocks.
fn architecture() -> ModelConfig {
    let family = LlamaConfig {
        intermediate_size: 384,
        rms_norm_eps: 1e-5,
        rope: Rope { theta: 10_000.0, scaling: RopeScaling::Default },
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
        qk_norm: false,
        sliding: Sliding::default(),
    };
    ModelConfig {
        model_type: "llama".into(),
        vocab_size: VOCABULARY,
        hidden_size: 128,
        num_hidden_layers: 4,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 32,
        max_position_embeddings: 256,
        tie_word_embeddings: true,
        bos_token_id: Some(1),
        eos_token_ids: vec![2],
        pad_token_id: Some(0),
        task: Task::CausalLm,
        labels: Vec::new(),
        architecture: family.into(),
    }
}

fn write_bf16(trained: &Path, out: &Path) -> Result<()> {
    let opened = models::open(&trained.display().to_string(), Path::new(""))?;
    convert(opened.weights.as_ref(), &opened.config, OutDtype::Bf16, out)?;
    opened.tokenizer.save(out)
}
