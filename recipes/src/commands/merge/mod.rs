//! `lowrank merge`: base and adapter as one model that loads anywhere, or several adapters as one.

mod model;

use std::path::PathBuf;

use clap::ValueEnum;
use lowrank::adapters::combine::{Combination, METHODS, Majority, Method, combine};
use lowrank::adapters::merge::OutDtype;
use lowrank::adapters::peft::PeftAdapter;
use lowrank::train::Adapters;
use lowrank::{Error, Result};
use lowrank_cli::stdout;

use self::model::Weights;
use crate::args::{Output, one_of};

const EXAMPLES: &str = "\
Examples:
  lowrank merge runs/my --out merged                                 one adapter: a model
  lowrank merge path/to/adapter --base path/to/model --dtype bf16 --out merged
  lowrank merge runs/a runs/b --weights 0.7,0.3 --out both           several: one adapter, exactly 0.7 ΔW + 0.3 ΔW
  lowrank merge runs/a runs/b --weights 1,-1 --method svd --rank 8 --out difference
  lowrank merge runs/a runs/b --weights 0.5,0.5 --write model --out merged
  lowrank merge runs/my --base merged --unmerge --out base           take it off again
Over a quantised base:
  lowrank merge runs/my --out merged                                 exact; tells what the other two would have cost
  lowrank merge runs/my --into requantised --out merged              four bits again: a bitsandbytes checkpoint
  lowrank merge runs/my --base-only --out base                       what runs/my/final belongs to, in floats";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Merge {
    /// A run or an adapter directory; several are combined, over one base
    #[arg(value_name = "RUN|ADAPTER", required = true)]
    pub adapters: Vec<PathBuf>,
    /// The adapters' base model; a run knows its own
    #[arg(long, value_name = "MODEL")]
    pub base: Option<PathBuf>,
    /// Directory for the result; must not hold anything yet
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// What comes out; a model of one adapter, an adapter of several
    #[arg(long, value_enum, value_name = "WHAT")]
    pub write: Option<Written>,
    /// How a model's weights are written, f32 unless given; the sum itself is computed in f32
    #[arg(long, value_enum)]
    pub dtype: Option<MergedDtype>,
    /// Into which weights of a quantised base the adapter goes; `dequantised` unless given
    #[arg(long, value_enum, value_name = "WEIGHTS", conflicts_with = "unmerge")]
    pub into: Option<Weights>,
    /// Write the base of a run (or a model) alone, as the run has it stored: `--into` says in which form
    #[arg(long, conflicts_with_all = ["weights", "method", "rank", "density", "majority", "seed", "write", "unmerge"])]
    pub base_only: bool,
    /// Subtract instead of add: `--base` is the merged model
    #[arg(long, requires = "base", conflicts_with_all = ["weights", "method", "rank", "density", "majority", "seed", "write"])]
    pub unmerge: bool,
    #[command(flatten)]
    pub combined: Combined,
}

/// How adapters become one.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Combining")]
pub struct Combined {
    /// How much of each adapter, negative to subtract it: `--weights 0.7,-0.3`
    #[arg(long, value_name = "W,W", value_delimiter = ',', allow_hyphen_values = true)]
    pub weights: Vec<f64>,
    /// PEFT's combination type; `cat` is exact, its rank the sum of all; `svd` the nearest of rank `--rank`
    #[arg(long, value_name = "METHOD", default_value = "cat", value_parser = one_of(&METHODS))]
    pub method: Method,
    /// Rank of the result, for the methods in svd; the adapters' largest unless given
    #[arg(long, value_name = "R")]
    pub rank: Option<usize>,
    /// Share of entries kept, for ties, dare and magnitude_prune
    #[arg(long, value_name = "D")]
    pub density: Option<f64>,
    /// Which sign wins an entry, for ties and dare_ties; `total` unless given
    #[arg(long, value_name = "SIGN", value_parser = one_of(&MAJORITIES))]
    pub majority: Option<Majority>,
    /// Seed of what dare leaves out; 0 unless given
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

const MAJORITIES: [(&str, Majority); 2] = [("total", Majority::Total), ("frequency", Majority::Frequency)];

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Written {
    Model,
    Adapter,
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
        if self.base_only {
            self.base_alone(output)?;
            return stdout::print(&format!("{}\n", self.out.display()));
        }
        let several = self.adapters.len() > 1 && !self.unmerge;
        let written = self.write.unwrap_or(if several { Written::Adapter } else { Written::Model });
        self.refuse_for_an_adapter(written)?;
        let mut adapters = Adapters::open(&self.adapters, self.base.as_deref())?;
        adapters.list.iter().flat_map(|(config, _)| &config.warnings).for_each(|text| eprintln!("warn   {text}"));
        let adapter = match self.weights(written)? {
            Some(weights) => self.combine(&adapters, &weights)?,
            None => adapters.list.swap_remove(0),
        };
        match written {
            Written::Adapter => adapters.write(&adapter, &self.out)?,
            Written::Model => self.model(&adapters, &adapter, output)?,
        }
        stdout::print(&format!("{}\n", self.out.display()))
    }

    /// What only a model has.
    fn refuse_for_an_adapter(&self, written: Written) -> Result<()> {
        let error = match (written, self.dtype, self.into) {
            (Written::Adapter, Some(_), _) => Error::input("an adapter is written in f32").key("--dtype"),
            (Written::Adapter, _, Some(_)) => Error::input("an adapter goes into no weights").key("--into"),
            _ => return Ok(()),
        };
        Err(error.hint("leave it out, or write a model: `--write model`").into())
    }

    /// Weights of a combination; none where one adapter is to be merged as it is.
    fn weights(&self, written: Written) -> Result<Option<Vec<f64>>> {
        let (count, Combined { weights, .. }) = (self.adapters.len(), &self.combined);
        if self.unmerge {
            return Ok(Some(vec![-1.0; count]));
        }
        if count == 1 && weights.is_empty() && written == Written::Model && self.combined.is_default() {
            return Ok(None);
        }
        if weights.len() == count {
            return Ok(Some(weights.clone()));
        }
        let error = Error::input("every adapter needs a weight").key("--weights").found(weights.len());
        Err(error.expected(format!("{count}, as in `--weights {}`", vec!["0.5"; count].join(","))).into())
    }

    fn combine(&self, adapters: &Adapters, weights: &[f64]) -> Result<PeftAdapter> {
        let Combined { method, rank, density, majority, seed, .. } = self.combined;
        let weighted: Vec<_> = weights.iter().copied().zip(&adapters.list).collect();
        combine(&weighted, &adapters.modules, &Combination { method, rank, density, majority, seed })
    }
}

impl Combined {
    fn is_default(&self) -> bool {
        let Combined { weights, method, rank, density, majority, seed } = self;
        weights.is_empty() && *method == Method::Cat && (*rank, *density, *majority, *seed) == (None, None, None, None)
    }
}
