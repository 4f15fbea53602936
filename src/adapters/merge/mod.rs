//! Folding an adapter into the weights under it: a plain Hugging Face model comes out.
//!
//! Tensor by tensor W + s·B·A in f32, cast once (or quantised again), written straight to the file: no more than one
//! tensor of the base is in memory. For embeddings it is W + s·(B·A)ᵀ. DoRA's magnitudes are then the lengths of the rows
//! (of an embedding, the columns).

mod dtype;
#[cfg(test)]
mod four_bit_tests;
mod merged;
mod output;
mod packed;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};

use lowrank_kernels::host::matmul;

pub use self::dtype::OutDtype;
pub use self::merged::{Form, Merged};
use self::writer::Writer;
use super::peft::{AdapterTensors, PeftConfig};
use super::{Lengths, Update};
use crate::models::arranged::transposed;
use crate::models::{ModelConfig, WeightSource, bnb, stored_format};
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
    write(&Merged::new(base, config, adapter, Form::Dense)?, dtype, out, progress)
}

/// Writes `base` as it is, in another type, to the new directory `out`. Errors as for [`merge`].
pub fn convert(base: &dyn WeightSource, config: &ModelConfig, dtype: OutDtype, out: &Path) -> Result<MergeReport> {
    write(&Merged::plain(base, config, Form::Dense), dtype, out, &mut |_, _| {})
}

/// Writes a merged model to the new directory `out`; what it has in four bits as bitsandbytes does. Errors as for
/// [`merge`].
pub fn write(
    model: &Merged<'_>,
    dtype: OutDtype,
    out: &Path,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<MergeReport> {
    refuse_occupied(model, out)?;
    let staging = Staging::create(out)?;
    let report = weights(model, dtype, &staging.path.join("model.safetensors"), progress)?;
    let mut config = model.config().to_json(dtype.torch_name());
    if let Some(format) = stored_format(model) {
        config["quantization_config"] = bnb::config_to_json(format, dtype.torch_name(), &model.linears_in_floats());
    }
    let path = staging.path.join("config.json");
    std::fs::write(&path, format!("{config:#}\n")).map_err(Error::io(&path))?;
    staging.publish(out)?;
    Ok(report)
}

fn weights(
    model: &Merged<'_>,
    dtype: OutDtype,
    path: &Path,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<MergeReport> {
    let tensors = model.tensors().count();
    let mut report =
        MergeReport { tensors, changed: model.changed(), untied: model.is_untied(), ..MergeReport::default() };
    let mut writer = Writer::create(path, packed::layout(model, dtype), &packed::states(model))?;
    for (done, (name, shape)) in model.tensors().enumerate() {
        progress(done, tensors);
        if let Some(quantised) = model.four_bit(name)? {
            packed::write((name, shape), &quantised, dtype, &mut writer)?;
            continue;
        }
        let values = match (model.read(name)?, shape) {
            (values, &[rows, cols]) if model.is_transposed(name) => transposed(&values, [rows, cols]),
            (values, _) => values,
        };
        let rounding = writer.values(name, &values, dtype)?;
        if rounding > report.rounding {
            (report.rounding, report.rounding_tensor) = (rounding, name.to_string());
        }
    }
    writer.finish()?;
    progress(tensors, tensors);
    Ok(report)
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
    refuse_filled(out)
}

/// An output directory may exist, but hold nothing.
pub(crate) fn refuse_filled(out: &Path) -> Result<()> {
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
