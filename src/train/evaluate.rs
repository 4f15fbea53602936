//! Held-out loss, and exact match of greedily generated answers.

use indexmap::IndexMap;

use crate::Result;
use crate::data::{Dataset, Tokenizer, collate};
use crate::events::{Control, Eval, Event};
use crate::runtime::{Learner, Sampling};

/// What an evaluation looks at.
#[derive(Clone, Copy)]
pub struct Evaluation<'a> {
    pub dataset: &'a Dataset,
    pub tokenizer: &'a Tokenizer,
    /// Rows per forward.
    pub batch: usize,
    /// Rows whose answers are generated and compared.
    pub generate: usize,
    pub stop: &'a [u32],
}

/// The token-weighted mean loss in nats, its perplexity, and the share of generated answers that equal their
/// reference up to surrounding white space, with the first few answers as samples. `None` when `control` asks for
/// a stop meanwhile.
pub fn evaluate(
    learner: &dyn Learner,
    evaluation: &Evaluation<'_>,
    step: usize,
    control: &Control,
) -> Result<Option<(Eval, Vec<Event>)>> {
    let (mut loss, mut tokens) = (0.0, 0);
    let sequences: Vec<_> = evaluation.dataset.sequences.iter().collect();
    for rows in sequences.chunks(evaluation.batch) {
        if control.stop().is_some() {
            return Ok(None);
        }
        let batch = collate(rows, evaluation.tokenizer.pad().unwrap_or(0));
        loss += learner.loss(&batch)?;
        tokens += batch.terms();
    }
    let loss = loss / tokens.max(1) as f64;
    let mut metrics = IndexMap::from([("perplexity".to_string(), loss.exp())]);
    let mut samples = Vec::new();
    if evaluation.generate > 0 && !evaluation.dataset.prompts.is_empty() {
        let Some(matched) = exact_match(learner, evaluation, step, control, &mut samples)? else { return Ok(None) };
        metrics.insert("exact_match".to_string(), matched);
    }
    Ok(Some((Eval { step, loss, metrics }, samples)))
}

fn exact_match(
    learner: &dyn Learner,
    evaluation: &Evaluation<'_>,
    step: usize,
    control: &Control,
    samples: &mut Vec<Event>,
) -> Result<Option<f64>> {
    /// Answers shown as samples of one evaluation.
    const SAMPLES: usize = 2;
    let prompts = &evaluation.dataset.prompts[..evaluation.generate.min(evaluation.dataset.prompts.len())];
    let mut matched = 0;
    for (i, prompt) in prompts.iter().enumerate() {
        if control.stop().is_some() {
            return Ok(None);
        }
        let reference_tokens = evaluation.tokenizer.encode(&prompt.reference, crate::data::Special::AsText)?.len();
        let sampling = Sampling {
            max_new_tokens: reference_tokens * 3 / 2 + 8,
            temperature: 0.0,
            seed: 0,
            stop: evaluation.stop.to_vec(),
        };
        let answer = learner.generate(&prompt.prompt_ids, &sampling, &mut |_| true)?;
        let text = evaluation.tokenizer.decode(&answer);
        matched += usize::from(text.trim() == prompt.reference.trim());
        if i < SAMPLES {
            samples.push(Event::Sample { step, prompt: prompt.prompt.clone(), text });
        }
    }
    Ok(Some(matched as f64 / prompts.len().max(1) as f64))
}
