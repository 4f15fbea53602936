//! What a model says about rows that nobody has answered.

use crate::data::{Dataset, Tokenizer};
use crate::predict::{Predictions, Reading};
use crate::recipe::Head;
use crate::runtime::Learner;
use crate::{Error, Result};

/// Reads the outputs about every row of `dataset`, `batch` rows at a time; `progress` hears how many rows are done.
///
/// # Errors
/// If the task's outputs are tokens, which are generated instead.
pub fn predict(
    learner: &dyn Learner,
    reading: &Reading<'_>,
    head: &Head,
    (dataset, tokenizer, batch): (&Dataset, &Tokenizer, usize),
    progress: &mut dyn FnMut(usize),
) -> Result<Predictions> {
    let Some(mut predictions) = reading.start(dataset) else {
        let error = Error::input("this task's answers are generated, not read").found(reading.task.name());
        return Err(error.hint("`lowrank generate` does that").into());
    };
    for (rows, of_rows) in dataset.in_order(batch, tokenizer, head) {
        let (done, outputs) = (rows.end, learner.logits(&of_rows)?);
        reading.read(&mut predictions, dataset, rows, &of_rows, &outputs);
        progress(done);
    }
    Ok(predictions)
}
