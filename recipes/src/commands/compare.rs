//! `lowrank compare`: variants of a recipe, trained side by side and judged.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use lowrank::compare::{Comparison, Judged, Pictures};
use lowrank::events::{Bus, Console, Control, Format, Status};
use lowrank::recipe::CompareRecipe;
use lowrank::train::{Contest, Entry, Options, Place, RECIPE};
use lowrank::{Error, Result};
use lowrank_cli::{SHIPPED, pick, stdout};

use super::report::Report;
use super::train::SIGINT;
use crate::args::{Drawing, OnDevice, Output, Overrides};

const EXAMPLES: &str = "\
Examples:
  lowrank compare tiny/all                              every method over one copy of the base
  lowrank compare tiny/all --only lora,dora --seeds 5 --reference dora
  lowrank compare my.toml --set optim.adamw.lr=1e-3 --out runs/mine
  lowrank compare --resume=runs/mine                    finished runs are not run again
  lowrank compare runs/lora runs/dora                   runs that are there already";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Compare {
    /// A compare recipe, a file or a shipped name; or directories of runs and comparisons
    #[arg(required_unless_present = "resume", value_name = "RECIPE|DIR")]
    pub what: Vec<String>,
    #[command(flatten)]
    pub overrides: Overrides,
    /// Optimizer steps of each run: short for `--set train.max_steps=N`
    #[arg(long, value_name = "N")]
    pub max_steps: Option<usize>,
    /// Run these variants alone
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Runs of each variant: short for `--set compare.seeds=N`
    #[arg(long, value_name = "N")]
    pub seeds: Option<usize>,
    /// The variant that the others are measured against
    #[arg(long, value_name = "NAME")]
    pub reference: Option<String>,
    /// What verdicts go by: short for `--set compare.metric=NAME`
    #[arg(long, value_name = "NAME")]
    pub metric: Option<String>,
    #[command(flatten)]
    pub device: OnDevice,
    /// Directory of the comparison [default: runs/<date>-<recipe>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Go on with a comparison: the given one, --out, or the newest of the recipe
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true)]
    pub resume: Option<Option<PathBuf>>,
    /// Write one row for each run, with all final numbers
    #[arg(long, value_name = "FILE")]
    pub export_csv: Option<PathBuf>,
    /// Check everything, print the resolved recipe on stdout, train nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub drawing: Drawing,
}

impl Compare {
    pub fn run(&self, output: &Output) -> Result<()> {
        if let Some(report) = self.of_runs()? {
            return report.run(output);
        }
        let mut contest = Contest::prepare(self.recipe()?, pick(&self.device.device)?)?;
        let every = contest.comparison.variants[0].resolved.recipe.log.every;
        let mut console = Console::stderr(output.format, output.color, every);
        if !output.quiet {
            console.banner(&contest.banner()?);
        }
        if self.dry_run {
            return stdout::print(&contest.comparison.to_toml()?);
        }
        contest.progress = output.progress();
        let options = Options { out: self.out.clone(), resume: self.resume.clone() };
        let place = Place::take(&options, &contest.comparison.name)?;
        let control = Control::new();
        control.install_signal_handlers()?;
        let entries = {
            let listen = self.listen(&contest, place.dir(), console, &control, output)?;
            contest.run(&place, &*listen, &control)?
        };
        self.finish(&entries, place.dir(), &control, output)
    }

    /// The report that this is, where runs and no recipe are named.
    fn of_runs(&self) -> Result<Option<Report>> {
        let dirs: Vec<PathBuf> = self.what.iter().map(PathBuf::from).collect();
        if dirs.is_empty() || !dirs[0].is_dir() {
            return match dirs.get(1) {
                None => Ok(None),
                Some(second) => Err(Error::input("one recipe at a time").found(second.display()).into()),
            };
        }
        let (out, reference, export_csv) = (self.out.clone(), self.reference.clone(), self.export_csv.clone());
        Ok(Some(Report { dirs, out, reference, metric: self.metric.clone(), svg: false, png: false, export_csv }))
    }

    /// The recipe named, or the one that the comparison to be resumed was started with.
    fn recipe(&self) -> Result<CompareRecipe> {
        let seeds = self.seeds.map(|seeds| format!("compare.seeds={seeds}"));
        let steps = self.max_steps.map(|steps| format!("train.max_steps={steps}"));
        let reference = self.reference.as_ref().map(|name| format!("compare.reference={name:?}"));
        let metric = self.metric.as_ref().map(|name| format!("compare.metric={name:?}"));
        let sets = self.overrides.sets().into_iter().chain(seeds).chain(steps).chain(reference).chain(metric);
        let sets: Vec<String> = sets.collect();
        let mut recipe = match (self.what.first(), &self.resume) {
            (Some(recipe), _) => SHIPPED.load_comparison(recipe, &sets)?,
            (None, Some(Some(dir))) => {
                let mut recipe = SHIPPED.load_comparison(&dir.join(RECIPE).display().to_string(), &sets)?;
                recipe.name = lowrank::compare::Plan::read(dir)?.name;
                recipe
            }
            (None, _) => {
                let what = "which comparison? name a recipe, or its directory with `--resume=DIR`";
                return Err(Error::input(what).into());
            }
        };
        if !self.only.is_empty() {
            recipe.only(&self.only)?;
        }
        Ok(recipe)
    }

    /// Writes the report and says what came of it.
    fn finish(&self, entries: &[Entry], dir: &Path, control: &Control, output: &Output) -> Result<()> {
        let mut failed = None;
        for Entry { variant, seed, came } in entries {
            match came {
                Some(Err(error)) => {
                    eprintln!("warn   {variant}, seed {seed}: {error}");
                    failed = failed.or(Some(format!("{variant}, seed {seed}: {error}")));
                }
                None if !output.quiet => eprintln!("note   {variant}, seed {seed}: had finished before"),
                _ => {}
            }
        }
        let interrupted = |entry: &Entry| matches!(&entry.came, Some(Ok(o)) if o.status == Status::Interrupted);
        if control.stop().is_some() || entries.iter().any(interrupted) {
            eprintln!("go on with: lowrank compare --resume={}", dir.display());
            return Err(Error::Interrupted { signal: control.signal().unwrap_or(SIGINT) });
        }
        let comparison = Comparison::read(&[dir.into()], Judged::default())?;
        let mut written = comparison.write(dir, Pictures::default())?;
        if let Some(file) = &self.export_csv {
            comparison.write_csv(file)?;
            written.push(file.clone());
        }
        if !output.quiet {
            written.iter().for_each(|path| eprintln!("wrote  {}", path.display()));
        }
        match output.format {
            Format::Json => stdout::print_json(&comparison.summary)?,
            Format::Text => stdout::print(&comparison.to_markdown())?,
        }
        let finished = |entry: &Entry| matches!(entry.came, None | Some(Ok(_)));
        match failed.filter(|_| !entries.iter().any(finished)) {
            Some(error) => Err(Error::Failed(format!("no run finished; the first: {error}"))),
            None => Ok(()),
        }
    }

    #[cfg(feature = "tui")]
    fn listen(
        &self,
        contest: &Contest,
        dir: &Path,
        console: Console<std::io::Stderr>,
        control: &Control,
        output: &Output,
    ) -> Result<Box<dyn Fn(Bus) -> Bus>> {
        use lowrank::dashboard::{DashboardSink, Scene};
        if self.drawing.draws(output) {
            let scene = Scene { plan: Some(contest.plan()), dir: dir.into() };
            let dashboard = Arc::new(Mutex::new(DashboardSink::start(control, scene)?));
            return Ok(Box::new(move |bus| bus.with(dashboard.clone())));
        }
        Ok(lines(console, output))
    }

    #[cfg(not(feature = "tui"))]
    fn listen(
        &self,
        _: &Contest,
        _: &Path,
        console: Console<std::io::Stderr>,
        _: &Control,
        output: &Output,
    ) -> Result<Box<dyn Fn(Bus) -> Bus>> {
        Ok(lines(console, output))
    }
}

fn lines(console: Console<std::io::Stderr>, output: &Output) -> Box<dyn Fn(Bus) -> Bus> {
    let (console, quiet) = (Arc::new(Mutex::new(console)), output.quiet);
    Box::new(move |bus| if quiet { bus } else { bus.with(console.clone()) })
}
