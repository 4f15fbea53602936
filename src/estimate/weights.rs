//! Bytes of the frozen weights on a device.

use lowrank_kernels::four_bit::{Format, NESTED_BLOCK, ScaleFormat};

use super::{Figure, times};
use crate::events::units::count;
use crate::models::{Outline, is_linear_of_block};
use crate::recipe::{BaseDtype, BaseStorage, Quant};

/// The weights of a model as `storage` has them. `four_bit` says which tensors are in four bits and how, by name and shape; see
/// [`in_blocks`] for where no files say otherwise.
pub fn weights(outline: &Outline, dtype: BaseDtype, four_bit: impl Fn(&str, &[usize]) -> Option<Format>) -> Figure {
    let per_weight = if dtype == BaseDtype::Bf16 { 2 } else { 4 };
    let (mut packed, mut packed_bytes, mut format, mut matrices, mut vectors) = (0, 0, None, 0, 0);
    for (name, shape) in outline.tensors() {
        let len: usize = shape.iter().product();
        match four_bit(&name, &shape) {
            Some(own) => {
                packed += len;
                packed_bytes += own.bytes(len) as usize;
                format = Some(own);
            }
            // Norms and biases stay f32.
            None if shape.len() == 1 => vectors += len,
            None => matrices += len,
        }
    }
    let mut terms = Vec::new();
    terms.extend(format.map(|format| format!("{:.3} bits x {}", bits(format), count(packed))));
    match per_weight {
        4 => terms.push(times(4, matrices + vectors)),
        _ => terms.extend([times(per_weight, matrices), times(4, vectors)]),
    }
    Figure::new(packed_bytes + per_weight * matrices + 4 * vectors, terms.join(" + "))
}

/// In four bits are the linear layers of blocks.
pub fn in_blocks(storage: BaseStorage) -> impl Fn(&str, &[usize]) -> Option<Format> {
    move |name, shape| storage.quant.map(Quant::format).filter(|_| is_linear_of_block(name, shape))
}

/// Bits of a weight, its share of the scales included.
fn bits(Format { block, scales, .. }: Format) -> f64 {
    let scale = match scales {
        ScaleFormat::F32 => 32.0,
        ScaleFormat::Nested => 8.0 + 32.0 / NESTED_BLOCK as f64,
    };
    4.0 + scale / block as f64
}
