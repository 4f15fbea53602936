//! `lowrank methods`: what can train, and with which options.

use clap::Subcommand;
use lowrank::adapters::{METHODS, Row};
use lowrank::events::Format;
use lowrank::recipe::{nearest, schema_of};
use lowrank::{Error, Result};
use lowrank_cli::stdout;
use lowrank_cli::table::Table;

use super::schema::explain;
use crate::args::Output;

/// What a recipe may name in place of a method.
const WITHOUT_ADAPTER: [Row; 2] = [
    Row {
        name: "full",
        summary: "Every weight trains, in a dense copy of its own",
        equation: "y = W x",
        trains: "W [out, in] and all else",
        parameters: "all",
        paper: "-",
    },
    Row {
        name: "none",
        summary: "Nothing trains: evaluate the base",
        equation: "y = W x",
        trains: "nothing",
        parameters: "0",
        paper: "-",
    },
];

/// Examples: `lowrank methods`, `lowrank methods show lora`
#[derive(Debug, clap::Args)]
pub struct Methods {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List them
    Ls,
    /// Explain one: equation, what trains, options with their defaults
    Show {
        /// A name that `ls` lists
        name: String,
    },
}

impl Methods {
    pub fn run(&self, output: &Output) -> Result<()> {
        match self.action.as_ref().unwrap_or(&Action::Ls) {
            Action::Ls if output.format == Format::Json => stdout::print_json(&all().collect::<Vec<_>>()),
            Action::Ls => stdout::print(&list()),
            Action::Show { name } if output.format == Format::Json => stdout::print_json(find(name)?),
            Action::Show { name } => stdout::print(&show(find(name)?)?),
        }
    }
}

fn all() -> impl Iterator<Item = &'static Row> {
    METHODS.iter().chain(&WITHOUT_ADAPTER)
}

fn find(name: &str) -> Result<&'static Row> {
    all().find(|method| method.name == name).ok_or_else(|| {
        let error = Error::input(format!("no method `{name}`"));
        let names: Vec<&str> = all().map(|method| method.name).collect();
        match nearest(name, names.iter().copied()) {
            Some(near) => error.hint(format!("did you mean `{near}`?")).into(),
            None => error.expected(names.join(" | ")).into(),
        }
    })
}

fn list() -> String {
    let mut table = Table::new(["method", "equation", "parameters a layer", "what it is"]);
    all().for_each(|m| table.row([m.name.into(), m.equation.into(), m.parameters.into(), m.summary.into()]));
    table.render()
}

fn show(method: &Row) -> Result<String> {
    let Row { name, summary, equation, trains, parameters, paper } = method;
    let options = explain(&format!("[adapter.{name}]"), &schema_of(&format!("adapter.{name}"))?, 0);
    Ok(format!(
        "{name}: {summary}\n\n  {equation}\n\ntrains      {trains}\nparameters  {parameters}\npaper       {paper}\n\n{options}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_the_recipe_is_listed_and_explained() {
        let schema = lowrank::recipe::schema();
        let keys = lowrank::recipe::keys(&schema);
        let in_recipe =
            keys.iter().filter_map(|(path, _)| path.strip_prefix("adapter.")).filter(|rest| !rest.contains('.'));
        assert_eq!(in_recipe.collect::<Vec<_>>(), all().map(|method| method.name).collect::<Vec<_>>());
        assert!(show(find("lora").unwrap()).unwrap().contains("rank_pattern"));
        assert!(find("lroa").unwrap_err().to_string().contains("did you mean `lora`?"));
    }
}
