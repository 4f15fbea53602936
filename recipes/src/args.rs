//! The command line: what every command shares. Each command's own arguments are in its file.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Parser, Subcommand};
use lowrank::adapters::Progress;
use lowrank::events::{Color, Format};

use crate::commands::*;

const EXAMPLES: &str = "\
Examples:
  lowrank train tiny/lora                        a first run: embedded model, no download, CPU
  lowrank recipes copy tiny/lora my.toml         make a recipe your own
  lowrank check my.toml                          everything that is wrong with it, at once

Exit codes: 0 done, 1 failed, 2 bad input, 3 diverged, 130 or 143 interrupted after saving.";

#[derive(Debug, Parser)]
#[command(name = "lowrank", version, about = "Fine-tune with low-rank adapters", after_help = EXAMPLES)]
#[command(infer_subcommands = true, disable_help_subcommand = true)]
pub struct Args {
    #[command(flatten)]
    pub output: Output,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train what a recipe describes
    Train(train::Train),
    /// Train variants of a recipe side by side, and say which is better and how sure that is
    Compare(compare::Compare),
    /// List, show or copy the recipes that are compiled in
    Recipes(recipes::Recipes),
    /// List or show the adapter methods
    Methods(methods::Methods),
    /// Report everything that is wrong with recipes
    Check(check::Check),
    /// Show the dashboard of live or finished runs
    Watch(watch::Watch),
    /// Compare runs: tables, verdicts and one page of plots
    Report(report::Report),
    /// Evaluate a run, an adapter or a model
    Eval(eval::Eval),
    /// Continue a prompt with a run, an adapter or a model
    Generate(generate::Generate),
    /// Classify, tag or answer with a run, an adapter or a model that has a head
    Predict(predict::Predict),
    /// Write vectors of texts
    Embed(embed::Embed),
    /// Write the base with its adapter merged in, or several adapters as one
    Merge(merge::Merge),
    /// Write an adapter as plain LoRA, of a smaller rank if asked for
    Convert(convert::Convert),
    /// Say what methods would cost on a model: parameters, file and memory, each with its formula
    Estimate(estimate::Estimate),
    /// Look into an adapter, a model or a data file
    Inspect(inspect::Inspect),
    /// Test what this build can use on this machine
    Doctor(doctor::Doctor),
    /// Print the JSON Schema of a recipe, or explain one key
    Schema(schema::Schema),
    /// Print a shell's completion script
    Completions(completions::Completions),
}

/// How to say things.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub struct Output {
    /// Form of what goes to stdout
    #[arg(long, global = true, default_value = "text", value_name = "FORM", value_parser = one_of(&FORMATS))]
    pub format: Format,
    /// Colour; `auto` means on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, default_value = "auto", value_name = "WHEN", value_parser = one_of(&COLORS))]
    pub color: Color,
    /// Say more; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Say only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
}

impl Output {
    /// Tells of layers quantised for LoftQ, on a terminal.
    pub fn progress(&self) -> Progress {
        match self.quiet || !std::io::stderr().is_terminal() {
            true => |_, _| {},
            false => |done, all| eprint!("\rquantising {done}/{all} layers{}", if done == all { "\n" } else { "" }),
        }
    }
}

const FORMATS: [(&str, Format); 2] = [("text", Format::Text), ("json", Format::Json)];
const COLORS: [(&str, Color); 3] = [("auto", Color::Auto), ("always", Color::Always), ("never", Color::Never)];

/// The value that one of these words stands for.
pub fn one_of<T: Copy + Send + Sync>(choices: &'static [(&'static str, T)]) -> impl TypedValueParser<Value = T> {
    let words = PossibleValuesParser::new(choices.iter().map(|(word, _)| *word));
    words.try_map(|given| choices.iter().find(|(word, _)| *word == given).map(|(_, value)| *value).ok_or("unknown"))
}

/// Where to compute.
#[derive(Clone, Debug, clap::Args)]
pub struct OnDevice {
    /// auto, cpu, flex, ndarray, wgpu[:N] or cuda[:N], as far as compiled in
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: String,
}

/// Dashboard or plain lines.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Drawing {
    /// Show the dashboard even where it would not start by itself
    #[arg(long, overrides_with = "no_tui")]
    pub tui: bool,
    /// Plain lines instead of the dashboard
    #[arg(long)]
    pub no_tui: bool,
}

#[cfg(feature = "tui")]
impl Drawing {
    /// Whether to draw a run beside it.
    pub fn draws(self, output: &Output) -> bool {
        output.format == Format::Text && lowrank::dashboard::should_use(self.choice())
    }

    pub fn choice(self) -> lowrank::dashboard::Tui {
        use lowrank::dashboard::Tui;
        match self {
            Self { no_tui: true, .. } => Tui::Never,
            Self { tui: true, .. } => Tui::Always,
            _ => Tui::Auto,
        }
    }
}

/// Changes to a recipe.
#[derive(Clone, Debug, clap::Args)]
pub struct Overrides {
    /// Override one key of the recipe (repeatable): `--set adapter.lora.rank=16`
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Seed of the run: short for `--set seed=N`
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub seed: Option<u64>,
}

impl Overrides {
    /// Every override as `path.to.key=VALUE`; the flag of its own wins over `--set`.
    pub fn sets(&self) -> Vec<String> {
        let seed = self.seed.map(|seed| format!("seed={seed}"));
        self.set.iter().cloned().chain(seed).collect()
    }
}

/// A model to use: trained, adapted or plain.
#[derive(Clone, Debug, clap::Args)]
pub struct Subject {
    /// A run directory, an adapter directory, a model directory or a .gguf file
    #[arg(value_name = "RUN|ADAPTER|MODEL")]
    pub path: PathBuf,
    /// The adapter's base model; a run knows its own
    #[arg(long, value_name = "MODEL")]
    pub base: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_the_short_help_short() {
        let mut command = Args::command();
        command.clone().debug_assert();
        assert!(command.render_help().to_string().lines().count() <= 40);
    }

    #[test]
    fn resume_takes_a_run_or_nothing_and_flags_become_overrides() {
        let train = |line: &str| match Args::try_parse_from(line.split(' ')).unwrap().command {
            Command::Train(train) => train,
            other => panic!("{other:?}"),
        };
        let plain = train("lowrank train tiny/lora --set a.b=1 --seed 7 --max-steps 3");
        assert_eq!(
            (plain.resume.clone(), plain.sets()),
            (None, vec!["a.b=1".into(), "seed=7".into(), "train.max_steps=3".into()])
        );
        assert_eq!(train("lowrank train tiny/lora --resume").resume, Some(None));
        assert_eq!(train("lowrank train --resume=runs/x").resume, Some(Some("runs/x".into())));
        assert!(Args::try_parse_from(["lowrank", "train"]).is_err());
        assert!(train("lowrank train tiny/lora --no-tui").drawing.no_tui);
        assert!(Args::try_parse_from(["lowrank", "watch", "runs/x", "--no-tui"]).is_ok());
    }
}
