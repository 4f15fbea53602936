//! Defaults, then the recipe's TOML, then `--set`: one recipe, or everything that is wrong with it.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::tree::{Part, Tree};
use super::{EvalData, Recipe, compare, schema, shape, validate};
use crate::data::split_fragment;
use crate::error::InputError;
use crate::{Error, Result};

/// No recipe comes near this many bytes; a larger file is not one.
const LARGEST_FILE: u64 = 1 << 20;

/// A recipe that makes sense, and where it came from.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub recipe: Recipe,
    /// `tiny/lora`, or the file's name without `.toml`.
    pub name: String,
    /// Directory that relative paths in the recipe start from.
    pub root: PathBuf,
    /// Number of `--set` overrides.
    pub overrides: usize,
}

/// Reads the recipe file at `path` and applies `sets`, each `path.to.key=VALUE`.
/// Whatever is wrong is reported at once as [`Error::Inputs`].
pub fn load(path: impl AsRef<Path>, sets: &[String]) -> Result<Resolved> {
    let path = path.as_ref();
    let text = read(path)?;
    let root = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    resolve(Some(path.to_path_buf()), &text, sets, name, root.to_path_buf())
}

/// A recipe from TOML text, such as [`Recipe::to_toml`] writes.
pub fn parse(text: &str) -> Result<Recipe> {
    resolve(None, text, &[], String::new(), PathBuf::from(".")).map(|resolved| resolved.recipe)
}

pub(super) fn resolve(
    file: Option<PathBuf>,
    text: &str,
    sets: &[String],
    name: String,
    root: PathBuf,
) -> Result<Resolved> {
    let shown = file.as_ref().map_or_else(|| name.clone(), |file| file.display().to_string());
    let mut tree = Tree::parse(file, text).map_err(Error::Inputs)?;
    compare::leave_out_variants(&mut tree, &shown)?;
    settle(tree, sets, name, root)
}

/// One recipe from a tree, or everything that is wrong with it.
pub(super) fn settle(mut tree: Tree, sets: &[String], name: String, root: PathBuf) -> Result<Resolved> {
    let mut errors: Vec<InputError> =
        sets.iter().filter_map(|argument| tree.set(argument).err()).map(|error| *error).collect();
    let schema = schema::schema();
    let mut table = std::mem::take(&mut tree.table);
    let mut problems = shape::check(&mut table, &schema);
    let recipe = match toml::Value::Table(table).try_into::<Recipe>() {
        Ok(recipe) => {
            problems.extend(validate::check(&recipe));
            Some(recipe)
        }
        Err(error) if problems.is_empty() => {
            errors.push(tree.locate("", Part::Key, InputError::new(error.message())));
            None
        }
        Err(_) => None,
    };
    errors.extend(problems.into_iter().map(|problem| tree.locate(&problem.path, problem.part, problem.error)));
    // In the order of the file, then the overrides.
    errors.sort_by_key(|error| (error.file.is_none(), error.span.as_ref().map(|span| span.start)));
    match recipe {
        Some(mut recipe) if errors.is_empty() => {
            anchor_overrides(&mut recipe, tree.overridden());
            Ok(Resolved { recipe, name, root, overrides: sets.len() })
        }
        _ => Err(Error::Inputs(errors)),
    }
}

impl Resolved {
    /// Where a relative path of the recipe points.
    pub fn locate(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The recipe with every path that exists made absolute, so that its TOML runs from anywhere.
    pub fn anchored(&self) -> Recipe {
        let mut recipe = self.recipe.clone();
        for (key, path) in paths(&mut recipe) {
            anchor(key, path, &self.root);
        }
        recipe
    }

    /// Files that the recipe names and that do not exist.
    pub fn missing_files(&self) -> Vec<InputError> {
        let mut recipe = self.recipe.clone();
        let is_file = |key: &str, path: &str| match key {
            "model.path" => path != "tiny" && (path.ends_with(".gguf") || path.starts_with(['.', '/'])),
            "data.template" => !["none", "chatml", "tokenizer"].contains(&path),
            _ => !path.starts_with("synthetic:"),
        };
        paths(&mut recipe)
            .into_iter()
            .filter(|(key, path)| is_file(key, path) && !split_fragment(&self.locate(path)).0.exists())
            .map(|(key, path)| InputError::new("no such file").key(key).file(self.locate(path)))
            .collect()
    }
}

impl Recipe {
    /// TOML that resolves to this same recipe.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::Failed(format!("cannot write the recipe as TOML: {error}")))
    }

    /// Checks a recipe that was made in code as a file would be checked.
    pub fn check(&self) -> Result<()> {
        let problems = validate::check(self);
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::Inputs(problems.into_iter().map(|problem| problem.error.key(problem.path)).collect()))
    }
}

/// Every key whose value may be a path.
fn paths(recipe: &mut Recipe) -> Vec<(&'static str, &mut String)> {
    let mut paths = vec![
        ("model.path", &mut recipe.model.path),
        ("data.train", &mut recipe.data.train),
        ("data.template", &mut recipe.data.template),
    ];
    if let Some(EvalData::Path(path)) = &mut recipe.data.eval {
        paths.push(("data.eval", path));
    }
    if let Some(path) = &mut recipe.train.init_from {
        paths.push(("train.init_from", path));
    }
    paths
}

/// A path typed on the command line starts from where its writer stands, not from the recipe.
fn anchor_overrides(recipe: &mut Recipe, overridden: &[String]) {
    for (key, path) in paths(recipe) {
        if overridden.iter().any(|given| given == key) {
            anchor(key, path, Path::new("."));
        }
    }
}

/// Words that are no path (`tiny`, `synthetic:menu`, `chatml`) name no existing file and stay. An adapter is always a path, and
/// may be gone when a run that started from it is resumed.
fn anchor(key: &str, path: &mut String, root: &Path) {
    const WORDS: [&str; 4] = ["tiny", "none", "chatml", "tokenizer"];
    if !WORDS.contains(&path.as_str())
        && let Ok(absolute) = std::path::absolute(root.join(&*path))
        && (split_fragment(&absolute).0.exists() || key == "train.init_from")
        && let Some(absolute) = absolute.to_str()
    {
        *path = absolute.to_string();
    }
}

pub(super) fn read(path: &Path) -> Result<String> {
    let about = |what: &str| Error::input(what).file(path);
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => about("no such recipe").into(),
        _ => Error::io(path)(error),
    })?;
    if !metadata.is_file() {
        return Err(about("a recipe is a TOML file").found("a directory or a device").into());
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(about("too large for a recipe").expected("at most 1 MiB of TOML").into());
    }
    String::from_utf8(bytes).map_err(|error| {
        let start = error.utf8_error().valid_up_to();
        about("not UTF-8 text").place("byte", start.to_string()).into()
    })
}
