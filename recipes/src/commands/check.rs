//! `lowrank check`: every problem of every recipe, without loading anything.

use std::path::Path;

use lowrank::error::InputError;
use lowrank::{Error, Result};
use lowrank_cli::{SHIPPED, report_error};

use crate::args::Output;

/// Examples: `lowrank check my.toml`, `lowrank check recipes/*/*.toml --set train.batch=2`
#[derive(Debug, clap::Args)]
pub struct Check {
    /// Recipe files or shipped names
    #[arg(required = true, value_name = "RECIPE")]
    recipes: Vec<String>,
    /// Override one key of every recipe (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Check {
    pub fn run(&self, output: &Output) -> Result<()> {
        let mut problems = Vec::new();
        for recipe in &self.recipes {
            let found = problems_of(recipe, &self.set, output)?;
            if found.is_empty() && !output.quiet {
                eprintln!("{recipe}: good");
            }
            problems.extend(found);
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Inputs(problems)) }
    }
}

fn problems_of(recipe: &str, sets: &[String], output: &Output) -> Result<Vec<InputError>> {
    let missing = match missing_files(recipe, sets) {
        Ok(missing) => missing,
        Err(Error::Inputs(problems)) => return Ok(problems),
        Err(Error::Input(problem)) => return Ok(vec![*problem]),
        Err(other) => return Err(other),
    };
    if Path::new(recipe).exists() {
        return Ok(missing);
    }
    // A shipped recipe names files that its user is to bring.
    missing.iter().for_each(|problem| report_error::warn(problem, output.color));
    Ok(Vec::new())
}

/// Files that do not exist, each once; an error where the recipe itself is wrong.
fn missing_files(recipe: &str, sets: &[String]) -> Result<Vec<InputError>> {
    if !SHIPPED.compares(recipe) {
        return Ok(SHIPPED.load(recipe, sets)?.missing_files());
    }
    let variants = SHIPPED.load_comparison(recipe, sets)?.variants;
    let mut missing: Vec<InputError> = Vec::new();
    for problem in variants.iter().flat_map(|variant| variant.resolved.missing_files()) {
        if !missing.iter().any(|known| known.to_string() == problem.to_string()) {
            missing.push(problem);
        }
    }
    Ok(missing)
}
