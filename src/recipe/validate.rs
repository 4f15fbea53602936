//! Values that have the right type and still cannot be meant: out of range, or contradicting each other.

use lowrank_kernels::four_bit::BLOCKS;

use super::shape::Problem;
use super::tree::{Part, child};
use super::{BaseCompute, EvalData, Format, HeadKind, Offload, Recipe, Schedule, Task};
use crate::adapters::{AdapterConfig, Shared, Spec, Targets};
use crate::data::{EXTENSIONS, Labels, split_fragment, unfit};
use crate::error::InputError;
use crate::{Error, Result};

/// Above this a size is a slip of the finger, and products of sizes could overflow.
const LARGEST: usize = 1 << 20;
/// Adam moves each weight by about the rate at each step.
const LARGEST_LR: f64 = 10.0;

pub(super) fn check(recipe: &Recipe) -> Vec<Problem> {
    let mut found = Findings::default();
    if recipe.version != 1 {
        found.push("version", InputError::new("this version reads recipes of format 1").found(recipe.version));
    }
    adapter(&recipe.adapter, recipe.train.max_steps, &mut found);
    base(recipe, &mut found);
    data(recipe, &mut found);
    head(recipe, &mut found);
    optim(recipe, &mut found);
    train(recipe, &mut found);
    found.found
}

/// What is wrong with a recipe's values, each with its key.
#[derive(Default)]
pub struct Findings {
    found: Vec<Problem>,
    /// Table that the keys are relative to.
    table: String,
}

impl Findings {
    pub fn push(&mut self, path: &str, error: InputError) {
        let path = self.full(path);
        self.found.push(Problem { path, part: Part::Value, error });
    }

    /// The key as a user knows it: `adapter.lora.rank`.
    pub fn full(&self, path: &str) -> String {
        if self.table.is_empty() { path.to_string() } else { child(&self.table, path) }
    }

    pub fn contradiction(&mut self, path: &str, what: &str, hint: &str) {
        self.push(path, InputError::new(what).hint(hint));
    }

    pub fn not_empty(&mut self, path: &str, text: &str) {
        if text.trim().is_empty() {
            self.push(path, InputError::new(format!("`{}` is empty", self.full(path))));
        }
    }

    pub fn size(&mut self, path: &str, size: usize, least: usize) {
        if !(least..=LARGEST).contains(&size) {
            let error = InputError::new(format!("`{}` is out of range", self.full(path))).found(size);
            self.push(path, error.expected(format!("{least} to {LARGEST}")));
        }
    }

    pub fn number(&mut self, path: &str, value: f64, allowed: impl Fn(f64) -> bool, expected: &str) {
        if !value.is_finite() || !allowed(value) {
            let error = InputError::new(format!("`{}` is out of range", self.full(path))).found(value);
            self.push(path, error.expected(expected));
        }
    }

    pub fn pattern(&mut self, path: &str, pattern: &str) {
        self.not_empty(path, pattern);
        if let Err(error) = regex::RegexBuilder::new(pattern).size_limit(1 << 20).build() {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_string();
            self.push(
                path,
                InputError::new(format!("`{}` is not a regular expression: {reason}", self.full(path))).found(pattern),
            );
        }
    }
}

fn adapter(adapter: &AdapterConfig, steps: Option<usize>, found: &mut Findings) {
    if let Some(spec) = adapter.spec() {
        found.table = format!("adapter.{}", adapter.name());
        shared(spec, found);
        spec.validate(found);
        if let Some(steps) = steps {
            adapter.clone().plan(steps, found);
        }
        found.table.clear();
    }
}

/// Lets the adapter plan for a run of `steps` optimizer steps.
///
/// # Errors
/// Input errors naming the keys that do not fit into so many steps.
pub fn plan(adapter: &mut AdapterConfig, steps: usize) -> Result<()> {
    let mut found = Findings { table: format!("adapter.{}", adapter.name()), ..Findings::default() };
    adapter.plan(steps, &mut found);
    let problems: Vec<_> = found.found.into_iter().map(|problem| problem.error.key(problem.path)).collect();
    if problems.is_empty() { Ok(()) } else { Err(Error::Inputs(problems)) }
}

fn shared(spec: &dyn Spec, found: &mut Findings) {
    let shared = spec.shared();
    let above_zero = |value: f64| value > 0.0;
    found.size(spec.rank_key(), shared.rank, 1);
    if spec.has_alpha() {
        found.number("alpha", shared.alpha, above_zero, "a number above 0");
    }
    found.number("dropout", shared.dropout, |p| (0.0..1.0).contains(&p), "0 or more, below 1");
    for (pattern, &rank) in &shared.rank_pattern {
        found.size(&child("rank_pattern", pattern), rank, 1);
        found.pattern(&child("rank_pattern", pattern), pattern);
    }
    for (pattern, &alpha) in &shared.alpha_pattern {
        found.number(&child("alpha_pattern", pattern), alpha, above_zero, "a number above 0");
        found.pattern(&child("alpha_pattern", pattern), pattern);
    }
    selection(&shared, found);
}

fn selection(shared: &Shared, found: &mut Findings) {
    match &shared.targets {
        Targets::Names(names) if names.is_empty() => {
            let what = format!("`{}` is empty, so nothing would train", found.full("targets"));
            found.push("targets", InputError::new(what));
        }
        Targets::Names(names) => {
            names.iter().enumerate().for_each(|(i, name)| found.not_empty(&format!("targets[{i}]"), name));
        }
        targets if targets.is_all_linear() || *targets == Targets::of_family() => {}
        Targets::Pattern(pattern) => {
            found.pattern("targets", pattern);
            if !shared.layers.is_empty() {
                let what = "`layers` needs targets by name; a regular expression already sees the layer number";
                found.contradiction("layers", what, "write the layer numbers into `targets`, or list names in it");
            }
        }
    }
    if let Targets::Pattern(pattern) = &shared.exclude {
        found.pattern("exclude", pattern);
    }
    if shared.layers.is_empty() && !shared.layers_pattern.is_empty() {
        let what = "`layers_pattern` says where the layer number stands, but `layers` lists none";
        found.contradiction("layers_pattern", what, "add `layers = [0, 1]`, or leave `layers_pattern` out");
    }
}

fn base(recipe: &Recipe, found: &mut Findings) {
    if let Some(quant) = recipe.base.quant {
        let block = quant.blocks().block;
        if !BLOCKS.contains(&block) {
            let path = format!("base.quant.{}.block", quant.format().code.name());
            let expected = BLOCKS.map(|block| block.to_string()).join(", ");
            found.push(&path, InputError::new("no such block size").found(block).expected(expected));
        }
        if matches!(recipe.adapter, AdapterConfig::Full(_)) {
            let what = "`base.quant` stores frozen weights, and [adapter.full] freezes none";
            found.contradiction("base.quant", what, "leave it out");
        }
    }
    if recipe.base.quant.is_none() && recipe.adapter.spec().is_some_and(|spec| spec.loftq().is_some()) {
        let what = "LoftQ starts from what `base.quant` takes off the weights, and this base is not quantised";
        let hint = "add `quant = { nf4 = {} }` to [base], or start in another way";
        found.contradiction(&format!("adapter.{}.init", recipe.adapter.name()), what, hint);
    }
    if recipe.base.compute != BaseCompute::F32 && recipe.storage().is_dense() {
        let what = "`base.compute` is about packed weights, and this base is plain f32";
        let hint = "add `base.quant`, also where the checkpoint has it already, or `model.dtype = \"bf16\"`";
        found.contradiction("base.compute", what, hint);
    }
}

fn data(recipe: &Recipe, found: &mut Findings) {
    let data = &recipe.data;
    found.not_empty("model.path", &recipe.model.path);
    found.not_empty("data.template", &data.template);
    corpus("data.train", &data.train, recipe.task, found);
    match &data.eval {
        Some(EvalData::Path(path)) => corpus("data.eval", path, recipe.task, found),
        Some(EvalData::Fraction { fraction }) => {
            found.number("data.eval.fraction", *fraction, |f| f > 0.0 && f < 1.0, "above 0 and below 1");
        }
        None if recipe.train.eval_generate > 0 => {
            let what = "`eval_generate` generates from evaluation rows, but `data.eval` is missing";
            found.contradiction("train.eval_generate", what, "add `eval = { fraction = 0.05 }` to [data]");
        }
        None => {}
    }
    if let Format::Columns(columns) = &data.format
        && columns.is_empty()
    {
        let error = InputError::new("`data.format.columns` maps no column");
        found.push("data.format.columns", error.expected("{ prompt = \"...\", completion = \"...\" }"));
    }
    for (key, what, hint) in unfit(data, recipe.task) {
        found.contradiction(key, &what, hint);
    }
    found.size("data.max_len", data.max_len, 2);
    if let Some(rows) = data.max_rows {
        found.number("data.max_rows", rows as f64, |rows| rows >= 1.0, "1 or more");
    }
}

fn head(recipe: &Recipe, found: &mut Findings) {
    let head = &recipe.head;
    found.number("head.temperature", head.temperature, |t| t > 0.0, "a number above 0");
    for (at, label) in head.labels.iter().enumerate() {
        found.not_empty(&format!("head.labels[{at}]"), label);
    }
    if !head.labels.is_empty() && head.kind == HeadKind::Number {
        let what = "`head.labels` names classes, and `head.kind` asks for a number";
        found.contradiction("head.labels", what, "leave one of them out");
    } else if !head.labels.is_empty()
        && let Err(Error::Input(error)) = Labels::given(&head.labels)
    {
        found.push("head.labels", InputError { place: None, ..*error });
    }
    if recipe.task == Task::QuestionAns && recipe.data.stride >= recipe.data.max_len {
        let error = InputError::new("windows that share all their tokens never end").found(recipe.data.stride);
        found.push("data.stride", error.expected(format!("below data.max_len = {}", recipe.data.max_len)));
    }
}

/// A file that has a reader, or a corpus that has a generator.
fn corpus(path: &str, name: &str, task: Task, found: &mut Findings) {
    if let Some(generator) = name.strip_prefix("synthetic:") {
        let known = crate::data::synthetic::names(task);
        if !known.contains(&generator) {
            let error = InputError::new(format!("no generated corpus `{generator}` of {}", task.name()));
            found.push(
                path,
                error.expected(known.iter().map(|name| format!("synthetic:{name}")).collect::<Vec<_>>().join(" | ")),
            );
        }
        return;
    }
    found.not_empty(path, name);
    let (file, _) = split_fragment(std::path::Path::new(name));
    let suffix = file.extension().and_then(|suffix| suffix.to_str()).unwrap_or_default();
    if !name.trim().is_empty() && !EXTENSIONS.contains(&suffix.to_ascii_lowercase().as_str()) {
        let error = InputError::new(format!("`{path}` names a file of unknown kind")).found(format!("`{name}`"));
        found.push(path, error.expected(format!("synthetic:NAME or .{}", EXTENSIONS.join(", ."))));
    }
}

fn optim(recipe: &Recipe, found: &mut Findings) {
    let adamw = &recipe.optim.adamw;
    let not_negative = |value: f64| value >= 0.0;
    found.number("optim.adamw.lr", adamw.lr, |lr| lr > 0.0 && lr <= LARGEST_LR, "above 0, at most 10");
    // The optimizer computes in f32: what rounds to 0 or 1 there would divide by zero.
    let below_one = |beta: f64| beta >= 0.0 && (beta as f32) < 1.0;
    let decay = |decay: f64| decay >= 0.0 && (decay as f32).is_finite();
    found.number("optim.adamw.weight_decay", adamw.weight_decay, decay, "0 or more");
    found.number("optim.adamw.beta1", adamw.beta1, below_one, "0 or more, below 1");
    found.number("optim.adamw.beta2", adamw.beta2, below_one, "0 or more, below 1");
    if let Some(eps) = adamw.eps {
        found.number("optim.adamw.eps", eps, |eps| eps as f32 > 0.0, "a number above 0 in f32");
    }
    found.number("optim.clip", recipe.optim.clip, not_negative, "0 (off) or more");
    if recipe.optim.offload == Offload::Host && matches!(recipe.adapter, AdapterConfig::None(_)) {
        let what = "`offload` says where the optimizer's moments lie, and [adapter.none] has no optimizer";
        found.contradiction("optim.offload", what, "leave it out");
    }
    lora_plus(recipe, found);
    schedule(recipe, found);
}

fn lora_plus(recipe: &Recipe, found: &mut Findings) {
    const KEY: &str = "optim.lora_plus_ratio";
    let Some(ratio) = recipe.optim.lora_plus_ratio else { return };
    let in_range = |ratio: f64| ratio >= 1.0 && ratio * recipe.optim.adamw.lr <= LARGEST_LR;
    found.number(KEY, ratio, in_range, "1 or more, and a rate of B (lr × ratio) of at most 10");
    let reason = match recipe.adapter.spec() {
        Some(spec) => spec.refuses_lora_plus(),
        None => Some("there is no A and no B"),
    };
    if let Some(reason) = reason {
        let what = format!("`{KEY}` means nothing with [adapter.{}]: {reason}", recipe.adapter.name());
        found.contradiction(KEY, &what, "leave it out");
    }
}

fn schedule(recipe: &Recipe, found: &mut Findings) {
    let (name, warmup) = match recipe.optim.schedule {
        Schedule::Constant { warmup } => ("constant", warmup),
        Schedule::Linear { warmup } => ("linear", warmup),
        Schedule::Cosine { warmup } => ("cosine", warmup),
        Schedule::InverseSqrt { warmup } => ("inverse_sqrt", warmup),
        Schedule::Polynomial { warmup, power, end } => {
            found.number("optim.schedule.polynomial.power", power, |power| power > 0.0, "a number above 0");
            found.number("optim.schedule.polynomial.end", end, |end| (0.0..=1.0).contains(&end), "0 to 1");
            ("polynomial", warmup)
        }
    };
    let path = format!("optim.schedule.{name}.warmup");
    let expected = "a fraction of all steps below 1, or a whole number of steps";
    found.number(&path, warmup, |warmup| warmup >= 0.0 && (warmup < 1.0 || warmup.fract() == 0.0), expected);
    if let Some(steps) = recipe.train.max_steps
        && warmup >= 1.0
        && warmup > steps as f64
    {
        let error = InputError::new("warm-up is longer than the run").found(format!("{warmup} steps"));
        found.push(&path, error.expected(format!("at most train.max_steps = {steps}")));
    }
}

fn train(recipe: &Recipe, found: &mut Findings) {
    let train = &recipe.train;
    found.size("train.batch", train.batch, 1);
    found.size("train.accumulate", train.accumulate, 1);
    found.size("train.epochs", train.epochs, 1);
    found.size("train.keep", train.keep, 1);
    found.size("log.every", recipe.log.every, 1);
    if train.max_steps == Some(0) {
        let what = "`train.max_steps` is 0, so nothing would train";
        found.contradiction("train.max_steps", what, "[adapter.none] evaluates without training");
    }
    init_from(recipe, found);
    if train.gradient_checkpointing && matches!(recipe.adapter, AdapterConfig::None(_)) {
        let what = "`gradient_checkpointing` saves memory of a backward pass, and [adapter.none] has none";
        found.contradiction("train.gradient_checkpointing", what, "leave it out");
    }
}

fn init_from(recipe: &Recipe, found: &mut Findings) {
    let Some(path) = &recipe.train.init_from else { return };
    found.not_empty("train.init_from", path);
    let Some(spec) = recipe.adapter.spec() else {
        let what = format!("`init_from` names an adapter, and [adapter.{}] has none", recipe.adapter.name());
        return found.contradiction("train.init_from", &what, "leave it out");
    };
    if spec.chooses_start() {
        let what = "`init` chooses how the adapter starts, and `train.init_from` does so too";
        found.contradiction(&format!("adapter.{}.init", recipe.adapter.name()), what, "leave one of them out");
    }
}
