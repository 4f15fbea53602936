//! Forward products of a few tokens: rows of the matrix are decoded into the first-level cache and multiplied there.

use std::ops::Range;

use super::Weight;
use super::isa::Isa;
use super::share::share;

/// Elements decoded at a time: 8 KiB.
const PIECE: usize = 2048;

/// Rows of the matrix per task.
const ROWS: usize = 16;

/// Elements of a matrix that is not worth waking another thread for.
const SMALL: usize = 1 << 16;

/// `x [m, in] · Wᵀ → [m, out]`.
pub(super) fn product(isa: Isa, x: &[f32], m: usize, weight: &Weight<'_>) -> Vec<f32> {
    let [out, cols] = weight.shape;
    let mut columns = vec![0.0; out * m];
    let fill = |(task, sums): (usize, &mut [f32])| {
        let mut buffer = [0.0; PIECE];
        for (row, sums) in (task * ROWS..).zip(sums.chunks_exact_mut(m)) {
            for start in (0..cols).step_by(PIECE) {
                let end = cols.min(start + PIECE);
                let w = piece(isa, weight, row * cols + start..row * cols + end, &mut buffer);
                for (sum, x) in sums.iter_mut().zip(x.chunks_exact(cols)) {
                    *sum += isa.dot(w, &x[start..end]);
                }
            }
        }
    };
    match out * cols < SMALL {
        true => columns.chunks_mut(ROWS * m).enumerate().for_each(fill),
        false => share(columns.chunks_mut(ROWS * m).enumerate(), fill),
    }
    match m {
        1 => columns,
        _ => (0..m * out).map(|i| columns[i % out * m + i / out]).collect(),
    }
}

/// Elements `range` of the matrix, decoded into `buffer` unless they lie in memory as they are.
fn piece<'a>(isa: Isa, weight: &'a Weight<'_>, range: Range<usize>, buffer: &'a mut [f32; PIECE]) -> &'a [f32] {
    match weight.as_is() {
        Some(values) => &values[range],
        None => {
            let decoded = &mut buffer[..range.len()];
            weight.decode(isa, range.start, decoded);
            decoded
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Side;
    use super::super::testing::{SHAPES, assert_product, for_each_weight, numbers};
    use super::*;

    #[test]
    fn every_path_multiplies_every_storage() {
        for (isa, shape) in Isa::available()
            .into_iter()
            .flat_map(|isa| [SHAPES.as_slice(), &[[3, 5000]]].concat().into_iter().map(move |shape| (isa, shape)))
        {
            for m in 1..=4 {
                for_each_weight(shape, |weight, values| {
                    let x = weight.operand(&numbers(m * shape[1], 6)).into_owned();
                    let y = product(isa, &x, m, weight);
                    assert_product(&y, &x, values, shape, Side::Forward);
                    assert_eq!(y, product(isa, &x, m, weight));
                });
            }
        }
    }
}
