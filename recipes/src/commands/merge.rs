//! `lowrank merge`: base and adapter as one model that loads anywhere.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::ValueEnum;
use lowrank::adapters::merge::{OutDtype, merge};
use lowrank::adapters::{Module, peft};
use lowrank::train::Subject;
use lowrank::{Error, Result};
use lowrank_cli::stdout;

use crate::args::Output;

const EXAMPLES: &str = "\
Examples:
  lowrank merge runs/my --out merged
  lowrank merge path/to/adapter --base path/to/model --dtype bf16 --out merged";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Merge {
    /// A run or an adapter directory
    #[arg(value_name = "RUN|ADAPTER")]
    pub adapter: PathBuf,
    /// The adapter's base model; a run knows its own
    #[arg(long, value_name = "MODEL")]
    pub base: Option<PathBuf>,
    /// Directory for the merged model; must not be there yet
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// How the weights are written; the sum itself is computed in f32
    #[arg(long, value_enum, default_value_t)]
    pub dtype: MergedDtype,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum MergedDtype {
    #[default]
    F32,
    F16,
    Bf16,
}

impl From<MergedDtype> for OutDtype {
    fn from(dtype: MergedDtype) -> Self {
        match dtype {
            MergedDtype::F32 => OutDtype::F32,
            MergedDtype::F16 => OutDtype::F16,
            MergedDtype::Bf16 => OutDtype::Bf16,
        }
    }
}

impl Merge {
    pub fn run(&self, output: &Output) -> Result<()> {
        let subject = Subject::open(&self.adapter, self.base.as_deref())?;
        let Some(adapter) = &subject.adapter else {
            return Err(Error::input("nothing to merge: this is no adapter").file(&self.adapter).into());
        };
        let (opened, modules) = (&subject.opened, Module::list(&subject.opened.config));
        let read = peft::read(adapter, &opened.config.model_type, &modules)?;
        read.0.warnings.iter().for_each(|warning| eprintln!("warn   {warning}"));
        let quiet = output.quiet || !std::io::stderr().is_terminal();
        let mut progress = |done: usize, all: usize| {
            if !quiet {
                eprint!("\rmerging {done}/{all} tensors{}", if done == all { "\n" } else { "" });
            }
        };
        let dtype = OutDtype::from(self.dtype);
        let report = merge(opened.weights.as_ref(), &opened.config, &read, dtype, &self.out, &mut progress)?;
        opened.tokenizer.save(&self.out)?;
        eprintln!("{} tensors, {} of them changed", report.tensors, report.changed);
        if report.untied {
            eprintln!("the head no longer shares the embedding's weight: only one of them was adapted");
        }
        if report.rounding > 0.0 {
            let largest = &report.rounding_tensor;
            eprintln!("rounding changed a value by at most {:.1e}, in {largest}", report.rounding);
        }
        stdout::print(&format!("{}\n", self.out.display()))
    }
}
