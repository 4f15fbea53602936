//! What is wrong with a choice of modules, in the words of the one who made it.

use super::rules::Rules;
use crate::adapters::{Module, Shared, Targets};
use crate::error::InputError;

/// Entries that match no module at all.
pub(super) fn unmatched(rules: &Rules, modules: &[Module], norms: &[Module], config: &Shared) -> Vec<InputError> {
    let mut problems = Vec::new();
    if let Targets::Names(names) = &config.targets {
        problems.extend(unmatched_names("targets", names, modules, norms));
    }
    match &config.exclude {
        Targets::Names(names) => problems.extend(unmatched_names("exclude", names, modules, norms)),
        Targets::Pattern(pattern) if !modules.iter().any(|module| rules.exclude.matches(module)) => {
            problems.push(InputError::new("no module matches").key("exclude").found(pattern));
        }
        Targets::Pattern(_) => {}
    }
    for layer in &rules.layers {
        if !modules.iter().any(|module| rules.layer(&module.path) == Some(*layer)) {
            let last = modules.iter().filter_map(|module| rules.layer(&module.path)).max();
            let problem = InputError::new("the model has no such layer").key("layers").found(layer);
            problems.push(match last {
                Some(last) => problem.expected(format!("0 to {last}")),
                None => problem.hint("no module path matches `layers_pattern`"),
            });
        }
    }
    problems
}

/// PEFT takes layer indices with a list of names only, and a layer pattern with indices only.
pub(super) fn layers(config: &Shared) -> Result<(), InputError> {
    if !config.layers_pattern.is_empty() && config.layers.is_empty() {
        let what = "a layer pattern without layer indices selects nothing";
        return Err(InputError::new(what).key("layers_pattern").hint("say which with `layers`"));
    }
    match &config.targets {
        Targets::Pattern(pattern) if !config.layers.is_empty() => {
            Err(InputError::new("layer indices go with a list of module names")
                .key("layers")
                .found(format!("targets = {pattern:?}"))
                .hint("write the names, as in [\"q_proj\", \"v_proj\"], or put the layers into the regular expression"))
        }
        _ => Ok(()),
    }
}

fn unmatched_names(key: &str, names: &[String], modules: &[Module], norms: &[Module]) -> Vec<InputError> {
    let lost = names.iter().filter(|name| !modules.iter().any(|module| module.is_named(name)));
    let problem = |name: &String| match norms.iter().any(|norm| norm.is_named(name)) {
        true => InputError::new("a norm carries no adapter")
            .key(key)
            .found(format!("{name:?}"))
            .hint("`modules_to_save` trains it whole"),
        false => no_such_module(key, name, modules),
    };
    lost.map(problem).collect()
}

pub(super) fn no_such_module(key: &str, name: &str, modules: &[Module]) -> InputError {
    InputError::new("no module has this name").key(key).found(format!("{name:?}")).hint(closest(name, modules))
}

pub(super) fn nothing_selected(modules: &[Module], config: &Shared, rules: &Rules) -> InputError {
    let asked = match &config.targets {
        Targets::Names(names) => names.join(", "),
        Targets::Pattern(pattern) => pattern.clone(),
    };
    let what = if !modules.iter().any(|module| rules.targets.matches(module)) {
        "no module of the model matches"
    } else if !modules.iter().any(|module| rules.targets.matches(module) && !rules.is_excluded(module)) {
        "every module that matches is excluded or saved whole"
    } else {
        "no module that matches is in the layers asked for"
    };
    InputError::new(what).key("targets").found(&asked).hint(closest(&asked, modules))
}

/// The names of the model most like `asked`, as a hint.
fn closest(asked: &str, modules: &[Module]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for module in modules {
        if !names.contains(&module.leaf()) {
            names.push(module.leaf());
        }
    }
    let likeness = |name: &str| strsim::jaro_winkler(asked, name);
    names.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
    names.truncate(10);
    format!("the model has {}", names.join(", "))
}
