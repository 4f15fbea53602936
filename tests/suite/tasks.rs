//! Every task against transformers and PEFT, on tiny models with random weights: a directory of `tests/golden/tasks` each.

use std::path::{Path, PathBuf};

use lowrank::adapters::merge::{OutDtype, merge};
use lowrank::adapters::{AdapterConfig, BiasMode, LoraConfig, Module, Origin, peft, trainable};
use lowrank::data::{Batch, Contrast, Goal, IGNORE};
use lowrank::models::families::Reads;
use lowrank::models::{self, Opened, Outline};
use lowrank::recipe::{BaseDtype, Blocks, Pooling, Quant, Task};
use lowrank::runtime::{Base, Learner, Micro, Runtime};
use lowrank::train::attach_saved;

use super::golden::{Fixtures, assert_close, attach, difference, e2e, load, one_after_the_other};

const TOLERANCE: f32 = 1e-4;

/// The directories.
const SETS: &[&str] = &[
    "bert/seq_cls",
    "bert/seq_reg",
    "bert/token_cls",
    "bert/qa",
    "bert/features",
    "roberta/seq_cls",
    "roberta/seq_reg",
    "roberta/token_cls",
    "roberta/qa",
    "roberta/features",
    "distilbert/seq_cls",
    "distilbert/seq_reg",
    "distilbert/token_cls",
    "distilbert/qa",
    "distilbert/features",
    "gpt2/seq_cls",
    "gpt2/seq_reg",
    "llama/seq_cls",
    "llama/seq_reg",
    "llama/token_cls",
    "llama/qa",
];

/// Batches of a directory: right-padded; left-padded with positions as transformers has them; with those of each text's own.
const SIDES: [&str; 3] = ["", "left.", "left_positions."];

const ADAPTERS: [&str; 2] = ["lora_default", "lora_all_linear"];

struct Set {
    name: &'static str,
    opened: Opened,
    golden: Fixtures,
}

fn sets() -> impl Iterator<Item = Set> {
    SETS.iter().map(|name| Set::new(name))
}

fn dir(name: &str) -> PathBuf {
    e2e("../tasks").join(name)
}

/// The rows of stacked batch number `k`, or all that there are.
fn rows<T: Clone>((shape, values): (Vec<usize>, Vec<T>), k: Option<usize>) -> (Vec<usize>, Vec<T>) {
    let Some(k) = k else { return (shape, values) };
    let size: usize = shape[1..].iter().product();
    (shape[1..].to_vec(), values[k * size..(k + 1) * size].to_vec())
}

impl Set {
    fn new(name: &'static str) -> Self {
        let opened = models::open(&dir(name).join("base").display().to_string(), Path::new("/")).unwrap();
        assert!(opened.fresh_head().is_empty(), "{name}");
        Self { name, opened, golden: Fixtures::read(dir(name).join("fixtures.safetensors")) }
    }

    fn kind(&self) -> &str {
        self.name.split('/').next_back().unwrap()
    }

    fn base(&self, runtime: &dyn Runtime) -> Box<dyn Base> {
        load(runtime, &self.opened, BaseDtype::F32)
    }

    fn plain(&self, runtime: &dyn Runtime) -> Box<dyn Learner> {
        attach(self.base(runtime).as_ref(), &AdapterConfig::none(), 0)
    }

    fn adapted(&self, runtime: &dyn Runtime, adapter: &str) -> Box<dyn Learner> {
        let (learner, config) =
            attach_saved(self.base(runtime).as_ref(), &self.opened.config, &self.adapter(adapter)).unwrap();
        let expected = if adapter == "lora_all_linear" && self.has_idle_pooler() { 1 } else { 0 };
        assert_eq!(config.warnings.len(), expected, "{} {adapter}: {:?}", self.name, config.warnings);
        learner
    }

    /// Whether PEFT's `all-linear` has a layer that the task does not read.
    fn has_idle_pooler(&self) -> bool {
        ["bert/features", "roberta/features"].contains(&self.name)
    }

    /// Whether the loss depends on the outputs of padding, which decoders have others of: transformers shows it the text.
    fn loss_has_padding(&self) -> bool {
        self.name == "llama/qa"
    }

    fn adapter(&self, adapter: &str) -> PathBuf {
        dir(self.name).join("adapters").join(adapter)
    }

    fn sides(&self) -> impl Iterator<Item = &'static str> {
        SIDES.into_iter().filter(|side| self.golden.has(&format!("{side}input_ids")))
    }

    /// The batch under `prefix`.
    fn batch(&self, prefix: &str, k: Option<usize>) -> Batch {
        let ints = |name: &str| rows(self.golden.i64(&format!("{prefix}{name}")), k);
        let (shape, ids) = ints("input_ids");
        let whole = |values: Vec<i64>| values.into_iter().map(|value| value as i32).collect::<Vec<_>>();
        let segment = whole(ints("attention_mask").1);
        let mut batch = Batch { rows: shape[0], len: shape[1], ids: whole(ids), segment, ..Batch::default() };
        batch.position = match self.golden.has(&format!("{prefix}position_ids")) {
            true => whole(ints("position_ids").1),
            false => self.positions(&batch),
        };
        if self.golden.has(&format!("{prefix}token_type_ids")) {
            batch.token_type = whole(ints("token_type_ids").1);
        }
        batch.targets = vec![IGNORE; batch.ids.len()];
        self.ask(&mut batch, prefix, k);
        batch
    }

    /// Those of transformers: padding counts, but in RoBERTa's, which have a place of their own for it.
    fn positions(&self, batch: &Batch) -> Vec<i32> {
        let rows = batch.segment.chunks(batch.len);
        if self.opened.config.model_type != "roberta" {
            return rows.flat_map(|row| 0..row.len() as i32).collect();
        }
        let count = |count: &mut i32, segment: &i32| {
            *count += i32::from(*segment != 0);
            Some(if *segment == 0 { -1 } else { *count - 1 })
        };
        rows.flat_map(|row| row.iter().scan(0, count).collect::<Vec<_>>()).collect()
    }

    /// What is asked about the rows.
    fn ask(&self, batch: &mut Batch, prefix: &str, k: Option<usize>) {
        let ints = |name: &str| rows(self.golden.i64(&format!("{prefix}{name}")), k).1;
        match self.kind() {
            "seq_cls" => {
                let labels = ints("labels");
                self.read(batch).into_iter().zip(labels).for_each(|(at, label)| batch.targets[at] = label as i32);
            }
            "seq_reg" => {
                self.read(batch).into_iter().for_each(|at| batch.targets[at] = 0);
                let first = k.unwrap_or(0) * batch.rows;
                let labels = self.golden.f32(&format!("{prefix}labels"));
                batch.goal = Goal::Numbers(labels[first..first + batch.rows].to_vec());
            }
            "token_cls" => {
                batch.targets =
                    ints("labels").into_iter().map(|label| if label < 0 { IGNORE } else { label as i32 }).collect();
            }
            "qa" => {
                let spans = ints("start_positions").into_iter().zip(ints("end_positions"));
                batch.goal = Goal::Spans(spans.map(|(start, end)| [start as i32, end as i32]).collect());
            }
            _ => {
                let contrast = Contrast { anchors: batch.rows / 2, pooling: Pooling::Mean, temperature: 1.0 / 20.0 };
                batch.goal = Goal::Alike(contrast);
            }
        }
    }

    /// The positions that the head is asked about, of whole texts one in each row.
    fn read(&self, batch: &Batch) -> Vec<usize> {
        let seen = |row: usize| (row * batch.len..(row + 1) * batch.len).filter(|&at| batch.segment[at] != 0);
        let of_row = |row: usize| match self.opened.config.head().reads {
            Reads::Every => seen(row).collect::<Vec<_>>(),
            Reads::First => seen(row).next().into_iter().collect(),
            Reads::Last => seen(row).next_back().into_iter().collect(),
        };
        (0..batch.rows).flat_map(of_row).collect()
    }

    /// Outputs at the positions read, `kind` being what a fixture's name has before that of the outputs.
    fn expected(&self, kind: &str, batch: &Batch) -> Vec<f32> {
        let values = |name: &str| self.golden.f32(&format!("{kind}{name}"));
        let every = |values: Vec<f32>| {
            let width = values.len() / batch.ids.len();
            let at = self.read(batch).into_iter();
            at.flat_map(|at| values[at * width..(at + 1) * width].to_vec()).collect::<Vec<_>>()
        };
        match self.kind() {
            "qa" => {
                let ends = every(values("end_logits"));
                every(values("start_logits")).into_iter().zip(ends).flat_map(|(start, end)| [start, end]).collect()
            }
            "features" => every(values("last_hidden_state")),
            "token_cls" => every(values("logits")),
            _ => values("logits"),
        }
    }

    fn outputs(&self, learner: &dyn Learner, batch: &Batch) -> Vec<f32> {
        let all = learner.logits(batch).unwrap();
        let width = all.len() / batch.ids.len();
        self.read(batch).into_iter().flat_map(|at| all[at * width..(at + 1) * width].to_vec()).collect()
    }

    #[track_caller]
    fn check(&self, learner: &dyn Learner, who: &str, side: &str) {
        let (batch, what) = (self.batch(side, None), format!("{} {who} {side}", self.name));
        assert_close(
            &self.outputs(learner, &batch),
            &self.expected(&format!("{who}.{side}"), &batch),
            TOLERANCE,
            &what,
        );
        let name = format!("{who}.{side}loss");
        if self.golden.has(&name) && !self.loss_has_padding() {
            let expected = self.golden.f32(&name);
            let loss = learner.loss(&batch).unwrap() / batch.terms() as f64;
            assert_close(&[loss as f32], &expected, TOLERANCE, &format!("{what} loss"));
        }
    }
}

pub fn base_outputs_and_losses(runtime: &dyn Runtime) {
    for set in sets() {
        let learner = set.plain(runtime);
        set.sides().for_each(|side| set.check(learner.as_ref(), "base", side));
        if set.kind() == "features" {
            let batch = set.batch("train.", Some(0));
            let loss = learner.loss(&batch).unwrap() / batch.terms() as f64;
            assert_close(&[loss as f32], &set.golden.f32("base.train0_info_nce"), TOLERANCE, set.name);
        }
    }
}

pub fn adapters_written_by_peft(runtime: &dyn Runtime) {
    for set in sets() {
        for adapter in ADAPTERS {
            let learner = set.adapted(runtime, adapter);
            let sides = set.sides().filter(|side| side.is_empty() || adapter == "lora_default");
            sides.for_each(|side| set.check(learner.as_ref(), adapter, side));
            let batch = set.batch("", None);
            let [ours, base] = [adapter, "base"].map(|who| set.expected(&format!("{who}."), &batch));
            assert!(difference(&ours, &base) > 0.01, "{} {adapter} changes nothing", set.name);
        }
    }
}

/// Of the head too. Recomputed blocks give the same.
pub fn first_gradients(runtime: &dyn Runtime) {
    for set in sets().filter(|set| !set.loss_has_padding()) {
        let (adapter, mut heads) = (ADAPTERS[0], 0);
        let prefix = format!("{adapter}.grad0.base_model.model.");
        for gradient_checkpointing in [false, true] {
            let mut learner = set.adapted(runtime, adapter);
            let batch = set.batch("train.", Some(0));
            let micro = Micro { weight: 1.0 / batch.terms() as f64, gradient_checkpointing, ..Micro::default() };
            learner.accumulate(&batch, &micro).unwrap();
            let gradients = learner.gradients();
            for name in set.golden.names().iter().filter(|name| name.starts_with(&prefix)) {
                let path = match name[prefix.len()..].split_once(".modules_to_save") {
                    Some((module, field)) => format!("{module}{field}"),
                    None => name[prefix.len()..].trim_end_matches(".weight").to_string(),
                };
                heads += usize::from(!path.contains("lora_"));
                let Some(gradient) = gradients.get(&path) else { panic!("{}: nothing for {path}", set.name) };
                assert_close(gradient, &set.golden.f32(name), TOLERANCE, &format!("{} {name}", set.name));
            }
        }
        assert_eq!(heads > 0, set.kind() != "features", "{}", set.name);
    }
}

pub fn twenty_steps_equal_peft(runtime: &dyn Runtime) {
    for set in sets().filter(|set| !set.loss_has_padding()) {
        let trace = std::fs::read(dir(set.name).join("trace.json")).unwrap();
        let trace: serde_json::Value = serde_json::from_slice(&trace).unwrap();
        for adapter in ADAPTERS {
            let mut learner = set.adapted(runtime, adapter);
            let steps = trace["adapters"][adapter]["trace"].as_array().unwrap();
            assert_eq!(steps.len(), 20);
            for (k, expected) in steps.iter().enumerate() {
                let (batch, expected) = (set.batch("train.", Some(k)), expected.as_f64().unwrap());
                let micro = Micro { weight: 1.0 / batch.terms() as f64, ..Micro::default() };
                let loss = learner.accumulate(&batch, &micro).unwrap().loss / batch.terms() as f64;
                learner.step(1e-3, 1.0);
                let close = (loss - expected).abs() < 1e-4 * expected.max(0.1);
                assert!(close, "{} {adapter} step {k}: {loss}, PEFT {expected}", set.name);
            }
        }
    }
}

/// What a merge writes is a model of its own, of the same task, its head trained.
pub fn merged_models_open(runtime: &dyn Runtime) {
    for set in sets() {
        let (config, dir) = (&set.opened.config, set.adapter(ADAPTERS[0]));
        let adapter = peft::read(&dir, &config.model_type, &Module::list(config)).unwrap();
        let parent = tempfile::tempdir().unwrap();
        let out = parent.path().join("merged");
        merge(set.opened.weights.as_ref(), config, &adapter, OutDtype::F32, &out, &mut |_, _| {}).unwrap();
        set.opened.tokenizer.save(&out).unwrap();
        let merged = models::open(&out.display().to_string(), Path::new("/")).unwrap();
        assert_eq!((merged.config.task, &merged.config.labels), (config.task, &config.labels), "{}", set.name);
        let learner = attach(load(runtime, &merged, BaseDtype::F32).as_ref(), &AdapterConfig::none(), 0);
        let (batch, what) = (set.batch("", None), format!("{}, merged", set.name));
        let expected = set.expected(&format!("{}.merged_", ADAPTERS[0]), &batch);
        assert_close(&set.outputs(learner.as_ref(), &batch), &expected, TOLERANCE, &what);
    }
}

/// With every weight training, and with biases and a whole norm: what was told beforehand trains, and recomputed blocks give the
/// same gradients.
pub fn everything_may_train(runtime: &dyn Runtime) {
    for set in sets() {
        let (config, base) = (&set.opened.config, set.base(runtime));
        let modules = Module::list(config);
        let norm = modules.iter().find(|module| !module.is_adaptable()).unwrap().path.clone();
        let biases = LoraConfig { bias: BiasMode::All, modules_to_save: vec![norm], ..LoraConfig::default() };
        for adapter in [AdapterConfig::full(), biases.into()] {
            let selected = adapter.select(&modules, Origin::Recipe).unwrap();
            let gradients = [false, true].map(|gradient_checkpointing| {
                let mut learner = attach(base.as_ref(), &adapter, 1);
                assert_eq!(
                    learner.trainable(),
                    trainable(&Outline::of(config), &adapter, &selected),
                    "{} {}",
                    set.name,
                    adapter.name()
                );
                let micro = Micro { weight: 0.01, gradient_checkpointing, ..Micro::default() };
                learner.accumulate(&set.batch("train.", Some(0)), &micro).unwrap();
                learner.gradients()
            });
            assert_eq!(gradients[0].len(), gradients[1].len(), "{}", set.name);
            for (path, plain) in &gradients[0] {
                assert_close(&gradients[1][path], plain, 1e-5, &format!("{} {path}", set.name));
            }
        }
    }
}

/// What encoders see of each other's texts is nothing, be they rows or parts of one; and a row of padding alone is no harm.
pub fn texts_do_not_see_each_other(runtime: &dyn Runtime) {
    for set in sets().filter(|set| set.kind() == "token_cls") {
        let learner = set.plain(runtime);
        let apart = set.batch("", None);
        let expected = learner.logits(&apart).unwrap();
        let mut packed = Batch { rows: 1, len: apart.ids.len(), ..apart.clone() };
        let text = |(at, segment): (usize, &mut i32)| *segment *= 1 + (at / apart.len) as i32;
        packed.segment.iter_mut().enumerate().for_each(text);
        let [ours, expected] = [learner.logits(&packed).unwrap(), expected].map(|logits| {
            let width = logits.len() / apart.ids.len();
            set.read(&apart)
                .into_iter()
                .flat_map(|at| logits[at * width..(at + 1) * width].to_vec())
                .collect::<Vec<_>>()
        });
        assert_close(&ours, &expected, 1e-5, set.name);

        let empty =
            Batch { segment: vec![0; apart.ids.len()], targets: vec![IGNORE; apart.ids.len()], ..apart.clone() };
        let both = one_after_the_other(&apart, &empty);
        let both = Batch { token_type: [&apart.token_type[..], &apart.token_type].concat(), ..both };
        assert!(learner.logits(&both).unwrap().iter().all(|logit| logit.is_finite()), "{}", set.name);
        assert!((learner.loss(&both).unwrap() - learner.loss(&apart).unwrap()).abs() < 1e-4, "{}", set.name);
    }
}

/// Linear layers of blocks in four bits, whatever they are called; the head stays.
pub fn four_bit_bases_are_close(runtime: &dyn Runtime) {
    for set in sets().filter(|set| set.kind() == "seq_cls") {
        let batch = set.batch("", None);
        let [plain, packed] = [None, Some(Quant::Nf4(Blocks::default()))].map(|quant| {
            let storage = lowrank::recipe::BaseStorage { quant, ..Default::default() };
            load(runtime, &set.opened, storage)
        });
        assert!(packed.bytes() < plain.bytes() * 3 / 4, "{}: {} of {}", set.name, packed.bytes(), plain.bytes());
        let [exact, rounded] =
            [plain, packed].map(|base| attach(base.as_ref(), &AdapterConfig::none(), 0).loss(&batch).unwrap());
        assert!(exact != rounded && (exact - rounded).abs() < 0.2 * exact, "{}: {exact}, {rounded}", set.name);
    }
}

/// A file without the task's head gets one, and says so.
pub fn heads_are_made_where_there_are_none(runtime: &dyn Runtime) {
    for (name, task, fresh) in [
        ("bert/token_cls", Task::SeqCls, 4),
        ("bert/features", Task::SeqCls, 2),
        ("bert/seq_cls", Task::FeatureExtraction, 0),
        ("roberta/features", Task::SeqCls, 4),
        ("roberta/seq_cls", Task::TokenCls, 2),
        ("distilbert/qa", Task::SeqCls, 4),
        ("distilbert/seq_cls", Task::QuestionAns, 2),
    ] {
        let opened =
            models::open_for(&dir(name).join("base").display().to_string(), Path::new("/"), Some(task)).unwrap();
        assert_eq!(opened.fresh_head().len(), fresh, "{name}: {:?}", opened.fresh_head());
        let opened = opened.with_labels(&["yes".to_string(), "no".to_string()]).unwrap();
        let learner = attach(load(runtime, &opened, BaseDtype::F32).as_ref(), &AdapterConfig::none(), 0);
        let batch = Set::new(SETS.iter().find(|set| **set == name).unwrap()).batch("", None);
        let width = if task == Task::FeatureExtraction { opened.config.hidden_size } else { 2 };
        let logits = learner.logits(&batch).unwrap();
        assert_eq!(logits.len(), width * batch.ids.len(), "{name}");
        assert!(logits.iter().all(|logit| logit.is_finite()), "{name}");
    }
}
