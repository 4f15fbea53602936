//! From a row's columns to what it teaches.

use indexmap::IndexMap;
use serde_json::Value;

use super::messages::{self, Message};
use super::rows::{Row, Table, kind};
use crate::error::InputError;
use crate::recipe::{Format, nearest};
use crate::{Error, Result};

/// One row, whatever its file looked like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Example {
    Completion(String),
    PromptCompletion { prompt: String, completion: String },
    Messages(Vec<Message>),
}

/// Whether a chat template will follow: without one, Alpaca rows get their standard wording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wording {
    Standard,
    Bare,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Completion,
    PromptCompletion,
    Alpaca,
    Messages,
    Sharegpt,
}

/// A shape, the columns it needs and those it may have, in the order in which `auto` tries them.
const SHAPES: [(Shape, &[&str], &[&str]); 6] = [
    (Shape::Messages, &["messages"], &[]),
    (Shape::Sharegpt, &["conversations"], &[]),
    (Shape::Alpaca, &["instruction", "output"], &["input"]),
    (Shape::PromptCompletion, &["prompt", "completion"], &[]),
    (Shape::Completion, &["text"], &[]),
    (Shape::Completion, &["completion"], &[]),
];

/// How the rows of one table become examples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    shape: Shape,
    /// Our name of each column to the table's.
    columns: IndexMap<&'static str, String>,
}

impl Layout {
    /// Finds the columns that `format` needs.
    ///
    /// # Errors
    /// A missing or misspelt column: the columns there are, and the nearest.
    pub fn resolve(format: &Format, table: &Table) -> Result<Self> {
        let there = table.columns();
        let column = |name: &str| match format {
            Format::Columns(map) => map.get(name).cloned(),
            _ => there.contains(&name).then(|| name.to_owned()),
        };
        if let Format::Columns(map) = format {
            check_mapping(map, table)?;
        }
        let wanted = SHAPES.into_iter().filter(|(shape, ..)| selects(format, *shape));
        for (tried, (shape, required, optional)) in wanted.clone().enumerate() {
            let columns: IndexMap<_, _> =
                required.iter().chain(optional).filter_map(|&name| Some((name, column(name)?))).collect();
            if required.iter().all(|name| columns.contains_key(name)) {
                if *format == Format::Auto && shape == Shape::Completion {
                    refuse_misspelt(table, required, wanted.clone().take(tried).map(|(_, required, _)| required))?;
                }
                return Ok(Self { shape, columns });
            }
        }
        let known: Vec<&[&str]> = wanted.map(|(_, required, _)| required).collect();
        Err(missing(format, table, &known).into())
    }

    /// The example in one row.
    ///
    /// # Errors
    /// A value that is not text where text is needed, or a broken conversation: file, row, column.
    pub fn example(&self, table: &Table, row: &Row, wording: Wording) -> Result<Example> {
        let text = |name: &str| self.text(table, row, name);
        Ok(match self.shape {
            Shape::Completion => {
                let name = if self.columns.contains_key("text") { "text" } else { "completion" };
                Example::Completion(text(name)?)
            }
            Shape::PromptCompletion => {
                Example::PromptCompletion { prompt: text("prompt")?, completion: text("completion")? }
            }
            Shape::Alpaca => {
                let prompt = alpaca(&text("instruction")?, &self.optional_text(table, row, "input")?, wording);
                Example::PromptCompletion { prompt, completion: text("output")? }
            }
            Shape::Messages => self.messages(table, row, "messages", messages::OPENAI)?,
            Shape::Sharegpt => self.messages(table, row, "conversations", messages::SHAREGPT)?,
        })
    }

    fn value<'a>(&self, row: &'a Row, name: &str) -> Option<(&str, Option<&'a Value>)> {
        self.columns.get(name).map(|column| (column.as_str(), row.fields.get(column)))
    }

    fn text(&self, table: &Table, row: &Row, name: &str) -> Result<String> {
        let (column, value) = self.value(row, name).unwrap_or((name, None));
        match value {
            Some(Value::String(text)) => Ok(text.clone()),
            other => {
                let found = other.map_or("nothing", kind);
                Err(table
                    .error(row.number, format!("column `{column}` is not text"))
                    .found(found)
                    .expected("a text")
                    .into())
            }
        }
    }

    /// The text of a column that may be left out or null.
    fn optional_text(&self, table: &Table, row: &Row, name: &str) -> Result<String> {
        match self.value(row, name) {
            None | Some((_, None | Some(Value::Null))) => Ok(String::new()),
            Some(_) => self.text(table, row, name),
        }
    }

    fn messages(&self, table: &Table, row: &Row, name: &str, keys: messages::Keys) -> Result<Example> {
        let (column, value) = self.value(row, name).unwrap_or((name, None));
        match value {
            Some(Value::Array(turns)) => {
                let place =
                    |error: InputError| Error::from(error.file(&table.path).place(table.place, row.number.to_string()));
                Ok(Example::Messages(messages::parse(turns, keys).map_err(place)?))
            }
            other => {
                let found = other.map_or("nothing", kind);
                let error = table.error(row.number, format!("column `{column}` is not a conversation"));
                Err(error.found(found).expected("a list of messages").into())
            }
        }
    }
}

fn selects(format: &Format, shape: Shape) -> bool {
    match format {
        Format::Auto | Format::Columns(_) => true,
        Format::Completion => shape == Shape::Completion,
        Format::PromptCompletion => shape == Shape::PromptCompletion,
        Format::Alpaca => shape == Shape::Alpaca,
        Format::Messages => shape == Shape::Messages,
        Format::Sharegpt => shape == Shape::Sharegpt,
    }
}

/// A shape that would come first but for one misspelt column was meant: `promt` beside `completion`.
fn refuse_misspelt<'a>(table: &Table, taken: &[&str], earlier: impl Iterator<Item = &'a [&'a str]>) -> Result<()> {
    let there = table.columns();
    for required in earlier {
        let absent: Vec<&str> = required.iter().copied().filter(|name| !there.contains(name)).collect();
        let [name] = absent[..] else { continue };
        let others = there.iter().copied().filter(|column| !taken.contains(column) && !required.contains(column));
        let column = if required.len() > 1 { nearest(name, others) } else { None };
        if let Some(column) = column {
            let error = Error::input("the columns do not say what to train on").file(&table.path);
            let error = error.found(format!("the columns {}", quoted(&there))).expected(required.join(" + "));
            let hint = format!("is `{column}` a misspelt `{name}`? If not: format = \"completion\"");
            return Err(error.hint(hint).into());
        }
    }
    Ok(())
}

fn check_mapping(map: &IndexMap<String, String>, table: &Table) -> Result<()> {
    let ours: Vec<&str> =
        SHAPES.iter().flat_map(|(_, required, optional)| required.iter().chain(*optional)).copied().collect();
    let there = table.columns();
    for (name, column) in map {
        if !ours.contains(&name.as_str()) {
            let error = Error::input("not a column this format knows").key(format!("data.format.columns.{name}"));
            return Err(suggest(error.expected(quoted(&ours)), name, &ours).into());
        }
        if !there.contains(&column.as_str()) {
            let error = Error::input(format!("there is no column `{column}`")).file(&table.path);
            return Err(suggest(error.found(format!("the columns {}", quoted(&there))), column, &there).into());
        }
    }
    Ok(())
}

fn missing(format: &Format, table: &Table, known: &[&[&str]]) -> InputError {
    let there = table.columns();
    let wanted: Vec<String> = known.iter().map(|names| names.join(" + ")).collect();
    let (what, found) = match format {
        Format::Columns(map) => {
            let given: Vec<&str> = map.keys().map(String::as_str).collect();
            ("the column mapping is not complete", quoted(&given))
        }
        _ => ("the columns do not say what to train on", format!("the columns {}", quoted(&there))),
    };
    let error = Error::input(what).file(&table.path).found(found).expected(wanted.join(", or "));
    let absent = known.iter().flat_map(|names| names.iter()).filter(|name| !there.contains(*name));
    let closest = absent.filter_map(|&name| Some((name, nearest(name, there.iter().copied())?))).next();
    match closest {
        Some((name, column)) => error.hint(format!("is `{column}` a misspelt `{name}`?")),
        None => error.hint("name them: format = { columns = { prompt = \"...\", completion = \"...\" } }"),
    }
}

pub(super) fn suggest(error: InputError, name: &str, choices: &[&str]) -> InputError {
    match nearest(name, choices.iter().copied()) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error,
    }
}

pub(super) fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The wording that Stanford Alpaca trained with; with a chat template the turns speak for themselves.
fn alpaca(instruction: &str, input: &str, wording: Wording) -> String {
    match (wording, input.trim().is_empty()) {
        (Wording::Bare, true) => instruction.to_owned(),
        (Wording::Bare, false) => format!("{instruction}\n\n{input}"),
        (Wording::Standard, true) => format!(
            "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n\
             ### Instruction:\n{instruction}\n\n### Response:\n"
        ),
        (Wording::Standard, false) => format!(
            "Below is an instruction that describes a task, paired with an input that provides further context. \
             Write a response that appropriately completes the request.\n\n\
             ### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Role;
    use serde_json::json;

    fn table(rows: Value) -> Table {
        let rows = rows.as_array().unwrap().iter().enumerate();
        let row = |(index, value): (usize, &Value)| Row {
            number: index + 1,
            fields: value.as_object().unwrap().clone().into_iter().collect(),
        };
        Table { path: "d.jsonl".into(), place: "line", rows: rows.map(row).collect() }
    }

    fn examples(format: Format, rows: Value) -> Result<Vec<Example>> {
        let table = table(rows);
        let layout = Layout::resolve(&format, &table)?;
        table.rows.iter().map(|row| layout.example(&table, row, Wording::Standard)).collect()
    }

    fn one(format: Format, row: Value) -> Example {
        examples(format, json!([row])).unwrap().remove(0)
    }

    fn refusal(format: Format, rows: Value) -> String {
        examples(format, rows).unwrap_err().to_string()
    }

    fn columns(pairs: &[(&str, &str)]) -> Format {
        Format::Columns(pairs.iter().map(|(ours, theirs)| (ours.to_string(), theirs.to_string())).collect())
    }

    fn pair(prompt: &str, completion: &str) -> Example {
        Example::PromptCompletion { prompt: prompt.into(), completion: completion.into() }
    }

    #[test]
    fn auto_tells_the_format_by_its_columns() {
        assert_eq!(one(Format::Auto, json!({"id": 1, "prompt": "p", "completion": "c"})), pair("p", "c"));
        assert_eq!(one(Format::Auto, json!({"text": "t"})), Example::Completion("t".into()));
        assert_eq!(one(Format::Auto, json!({"completion": "t"})), Example::Completion("t".into()));
        let turns = vec![Message::new(Role::User, "hi"), Message::new(Role::Assistant, "ho")];
        let messages = json!({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]});
        assert_eq!(one(Format::Auto, messages), Example::Messages(turns.clone()));
        let sharegpt = json!({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]});
        assert_eq!(one(Format::Auto, sharegpt), Example::Messages(turns));
    }

    #[test]
    fn auto_does_not_take_half_a_pair_for_plain_text() {
        let error = refusal(Format::Auto, json!([{"promt": "p", "completion": "c"}]));
        assert!(
            error.contains("is `promt` a misspelt `prompt`?") && error.contains("format = \"completion\""),
            "{error}"
        );
        let plain = |row| one(Format::Auto, row);
        assert_eq!(plain(json!({"source": "s", "completion": "c"})), Example::Completion("c".into()));
        assert_eq!(plain(json!({"text": "t", "message": "m"})), Example::Completion("t".into()));
        let told = one(Format::Completion, json!({"promt": "p", "completion": "c"}));
        assert_eq!(told, Example::Completion("c".into()));
    }

    #[test]
    fn a_given_format_ignores_other_columns() {
        let row = json!({"text": "t", "prompt": "p", "completion": "c"});
        assert_eq!(one(Format::Completion, row.clone()), Example::Completion("t".into()));
        assert_eq!(one(Format::PromptCompletion, row), pair("p", "c"));
    }

    #[test]
    fn alpaca_has_its_wording_only_without_a_template() {
        let data = table(
            json!([{"instruction": "Add", "input": "1 2", "output": "3"}, {"instruction": "Sing", "input": null, "output": "la"}]),
        );
        let layout = Layout::resolve(&Format::Auto, &data).unwrap();
        let example = |row: usize, wording| layout.example(&data, &data.rows[row], wording).unwrap();
        assert_eq!(example(0, Wording::Bare), pair("Add\n\n1 2", "3"));
        assert_eq!(example(1, Wording::Bare), pair("Sing", "la"));
        let Example::PromptCompletion { prompt, .. } = example(0, Wording::Standard) else { panic!() };
        assert!(prompt.contains("paired with an input") && prompt.ends_with("### Input:\n1 2\n\n### Response:\n"));
        let Example::PromptCompletion { prompt, .. } = example(1, Wording::Standard) else { panic!() };
        assert!(!prompt.contains("Input") && prompt.ends_with("### Instruction:\nSing\n\n### Response:\n"));
    }

    #[test]
    fn columns_can_be_mapped() {
        let row = json!({"mr": "m", "ref": "r"});
        assert_eq!(one(columns(&[("prompt", "mr"), ("completion", "ref")]), row.clone()), pair("m", "r"));
        assert_eq!(one(columns(&[("completion", "ref")]), row.clone()), Example::Completion("r".into()));
        let error = refusal(columns(&[("prompt", "mr"), ("completion", "reff")]), json!([row.clone()]));
        assert!(
            error.contains("no column `reff`; found the columns `mr`, `ref`\nhint: did you mean `ref`?"),
            "{error}"
        );
        let error = refusal(columns(&[("promt", "mr")]), json!([row.clone()]));
        assert!(error.contains("data.format.columns.promt") && error.contains("did you mean `prompt`?"), "{error}");
        let error = refusal(columns(&[("prompt", "mr")]), json!([row]));
        assert!(error.contains("not complete; found `prompt`"), "{error}");
    }

    #[test]
    fn missing_columns_are_named_with_the_nearest() {
        let error = refusal(Format::Auto, json!([{"instuction": "a", "output": "b"}]));
        assert!(error.contains("found the columns `instuction`, `output`"), "{error}");
        assert!(error.contains("is `instuction` a misspelt `instruction`?"), "{error}");
        let error = refusal(Format::Alpaca, json!([{"q": "a", "a": "b"}]));
        assert!(error.contains("expected instruction + output\nhint: name them"), "{error}");
    }

    #[test]
    fn values_that_are_not_text_are_refused_with_their_row() {
        for (value, name) in [(json!(null), "null"), (json!(3), "a number"), (json!(["a"]), "a list")] {
            let error = refusal(Format::Auto, json!([{"text": "ok"}, {"text": value}]));
            assert_eq!(error, format!("d.jsonl: line 2: column `text` is not text; found {name}; expected a text"));
        }
        let error = refusal(Format::Auto, json!([{"prompt": "a", "completion": "b"}, {"prompt": "a"}]));
        assert!(error.contains("line 2: column `completion` is not text; found nothing"), "{error}");
        let error = refusal(Format::Auto, json!([{"messages": "hi"}]));
        assert!(error.contains("line 1: column `messages` is not a conversation; found a text"), "{error}");
        let error = refusal(Format::Auto, json!([{"messages": []}]));
        assert!(error.contains("d.jsonl: line 1: the conversation is empty"), "{error}");
    }
}
