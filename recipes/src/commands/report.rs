//! `lowrank report`: what runs have written, compared.

use std::path::PathBuf;

use lowrank::Result;
use lowrank::compare::{Comparison, Judged, Pictures, default_out};
use lowrank::events::Format;
use lowrank_cli::stdout;

use crate::args::Output;

const EXAMPLES: &str = "\
Examples:
  lowrank report runs/my-comparison                     of `lowrank compare`: rebuilds its report
  lowrank report runs/lora runs/dora --out report       plain runs, each a variant; the first is the reference
  lowrank report runs/my-comparison --reference dora --svg
  lowrank report runs/* --export-csv runs.csv";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Report {
    /// Comparisons or run directories
    #[arg(required = true, value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
    /// Directory for the files; the comparison's own, or `report` for several
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// The variant that the others are measured against
    #[arg(long, value_name = "NAME")]
    pub reference: Option<String>,
    /// What verdicts go by [default: the task's own metric, else eval_loss]
    #[arg(long, value_name = "NAME")]
    pub metric: Option<String>,
    /// Write every plot as an SVG file too
    #[arg(long)]
    pub svg: bool,
    /// Write every plot as a PNG file too, on light paper
    #[arg(long)]
    pub png: bool,
    /// Write one row for each run, with all final numbers
    #[arg(long, value_name = "FILE")]
    pub export_csv: Option<PathBuf>,
}

impl Report {
    pub fn run(&self, output: &Output) -> Result<()> {
        let judged = Judged { reference: self.reference.as_deref(), metric: self.metric.as_deref() };
        let comparison = Comparison::read(&self.dirs, judged)?;
        let out = self.out.clone().unwrap_or_else(|| default_out(&self.dirs));
        let mut written = comparison.write(&out, Pictures { svg: self.svg, png: self.png })?;
        if let Some(file) = &self.export_csv {
            comparison.write_csv(file)?;
            written.push(file.clone());
        }
        if output.format == Format::Json {
            return stdout::print_json(&comparison.summary);
        }
        stdout::print(&written.iter().map(|path| format!("{}\n", path.display())).collect::<String>())
    }
}
