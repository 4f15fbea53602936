//! A checkpoint under the names and in the orientation of the model's modules.

use std::collections::HashSet;
use std::path::Path;

use lowrank_kernels::four_bit::{Format, Quantised};

use super::families::CheckpointForm;
use super::source::no_such_tensor;
use super::{ModelConfig, WeightSource};
use crate::Result;
use crate::adapters::Module;

/// `source` as a family's modules want it.
pub struct Arranged {
    source: Box<dyn WeightSource>,
    form: CheckpointForm,
    /// Whether names lack the prefix.
    bare: bool,
    /// Weights that are stored `[in, out]`.
    transposed: HashSet<String>,
}

impl CheckpointForm {
    pub(crate) fn ignores(&self, name: &str) -> bool {
        self.ignored.iter().any(|end| name.ends_with(end))
    }
}

impl Arranged {
    /// `source` itself where nothing differs.
    pub fn around(source: Box<dyn WeightSource>, config: &ModelConfig) -> Box<dyn WeightSource> {
        let form = config.architecture.family().checkpoint();
        let transposed = Module::list(config).into_iter().filter(|module| module.transposed);
        let transposed: HashSet<_> = transposed.map(|module| module.path + ".weight").collect();
        let bare = !form.prefix.is_empty() && !source.names().iter().any(|name| name.starts_with(form.prefix));
        if !bare && transposed.is_empty() {
            return source;
        }
        Box::new(Self { source, form, bare, transposed })
    }

    /// The file's name of a tensor.
    fn stored<'n>(&self, name: &'n str) -> &'n str {
        if self.bare { name.strip_prefix(self.form.prefix).unwrap_or(name) } else { name }
    }

    /// bitsandbytes transposes before it packs.
    fn transposes(&self, name: &str) -> bool {
        self.transposed.contains(name) && self.source.four_bit_format(self.stored(name)).is_none()
    }
}

impl WeightSource for Arranged {
    fn path(&self) -> &Path {
        self.source.path()
    }

    fn names(&self) -> Vec<String> {
        let head = |name: &str| name.starts_with("lm_head.");
        let named = |name: String| if self.bare && !head(&name) { format!("{}{name}", self.form.prefix) } else { name };
        let mut names: Vec<String> = self.source.names().into_iter().map(named).collect();
        names.sort_unstable();
        names
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let mut shape = self.source.shape(self.stored(name))?;
        if self.transposes(name) {
            shape.reverse();
        }
        Some(shape)
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let stored = self.stored(name);
        let values = self.source.read(stored)?;
        match self.source.shape(stored).as_deref() {
            Some(&[rows, cols]) if self.transposes(name) => Ok(transposed(&values, [rows, cols])),
            Some(_) => Ok(values),
            None => Err(no_such_tensor(name, self.path())),
        }
    }

    fn dtype(&self, name: &str) -> String {
        self.source.dtype(self.stored(name))
    }

    fn stored_bytes(&self, name: &str) -> u64 {
        self.source.stored_bytes(self.stored(name))
    }

    fn sha256(&self) -> String {
        self.source.sha256()
    }

    fn four_bit_format(&self, name: &str) -> Option<Format> {
        self.source.four_bit_format(self.stored(name))
    }

    fn four_bit(&self, name: &str) -> Result<Option<Quantised>> {
        self.source.four_bit(self.stored(name))
    }
}

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
