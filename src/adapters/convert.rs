//! Any adapter whose correction is a low-rank term as a plain LoRA adapter, and one of a smaller rank.
//!
//! AdaLoRA's diagonal and VeRA's vectors fold into the factors exactly; what they save in the file is lost.

use super::Module;
use super::correction::{Truncated, beside, corrections, to_adapter};
use super::peft::PeftAdapter;
use crate::Result;

/// What a conversion did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConvertReport {
    pub modules: usize,
    /// Largest rank before and after.
    pub ranks: [usize; 2],
    /// Frobenius norm of what was left out, as a share of the whole: over all modules, and in the worst one.
    pub error: f64,
    pub worst: f64,
    pub worst_module: String,
}

/// `adapter` as plain LoRA; modules above `rank` are brought down to it. Biases and modules that trained whole stay.
///
/// # Errors
/// If the method changes a weight by more than a low-rank term, as DoRA does.
pub fn to_lora(adapter: &PeftAdapter, modules: &[Module], rank: Option<usize>) -> Result<(PeftAdapter, ConvertReport)> {
    let corrections = corrections(adapter, modules)?;
    let mut report = ConvertReport { modules: corrections.len(), ..ConvertReport::default() };
    let (mut whole, mut lost) = (0.0, 0.0);
    let mut converted = Vec::new();
    for correction in corrections {
        report.ranks[0] = report.ranks[0].max(correction.rank);
        let part = match rank {
            None => Truncated { correction, whole: 0.0, lost: 0.0 },
            Some(rank) => {
                let part = correction.truncated(rank)?;
                if rank < correction.rank { part } else { Truncated { correction, lost: 0.0, ..part } }
            }
        };
        report.ranks[1] = report.ranks[1].max(part.correction.rank);
        (whole, lost) = (whole + part.whole, lost + part.lost);
        if share(part.lost, part.whole) > report.worst {
            (report.worst, report.worst_module) = (share(part.lost, part.whole), part.correction.path.clone());
        }
        converted.push(part.correction);
    }
    report.error = share(lost, whole);
    let shared = adapter.0.adapter.shared().unwrap_or_default();
    Ok((to_adapter(converted, &shared, &adapter.0, beside(adapter), modules)?, report))
}

/// Relative Frobenius norm from two squares.
fn share(lost: f64, whole: f64) -> f64 {
    if whole > 0.0 { (lost / whole).sqrt() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::adapters::combine::{Method, combine};
    use crate::adapters::correction::tests::{assert_close, product};
    use crate::adapters::modules::tiny;
    use crate::adapters::peft;

    fn adapter(model: &str, name: &str) -> (PeftAdapter, Vec<Module>) {
        let config = if model == "llama" { tiny::llama() } else { tiny::qwen2() };
        let modules = Module::list(&config);
        let dir = format!("{}/tests/golden/e2e/{model}/adapters/{name}", env!("CARGO_MANIFEST_DIR"));
        (peft::read(Path::new(&dir), &config.model_type, &modules).unwrap(), modules)
    }

    /// Every LoRA adapter PEFT wrote: own ranks and alphas, rsLoRA, embeddings, whole modules.
    #[test]
    fn a_plain_adapter_keeps_its_factors_and_scales_to_the_bit() {
        for (model, name) in [
            ("llama", "lora"),
            ("llama", "lora_rslora_pattern"),
            ("llama", "lora_embed_mts"),
            ("llama", "lora_regex_layers"),
            ("qwen2", "lora_qv"),
        ] {
            let (adapter, modules) = adapter(model, name);
            let (converted, report) = to_lora(&adapter, &modules, None).unwrap();
            let expected = corrections(&adapter, &modules).unwrap();
            assert!(corrections(&converted, &modules).unwrap() == expected, "{name}");
            assert!(beside(&converted) == beside(&adapter), "{name}");
            assert_eq!((report.ranks[0], report.error), (report.ranks[1], 0.0));
            let dir = tempfile::tempdir().unwrap();
            peft::write(dir.path(), &converted.0, &converted.1, &modules).unwrap();
            let model_type = if model == "llama" { "llama" } else { "qwen2" };
            let again = peft::read(dir.path(), model_type, &modules).unwrap();
            assert!(corrections(&again, &modules).unwrap() == expected && again.1 == converted.1, "{name}");
        }
    }

    #[test]
    fn vectors_and_diagonals_fold_into_the_factors() {
        for name in ["adalora", "vera", "vera_noproj"] {
            let (adapter, modules) = adapter("llama", name);
            let (converted, _) = to_lora(&adapter, &modules, None).unwrap();
            assert_eq!(converted.0.adapter.name(), "lora");
            assert!(corrections(&converted, &modules).unwrap() == corrections(&adapter, &modules).unwrap(), "{name}");
            assert!(converted.1.keys().all(|key| key.contains(".lora_")), "{name}");
        }
    }

    #[test]
    fn a_smaller_rank_is_the_nearest_and_says_how_far() {
        let (adapter, modules) = adapter("llama", "lora");
        let before = corrections(&adapter, &modules).unwrap();
        let (converted, report) = to_lora(&adapter, &modules, Some(2)).unwrap();
        let after = corrections(&converted, &modules).unwrap();
        assert!(after.iter().all(|correction| correction.rank == 2) && report.ranks[1] == 2);
        let (mut lost, mut whole) = (0.0, 0.0);
        for (before, after) in before.iter().zip(&after) {
            let (before, after) = (product(before), product(after));
            lost += before.iter().zip(&after).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
            whole += before.iter().map(|a| a * a).sum::<f64>();
        }
        let error = (lost / whole).sqrt();
        assert!(error > 0.01 && (report.error - error).abs() < 1e-5, "{error} {report:?}");
        assert!(report.worst >= report.error && report.worst_module.starts_with("model.layers."));
        let (same, report) = to_lora(&adapter, &modules, Some(64)).unwrap();
        assert_eq!((corrections(&same, &modules).unwrap(), report.error), (before, 0.0));
    }

    #[test]
    fn modules_of_different_rank_get_patterns() {
        let (adapter, modules) = adapter("llama", "lora_rslora_pattern");
        let before = corrections(&adapter, &modules).unwrap();
        let smallest = before.iter().map(|correction| correction.rank).min().unwrap();
        let (converted, report) = to_lora(&adapter, &modules, Some(smallest + 1)).unwrap();
        assert!(report.ranks[0] > smallest + 1, "the example has several ranks");
        for (before, after) in before.iter().zip(corrections(&converted, &modules).unwrap()) {
            assert_eq!(after.rank, before.rank.min(smallest + 1));
            if before.rank == after.rank {
                assert_close(&product(before), &product(&after), 0.0);
            }
        }
    }

    #[test]
    fn what_is_no_low_rank_term_is_refused_by_name() {
        let (dora, modules) = adapter("llama", "dora");
        let told = to_lora(&dora, &modules, None).unwrap_err().to_string();
        assert!(told.contains("`dora`") && told.contains("new lengths") && told.contains("lowrank merge"), "{told}");
        for name in ["dora", "vera", "adalora"] {
            let (adapter, modules) = adapter("llama", name);
            let told = combine(&[(1.0, &adapter)], &modules, &Method::Cat.into()).unwrap_err().to_string();
            assert!(told.contains(&format!("`{name}` has no weighted combination")), "{told}");
        }
    }
}
