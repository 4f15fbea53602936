//! `lowrank inspect`: what is in an adapter, a model or a data file.

mod data;
mod tensors;

use std::path::{Path, PathBuf};

use lowrank::adapters::peft::CONFIG_FILE;
use lowrank::models::gguf::GgufFile;
use lowrank::models::{Safetensors, open};
use lowrank::{Error, Result};

use crate::args::Output;

const EXAMPLES: &str = "\
Examples:
  lowrank inspect runs/my/final
  lowrank inspect model.gguf
  lowrank inspect rows.csv --recipe my.toml --rows 3";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Inspect {
    /// A run, adapter or model directory, a .safetensors, .gguf or data file, or synthetic:NAME
    pub path: PathBuf,
    /// Recipe that says how to read a data file
    #[arg(long)]
    pub recipe: Option<String>,
    /// Override one key of that recipe (repeatable)
    #[arg(long, value_name = "KEY=VALUE", requires = "recipe")]
    pub set: Vec<String>,
    /// Rows of a data file to show
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub rows: usize,
}

impl Inspect {
    pub fn run(&self, output: &Output) -> Result<()> {
        let path = self.path.as_path();
        let last = path.join("final");
        match () {
            () if let Some(recipe) = &self.recipe => data::show(self, recipe, output),
            () if path.join(CONFIG_FILE).exists() => tensors::adapter(path, output.format),
            () if last.join(CONFIG_FILE).exists() => tensors::adapter(&last, output.format),
            () if has_suffix(path, "gguf") => {
                let file = GgufFile::open(path)?;
                tensors::model(&file, Some(file.config()), output.format)
            }
            () if has_suffix(path, "safetensors") => {
                tensors::model(&Safetensors::open_file(path)?, None, output.format)
            }
            () if path.is_dir() || path == Path::new("tiny") => {
                let path = if last.join("config.json").exists() { &last } else { path };
                let opened = open(&path.to_string_lossy(), Path::new("."))?;
                tensors::model(&*opened.weights, Some(&opened.config), output.format)
            }
            () if path.is_file() || path.to_string_lossy().starts_with("synthetic:") => Err(not_without_recipe(path)),
            () => Err(Error::input("no such file or directory").file(path).into()),
        }
    }
}

fn has_suffix(path: &Path, suffix: &str) -> bool {
    path.extension().is_some_and(|own| own.eq_ignore_ascii_case(suffix))
}

fn not_without_recipe(path: &Path) -> Error {
    let error = Error::input("neither an adapter nor a model").file(path);
    error.hint("a data file is shown as the model sees it: add `--recipe RECIPE`").into()
}
