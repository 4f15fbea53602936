//! `lowrank eval`: loss and scores on held-out rows.

use lowrank::data;
use lowrank::events::{Control, Event, Format};
use lowrank::metrics;
use lowrank::recipe::Resolved;
use lowrank::train::{Evaluation, Subject, evaluate, setting};
use lowrank::{Error, Result};
use lowrank_cli::table::Table;
use lowrank_cli::{SHIPPED, pick, stdout};
use serde_json::json;

use crate::args::{self, OnDevice, Output, Overrides};

const EXAMPLES: &str = "\
Examples:
  lowrank eval runs/my
  lowrank eval path/to/model --recipe my.toml --set data.eval=test.jsonl --format json";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Eval {
    #[command(flatten)]
    pub subject: args::Subject,
    /// Recipe whose [data] says what to evaluate on; a run knows its own
    #[arg(long)]
    pub recipe: Option<String>,
    #[command(flatten)]
    pub overrides: Overrides,
    #[command(flatten)]
    pub device: OnDevice,
}

impl Eval {
    pub fn run(&self, output: &Output) -> Result<()> {
        let mut subject = Subject::open(&self.subject.path, self.subject.base.as_deref())?;
        subject.progress = output.progress();
        let Resolved { recipe, root, .. } = self.recipe(&subject)?;
        let tokenizer = &subject.opened.tokenizer;
        let setting = setting(recipe.task, &recipe.head, &subject.opened);
        let splits = data::load(&recipe.data, &setting, tokenizer, &root)?;
        let dataset = splits.eval.as_ref().ok_or_else(|| Error::input("nothing to evaluate on").key("data.eval"))?;
        let (learner, warnings) = subject.load(&pick(&self.device.device)?)?;
        warnings.iter().for_each(|warning| eprintln!("warn   {warning}"));
        let evaluation = Evaluation {
            dataset,
            tokenizer,
            task: recipe.task,
            head: &recipe.head,
            labels: &splits.labels,
            batch: recipe.train.batch,
            generate: recipe.train.eval_generate,
            stop: &splits.stop,
        };
        let control = Control::new();
        control.install_signal_handlers()?;
        let Some((eval, samples)) = evaluate(learner.as_ref(), &evaluation, 0, &control)? else {
            return Err(Error::Interrupted { signal: control.signal().unwrap_or(2) });
        };
        if output.format == Format::Json {
            return stdout::print_json(&json!({
                "loss": eval.loss, "metrics": eval.metrics, "rows": dataset.report.used,
                "tokens": dataset.report.trained_tokens,
            }));
        }
        let mut table = Table::new(["measure", "value"]);
        let mut row = |name: &str, value| table.row([metrics::label(name), metrics::written(name, value)]);
        row("loss", eval.loss);
        eval.metrics.iter().for_each(|(name, value)| row(name, *value));
        table.row(["rows".into(), dataset.report.used.to_string()]);
        for sample in samples {
            if let Event::Sample { prompt, text, .. } = sample {
                eprintln!("sample {prompt:?} → {text:?}");
            }
        }
        stdout::print(&table.render())
    }

    /// The recipe named, or the run's own.
    fn recipe(&self, subject: &Subject) -> Result<Resolved> {
        if let Some(name) = &self.recipe {
            return SHIPPED.load(name, &self.overrides.sets());
        }
        match &subject.recipe_file {
            Some(file) => SHIPPED.load(&file.display().to_string(), &self.overrides.sets()),
            None => Err(Error::input("which rows? name a recipe with `--recipe`").into()),
        }
    }
}
