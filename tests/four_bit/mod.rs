//! Four-bit storage against what bitsandbytes 0.50.2 made of the same numbers, bit for bit.

use std::path::{Path, PathBuf};

use lowrank_kernels::four_bit::{Code, Format, Nested, Quantised, ScaleFormat, Scales, dynamic_map};
use safetensors::SafeTensors;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

struct File(Vec<u8>);

impl File {
    fn open(name: &str) -> Self {
        Self(std::fs::read(golden().join(name)).unwrap())
    }

    fn bytes(&self, tensor: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.0).unwrap().tensor(tensor).unwrap().data().to_vec()
    }

    fn floats(&self, tensor: &str) -> Vec<f32> {
        self.bytes(tensor).as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// `nf4_m64x64_bs64_dq`: code, matrix, block, double quantisation.
fn format(name: &str) -> Format {
    let code = if name.starts_with("nf4") { Code::Nf4 } else { Code::Fp4 };
    let block = if name.contains("bs128") { 128 } else { 64 };
    let scales = if name.ends_with("_dq") { ScaleFormat::Nested } else { ScaleFormat::F32 };
    Format { code, block, scales }
}

#[test]
fn books_are_theirs() {
    for code in Code::ALL {
        let file = File::open(&format!("codebook_{}.safetensors", code.name()));
        assert_eq!(bits(&code.book()), bits(&file.floats("code")));
    }
    assert_eq!(bits(&dynamic_map()), bits(&File::open("codebook_dynamic8.safetensors").floats("signed")));
}

#[test]
fn codes_scales_and_values_are_theirs() {
    let names = std::fs::read_dir(golden()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<_> = names.filter(|name| name.contains("_bs64") || name.contains("_bs128")).collect();
    assert_eq!(names.len(), 28);
    for name in names {
        let file = File::open(&name);
        let quantised = Quantised::new(&file.floats("weight"), format(name.trim_end_matches(".safetensors")));
        assert_eq!(quantised.bytes, file.bytes("packed"), "{name}");
        match &quantised.scales {
            Scales::F32(scales) => assert_eq!(bits(scales), bits(&file.floats("absmax")), "{name}"),
            Scales::Nested(Nested { codes, scales, offset }) => {
                assert_eq!(codes, &file.bytes("absmax"), "{name}");
                assert_eq!(bits(scales), bits(&file.floats("nested_absmax")), "{name}");
                assert_eq!(bits(&[*offset]), bits(&file.floats("offset")), "{name}");
                assert_eq!(bits(&quantised.scales()), bits(&file.floats("absmax_dequant")), "{name}");
            }
        }
        assert_eq!(quantised.dequantise(), file.floats("dequant"), "{name}");
    }
}

#[test]
fn eight_bit_codes_are_theirs() {
    let file = File::open("blockwise8_m64x64.safetensors");
    let (values, scales) = (file.floats("weight"), file.floats("absmax"));
    assert_eq!(Nested::codes(&values, &scales), file.bytes("codes"));
}
