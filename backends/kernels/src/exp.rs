//! The exponential of a slice, vectorised for what the processor has.

/// e^x of every element, within 2 units in the last place; below -87 it is 0 to f32's smallest normal number.
pub(crate) fn exp(values: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature was just detected.
            return unsafe { wide::avx512(values) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the feature was just detected.
            return unsafe { wide::avx2(values) };
        }
    }
    portable(values)
}

#[cfg(target_arch = "x86_64")]
mod wide {
    #[target_feature(enable = "avx512f")]
    pub fn avx512(values: &mut [f32]) {
        super::portable(values)
    }

    #[target_feature(enable = "avx2")]
    pub fn avx2(values: &mut [f32]) {
        super::portable(values)
    }
}

#[inline(always)]
fn portable(values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = one(*value))
}

/// x = n ln 2 + r with |r| ≤ ln 2 / 2; e^r by a polynomial (Cephes, Moshier 1992), 2^n by its bits.
#[inline(always)]
fn one(x: f32) -> f32 {
    /// Adding it rounds to the nearest integer, which is then in the lowest bits; subtracting it again leaves the integer.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let e = p * r * r + r + 1.0;
    // Not by a conversion, which saturates in Rust and is then done one element at a time.
    e * f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23))
}

#[cfg(test)]
mod tests {
    #[test]
    fn agrees_with_the_library() {
        let mut values: Vec<f32> = (-8700..=8800).map(|i| i as f32 * 0.01).collect();
        let expected: Vec<f64> = values.iter().map(|x| f64::from(*x).exp()).collect();
        super::exp(&mut values);
        for (found, expected) in values.iter().zip(expected) {
            assert!((f64::from(*found) / expected - 1.0).abs() < 3e-7, "{found} {expected}");
        }
        let mut far = [-1e30, -1e3, 0.0];
        super::exp(&mut far);
        assert!(far[0] < 1e-37 && far[1] < 1e-37 && far[2] == 1.0);
        let mut none = [f32::NAN; 17];
        super::exp(&mut none);
        assert!(none.iter().all(|value| value.is_nan()));
    }
}
