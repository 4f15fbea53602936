//! `lowrank train`: one recipe, one run.

use std::io::Stderr;
use std::path::{Path, PathBuf};

use lowrank::adapters::AdapterConfig;
use lowrank::checkpoint::{self, Layout};
use lowrank::events::{Bus, Console, Control, Format, Status};
use lowrank::metrics::{self, Better};
use lowrank::recipe::{Recipe, Resolved, Task};
use lowrank::train::{Begun, Job, Options, Outcome, resume_command};
use lowrank::{Error, Result};
use lowrank_cli::{SHIPPED, pick, stdout};

/// What an interruption from the dashboard counts as.
pub const SIGINT: i32 = 2;

use crate::args::{Drawing, OnDevice, Output, Overrides};

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
    #[command(flatten)]
    pub drawing: Drawing,
}

impl Train {
    /// Every override as `path.to.key=VALUE`.
    pub fn sets(&self) -> Vec<String> {
        let steps = self.max_steps.map(|steps| format!("train.max_steps={steps}"));
        self.overrides.sets().into_iter().chain(steps).collect()
    }

    pub fn run(&self, output: &Output) -> Result<()> {
        let resolved = self.resolve()?;
        let target = pick(&self.device.device)?;
        let mut job = Job::prepare(&resolved, &target)?;
        let mut console = Console::stderr(output.format, output.color, job.recipe.log.every);
        if self.dry_run {
            job.initial()?;
            console.banner(&job.banner().line("parameters", job.trainable_lines()));
            return stdout::print(&job.recipe.to_toml()?);
        }
        job.progress = output.progress();
        let options = Options { out: self.out.clone(), resume: self.resume.clone() };
        let Begun { run, notes, warnings } = job.begin(&options)?;
        let Some(run) = run else {
            notes.iter().for_each(|note| eprintln!("{note}"));
            return Ok(());
        };
        if !output.quiet {
            let parameters = (output.verbose > 0).then(|| run.job.trainable_lines());
            console
                .banner(&parameters.into_iter().fold(run.banner(), |banner, lines| banner.line("parameters", lines)));
            notes.iter().for_each(|note| eprintln!("{note}"));
        }
        warnings.iter().for_each(|warning| eprintln!("warn   {warning}"));
        let path = run.path();
        let control = Control::new();
        control.install_signal_handlers()?;
        let bus = self.listen(run.bus()?, &path, console, &control, output)?;
        let outcome = run.train(&bus, &control)?;
        drop(bus);
        if outcome.status == Status::Interrupted {
            eprintln!("go on with: {}", resume_command(&path));
            return Err(Error::Interrupted { signal: outcome.signal.unwrap_or(SIGINT) });
        }
        if !output.quiet && output.format == Format::Text {
            eprintln!("{}", summary(&job.recipe, &path, &outcome));
        }
        Ok(())
    }

    /// The recipe named, or the one that the run to be resumed was started with.
    fn resolve(&self) -> Result<Resolved> {
        match (&self.recipe, &self.resume) {
            (Some(recipe), _) => SHIPPED.load(recipe, &self.sets()),
            (None, Some(Some(run))) => {
                let (run, _) = checkpoint::locate(run);
                let layout = Layout::of(run)?;
                let mut resolved = SHIPPED.load(&layout.recipe().display().to_string(), &self.sets())?;
                resolved.name = layout.read_info()?.recipe;
                Ok(resolved)
            }
            (None, _) => Err(Error::input("which run? name a recipe, or the run with `--resume=RUN`").into()),
        }
    }

    #[cfg(feature = "tui")]
    fn listen(
        &self,
        bus: Bus,
        dir: &Path,
        console: Console<Stderr>,
        control: &Control,
        output: &Output,
    ) -> Result<Bus> {
        use lowrank::dashboard::{DashboardSink, Scene};
        match self.drawing.draws(output) {
            true => {
                let scene = Scene { plan: None, dir: dir.into() };
                Ok(bus.with(DashboardSink::start(control, scene)?).with(console.summary()))
            }
            false if output.quiet => Ok(bus),
            false => Ok(bus.with(console)),
        }
    }

    #[cfg(not(feature = "tui"))]
    fn listen(&self, bus: Bus, _: &Path, console: Console<Stderr>, _: &Control, output: &Output) -> Result<Bus> {
        Ok(if output.quiet { bus } else { bus.with(console) })
    }
}

/// What came of it, and what to do with it.
fn summary(recipe: &Recipe, path: &Path, outcome: &Outcome) -> String {
    let path = path.display();
    let mut lines = Vec::new();
    if let (Some(first), Some(last)) = (&outcome.first_eval, &outcome.last_eval)
        && first.step == 0
    {
        let mut line = format!("eval loss {:.4} → {:.4}", first.loss, last.loss);
        let scores = || last.metrics.iter().filter(|(name, _)| metrics::better(name) == Better::Higher);
        let moved = scores().find(|(name, after)| first.metrics.get(*name) != Some(*after));
        if let Some((name, after)) = moved.or(scores().next())
            && let Some(before) = first.metrics.get(name)
        {
            let [before, after] = [before, after].map(|value| metrics::written(name, *value));
            line += &format!(", {} {before} → {after}", metrics::label(name));
        }
        lines.push(line);
    }
    if let Some(verify) = &outcome.verify {
        lines.push(format!("saved and read back: logits differ by at most {:.1e}", verify.max_abs_logit_diff));
    }
    match recipe.adapter {
        AdapterConfig::None(_) => {}
        AdapterConfig::Full(_) => lines.push(format!("model:   {path}/final")),
        _ => lines.push(format!("adapter: {path}/final")),
    }
    if outcome.verify.is_some() {
        lines.push(match recipe.task {
            Task::CausalLm | Task::Seq2seqLm => format!("try it:  lowrank generate {path} --prompt \"...\""),
            Task::SeqCls | Task::TokenCls => format!("try it:  lowrank predict {path} \"...\""),
            Task::QuestionAns => format!("try it:  lowrank predict {path} --question \"...\" --context \"...\""),
            Task::FeatureExtraction => format!("try it:  lowrank embed {path} \"...\""),
        });
    }
    lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
