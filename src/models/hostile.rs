//! Safetensors files and directories that lie: each must be an error, quickly, that names the culprit.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Safetensors, WeightSource};
use crate::Result;

/// A file with this header and `data` bytes of zeros.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// A file of tensors: name, type, shape and bytes.
pub(super) fn file_of<'a>(tensors: impl Iterator<Item = (&'a str, &'a str, &'a [usize], &'a [u8])>) -> Vec<u8> {
    let (mut headers, mut data) = (Vec::new(), Vec::<u8>::new());
    for (name, dtype, shape, bytes) in tensors {
        let begin = data.len() as u128;
        data.extend(bytes);
        headers.push(tensor(name, dtype, &format!("{shape:?}"), begin, data.len() as u128));
    }
    let mut all = file(&format!("{{{}}}", headers.join(",")), 0);
    all.extend(data);
    all
}

/// Numbers below what is asked, the same in every run.
pub(super) fn random() -> impl FnMut(usize) -> usize {
    let mut state = 1u64;
    move |below| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    }
}

fn parse(bytes: Vec<u8>) -> Result<Safetensors> {
    Safetensors::from_static(bytes.leak(), Path::new("lie.safetensors"))
}

fn tensor(name: &str, dtype: &str, shape: &str, begin: u128, end: u128) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

fn one(dtype: &str, shape: &str, begin: u128, end: u128) -> String {
    format!("{{{}}}", tensor("t", dtype, shape, begin, end))
}

fn two(a: (u128, u128), b: (u128, u128)) -> String {
    let (a, b) = (tensor("a", "F32", "[2]", a.0, a.1), tensor("b", "F32", "[2]", b.0, b.1));
    format!("{{{a},{b}}}")
}

/// Tensors of 2^60 bytes each, contiguous, whose total passes 2^64.
fn enormous() -> String {
    let part = 1u128 << 60;
    let tensors: Vec<_> =
        (0..15).map(|i| tensor(&format!("t{i}"), "U8", "[1152921504606846976]", i * part, (i + 1) * part)).collect();
    let last = tensor("last", "U8", "[1152921504606846975]", 15 * part, 16 * part - 1);
    format!("{{{},{last}}}", tensors.join(","))
}

fn cases() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let good = one("F32", "[2]", 0, 8);
    let with_length = |length: u64| {
        let mut bytes = file(&good, 8);
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        bytes
    };
    let twice = format!("{{{},{}}}", tensor("t", "F32", "[2]", 0, 8), tensor("t", "F32", "[2]", 0, 8));
    let field_twice = r#"{"t":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let mut bad_utf8 = file(&good, 8);
    bad_utf8[10] = 0xff;
    vec![
        ("empty", vec![], "too short"),
        ("seven bytes", vec![0; 7], "too short"),
        ("length 2^64 - 1", with_length(u64::MAX), "longer than"),
        ("length past the end", with_length(good.len() as u64 + 9), "longer than"),
        ("length zero", with_length(0), "does not begin with"),
        ("not UTF-8", bad_utf8, "safetensors"),
        ("not JSON", file("{]", 0), "safetensors header"),
        ("a list", file("[]", 0), "does not begin with"),
        ("100,000 brackets", file(&format!("{{\"t\":{}", "[".repeat(100_000)), 0), "tensor t"),
        ("deep in the metadata", file(&format!("{{\"__metadata__\":{}", "[".repeat(100_000)), 0), "safetensors"),
        ("name twice", file(&twice, 8), "tensor t: listed twice"),
        ("field twice", file(field_twice, 8), "duplicate field"),
        ("overlap", file(&two((0, 8), (4, 12)), 16), "offset"),
        ("hole", file(&two((0, 8), (12, 20)), 20), "offset"),
        ("begin after end", file(&one("F32", "[2]", 8, 0), 8), "tensor t: data outside"),
        ("end past the file", file(&one("F32", "[2]", 0, 16), 8), "tensor t: data outside"),
        ("bytes left over", file(&good, 9), "not fully covered"),
        ("sum of offsets overflows", file(&enormous(), 8), "data outside"),
        ("shape overflow", file(&one("F32", "[4294967296,4294967296]", 0, 8), 8), "overflow"),
        ("negative size", file(&one("F32", "[-2]", 0, 8), 8), "tensor t"),
        ("fractional size", file(&one("F32", "[2.0]", 0, 8), 8), "tensor t"),
        ("size of 2^64", file(&one("F32", "[18446744073709551616]", 0, 8), 8), "tensor t"),
        ("shape against bytes", file(&one("F32", "[3]", 0, 8), 8), "safetensors"),
        ("nine dimensions", file(&one("U8", "[1,1,1,1,1,1,1,1,8]", 0, 8), 8), "tensor t: too many"),
        ("type that does not exist", file(&one("F99", "[2]", 0, 8), 8), "F99"),
        ("LFS pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n".to_vec(), "Git LFS"),
        ("web page", b"<!DOCTYPE html><html><body>Log in</body></html>".to_vec(), "web page"),
        ("pickle", b"PK\x03\x04\x00\x00\x08\x08".to_vec(), "pickle"),
    ]
}

#[test]
fn lying_files_are_errors_at_once() {
    for (what, bytes, culprit) in cases() {
        let start = Instant::now();
        let message = parse(bytes).err().unwrap_or_else(|| panic!("{what} was accepted")).to_string();
        assert!(start.elapsed() < Duration::from_millis(100), "{what} took {:?}", start.elapsed());
        assert!(message.contains(culprit) && message.contains("lie.safetensors"), "{what}: {message}");
    }
}

#[test]
fn odd_files_are_accepted() {
    let padded = format!("{}   ", one("F32", "[2]", 0, 8));
    assert_eq!(parse(file(&padded, 8)).unwrap().read("t").unwrap(), [0.0, 0.0]);
    let empty_and_scalar = format!("{{{},{}}}", tensor("e", "F32", "[0,4]", 0, 0), tensor("s", "F32", "[]", 0, 4));
    let odd = parse(file(&empty_and_scalar, 4)).unwrap();
    assert_eq!((odd.shape("e"), odd.read("s").unwrap()), (Some(vec![0, 4]), vec![0.0]));
}

#[test]
fn types_that_are_no_floats_are_refused_when_read() {
    let integers = parse(file(&one("I8", "[2]", 0, 2), 2)).unwrap();
    let message = integers.read("t").unwrap_err().to_string();
    assert!(message.contains("tensor t") && message.contains("I8"), "{message}");
}

#[test]
fn every_float_type_is_read() {
    let values = |dtype: &str, raw: &[u8]| {
        let mut bytes = file(&one(dtype, "[1]", 0, raw.len() as u128), 0);
        bytes.extend(raw);
        parse(bytes).unwrap().read("t").unwrap()
    };
    assert_eq!(values("F32", &1.5f32.to_le_bytes()), [1.5]);
    assert_eq!(values("F64", &(-2.5f64).to_le_bytes()), [-2.5]);
    assert_eq!(values("F16", &half::f16::from_f32(0.75).to_le_bytes()), [0.75]);
    assert_eq!(values("BF16", &half::bf16::from_f32(-8.0).to_le_bytes()), [-8.0]);
}

#[test]
fn non_finite_values_are_counted() {
    let mut bytes = file(&one("F32", "[3]", 0, 12), 0);
    [1.0, f32::NAN, f32::INFINITY].iter().for_each(|value: &f32| bytes.extend(value.to_le_bytes()));
    let message = parse(bytes).unwrap().read("t").unwrap_err().to_string();
    assert!(message.contains("tensor t") && message.contains("2 of 3"), "{message}");
}

#[test]
fn damaged_files_never_panic() {
    let mut random = random();
    let good = file(&two((0, 8), (8, 16)), 16);
    let path = Path::new("damaged");
    for _ in 0..5000 {
        let mut bytes = good.clone();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            bytes[at] = if random(2) == 0 { random(256) as u8 } else { b"0123456789[]{},:\""[random(17)] };
        }
        if random(4) == 0 {
            bytes.truncate(random(bytes.len()));
        }
        if let Ok(weights) = Safetensors::from_static(bytes.leak(), path) {
            weights.names().iter().for_each(|name| drop(weights.read(name)));
        }
    }
}

const BASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/e2e/qwen2/base");
const INDEX: &str = "model.safetensors.index.json";

/// A copy of the sharded model without its index.
fn shards() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(BASE).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != INDEX {
            fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
    }
    dir
}

fn message_with_index(dir: &Path, from: &str, to: &str) -> String {
    let index = fs::read_to_string(Path::new(BASE).join(INDEX)).unwrap();
    assert!(index.contains(from));
    fs::write(dir.join(INDEX), index.replace(from, to)).unwrap();
    Safetensors::open_dir(dir).err().expect("accepted").to_string()
}

#[test]
fn shards_make_one_model() {
    let weights = Safetensors::open_dir(Path::new(BASE)).unwrap();
    assert_eq!(weights.names().len(), 2 + 2 * 12);
    assert_eq!(weights.shape("model.layers.1.self_attn.k_proj.bias"), Some(vec![32]));
    assert_eq!(weights.read("model.layers.1.self_attn.k_proj.bias").unwrap().len(), 32);
    assert_eq!(weights.stored_bytes("model.embed_tokens.weight"), 512 * 64 * 4);
}

#[test]
fn an_index_cannot_lead_out_of_its_directory() {
    let dir = shards();
    for target in ["../../../etc/passwd", "/etc/passwd", "sub/model.safetensors", "..", ""] {
        let message = message_with_index(dir.path(), "model-00002-of-00005.safetensors", target);
        assert!(message.contains("not a plain file name"), "{target}: {message}");
    }
    let message = message_with_index(dir.path(), "model-00002-of-00005.safetensors", "model-7.safetensors");
    assert!(message.contains("model-7.safetensors: shard is missing"), "{message}");
    let message = message_with_index(dir.path(), "\"model.norm.weight\"", "\"model.other.weight\"");
    assert!(message.contains("tensor model.other.weight"), "{message}");
}

#[cfg(unix)]
#[test]
fn links_may_lead_to_the_blobs_of_a_hub_cache_and_nowhere_else() {
    let outside = Path::new(BASE).join("model-00001-of-00005.safetensors");
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(&outside, dir.path().join("model.safetensors")).unwrap();
    let message = Safetensors::open_dir(dir.path()).err().expect("accepted").to_string();
    assert!(message.contains("link leads out"), "{message}");

    let snapshot = dir.path().join("snapshots/abc");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir(dir.path().join("blobs")).unwrap();
    fs::copy(&outside, dir.path().join("blobs/123")).unwrap();
    std::os::unix::fs::symlink("../../blobs/123", snapshot.join("model.safetensors")).unwrap();
    assert!(Safetensors::open_dir(&snapshot).is_ok());
}

#[test]
fn directories_without_weights_say_what_they_hold() {
    let dir = tempfile::tempdir().unwrap();
    let message = || Safetensors::open_dir(dir.path()).err().expect("accepted").to_string();
    assert!(message().contains("no weights here"), "{}", message());
    fs::write(dir.path().join("pytorch_model.bin"), b"PK\x03\x04").unwrap();
    assert!(message().contains("found pytorch_model.bin") && message().contains("pickles"), "{}", message());
    fs::create_dir(dir.path().join("model.safetensors")).unwrap();
    assert!(message().contains("not a regular file"), "{}", message());
}
