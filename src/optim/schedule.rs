//! Learning-rate schedules, as the `transformers` library computes them.
//!
//! Each is a multiplier of the peak rate. Warm-up rises linearly from 0 at step 0; what follows is
//! a function of the share of the remaining steps that is done.

use std::f64::consts::PI;

use crate::recipe::Schedule;

/// Steps over which `inverse_sqrt` decays where no warm-up sets the scale.
const INVERSE_SQRT_STEPS: f64 = 10_000.0;

/// Share of the peak learning rate at the 0-based optimizer step `step` of `total`.
pub fn multiplier(schedule: &Schedule, step: usize, total: usize) -> f64 {
    let warmup = warmup_steps(schedule, total);
    if step < warmup {
        return step as f64 / warmup as f64;
    }
    let done = (step - warmup) as f64;
    let progress = done / total.saturating_sub(warmup).max(1) as f64;
    match *schedule {
        Schedule::Constant { .. } => 1.0,
        Schedule::Linear { .. } => (1.0 - progress).max(0.0),
        Schedule::Cosine { .. } if progress >= 1.0 => 0.0,
        Schedule::Cosine { .. } => 0.5 * (1.0 + (PI * progress).cos()),
        Schedule::Polynomial { end, .. } if progress >= 1.0 => end,
        Schedule::Polynomial { power, end, .. } => (1.0 - end) * (1.0 - progress).powf(power) + end,
        Schedule::InverseSqrt { .. } => {
            let scale = if warmup == 0 { INVERSE_SQRT_STEPS } else { warmup as f64 };
            ((done + scale) / scale).sqrt().recip()
        }
    }
}

/// Warm-up in steps: a number below 1 is a share of all steps, rounded up.
pub fn warmup_steps(schedule: &Schedule, total: usize) -> usize {
    let (Schedule::Constant { warmup }
    | Schedule::Linear { warmup }
    | Schedule::Cosine { warmup }
    | Schedule::Polynomial { warmup, .. }
    | Schedule::InverseSqrt { warmup }) = *schedule;
    if warmup < 1.0 { (warmup * total as f64).ceil() as usize } else { warmup as usize }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/lr_schedules.safetensors"));

    fn golden(name: &str) -> Vec<f64> {
        let file = safetensors::SafeTensors::deserialize(GOLDEN).unwrap();
        let (values, _) = file.tensor(name).unwrap().data().as_chunks::<8>();
        values.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
    }

    #[test]
    fn equals_transformers_at_every_step() {
        let warmup = 5.0;
        let schedules = [
            ("constant_with_warmup", Schedule::Constant { warmup }),
            ("linear", Schedule::Linear { warmup }),
            ("cosine", Schedule::Cosine { warmup }),
            ("polynomial", Schedule::Polynomial { warmup, power: 1.0, end: 1e-7 }),
            ("inverse_sqrt", Schedule::InverseSqrt { warmup }),
        ];
        for (name, schedule) in schedules {
            let expected = golden(name);
            assert_eq!(expected.len(), 40);
            for (step, expected) in expected.into_iter().enumerate() {
                let found = multiplier(&schedule, step, 40);
                assert!((found - expected).abs() < 1e-12, "{name} step {step}: {found} is not {expected}");
            }
        }
    }

    #[test]
    fn a_fraction_of_warmup_rounds_up() {
        let schedule = Schedule::Linear { warmup: 0.03 };
        assert_eq!(warmup_steps(&schedule, 101), 4);
        assert_eq!(multiplier(&schedule, 4, 101), 1.0);
        assert_eq!(warmup_steps(&Schedule::Linear { warmup: 1.0 }, 101), 1);
    }

    #[test]
    fn stays_in_range_past_the_end_and_without_room() {
        for schedule in [
            Schedule::Linear { warmup: 0.0 },
            Schedule::Cosine { warmup: 0.0 },
            Schedule::Polynomial { warmup: 0.0, power: 2.0, end: 0.0 },
        ] {
            assert_eq!(multiplier(&schedule, 0, 10), 1.0);
            assert_eq!(multiplier(&schedule, 10, 10), 0.0);
            assert_eq!(multiplier(&schedule, 25, 10), 0.0);
            assert!(multiplier(&schedule, 0, 0).is_finite());
        }
        assert_eq!(multiplier(&Schedule::Linear { warmup: 100.0 }, 9, 10), 0.09);
        assert_eq!(multiplier(&Schedule::InverseSqrt { warmup: 0.0 }, 30_000, 10), 0.5);
    }
}
