//! A model turned to a task, be it the one that its file was saved for or not.

use super::Opened;
use super::arranged::{Arranged, under};
use super::headed::head_tensors;
use crate::adapters::Module;
use crate::recipe::Task;
use crate::{Error, Result};

impl Opened {
    /// The weights as `task` has them, and what of its head is missing.
    pub(super) fn turned_to(mut self, task: Task) -> Result<Self> {
        if self.config.architecture.family().head(&self.config, task).is_none() {
            let error = Error::input("the model's family cannot do this task").file(self.weights.path()).key("task");
            let can = |task: &Task| self.config.architecture.family().head(&self.config, *task).is_some();
            let known: Vec<_> = Task::ALL.into_iter().filter(can).map(Task::name).collect();
            let found = format!("{} of a {}", task.name(), self.config.model_type);
            return Err(error.found(found).expected(known.join(", ")).into());
        }
        if task != self.own_task {
            (self.config.task, self.config.labels) = (task, Vec::new());
        }
        self.weights = Arranged::around(self.weights, &self.config);
        if self.config.has_tied_head() && self.config.architecture.family().is_tied_by_weights() {
            self.config.tie_word_embeddings = !self.has_head_of_its_own()?;
        }
        if !task.predicts_tokens() {
            // A head of another task may go by the same name.
            let root = self.config.head().root;
            let own = |name: &String| task == self.own_task || under(name, root).is_some();
            let is_there = |name: &String| own(name) && self.weights.shape(name).is_some();
            let names = head_tensors(&self.config).into_iter().map(|(name, _)| name);
            self.fresh_head = names.filter(|name| !is_there(name)).collect();
        }
        Ok(self)
    }

    /// Whether the head over the vocabulary is in the file, and is not a copy of the embedding table.
    fn has_head_of_its_own(&self) -> Result<bool> {
        let modules = Module::list(&self.config);
        let [table, head] =
            Module::vocabulary(&modules).map(|module| module.map(|module| module.path.clone() + ".weight"));
        match head.zip(table).filter(|(head, _)| self.weights.shape(head).is_some()) {
            Some((head, table)) => Ok(self.weights.read(&head)? != self.weights.read(&table)?),
            None => Ok(false),
        }
    }

    /// Whether a tensor's first name is that of a head that the family has for some task.
    pub(super) fn is_of_any_head(&self, name: &str) -> bool {
        let first = |path: &str| path.split('.').next().map(str::to_string);
        let forms = Task::ALL.into_iter().filter_map(|task| self.config.architecture.family().head(&self.config, task));
        forms.flat_map(|form| form.layers).any(|layer| first(&layer.module.path) == first(name))
    }

    /// # Errors
    /// If the model's head does not predict tokens.
    pub fn check_generates(&self) -> Result<()> {
        let task = self.config.task;
        if task.predicts_tokens() {
            return Ok(());
        }
        let error = Error::input("this model does not generate text").file(self.weights.path());
        let found = format!("{} for {}", self.config.model_type, task.name());
        Err(error.found(found).expected("a model for causal_lm or seq2seq_lm").into())
    }
}
