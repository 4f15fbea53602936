//! `lowrank watch`: the dashboard over what runs have written.

use std::path::PathBuf;

use lowrank::{Error, Result};

use crate::args::Output;

const EXAMPLES: &str = "\
Examples:
  lowrank watch runs/my
  lowrank watch runs/a runs/b";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Watch {
    /// Run directories, live or finished; several are drawn together
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
}

impl Watch {
    #[cfg(feature = "tui")]
    pub fn run(&self, _output: &Output) -> Result<()> {
        if let Some(run) = self.runs.iter().find(|run| !run.exists()) {
            return Err(Error::input("no such run").file(run).into());
        }
        lowrank::dashboard::watch(&self.runs)
    }

    #[cfg(not(feature = "tui"))]
    pub fn run(&self, _output: &Output) -> Result<()> {
        Err(Error::input("`watch` is not compiled in").hint("build with `--features tui`").into())
    }
}
