//! `lowrank watch`: the dashboard over what runs have written.

use std::path::PathBuf;

#[cfg(feature = "tui")]
use lowrank::dashboard;
use lowrank::{Error, Result};

use crate::args::{Drawing, Output};

const EXAMPLES: &str = "\
Examples:
  lowrank watch runs/my                            a run or a comparison, live or finished
  lowrank watch runs/a runs/b                      drawn together
  lowrank watch runs/my --svg frame.svg            the frame as it stands now
  lowrank watch runs/my --svg frame.svg --size 120x40 --at 0.5";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Watch {
    /// Directories of runs and comparisons, live or finished; several are drawn together
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// Write one frame into an SVG picture instead, as the dashboard beside the runs drew it
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Size of the picture in characters
    #[arg(long, value_name = "COLSxROWS", default_value = "100x30", requires = "svg")]
    pub size: String,
    /// When: the share of the time of all runs, from 0 to 1 for as they stand now
    #[arg(long, value_name = "FRACTION", default_value_t = 1.0, requires = "svg")]
    pub at: f64,
    /// Keys to type before the picture is taken: `ll` for the second next variant
    #[arg(long, value_name = "KEYS", default_value = "", requires = "svg", hide_default_value = true)]
    pub keys: String,
    #[command(flatten)]
    pub drawing: Drawing,
}

impl Watch {
    #[cfg(feature = "tui")]
    pub fn run(&self, _output: &Output) -> Result<()> {
        let Some(file) = &self.svg else { return dashboard::watch(&self.runs, self.drawing.choice()) };
        if !(0.0..=1.0).contains(&self.at) {
            return Err(Error::input("no such time").key("--at").found(self.at).expected("a share from 0 to 1").into());
        }
        let picture = dashboard::picture(&self.runs, self.size.parse()?, self.at, &self.keys)?;
        std::fs::write(file, picture).map_err(Error::io(file))
    }

    #[cfg(not(feature = "tui"))]
    pub fn run(&self, _output: &Output) -> Result<()> {
        Err(Error::input("`watch` is not compiled in").hint("build with `--features tui`").into())
    }
}
