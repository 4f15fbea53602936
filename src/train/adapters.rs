//! Adapters that a user points at, over the one base they share.

use std::path::{Path, PathBuf};

use super::Subject;
use crate::adapters::peft::{self, PeftAdapter};
use crate::adapters::{Module, merge};
use crate::checkpoint::{Disk, commit};
use crate::models::Stored;
use crate::recipe::BaseStorage;
use crate::{Error, Result};

/// Adapters read from disk, and their base.
pub struct Adapters {
    /// Where the first of them comes from; the base is its base.
    pub subject: Subject,
    pub modules: Vec<Module>,
    /// In the order they were named.
    pub list: Vec<PeftAdapter>,
    /// How each had the base stored.
    storages: Vec<BaseStorage>,
}

impl Adapters {
    /// Each of `paths` is a run or an adapter directory (over `base`, if a run does not know it).
    ///
    /// # Errors
    /// If one is no adapter, or if two belong to different bases.
    pub fn open(paths: &[PathBuf], base: Option<&Path>) -> Result<Self> {
        let subjects = paths.iter().map(|path| Subject::open(path, base)).collect::<Result<Vec<_>>>()?;
        let mut dirs = Vec::new();
        for (path, subject) in paths.iter().zip(&subjects) {
            dirs.push(subject.adapter.clone().ok_or_else(|| Error::input("this is no adapter").file(path))?);
        }
        same_quantisation(paths, &subjects)?;
        if base.is_none() {
            same_base(paths, &subjects)?;
        }
        let storages = subjects.iter().map(Subject::storage).collect();
        let Some(subject) = subjects.into_iter().next() else {
            return Err(Error::input("no adapter is named").into());
        };
        let config = &subject.opened.config;
        let modules = Module::list(config);
        let read = |dir: &PathBuf| peft::read(dir, &config.model_type, &modules);
        let list = dirs.iter().map(read).collect::<Result<_>>()?;
        Ok(Self { subject, modules, list, storages })
    }

    /// The base as it was stored when the adapters were trained.
    ///
    /// # Errors
    /// If they were trained over different ones.
    pub fn stored(&self) -> Result<Stored<'_>> {
        let stored = self.subject.stored()?;
        for storage in &self.storages {
            let other = Stored::new(self.subject.opened.weights.as_ref(), *storage)?.storage();
            if other.quant != stored.storage().quant {
                let error = Error::input("the adapters were trained over different storages of the base");
                let error = error.found(other.describe()).expected(stored.storage().describe());
                return Err(error.hint("combine them as an adapter: `--write adapter`").into());
            }
        }
        Ok(stored)
    }

    /// Writes an adapter of this base to the new directory `out`, whole or not at all.
    pub fn write(&self, adapter: &PeftAdapter, out: &Path) -> Result<()> {
        merge::refuse_filled(out)?;
        let files = peft::to_files(&adapter.0, &adapter.1, &self.modules)?;
        let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        commit(&Disk, out, &files)
    }
}

/// LoftQ may have quantised the base of an adapter around it.
fn same_quantisation(paths: &[PathBuf], subjects: &[Subject]) -> Result<()> {
    let [first, others @ ..] = subjects else { return Ok(()) };
    for (path, other) in paths.iter().skip(1).zip(others) {
        if first.own_base()? != other.own_base()? {
            let what = "the adapters belong to different bases: LoftQ quantised one of them around its own adapter";
            return Err(Error::input(what).file(path).into());
        }
    }
    Ok(())
}

fn same_base(paths: &[PathBuf], subjects: &[Subject]) -> Result<()> {
    let [first, others @ ..] = subjects else { return Ok(()) };
    for (path, other) in paths.iter().skip(1).zip(others) {
        let [expected, found] = [first, other].map(|subject| subject.opened.base_sha256());
        if found != expected {
            let error = Error::input("the adapters belong to different bases").file(path);
            return Err(error.found(format!("sha256 {found}")).expected(format!("sha256 {expected}")).into());
        }
    }
    Ok(())
}
