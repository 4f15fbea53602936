//! GGUF files that lie: each must be an error, quickly.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{GgufFile, header};
use crate::models::WeightSource;

const LLAMA: &[u8] = include_bytes!("../../../tests/golden/gguf/llama.gguf");

/// Writes the header of a GGUF file, field by field.
#[derive(Clone)]
struct Draft(Vec<u8>);

impl Draft {
    fn new(version: u32, tensors: u64, keys: u64) -> Self {
        Draft(b"GGUF".to_vec()).u32(version).u64(tensors).u64(keys)
    }
    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }
    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }
    fn text(mut self, text: &str) -> Self {
        self = self.u64(text.len() as u64);
        self.0.extend(text.as_bytes());
        self
    }
    fn tensor(self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Self {
        let draft = self.text(name).u32(dims.len() as u32);
        dims.iter().fold(draft, |draft, &size| draft.u64(size)).u32(kind).u64(offset)
    }
    /// Pads to 32 and appends `len` bytes of data.
    fn data(mut self, len: usize) -> Vec<u8> {
        self.0.resize(self.0.len().next_multiple_of(32) + len, 0);
        self.0
    }
}

fn cases() -> Vec<(&'static str, Vec<u8>)> {
    let new = Draft::new;
    let aligned = |bytes| new(3, 0, 1).text("general.alignment").u32(4).u32(bytes).data(64);
    let text = |len: u64| new(3, 0, 1).u64(len).0;
    let value = |kind: u32| new(3, 0, 1).text("k").u32(kind);
    let mut bad_utf8 = new(3, 0, 1).u64(2).0;
    bad_utf8.extend([0xff, 0xfe]);
    vec![
        ("empty", vec![]),
        ("magic only", b"GGUF".to_vec()),
        ("other magic", b"GGML\x03\0\0\0".to_vec()),
        ("version 0", new(0, 0, 0).0),
        ("version 1", new(1, 0, 0).0),
        ("version 4", new(4, 0, 0).0),
        ("big-endian", new(3u32.swap_bytes(), 0, 0).0),
        ("43 bytes, 2^64 - 1 keys", {
            let mut b = new(3, 0, u64::MAX).0;
            b.resize(43, 0);
            b
        }),
        ("2^64 - 1 tensors", new(3, u64::MAX, 0).data(256)),
        ("text longer than the file", text(u64::MAX)),
        ("text one byte too long", text(1)),
        ("empty key", text(0)),
        ("key is not UTF-8", bad_utf8),
        ("unknown value type", value(13).u64(0).0),
        ("list of lists", value(9).u32(9).u64(1).u32(4).u64(0).0),
        ("list of unknown type", value(9).u32(99).u64(1).u64(0).0),
        ("list longer than the file", value(9).u32(0).u64(1 << 60).u64(0).0),
        ("list of 2^63 strings", value(9).u32(8).u64(1 << 63).u64(0).0),
        ("boolean 7", {
            let mut b = value(7).0;
            b.push(7);
            b
        }),
        ("key twice", new(3, 0, 2).text("k").u32(4).u32(1).text("k").u32(4).u32(1).0),
        ("alignment 0", aligned(0)),
        ("alignment 3", aligned(3)),
        ("alignment as text", new(3, 0, 1).text("general.alignment").u32(8).text("32").0),
        ("five dimensions", new(3, 1, 0).tensor("t", &[1, 1, 1, 1, 1], 0, 0).data(64)),
        ("2^32 - 1 dimensions", new(3, 1, 0).text("t").u32(u32::MAX).u64(0).data(64)),
        ("shape overflow", new(3, 1, 0).tensor("t", &[1 << 32, 1 << 32], 0, 0).data(64)),
        ("byte size overflow", new(3, 1, 0).tensor("t", &[1 << 62, 2], 0, 0).data(64)),
        ("row of half a block", new(3, 1, 0).tensor("t", &[16, 2], 8, 0).data(64)),
        ("type that is not read", new(3, 1, 0).tensor("t", &[256], 10, 0).data(512)),
        ("type that does not exist", new(3, 1, 0).tensor("t", &[4], 4000, 0).data(64)),
        ("name of 64 bytes", new(3, 1, 0).tensor(&"n".repeat(64), &[4], 0, 0).data(64)),
        ("name twice", new(3, 2, 0).tensor("t", &[8], 0, 0).tensor("t", &[8], 0, 32).data(64)),
        ("offset past the end", new(3, 1, 0).tensor("t", &[4], 0, 1 << 40).data(64)),
        ("offset overflows", new(3, 1, 0).tensor("t", &[4], 0, u64::MAX - 31).data(64)),
        ("overlap", new(3, 2, 0).tensor("a", &[8], 0, 0).tensor("b", &[8], 0, 0).data(64)),
        ("hole", new(3, 2, 0).tensor("a", &[8], 0, 0).tensor("b", &[8], 0, 64).data(128)),
        ("data cut off", new(3, 1, 0).tensor("t", &[8], 0, 0).data(31)),
    ]
}

#[test]
fn lying_headers_are_errors_at_once() {
    for (what, bytes) in cases() {
        let start = Instant::now();
        let refused = header::parse(&bytes, Path::new("lie.gguf")).is_err();
        assert!(refused, "{what} was accepted");
        assert!(start.elapsed() < Duration::from_millis(100), "{what} took {:?}", start.elapsed());
    }
}

#[test]
fn messages_name_the_culprit() {
    let message = |what: &str| {
        let bytes = cases().into_iter().find(|(name, _)| *name == what).unwrap().1;
        header::parse(&bytes, Path::new("lie.gguf")).err().unwrap().to_string()
    };
    assert!(message("type that is not read").contains("tensor t: cannot read this data type; found Q2_K"));
    assert!(message("alignment 3").contains("key general.alignment"));
    assert!(message("overlap").contains("tensor b"));
}

#[test]
fn the_drafts_are_only_wrong_where_they_mean_to_be() {
    let good = Draft::new(3, 2, 1).text("k").u32(4).u32(1).tensor("a", &[8], 0, 0).tensor("b", &[4, 2], 0, 32);
    let header = header::parse(&good.data(64), Path::new("good.gguf")).unwrap();
    assert_eq!(header.tensors[1].shape, [2, 4]);
    assert_eq!(header.tensors[1].range.len(), 32);
}

/// Every outcome but a panic or a hang is fine: most changes hit weights and stay unnoticed.
#[test]
fn damaged_files_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let start = Instant::now();
    for round in 0..1500 {
        let mut bytes = LLAMA.to_vec();
        for _ in 0..=random(4) {
            let at = random(if round % 2 == 0 { 2000 } else { bytes.len() });
            bytes[at] = random(256) as u8;
        }
        if round % 5 == 0 {
            bytes.truncate(random(bytes.len()));
        }
        let path = dir.path().join("damaged.gguf");
        std::fs::File::create(&path).unwrap().write_all(&bytes).unwrap();
        if let Ok(file) = GgufFile::open(&path) {
            let _ = file.tokenizer();
            for name in file.names() {
                let _ = file.read(&name);
            }
        }
    }
    assert!(start.elapsed() < Duration::from_secs(60));
}
