//! VeRA (Kopiczko et al. 2023, arXiv 2310.11454), equation 2:
//!
//! ```text
//!     y = W x + bias  +  b ⊙ B (d ⊙ A drop(x))
//!
//!     x ──▶ W (frozen, out × in) ─────────────────────────▶ (+) ──▶ y
//!     └───▶ A (r × in) ──▶ d (r) ──▶ B (out × r) ──▶ b (out) ─┘
//! ```
//!
//! Only the vectors d and b train. A and B are random, never change and are the same two matrices under every layer, as large
//! as the widest one needs: a layer uses the first `in` columns of A and the first `out` rows of B. They follow from
//! `projection_prng_key` bit for bit as in PEFT, on the host, so that they are the same on every backend.

#![allow(non_snake_case)]

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use lowrank_kernels::{LowRank, LowRankBackend, low_rank, path_hash};
use rand_mt::Mt;

use super::method::{Method, Start, dropped, field};
use super::peft::Part;
use super::{AdapterConfig, Findings, Selected, Shared, Spec, Targets, Update, method_config};
use crate::nn::{Linear, Pass};
use crate::tensors::{HostTensor, HostTensors};
use crate::{Error, Result};

method_config! {
    pub struct VeraConfig: plain {
        /// Rows of A and columns of B; several times what LoRA needs.
        pub rank: usize = 256,
        /// A and B follow from this number, 0 to 4294967295.
        pub projection_prng_key: u64 = 0,
        /// What every entry of d starts as; b starts as zero.
        pub d_initial: f64 = 0.1,
        /// Write A and B into the adapter's file; without them a reader draws them again from the key.
        pub save_projection: bool = true,
    }
}

const PROJECTION_A: &str = "vera_A";
const PROJECTION_B: &str = "vera_B";

impl VeraConfig {
    /// The keys that methods share. There is no scale: alpha / rank is 1.
    pub fn shared(&self) -> Shared {
        Shared { rank: self.rank, alpha: self.rank as f64, ..self.scope() }
    }

    /// This method with the shared keys of another.
    pub fn with(self, shared: Shared) -> Self {
        Self { rank: shared.rank, ..self }.with_scope(shared)
    }

    /// `vera_A [rank, widest in]` and `vera_B [widest out, rank]`: Kaiming-uniform from one stream, A first.
    pub fn projections(&self, selected: &[Selected]) -> HostTensors {
        // PyTorch seeds its generator with the low 32 bits.
        let mut random = Mt::new(self.projection_prng_key as u32);
        let [a, b] = self.shapes(selected).map(|shape| kaiming_uniform(&mut random, shape));
        HostTensors::from([(PROJECTION_A.to_string(), a), (PROJECTION_B.to_string(), b)])
    }

    fn shapes(&self, selected: &[Selected]) -> [[usize; 2]; 2] {
        let widest = |size: fn(&Selected) -> usize| selected.iter().map(size).max().unwrap_or(0);
        [[self.rank, widest(|site| site.cols)], [widest(|site| site.rows), self.rank]]
    }

    /// PEFT's VeRA cannot exclude modules: those that are left are named one by one.
    fn without_exclusion(&self, selected: &[Selected]) -> Self {
        let none = Targets::Names(Vec::new());
        if self.exclude == none {
            return self.clone();
        }
        let paths = selected.iter().map(|site| site.path.clone()).collect();
        let (layers, layers_pattern) = (Vec::new(), Vec::new());
        Self { targets: Targets::Names(paths), exclude: none, layers, layers_pattern, ..self.clone() }
    }
}

/// He et al. 2015 as `torch.nn.init` has it, for a layer followed by a rectifier: uniform in ±sqrt(2) · sqrt(3 / fan_in).
fn kaiming_uniform(random: &mut Mt, [rows, fan_in]: [usize; 2]) -> HostTensor {
    // PyTorch rounds the bounds to f32, computes in f64 and rounds again.
    let bound = f64::from((3f64.sqrt() * (2f64.sqrt() / (fan_in as f64).sqrt())) as f32);
    let values = (0..rows * fan_in).map(|_| (unit(random) * (2.0 * bound) - bound) as f32).collect();
    HostTensor { shape: vec![rows, fan_in], values }
}

/// The next number of PyTorch's generator on the CPU, in `[0, 1)`.
fn unit(random: &mut Mt) -> f64 {
    f64::from(random.next_u32() & 0xff_ffff) / f64::from(1 << 24)
}

impl Spec for VeraConfig {
    fn shared(&self) -> Shared {
        self.shared()
    }

    fn validate(&self, found: &mut Findings) {
        let key = self.projection_prng_key as f64;
        found.number("projection_prng_key", key, |key| key <= f64::from(u32::MAX), "0 to 4294967295");
        let moves = |d: f64| d as f32 != 0.0 && (d as f32).is_finite();
        found.number(
            "d_initial",
            self.d_initial,
            moves,
            "a number other than 0: b starts at 0, and both would stay there",
        );
    }

    fn has_alpha(&self) -> bool {
        false
    }

    fn adapts_embeddings(&self) -> bool {
        false
    }

    fn parameters(&self, site: &Selected) -> usize {
        site.rows + site.rank
    }

    fn retained(&self, site: &Selected) -> usize {
        site.rank
    }

    fn frozen_parameters(&self, selected: &[Selected]) -> usize {
        self.shapes(selected).iter().map(|shape| shape.iter().product::<usize>()).sum()
    }

    fn refuses_lora_plus(&self) -> Option<&'static str> {
        Some("A and B are frozen, and the vectors have one rate")
    }

    fn export(&self, values: HostTensors, selected: &[Selected]) -> Result<(AdapterConfig, HostTensors)> {
        let values = values.into_iter().filter_map(|(path, host)| {
            // Go by the path of the first layer that has them.
            match [PROJECTION_A, PROJECTION_B].into_iter().find(|name| path.rsplit('.').next() == Some(name)) {
                Some(name) => self.save_projection.then(|| (name.to_string(), host)),
                None => Some((path, host)),
            }
        });
        Ok((self.without_exclusion(selected).into(), values.collect()))
    }

    fn parts(&self, site: &Selected) -> Vec<(Part, Vec<usize>)> {
        vec![(Part::LambdaB, vec![site.rows]), (Part::LambdaD, vec![site.rank])]
    }

    fn common_parts(&self, selected: &[Selected]) -> Vec<(Part, Vec<usize>)> {
        let [a, b] = self.shapes(selected).map(Vec::from);
        if self.save_projection { vec![(Part::ProjectionA, a), (Part::ProjectionB, b)] } else { Vec::new() }
    }

    fn derived(&self, selected: &[Selected]) -> HostTensors {
        if self.save_projection { HostTensors::new() } else { self.projections(selected) }
    }

    /// `diag(b) B diag(d)` times `A`.
    fn update(&self, site: &Selected, values: &HostTensors) -> Result<Update> {
        let common = |name| values.get(name).ok_or_else(|| Error::from(Error::input("missing").tensor(name)));
        let (A, B) = (common(PROJECTION_A)?, common(PROJECTION_B)?);
        let (d, b) = (field(values, &site.path, "vera_lambda_d")?, field(values, &site.path, "vera_lambda_b")?);
        let rows = B.values.chunks_exact(site.rank).zip(&b.values);
        let left = rows.flat_map(|(row, b)| row.iter().zip(&d.values).map(move |(B, d)| b * B * d)).collect();
        let right = A.values.chunks_exact(A.shape[1]).flat_map(|row| &row[..site.cols]).copied().collect();
        Ok(Update { left, right, rank: site.rank, cols: site.cols, scaling: 1.0, magnitude: None })
    }
}

#[derive(Module, Debug)]
pub struct Vera<B: Backend> {
    /// b, `[out]`
    pub vera_lambda_b: Param<Tensor<B, 1>>,
    /// d, `[r]`
    pub vera_lambda_d: Param<Tensor<B, 1>>,
    /// `[r, widest in]`, shared by all layers.
    pub vera_A: Param<Tensor<B, 2>>,
    /// `[widest out, r]`, shared by all layers.
    pub vera_B: Param<Tensor<B, 2>>,
    pub dropout: f64,
    /// Names this layer's dropout masks.
    layer: u64,
}

impl<B: LowRankBackend> Method<B> for Vera<B> {
    type Config = VeraConfig;

    fn new(site: &Selected, config: &VeraConfig, start: &mut Start<'_, B>) -> Result<Self> {
        let mut shared = |name: &str| {
            start.shared(name, |start| {
                let saved = start.values.and_then(|values| values.get(name)).cloned();
                let host = saved.unwrap_or_else(|| config.projections(start.selected)[name].clone());
                start.frozen(host.values, [host.shape[0], host.shape[1]])
            })
        };
        let [vera_A, vera_B] = [PROJECTION_A, PROJECTION_B].map(&mut shared);
        Ok(Self {
            vera_lambda_b: start.param(vec![0.0; site.rows], [site.rows]),
            vera_lambda_d: start.param(vec![config.d_initial as f32; site.rank], [site.rank]),
            vera_A,
            vera_B,
            dropout: config.dropout,
            layer: path_hash(&site.path),
        })
    }

    fn forward(&self, x: Tensor<B, 2>, base: &Linear<B>, pass: Pass) -> Tensor<B, 2> {
        let y = base.base(x.clone());
        let term = LowRank {
            down: self.vera_A.val(),
            mid: Some(self.vera_lambda_d.val()),
            up: self.vera_B.val(),
            post: Some(self.vera_lambda_b.val()),
            scale: 1.0,
        };
        y + low_rank(dropped(x, self.dropout, self.layer, pass), term)
    }
}

#[cfg(test)]
mod tests {
    use lowrank_kernels::take_retained_bytes;

    use super::*;
    use crate::adapters::fixtures::{self, assert_close, golden, linear, tensor};
    use crate::adapters::method::Pool;
    use crate::adapters::peft;
    use crate::adapters::{Adapter, Module as Site, ModuleKind, Origin};
    use crate::nn::Storage;
    use crate::nn::params::Register;
    use crate::recipe::BaseDtype;

    type Back = fixtures::B;

    fn site(path: &str, rows: usize, cols: usize, rank: usize) -> Selected {
        let kind = ModuleKind::Linear;
        Selected { path: path.into(), kind, rows, cols, rank, alpha: rank as f64, scaling: 1.0 }
    }

    fn config(rank: usize) -> VeraConfig {
        VeraConfig { rank, ..VeraConfig::default() }
    }

    /// Layers of zeros with an adapter each, as they are put into a model.
    fn layers(sites: &[Selected], config: &VeraConfig, values: Option<&HostTensors>) -> Vec<Linear<Back>> {
        let mut pool = Pool::new();
        let layer = |site: &Selected| {
            let storage = Storage::<Back>::new(BaseDtype::F32, &Default::default());
            let weight = storage.weight(vec![0.0; site.rows * site.cols], [site.rows, site.cols]);
            let (device, pool) = (weight.device(), &mut pool);
            let mut start = Start { seed: 1, device, selected: sites, weight: &weight, pool, values };
            let adapter = Adapter::new(site, &config.clone().into(), &mut start).unwrap();
            Linear { adapter, ..Linear::new(weight, None) }
        };
        sites.iter().map(layer).collect()
    }

    fn vera(layer: &Linear<Back>) -> &Vera<Back> {
        let Some(Adapter::Vera(vera)) = &layer.adapter else { panic!("{layer:?}") };
        vera
    }

    #[test]
    fn a_linear_layer_equals_peft_forward_and_in_every_gradient() {
        for name in ["linear_a_vera", "linear_b_vera"] {
            let golden = golden(name);
            let [rows, cols] = golden["weight"].shape[..] else { unreachable!() };
            let mut layers = layers(&[site("q", rows, cols, 6)], &config(6), None);
            let mut fresh = vera(&layers[0]).clone();
            assert_close(fresh.vera_lambda_d.val(), &golden, "lambda_d_init");
            let set = |param: Param<Tensor<Back, 1>>, name| param.map(|_| tensor::<1>(&golden, name).require_grad());
            fresh.vera_lambda_b = set(fresh.vera_lambda_b, "vera_lambda_b");
            fresh.vera_lambda_d = set(fresh.vera_lambda_d, "vera_lambda_d");
            let base = Linear { adapter: Some(Adapter::Vera(fresh)), ..linear(&golden) };
            layers[0] = base.clone();
            let x = tensor::<2>(&golden, "x").require_grad();
            let y = base.forward(x.clone(), Pass::EVAL);
            let grads = (y.clone() * tensor(&golden, "g")).sum().backward();
            assert_close(y.inner(), &golden, "y");
            assert_close(x.grad(&grads).unwrap(), &golden, "grad_x");
            let vera = vera(&base);
            assert_close(vera.vera_lambda_b.grad(&grads).unwrap(), &golden, "grad_vera_lambda_b");
            assert_close(vera.vera_lambda_d.grad(&grads).unwrap(), &golden, "grad_vera_lambda_d");
            assert!(vera.vera_A.grad(&grads).is_none() && vera.vera_B.grad(&grads).is_none());
        }
    }

    #[test]
    fn projections_are_drawn_bit_for_bit_as_in_peft() {
        let stream = golden("prng_torch_uniform");
        for key in [0, 1, 42, u32::MAX] {
            let mut random = Mt::new(key);
            let expected = &stream[&format!("seed{key}.uniform01")].values;
            assert!(expected.iter().all(|value| unit(&mut random) == f64::from(*value)), "{key}");
        }
        for (name, rows, cols) in [("linear_a_vera", 16, 24), ("linear_b_vera", 19, 37)] {
            let golden = golden(name);
            let drawn = config(6).projections(&[site("q", rows, cols, 6)]);
            for (name, tensor) in &drawn {
                let bits = |tensor: &HostTensor| tensor.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert_eq!((&tensor.shape, bits(tensor)), (&golden[name].shape, bits(&golden[name])), "{name}");
            }
            let other = VeraConfig { projection_prng_key: 1, ..config(6) };
            assert_ne!(drawn, other.projections(&[site("q", rows, cols, 6)]));
        }
    }

    /// Narrower layers use the corner of the matrices that the widest ones need.
    #[test]
    fn layers_share_one_pair_of_matrices() {
        let sites = [site("q", 8, 4, 3), site("v", 2, 4, 3), site("down", 4, 9, 3)];
        let layers = layers(&sites, &config(3), None);
        let ids = |layer| (vera(layer).vera_A.id, vera(layer).vera_B.id);
        assert!(layers.iter().all(|layer| ids(layer) == ids(&layers[0])));
        assert_eq!((vera(&layers[0]).vera_A.dims(), vera(&layers[0]).vera_B.dims()), ([3, 9], [8, 3]));
        let register = Register::new(&layers);
        let frozen: Vec<_> = register.iter().filter(|owned| !owned.trains).map(|owned| owned.path.as_str()).collect();
        assert_eq!(frozen, ["0.vera_A", "0.vera_B"]);
        let exported = register.read(&layers);
        assert_eq!(exported.len(), 2 + 2 * sites.len());
        let trains: usize = register.trainable().values().flatten().sum();
        assert_eq!(trains, sites.iter().map(|site| config(3).parameters(site)).sum::<usize>());
    }

    #[test]
    fn the_start_changes_nothing_and_only_the_projected_input_is_kept() {
        let sites = [site("q", 8, 4, 3), site("down", 4, 9, 3)];
        for (layer, site) in layers(&sites, &config(3), None).iter().zip(&sites) {
            let x = Tensor::<Back, 2>::ones([5, site.cols], &Default::default()).require_grad();
            take_retained_bytes();
            let y = layer.forward(x, Pass::EVAL);
            assert_eq!(take_retained_bytes(), 4 * 5 * config(3).retained(site) as u64);
            assert!(y.into_data().to_vec::<f32>().unwrap().iter().all(|y| *y == 0.0));
        }
    }

    #[test]
    fn counts_are_the_papers() {
        let qv = |layers: usize, q: [usize; 2], v: [usize; 2], rank| -> usize {
            let sites = [site("q", q[0], q[1], rank), site("v", v[0], v[1], rank)];
            layers * sites.iter().map(|site| config(rank).parameters(site)).sum::<usize>()
        };
        assert_eq!(qv(12, [768, 768], [768, 768], 1024), 43_008);
        assert_eq!(qv(24, [1024, 1024], [1024, 1024], 256), 61_440);
        // Llama 3.2 3B.
        assert_eq!(qv(28, [3072, 3072], [1024, 3072], 256), 129_024);
    }

    /// Saved projections win over the key.
    #[test]
    fn saved_projections_are_taken_as_they_are() {
        let sites = [site("q", 4, 4, 2)];
        let saved = VeraConfig { projection_prng_key: 7, ..config(2) }.projections(&sites);
        let layers = layers(&sites, &config(2), Some(&saved));
        let found = Register::new(&layers).read(&layers);
        assert_eq!((&found["0.vera_A"], &found["0.vera_B"]), (&saved["vera_A"], &saved["vera_B"]));
    }

    fn adapter(name: &str) -> std::path::PathBuf {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/e2e/llama/adapters").join(name)
    }

    /// From PEFT's file to a learner's paths and back.
    #[test]
    fn exports_what_peft_wrote() {
        let modules = Site::list(&crate::adapters::modules::tiny::llama());
        for name in ["vera", "vera_noproj"] {
            let (read, tensors) = peft::read(&adapter(name), "llama", &modules).unwrap();
            let AdapterConfig::Vera(config) = &read.adapter else { panic!("{read:?}") };
            let selected = read.adapter.select(&modules, Origin::AdapterFile).unwrap();
            let mut values = peft::from_file(tensors.clone());
            values.retain(|path, _| path.contains('.'));
            let first = &selected[0].path;
            values.extend(
                config.projections(&selected).into_iter().map(|(name, host)| (format!("{first}.{name}"), host)),
            );
            let (saved_as, values) = config.export(values, &selected).unwrap();
            assert_eq!(saved_as, read.adapter);
            let mut written = peft::to_file(values, &saved_as, &modules).unwrap();
            written.sort_keys();
            assert_eq!(written, tensors, "{name}");
        }
    }

    #[test]
    fn peft_cannot_exclude_so_paths_are_spelled_out() {
        let modules = Site::list(&crate::adapters::modules::tiny::llama());
        let exclude = Targets::Names(vec!["down_proj".into()]);
        let targets = Targets::Names(vec!["q_proj".into(), "down_proj".into()]);
        let adapter: AdapterConfig = VeraConfig { exclude, targets, layers: vec![1], ..config(4) }.into();
        let selected = adapter.select(&modules, Origin::Recipe).unwrap();
        let (saved_as, _) = adapter.spec().unwrap().export(HostTensors::new(), &selected).unwrap();
        assert_eq!(saved_as.select(&modules, Origin::AdapterFile).unwrap(), selected);
        let json = peft::PeftConfig::new(saved_as, "base").to_json(&modules);
        assert_eq!(json["target_modules"], serde_json::json!(["model.layers.1.self_attn.q_proj"]));
        assert!(json.get("exclude_modules").is_none());
    }

    #[test]
    fn files_that_cannot_be_meant_are_refused_by_name() {
        let modules = Site::list(&crate::adapters::modules::tiny::llama());
        let (read, tensors) = peft::read(&adapter("vera"), "llama", &modules).unwrap();
        let refusal = |key: &str, value: serde_json::Value, change: &dyn Fn(&mut HostTensors)| {
            let (dir, mut tensors) = (tempfile::tempdir().unwrap(), tensors.clone());
            change(&mut tensors);
            peft::write(dir.path(), &read, &tensors, &modules).unwrap();
            let mut json = read.to_json(&modules);
            json[key] = value;
            std::fs::write(dir.path().join(peft::CONFIG_FILE), json.to_string()).unwrap();
            peft::read(dir.path(), "llama", &modules).unwrap_err().to_string()
        };
        for key in [serde_json::json!(-1), (1u64 << 32).into(), 0.5.into(), "0".into(), serde_json::Value::Null] {
            let message = refusal("projection_prng_key", key, &|_| ());
            assert!(message.contains("key projection_prng_key") && message.contains("4294967295"), "{message}");
        }
        for (key, value) in [("save_projection", serde_json::json!(1)), ("d_initial", "x".into()), ("r", 0.into())] {
            let message = refusal(key, value, &|_| ());
            assert!(message.contains(&format!("key {key}")), "{message}");
        }
        // Without saved projections, a file that has some is not the one that its key describes.
        let message = refusal("save_projection", false.into(), &|_| ());
        assert!(message.contains("base_model.vera_A") && message.contains("does not announce"), "{message}");
        let message =
            refusal("save_projection", true.into(), &|tensors| drop(tensors.shift_remove("base_model.vera_B")));
        assert!(message.contains("missing") && message.contains("base_model.vera_B"), "{message}");
        let narrow = HostTensor { shape: vec![16, 95], values: vec![0.0; 16 * 95] };
        let message = refusal("r", 16.into(), &|tensors| tensors["base_model.vera_A"] = narrow.clone());
        assert!(message.contains("base_model.vera_A") && message.contains("[16, 256]"), "{message}");
        let message = refusal("target_modules", serde_json::json!(["embed_tokens"]), &|_| ());
        assert!(message.contains("vera is defined on linear layers"), "{message}");
    }
}
