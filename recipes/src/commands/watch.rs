//! `lowrank watch`: the dashboard over what runs have written.

use std::path::PathBuf;

#[cfg(feature = "tui")]
use lowrank::checkpoint::Layout;
use lowrank::{Error, Result};

use crate::args::{Drawing, Output};

const EXAMPLES: &str = "\
Examples:
  lowrank watch runs/my
  lowrank watch runs/a runs/b
  lowrank watch runs/my --svg frame.svg";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Watch {
    /// Run directories, live or finished; several are drawn together
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// Write the frame as it stands now into an SVG picture instead, 100 columns by 30 lines
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    #[command(flatten)]
    pub drawing: Drawing,
}

impl Watch {
    #[cfg(feature = "tui")]
    pub fn run(&self, _output: &Output) -> Result<()> {
        if let Some(run) = self.runs.iter().find(|run| !run.exists()) {
            return Err(Error::input("no such run").file(run).into());
        }
        let Some(file) = &self.svg else { return lowrank::dashboard::watch(&self.runs, self.drawing.choice()) };
        let mut records = Vec::new();
        for run in &self.runs {
            records.extend(lowrank::events::read(Layout::of(run)?.metrics())?);
        }
        let picture = lowrank::dashboard::svg(&records, 100, 30);
        std::fs::write(file, picture).map_err(Error::io(file))
    }

    #[cfg(not(feature = "tui"))]
    pub fn run(&self, _output: &Output) -> Result<()> {
        Err(Error::input("`watch` is not compiled in").hint("build with `--features tui`").into())
    }
}
