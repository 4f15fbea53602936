//! `lowrank estimate`: what methods would cost on a model, before anything runs.

mod one;
mod survey;

use clap::value_parser;
use lowrank::Result;
use lowrank::adapters::Targets;
use lowrank::estimate::{Batch, Costs, Survey, of_recipe};
use lowrank::events::Format;
use lowrank::events::units::count;
use lowrank::models::{Outline, OutlineSource, built_in_names};
use lowrank_cli::{SHIPPED, stdout};
use serde_json::{Value, json};

use crate::args::Output;

const EXAMPLES: &str = "\
Examples:
  lowrank estimate llama-3.2-3b                      every method, at ranks 8, 16 and 64
  lowrank estimate path/to/model --rank 32 --targets q_proj,v_proj --batch 8
  lowrank estimate model.gguf --recipe my.toml       what this recipe would take over that model";

#[derive(Debug, clap::Args)]
#[command(after_help = format!("{EXAMPLES}\n\nNames:\n{}", wrapped(built_in_names(), 2).trim_end()))]
pub struct Estimate {
    /// A directory with a config.json, that file, a .gguf file (its header is read), or a name below
    #[arg(value_name = "MODEL")]
    model: String,
    /// Take method, storage and batch of this recipe; MODEL stands for its model, no data are read
    #[arg(long)]
    recipe: Option<String>,
    /// Override one key of that recipe (repeatable)
    #[arg(long, value_name = "KEY=VALUE", requires = "recipe")]
    set: Vec<String>,
    /// Ranks to show
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "8,16,64", conflicts_with = "recipe")]
    #[arg(value_parser = value_parser!(u32).range(1..=65_536))]
    rank: Vec<u32>,
    /// `all-linear`, or ends of module names with commas between them [default: PEFT's for the model]
    #[arg(long, value_name = "NAME,..", conflicts_with = "recipe")]
    targets: Option<String>,
    /// Rows of a batch
    #[arg(long, value_name = "N", default_value_t = 4, conflicts_with = "recipe")]
    #[arg(value_parser = value_parser!(u32).range(1..=1 << 20))]
    batch: u32,
    /// Tokens of a row [default: 128, or all positions where a model has fewer]
    #[arg(long, value_name = "N", conflicts_with = "recipe", value_parser = value_parser!(u32).range(1..=1 << 26))]
    max_len: Option<u32>,
}

impl Estimate {
    pub fn run(&self, output: &Output) -> Result<()> {
        let (outline, source) = Outline::find(&self.model)?;
        let model = Model { name: &self.model, outline: &outline, source: &source };
        match &self.recipe {
            Some(recipe) => self.one(&model, recipe, output.format),
            None => self.survey(&model, output),
        }
    }

    fn one(&self, model: &Model<'_>, name: &str, format: Format) -> Result<()> {
        let recipe = SHIPPED.load(name, &self.set)?.recipe;
        let estimate = of_recipe(model.outline, &recipe, name)?;
        match format {
            Format::Json => stdout::print_json(&one::json(model, name, &recipe, &estimate)),
            Format::Text => stdout::print(&one::text(model, name, &recipe, &estimate)),
        }
    }

    fn survey(&self, model: &Model<'_>, output: &Output) -> Result<()> {
        let ranks: Vec<usize> = self.rank.iter().map(|&rank| rank as usize).collect();
        let (targets, origin) = self.targets(model.outline);
        let rows = self.batch as usize;
        let positions = model.outline.max_position_embeddings;
        let len = match self.max_len {
            Some(len) if len as usize > positions => return Err(too_long(len as usize, positions)),
            Some(len) => len as usize,
            None => positions.min(128),
        };
        let batch = Batch { tokens: rows * len, len, trained: rows * len };
        let survey = Survey::of(model.outline, &targets, &ranks, batch)?;
        if !output.quiet {
            survey.left_out.iter().for_each(|why| eprintln!("left out: {why}"));
        }
        let asked = survey::Asked { ranks: &ranks, origin: &origin, rows, len };
        match output.format {
            Format::Json => stdout::print_json(&survey::json(model, &asked, &survey)),
            Format::Text => stdout::print(&survey::text(model, &asked, &survey)),
        }
    }

    /// What to adapt, and who says so.
    fn targets(&self, outline: &Outline) -> (Targets, String) {
        let names = |names: &[&str]| Targets::Names(names.iter().map(ToString::to_string).collect());
        match self.targets.as_deref() {
            Some("all-linear") => (Targets::default(), "all-linear:".into()),
            Some(given) => (names(&given.split(',').map(str::trim).collect::<Vec<_>>()), "as given:".into()),
            None if outline.default_targets.is_empty() => {
                (Targets::default(), format!("all-linear, PEFT has no default for {}:", outline.model_type))
            }
            None => (names(outline.default_targets), format!("PEFT's default for {}:", outline.model_type)),
        }
    }
}

fn too_long(len: usize, positions: usize) -> lowrank::Error {
    let error = lowrank::Error::input("rows would be longer than the model's positions").place("flag", "--max-len");
    error.found(len).expected(format!("at most {positions}")).into()
}

/// Words in lines of 80 columns, each behind `indent` spaces.
fn wrapped<'a>(words: impl IntoIterator<Item = &'a str>, indent: usize) -> String {
    let mut lines = vec![String::new()];
    for word in words {
        if lines
            .last()
            .is_some_and(|line| !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > 80)
        {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    lines.into_iter().map(|line| format!("{:indent$}{line}\n", "")).collect()
}

/// What the formulas of methods are summed over.
fn modules(costs: &Costs) -> String {
    let [modules, inputs, outputs] = [costs.modules, costs.inputs, costs.outputs].map(count);
    format!("modules     {modules}, whose inputs sum to {inputs} and outputs to {outputs}\n")
}

/// The model of the command line.
struct Model<'a> {
    name: &'a str,
    outline: &'a Outline,
    source: &'a OutlineSource,
}

impl Model<'_> {
    fn text(&self) -> String {
        let Outline { model_type, num_hidden_layers, hidden_size, vocab_size, .. } = self.outline;
        let built_in = if *self.source == OutlineSource::BuiltIn { " (built in)" } else { "" };
        let quant = self.outline.quant.map_or(String::new(), |quant| format!(", in {} already", quant.describe()));
        let tied = if self.outline.tie_word_embeddings { ", embeddings and head are one" } else { "" };
        let sized = if self.outline.runs() { "" } else { ", known for its size alone" };
        format!(
            "model       {}{built_in}{sized}\n            {model_type}, {num_hidden_layers} layers, width {}, {} tokens{quant}\n\
             parameters  {}{tied}\n",
            self.name,
            count(*hidden_size),
            count(*vocab_size),
            count(self.outline.parameters()),
        )
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "source": self.source.to_string(),
            "model_type": self.outline.model_type,
            "runs": self.outline.runs(),
            "parameters": self.outline.parameters(),
            "num_hidden_layers": self.outline.num_hidden_layers,
            "hidden_size": self.outline.hidden_size,
            "vocab_size": self.outline.vocab_size,
            "tie_word_embeddings": self.outline.tie_word_embeddings,
            "quant": self.outline.quant.map(|quant| quant.describe()),
        })
    }
}
