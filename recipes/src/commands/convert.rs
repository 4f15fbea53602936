//! `lowrank convert`: any low-rank adapter as plain LoRA, of a smaller rank where asked for.

use std::path::PathBuf;

use lowrank::Result;
use lowrank::adapters::convert::to_lora;
use lowrank::train::Adapters;
use lowrank_cli::stdout;

use crate::args::Output;

const EXAMPLES: &str = "\
Examples:
  lowrank convert runs/my --out my-lora
  lowrank convert path/to/adapter --base path/to/model --rank 4 --out smaller";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Convert {
    /// A run or an adapter directory
    #[arg(value_name = "RUN|ADAPTER")]
    pub adapter: PathBuf,
    /// The adapter's base model; a run knows its own
    #[arg(long, value_name = "MODEL")]
    pub base: Option<PathBuf>,
    /// Directory for the LoRA adapter; must not hold anything yet
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Bring modules of a larger rank down to this one, as near as it can be; exact without it
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..))]
    pub rank: Option<u32>,
}

impl Convert {
    pub fn run(&self, output: &Output) -> Result<()> {
        let adapters = Adapters::open(std::slice::from_ref(&self.adapter), self.base.as_deref())?;
        let adapter = &adapters.list[0];
        adapter.0.warnings.iter().for_each(|warning| eprintln!("warn   {warning}"));
        let (converted, report) = to_lora(adapter, &adapters.modules, self.rank.map(|rank| rank as usize))?;
        adapters.write(&converted, &self.out)?;
        if !output.quiet {
            let [before, after] = report.ranks;
            eprintln!("{} modules, largest rank {before} → {after}", report.modules);
            if report.error > 0.0 {
                let (error, worst, module) = (report.error, report.worst, &report.worst_module);
                eprintln!("relative error of the update {error:.1e}, at most {worst:.1e}, in {module}");
            }
        }
        stdout::print(&format!("{}\n", self.out.display()))
    }
}
