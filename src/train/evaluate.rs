//! Held-out loss, and how greedily generated answers compare with their references.

use crate::Result;
use crate::data::{Dataset, Prompt, Special, Tokenizer};
use crate::events::{Control, Eval, Event};
use crate::metrics::{Scores, text};
use crate::predict::{Predictions, Reading};
use crate::recipe::{Head, Task};
use crate::runtime::{Learner, Sampling};

/// What an evaluation looks at.
#[derive(Clone, Copy)]
pub struct Evaluation<'a> {
    pub dataset: &'a Dataset,
    pub tokenizer: &'a Tokenizer,
    pub task: Task,
    pub head: &'a Head,
    /// Names of the head's classes.
    pub labels: &'a [String],
    /// Rows per forward.
    pub batch: usize,
    /// Rows whose answers are generated and compared.
    pub generate: usize,
    pub stop: &'a [u32],
}

/// Answers shown as samples of one evaluation.
const SAMPLES: usize = 2;

/// The mean loss over all terms of the task's goal, in nats where that is a likelihood, and the task's metrics: of tokens the
/// perplexity, and the scores of generated answers against their references ([`text::scores`]), with the first few answers as
/// samples. `None` when `control` asks for a stop meanwhile.
pub fn evaluate(
    learner: &dyn Learner,
    evaluation: &Evaluation<'_>,
    step: usize,
    control: &Control,
) -> Result<Option<(Eval, Vec<Event>)>> {
    let Some((loss, predictions)) = read(learner, evaluation, control)? else { return Ok(None) };
    let mut samples = Vec::new();
    let mut metrics = match &predictions {
        Some(predictions) => evaluation.reading().scores(predictions, evaluation.dataset)?,
        None => Scores::from([("perplexity".to_string(), loss.exp())]),
    };
    let prompts = evaluation.prompts();
    if !prompts.is_empty() {
        let Some(answers) = answers(learner, evaluation, control)? else { return Ok(None) };
        let references: Vec<_> = prompts.iter().map(|prompt| prompt.reference.as_str()).collect();
        metrics.extend(text::scores(&answers, &references)?);
        let shown = prompts.iter().zip(answers).take(SAMPLES);
        samples.extend(shown.map(|(prompt, text)| Event::Sample { step, prompt: prompt.prompt.clone(), text }));
    }
    Ok(Some((Eval { step, loss, metrics }, samples)))
}

/// The mean loss, and what the outputs say where they are no tokens.
fn read(
    learner: &dyn Learner,
    evaluation: &Evaluation<'_>,
    control: &Control,
) -> Result<Option<(f64, Option<Predictions>)>> {
    let (dataset, reading) = (evaluation.dataset, evaluation.reading());
    let mut predictions = reading.start(dataset);
    let (mut loss, mut terms) = (0.0, 0);
    for (rows, batch) in dataset.in_order(evaluation.batch, evaluation.tokenizer, evaluation.head) {
        if control.stop().is_some() {
            return Ok(None);
        }
        match &mut predictions {
            None => loss += learner.loss(&batch)?,
            Some(predictions) => {
                let (of_batch, outputs) = learner.loss_and_logits(&batch)?;
                loss += of_batch;
                reading.read(predictions, dataset, rows, &batch, &outputs);
            }
        }
        terms += batch.terms();
    }
    Ok(Some((loss / terms.max(1) as f64, predictions)))
}

impl Evaluation<'_> {
    fn reading(&self) -> Reading<'_> {
        Reading { task: self.task, labels: self.labels, pooling: self.head.pooling }
    }

    /// Those that are answered.
    fn prompts(&self) -> &[Prompt] {
        let prompts = &self.dataset.prompts;
        &prompts[..self.generate.min(prompts.len())]
    }
}

/// Text generated greedily after each prompt, at most half as long again as its reference.
fn answers(learner: &dyn Learner, evaluation: &Evaluation<'_>, control: &Control) -> Result<Option<Vec<String>>> {
    let mut answers = Vec::new();
    for prompt in evaluation.prompts() {
        if control.stop().is_some() {
            return Ok(None);
        }
        let reference_tokens = evaluation.tokenizer.encode(&prompt.reference, Special::AsText)?.len();
        let sampling = Sampling {
            max_new_tokens: reference_tokens * 3 / 2 + 8,
            temperature: 0.0,
            seed: 0,
            stop: evaluation.stop.to_vec(),
        };
        let answer = learner.generate(&prompt.prompt_ids, &sampling, &mut |_| true)?;
        answers.push(evaluation.tokenizer.decode(&answer));
    }
    Ok(Some(answers))
}
