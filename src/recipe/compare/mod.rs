//! A compare recipe: one recipe, and variants that change some of it.

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::resolve::{Resolved, settle};
use super::sweep::{self, Candidate, Choices};
use super::tree::{Part, Tree};
use super::{nearest, shape};
use crate::compare::Mode;
use crate::error::InputError;
use crate::{Error, Result};

/// What a variant of a race may change: nothing that changes the batch or the base's values.
const RACED: [&str; 3] = ["adapter", "base", "optim"];

/// `[compare]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Compare {
    /// Runs of each variant, each with a seed of its own: the recipe's, and those after it.
    pub seeds: usize,
    /// The variant that the others are measured against; the first unless given.
    pub reference: Option<String>,
    /// Whether variants advance together over one base, or one runs after the other.
    pub mode: Mode,
    /// What verdicts go by; the task's own metric unless given, else the evaluation loss.
    pub metric: Option<String>,
    /// Chooses the rank of every other variant so that it costs about what the reference costs; alpha follows, so that the scale stays.
    #[serde(rename = "match")]
    pub budget: Option<Budget>,
    /// Steps with which a sweep tries each setting; a quarter of the run's unless given.
    pub sweep_steps: Option<usize>,
}

/// The keys of a compare recipe beside those of a recipe, for its schema.
#[expect(dead_code, reason = "they are read as TOML, one by one")]
#[derive(JsonSchema)]
pub(in crate::recipe) struct Keys {
    /// The recipe that variants are variants of, a shipped name or a file, unless its tables stand here.
    extends: Option<String>,
    compare: Option<Compare>,
    /// One table `[[variant]]` for each.
    variant: Option<Vec<VariantKeys>>,
}

#[expect(dead_code, reason = "see Keys")]
#[derive(JsonSchema)]
#[schemars(description = "Tables of the recipe, changed, and these.")]
struct VariantKeys {
    /// Also of its directory: letters, digits and _ - + .
    name: String,
    /// Keys of `adapter` and `optim`, each with the values that a short pilot tries.
    sweep: Option<std::collections::BTreeMap<String, Vec<serde_json::Value>>>,
}

/// What variants are to have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// The number of parameters that train.
    Params,
    /// The memory that a run needs alone, as foretold.
    Memory,
}

impl Default for Compare {
    fn default() -> Self {
        Self { seeds: 1, reference: None, mode: Mode::Race, metric: None, budget: None, sweep_steps: None }
    }
}

/// A compare recipe, resolved.
#[derive(Clone, Debug)]
pub struct CompareRecipe {
    /// `tiny/all`, or the file's name without `.toml`.
    pub name: String,
    pub compare: Compare,
    /// At least one, names different.
    pub variants: Vec<Variant>,
}

#[derive(Clone, Debug)]
pub struct Variant {
    pub name: String,
    pub resolved: Resolved,
    /// What a sweep chooses from before the variant runs; empty for none.
    pub choices: Choices,
    /// Every way to choose.
    pub candidates: Vec<Candidate>,
}

impl CompareRecipe {
    /// Name of the variant that the others are measured against.
    pub fn reference(&self) -> &str {
        self.compare.reference.as_deref().unwrap_or(&self.variants[0].name)
    }

    /// TOML that resolves to this same comparison, whatever it was made from.
    ///
    /// # Errors
    /// [`Error::Failed`] where a recipe cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String> {
        let unwritable = |error: toml::ser::Error| Error::Failed(format!("cannot write the recipe as TOML: {error}"));
        let table = |variant: &Variant| Table::try_from(variant.resolved.anchored()).map_err(unwritable);
        // What every variant may say for itself is said there alone, so that no optional key of one is left for another.
        let race = self.compare.mode == Mode::Race;
        let mut whole = if race { table(&self.variants[0])? } else { Table::new() };
        RACED.iter().for_each(|key| drop(whole.remove(*key)));
        whole.insert("compare".into(), Value::try_from(&self.compare).map_err(unwritable)?);
        let mut variants = Vec::new();
        for variant in &self.variants {
            let mut own = table(variant)?;
            if race {
                own.retain(|key, _| key == "model" || RACED.contains(&key));
                let model = own.get_mut("model").and_then(Value::as_table_mut);
                model.into_iter().for_each(|model| model.retain(|key, _| key == "dtype"));
            }
            own.insert("name".into(), variant.name.clone().into());
            if !variant.choices.is_empty() {
                own.insert("sweep".into(), Value::try_from(&variant.choices).map_err(unwritable)?);
            }
            variants.push(Value::Table(own));
        }
        whole.insert("variant".into(), Value::Array(variants));
        toml::to_string(&whole).map_err(unwritable)
    }

    /// Leaves only the variants of these names.
    ///
    /// # Errors
    /// An input error naming one that there is not.
    pub fn only(&mut self, names: &[String]) -> Result<()> {
        let known: Vec<String> = self.variants.iter().map(|variant| variant.name.clone()).collect();
        if let Some(missing) = names.iter().find(|name| !known.contains(name)) {
            return Err(no_variant(missing, &known).key("--only").into());
        }
        self.variants.retain(|variant| names.contains(&variant.name));
        if let Some(reference) = self.compare.reference.take_if(|reference| !names.contains(reference)) {
            let hint =
                format!("keep it with `--only {},{reference}`, or name another with `--reference`", names.join(","));
            return Err(Error::input(format!("the reference `{reference}` is left out"))
                .key("--only")
                .hint(hint)
                .into());
        }
        Ok(())
    }
}

fn no_variant(name: &str, known: &[String]) -> InputError {
    let names = || known.iter().map(String::as_str);
    let error = InputError::new(format!("no variant `{name}`")).expected(names().collect::<Vec<_>>().join(" | "));
    match nearest(name, names()) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error,
    }
}

/// Where the recipe that another one extends is found.
pub(in crate::recipe) type Parent<'a> = &'a dyn Fn(&str) -> Result<(Tree, PathBuf)>;

/// Whether the tree is a compare recipe, be it one run as well or not.
pub(in crate::recipe) fn is_compare(tree: &Tree) -> bool {
    ["compare", "variant", "extends"].iter().any(|key| tree.table.contains_key(*key))
}

/// A recipe that has variants as well is one run without them.
///
/// # Errors
/// An input error for a recipe that says no more than how variants differ from another recipe.
pub(in crate::recipe) fn leave_out_variants(tree: &mut Tree, name: &str) -> Result<()> {
    if tree.table.contains_key("extends") {
        let error = InputError::new("this recipe compares variants of another").hint(format!("lowrank compare {name}"));
        return Err(Error::Inputs(vec![tree.locate("extends", Part::Key, error)]));
    }
    ["compare", "variant"].iter().for_each(|key| drop(tree.table.remove(*key)));
    Ok(())
}

/// `sets` of `compare.*` change `[compare]`, all others every variant.
pub(in crate::recipe) fn resolve(
    mut tree: Tree,
    sets: &[String],
    name: String,
    root: PathBuf,
    parent: Parent,
) -> Result<CompareRecipe> {
    let (own, sets): (Vec<String>, Vec<String>) =
        sets.iter().cloned().partition(|set| set.trim_start().starts_with("compare."));
    own.iter().try_for_each(|set| tree.set(set)).map_err(|error| Error::Inputs(vec![*error]))?;
    let (mut base, root) = match extended(&mut tree)? {
        Some(extends) => parent(&extends)?,
        None => (Tree::parse(None, "").map_err(Error::Inputs)?, root),
    };
    let compare = compare(tree.take("compare"))?;
    let variants = tree.take_list("variant");
    base.overlay(tree);
    let mut found: Vec<Variant> = Vec::new();
    for mut tree in variants {
        let name = variant_name(&mut tree, &found)?;
        let choices = sweep::take(&mut tree, &sets).map_err(|error| of_variant(error, &name))?;
        if compare.mode == Mode::Race {
            only_what_a_race_allows(&tree, &name)?;
        }
        let mut whole = base.clone();
        whole.overlay(tree);
        let settled = |chosen: &[String]| {
            let sets = [&sets, chosen].concat();
            settle(whole.clone(), &sets, name.clone(), root.clone()).map_err(|error| of_variant(error, &name))
        };
        let candidate = |way: Vec<String>| Ok(Candidate { label: way.join(","), resolved: settled(&way)? });
        let candidates: Vec<_> = sweep::combinations(&choices).into_iter().map(candidate).collect::<Result<_>>()?;
        let resolved = settled(&[])?;
        if !candidates.is_empty() && resolved.recipe.data.eval.is_none() {
            let error = InputError::new(format!("variant `{name}` sweeps, and nothing says which setting is best"));
            return Err(error.key("data.eval").hint("eval = { fraction = 0.05 }").into());
        }
        found.push(Variant { name, resolved, choices, candidates });
    }
    if found.is_empty() {
        let hint = "[[variant]]\n      name = \"lora\"\n      [variant.adapter.lora]\n      rank = 8";
        return Err(Error::input("a comparison needs variants").hint(hint).into());
    }
    let names: Vec<String> = found.iter().map(|variant| variant.name.clone()).collect();
    if let Some(reference) = compare.reference.as_ref().filter(|reference| !names.contains(reference)) {
        return Err(no_variant(reference, &names).key("compare.reference").into());
    }
    Ok(CompareRecipe { name, compare, variants: found })
}

fn extended(tree: &mut Tree) -> Result<Option<String>> {
    match tree.table.remove("extends") {
        None => Ok(None),
        Some(Value::String(name)) => Ok(Some(name)),
        Some(other) => {
            let error =
                InputError::new("`extends` has the wrong type").found(other).expected("the name or path of a recipe");
            Err(Error::Inputs(vec![tree.locate("extends", Part::Value, error)]))
        }
    }
}

fn compare(tree: Option<Tree>) -> Result<Compare> {
    let Some(mut tree) = tree else { return Ok(Compare::default()) };
    let mut table = std::mem::take(&mut tree.table);
    let problems = shape::check(&mut table, &schemars::schema_for!(Compare).to_value());
    if !problems.is_empty() {
        let located = |problem: shape::Problem| tree.locate(&problem.path, problem.part, problem.error);
        return Err(Error::Inputs(problems.into_iter().map(located).collect()));
    }
    let compare: Compare = Value::Table(table).try_into().map_err(|error: toml::de::Error| {
        Error::Inputs(vec![tree.locate("", Part::Key, InputError::new(error.message()))])
    })?;
    for (key, number) in [("seeds", Some(compare.seeds)), ("sweep_steps", compare.sweep_steps)] {
        if number == Some(0) {
            let error = InputError::new(format!("`compare.{key}` is 0")).expected("1 or more");
            return Err(Error::Inputs(vec![tree.locate(key, Part::Value, error)]));
        }
    }
    Ok(compare)
}

/// Names become directories.
fn variant_name(tree: &mut Tree, others: &[Variant]) -> Result<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_-+.".contains(c);
    let error = match tree.table.remove("name") {
        Some(Value::String(name)) if others.iter().any(|other| other.name == name) => {
            InputError::new(format!("two variants are named `{name}`"))
        }
        Some(Value::String(name)) if !name.is_empty() && !name.starts_with('.') && name.chars().all(fits) => {
            return Ok(name);
        }
        Some(other) => {
            InputError::new("not the name of a variant").found(other).expected("letters, digits and _ - + .")
        }
        None => InputError::new("a variant needs a name").hint("name = \"lora\""),
    };
    Err(Error::Inputs(vec![tree.locate("name", Part::Value, error)]))
}

fn only_what_a_race_allows(tree: &Tree, name: &str) -> Result<()> {
    // How the weights are stored, not which.
    let stored =
        |key: &str| key == "model" && tree.table[key].as_table().is_some_and(|model| model.keys().eq(["dtype"]));
    let allowed = |key: &&String| RACED.contains(&key.as_str()) || stored(key);
    let Some(key) = tree.table.keys().find(|key| !allowed(key)) else { return Ok(()) };
    let error =
        InputError::new(format!("variant `{name}` changes `{key}`, and all variants of a race see the same batches"))
            .expected("adapter, base, model.dtype or optim")
            .hint("move it to the top of the recipe, or set `compare.mode = \"sequence\"`");
    Err(Error::Inputs(vec![tree.locate(key, Part::Key, error)]))
}

fn of_variant(error: Error, name: &str) -> Error {
    match error {
        Error::Inputs(errors) => {
            let named = |mut error: InputError| {
                error.what = format!("variant `{name}`: {}", error.what);
                error
            };
            Error::Inputs(errors.into_iter().map(named).collect())
        }
        other => other,
    }
}
