//! The tables that four- and eight-bit codes index.

/// A codebook of 16 values in [-1, 1].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Quantiles of the normal distribution, zero and both ends exact (QLoRA, appendix E).
    Nf4,
    /// One sign, two exponent and one mantissa bit, as bitsandbytes lays them out.
    Fp4,
}

const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Twelfths.
const FP4: [f32; 8] = [0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0];

impl Code {
    pub const ALL: [Code; 2] = [Code::Nf4, Code::Fp4];

    /// `nf4` or `fp4`.
    pub fn name(self) -> &'static str {
        match self {
            Code::Nf4 => "nf4",
            Code::Fp4 => "fp4",
        }
    }

    /// The value of each index.
    pub fn book(self) -> [f32; 16] {
        match self {
            Code::Nf4 => NF4,
            Code::Fp4 => std::array::from_fn(|i| {
                let magnitude = FP4[i % 8] / 12.0;
                // Both zeros are positive.
                if i < 8 { magnitude } else { 0.0 - magnitude }
            }),
        }
    }

    /// An index whose value is zero.
    pub fn zero(self) -> u8 {
        match self {
            Code::Nf4 => 7,
            Code::Fp4 => 0,
        }
    }

    /// The bounds half way between neighbouring values, rising, and the index of each value by size.
    pub(super) fn steps(self) -> ([f32; 15], [u8; 16]) {
        let book = self.book();
        let mut order: [u8; 16] = std::array::from_fn(|i| i as u8);
        order.sort_by(|a, b| book[usize::from(*a)].total_cmp(&book[usize::from(*b)]));
        let value = |i: usize| book[usize::from(order[i])];
        (std::array::from_fn(|i| (value(i) + value(i + 1)) / 2.0), order)
    }
}

/// The 256 values that double quantisation gives scales (Dettmers et al. 2016, arXiv 1511.04561): in each of seven decades
/// below one twice as many as in the one before, of both signs, and 0 and 1. Rising.
///
/// Computed in torch's order of f32 operations, so that the values are bitsandbytes' to the bit.
pub fn dynamic_map() -> Vec<f32> {
    let mut values = vec![0.0, 1.0];
    for decade in 0..7 {
        let points = linspace((1 << decade) + 1);
        let scale = 10f64.powi(decade - 6) as f32;
        let middles = points.windows(2).map(|pair| scale * ((pair[0] + pair[1]) / 2.0));
        values.extend(middles.flat_map(|value| [value, -value]));
    }
    values.sort_by(f32::total_cmp);
    values
}

/// `n` points from 0.1 to 1, counted from the nearer end with fused multiplication.
fn linspace(n: usize) -> Vec<f32> {
    let (start, end) = (0.1f32, 1.0f32);
    let step = (end - start) / (n - 1) as f32;
    let point = |i: usize| match i < n / 2 {
        true => step.mul_add(i as f32, start),
        false => (-step).mul_add((n - i - 1) as f32, end),
    };
    (0..n).map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_hold_zero_and_both_ends() {
        for code in Code::ALL {
            let book = code.book();
            assert_eq!(book[usize::from(code.zero())], 0.0);
            assert!(book.contains(&1.0) && book.contains(&-1.0));
            let (bounds, order) = code.steps();
            assert!(bounds.is_sorted());
            assert!(order.map(|i| book[usize::from(i)]).is_sorted());
        }
    }

    #[test]
    fn the_dynamic_map_rises_from_minus_to_plus_one() {
        let map = dynamic_map();
        assert_eq!((map.len(), map[255]), (256, 1.0));
        assert!(map.is_sorted() && map.contains(&0.0) && (map[0] + 0.992_968_74).abs() < 1e-7);
    }
}
