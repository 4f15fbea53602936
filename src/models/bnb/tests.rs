//! Checkpoints of transformers, and the golden parts of single weights.

use safetensors::SafeTensors;

use super::*;
use crate::models::{Stored, open};
use crate::recipe::{BaseStorage, Quant};

/// The reference model, and what transformers with bitsandbytes made of it.
fn both() -> (super::super::Opened, FourBitCheckpoint) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/e2e/qwen2");
    let raw = Safetensors::open_dir(&root.join("bnb_nf4")).unwrap();
    let theirs = FourBitCheckpoint::new(raw, &Settings { code: Code::Nf4, double: true }).unwrap();
    (open("base", &root).unwrap(), theirs)
}

#[test]
fn a_checkpoint_of_transformers_is_our_quantisation_of_its_base() {
    let (base, theirs) = both();
    assert_eq!(theirs.names(), base.weights.names());
    let quant = Some(Quant::Nf4(crate::recipe::Blocks::default()));
    let ours = Stored::new(base.weights.as_ref(), BaseStorage { quant, ..BaseStorage::default() }).unwrap();
    for name in theirs.names() {
        assert_eq!(theirs.shape(&name), ours.shape(&name));
        assert_eq!(theirs.four_bit(&name).unwrap(), ours.four_bit(&name).unwrap(), "{name}");
        assert_eq!(theirs.read(&name).unwrap(), ours.read(&name).unwrap(), "{name}");
    }
    assert_eq!(theirs.quantised.len(), 14);
    assert_eq!(theirs.dtype("model.layers.0.mlp.up_proj.weight"), "NF4");
    assert_eq!(theirs.shape("model.layers.0.mlp.up_proj.weight.absmax"), None);
}

#[test]
fn the_format_of_the_file_is_the_storage() {
    let (_, theirs) = both();
    let own = Stored::new(&theirs, BaseStorage::default()).unwrap().storage();
    assert_eq!(own.describe(), "linears nf4 (block 64, double) · f32");
    assert_eq!(Stored::new(&theirs, own).unwrap().storage(), own);
    let other = BaseStorage { quant: Some(Quant::Fp4(crate::recipe::Blocks::default())), ..own };
    let message = Stored::new(&theirs, other).err().expect("accepted").to_string();
    assert!(message.contains("base.quant") && message.contains("found fp4 (block 64, double)"), "{message}");
}

/// `as_dict_packed.*` of bitsandbytes 0.50.2, state included, to the byte.
#[test]
fn parts_are_theirs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut compared = 0;
    for entry in std::fs::read_dir(&root).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.contains("_bs64") && !name.contains("_bs128") {
            continue;
        }
        let bytes = std::fs::read(root.join(&name)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let code = if name.starts_with("nf4") { Code::Nf4 } else { Code::Fp4 };
        let scales = if name.contains("_dq") { ScaleFormat::Nested } else { ScaleFormat::F32 };
        let format = Format { code, block: if name.contains("bs128") { 128 } else { 64 }, scales };
        let weight = file.tensor("weight").unwrap();
        let values: Vec<f32> = weight.data().as_chunks::<4>().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect();
        let shape: [usize; 2] = weight.shape().try_into().unwrap();
        let quantised = Quantised::new(&values, format);
        let (state, json) = state_part("as_dict_packed", &quantised, shape, "float32");
        let codes = Part { name: "packed".into(), dtype: "U8", shape: vec![values.len().div_ceil(2)] };
        let scales = parts("as_dict_packed", format, shape).into_iter().skip(1);
        let all = [codes].into_iter().chain(scales).zip(contents(&quantised)).chain([(state, json)]);
        for (part, bytes) in all {
            let theirs = file.tensor(&part.name).unwrap();
            let header = (theirs.dtype().to_string(), theirs.shape().to_vec());
            assert_eq!(header, (part.dtype.to_string(), part.shape), "{name} {}", part.name);
            assert_eq!(theirs.data(), bytes, "{name} {}", part.name);
            compared += 1;
        }
    }
    assert_eq!(compared, 14 * (4 + 6));
}
