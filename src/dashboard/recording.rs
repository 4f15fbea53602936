//! Plausible runs, made up by arithmetic: the same on every machine.

use std::path::PathBuf;

use indexmap::IndexMap;
use serde_json::json;

use crate::compare::{Mode, Plan};
use crate::events::{Eval, Event, ModuleNorm, ModuleRank, Record, Status, Step, Verify};

pub const STEPS: usize = 200;

pub fn path() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/events/metrics.jsonl").into()
}

/// A run that ends near `floor`, with noise of its own.
pub struct Script {
    pub run: &'static str,
    pub floor: f64,
    pub seed: u64,
}

/// A comparison of four variants with two seeds.
pub fn plan() -> Plan {
    let variants = ["lora", "adalora", "vera", "dora"].map(String::from).into();
    Plan {
        name: "tiny/methods".into(),
        reference: "lora".into(),
        mode: Mode::Race,
        metric: None,
        seeds: vec![0, 1],
        variants,
        sweeps: Vec::new(),
    }
}

/// Its records, as they come: in the first seed dora diverges at step 60, in the second the others are at step `last`, and dora
/// has not begun.
pub fn race(last: usize) -> Vec<Record> {
    let floors = [0.92, 0.84, 1.31];
    let script = |run, floor, seed| Script { run, floor, seed }.records();
    let mut first = vec![
        script("lora/seed-0", floors[0], 1),
        script("adalora/seed-0", floors[1], 2),
        script("vera/seed-0", floors[2], 3),
    ];
    first.push(diverging(script("dora/seed-0", 0.9, 4), 60));
    let mut second = vec![
        script("lora/seed-1", floors[0] + 0.02, 5),
        script("adalora/seed-1", floors[1] + 0.03, 6),
        script("vera/seed-1", floors[2] - 0.02, 7),
    ];
    second.iter_mut().for_each(|run| run.retain(|record| record.t <= last as f64 / 5.0 + 1.0));
    let mut records: Vec<_> = in_turns(first).into_iter().chain(in_turns(second)).collect();
    records.iter_mut().filter(|record| record.run.starts_with("adalora")).for_each(rank_budget);
    records
}

fn in_turns(runs: Vec<Vec<Record>>) -> Vec<Record> {
    let mut records = runs.concat();
    records.sort_by(|a, b| a.t.total_cmp(&b.t));
    records
}

/// The run up to a step whose loss is no number.
fn diverging(mut records: Vec<Record>, at: usize) -> Vec<Record> {
    records.truncate(records.iter().position(|r| r.event.step() == Some(at)).unwrap_or(records.len()));
    let Some(t) = records.last().map(|record| record.t) else { return records };
    let step = Step { step: at, loss: f64::NAN, ..Step::default() };
    let ended = Event::RunEnded { status: Status::Diverged, seconds: t, verify: None };
    records.extend([Event::Step(step), ended].map(|event| Record { run: "dora/seed-0".into(), t, event }));
    records
}

/// Makes a run's recipe that of AdaLoRA, and its norms ranks that shrink.
fn rank_budget(record: &mut Record) {
    let run = record.run.clone();
    match &mut record.event {
        Event::RunStarted(start) => {
            start.plan["adapter"] = json!({"adalora": {"init_rank": 12, "target_rank": 3, "final_steps": 60}});
        }
        Event::Norms { step, .. } => {
            let event = ranks(&run, 12 - *step / 25, *step).event;
            *record = Record { event, ..record.clone() };
        }
        _ => {}
    }
}

impl Script {
    pub fn records(&self) -> Vec<Record> {
        let mut noise = Noise(self.seed);
        let mut records = vec![self.record(0, self.started())];
        let text = "rows longer than 128 tokens were dropped".into();
        records.push(self.record(0, Event::Warning { code: "over_length".into(), text, count: 2 }));
        records.extend(self.evaluation(0));
        for step in 1..=STEPS {
            records.push(self.record(step, self.step(step, &mut noise)));
            if step % 50 == 0 {
                records.extend(self.evaluation(step));
                let path = format!("runs/2026-11-21-tiny-{}/checkpoints/step-{step:06}", self.run);
                records.push(self.record(step, Event::Saved { step, path }));
            }
        }
        let verify = Some(Verify { max_abs_logit_diff: 2.4e-7 });
        records.push(self.record(STEPS, Event::RunEnded { status: Status::Finished, seconds: 41.0, verify }));
        records
    }

    fn record(&self, step: usize, event: Event) -> Record {
        Record { run: self.run.into(), t: step as f64 / 5.0 + 1.0, event }
    }

    pub fn loss(&self, step: usize) -> f64 {
        self.floor + 2.1 * (-(step as f64) / 38.0).exp()
    }

    fn started(&self) -> Event {
        let plan = json!({
            "model": {"path": "tiny", "dtype": "f32"}, "adapter": {"lora": {"rank": 8, "alpha": 16.0}},
            "data": {"train": "synthetic:menu"}, "train": {"batch": 8, "accumulate": 1},
            "optim": {"clip": 1.0, "schedule": {"cosine": {"warmup": 0.03}}},
        });
        let memory = json!({"base": 4_718_592, "adapter": 524_288, "optimizer": 1_048_576, "activations": 62_914_560,
            "peak": 150_994_944});
        serde_json::from_value(json!({
            "event": "run_started", "plan": plan, "command": ["lowrank", "train", "tiny/lora"],
            "versions": {"lowrank": "0.1.0"}, "hashes": {}, "params_trainable": 49_152, "params_total": 1_161_728,
            "device": "flex", "memory": memory, "steps": STEPS, "resumed_from": 0,
        }))
        .unwrap()
    }

    fn step(&self, step: usize, noise: &mut Noise) -> Event {
        let warm = (step as f64 / 6.0).min(1.0);
        let rate = 2e-3 * warm * 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / STEPS as f64).cos());
        let ms = 196.0 + 8.0 * noise.next();
        Event::Step(Step {
            step,
            loss: self.loss(step) + 0.16 * noise.next(),
            lr: IndexMap::from([("default".to_string(), rate)]),
            grad_norm: 0.4 + 1.8 * (-(step as f64) / 60.0).exp() + 0.1 * noise.next(),
            tokens: (410.0 + 30.0 * noise.next()) as usize,
            step_ms: ms,
            forward_ms: 0.34 * ms,
            backward_ms: 0.55 * ms,
            optimizer_ms: 0.06 * ms,
            skipped: 0,
            mem_bytes: 118_489_088 + 65_536 * (step as u64 % 16),
            peak_mem_bytes: 124_780_544,
        })
    }

    fn evaluation(&self, step: usize) -> Vec<Record> {
        let loss = self.loss(step) + 0.03;
        let exact = (1.9 - 0.9 * loss).clamp(0.0, 1.0);
        let metrics = [("perplexity", loss.exp()), ("exact_match", exact)];
        let metrics = metrics.map(|(name, value)| (name.to_string(), value)).into_iter().collect();
        let text = if step < 100 { "the inn the inn serves" } else { "Loch Fyne serves fish by the river." };
        let prompt = "name[Loch Fyne], food[fish]\n".into();
        vec![
            self.record(step, Event::Eval(Eval { step, loss, metrics })),
            self.record(step, Event::Norms { step, modules: norms(step) }),
            self.record(step, Event::Sample { step, prompt, text: text.into() }),
        ]
    }
}

fn modules(layers: usize) -> impl Iterator<Item = (usize, usize, String)> {
    const KINDS: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    let name = |layer: usize, i: usize| {
        let block = if i < 4 { "self_attn" } else { "mlp" };
        (layer, i, format!("model.layers.{layer}.{block}.{}", KINDS[i]))
    };
    (0..layers).flat_map(move |layer| (0..KINDS.len()).map(move |i| name(layer, i)))
}

fn norms(step: usize) -> Vec<ModuleNorm> {
    let grown = 1.0 - (-(step as f64) / 80.0).exp();
    let weight = |layer: usize, i: usize| (0.3 + 0.22 * layer as f64) * [0.8, 0.5, 1.4, 1.1, 0.9, 1.0, 1.5][i];
    modules(4).map(|(layer, i, name)| ModuleNorm { name, update_norm: grown * weight(layer, i) }).collect()
}

/// Ranks of a deeper model, at most `most` of 12, as a method with a rank budget reports them.
pub fn ranks(run: &str, most: usize, step: usize) -> Record {
    let active = |layer: usize, i: usize| ((layer * (i + 2) / 9 + i) % 13).min(most);
    let modules: Vec<_> = modules(24)
        .map(|(layer, i, name)| ModuleRank { name, active: active(layer, i), total: 12, importance: 0.01 })
        .collect();
    let budget = modules.iter().map(|module| module.active).sum();
    Record { run: run.into(), t: 41.0, event: Event::Ranks { step, budget, modules } }
}

/// Uniform in -1 to 1 (Knuth's MMIX generator).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

#[test]
#[ignore = "writes the recording that the other tests read"]
fn write_the_recording() {
    use crate::events::{Jsonl, Sink};
    let _ = std::fs::remove_file(path());
    let mut jsonl = Jsonl::append(path()).unwrap();
    Script { run: "lora", floor: 0.92, seed: 1 }.records().iter().for_each(|record| jsonl.record(record));
}
