//! `lowrank recipes`: the recipes that are compiled in, to look at and to copy.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use lowrank::events::Format;
use lowrank::{Error, Result};
use lowrank_cli::table::Table;
use lowrank_cli::{SHIPPED, stdout};
use serde_json::json;

use crate::args::Output;

/// Examples: `lowrank recipes`, `lowrank recipes show tiny/lora`, `lowrank recipes copy tiny/lora my.toml`
#[derive(Debug, clap::Args)]
pub struct Recipes {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List them
    Ls,
    /// Print one
    Show {
        /// A name that `ls` lists
        name: String,
    },
    /// Write one to a file of your own
    Copy {
        /// A name that `ls` lists
        name: String,
        /// The file or directory to write to; the recipe's own name in the current directory if left out
        path: Option<PathBuf>,
    },
}

impl Recipes {
    pub fn run(&self, output: &Output) -> Result<()> {
        match self.action.as_ref().unwrap_or(&Action::Ls) {
            Action::Ls => list(output.format),
            Action::Show { name } => stdout::print(SHIPPED.text(name)?),
            Action::Copy { name, path } => stdout::print(&format!("{}\n", copy(name, path.as_deref())?.display())),
        }
    }
}

fn list(format: Format) -> Result<()> {
    if format == Format::Json {
        let recipes = SHIPPED.names().map(|name| json!({ "name": name, "summary": SHIPPED.summary(name) }));
        return stdout::print_json(&recipes.collect::<Vec<_>>());
    }
    let mut table = Table::new(["recipe", "what it does"]);
    SHIPPED.names().for_each(|name| table.row([name.into(), SHIPPED.summary(name).into()]));
    stdout::print(&table.render())
}

/// Writes the recipe and returns where; never over a file that is there.
fn copy(name: &str, path: Option<&Path>) -> Result<PathBuf> {
    let text = SHIPPED.text(name)?;
    let own_name = format!("{}.toml", name.replace('/', "-"));
    let path = match path {
        None => PathBuf::from(own_name),
        Some(path) if path.is_dir() => path.join(own_name),
        Some(path) => path.to_path_buf(),
    };
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Error::input("there is a file already").file(&path).hint("name another one").into(),
        ErrorKind::NotFound => Error::input("no such directory").file(&path).into(),
        _ => Error::io(&path)(error),
    })?;
    file.write_all(text.as_bytes()).map_err(Error::io(&path))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_the_recipe_and_overwrites_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = copy("tiny/lora", Some(folder.path())).unwrap();
        assert_eq!(path.file_name().unwrap(), "tiny-lora.toml");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), SHIPPED.text("tiny/lora").unwrap());
        assert_eq!(copy("tiny/lora", Some(&path)).unwrap_err().exit_code(), 2);
        assert_eq!(copy("tiny/lora", Some(&folder.path().join("no/x.toml"))).unwrap_err().exit_code(), 2);
        assert!(copy("tiny/lroa", None).unwrap_err().to_string().contains("did you mean `tiny/lora`?"));
    }
}
