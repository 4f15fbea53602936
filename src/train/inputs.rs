//! Model and data of a job, which decide together what the head tells.

use std::rc::Rc;

use super::Job;
use super::fit::fit_to_model;
use crate::Result;
use crate::data::{self, Reads, Setting, Splits};
use crate::models::families;
use crate::models::{self, ModelConfig, Opened, are_generic};
use crate::recipe::{Head, Recipe, Resolved, Task};

/// What a recipe names.
pub(super) struct Inputs {
    pub opened: Rc<Opened>,
    pub splits: Rc<Splits>,
}

impl Inputs {
    /// Opens model and data, and writes into `recipe` what follows from them. What `other` has opened already is shared with it.
    pub fn open(recipe: &mut Recipe, resolved: &Resolved, other: Option<&Job>) -> Result<Self> {
        let inputs = match other.filter(|other| same(&other.recipe, recipe)) {
            Some(other) => Self { opened: other.opened.clone(), splits: other.splits.clone() },
            None => {
                let opened = models::open_for(&recipe.model.path, &resolved.root, Some(recipe.task))?;
                let setting = setting(recipe.task, &recipe.head, &opened);
                let splits = data::load(&recipe.data, &setting, &opened.tokenizer, &resolved.root)?;
                Self { opened: Rc::new(opened.with_labels(&splits.labels)?), splits: Rc::new(splits) }
            }
        };
        recipe.head.labels.clone_from(&inputs.splits.labels);
        fit_to_model(recipe, &inputs.opened.config)?;
        Ok(inputs)
    }
}

/// Whether two recipes open the same.
fn same(a: &Recipe, b: &Recipe) -> bool {
    // The labels of a recipe that has been opened are written out.
    let labels = b.head.labels.is_empty() || a.head.labels == b.head.labels;
    let head = |recipe: &Recipe| Head { labels: Vec::new(), ..recipe.head.clone() };
    labels && head(a) == head(b) && a.model.path == b.model.path && a.task == b.task && a.data == b.data
}

/// What rows are made into for a model.
pub fn setting(task: Task, head: &Head, opened: &Opened) -> Setting {
    let own = opened.labels();
    let labels = if are_generic(own) { Vec::new() } else { own.to_vec() };
    let decoder_start = opened.config.architecture.family().decoder_start().unwrap_or_default();
    Setting { reads: reads(&opened.config), labels, decoder_start, ..Setting::new(task, head) }
}

fn reads(config: &ModelConfig) -> Reads {
    match config.head().reads {
        families::Reads::First => Reads::First,
        families::Reads::Every | families::Reads::Last => Reads::Last,
    }
}
