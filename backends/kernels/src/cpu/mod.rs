//! Products with a frozen matrix on the CPU, on slices; shared by the CPU backends.
//!
//! No way through here forms the whole matrix. `rows` serves a few tokens, `wide` and `tiles` many in f32 with AVX-512 and
//! without, and `panels` many in bfloat16 where the processor multiplies it. What one element sums over, and in which order,
//! does not depend on threads.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_bf16;
#[cfg(target_arch = "x86_64")]
mod avx512_f32;
#[cfg(target_arch = "x86_64")]
mod columns;
mod isa;
#[cfg(target_arch = "x86_64")]
mod pack;
#[cfg(target_arch = "x86_64")]
mod panels;
mod portable;
mod rows;
mod share;
mod stored;
mod strips;
#[cfg(test)]
mod testing;
mod thin;
mod tiles;
#[cfg(target_arch = "x86_64")]
mod wide;

pub(crate) use stored::{Blocks, Scales, Stored};
pub(crate) use thin::product as thin_product;

use std::borrow::Cow;
use std::ops::Range;

use rayon::prelude::*;

use crate::matrix::{Accum, Matrix, multiply};
use crate::{Compute, Side, bf16};
use isa::Isa;

/// Tokens up to which a forward product takes dot products with the rows of the matrix.
const FEW: usize = 4;

/// `W [out, in]` as it lies in memory, and in which numbers to multiply it.
#[derive(Clone, Copy)]
pub(crate) struct Weight<'a> {
    stored: Stored<'a>,
    /// Elements in `stored` before the first.
    skip: usize,
    pub compute: Compute,
    /// `[out, in]`
    pub shape: [usize; 2],
}

/// Whether [`linear`] multiplies in these numbers.
pub(crate) fn computes_in(compute: Compute) -> bool {
    match compute {
        Compute::F32 | Compute::Bf16 => true,
        Compute::F16 => false,
    }
}

/// Two matrices whose product, a thin one, is added to a result while that is in the cache.
pub(crate) type Plus<'a> = Option<[Matrix<'a>; 2]>;

/// `x [m, in] · Wᵀ → [m, out]` or `g [m, out] · W → [m, in]`, and what comes on top.
pub(crate) fn linear(x: &[f32], m: usize, weight: &Weight<'_>, side: Side, plus: Plus<'_>) -> Vec<f32> {
    assert!(computes_in(weight.compute), "no kernel computes in {}", weight.compute.name());
    let [k, n] = weight.inner_and_outer(side);
    assert_eq!(x.len(), m * k, "x of [{m}, {k}]");
    if let Some([a, b]) = plus {
        assert_eq!((a.shape(), b.shape()), ([m, b.shape()[0]], [a.shape()[1], n]), "a product to add to [{m}, {n}]");
    }
    if m * k * n == 0 {
        return on_top(vec![0.0; m * n], plus);
    }
    #[cfg(target_arch = "x86_64")]
    if weight.compute == Compute::Bf16
        && m > panels::FEW
        && let Some(unit) = panels::Unit::best()
    {
        return panels::product(unit, x, m, weight, side, plus);
    }
    if side == Side::Forward && m <= FEW {
        return on_top(rows::product(Isa::best(), &weight.operand(x), m, weight), plus);
    }
    match Isa::best() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(unit) => wide::product(unit, &weight.operand(x), m, weight, side, plus),
        isa => tiles::product(isa, &weight.operand(x), m, weight, side, plus),
    }
}

fn on_top(mut y: Vec<f32>, plus: Plus<'_>) -> Vec<f32> {
    if let Some([a, b]) = plus {
        multiply(&mut y, a, b, 1.0, Accum::Add);
    }
    y
}

impl<'a> Weight<'a> {
    pub fn new(stored: Stored<'a>, compute: Compute, shape: [usize; 2]) -> Self {
        Self { stored, skip: 0, compute, shape }
    }

    pub fn some_rows(self, rows: Range<usize>) -> Self {
        let [out, cols] = self.shape;
        assert!(rows.end <= out);
        Self { skip: self.skip + rows.start * cols, shape: [rows.len(), cols], ..self }
    }

    /// The size that a product sums over and the width of its result.
    pub fn inner_and_outer(&self, side: Side) -> [usize; 2] {
        let [out, cols] = self.shape;
        match side {
            Side::Forward => [cols, out],
            Side::Backward => [out, cols],
        }
    }

    /// `x` rounded to the numbers that the product is computed in.
    fn operand<'x>(&self, x: &'x [f32]) -> Cow<'x, [f32]> {
        match self.compute {
            Compute::F32 | Compute::F16 => Cow::Borrowed(x),
            Compute::Bf16 => {
                Cow::Owned(x.par_iter().with_min_len(4096).map(|x| bf16::widen(bf16::round(*x))).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{SHAPES, assert_product, for_each_weight, numbers};
    use super::*;

    #[test]
    fn any_number_of_tokens() {
        for (shape, m) in SHAPES.into_iter().flat_map(|shape| [0, 1, 2, 3, 4, 5, 17].map(|m| (shape, m))) {
            for_each_weight(shape, |weight, values| {
                for side in [Side::Forward, Side::Backward] {
                    let x = numbers(m * weight.inner_and_outer(side)[0], 10);
                    let y = linear(&x, m, weight, side, None);
                    assert_product(&y, &weight.operand(&x), values, shape, side);
                    assert_eq!(y, linear(&x, m, weight, side, None));
                    let (n, r) = (weight.inner_and_outer(side)[1], 3);
                    let (a, b) = (numbers(m * r, 11), numbers(n * r, 12));
                    // The second as low-rank terms have it: the transpose of what lies in memory.
                    let plus = [Matrix::new(&a, m, r), Matrix::new(&b, n, r).t()];
                    let both = linear(&x, m, weight, side, Some(plus));
                    for (i, (both, y)) in both.iter().zip(&y).enumerate() {
                        let thin: f32 = (0..r).map(|j| a[i / n * r + j] * b[i % n * r + j]).sum();
                        assert!((both - y - thin).abs() < 1e-4, "{side:?} {shape:?} {m}: {both} {y} {thin}");
                    }
                }
            });
        }
    }

    #[test]
    #[should_panic(expected = "no kernel computes in f16")]
    fn half_precision_is_not_taken_for_something_else() {
        let weight = Weight::new(Stored::Bf16(&[0]), Compute::F16, [1, 2]);
        linear(&[0.0; 2], 1, &weight, Side::Forward, None);
    }
}
