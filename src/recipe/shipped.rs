//! Recipes that are compiled into a program, by name.

use std::path::{Path, PathBuf};

use super::compare::{self, CompareRecipe};
use super::resolve::{self, Resolved};
use super::suggest::nearest;
use super::tree::Tree;
use crate::{Error, Result};

/// Name (`tiny/lora`) and TOML of each shipped recipe.
#[derive(Clone, Copy, Debug)]
pub struct Shipped(pub &'static [(&'static str, &'static str)]);

impl Shipped {
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(name, _)| *name)
    }

    /// The TOML of a shipped recipe.
    pub fn text(&self, name: &str) -> Result<&'static str> {
        self.find(name).ok_or_else(|| {
            let error = Error::input(format!("no shipped recipe `{name}`"));
            error.hint(self.suggestion(name)).into()
        })
    }

    /// Resolves a shipped name or, failing that, a file. Relative paths of a shipped recipe start
    /// from the current directory, those of a file from the file's directory.
    pub fn load(&self, recipe: &str, sets: &[String]) -> Result<Resolved> {
        match self.find(recipe) {
            Some(text) => {
                resolve::resolve(Some(PathBuf::from(recipe)), text, sets, recipe.to_string(), PathBuf::from("."))
            }
            None if Path::new(recipe).exists() || recipe.ends_with(".toml") => resolve::load(recipe, sets),
            None => Err(self.unknown(recipe)),
        }
    }

    /// Resolves a compare recipe, a shipped name or a file, whose `extends` is the one or the other.
    pub fn load_comparison(&self, recipe: &str, sets: &[String]) -> Result<CompareRecipe> {
        let (tree, root) = self.tree(recipe, Path::new("."))?;
        if !compare::is_compare(&tree) {
            let error = Error::input("this recipe compares nothing").file(recipe).expected("[compare] and [[variant]]");
            return Err(error.hint(format!("lowrank train {recipe}")).into());
        }
        let name = match self.find(recipe) {
            Some(_) => recipe.to_string(),
            None => Path::new(recipe).file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        };
        compare::resolve(tree, sets, name, root.clone(), &|parent| self.tree(parent, &root))
    }

    /// Whether a shipped name or a file is a compare recipe; what cannot be read is none.
    pub fn compares(&self, recipe: &str) -> bool {
        self.tree(recipe, Path::new(".")).is_ok_and(|(tree, _)| compare::is_compare(&tree))
    }

    /// A recipe's TOML, and where its relative paths start.
    fn tree(&self, recipe: &str, root: &Path) -> Result<(Tree, PathBuf)> {
        if let Some(text) = self.find(recipe) {
            let tree = Tree::parse(Some(PathBuf::from(recipe)), text).map_err(Error::Inputs)?;
            return Ok((tree, PathBuf::from(".")));
        }
        let path = root.join(recipe);
        if !path.exists() && !recipe.ends_with(".toml") {
            return Err(self.unknown(recipe));
        }
        let tree = Tree::parse(Some(path.clone()), &resolve::read(&path)?).map_err(Error::Inputs)?;
        let root = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok((tree, root.to_path_buf()))
    }

    /// The first comment line of a recipe says what it is.
    pub fn summary(&self, name: &str) -> &'static str {
        let first = self.find(name).and_then(|text| text.lines().next()).unwrap_or_default();
        first.trim_start_matches('#').trim()
    }

    fn find(&self, name: &str) -> Option<&'static str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
    }

    fn unknown(&self, recipe: &str) -> Error {
        let error = Error::input(format!("no recipe `{recipe}`")).expected("a TOML file or a shipped recipe");
        error.hint(self.suggestion(recipe)).into()
    }

    fn suggestion(&self, name: &str) -> String {
        match nearest(name, self.names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("shipped recipes: {}", self.names().collect::<Vec<_>>().join(", ")),
        }
    }
}
