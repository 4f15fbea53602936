//! Merged weights against PEFT's, and what a merge refuses.

use safetensors::SafeTensors;

use super::*;
use crate::adapters::Module;
use crate::adapters::modules::tiny;
use crate::adapters::peft::{self, Part, Slot};
use crate::adapters::{AdaLoraConfig, AdapterConfig, DoraConfig, LoraConfig, Targets, VeraConfig};
use crate::tensors::{HostTensor, HostTensors};

/// Weights in memory.
struct Memory(HostTensors);

impl WeightSource for Memory {
    fn path(&self) -> &Path {
        Path::new("memory")
    }
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.0.keys().cloned().collect();
        names.sort();
        names
    }
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Some(self.0.get(name)?.shape.clone())
    }
    fn read(&self, name: &str) -> Result<Vec<f32>> {
        Ok(self.0[name].values.clone())
    }
    fn stored_bytes(&self, name: &str) -> u64 {
        self.0[name].values.len() as u64 * 4
    }
    fn dtype(&self, _: &str) -> String {
        "F32".into()
    }
    fn sha256(&self) -> String {
        String::new()
    }
}

fn golden(path: &str) -> impl Fn(&str) -> HostTensor + use<> {
    let bytes = std::fs::read(format!("{}/tests/golden/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    move |name| {
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let view = file.tensor(name).unwrap();
        let values = view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        HostTensor { shape: view.shape().to_vec(), values }
    }
}

fn adapter(
    method: impl Into<AdapterConfig>,
    tensors: impl IntoIterator<Item = (Slot, HostTensor)>,
) -> (PeftConfig, AdapterTensors) {
    (PeftConfig::new(method, "base"), tensors.into_iter().map(|(slot, tensor)| (slot.key(), tensor)).collect())
}

fn lora(rank: usize, alpha: f64, rslora: bool, targets: &[&str]) -> LoraConfig {
    let targets = Targets::Names(targets.iter().map(ToString::to_string).collect());
    LoraConfig { rank, alpha, rslora, targets, ..LoraConfig::default() }
}

fn run(
    base: HostTensors,
    config: &ModelConfig,
    adapter: &(PeftConfig, AdapterTensors),
    dtype: OutDtype,
) -> Result<(MergeReport, HostTensors)> {
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("merged");
    let mut heard = Vec::new();
    let report = merge(&Memory(base), config, adapter, dtype, &out, &mut |done, of| heard.push((done, of)));
    let left = std::fs::read_dir(parent.path()).unwrap().count();
    assert_eq!(left, usize::from(report.is_ok()), "a failed merge leaves nothing, a good one its directory");
    let report = report?;
    assert_eq!(heard.last(), Some(&(report.tensors, report.tensors)));
    let path = out.join("model.safetensors");
    let tensors = crate::tensors::decode(&std::fs::read(&path).unwrap(), &path).unwrap();
    assert_eq!(tensors.len(), report.tensors);
    Ok((report, tensors))
}

fn assert_close(found: &HostTensor, expected: &HostTensor, tolerance: f32) {
    assert_eq!(found.shape, expected.shape);
    for (found, expected) in found.values.iter().zip(&expected.values) {
        assert!((found - expected).abs() <= tolerance, "{found} is not {expected}");
    }
}

const Q: &str = "model.layers.0.self_attn.q_proj";

/// A model whose q projection has this shape.
fn with_q(rows: usize, cols: usize) -> ModelConfig {
    ModelConfig { hidden_size: cols, num_attention_heads: 1, head_dim: rows, num_hidden_layers: 1, ..tiny::llama() }
}

#[test]
fn linear_layers_merge_as_in_peft() {
    let cases = [
        ("linear_a_lora", 4, 8.0, false),
        ("linear_a_lora_nobias", 4, 8.0, false),
        ("linear_a_lora_rslora", 4, 8.0, true),
        ("linear_b_lora", 3, 5.0, false),
    ];
    for (name, rank, alpha, rslora) in cases {
        let golden = golden(&format!("{name}.safetensors"));
        let weight = golden("weight");
        let config = with_q(weight.shape[0], weight.shape[1]);
        let parts = [(Part::LoraA, "lora_A"), (Part::LoraB, "lora_B")];
        let parts = parts.map(|(part, name)| (Slot::new(Q, part), golden(name)));
        let base = [(format!("{Q}.weight"), weight), ("other".into(), golden("x"))].into();
        let adapter = adapter(lora(rank, alpha, rslora, &["q_proj"]), parts);
        let (report, merged) = run(base, &config, &adapter, OutDtype::F32).unwrap();
        assert_close(&merged[&format!("{Q}.weight")], &golden("merged_weight"), 1e-6);
        assert_eq!(merged["other"], golden("x"));
        assert_eq!((report.tensors, report.changed, report.rounding), (2, 1, 0.0), "{name}");
    }
}

/// With projections from the file, and with those that its key stands for.
#[test]
fn vera_merges_as_in_peft() {
    for name in ["linear_a_vera", "linear_b_vera"] {
        let golden = golden(&format!("{name}.safetensors"));
        let weight = golden("weight");
        let config = with_q(weight.shape[0], weight.shape[1]);
        for save_projection in [true, false] {
            let own = [(Part::LambdaB, "vera_lambda_b"), (Part::LambdaD, "vera_lambda_d")];
            let own = own.map(|(part, name)| (Slot::new(Q, part), golden(name)));
            let common = [(Part::ProjectionA, "vera_A"), (Part::ProjectionB, "vera_B")];
            let common = common.map(|(part, name)| (Slot::common(part), golden(name)));
            let tensors = own.into_iter().chain(common.into_iter().filter(|_| save_projection));
            let targets = Targets::Names(vec!["q_proj".into()]);
            let vera = VeraConfig { rank: 6, targets, save_projection, ..VeraConfig::default() };
            let base = [(format!("{Q}.weight"), weight.clone())].into();
            let (_, merged) = run(base, &config, &adapter(vera, tensors), OutDtype::F32).unwrap();
            assert_close(&merged[&format!("{Q}.weight")], &golden("merged_weight"), 1e-6);
        }
    }
}

#[test]
fn magnitudes_merge_as_in_peft() {
    let dora = |rank, alpha, rslora, target| DoraConfig::default().with(lora(rank, alpha, rslora, &[target]).shared());
    let merged =
        |golden: &dyn Fn(&str) -> HostTensor, path: &str, parts: [(Part, &str); 2], dora, config: &ModelConfig| {
            let parts = parts.into_iter().chain([(Part::Magnitude, "lora_magnitude_vector")]);
            let parts = parts.map(|(part, name)| (Slot::new(path, part), golden(name)));
            let base = [(format!("{path}.weight"), golden("weight"))].into();
            let (_, merged) = run(base, config, &adapter(dora, parts), OutDtype::F32).unwrap();
            assert_close(&merged[&format!("{path}.weight")], &golden("merged_weight"), 1e-6);
        };
    for (name, rank, alpha, rslora) in
        [("a_dora", 4, 8.0, false), ("a_dora_rslora", 4, 8.0, true), ("b_dora", 3, 5.0, false)]
    {
        let golden = golden(&format!("linear_{name}.safetensors"));
        let shape = golden("weight").shape;
        let parts = [(Part::LoraA, "lora_A"), (Part::LoraB, "lora_B")];
        merged(&golden, Q, parts, dora(rank, alpha, rslora, "q_proj"), &with_q(shape[0], shape[1]));
    }
    let golden = golden("embedding_dora.safetensors");
    let parts = [(Part::EmbeddingA, "lora_embedding_A"), (Part::EmbeddingB, "lora_embedding_B")];
    let config = ModelConfig { vocab_size: 11, hidden_size: 8, tie_word_embeddings: false, ..tiny::qwen2() };
    merged(&golden, "model.embed_tokens", parts, dora(3, 6.0, false, "embed_tokens"), &config);
}

/// A row that the adapter takes to zero has no direction to stretch.
#[test]
fn a_row_of_zeros_merges_to_zeros() {
    let mut values = vec![0.0, 0.0, 3.0, 4.0];
    let update = Update { rank: 1, cols: 2, left: vec![0.0; 2], right: vec![0.0; 2], scaling: 1.0, magnitude: None };
    apply(&Update { magnitude: Some(Lengths::Rows(vec![1.0, 10.0])), ..update }, &mut values);
    assert_eq!(values, [0.0, 0.0, 6.0, 8.0]);
}

#[test]
fn adalora_merges_as_in_peft_and_changes_nothing_at_rank_0() {
    for (name, init_rank, alpha) in [("linear_a_adalora", 4, 8.0), ("linear_b_adalora", 3, 5.0)] {
        let golden = golden(&format!("{name}.safetensors"));
        let weight = golden("weight");
        let [out, cols] = [weight.shape[0], weight.shape[1]];
        let config = AdaLoraConfig { init_rank, alpha, ..AdaLoraConfig::default() };
        let config = config.with(lora(1, 1.0, false, &["q_proj"]).shared());
        let parts = [(Part::AdaA, "lora_A"), (Part::AdaE, "lora_E"), (Part::AdaB, "lora_B")];
        let whole = adapter(config.clone(), parts.map(|(part, name)| (Slot::new(Q, part), golden(name))));
        let base: HostTensors = [(format!("{Q}.weight"), weight.clone())].into();
        let (_, merged) = run(base.clone(), &with_q(out, cols), &whole, OutDtype::F32).unwrap();
        assert_close(&merged[&format!("{Q}.weight")], &golden("merged_weight"), 1e-6);
        let mut config = config;
        config.outcome.rank_pattern = [(format!("{Q}.lora_E"), vec![false; init_rank])].into();
        let shapes = [(Part::AdaA, [0, cols]), (Part::AdaE, [0, 1]), (Part::AdaB, [out, 0])];
        let empty = |shape: [usize; 2]| HostTensor { shape: shape.into(), values: Vec::new() };
        let none = adapter(config, shapes.map(|(part, shape)| (Slot::new(Q, part), empty(shape))));
        let (report, merged) = run(base, &with_q(out, cols), &none, OutDtype::F32).unwrap();
        assert_eq!((report.changed, &merged[&format!("{Q}.weight")]), (0, &weight));
    }
}

#[test]
fn embeddings_merge_as_in_peft_and_leave_a_tied_head_alone() {
    let golden = golden("embedding_lora.safetensors");
    let parts = [(Part::EmbeddingA, "lora_embedding_A"), (Part::EmbeddingB, "lora_embedding_B")];
    let parts = parts.map(|(part, name)| (Slot::new("model.embed_tokens", part), golden(name)));
    let adapter = adapter(lora(3, 6.0, false, &["embed_tokens"]), parts);
    let config = ModelConfig { vocab_size: 11, hidden_size: 8, ..tiny::qwen2() };
    let base: HostTensors = [("model.embed_tokens.weight".to_string(), golden("weight"))].into();
    let (report, merged) = run(base.clone(), &config, &adapter, OutDtype::F32).unwrap();
    assert_close(&merged["model.embed_tokens.weight"], &golden("merged_weight"), 1e-6);
    assert_eq!(merged["lm_head.weight"], golden("weight"));
    assert!(report.untied);
    let untied = ModelConfig { tie_word_embeddings: false, ..config };
    let (report, merged) = run(base, &untied, &adapter, OutDtype::F32).unwrap();
    assert!(!report.untied && !merged.contains_key("lm_head.weight"));
}

#[test]
fn a_merge_of_several_chunks_of_rows_is_the_same_everywhere() {
    let (rows, cols) = (2 * ROWS + 5, 3);
    let tensor = |shape: [usize; 2], values: Vec<f32>| HostTensor { shape: shape.into(), values };
    let parts = [
        (Slot::new(Q, Part::LoraA), tensor([1, cols], vec![1.0, 2.0, 4.0])),
        (Slot::new(Q, Part::LoraB), tensor([rows, 1], (0..rows).map(|row| row as f32).collect())),
    ];
    let base = [(format!("{Q}.weight"), tensor([rows, cols], vec![1.0; rows * cols]))].into();
    let (_, merged) =
        run(base, &with_q(rows, cols), &adapter(lora(1, 1.0, false, &["q_proj"]), parts), OutDtype::F32).unwrap();
    let expected = (0..rows * cols).map(|i| 1.0 + (i / cols) as f32 * [1.0, 2.0, 4.0][i % cols]).collect();
    assert_eq!(merged[&format!("{Q}.weight")], tensor([rows, cols], expected));
}

/// Saved modules replace the base's, and the directory opens as a model.
#[test]
fn a_whole_model_merges_and_opens() {
    let root = format!("{}/tests/golden/e2e/llama", env!("CARGO_MANIFEST_DIR"));
    let base = crate::models::Safetensors::open_dir(&Path::new(&root).join("base")).unwrap();
    let config = tiny::llama();
    let dir = Path::new(&root).join("adapters/lora_embed_mts");
    let adapter = peft::read(&dir, "llama", &Module::list(&config)).unwrap();
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("merged");
    let report = merge(&base, &config, &adapter, OutDtype::Bf16, &out, &mut |_, _| {}).unwrap();
    assert_eq!((report.tensors, report.changed), (base.names().len(), 4));
    assert!(report.rounding > 0.0 && report.rounding < 0.02, "{report:?}");
    let merged = crate::models::Safetensors::open_dir(&out).unwrap();
    assert_eq!(merged.names(), base.names());
    let head = &adapter.1["base_model.model.lm_head.weight"].values;
    for (found, expected) in merged.read("lm_head.weight").unwrap().iter().zip(head) {
        assert_eq!(*found, half::bf16::from_f32(*expected).to_f32());
    }
    let error = merge(&base, &config, &adapter, OutDtype::F32, &out, &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("not empty"), "{error}");
    let own = Path::new(&root).join("base");
    let error = merge(&base, &config, &adapter, OutDtype::F32, &own, &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("overwrite its own base"), "{error}");
}

#[test]
fn refuses_what_does_not_fit() {
    let golden = golden("linear_a_lora.safetensors");
    let parts = || [(Slot::new(Q, Part::LoraA), golden("lora_A")), (Slot::new(Q, Part::LoraB), golden("lora_B"))];
    let base = |scale: f32| -> HostTensors {
        let mut weight = golden("weight");
        weight.values.iter_mut().for_each(|value| *value *= scale);
        [(format!("{Q}.weight"), weight)].into()
    };
    let config = with_q(16, 24);
    let fits = adapter(lora(4, 8.0, false, &["q_proj"]), parts());
    let error = run(base(1e6), &config, &fits, OutDtype::F16).unwrap_err().to_string();
    assert!(error.contains("not finite") && error.contains(Q), "{error}");
    let bias = (Slot::new(Q, Part::BaseLayerBias), golden("bias"));
    let biased = adapter(lora(4, 8.0, false, &["q_proj"]), parts().into_iter().chain([bias]));
    let error = run(base(1.0), &config, &biased, OutDtype::F32).unwrap_err().to_string();
    assert!(error.contains("no place") && error.contains("q_proj.base_layer.bias"), "{error}");
    let short = adapter(lora(4, 8.0, false, &["q_proj"]), parts().into_iter().take(1));
    let error = run(base(1.0), &config, &short, OutDtype::F32).unwrap_err().to_string();
    assert!(error.contains("missing") && error.contains("lora_B"), "{error}");
}

/// Adding with weight -1 takes a merged adapter off again, up to the rounding of the sums.
#[test]
fn what_was_merged_comes_off_again() {
    use crate::adapters::combine::{Method, combine};
    let root = format!("{}/tests/golden/e2e/llama", env!("CARGO_MANIFEST_DIR"));
    let base = crate::models::Safetensors::open_dir(&Path::new(&root).join("base")).unwrap();
    let (config, modules) = (tiny::llama(), Module::list(&tiny::llama()));
    let adapter = peft::read(&Path::new(&root).join("adapters/lora"), "llama", &modules).unwrap();
    let parent = tempfile::tempdir().unwrap();
    let [merged, back] = ["merged", "back"].map(|name| parent.path().join(name));
    merge(&base, &config, &adapter, OutDtype::F32, &merged, &mut |_, _| {}).unwrap();
    let off = combine(&[(-1.0, &adapter)], &modules, &Method::Cat.into()).unwrap();
    let with = crate::models::Safetensors::open_dir(&merged).unwrap();
    merge(&with, &config, &off, OutDtype::F32, &back, &mut |_, _| {}).unwrap();
    let without = crate::models::Safetensors::open_dir(&back).unwrap();
    let mut changed = 0;
    for name in base.names() {
        let [first, merged, back] = [&base, &with, &without].map(|weights| weights.read(&name).unwrap());
        changed += usize::from(first != merged);
        let largest = first.iter().chain(&merged).map(|value| value.abs()).fold(0.0, f32::max);
        let worst = first.iter().zip(&back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 1e-6 * largest, "{name}: {worst} of {largest}");
    }
    assert_eq!(changed, 14);
}
