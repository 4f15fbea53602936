//! Merges over a base in four bits.

use std::path::{Path, PathBuf};

use lowrank_kernels::four_bit::Quantised;

use super::*;
use crate::adapters::peft::{self, PeftAdapter};
use crate::adapters::{Module, tiny};
use crate::models::{Opened, Safetensors, Stored, open};
use crate::recipe::{BaseStorage, Blocks, Quant};
use crate::tensors::HostTensors;

const Q: &str = "model.layers.1.self_attn.q_proj.weight";
const K: &str = "model.layers.1.self_attn.k_proj.weight";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/e2e/qwen2")
}

fn base() -> Opened {
    open("base", &root()).unwrap()
}

fn nf4(opened: &Opened) -> Stored<'_> {
    let quant = Some(Quant::Nf4(Blocks::default()));
    Stored::new(opened.weights.as_ref(), BaseStorage { quant, ..BaseStorage::default() }).unwrap()
}

/// LoRA on q and v.
fn adapter() -> PeftAdapter {
    peft::read(&root().join("adapters/lora_qv"), "qwen2", &Module::list(&tiny::qwen2())).unwrap()
}

fn written(model: &Merged<'_>, dtype: OutDtype, opened: &Opened) -> (tempfile::TempDir, Opened) {
    let parent = tempfile::tempdir().unwrap();
    write(model, dtype, &parent.path().join("out"), &mut |_, _| {}).unwrap();
    opened.tokenizer.save(&parent.path().join("out")).unwrap();
    let back = open("out", parent.path()).unwrap();
    (parent, back)
}

fn values(weights: &dyn WeightSource) -> HostTensors {
    let tensor = |name: String| {
        let tensor =
            crate::tensors::HostTensor { shape: weights.shape(&name).unwrap(), values: weights.read(&name).unwrap() };
        (name, tensor)
    };
    weights.names().into_iter().map(tensor).collect()
}

/// Tensor for tensor the file that transformers wrote of the same base.
#[test]
fn a_base_in_four_bits_is_written_as_transformers_writes_it() {
    let opened = base();
    let stored = nf4(&opened);
    let (dir, back) = written(&Merged::plain(&stored, &opened.config, Form::Requantised), OutDtype::F32, &opened);
    let [ours, theirs] =
        [dir.path().join("out"), root().join("bnb_nf4")].map(|path| Safetensors::open_dir(&path).unwrap());
    assert_eq!(ours.names(), theirs.names());
    for name in ours.names() {
        let header = |weights: &Safetensors| (weights.dtype(&name), weights.shape(&name), weights.stored_bytes(&name));
        assert_eq!(header(&ours), header(&theirs), "{name}");
        assert_eq!(ours.stored(&name), theirs.stored(&name), "{name}");
    }
    assert!(back.is_quantised());
    assert_eq!(values(back.weights.as_ref()), values(&stored));
    let config = std::fs::read(dir.path().join("out/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["quantization_config"]["llm_int8_skip_modules"], serde_json::json!(["lm_head"]));
}

#[test]
fn a_base_in_floats_holds_what_the_codes_stand_for() {
    let opened = base();
    let stored = nf4(&opened);
    let (_dir, back) = written(&Merged::plain(&stored, &opened.config, Form::Dense), OutDtype::F32, &opened);
    assert!(!back.is_quantised());
    assert_eq!(values(back.weights.as_ref()), values(&stored));
    assert_ne!(back.weights.read(Q).unwrap(), opened.weights.read(Q).unwrap());
}

#[test]
fn sums_are_exact_in_floats_and_quantised_again_in_four_bits() {
    let (opened, adapter) = (base(), adapter());
    let stored = nf4(&opened);
    let dense = Merged::new(&stored, &opened.config, &adapter, Form::Dense).unwrap();
    let (_dir, exact) = written(&dense, OutDtype::F32, &opened);
    let original = Merged::new(opened.weights.as_ref(), &opened.config, &adapter, Form::Dense).unwrap();
    let [sum, frozen, with, without] = [exact.weights.as_ref(), &stored, &original, opened.weights.as_ref()]
        .map(|weights: &dyn WeightSource| weights.read(Q).unwrap());
    for i in 0..sum.len() {
        let update = with[i] - without[i];
        assert!((sum[i] - frozen[i] - update).abs() < 1e-5, "{i}: {} {} {update}", sum[i], frozen[i]);
    }
    let again = Merged::new(&stored, &opened.config, &adapter, Form::Requantised).unwrap();
    let (_dir, back) = written(&again, OutDtype::Bf16, &opened);
    let format = stored.four_bit_format(Q).unwrap();
    assert_eq!(back.weights.four_bit(Q).unwrap(), Some(Quantised::new(&sum, format)));
    // Quantising the scales anew would not give the same codes: what is not adapted keeps them.
    assert_eq!(back.weights.four_bit(K).unwrap(), stored.four_bit(K).unwrap());
    assert_eq!(back.weights.dtype("model.embed_tokens.weight"), "BF16");
}

#[test]
fn what_a_checkpoint_left_in_floats_stays_there() {
    struct Partly<'a>(Stored<'a>);
    impl WeightSource for Partly<'_> {
        fn path(&self) -> &Path {
            self.0.path()
        }
        fn names(&self) -> Vec<String> {
            self.0.names()
        }
        fn shape(&self, name: &str) -> Option<Vec<usize>> {
            self.0.shape(name)
        }
        fn read(&self, name: &str) -> Result<Vec<f32>> {
            self.0.read(name)
        }
        fn dtype(&self, name: &str) -> String {
            self.0.dtype(name)
        }
        fn stored_bytes(&self, name: &str) -> u64 {
            self.0.stored_bytes(name)
        }
        fn sha256(&self) -> String {
            self.0.sha256()
        }
        fn four_bit_format(&self, name: &str) -> Option<lowrank_kernels::four_bit::Format> {
            self.0.four_bit_format(name).filter(|_| name != Q)
        }
        fn four_bit(&self, name: &str) -> Result<Option<Quantised>> {
            if name == Q { Ok(None) } else { self.0.four_bit(name) }
        }
    }
    let (opened, adapter) = (base(), adapter());
    let partly = Partly(nf4(&opened));
    let stored = Stored::new(&partly, BaseStorage::default()).unwrap();
    let merged = Merged::new(&stored, &opened.config, &adapter, Form::Requantised).unwrap();
    let (dir, back) = written(&merged, OutDtype::F32, &opened);
    assert_eq!((back.weights.dtype(Q), back.weights.dtype(K)), ("F32".into(), "NF4".into()));
    assert_eq!(values(back.weights.as_ref()), values(&merged));
    let config = std::fs::read_to_string(dir.path().join("out/config.json")).unwrap();
    assert!(config.contains("\"model.layers.1.self_attn.q_proj\""), "{config}");
}

#[test]
fn a_sum_that_is_no_number_is_not_quantised() {
    let (opened, mut adapter) = (base(), adapter());
    adapter.1.values_mut().for_each(|tensor| tensor.values.iter_mut().for_each(|value| *value = 1e30));
    let stored = nf4(&opened);
    let merged = Merged::new(&stored, &opened.config, &adapter, Form::Requantised).unwrap();
    let parent = tempfile::tempdir().unwrap();
    let error = write(&merged, OutDtype::F32, &parent.path().join("out"), &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("self_attn.q_proj.weight") && error.contains("not finite"), "{error}");
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
}
