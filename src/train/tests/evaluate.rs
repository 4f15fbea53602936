//! What an evaluation reports.

use super::{Still, job_on, train};
use crate::events::{Control, Event};
use crate::runtime::Processor;
use crate::train::Options;

fn evaluations(sets: &[&str]) -> Vec<Event> {
    let folder = tempfile::tempdir().unwrap();
    let rows = "prompt,completion\nthe cat sat on the mat,the cat sat on the mat\nred,blue\ngreen,green\n";
    let file = folder.path().join("held-out.csv");
    std::fs::write(&file, rows).unwrap();
    let mut sets: Vec<_> = sets.iter().map(|set| (*set).to_string()).collect();
    sets.extend([format!("data.eval={}", file.display()), "data.max_len=64".into(), "train.max_steps=1".into()]);
    let mut job = job_on(&Still(Processor::Cpu), folder.path(), &sets);
    let options = Options { out: Some(folder.path().join("run")), resume: None };
    let (outcome, mut seen) = train(&mut job, &options, &Control::new(), |_| {});
    outcome.unwrap();
    seen.retain(|event| matches!(event, Event::Eval(_) | Event::Sample { .. }));
    seen
}

/// The metrics of the first evaluation, and the texts shown with it.
fn first(seen: &[Event]) -> (Vec<(&str, f64)>, Vec<&str>) {
    let metrics = seen.iter().find_map(|event| match event {
        Event::Eval(eval) => Some(eval.metrics.iter().map(|(name, value)| (name.as_str(), *value)).collect()),
        _ => None,
    });
    let samples = seen.iter().filter_map(|event| match event {
        Event::Sample { step: 0, text, .. } => Some(text.as_str()),
        _ => None,
    });
    (metrics.unwrap(), samples.collect())
}

#[test]
fn answers_are_scored_against_the_references_of_the_rows_that_are_generated() {
    let seen = evaluations(&["train.eval_generate=2"]);
    let (metrics, samples) = first(&seen);
    let names: Vec<_> = metrics.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["perplexity", "exact_match", "bleu", "rouge_l"]);
    // It answers with the prompt: the first of the two is right. Precisions 6/7, 1, 1, 1.
    assert_eq!((metrics[1].1, metrics[3].1), (0.5, 0.5), "{samples:?}");
    assert!((metrics[2].1 - 100.0 * (6.0f64 / 7.0).powf(0.25)).abs() < 1e-9, "{metrics:?}");
    assert_eq!(samples.iter().map(|text| text.trim()).collect::<Vec<_>>(), ["the cat sat on the mat", "red"]);
}

#[test]
fn nothing_generated_is_not_scored() {
    let seen = evaluations(&[]);
    let (metrics, samples) = first(&seen);
    assert_eq!(metrics.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["perplexity"]);
    assert!(samples.is_empty(), "{samples:?}");
}
