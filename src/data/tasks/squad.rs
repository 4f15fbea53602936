//! SQuAD's own files: articles of paragraphs of questions, as rows of one question.

use indexmap::IndexMap;
use serde_json::{Map, Value};

use crate::Result;
use crate::data::rows::{Row, Table};
use crate::error::InputError;
use crate::recipe::Task;

/// The table itself, or, where `question_ans` reads articles, one row for each question in them, numbered from 1.
///
/// # Errors
/// An article without a list of paragraphs, or a paragraph without its context or questions: file and article.
pub fn flattened(table: Table, task: Task) -> Result<Table> {
    let nested = task == Task::QuestionAns && table.columns().contains(&"paragraphs");
    if !nested {
        return Ok(table);
    }
    let mut rows = Vec::new();
    for article in &table.rows {
        for paragraph in list(&table, article, article.fields.get("paragraphs"), "`paragraphs`, a list")? {
            let context = paragraph.get("context").filter(|context| context.is_string());
            let context = context.ok_or_else(|| missing(&table, article, "a paragraph has `context`, a text"))?;
            for question in list(&table, article, paragraph.get("qas"), "a paragraph has `qas`, a list")? {
                let fields = question.as_object().ok_or_else(|| missing(&table, article, "`qas` are objects"))?;
                rows.push(Row { number: rows.len() + 1, fields: flat(fields, context) });
            }
        }
    }
    Ok(Table { place: "question", rows, ..table })
}

fn flat(question: &Map<String, Value>, context: &Value) -> IndexMap<String, Value> {
    let own = question.iter().map(|(name, value)| (name.clone(), value.clone()));
    own.chain([("context".to_owned(), context.clone())]).collect()
}

fn list<'a>(table: &Table, article: &Row, value: Option<&'a Value>, expected: &str) -> Result<&'a [Value]> {
    let list = value.and_then(Value::as_array).map(Vec::as_slice);
    list.ok_or_else(|| missing(table, article, expected).into())
}

fn missing(table: &Table, article: &Row, expected: &str) -> InputError {
    table.error(article.number, "not an article of SQuAD").expected(expected)
}
