//! The same method at another rank, or on other modules.

use toml::{Table, Value};

use super::{AdapterConfig, Targets};
use crate::{Error, Result};

/// Keys of methods that follow the rank in proportion.
const FOLLOWS: &str = "target_rank";

impl AdapterConfig {
    /// This method with `rank`, and an alpha with which its corrections are scaled as before.
    ///
    /// # Errors
    /// An input error for a method without a rank and where `rank_pattern` says it for some modules.
    pub fn with_rank(&self, rank: usize) -> Result<Self> {
        let name = self.name();
        let Some(spec) = self.spec() else {
            return Err(Error::input("this method has no rank to choose").key(format!("adapter.{name}")).into());
        };
        let shared = spec.shared();
        if !shared.rank_pattern.is_empty() {
            let error = Error::input("ranks of single modules are fixed, where the rank is to be chosen");
            return Err(error.key(format!("adapter.{name}.rank_pattern")).into());
        }
        self.changed(|keys| {
            let ratio = rank as f64 / shared.rank.max(1) as f64;
            keys.insert(spec.rank_key().into(), Value::Integer(rank as i64));
            if spec.has_alpha() {
                let scale = if shared.rslora { ratio.sqrt() } else { ratio };
                keys.insert("alpha".into(), Value::Float(shared.alpha * scale));
            }
            if let Some(Value::Integer(target)) = keys.get_mut(FOLLOWS) {
                *target = ((*target as f64 * ratio).round() as i64).clamp(1, rank as i64);
            }
        })
    }

    /// This method on other modules; `full` and `none` stay what they are.
    pub fn with_targets(&self, targets: &Targets) -> Result<Self> {
        let targets = match targets {
            Targets::Names(names) => names.iter().cloned().map(Value::String).collect::<Vec<_>>().into(),
            Targets::Pattern(pattern) => Value::String(pattern.clone()),
        };
        match self.spec() {
            Some(_) => self.changed(|keys| drop(keys.insert("targets".into(), targets))),
            None => Ok(self.clone()),
        }
    }

    /// With other values under the keys of its table.
    fn changed(&self, change: impl FnOnce(&mut Table)) -> Result<Self> {
        let name = self.name();
        let failed = |error: String| Error::Failed(format!("[adapter.{name}]: {error}"));
        let mut table = Table::try_from(self).map_err(|error| failed(error.to_string()))?;
        let Some(Value::Table(keys)) = table.get_mut(name) else { return Err(failed("no table".into())) };
        change(keys);
        table.try_into().map_err(|error| failed(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_takes_another_rank_and_keeps_its_scale() {
        for config in AdapterConfig::defaults() {
            let before = config.spec().unwrap().shared();
            let changed = config.with_rank(2 * before.rank).unwrap();
            let after = changed.spec().unwrap().shared();
            assert_eq!(after.rank, 2 * before.rank, "{}", config.name());
            if config.spec().unwrap().has_alpha() {
                assert_eq!(after.alpha / after.rank as f64, before.alpha / before.rank as f64, "{}", config.name());
            }
            assert_eq!(changed.with_rank(before.rank).unwrap(), config, "{}", config.name());
        }
    }

    #[test]
    fn every_method_takes_other_targets() {
        for targets in [Targets::Names(vec!["q".into(), "v".into()]), Targets::Pattern(".*q".into())] {
            for config in AdapterConfig::defaults() {
                let changed = config.with_targets(&targets).unwrap();
                assert_eq!(changed.shared().unwrap().targets, targets, "{}", config.name());
                assert_eq!(changed.with_targets(&Targets::default()).unwrap(), config, "{}", config.name());
            }
        }
        assert_eq!(AdapterConfig::full().with_targets(&Targets::default()).unwrap(), AdapterConfig::full());
    }

    #[test]
    fn ranks_that_are_fixed_are_not_chosen() {
        let lora = |text: &str| toml::from_str::<AdapterConfig>(text).unwrap();
        let told = lora("[lora]\nrank_pattern = { q_proj = 2 }").with_rank(4).unwrap_err().to_string();
        assert!(told.contains("key adapter.lora.rank_pattern"), "{told}");
        let told = lora("[full]").with_rank(4).unwrap_err().to_string();
        assert!(told.contains("no rank to choose"), "{told}");
        assert_eq!(
            lora("[lora]\nrank = 4\nalpha = 8\nrslora = true").with_rank(16).unwrap().spec().unwrap().shared().alpha,
            16.0
        );
    }
}
