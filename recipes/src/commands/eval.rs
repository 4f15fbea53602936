//! `lowrank eval`: loss and scores on held-out rows.

use lowrank::{Error, Result};

use crate::args::{OnDevice, Output, Overrides, Subject};

const EXAMPLES: &str = "\
Examples:
  lowrank eval runs/my
  lowrank eval path/to/model --recipe my.toml --set data.eval=test.jsonl --format json";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Eval {
    #[command(flatten)]
    pub subject: Subject,
    /// Recipe whose [data] says what to evaluate on; a run knows its own
    #[arg(long)]
    pub recipe: Option<String>,
    #[command(flatten)]
    pub overrides: Overrides,
    #[command(flatten)]
    pub device: OnDevice,
}

impl Eval {
    pub fn run(&self, _output: &Output) -> Result<()> {
        Err(Error::Failed("evaluation is not wired up in this build".into()))
    }
}
