//! A configuration compiled into questions about one module.

use indexmap::IndexMap;
use regex::Regex;

use super::{MAX_RANK, Selected, pattern, problems};
use crate::adapters::{Module, ModuleKind, Shared, Targets};
use crate::error::InputError;

/// A configuration with its patterns compiled.
pub(super) struct Rules {
    pub targets: Matcher,
    pub exclude: Matcher,
    saved: Vec<Regex>,
    saved_names: Vec<String>,
    pub layers: Vec<usize>,
    layer_index: Vec<Regex>,
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f64)>,
}

pub(super) enum Matcher {
    AllLinear,
    Names(Vec<String>),
    Pattern(Regex),
}

impl Matcher {
    pub fn new(targets: &Targets) -> Result<Self, InputError> {
        Ok(match targets {
            Targets::Names(names) => Matcher::Names(names.clone()),
            Targets::Pattern(pattern) => Matcher::Pattern(pattern::full(pattern)?),
        })
    }

    pub fn matches(&self, module: &Module) -> bool {
        match self {
            Matcher::AllLinear => module.kind == ModuleKind::Linear,
            Matcher::Names(names) => names.iter().any(|name| module.is_named(name)),
            Matcher::Pattern(regex) => regex.is_match(&module.path),
        }
    }
}

impl Rules {
    pub fn new(config: &Shared) -> Result<Self, InputError> {
        problems::layers(config)?;
        let segments = match config.layers_pattern.as_slice() {
            [] => vec![None],
            names => names.iter().map(|name| Some(name.as_str())).collect(),
        };
        Ok(Rules {
            targets: match &config.targets {
                targets if targets.is_all_linear() => Matcher::AllLinear,
                targets => Matcher::new(targets).map_err(|problem| problem.key("targets"))?,
            },
            exclude: Matcher::new(&config.exclude).map_err(|problem| problem.key("exclude"))?,
            saved: compile("modules_to_save", &config.modules_to_save, |name| pattern::segment(name))?,
            saved_names: config.modules_to_save.clone(),
            layers: config.layers.clone(),
            layer_index: compile("layers_pattern", &segments, |name| pattern::layer_index(*name))?,
            ranks: keyed("rank_pattern", &config.rank_pattern)?,
            alphas: keyed("alpha_pattern", &config.alpha_pattern)?,
        })
    }

    pub fn admits(&self, module: &Module) -> bool {
        self.targets.matches(module) && !self.is_excluded(module) && self.wants_layer(module)
    }

    pub fn is_excluded(&self, module: &Module) -> bool {
        self.exclude.matches(module)
            || super::is_saved(module, &self.saved_names)
            || self.saved.iter().any(|name| name.is_match(&module.path))
    }

    /// PEFT looks at layer indices only where a name is a suffix: a full path says its own layer.
    fn wants_layer(&self, module: &Module) -> bool {
        let whole = matches!(&self.targets, Matcher::Names(names) if names.contains(&module.path));
        whole || self.layers.is_empty() || self.layer(&module.path).is_some_and(|layer| self.layers.contains(&layer))
    }

    pub fn layer(&self, path: &str) -> Option<usize> {
        let captures = self.layer_index.iter().find_map(|regex| regex.captures(path))?;
        captures.name("index")?.as_str().parse().ok()
    }

    pub fn adapt(&self, module: &Module, config: &Shared, used: &mut Used) -> Result<Selected, InputError> {
        let rank = self.ranks.iter().position(|(regex, _)| regex.is_match(&module.path));
        let alpha = self.alphas.iter().position(|(regex, _)| regex.is_match(&module.path));
        used.mark(rank, alpha);
        let rank = rank.map_or(config.rank, |index| self.ranks[index].1);
        let alpha = alpha.map_or(config.alpha, |index| self.alphas[index].1);
        if rank == 0 || rank > MAX_RANK {
            return Err(InputError::new(format!("the rank of {} is out of range", module.path))
                .key("rank")
                .found(rank)
                .expected(format!("1 to {MAX_RANK}")));
        }
        let divisor = if config.rslora { (rank as f64).sqrt() } else { rank as f64 };
        let Module { path, kind, rows, cols, .. } = module.clone();
        Ok(Selected { path, kind, rows, cols, rank, alpha, scaling: alpha / divisor })
    }
}

fn compile<T>(
    key: &str,
    parts: &[T],
    pattern: impl Fn(&T) -> Result<Regex, InputError>,
) -> Result<Vec<Regex>, InputError> {
    parts.iter().map(pattern).collect::<Result<_, _>>().map_err(|problem| problem.key(key))
}

fn keyed<T: Copy>(table: &str, patterns: &IndexMap<String, T>) -> Result<Vec<(Regex, T)>, InputError> {
    let compiled = patterns.iter().map(|(key, value)| Ok((pattern::suffix(key)?, *value)));
    compiled.collect::<Result<_, InputError>>().map_err(|problem| problem.key(table))
}

/// Which keys of the patterns ever won.
pub(super) struct Used<'a> {
    ranks: Vec<(&'a str, bool)>,
    alphas: Vec<(&'a str, bool)>,
}

impl<'a> Used<'a> {
    pub fn new(config: &'a Shared) -> Self {
        let ranks = config.rank_pattern.keys().map(|key| (key.as_str(), false)).collect();
        let alphas = config.alpha_pattern.keys().map(|key| (key.as_str(), false)).collect();
        Self { ranks, alphas }
    }

    fn mark(&mut self, rank: Option<usize>, alpha: Option<usize>) {
        if let Some(rank) = rank {
            self.ranks[rank].1 = true;
        }
        if let Some(alpha) = alpha {
            self.alphas[alpha].1 = true;
        }
    }

    pub fn never(&self) -> impl Iterator<Item = InputError> {
        let ranks = self.ranks.iter().map(|entry| ("rank_pattern", entry));
        let alphas = self.alphas.iter().map(|entry| ("alpha_pattern", entry));
        ranks.chain(alphas).filter(|(_, (_, used))| !used).map(|(table, (key, _))| {
            InputError::new("applies to no adapted module, or an earlier key always matches first")
                .key(table)
                .found(key)
        })
    }
}
