//! Folding an adapter into the weights under it: a plain Hugging Face model comes out.
//!
//! Tensor by tensor W + s·B·A in f32, cast once, written straight to the file: no more than one
//! tensor of the base is in memory. For embeddings it is W + s·(B·A)ᵀ. DoRA's magnitudes are then the lengths of the rows
//! (of an embedding, the columns).

mod dtype;
mod output;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};

use lowrank_kernels::host::matmul;

pub use self::dtype::OutDtype;
use self::output::{Output, Plan, Values};
use self::writer::Writer;
use super::peft::{AdapterTensors, PeftConfig};
use super::{Lengths, Module, Update};
use crate::models::{ModelConfig, WeightSource};
use crate::{Error, Result};

/// Rows of a weight that are changed at a time.
const ROWS: usize = 1024;

/// What a merge did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MergeReport {
    /// Tensors written, and how many of them differ from the base.
    pub tensors: usize,
    pub changed: usize,
    /// The head no longer shares the embedding's weight, because only one of them was adapted.
    pub untied: bool,
    /// The largest change that the cast made to a value, and where; 0 for f32.
    pub rounding: f32,
    pub rounding_tensor: String,
}

/// Writes `base` with `adapter` folded in to the new directory `out`: `config.json` and
/// `model.safetensors`. Tokenizer files are the caller's. `progress` hears of tensors done and in all.
///
/// # Errors
/// If `out` is the base or holds anything, if a tensor of the adapter has no place in the base, or
/// if a merged value is not finite in `dtype`. Nothing is left at `out` then.
pub fn merge(
    base: &dyn WeightSource,
    config: &ModelConfig,
    adapter: &(PeftConfig, AdapterTensors),
    dtype: OutDtype,
    out: &Path,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<MergeReport> {
    refuse_occupied(base, out)?;
    let (peft, tensors) = adapter;
    let plan = output::plan(base, config, &Module::list(config), &peft.adapter, tensors)?;
    publish(base, config, &plan, dtype, out, progress)
}

/// Writes `base` as it is, in another type, to the new directory `out`. Errors as for [`merge`].
pub fn convert(base: &dyn WeightSource, config: &ModelConfig, dtype: OutDtype, out: &Path) -> Result<MergeReport> {
    refuse_occupied(base, out)?;
    let outputs = config.tensors().into_iter().map(|(name, shape)| Output {
        values: Values::Base(name.clone()),
        name,
        shape,
        update: None,
    });
    let plan = Plan { outputs: outputs.collect(), untied: false };
    publish(base, config, &plan, dtype, out, &mut |_, _| {})
}

fn publish(
    base: &dyn WeightSource,
    config: &ModelConfig,
    plan: &Plan<'_>,
    dtype: OutDtype,
    out: &Path,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<MergeReport> {
    let staging = Staging::create(out)?;
    let mut writer = Writer::create(&staging.path.join("model.safetensors"), dtype, &plan.outputs)?;
    let mut report = MergeReport { tensors: plan.outputs.len(), untied: plan.untied, ..MergeReport::default() };
    for (done, output) in plan.outputs.iter().enumerate() {
        progress(done, plan.outputs.len());
        report.changed += usize::from(output.is_changed());
        let rounding = write(base, output, &mut writer)?;
        if rounding > report.rounding {
            (report.rounding, report.rounding_tensor) = (rounding, output.name.clone());
        }
    }
    writer.finish()?;
    progress(plan.outputs.len(), plan.outputs.len());
    let config = ModelConfig { tie_word_embeddings: config.tie_word_embeddings && !plan.untied, ..config.clone() };
    let path = staging.path.join("config.json");
    std::fs::write(&path, format!("{:#}\n", config.to_json(dtype.torch_name()))).map_err(Error::io(&path))?;
    staging.publish(out)?;
    Ok(report)
}

/// Merges one tensor and returns the largest rounding difference.
fn write(base: &dyn WeightSource, output: &Output, writer: &mut Writer) -> Result<f32> {
    let mut values = match &output.values {
        Values::Base(name) => base.read(name)?,
        Values::Adapter(tensor) => tensor.values.clone(),
    };
    if let Some(update) = &output.update {
        apply(update, &mut values);
    }
    writer.write(&output.name, &values)
}

/// Changes a weight `[rows, cols]` in place.
fn apply(update: &Update, values: &mut [f32]) {
    let (rank, cols) = (update.rank, update.cols);
    for (rows, left) in values.chunks_mut(ROWS * cols).zip(update.left.chunks(ROWS * rank)) {
        let product = matmul(left, [left.len() / rank, rank], &update.right, [rank, cols]);
        rows.iter_mut().zip(product).for_each(|(value, product)| *value += update.scaling * product);
    }
    match &update.magnitude {
        None => {}
        Some(Lengths::Rows(lengths)) => {
            for (row, length) in values.chunks_exact_mut(cols).zip(lengths) {
                let factor = factor(*length, row.iter().copied().map(square).sum());
                row.iter_mut().for_each(|value| *value = (f64::from(*value) * factor) as f32);
            }
        }
        Some(Lengths::Columns(lengths)) => rescale_columns(values, lengths),
    }
}

fn rescale_columns(values: &mut [f32], lengths: &[f32]) {
    let mut squares = vec![0.0; lengths.len()];
    for row in values.chunks_exact(lengths.len()) {
        squares.iter_mut().zip(row).for_each(|(sum, value)| *sum += square(*value));
    }
    let factors: Vec<f64> = lengths.iter().zip(squares).map(|(length, square)| factor(*length, square)).collect();
    for row in values.chunks_exact_mut(lengths.len()) {
        row.iter_mut().zip(&factors).for_each(|(value, factor)| *value = (f64::from(*value) * factor) as f32);
    }
}

fn square(value: f32) -> f64 {
    f64::from(value).powi(2)
}

/// What brings a vector of this squared length to `length`; zeros stay.
fn factor(length: f32, square: f64) -> f64 {
    if square > 0.0 { f64::from(length) / square.sqrt() } else { 0.0 }
}

fn refuse_occupied(base: &dyn WeightSource, out: &Path) -> Result<()> {
    let real = |path: &Path| path.canonicalize().ok();
    let source = real(base.path());
    if source.is_some() && (source == real(out) || source.as_deref().and_then(Path::parent) == real(out).as_deref()) {
        return Err(Error::input("the merged model would overwrite its own base").file(out).into());
    }
    match std::fs::read_dir(out) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Error::input("the output directory is not empty").file(out).into()),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(out)(error)),
    }
}

/// A directory beside its final place, removed unless it is published.
struct Staging {
    path: PathBuf,
}

impl Staging {
    fn create(out: &Path) -> Result<Self> {
        let name = out.file_name().ok_or_else(|| Error::input("not a directory name").file(out))?;
        let path = out.with_file_name(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
        std::fs::create_dir_all(&path).map_err(Error::io(&path))?;
        Ok(Self { path })
    }

    fn publish(self, out: &Path) -> Result<()> {
        if out.exists() {
            std::fs::remove_dir(out).map_err(Error::io(out))?;
        }
        std::fs::rename(&self.path, out).map_err(Error::io(out))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Gone already if it was published.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
