//! How the two factors of a product start.
//!
//! Most starts make B·A zero. Those that factorise the weight do not: what trains is then the part of W that they take
//! out (PiSSA, Meng et al. 2024, arXiv 2404.02948, equations 2 to 5; OLoRA, Büyükakyüz 2024, arXiv 2406.01775, algorithm 1):
//!
//! ```text
//!     W_res = W − s B₀ A₀,   y = W_res x + s B A x,   A = A₀ and B = B₀ at the start
//!
//!     pissa   W = U S V^T    B₀ = U_r sqrt(S_r / s)    A₀ = sqrt(S_r / s) V_r^T
//!     olora   W = Q R        B₀ = Q_r                  A₀ = R_r
//! ```
//!
//! W_res is never formed: the base keeps W, and `− s B₀ A₀ x` is one frozen term more.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use lowrank_kernels::LowRankBackend;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::method::Start;
use super::{Findings, ModuleKind, Selected, Shared, random};
use crate::Result;
use crate::error::InputError;
use crate::linalg::{Qr, Svd, qr, randomized_svd, svd};
use crate::tensors::{HostTensor, HostTensors};

/// How A and B start; PEFT's `init_lora_weights`. Written `pissa_niter_16` and so on in recipes and files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LoraInit {
    #[default]
    Default,
    Gaussian,
    Orthogonal,
    Pissa,
    /// With the number of power iterations.
    PissaNiter(u16),
    Olora,
}

/// Starts that are one word, and what they are.
const WORDS: [(LoraInit, &str, &str); 5] = [
    (LoraInit::Default, "default", "A uniform in ±1/sqrt(in), B zero (PEFT's `true`)."),
    (LoraInit::Gaussian, "gaussian", "A normal with deviation 1/rank, B zero."),
    (LoraInit::Orthogonal, "orthogonal", "A and B from the halves of one orthogonal matrix (even ranks only)."),
    (LoraInit::Pissa, "pissa", "The largest singular vectors of the weight, taken out of the base (Meng et al. 2024)."),
    (
        LoraInit::Olora,
        "olora",
        "The first columns of Q and rows of R of the weight, taken out of the base (Büyükakyüz 2024).",
    ),
];

const NITER: &str = "pissa_niter_";

/// Columns that a randomised decomposition computes beyond the rank (Halko et al. 2011, section 4.2).
const OVERSAMPLING: usize = 8;

impl LoraInit {
    /// Whether the start factorises the weight, so that its product has to be taken out of the base.
    pub fn factorises(self) -> bool {
        matches!(self, Self::Pissa | Self::PissaNiter(_) | Self::Olora)
    }

    /// What is wrong with the start at these ranks.
    pub fn validate(self, shared: &Shared, found: &mut Findings) {
        if self == Self::Orthogonal
            && let Some(odd) = shared.rank_pattern.values().chain([&shared.rank]).find(|rank| *rank % 2 == 1)
        {
            let what = "orthogonal initialisation halves the rank, so it must be even";
            found.push("init", InputError::new(what).found(odd));
        }
    }

    /// Why this module cannot start so.
    pub fn refuses(self, site: &Selected) -> Option<InputError> {
        let least = site.rows.min(site.cols);
        match site.kind {
            _ if !self.factorises() => None,
            ModuleKind::Embedding => {
                let what = format!("`init = \"{self}\"` factorises linear layers, and this is an embedding");
                Some(InputError::new(what).key("init").found(&site.path).hint("leave it out of `targets`"))
            }
            _ if site.rank > least => {
                let what = format!("`init = \"{self}\"` takes as many factors from {} as its rank says", site.path);
                let of = format!("at most {least}, for a weight of {} × {}", site.rows, site.cols);
                Some(InputError::new(what).key("rank").found(site.rank).expected(of))
            }
            _ => None,
        }
    }
}

/// A `[r, in]` and B `[out, r]`; on an embedding A is the zero side.
pub(super) fn start<B: LowRankBackend>(site: &Selected, init: LoraInit, start: &Start<'_, B>) -> Result<[Vec<f32>; 2]> {
    let (r, [out, cols]) = (site.rank, site.outputs_and_inputs());
    let stream = start.stream(site);
    let weight = || Ok::<_, crate::Error>(start.weight_values()?.into_iter().map(f64::from).collect::<Vec<f64>>());
    Ok(match (site.kind, init) {
        (ModuleKind::Embedding, _) => [vec![0.0; r * cols], stream.normal(out * r, 1.0)],
        (_, LoraInit::Default) => [stream.uniform(r * cols, 1.0 / (cols as f64).sqrt()), vec![0.0; out * r]],
        (_, LoraInit::Gaussian) => [stream.normal(r * cols, 1.0 / r as f64), vec![0.0; out * r]],
        (_, LoraInit::Orthogonal) => random::orthogonal_pair(&stream, r, out, cols).into(),
        (_, LoraInit::Pissa) => principal(&svd(&weight()?, [out, cols])?, site),
        (_, LoraInit::PissaNiter(iterations)) => {
            let k = (r + OVERSAMPLING).min(out.min(cols));
            let sketch: Vec<f64> = stream.normal(cols * k, 1.0).into_iter().map(f64::from).collect();
            principal(&randomized_svd(&weight()?, [out, cols], &sketch, iterations.into())?, site)
        }
        (_, LoraInit::Olora) => {
            let Qr { q, r: rows } = qr(&weight()?, [out, cols]);
            [rows[..r * cols].iter().map(|v| *v as f32).collect(), columns(&q, q.len() / out, &vec![1.0; r])]
        }
    })
}

/// A and B from the largest singular values, half of each value to either side.
fn principal(svd: &Svd, site: &Selected) -> [Vec<f32>; 2] {
    let halves: Vec<f64> = svd.s[..site.rank].iter().map(|s| (s / site.scaling).sqrt()).collect();
    let rows = svd.vt.chunks_exact(site.cols).zip(&halves);
    let a = rows.flat_map(|(row, half)| row.iter().map(move |v| (v * half) as f32)).collect();
    [a, columns(&svd.u, svd.s.len(), &halves)]
}

/// The first columns of a matrix of `width` columns, each times its factor.
fn columns(matrix: &[f64], width: usize, factors: &[f64]) -> Vec<f32> {
    let row = |row: &[f64]| row.iter().zip(factors).map(|(v, factor)| (v * factor) as f32).collect::<Vec<_>>();
    matrix.chunks_exact(width).flat_map(row).collect()
}

/// The trained product less the one it started from as one product of twice the rank, over the untouched base:
/// A' = [A; A₀], B' = [B, −B₀].
pub(super) fn fold_start(mut values: HostTensors, selected: &[Selected]) -> Result<HostTensors> {
    for Selected { path, rank, .. } in selected.iter().filter(|site| site.rank > 0) {
        let mut take = |field: &str| take(&mut values, path, field);
        let [mut a, b, a0, b0] = [take("lora_A")?, take("lora_B")?, take("start_A")?, take("start_B")?];
        a.values.extend(a0.values);
        a.shape[0] = 2 * rank;
        let rows = b.values.chunks_exact(*rank).zip(b0.values.chunks_exact(*rank));
        let beside = rows.flat_map(|(b, b0)| b.iter().copied().chain(b0.iter().map(|v| -v))).collect();
        let b = HostTensor { shape: vec![b.shape[0], 2 * rank], values: beside };
        values.extend([(format!("{path}.lora_A"), a), (format!("{path}.lora_B"), b)]);
    }
    Ok(values)
}

fn take(values: &mut HostTensors, path: &str, field: &str) -> Result<HostTensor> {
    super::method::field(values, path, field)?;
    Ok(values.shift_remove(&format!("{path}.{field}")).unwrap_or_default())
}

/// The keys under which a product of twice the rank has the scale it had: alpha / r doubles alpha, alpha / sqrt(r) takes sqrt 2.
pub(super) fn doubled(mut shared: Shared) -> Shared {
    let factor = if shared.rslora { std::f64::consts::SQRT_2 } else { 2.0 };
    shared.rank *= 2;
    shared.alpha *= factor;
    shared.rank_pattern.values_mut().for_each(|rank| *rank *= 2);
    shared.alpha_pattern.values_mut().for_each(|alpha| *alpha *= factor);
    shared
}

impl fmt::Display for LoraInit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, WORDS.iter().find(|(init, ..)| init == self)) {
            (_, Some((_, word, _))) => f.write_str(word),
            (Self::PissaNiter(n), _) => write!(f, "{NITER}{n}"),
            _ => f.write_str("default"),
        }
    }
}

impl From<LoraInit> for String {
    fn from(init: LoraInit) -> Self {
        init.to_string()
    }
}

impl FromStr for LoraInit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let iterations = text.strip_prefix(NITER).and_then(|n| n.parse().ok()).map(Self::PissaNiter);
        let word = WORDS.iter().find(|(_, word, _)| *word == text).map(|(init, ..)| *init);
        word.or(iterations).ok_or_else(|| format!("no start `{text}`"))
    }
}

impl TryFrom<String> for LoraInit {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl JsonSchema for LoraInit {
    fn schema_name() -> Cow<'static, str> {
        "LoraInit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let word = |(_, word, what): &(Self, &str, &str)| json_schema!({ "type": "string", "const": word, "description": what });
        let niter = json_schema!({
            "type": "string",
            "pattern": "^pissa_niter_(0|[1-9][0-9]{0,2})$",
            "examples": ["pissa_niter_16"],
            "description": "`pissa` with that many power iterations in place of the whole decomposition: faster, nearly the same.",
        });
        json_schema!({ "oneOf": WORDS.iter().map(word).chain([niter]).collect::<Vec<_>>() })
    }
}
