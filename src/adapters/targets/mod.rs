//! Which modules an adapter attaches to, and with what rank: PEFT's matching rules.
//!
//! A module is taken when `targets` names it, `exclude` does not, `modules_to_save` does not claim
//! it whole, and its layer index is wanted. `rank_pattern` and `alpha_pattern` then override rank
//! and alpha, the first matching key winning.

mod pattern;
mod problems;
mod rules;

use self::rules::{Rules, Used};
use super::{AdapterConfig, Module, ModuleKind, OpenKeys, Shared, Targets};
use crate::error::InputError;
use crate::{Error, Result};

/// Largest rank that is not taken for a slip.
pub const MAX_RANK: usize = 65_536;

/// Who wrote the configuration. A recipe that names nothing in the model is a mistake; an
/// `adapter_config.json` may carry names that its own training never matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Recipe,
    AdapterFile,
}

impl Origin {
    /// The problems as one error, under the key names of whoever wrote them.
    fn report(self, problems: Vec<InputError>) -> Error {
        let named = problems.into_iter().map(|problem| match (self, problem.place.clone()) {
            (Origin::AdapterFile, Some(("key", key))) => problem.key(match key.as_str() {
                "targets" => "target_modules",
                "exclude" => "exclude_modules",
                "layers" => "layers_to_transform",
                "rank" => "r",
                other => other,
            }),
            _ => problem,
        });
        let mut problems: Vec<_> = named.collect();
        if problems.len() == 1 { problems.remove(0).into() } else { Error::Inputs(problems) }
    }
}

/// A module an adapter attaches to.
#[derive(Clone, Debug, PartialEq)]
pub struct Selected {
    pub path: String,
    pub kind: ModuleKind,
    /// Rows and columns of the frozen weight.
    pub rows: usize,
    pub cols: usize,
    pub rank: usize,
    pub alpha: f64,
    /// alpha / rank, or alpha / sqrt(rank) with rsLoRA.
    pub scaling: f64,
}

impl Selected {
    /// Outputs and inputs of the map that the module is: an embedding's stored rows are its inputs.
    pub fn outputs_and_inputs(&self) -> [usize; 2] {
        match self.kind {
            ModuleKind::Embedding => [self.cols, self.rows],
            _ => [self.rows, self.cols],
        }
    }
}

impl AdapterConfig {
    /// Writes PEFT's targets `own` of a family where the recipe leaves them out.
    ///
    /// # Errors
    /// If PEFT has none for the family either.
    pub fn settle_targets(&mut self, own: &[&str], model_type: &str) -> Result<()> {
        let Some(OpenKeys { targets, .. }) = self.open_keys() else { return Ok(()) };
        if *targets != Targets::of_family() {
            return Ok(());
        }
        if own.is_empty() {
            let error = Error::input("which layers are adapted must be said for this family of models").key("targets");
            let error = error.found(format!("a {model_type}"));
            return Err(error.hint("`targets = \"all-linear\"` adapts every linear layer").into());
        }
        *targets = Targets::Names(own.iter().map(ToString::to_string).collect());
        Ok(())
    }

    /// The modules that carry an adapter; none for `full` and `none`. Errors as for [`select`], for an embedding under a
    /// method that is defined on linear layers only, and for a module that the method refuses.
    pub fn select(&self, modules: &[Module], origin: Origin) -> Result<Vec<Selected>> {
        let Some(spec) = self.spec() else { return Ok(Vec::new()) };
        let selected = select(modules, &spec.shared(), origin)?;
        let embedding = selected.iter().find(|site| site.kind == ModuleKind::Embedding);
        let misplaced = embedding.filter(|_| !spec.adapts_embeddings()).map(|site| {
            let what = format!("{} is defined on linear layers, and this is an embedding", self.name());
            InputError::new(what).key("targets").found(&site.path)
        });
        match misplaced
            .or_else(|| selected.iter().find_map(|site| spec.refuses(site)))
            .or_else(|| spec.refuses_all(&selected))
        {
            None => spec.fit(selected).map_err(|problem| origin.report(vec![problem])),
            Some(problem) => Err(origin.report(vec![problem])),
        }
    }
}

/// The modules that `config` adapts, in the order of `modules`.
///
/// Errors name every unusable pattern, every entry of a recipe that matches nothing, and, when no
/// module is left, what was asked for and what the model has.
pub fn select(modules: &[Module], config: &Shared, origin: Origin) -> Result<Vec<Selected>> {
    // A norm has nothing of low rank to it; it only ever trains whole.
    let (modules, norms): (Vec<_>, Vec<_>) = modules.iter().cloned().partition(Module::is_adaptable);
    let rules = Rules::new(config).map_err(|problem| origin.report(vec![problem]))?;
    let mut problems = match origin {
        Origin::Recipe => problems::unmatched(&rules, &modules, &norms, config),
        Origin::AdapterFile => Vec::new(),
    };
    let mut used = Used::new(config);
    let taken = modules.iter().filter(|module| rules.admits(module));
    let selected = taken.map(|module| rules.adapt(module, config, &mut used)).collect::<Result<Vec<_>, _>>();
    let selected = selected.map_err(|problem| origin.report(vec![problem]))?;
    if selected.is_empty() && problems.is_empty() {
        problems.push(problems::nothing_selected(&modules, config, &rules));
    }
    if origin == Origin::Recipe && !selected.is_empty() {
        problems.extend(used.never());
    }
    if problems.is_empty() { Ok(selected) } else { Err(origin.report(problems)) }
}

/// The modules that `modules_to_save` trains whole, norms among them. As in PEFT a name is the end of a path, at a dot or not: `norm`
/// is every norm, `model.norm` the last one; and it may be that of a part around the module. A recipe's name that is no module is an error.
pub fn saved<'a>(modules: &'a [Module], config: &Shared, origin: Origin) -> Result<Vec<&'a Module>> {
    if origin == Origin::Recipe {
        let is_there = |name: &String| modules.iter().any(|module| is_saved(module, std::slice::from_ref(name)));
        let lost = config.modules_to_save.iter().filter(|name| !is_there(name));
        let problems: Vec<_> = lost.map(|name| problems::no_such_module("modules_to_save", name, modules)).collect();
        if !problems.is_empty() {
            return Err(origin.report(problems));
        }
    }
    Ok(modules.iter().filter(|module| is_saved(module, &config.modules_to_save)).collect())
}

pub(super) fn is_saved(module: &Module, names: &[String]) -> bool {
    let ends = module.path.match_indices('.').map(|(at, _)| at).chain([module.path.len()]);
    let mut parts = ends.map(|end| &module.path[..end]);
    parts.any(|part| names.iter().any(|name| !name.is_empty() && part.ends_with(name.as_str())))
}

/// Paths of every linear layer but the output embedding: what `all-linear` stands for.
pub fn linear_paths(modules: &[Module]) -> Vec<String> {
    modules.iter().filter(|module| module.kind == ModuleKind::Linear).map(|module| module.path.clone()).collect()
}

impl Targets {
    pub fn is_all_linear(&self) -> bool {
        matches!(self, Targets::Pattern(pattern) if pattern.eq_ignore_ascii_case("all-linear"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::modules::tiny;

    fn names(names: &[&str]) -> Targets {
        Targets::Names(names.iter().map(ToString::to_string).collect())
    }

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn paths(config: &Shared) -> Vec<String> {
        let modules = Module::list(&tiny::llama());
        select(&modules, config, Origin::Recipe).unwrap().into_iter().map(|module| module.path).collect()
    }

    fn refusal(config: &Shared, origin: Origin) -> String {
        select(&Module::list(&tiny::llama()), config, origin).unwrap_err().to_string()
    }

    #[test]
    fn all_linear_is_every_linear_layer_but_the_head() {
        let paths = paths(&Shared::default());
        assert_eq!(paths.len(), 14);
        assert!(paths.iter().all(|path| path.starts_with("model.layers.")));
        assert_eq!(paths, linear_paths(&Module::list(&tiny::llama())));
    }

    #[test]
    fn a_name_ends_the_path_at_a_dot() {
        let config = Shared { targets: names(&["q_proj", "lm_head"]), ..Default::default() };
        assert_eq!(paths(&config), ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "lm_head"]);
        let config = Shared { targets: names(&["proj"]), ..Default::default() };
        assert!(refusal(&config, Origin::Recipe).contains("no module has this name"));
    }

    #[test]
    fn a_pattern_covers_the_whole_path() {
        let config = Shared { targets: Targets::Pattern(r".*\.1\..*(q|v)_proj".into()), ..Default::default() };
        assert_eq!(paths(&config), ["model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.v_proj"]);
        let config = Shared { targets: Targets::Pattern("q_proj".into()), ..Default::default() };
        assert!(refusal(&config, Origin::Recipe).contains("no module of the model matches"));
    }

    #[test]
    fn exclusion_and_whole_modules_come_first() {
        let config = Shared {
            targets: names(&["q_proj", "v_proj", "down_proj"]),
            exclude: Targets::Pattern(r".*\.0\.mlp\..*".into()),
            modules_to_save: strings(&["v_proj"]),
            ..Default::default()
        };
        let expected =
            ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "model.layers.1.mlp.down_proj"];
        assert_eq!(paths(&config), expected);
        let config = Shared { exclude: names(&["q_proj"]), targets: names(&["q_proj"]), ..Default::default() };
        assert!(refusal(&config, Origin::Recipe).contains("excluded or saved whole"));
    }

    /// `any(key.endswith(name) for name in modules_to_save)` in PEFT, and it wants every tensor of such a module in the file.
    #[test]
    fn norms_are_saved_whole_and_never_targeted() {
        let modules = Module::list(&tiny::llama());
        let whole = |name: &str| {
            let config = Shared { modules_to_save: strings(&[name]), ..Default::default() };
            let saved = saved(&modules, &config, Origin::Recipe);
            saved.map(|saved| saved.into_iter().map(|module| module.path.clone()).collect::<Vec<_>>())
        };
        assert_eq!(whole("model.norm").unwrap(), ["model.norm"]);
        assert_eq!(whole("norm").unwrap().len(), 5);
        assert_eq!(whole("1.input_layernorm").unwrap(), ["model.layers.1.input_layernorm"]);
        assert!(whole("").is_err());
        let config = Shared { targets: Targets::Pattern(r"model\.(layers\.0|norm).*".into()), ..Default::default() };
        assert_eq!(paths(&config).len(), 7);
        let config = Shared { targets: names(&["q_proj", "norm"]), ..Default::default() };
        let message = refusal(&config, Origin::Recipe);
        assert!(message.contains("a norm carries no adapter") && message.contains("modules_to_save"), "{message}");
        // A name that ends where no dot is claims the module as well.
        let config = Shared { modules_to_save: strings(&["proj"]), ..Default::default() };
        assert!(refusal(&config, Origin::Recipe).contains("saved whole"));
    }

    #[test]
    fn layer_indices_bind_suffixes_but_not_full_paths() {
        let whole = "model.layers.0.self_attn.v_proj";
        for layers_pattern in [strings(&[]), strings(&["layers"]), strings(&["h", "layers"])] {
            let config =
                Shared { targets: names(&["q_proj", whole]), layers: vec![1], layers_pattern, ..Default::default() };
            assert_eq!(paths(&config), [whole, "model.layers.1.self_attn.q_proj"]);
        }
        let config = Shared { layers: vec![1], ..Default::default() };
        assert!(refusal(&config, Origin::Recipe).contains("list of module names"));
        let config = Shared { targets: names(&["q_proj"]), layers: vec![7], ..Default::default() };
        assert!(refusal(&config, Origin::Recipe).contains("found 7; expected 0 to 1"));
        let config = Shared { layers_pattern: strings(&["layers"]), ..Default::default() };
        assert!(refusal(&config, Origin::Recipe).contains("layers_pattern"));
    }

    #[test]
    fn the_first_matching_pattern_sets_rank_alpha_and_scaling() {
        let config = Shared {
            rank: 4,
            alpha: 8.0,
            rslora: true,
            targets: names(&["q_proj", "v_proj"]),
            rank_pattern: [(r"layers\.1\.self_attn\.v_proj".to_string(), 9), ("q_proj|v_proj".to_string(), 2)].into(),
            alpha_pattern: [("v_proj".to_string(), 12.0)].into(),
            ..Default::default()
        };
        let selected = select(&Module::list(&tiny::llama()), &config, Origin::Recipe).unwrap();
        let found: Vec<_> = selected.iter().map(|module| (module.rank, module.alpha, module.scaling)).collect();
        let root = 2f64.sqrt();
        assert_eq!(found, [(2, 8.0, 8.0 / root), (2, 12.0, 12.0 / root), (2, 8.0, 8.0 / root), (9, 12.0, 4.0)]);
        let shadowed = [("v_proj".to_string(), 2), (r"1\.self_attn\.v_proj".to_string(), 9)].into();
        let config = Shared { rank_pattern: shadowed, ..config };
        assert!(refusal(&config, Origin::Recipe).contains("rank_pattern"));
        let config = Shared { rank_pattern: [("v_proj".to_string(), 0)].into(), ..config };
        assert!(refusal(&config, Origin::AdapterFile).contains("rank"));
    }

    #[test]
    fn a_recipe_must_name_what_exists_and_a_file_may_not() {
        let config = Shared {
            targets: names(&["q_proj", "qproj"]),
            exclude: names(&["lm_haed"]),
            rank_pattern: [("k_proj".to_string(), 2)].into(),
            ..Default::default()
        };
        let message = refusal(&config, Origin::Recipe);
        for part in ["key targets", "the model has q_proj", "key exclude", "lm_head", "key rank_pattern"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        let modules = Module::list(&tiny::llama());
        assert_eq!(select(&modules, &config, Origin::AdapterFile).unwrap().len(), 2);
        let config = Shared { targets: names(&["c_attn"]), ..Default::default() };
        assert!(refusal(&config, Origin::AdapterFile).contains("key target_modules"));
        let config = Shared { modules_to_save: strings(&["score"]), ..Default::default() };
        assert!(saved(&modules, &config, Origin::Recipe).is_err());
        assert!(saved(&modules, &config, Origin::AdapterFile).unwrap().is_empty());
    }
}
