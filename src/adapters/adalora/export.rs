//! A trained adapter on the host: only the triplets that are left go into the file.

use super::Outcome;
use crate::Result;
use crate::adapters::method::field;
use crate::adapters::{Selected, Update};
use crate::tensors::{HostTensor, HostTensors};

/// The module's name in PEFT's `rank_pattern`.
pub fn pattern_key(site: &Selected) -> String {
    format!("{}.lora_E", site.path)
}

/// `values` without the triplets whose E is zero, which add nothing to any output, and which ones stayed.
///
/// PEFT goes by its last allocation instead. In the end that is the same; before, triplets that have grown back since are kept
/// here, so that a checkpoint's adapter always computes what the model did. An adapter that has not been trained is kept whole.
pub fn survivors(outcome: &Outcome, mut values: HostTensors, selected: &[Selected]) -> Result<(Outcome, HostTensors)> {
    let mut outcome = Outcome { rank_pattern: Default::default(), ..outcome.clone() };
    for site in selected {
        let kept = field(&values, &site.path, "lora_E")?.values.iter().map(|e| *e != 0.0).collect();
        outcome.rank_pattern.insert(pattern_key(site), kept);
    }
    if !outcome.rank_pattern.values().flatten().any(|kept| *kept) {
        outcome.rank_pattern.values_mut().flatten().for_each(|kept| *kept = true);
    }
    for site in selected {
        let kept = &outcome.rank_pattern[&pattern_key(site)];
        for (name, cut) in [("lora_A", rows as Cut), ("lora_E", rows), ("lora_B", columns)] {
            let smaller = cut(field(&values, &site.path, name)?, kept);
            values.insert(format!("{}.{name}", site.path), smaller);
        }
    }
    Ok((outcome, values))
}

type Cut = fn(&HostTensor, &[bool]) -> HostTensor;

fn rows(matrix: &HostTensor, kept: &[bool]) -> HostTensor {
    let cols = matrix.shape.last().copied().unwrap_or(1);
    let rows = matrix.values.chunks_exact(cols.max(1)).zip(kept).filter(|(_, kept)| **kept);
    let values: Vec<f32> = rows.flat_map(|(row, _)| row).copied().collect();
    HostTensor { shape: vec![kept.iter().filter(|kept| **kept).count(), cols], values }
}

fn columns(matrix: &HostTensor, kept: &[bool]) -> HostTensor {
    let values: Vec<f32> =
        matrix.values.iter().zip(kept.iter().cycle()).filter(|(_, kept)| **kept).map(|(value, _)| *value).collect();
    HostTensor { shape: vec![matrix.shape[0], kept.iter().filter(|kept| **kept).count()], values }
}

/// `s · B · (E ⊙ A)` as a change of the weight `[out, in]`.
pub fn product(site: &Selected, values: &HostTensors) -> Result<Update> {
    let [a, e, b] = ["lora_A", "lora_E", "lora_B"].map(|name| field(values, &site.path, name));
    let (a, e, b) = (a?, e?, b?);
    let rows = a.values.chunks_exact(site.cols).zip(&e.values);
    let right = rows.flat_map(|(row, e)| row.iter().map(move |a| e * a)).collect();
    let (left, rank, cols) = (b.values.clone(), site.rank, site.cols);
    Ok(Update { left, right, rank, cols, scaling: site.scaling as f32, magnitude: None })
}
