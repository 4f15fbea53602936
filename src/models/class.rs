//! Tasks in `config.json`: the class that a model was saved from, and what its classifier's outputs stand for.

use serde_json::{Map, Value, json};

use super::families::ModelType;
use super::json::Json;
use crate::Result;
use crate::recipe::Task;

/// How transformers ends the names of its classes.
const ENDS: [(&str, Task); 9] = [
    ("ForConditionalGeneration", Task::Seq2seqLm),
    // T5's class, once.
    ("WithLMHeadModel", Task::Seq2seqLm),
    ("ForCausalLM", Task::CausalLm),
    ("LMHeadModel", Task::CausalLm),
    ("ForSequenceClassification", Task::SeqCls),
    ("ForTokenClassification", Task::TokenCls),
    ("ForQuestionAnswering", Task::QuestionAns),
    ("EncoderModel", Task::FeatureExtraction),
    ("Model", Task::FeatureExtraction),
];

impl ModelType {
    /// What the type's own class is for.
    pub fn task(&self) -> Task {
        task_of(self.class).unwrap_or_default()
    }

    /// The class of transformers for `task`.
    pub fn class_for(&self, task: Task) -> String {
        if task == self.task() {
            return self.class.to_string();
        }
        let stem = ENDS.iter().find_map(|(end, _)| self.class.strip_suffix(end)).unwrap_or(self.class);
        let end = ENDS.iter().find(|(_, of)| *of == task).map_or("Model", |(end, _)| end);
        let end = if task == Task::FeatureExtraction { "Model" } else { end };
        format!("{stem}{end}")
    }
}

fn task_of(class: &str) -> Option<Task> {
    ENDS.iter().find(|(end, _)| class.ends_with(end)).map(|(_, task)| *task)
}

/// What the model of a `config.json` is for: what its first class says, or the type's own.
pub(super) fn task(json: &Json<'_>, model_type: &str) -> Task {
    let class = json.get("architectures").and_then(|classes| classes.get(0)).and_then(Value::as_str);
    let own = ModelType::find(model_type).map_or(Task::CausalLm, ModelType::task);
    class.and_then(task_of).unwrap_or(own)
}

/// Names of a classifier's outputs, which transformers calls `LABEL_0` and so on where nobody has named them; it has two where
/// nothing is said.
pub(super) fn labels(json: &Json<'_>, task: Task) -> Result<Vec<String>> {
    if !task.has_labels() {
        return Ok(Vec::new());
    }
    let Some(names) = json.table("id2label")? else {
        return Ok((0..json.size_or("num_labels", 2)?).map(generic_label).collect());
    };
    let name = |i: usize| match names.get(&i.to_string()) {
        Some(Value::String(name)) => Ok(name.clone()),
        _ => Err(json.refusal("id2label", "not a name for each output", "\"0\" and so on, each a text")),
    };
    (0..names.len()).map(name).collect()
}

/// What transformers calls an output that has no name.
pub fn generic_label(i: usize) -> String {
    format!("LABEL_{i}")
}

/// The keys of a `config.json` that say what outputs stand for.
pub(super) fn label_keys(labels: &[String], task: Task) -> Map<String, Value> {
    let mut keys = Map::new();
    // A single output is a number.
    let number = [generic_label(0)];
    let labels = if task == Task::SeqCls && labels.is_empty() { &number } else { labels };
    if labels.len() == 1 {
        keys.insert("problem_type".into(), json!("regression"));
    }
    if !labels.is_empty() {
        let names = labels.iter().enumerate();
        let id2label: Map<_, _> = names.clone().map(|(i, name)| (i.to_string(), json!(name))).collect();
        let label2id: Map<_, _> = names.map(|(i, name)| (name.clone(), json!(i))).collect();
        keys.insert("id2label".into(), id2label.into());
        keys.insert("label2id".into(), label2id.into());
    }
    keys
}
