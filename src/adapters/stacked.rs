//! Two products per module as one of twice the rank, so that PEFT opens the sum as a plain LoRA:
//!
//! ```text
//!     s · (u₁ B₁A₁ + u₂ B₂A₂)  =  s · [u₁B₁  u₂B₂] · [A₁; A₂]
//! ```
//!
//! The scaling s stays what it was: where the rank doubles, alpha doubles too, or grows by √2 with rslora.

use std::f64::consts::SQRT_2;

use super::method::field;
use super::{Findings, MAX_RANK, Selected, Shared};
use crate::Result;
use crate::error::InputError;
use crate::tensors::{HostTensor, HostTensors};

/// `u₁ B₁A₁ + u₂ B₂A₂` of every module as one product of twice the rank; other values stay. A₁ and B₁ are the fields
/// `lora_A [r, in]` and `lora_B [out, r]`, A₂ and B₂ the fields that `second` names, of the same shapes; `weights` are u₁ and u₂.
///
/// # Errors
/// If a module lacks one of the four.
pub fn stacked(
    mut values: HostTensors,
    selected: &[Selected],
    second: [&str; 2],
    weights: [f32; 2],
) -> Result<HostTensors> {
    for Selected { path, .. } in selected.iter().filter(|site| site.rank > 0) {
        let part = |name| field(&values, path, name);
        let down = below(part("lora_A")?, part(second[0])?);
        let up = beside([part("lora_B")?, part(second[1])?], weights);
        values.insert(format!("{path}.lora_A"), down);
        values.insert(format!("{path}.lora_B"), up);
        second.iter().for_each(|name| drop(values.shift_remove(&format!("{path}.{name}"))));
    }
    Ok(values)
}

/// Twice the rank everywhere, under the same scaling.
pub fn doubled(shared: Shared) -> Shared {
    let growth = if shared.rslora { SQRT_2 } else { 2.0 };
    Shared {
        rank: 2 * shared.rank,
        alpha: growth * shared.alpha,
        rank_pattern: shared.rank_pattern.into_iter().map(|(key, rank)| (key, 2 * rank)).collect(),
        alpha_pattern: shared.alpha_pattern.into_iter().map(|(key, alpha)| (key, growth * alpha)).collect(),
        ..shared
    }
}

/// Finds ranks that cannot be doubled.
pub fn check_ranks(shared: &Shared, found: &mut Findings) {
    if let Some(rank) = shared.rank_pattern.values().chain([&shared.rank]).find(|rank| **rank > MAX_RANK / 2) {
        let what = "the adapter is saved with twice its rank, which is then too large";
        found.push("rank", InputError::new(what).found(rank).expected(format!("at most {}", MAX_RANK / 2)));
    }
}

/// The rows of one matrix, then those of another.
fn below(above: &HostTensor, below: &HostTensor) -> HostTensor {
    let shape = vec![above.shape[0] + below.shape[0], above.shape[1]];
    HostTensor { shape, values: [&above.values[..], &below.values].concat() }
}

/// The columns of one matrix, then those of another, each times its weight.
fn beside(matrices: [&HostTensor; 2], weights: [f32; 2]) -> HostTensor {
    let [left, right] = matrices;
    let (rows, widths) = (left.shape[0], matrices.map(|matrix| matrix.shape[1]));
    let cells = (0..rows).flat_map(|row| {
        (0..2).flat_map(move |i| {
            let at = row * widths[i]..(row + 1) * widths[i];
            matrices[i].values[at].iter().map(move |value| weights[i] * value)
        })
    });
    HostTensor { shape: vec![rows, left.shape[1] + right.shape[1]], values: cells.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::modules::tiny;
    use crate::adapters::{AdapterConfig, LoraConfig, Module, Origin, Targets};

    #[test]
    fn the_scaling_stays_in_every_module() {
        let modules = Module::list(&tiny::llama());
        for rslora in [false, true] {
            let shared = Shared {
                rank: 3,
                alpha: 10.0,
                rslora,
                targets: Targets::Names(vec!["q_proj".into(), "v_proj".into(), "o_proj".into()]),
                rank_pattern: [("q_proj".to_string(), 5)].into(),
                alpha_pattern: [("v_proj".to_string(), 7.0)].into(),
                ..Shared::default()
            };
            let select = |shared: Shared| {
                AdapterConfig::from(LoraConfig::default().with(shared)).select(&modules, Origin::Recipe).unwrap()
            };
            for (before, after) in select(shared.clone()).iter().zip(select(doubled(shared))) {
                assert_eq!(after.rank, 2 * before.rank);
                assert!((after.scaling / before.scaling - 1.0).abs() < 1e-15, "{} {rslora}", before.path);
            }
        }
    }

    #[test]
    fn rows_go_below_and_columns_beside() {
        let matrix = |shape: [usize; 2], values: &[f32]| HostTensor { shape: shape.into(), values: values.into() };
        let (a, b) = (matrix([1, 2], &[1.0, 2.0]), matrix([1, 2], &[3.0, 4.0]));
        assert_eq!(below(&a, &b), matrix([2, 2], &[1.0, 2.0, 3.0, 4.0]));
        let (a, b) = (matrix([2, 1], &[1.0, 2.0]), matrix([2, 1], &[3.0, 4.0]));
        assert_eq!(beside([&a, &b], [10.0, -1.0]), matrix([2, 2], &[10.0, -3.0, 20.0, -4.0]));
    }
}
