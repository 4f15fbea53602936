//! One method over one base: steps timed one by one.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, ValueEnum};
use lowrank::adapters::{
    AdaLoraConfig, AdapterConfig, DoraConfig, FullConfig, LoraConfig, LoraFaConfig, Targets, VeraConfig,
};
use lowrank::data::Batch;
use lowrank::models::{ModelConfig, Safetensors};
use lowrank::recipe::{BaseCompute, BaseDtype, BaseStorage, Blocks, Optim, Quant, plan_adapter};
use lowrank::runtime::{AdapterSpec, BaseSpec, Learner, Micro, Sampling};
use lowrank::train::{attach_saved, peak_bytes, resident_bytes};
use lowrank::{Error, Result};
use serde_json::json;

/// The seven linear layers of a block.
const TARGETS: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

#[derive(Args)]
pub struct Settings {
    /// A model directory; its tokenizer is not needed.
    dir: PathBuf,
    #[arg(long, default_value = "lora")]
    method: Method,
    /// How the base is stored, and in which numbers its products are.
    #[arg(long, default_value = "f32")]
    base: Stored,
    /// Start from this PEFT adapter instead of fresh values.
    #[arg(long)]
    adapter: Option<PathBuf>,
    #[arg(long, default_value = "auto")]
    device: String,
    #[arg(long, default_value_t = 8)]
    rank: usize,
    #[arg(long, default_value_t = 4)]
    rows: usize,
    #[arg(long, default_value_t = 128)]
    len: usize,
    #[arg(long, default_value_t = 6)]
    steps: usize,
    #[arg(long, default_value_t = 2)]
    warmup: usize,
    #[arg(long)]
    gradient_checkpointing: bool,
    /// Take the gradient's norm too, wait for the device after each part of a step and name the parts on stderr, between
    /// what a runtime logs; see `benches/launches.py`.
    #[arg(long)]
    parts: bool,
    /// Tokens to generate greedily after a prompt of 16.
    #[arg(long, default_value_t = 0)]
    generate: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Method {
    Lora,
    LoraFa,
    Vera,
    Adalora,
    Dora,
    Full,
    None,
}

#[derive(Clone, Copy, ValueEnum)]
enum Stored {
    F32,
    /// bfloat16 weights, f32 products.
    Bf16,
    /// bfloat16 weights and products.
    Bf16Compute,
    /// NF4 with nested scales, f32 products, the embedding in f32.
    Nf4,
    /// The same with bfloat16 products and the embedding in bfloat16.
    Nf4Compute,
}

impl Stored {
    fn storage(self) -> BaseStorage {
        let nf4 = Some(Quant::Nf4(Blocks::default()));
        let (dtype, quant, compute) = match self {
            Stored::F32 => (BaseDtype::F32, None, BaseCompute::F32),
            Stored::Bf16 => (BaseDtype::Bf16, None, BaseCompute::F32),
            Stored::Bf16Compute => (BaseDtype::Bf16, None, BaseCompute::Bf16),
            Stored::Nf4 => (BaseDtype::F32, nf4, BaseCompute::F32),
            Stored::Nf4Compute => (BaseDtype::Bf16, nf4, BaseCompute::Bf16),
        };
        BaseStorage { dtype, quant, compute }
    }
}

impl Method {
    fn config(self, rank: usize) -> AdapterConfig {
        let targets = Targets::Names(TARGETS.map(String::from).to_vec());
        let alpha = 16.0;
        match self {
            Method::Lora => LoraConfig { rank, alpha, targets, ..Default::default() }.into(),
            Method::LoraFa => LoraFaConfig { rank, alpha, targets, ..Default::default() }.into(),
            Method::Vera => VeraConfig { rank, targets, ..Default::default() }.into(),
            Method::Dora => DoraConfig { rank, alpha, targets, ..Default::default() }.into(),
            Method::Adalora => {
                let (init_rank, target_rank) = (rank * 3 / 2, rank);
                AdaLoraConfig { init_rank, target_rank, alpha, targets, ..Default::default() }.into()
            }
            Method::Full => AdapterConfig::Full(FullConfig::default()),
            Method::None => AdapterConfig::none(),
        }
    }
}

pub fn run(settings: &Settings) -> Result<()> {
    let target = lowrank_cli::pick(&settings.device)?;
    let path = settings.dir.join("config.json");
    let config = ModelConfig::from_json(&std::fs::read(&path).map_err(Error::io(&path))?, &path)?;
    let weights = Safetensors::open_dir(&settings.dir)?;
    let start = Instant::now();
    let spec = BaseSpec { config: &config, weights: &weights, storage: settings.base.storage(), loftq: None };
    let base = target.runtime.load(target.index, &spec)?;
    let load_s = start.elapsed().as_secs_f64();
    let load_peak = peak_bytes();
    let total = settings.warmup + settings.steps;
    let mut adapter = settings.method.config(settings.rank);
    plan_adapter(&mut adapter, total.max(8))?;
    let optim = Optim::default();
    let mut learner = match &settings.adapter {
        Some(dir) => attach_saved(base.as_ref(), &config, dir)?.0,
        None => base.attach(&AdapterSpec { total_steps: total, ..AdapterSpec::fresh(&adapter, &optim, 0) })?,
    };
    let resident = resident_bytes();
    forget_peak();
    let mut tokens = Tokens::new(config.vocab_size);
    let (mut losses, mut walls, mut cpus) = (Vec::new(), Vec::new(), Vec::new());
    for step in 0..total {
        let batch = tokens.batch(settings.rows, settings.len);
        let (wall, cpu) = (Instant::now(), cpu_ms());
        losses.push(train(learner.as_mut(), &batch, settings)?);
        if step >= settings.warmup {
            walls.push(wall.elapsed().as_secs_f64() * 1e3);
            cpus.push(cpu_ms() - cpu);
        }
    }
    let peak = peak_bytes();
    let generated = generate(learner.as_ref(), config.vocab_size, settings.generate)?;
    let mib = |bytes: u64| bytes >> 20;
    let name = |value: Option<clap::builder::PossibleValue>| value.map(|v| v.get_name().to_string());
    let parameters: usize = learner.trainable().values().map(|shape| shape.iter().product::<usize>()).sum();
    println!(
        "{}",
        json!({
            "program": "lowrank", "device": target.device.name,
            "model": settings.dir.file_name().map(|name| name.to_string_lossy()),
            "method": name(settings.method.to_possible_value()), "base": name(settings.base.to_possible_value()),
            "fresh": settings.adapter.is_none(), "rows": settings.rows, "len": settings.len, "rank": settings.rank,
            "gradient_checkpointing": settings.gradient_checkpointing, "params_trainable": parameters,
            "load_s": load_s, "load_peak_mib": mib(load_peak), "resident_mib": mib(resident), "peak_mib": mib(peak),
            "step_ms": walls, "cpu_ms": cpus, "losses": losses, "tokens_per_s": generated,
        })
    );
    Ok(())
}

/// One optimizer step; its mean loss.
fn train(learner: &mut dyn Learner, batch: &Batch, settings: &Settings) -> Result<f64> {
    let (n, gradient_checkpointing) = (batch.terms() as f64, settings.gradient_checkpointing);
    let part = |name| settings.parts.then(|| eprintln!("part\t{name}"));
    // Whether anything was read does not matter: reading waits for the device.
    part("forward");
    let result = learner.accumulate(batch, &Micro { weight: 1.0 / n, dropout: None, gradient_checkpointing })?;
    if settings.parts {
        learner.gradients();
        part("norm");
        learner.grad_norm();
        part("optimizer");
    }
    learner.step(2e-4, 1.0);
    if settings.parts {
        learner.export();
        part("end");
    }
    Ok(result.loss / n)
}

/// Tokens per second, the best of three.
fn generate(learner: &dyn Learner, vocab: usize, n: usize) -> Result<Option<f64>> {
    if n == 0 {
        return Ok(None);
    }
    let prompt: Vec<u32> = Tokens::new(vocab).batch(1, 16).ids.iter().map(|id| *id as u32).collect();
    let sampling = Sampling { max_new_tokens: n, temperature: 0.0, seed: 0, stop: Vec::new() };
    let mut best = 0f64;
    for _ in 0..3 {
        let start = Instant::now();
        let made = learner.generate(&prompt, &sampling, &mut |_| true)?;
        best = best.max(made.len() as f64 / start.elapsed().as_secs_f64());
    }
    Ok(Some(best))
}

/// The same tokens as in `reference.py`.
struct Tokens {
    state: u64,
    vocab: u64,
}

impl Tokens {
    fn new(vocab: usize) -> Self {
        Self { state: 1, vocab: vocab as u64 }
    }

    fn next(&mut self) -> i32 {
        self.state = (self.state * 1_103_515_245 + 12_345) % (1 << 31);
        ((self.state >> 8) % self.vocab) as i32
    }

    fn batch(&mut self, rows: usize, len: usize) -> Batch {
        let ids: Vec<i32> = (0..rows * len).map(|_| self.next()).collect();
        let target = |i: usize| if i % len == len - 1 { lowrank::data::IGNORE } else { ids[i + 1] };
        let targets = (0..ids.len()).map(target).collect();
        let position = (0..ids.len()).map(|i| (i % len) as i32).collect();
        Batch { rows, len, targets, segment: vec![1; ids.len()], position, ids, ..Batch::default() }
    }
}

/// From here on [`peak_bytes`] is the most that is resident from here on, where the system has it so.
fn forget_peak() {
    let _ = std::fs::write(Path::new("/proc/self/clear_refs"), "5");
}

/// Processor time of all threads.
fn cpu_ms() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists and `time` is written before it is read.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}
