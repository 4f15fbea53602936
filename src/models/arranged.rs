//! A checkpoint under the names and in the orientation of the model's modules.

use std::collections::HashSet;
use std::path::Path;

use lowrank_kernels::four_bit::{Format, Quantised};

use super::families::join;
use super::source::no_such_tensor;
use super::{ModelConfig, WeightSource};
use crate::Result;
use crate::adapters::Module;
use crate::recipe::Task;

/// `source` as a family's modules want it.
pub struct Arranged {
    source: Box<dyn WeightSource>,
    /// Where the backbone is in the file, and where the task has it.
    from: &'static str,
    to: &'static str,
    /// Weights that are stored `[in, out]`.
    transposed: HashSet<String>,
    /// Whether the norms go by [`OLD_NORMS`].
    old_norms: bool,
}

/// What layer norms are called now, and were called in files that came from TensorFlow.
const OLD_NORMS: [(&str, &str); 2] = [("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")];

impl Arranged {
    /// `source` itself where nothing differs.
    pub fn around(source: Box<dyn WeightSource>, config: &ModelConfig) -> Box<dyn WeightSource> {
        let transposed = Module::list(config).into_iter().filter(|module| module.transposed);
        let transposed: HashSet<_> = transposed.map(|module| module.path + ".weight").collect();
        let to = config.head().root;
        let from = stored_root(source.as_ref(), config);
        let old_norms = source.names().iter().any(|name| OLD_NORMS.iter().any(|(_, old)| name.ends_with(old)));
        if from == to && transposed.is_empty() && !old_norms {
            return source;
        }
        Box::new(Self { source, from, to, transposed, old_norms })
    }

    /// The file's name of a tensor.
    fn stored(&self, name: &str) -> String {
        let stored = moved(name, self.to, self.from).unwrap_or_else(|| name.to_string());
        let old = OLD_NORMS.iter().filter(|_| self.old_norms);
        let old = old.filter_map(|(new, old)| Some(format!("{}{old}", stored.strip_suffix(new)?))).next();
        old.unwrap_or(stored)
    }

    /// The name of one of the file's tensors.
    fn named(&self, stored: String) -> String {
        let name = moved(&stored, self.from, self.to).unwrap_or(stored);
        let new = OLD_NORMS.iter().filter_map(|(new, old)| Some(format!("{}{new}", name.strip_suffix(old)?))).next();
        new.unwrap_or(name)
    }

    /// bitsandbytes transposes before it packs.
    fn transposes(&self, name: &str) -> bool {
        self.transposed.contains(name) && self.source.four_bit_format(&self.stored(name)).is_none()
    }
}

impl WeightSource for Arranged {
    fn path(&self) -> &Path {
        self.source.path()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.source.names().into_iter().map(|name| self.named(name)).collect();
        names.sort_unstable();
        names
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let mut shape = self.source.shape(&self.stored(name))?;
        if self.transposes(name) {
            shape.reverse();
        }
        Some(shape)
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let stored = self.stored(name);
        let values = self.source.read(&stored)?;
        match self.source.shape(&stored).as_deref() {
            Some(&[rows, cols]) if self.transposes(name) => Ok(transposed(&values, [rows, cols])),
            Some(_) => Ok(values),
            None => Err(no_such_tensor(name, self.path())),
        }
    }

    fn dtype(&self, name: &str) -> String {
        self.source.dtype(&self.stored(name))
    }

    fn stored_bytes(&self, name: &str) -> u64 {
        self.source.stored_bytes(&self.stored(name))
    }

    fn sha256(&self) -> String {
        self.source.sha256()
    }

    fn four_bit_format(&self, name: &str) -> Option<Format> {
        self.source.four_bit_format(&self.stored(name))
    }

    fn four_bit(&self, name: &str) -> Result<Option<Quantised>> {
        self.source.four_bit(&self.stored(name))
    }
}

/// Where a file has the backbone: at the root of one of the family's tasks, that of the configuration first, or bare.
fn stored_root(source: &dyn WeightSource, config: &ModelConfig) -> &'static str {
    let names = source.names();
    let others = Task::ALL.into_iter().filter_map(|task| config.architecture.family().head(config, task));
    let mut roots =
        [config.head().root].into_iter().chain(others.map(|form| form.root)).filter(|root| !root.is_empty());
    roots.find(|root| names.iter().any(|name| under(name, root).is_some())).unwrap_or("")
}

/// What follows `root.` in a name.
pub(super) fn under<'n>(name: &'n str, root: &str) -> Option<&'n str> {
    if root.is_empty() { Some(name) } else { name.strip_prefix(root)?.strip_prefix('.') }
}

/// A backbone's name at another root; none of a name that is not the backbone's. Heads lie beside the backbone, so that where it
/// is bare, a name is a head's if it is one of [`HEADS`].
fn moved(name: &str, from: &str, to: &str) -> Option<String> {
    under(name, from).filter(|_| !(from.is_empty() && is_of_head(name))).map(|rest| join(to, rest))
}

/// Whether a tensor lies beside the backbone, in whatever model.
pub(crate) fn is_of_head(name: &str) -> bool {
    HEADS.iter().any(|head| under(name, head).is_some())
}

/// What lies beside backbones in the models of transformers.
const HEADS: [&str; 10] = [
    "lm_head",
    "score",
    "classifier",
    "pre_classifier",
    "qa_outputs",
    "classification_head",
    "cls",
    "vocab_transform",
    "vocab_layer_norm",
    "vocab_projector",
];

/// A row-major matrix `[rows, cols]` as `[cols, rows]`.
pub(crate) fn transposed(values: &[f32], [rows, cols]: [usize; 2]) -> Vec<f32> {
    (0..cols).flat_map(|col| (0..rows).map(move |row| values[row * cols + col])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        assert_eq!(transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3]), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}
