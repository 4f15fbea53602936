//! `lowrank predict`: what a model with a head says about texts.

use std::path::PathBuf;

use lowrank::data::Reference;
use lowrank::events::Format;
use lowrank::predict::Predictions;
use lowrank::recipe::Task;
use lowrank::train::Subject;
use lowrank::{Error, Result};
use lowrank_cli::rows::Rows;
use lowrank_cli::stdout;
use lowrank_cli::table::Table;
use serde_json::{Value, json};

use crate::args::{self, OnDevice, Output};

const EXAMPLES: &str = "\
Examples:
  lowrank predict runs/intents \"book me a table for two\"
  lowrank predict runs/ner --file sentences.jsonl --format json
  lowrank predict runs/qa --question \"Where is Kelso?\" --context \"Kelso is a town in Scotland.\"";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Predict {
    #[command(flatten)]
    pub subject: args::Subject,
    /// Texts to classify or tag
    #[arg(value_name = "TEXT")]
    pub texts: Vec<String>,
    /// The second text of a pair, with one TEXT
    #[arg(long, value_name = "TEXT")]
    pub pair: Option<String>,
    /// What to answer, with `--context`
    #[arg(long, value_name = "TEXT", requires = "context")]
    pub question: Option<String>,
    /// The text that answers
    #[arg(long, value_name = "TEXT", requires = "question")]
    pub context: Option<String>,
    /// A data file with the columns of the task; answers in it are not looked at
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    pub device: OnDevice,
}

impl Predict {
    pub fn run(&self, output: &Output) -> Result<()> {
        let mut subject = Subject::open(&self.subject.path, self.subject.base.as_deref())?;
        subject.progress = output.progress();
        let typed = self.typed(subject.opened.config.task)?;
        let rows = Rows::open(subject, typed, self.file.as_deref())?;
        let found = answers(&rows, &rows.predict(&self.device.device)?)?;
        if output.format == Format::Json {
            return stdout::print_json(&found);
        }
        stdout::print(&shown(&found))
    }

    /// The rows of the command line, under the columns of the task.
    fn typed(&self, task: Task) -> Result<Vec<Vec<(&'static str, String)>>> {
        let asked = self.question.iter().zip(&self.context);
        let asked = asked.map(|(question, context)| vec![("question", question.clone()), ("context", context.clone())]);
        let (column, asked): (_, Vec<_>) = match task {
            Task::QuestionAns if self.texts.is_empty() => return Ok(asked.collect()),
            Task::QuestionAns => {
                return Err(Error::input("this model answers questions").hint("`--question` and `--context`").into());
            }
            Task::TokenCls => ("tokens", asked.collect()),
            Task::SeqCls => ("text", asked.collect()),
            other => {
                let error = Error::input("this model has no head to predict with").found(other.name());
                return Err(error.hint("`lowrank generate` continues texts, `lowrank embed` writes vectors").into());
            }
        };
        if !asked.is_empty() {
            return Err(Error::input("this model does not answer questions").found(task.name()).into());
        }
        let mut typed: Vec<_> = self.texts.iter().map(|text| vec![(column, text.clone())]).collect();
        match (&self.pair, &mut typed[..]) {
            (None, _) => {}
            (Some(pair), [row]) if task == Task::SeqCls => row.push(("text_pair", pair.clone())),
            (Some(_), _) => return Err(Error::input("`--pair` goes with one text of a seq_cls model").into()),
        }
        Ok(typed)
    }
}

/// One object for each row or passage.
fn answers(rows: &Rows, predictions: &Predictions) -> Result<Vec<Value>> {
    let text = |row: usize, column: &str| rows.table.rows[row].fields.get(column).cloned().unwrap_or_default();
    Ok(match predictions {
        Predictions::Classes(found) => {
            let of = |(row, chosen): (usize, &lowrank::predict::Chosen)| json!({ "text": rows.text(row), "label": rows.label(chosen.class), "probability": chosen.probability });
            found.iter().enumerate().map(of).collect()
        }
        Predictions::Numbers(found) => {
            found.iter().enumerate().map(|(row, number)| json!({ "text": rows.text(row), "number": number })).collect()
        }
        Predictions::Tags(found) => {
            let of = |(row, classes): (usize, &Vec<Option<usize>>)| {
                let tags: Vec<_> = classes.iter().map(|class| class.map(|class| rows.label(class))).collect();
                json!({ "tokens": words(&text(row, "tokens")), "tags": tags })
            };
            found.iter().enumerate().map(of).collect()
        }
        Predictions::Spans(found) => {
            let Reference::Windows { passages, .. } = &rows.dataset.reference else { return Ok(Vec::new()) };
            let of = |(passage, found): (&lowrank::data::Passage, &lowrank::predict::Found)| {
                let start = found.answer().map(|_| found.start);
                json!({ "question": passage.question, "answer": found.answer(), "answer_start": start, "margin": found.margin })
            };
            passages.iter().zip(found).map(of).collect()
        }
        Predictions::Vectors { .. } => Vec::new(),
    })
}

fn words(value: &Value) -> Vec<String> {
    match value {
        Value::Array(words) => words.iter().filter_map(Value::as_str).map(str::to_string).collect(),
        other => other.as_str().unwrap_or_default().split_whitespace().map(str::to_string).collect(),
    }
}

/// For people: a table, or words with their tags.
fn shown(found: &[Value]) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "(none)".into(),
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), |number| format!("{number:.4}")),
        other => other.to_string(),
    };
    let columns = |names: [&'static str; 3]| {
        let mut table = Table::new(names);
        found.iter().for_each(|row| table.row(names.map(|name| text(&row[name]))));
        table.render()
    };
    match found.first() {
        Some(row) if row.get("tags").is_some() => found.iter().map(tagged).collect(),
        Some(row) if row.get("question").is_some() => columns(["answer", "margin", "question"]),
        Some(row) if row.get("number").is_some() => {
            let mut table = Table::new(["number", "text"]);
            found.iter().for_each(|row| table.row(["number", "text"].map(|name| text(&row[name]))));
            table.render()
        }
        _ => columns(["label", "probability", "text"]),
    }
}

/// A word and its tag a line, an empty line after the sentence.
fn tagged(row: &Value) -> String {
    let of = |key: &str| row[key].as_array().cloned().unwrap_or_default();
    let line = |(word, tag): (Value, Value)| {
        format!("{}\t{}\n", word.as_str().unwrap_or_default(), tag.as_str().unwrap_or("(cut off)"))
    };
    of("tokens").into_iter().zip(of("tags")).map(line).collect::<String>() + "\n"
}
