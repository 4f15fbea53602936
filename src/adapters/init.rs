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
//! W_res is never formed: the base keeps W, and `− s B₀ A₀ x` is one frozen term more. Over a base in four bits W is what the
//! codes stand for.
//!
//! LoftQ's start is what a quantised base has lost ([`loftq`]); nothing is taken out of the base.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use lowrank_kernels::LowRankBackend;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::method::Start;
use super::{Findings, ModuleKind, Selected, Shared, loftq, random};
use crate::Result;
use crate::error::InputError;
use crate::linalg::{Qr, Svd, qr, randomized_svd, svd};

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
    /// With the number of iterations, 1 or more.
    Loftq(u16),
}

/// Starts that are one word, and what they are.
const WORDS: [(LoraInit, &str, &str); 6] = [
    (LoraInit::Default, "default", "A uniform in ±1/sqrt(in), B zero (PEFT's `true`)."),
    (LoraInit::Gaussian, "gaussian", "A normal with deviation 1/rank, B zero."),
    (LoraInit::Orthogonal, "orthogonal", "A and B from the halves of one orthogonal matrix (even ranks only)."),
    (LoraInit::Pissa, "pissa", "The largest singular vectors of the weight, taken out of the base (Meng et al. 2024)."),
    (
        LoraInit::Olora,
        "olora",
        "The first columns of Q and rows of R of the weight, taken out of the base (Büyükakyüz 2024).",
    ),
    (
        LoraInit::Loftq(1),
        "loftq",
        "The largest singular vectors of what `base.quant` takes off the weight (Li et al. 2023).",
    ),
];

const NITER: &str = "pissa_niter_";
const LOFTQ_ITER: &str = "loftq_iter_";

/// Columns that a randomised decomposition computes beyond the rank (Halko et al. 2011, section 4.2).
const OVERSAMPLING: usize = 8;

impl LoraInit {
    /// Whether the start factorises the weight, so that its product has to be taken out of the base.
    pub fn factorises(self) -> bool {
        matches!(self, Self::Pissa | Self::PissaNiter(_) | Self::Olora)
    }

    /// Iterations of LoftQ, where that is the start.
    pub fn loftq(self) -> Option<u16> {
        if let Self::Loftq(iterations) = self { Some(iterations) } else { None }
    }

    /// The start that a saved adapter names: PEFT would look for a changed base under one that has to do with the weight.
    pub fn saved(self) -> Self {
        if self.factorises() || self.loftq().is_some() { Self::Default } else { self }
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
            _ if !self.factorises() && self.loftq().is_none() => None,
            ModuleKind::Head if self.loftq().is_some() => {
                let what = format!(
                    "`init = \"{self}\"` starts from what quantisation takes off, and the head is not quantised"
                );
                Some(InputError::new(what).key("init").found(&site.path).hint("leave it out of `targets`"))
            }
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
        (_, LoraInit::Loftq(_)) => loftq::start(site, start.values)?,
        (_, LoraInit::Pissa) => principal(&svd(&weight()?, [out, cols])?, r, site.scaling),
        (_, LoraInit::PissaNiter(iterations)) => {
            let k = (r + OVERSAMPLING).min(out.min(cols));
            let sketch: Vec<f64> = stream.normal(cols * k, 1.0).into_iter().map(f64::from).collect();
            principal(&randomized_svd(&weight()?, [out, cols], &sketch, iterations.into())?, r, site.scaling)
        }
        (_, LoraInit::Olora) => {
            let Qr { q, r: rows } = qr(&weight()?, [out, cols]);
            [rows[..r * cols].iter().map(|v| *v as f32).collect(), columns(&q, q.len() / out, &vec![1.0; r])]
        }
    })
}

/// A and B from the largest singular values, half of each value to either side, so that `scaling · B A` is their part of the matrix.
pub(super) fn principal(svd: &Svd, rank: usize, scaling: f64) -> [Vec<f32>; 2] {
    let halves: Vec<f64> = svd.s[..rank].iter().map(|s| (s / scaling).sqrt()).collect();
    let rows = svd.vt.chunks_exact(svd.vt.len() / svd.s.len()).zip(&halves);
    let a = rows.flat_map(|(row, half)| row.iter().map(move |v| (v * half) as f32)).collect();
    [a, columns(&svd.u, svd.s.len(), &halves)]
}

/// The first columns of a matrix of `width` columns, each times its factor.
fn columns(matrix: &[f64], width: usize, factors: &[f64]) -> Vec<f32> {
    let row = |row: &[f64]| row.iter().zip(factors).map(|(v, factor)| (v * factor) as f32).collect::<Vec<_>>();
    matrix.chunks_exact(width).flat_map(row).collect()
}

impl fmt::Display for LoraInit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, WORDS.iter().find(|(init, ..)| init == self)) {
            (_, Some((_, word, _))) => f.write_str(word),
            (Self::PissaNiter(n), _) => write!(f, "{NITER}{n}"),
            (Self::Loftq(n), _) => write!(f, "{LOFTQ_ITER}{n}"),
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
        let number = |prefix| text.strip_prefix(prefix).and_then(|n| n.parse().ok());
        let word = WORDS.iter().find(|(_, word, _)| *word == text).map(|(init, ..)| *init);
        let loftq = || number(LOFTQ_ITER).filter(|n| *n > 0).map(Self::Loftq);
        let found = word.or_else(|| number(NITER).map(Self::PissaNiter)).or_else(loftq);
        found.ok_or_else(|| format!("no start `{text}`"))
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
        let loftq = json_schema!({
            "type": "string",
            "pattern": "^loftq_iter_[1-9][0-9]{0,2}$",
            "examples": ["loftq_iter_5"],
            "description": "`loftq`, the weight quantised again around that start so many times: closer, over a base that nothing else can share.",
        });
        json_schema!({ "oneOf": WORDS.iter().map(word).chain([niter, loftq]).collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use burn::tensor::Tensor;
    use lowrank_kernels::four_bit::Quantised;

    use super::*;
    use crate::adapters::fixtures::{self, B, assert_close, golden, linear, tensor};
    use crate::adapters::lora::Lora;
    use crate::adapters::modules::tiny;
    use crate::adapters::peft::{from_file, to_file};
    use crate::adapters::{AdapterConfig, LoraConfig, Method, Module, Origin, Spec, Targets};
    use crate::nn::{Linear, Pass, Storage, Weight};
    use crate::recipe::{BaseDtype, Blocks, Quant};
    use crate::tensors::HostTensors;

    /// Name, rank and scale of the reference layers.
    const LAYERS: [(&str, usize, f64); 2] = [("a", 4, 2.0), ("b", 3, 5.0 / 3.0)];

    fn fresh(weight: &Weight<B>, rank: usize, scaling: f64, init: LoraInit) -> Lora<B> {
        let config = LoraConfig { init, ..LoraConfig::default() };
        fixtures::fresh(&fixtures::site(ModuleKind::Linear, weight, rank, scaling), weight, &config)
    }

    fn product(lora: &Lora<B>) -> Tensor<B, 2> {
        lora.lora_B.val().matmul(lora.lora_A.val())
    }

    fn largest(difference: Tensor<B, 2>) -> f32 {
        difference.abs().max().into_scalar()
    }

    /// Signs of singular vectors are anybody's.
    #[track_caller]
    fn same_size<T: burn::tensor::backend::Backend>(found: Tensor<T, 2>, golden: &HostTensors, name: &str) {
        let found = found.abs().into_data().to_vec::<f32>().unwrap();
        let worst = found.iter().zip(&golden[name].values).map(|(a, b)| (a - b.abs()).abs()).fold(0.0, f32::max);
        assert!(worst < 5e-5, "{name} differs by {worst}");
    }

    #[test]
    fn factors_residual_output_and_gradients_are_pefts() {
        for (layer, rank, s) in LAYERS {
            for init in [LoraInit::Pissa, LoraInit::Olora] {
                let golden = golden(&format!("init_{layer}_{init}"));
                let base = linear(&golden);
                let lora = fresh(&base.weight, rank, s, init);
                same_size(lora.lora_A.val(), &golden, "lora_A");
                same_size(lora.lora_B.val(), &golden, "lora_B");
                let theirs = tensor::<2>(&golden, "lora_B").matmul(tensor(&golden, "lora_A"));
                assert!(largest(product(&lora) - theirs) < 2e-5, "{layer} {init}");
                let residual = base.weight.dense() - product(&lora) * s;
                assert_close(residual, &golden, "residual_weight");
                let x = tensor::<2>(&golden, "x").require_grad();
                let y = lora.forward(x.clone(), &base, Pass::EVAL);
                let grads = (y.clone() * tensor(&golden, "g")).sum().backward();
                assert_close(y.inner(), &golden, "y");
                assert_close(x.grad(&grads).unwrap(), &golden, "grad_x");
                same_size(lora.lora_A.grad(&grads).unwrap(), &golden, "grad_lora_A");
                same_size(lora.lora_B.grad(&grads).unwrap(), &golden, "grad_lora_B");
                assert!(lora.start_A.unwrap().val().grad(&grads).is_none());
            }
        }
    }

    #[test]
    fn power_iterations_come_as_close_to_pissa_as_pefts() {
        for (layer, rank, s) in LAYERS {
            let (exact, theirs) =
                (golden(&format!("init_{layer}_pissa")), golden(&format!("init_{layer}_pissa_niter_16")));
            let product_of = |golden: &HostTensors| tensor::<2>(golden, "lora_B").matmul(tensor(golden, "lora_A"));
            let base = linear(&exact);
            let ours = |niter| product(&fresh(&base.weight, rank, s, LoraInit::PissaNiter(niter)));
            let distance = largest(ours(16) - product_of(&exact));
            assert!(distance <= largest(product_of(&theirs) - product_of(&exact)) + 1e-5, "{layer}: {distance}");
            assert!(distance < largest(ours(0) - product_of(&exact)) && distance < 1e-3, "{layer}: {distance}");
            assert_eq!(largest(ours(2) - ours(2)), 0.0);
        }
    }

    /// Eckart and Young: what the largest singular values leave over is the rest of them.
    #[test]
    fn pissa_takes_out_the_best_approximation() {
        let golden = golden("init_b_pissa");
        let base = linear(&golden);
        let values: Vec<f64> = golden["weight"].values.iter().map(|v| f64::from(*v)).collect();
        let rest: f64 = svd(&values, [19, 37]).unwrap().s[3..].iter().map(|s| s * s).sum();
        let residual = base.weight.dense() - product(&fresh(&base.weight, 3, 0.5, LoraInit::Pissa)) * 0.5;
        let found = f64::from(residual.powi_scalar(2).sum().into_scalar());
        assert!((found / rest - 1.0).abs() < 1e-5, "{found} {rest}");
    }

    #[test]
    fn olora_starts_with_orthonormal_columns() {
        let base = linear(&golden("init_a_olora"));
        let b = fresh(&base.weight, 4, 2.0, LoraInit::Olora).lora_B.val();
        assert!(largest(b.clone().transpose().matmul(b) - Tensor::eye(4, &Default::default())) < 1e-6);
    }

    #[test]
    fn the_layer_starts_as_the_base_and_goes_on_from_the_residual() {
        let golden = golden("init_b_pissa");
        let storage = Storage::<B>::new(BaseDtype::Bf16, &Default::default());
        let packed = Linear::new(storage.weight(golden["weight"].values.clone(), [19, 37]), None);
        let x = || tensor::<2>(&golden, "x");
        let codes = Quantised::new(&golden["weight"].values, Quant::Nf4(Blocks::default()).format());
        let four_bit = Linear::new(storage.four_bit(&codes, [19, 37]), None);
        for base in [linear(&golden), packed, four_bit] {
            for init in [LoraInit::Pissa, LoraInit::PissaNiter(2), LoraInit::Olora] {
                let mut lora = fresh(&base.weight, 3, 0.5, init);
                let residual = base.weight.dense() - product(&lora) * 0.5;
                assert_eq!(largest(lora.forward(x(), &base, Pass::EVAL) - base.base(x())), 0.0, "{init}");
                lora.lora_A = lora.lora_A.map(|a| a * 1.5 + 0.1);
                let weight = residual + product(&lora) * 0.5;
                let expected = base.biased(x().matmul(weight.transpose()));
                assert!(largest(lora.forward(x(), &base, Pass::EVAL) - expected) < 2e-5, "{init}");
            }
        }
    }

    #[test]
    fn what_cannot_be_factorised_is_refused_by_name() {
        let refusal = |change: fn(&mut LoraConfig)| {
            let mut config = LoraConfig { init: LoraInit::Pissa, rank: 48, ..LoraConfig::default() };
            change(&mut config);
            let selected = AdapterConfig::from(config).select(&Module::list(&tiny::llama()), Origin::Recipe);
            selected.map_or_else(|error| error.to_string(), |_| String::new())
        };
        // The key projection is 48 × 96.
        assert_eq!(refusal(|_| ()), "");
        let told = refusal(|config| config.rank = 49);
        assert!(told.contains("k_proj") && told.contains("rank") && told.contains("at most 48"), "{told}");
        assert_eq!(refusal(|config| (config.rank, config.init) = (49, LoraInit::Default)), "");
        let told = refusal(|config| config.targets = Targets::Names(vec!["embed_tokens".into()]));
        assert!(told.contains("embedding") && told.contains("pissa"), "{told}");
        let told = refusal(|config| (config.rank, config.init) = (49, LoraInit::Loftq(1)));
        assert!(told.contains("k_proj") && told.contains("at most 48"), "{told}");
        for (target, what) in [("embed_tokens", "an embedding"), ("lm_head", "the head is not quantised")] {
            let targets = Targets::Names(vec![target.into()]);
            let config = LoraConfig { init: LoraInit::Loftq(2), targets, ..LoraConfig::default() };
            let told = AdapterConfig::from(config).select(&Module::list(&tiny::llama()), Origin::Recipe).unwrap_err();
            assert!(told.to_string().contains(what) && told.to_string().contains("loftq_iter_2"), "{told}");
        }
    }

    fn file(name: &str) -> HostTensors {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/e2e/llama_extra");
        let path = root.join(name).join("adapter_model.safetensors");
        crate::tensors::decode(&std::fs::read(&path).unwrap(), &path).unwrap()
    }

    /// PEFT's `path_initial_model_for_weight_conversion`, bit for bit.
    #[test]
    fn converts_as_peft_does() {
        let modules = Module::list(&tiny::llama());
        let targets = Targets::Names(vec!["q_proj".into()]);
        let recipe = LoraConfig { rank: 4, alpha: 4.0, init: LoraInit::Pissa, targets, ..LoraConfig::default() };
        let mut values = from_file(file("pissa_trained_raw"));
        let start = from_file(file("pissa_init")).into_iter();
        values.extend(start.map(|(path, value)| (path.replace(".lora_", ".start_"), value)));
        let selected = AdapterConfig::from(recipe.clone()).select(&modules, Origin::Recipe).unwrap();
        let (saved_as, values) = recipe.export(values, &selected).unwrap();
        let expected = LoraConfig { rank: 8, alpha: 8.0, init: LoraInit::Default, ..recipe };
        assert_eq!(saved_as, expected.into());
        let mut ours = to_file(values, &saved_as, &modules).unwrap();
        ours.sort_keys();
        assert_eq!(ours, file("pissa_converted_lora"));
    }
}
