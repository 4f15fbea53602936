//! `compare.toml`: what a comparison is made of, written by the one who runs it.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::metric::number;
use crate::{Error, Result};

/// Name of the file in a comparison's directory. The runs lie beside it, in `VARIANT/seed-N/`.
pub const FILE: &str = "compare.toml";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub name: String,
    /// The variant that the others are measured against.
    pub reference: String,
    pub mode: Mode,
    /// What verdicts go by, where it was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// Every variant runs once with each.
    pub seeds: Vec<u64>,
    /// Names, in the order in which they get their colours.
    pub variants: Vec<String>,
    /// What was tried before the variants ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "sweep")]
    pub sweeps: Vec<Sweep>,
}

/// Settings of a variant that a short pilot chose between.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    pub variant: String,
    /// Index in `tried`; none where no setting came to its end.
    pub chosen: Option<usize>,
    pub tried: Vec<Tried>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tried {
    /// `optim.adamw.lr=0.001`
    pub settings: String,
    pub steps: usize,
    /// After those steps; not a number where it never came to them.
    pub eval_loss: f64,
}

impl Sweep {
    /// What came of it, in words.
    pub fn sentence(&self) -> String {
        let tried = |t: &Tried| format!("{} ({})", t.settings, number(t.eval_loss));
        let all = self.tried.iter().map(tried).collect::<Vec<_>>().join(", ");
        let steps = self.tried.first().map_or(0, |tried| tried.steps);
        match self.chosen.and_then(|index| self.tried.get(index)) {
            Some(Tried { settings, .. }) => {
                format!(
                    "{}: {settings} was chosen, by evaluation loss after {steps} steps with one seed, from {all}.",
                    self.variant
                )
            }
            None => format!("{}: no setting of its sweep came to its end: {all}.", self.variant),
        }
    }
}

/// Whether variants advance together, or one runs after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Together, step by step, on the same batches, over one copy of the base.
    #[default]
    Race,
    /// One after the other, each with the machine to itself: for fair timing.
    Sequence,
}

impl Mode {
    /// Whether a step's time says something of the method: it had the machine to itself.
    pub fn times_methods(self) -> bool {
        self == Mode::Sequence
    }
}

impl Plan {
    #[cfg(test)]
    pub fn new(name: &str, reference: &str, mode: Mode) -> Self {
        let (name, reference) = (name.into(), reference.into());
        Self { name, reference, mode, metric: None, seeds: Vec::new(), variants: Vec::new(), sweeps: Vec::new() }
    }

    /// # Errors
    /// An input error when the file is no plan or names no variant or a reference that is none of them.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(Error::unreadable(&path))?;
        let plan: Self = toml::from_str(&text)
            .map_err(|error| Error::input("not the plan of a comparison").file(&path).found(error.message()))?;
        if !plan.variants.contains(&plan.reference) {
            let error = Error::input("the reference is none of the variants").file(&path).key("reference");
            return Err(error.found(&plan.reference).expected(plan.variants.join(" | ")).into());
        }
        Ok(plan)
    }

    /// Variant, seed and directory of every run in `dir`, those to come included.
    pub fn runs<'a>(&'a self, dir: &'a Path) -> impl Iterator<Item = (&'a str, u64, PathBuf)> {
        let of =
            move |variant: &'a String, seed| (variant.as_str(), seed, dir.join(variant).join(format!("seed-{seed}")));
        self.variants.iter().flat_map(move |variant| self.seeds.iter().map(move |&seed| of(variant, seed)))
    }

    /// This plan for a directory that has runs of an `earlier` one: they stay part of it, in their places.
    pub fn after(self, earlier: Self) -> Self {
        let joined = |earlier: Vec<String>, more: Vec<String>| {
            let new = more.into_iter().filter(|item| !earlier.contains(item)).collect::<Vec<_>>();
            [earlier, new].concat()
        };
        let mut seeds = [earlier.seeds, self.seeds].concat();
        seeds.sort_unstable();
        seeds.dedup();
        let is_new = |sweep: &Sweep| !self.sweeps.iter().any(|own| own.variant == sweep.variant);
        let sweeps = earlier.sweeps.into_iter().filter(is_new).chain(self.sweeps.iter().cloned()).collect();
        Self { variants: joined(earlier.variants, self.variants), seeds, sweeps, ..self }
    }

    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(FILE);
        let text = toml::to_string(self).map_err(|error| Error::Failed(format!("{FILE}: {error}")))?;
        std::fs::write(&path, text).map_err(Error::io(&path))
    }
}

/// The newest comparison of this name under `runs`.
///
/// # Errors
/// An input error when there is none.
pub fn newest(runs: &Path, name: &str) -> Result<PathBuf> {
    let candidates = runs.read_dir().into_iter().flatten().flatten().filter_map(|entry| {
        let dir = entry.path();
        let written = dir.join(FILE).metadata().and_then(|data| data.modified()).ok()?;
        (Plan::read(&dir).ok()?.name == name).then_some((written, dir))
    });
    candidates.max().map(|(_, dir)| dir).ok_or_else(|| {
        let error = Error::input(format!("there is no comparison of {name} to resume")).file(runs);
        error.hint("leave out --resume to start one, or name its directory: --resume=DIR").into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let variants = vec!["lora".into(), "ada".into()];
        Plan { seeds: vec![0, 1], variants, ..Plan::new("x", "lora", Mode::Race) }
    }

    #[test]
    fn a_plan_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        plan().write(dir.path()).unwrap();
        assert_eq!(Plan::read(dir.path()).unwrap(), plan());
    }

    #[test]
    fn a_plan_without_its_reference_and_one_with_unknown_keys_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        Plan { reference: "dora".into(), ..plan() }.write(dir.path()).unwrap();
        let told = Plan::read(dir.path()).unwrap_err().to_string();
        assert!(told.contains("key reference") && told.contains("expected lora | ada"), "{told}");
        std::fs::write(dir.path().join(FILE), "nmae = 1\n").unwrap();
        assert!(Plan::read(dir.path()).unwrap_err().to_string().contains("nmae"));
    }
}
