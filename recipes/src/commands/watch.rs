//! `lowrank watch`: the dashboard over what runs have written.

use std::path::PathBuf;

use lowrank::{Error, Result};

use crate::args::Output;

const EXAMPLES: &str = "\
Examples:
  lowrank watch runs/my
  lowrank watch runs/a runs/b --no-tui";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Watch {
    /// Run directories, live or finished; several are drawn together
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// Plain lines instead of the dashboard
    #[arg(long)]
    pub no_tui: bool,
}

impl Watch {
    pub fn run(&self, _output: &Output) -> Result<()> {
        Err(Error::Failed("watching is not wired up in this build".into()))
    }
}
