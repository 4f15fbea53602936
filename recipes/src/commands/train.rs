//! `lowrank train`: one recipe, one run.

use std::path::PathBuf;

use lowrank::{Error, Result};
use lowrank_cli::{SHIPPED, pick, stdout};

use crate::args::{OnDevice, Output, Overrides};

const EXAMPLES: &str = "\
Examples:
  lowrank train tiny/lora
  lowrank train my.toml --set optim.adamw.lr=1e-3 --device wgpu --out runs/fast
  lowrank train my.toml --dry-run > resolved.toml
  lowrank train --resume=runs/fast";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Train {
    /// A recipe file or a shipped name (see `lowrank recipes`)
    #[arg(required_unless_present = "resume")]
    pub recipe: Option<String>,
    #[command(flatten)]
    pub overrides: Overrides,
    /// Optimizer steps: short for `--set train.max_steps=N`
    #[arg(long, value_name = "N")]
    pub max_steps: Option<usize>,
    #[command(flatten)]
    pub device: OnDevice,
    /// Run directory [default: runs/<date>-<recipe>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Go on where a run stopped: the given run, --out, or the newest run of the recipe
    #[arg(long, value_name = "RUN", num_args = 0..=1, require_equals = true)]
    pub resume: Option<Option<PathBuf>>,
    /// Check everything, print the resolved recipe on stdout, train nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Show the dashboard even where it would not start by itself
    #[arg(long, overrides_with = "no_tui")]
    pub tui: bool,
    /// Plain lines instead of the dashboard
    #[arg(long)]
    pub no_tui: bool,
}

impl Train {
    /// Every override as `path.to.key=VALUE`.
    pub fn sets(&self) -> Vec<String> {
        let steps = self.max_steps.map(|steps| format!("train.max_steps={steps}"));
        self.overrides.sets().into_iter().chain(steps).collect()
    }

    pub fn run(&self, _output: &Output) -> Result<()> {
        let Some(recipe) = &self.recipe else {
            return Err(Error::Failed("resuming a run is not wired up in this build".into()));
        };
        let resolved = SHIPPED.load(recipe, &self.sets())?;
        let _chosen = pick(&self.device.device)?;
        if self.dry_run {
            return stdout::print(&resolved.recipe.to_toml()?);
        }
        Err(Error::Failed("training is not wired up in this build".into()))
    }
}
