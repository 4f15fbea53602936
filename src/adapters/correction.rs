//! An adapter as nothing but its corrections, two factors and a scale for each module: what combining and converting work on.

use super::peft::{self, Part, PeftAdapter, PeftConfig, Slot};
use super::{AdapterConfig, LoraConfig, Module, ModuleKind, Origin, Selected, Shared, Targets, Update};
use crate::linalg::{self, Qr, Svd, transposed, wide};
use crate::tensors::{HostTensor, HostTensors};
use crate::{Error, Result};

/// The correction of one module, `scaling · up · down`.
#[derive(Clone, Debug, PartialEq)]
pub struct Correction {
    pub path: String,
    pub rank: usize,
    /// Outputs and inputs of the map that the module is.
    pub shape: [usize; 2],
    /// `[out, rank]`
    pub up: Vec<f32>,
    /// `[rank, in]`
    pub down: Vec<f32>,
    pub scaling: f32,
}

/// A correction of smaller rank, and what that cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Truncated {
    pub correction: Correction,
    /// Squared Frobenius norm of the whole, and of what was left out.
    pub whole: f64,
    pub lost: f64,
}

/// The corrections of every module of an adapter, in module order; modules of rank 0 have none.
///
/// # Errors
/// If the method changes a weight by more than a low-rank term.
pub fn corrections(adapter: &PeftAdapter, modules: &[Module]) -> Result<Vec<Correction>> {
    let (config, tensors) = adapter;
    let name = config.adapter.name();
    let spec = config.adapter.spec().ok_or_else(|| Error::input(format!("`{name}` has no corrections")))?;
    let sites = config.adapter.select(modules, Origin::AdapterFile)?;
    let mut values = peft::from_file(tensors.clone());
    values.extend(spec.derived(&sites));
    let of = |site: &Selected| Correction::new(site, spec.update(site, &values)?, name);
    sites.iter().filter(|site| site.rank > 0).map(of).collect()
}

impl Correction {
    fn new(site: &Selected, update: Update, method: &str) -> Result<Self> {
        if update.magnitude.is_some() {
            let what =
                format!("`{method}` brings the rows of the whole weight to new lengths, which no plain LoRA does");
            let hint = "`lowrank merge` folds it into its base exactly";
            return Err(Error::input(what).place("module", &site.path).hint(hint).into());
        }
        let Update { left, right, rank, cols, scaling, .. } = update;
        let (up, down) = match site.kind {
            // Stored rows are inputs there, so the update is (up · down)ᵀ.
            ModuleKind::Embedding => (transposed(&right, cols), transposed(&left, rank)),
            _ => (left, right),
        };
        Ok(Self { path: site.path.clone(), rank, shape: site.outputs_and_inputs(), up, down, scaling })
    }

    /// PEFT's alpha that gives this scale, as short a number as does so exactly.
    fn alpha(&self) -> f64 {
        let rank = self.rank as f64;
        let short = f64::from(self.scaling * self.rank as f32);
        if (short / rank) as f32 == self.scaling { short } else { f64::from(self.scaling) * rank }
    }

    /// The best approximation of a rank of at most `rank` (Eckart and Young 1936), from the QR of both factors; the whole
    /// product is never formed. The scale goes into `up`.
    ///
    /// # Errors
    /// If the singular values do not converge, as with values that are not finite.
    pub fn truncated(&self, rank: usize) -> Result<Truncated> {
        let ([out, cols], r) = (self.shape, self.rank);
        let Qr { q: left, r: upper } = linalg::qr(&wide(&self.up), [out, r]);
        let Qr { q: right, r: lower } = linalg::qr(&transposed(&wide(&self.down), cols), [cols, r]);
        let (m, n) = (out.min(r), cols.min(r));
        let mut core = linalg::matmul(&upper, [m, r], &transposed(&lower, r), n);
        core.iter_mut().for_each(|value| *value *= f64::from(self.scaling));
        let leading = Leading::of(&core, [m, n], rank)?;
        let k = leading.rank;
        let up = linalg::matmul(&left, [out, m], &leading.up, k);
        let down = linalg::matmul(&leading.down, [k, n], &transposed(&right, n), cols);
        Ok(self.replaced(leading, &up, &down))
    }

    /// The best approximation of `product [out, in]` by this rank, in place of this correction.
    pub(super) fn approximating(&self, product: &[f64], rank: usize) -> Result<Truncated> {
        let leading = Leading::of(product, self.shape, rank)?;
        let (up, down) = (leading.up.clone(), leading.down.clone());
        Ok(self.replaced(leading, &up, &down))
    }

    fn replaced(&self, leading: Leading, up: &[f64], down: &[f64]) -> Truncated {
        let Leading { rank, whole, lost, .. } = leading;
        let (path, shape) = (self.path.clone(), self.shape);
        let correction = Correction { path, rank, shape, up: narrow(up), down: narrow(down), scaling: 1.0 };
        Truncated { correction, whole, lost }
    }
}

/// The leading part of a singular value decomposition; singular values go into `up`, as PEFT has it.
struct Leading {
    /// `[rows, rank]`
    up: Vec<f64>,
    /// `[rank, cols]`
    down: Vec<f64>,
    rank: usize,
    whole: f64,
    lost: f64,
}

impl Leading {
    fn of(matrix: &[f64], [rows, cols]: [usize; 2], rank: usize) -> Result<Self> {
        let Svd { u, s, vt } = linalg::svd(matrix, [rows, cols])?;
        let (k, rank) = (s.len(), rank.min(s.len()));
        let up = u.chunks_exact(k).flat_map(|row| row[..rank].iter().zip(&s).map(|(u, s)| u * s)).collect();
        let squares = |s: &[f64]| s.iter().map(|s| s * s).sum::<f64>();
        Ok(Self { up, down: vt[..rank * cols].to_vec(), rank, whole: squares(&s), lost: squares(&s[rank..]) })
    }
}

/// A plain LoRA adapter of these corrections, written out module by module. `like` gives dropout, biases and whole
/// modules, `values` what they hold, by path; `base` is shown to whoever opens the file.
pub fn to_adapter(
    corrections: Vec<Correction>,
    like: &Shared,
    base: &PeftConfig,
    mut values: HostTensors,
    modules: &[Module],
) -> Result<PeftAdapter> {
    let lora = AdapterConfig::from(config(&corrections, like)?);
    for Correction { path, rank, shape: [out, cols], up, down, .. } in corrections {
        values.insert(format!("{path}.lora_A"), HostTensor { shape: vec![rank, cols], values: down });
        values.insert(format!("{path}.lora_B"), HostTensor { shape: vec![out, rank], values: up });
    }
    let tensors = peft::to_file(values, &lora, modules)?;
    Ok((PeftConfig { adapter: lora, warnings: Vec::new(), ..base.clone() }, tensors))
}

/// Rank and alpha of the widest correction, and a pattern for each module that differs.
fn config(corrections: &[Correction], like: &Shared) -> Result<LoraConfig> {
    let widest = corrections.iter().reduce(|widest, next| if next.rank > widest.rank { next } else { widest });
    let widest = widest.ok_or_else(|| Error::input("no module of the adapter has a rank left"))?;
    let (rank, alpha) = (widest.rank, widest.alpha());
    let pattern = |correction: &Correction| correction.path.clone();
    let shared = Shared {
        rank,
        alpha,
        dropout: like.dropout,
        targets: Targets::Names(corrections.iter().map(pattern).collect()),
        rank_pattern: corrections.iter().filter(|c| c.rank != rank).map(|c| (pattern(c), c.rank)).collect(),
        alpha_pattern: corrections.iter().filter(|c| c.alpha() != alpha).map(|c| (pattern(c), c.alpha())).collect(),
        bias: like.bias,
        modules_to_save: like.modules_to_save.clone(),
        ..Shared::default()
    };
    Ok(LoraConfig::default().with(shared))
}

/// Tensors of an adapter file, by path, that are not the method's own: whole modules and biases.
pub(super) fn beside(adapter: &PeftAdapter) -> HostTensors {
    let whole = |key: &str| Slot::parse(key).filter(|slot| is_beside(slot.part))?.parameter();
    adapter.1.iter().filter_map(|(key, tensor)| Some((whole(key)?, tensor.clone()))).collect()
}

fn is_beside(part: Part) -> bool {
    matches!(part, Part::Weight | Part::Bias | Part::BaseLayerBias)
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// `scaling · up · down`, `[out, in]`.
    pub fn product(correction: &Correction) -> Vec<f64> {
        let Correction { rank, shape: [out, cols], up, down, scaling, .. } = correction;
        let product = linalg::matmul(&wide(up), [*out, *rank], &wide(down), *cols);
        product.into_iter().map(|value| value * f64::from(*scaling)).collect()
    }

    #[track_caller]
    pub fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
        assert_eq!(found.len(), expected.len());
        let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst <= tolerance, "differs by {worst}");
    }

    pub fn example(rank: usize, shape: [usize; 2], seed: f32) -> Correction {
        let values = |n: usize, seed: f32| (0..n).map(|i| ((i as f32 + seed) * 1.3).sin()).collect();
        let (up, down) = (values(shape[0] * rank, seed), values(rank * shape[1], seed + 0.5));
        Correction { path: "model.layers.0.self_attn.q_proj".into(), rank, shape, up, down, scaling: 1.5 }
    }

    #[test]
    fn a_rank_that_is_large_enough_loses_nothing() {
        for (rank, shape) in [(3, [7, 5]), (6, [7, 4]), (6, [4, 7]), (8, [3, 3])] {
            let whole = example(rank, shape, 0.2);
            let Truncated { correction, whole: norm, lost } = whole.truncated(rank).unwrap();
            assert_eq!(correction.rank, rank.min(shape[0]).min(shape[1]));
            assert_close(&product(&correction), &product(&whole), 1e-5);
            assert!(lost <= 1e-12 * norm, "{lost}");
        }
    }

    #[test]
    fn the_error_told_is_the_error_made() {
        let whole = example(5, [9, 8], 0.7);
        let Truncated { correction, whole: norm, lost } = whole.truncated(2).unwrap();
        let (exact, found) = (product(&whole), product(&correction));
        let square = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
        let error = square(&mut exact.iter().zip(&found).map(|(a, b)| a - b));
        assert!(lost > 0.0 && (error - lost).abs() < 1e-5 * norm, "{error} {lost}");
        assert!((square(&mut exact.iter().copied()) - norm).abs() < 1e-5 * norm);
    }

    #[test]
    fn alpha_gives_back_the_scale_exactly() {
        for (alpha, rank) in [(16.0, 8), (5.0, 3), (0.1, 7), (4.0, 49), (1.0, 12_001)] {
            let scaling = (alpha / f64::from(rank)) as f32;
            let correction = Correction { scaling, rank: rank as usize, ..example(1, [2, 2], 0.0) };
            assert_eq!((correction.alpha() / f64::from(rank)) as f32, scaling);
        }
        assert_eq!(Correction { scaling: 5.0 / 3.0, rank: 3, ..example(1, [2, 2], 0.0) }.alpha(), 5.0);
    }
}
