//! Quantised checkpoints that lie: each must be one error that names the tensor.

use std::path::Path;

use super::*;
use crate::models::hostile::{file_of, random};

const W: &str = "model.layers.0.mlp.up_proj.weight";
const SETTINGS: Settings = Settings { code: Code::Nf4, double: true };

/// Tensors by name: type, shape and bytes.
type Tensors = BTreeMap<String, (&'static str, Vec<usize>, Vec<u8>)>;

/// A `[8, 24]` weight as we write it ourselves, and a norm beside it.
fn good() -> Tensors {
    let values: Vec<f32> = (0..192).map(|i| (i as f32 * 0.7).sin()).collect();
    let format = Format { code: Code::Nf4, block: 64, scales: ScaleFormat::Nested };
    let quantised = Quantised::new(&values, format);
    let (state, json) = state_part(W, &quantised, [8, 24], "float32");
    let parts = parts(W, format, [8, 24]).into_iter().zip(contents(&quantised));
    let all = parts.chain([(state, json)]).map(|(part, bytes)| (part.name, (part.dtype, part.shape, bytes)));
    all.chain([("norm".to_string(), ("F32", vec![1], vec![0; 4]))]).collect()
}

fn open(tensors: &Tensors) -> Result<FourBitCheckpoint> {
    let file =
        file_of(tensors.iter().map(|(name, (dtype, shape, bytes))| (name.as_str(), *dtype, &shape[..], &bytes[..])));
    FourBitCheckpoint::new(Safetensors::from_static(file.leak(), Path::new("lie.safetensors"))?, &SETTINGS)
}

fn refusal(what: &str, change: impl FnOnce(&mut Tensors)) -> String {
    let mut tensors = good();
    change(&mut tensors);
    let read = open(&tensors).and_then(|weights| weights.read(W));
    let message = read.err().unwrap_or_else(|| panic!("{what} was accepted")).to_string();
    assert!(message.contains("lie.safetensors") && !message.contains('\n'), "{what}: {message}");
    message
}

fn state_name() -> String {
    super::state_name(W, Code::Nf4)
}

fn put(tensors: &mut Tensors, name: &str, dtype: &'static str, shape: &[usize], bytes: Vec<u8>) {
    tensors.insert(name.to_string(), (dtype, shape.to_vec(), bytes));
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn a_good_one_is_read() {
    let weights = open(&good()).unwrap();
    assert_eq!(weights.names(), [W, "norm"]);
    assert_eq!((weights.shape(W), weights.read(W).unwrap().len()), (Some(vec![8, 24]), 192));
    assert_eq!(weights.stored_bytes(W), 96 + 64 + 3 + 4 + 1024 + good()[&state_name()].2.len() as u64);
}

/// Each pair is a text of the state and what stands there instead.
#[test]
fn states_that_lie() {
    let offset = String::from_utf8(good()[&state_name()].2.clone()).unwrap();
    let offset = offset.split("\"nested_offset\": ").nth(1).unwrap().trim_end_matches('}').to_string();
    let deep = format!("\"shape\": {}", "[".repeat(2000));
    let long = format!("{{{}\"quant_type\"", " ".repeat(5000));
    let past_f32 = format!("\"nested_offset\": {}", "1e300");
    let old_offset = format!("\"nested_offset\": {offset}");
    for (from, to, culprit) in [
        ("\"nf4\"", "\"int8\"", "quant_type"),
        ("\"nf4\"", "\"fp4\"", "quant_type"),
        ("\"quant_type\": \"nf4\", ", "", "quant_type"),
        ("\"blocksize\": 64", "\"blocksize\": 0", "blocksize"),
        ("\"blocksize\": 64", "\"blocksize\": 63", "blocksize"),
        ("\"blocksize\": 64", "\"blocksize\": 96", "blocksize"),
        ("\"blocksize\": 64", "\"blocksize\": -64", "quant_state"),
        ("\"blocksize\": 64", "\"blocksize\": 18446744073709551616", "quant_state"),
        ("\"blocksize\": 64", "\"blocksize\": 32", "absmax"),
        ("\"blocksize\": 64", "\"blocksize\": 64, \"blocksize\": 64", "duplicate"),
        ("\"blocksize\": 64", "\"blocksize\": 64, \"more\": 1", "unknown field"),
        ("\"float32\", \"shape\"", "\"float8\", \"shape\"", "dtype"),
        ("[8, 24]", "[8, 25]", "quant_state asks for"),
        ("[8, 24]", "[24, 24]", "quant_state asks for"),
        ("[8, 24]", "[192]", "shape"),
        ("[8, 24]", "[8, 24, 1]", "shape"),
        ("[8, 24]", "[0, 24]", "shape"),
        ("[8, 24]", "[16777217, 1]", "shape"),
        ("[8, 24]", "[16777216, 16777216]", "quant_state asks for"),
        ("[8, 24]", "[4294967296, 4294967296]", "shape"),
        ("[8, 24]", "[-8, -24]", "quant_state"),
        ("\"nested_blocksize\": 256", "\"nested_blocksize\": 128", "nested_blocksize"),
        ("\"nested_blocksize\": 256, ", "", "nested_blocksize"),
        ("\"nested_dtype\": \"float32\"", "\"nested_dtype\": \"float16\"", "nested_dtype"),
        (&old_offset, "\"nested_offset\": NaN", "quant_state"),
        (&old_offset, "\"nested_offset\": 1e999", "quant_state"),
        (&old_offset, &past_f32, "nested_offset"),
        ("\"shape\": [8, 24]", &deep, "quant_state"),
        ("{\"quant_type\"", &long, "never this long"),
        ("}", "}}", "quant_state"),
        ("{", "[", "quant_state"),
    ] {
        let message = refusal(to, |tensors| {
            let (_, shape, bytes) = tensors.get_mut(&state_name()).unwrap();
            let text = String::from_utf8(bytes.clone()).unwrap();
            assert!(text.contains(from), "{from}");
            *bytes = text.replacen(from, to, 1).into_bytes();
            *shape = vec![bytes.len()];
        });
        assert!(message.contains(W) && message.contains(culprit), "{from} → {to}: {message}");
    }
}

#[test]
fn parts_that_do_not_fit() {
    let f32s = |tensors: &mut Tensors, part: &str, values: &[f32]| {
        put(tensors, &format!("{W}{part}"), "F32", &[values.len()], floats(values));
    };
    let mut map = dynamic_map();
    map[9] += 1e-3;
    let mut nan = dynamic_map();
    nan[9] = f32::NAN;
    let mut book = Code::Nf4.book();
    book[3] *= 1.000_001;
    type Change<'a> = Box<dyn Fn(&mut Tensors) + 'a>;
    let cases: Vec<(&str, Change<'_>, &str)> = vec![
        ("a code short", Box::new(|t| put(t, W, "U8", &[95, 1], vec![0; 95])), "found U8 [95, 1]; expected U8 [96, 1]"),
        ("codes in a row", Box::new(|t| put(t, W, "U8", &[96], vec![0; 96])), "expected U8 [96, 1]"),
        ("codes packed as floats", Box::new(|t| put(t, W, "F32", &[24, 1], vec![0; 96])), "expected U8"),
        ("a scale too many", Box::new(|t| put(t, &format!("{W}.absmax"), "U8", &[4], vec![0; 4])), ".absmax"),
        ("plain scales", Box::new(|t| f32s(t, ".absmax", &[1.0; 3])), ".absmax"),
        ("two outer scales", Box::new(|t| f32s(t, ".nested_absmax", &[1.0; 2])), ".nested_absmax"),
        ("no outer scale", Box::new(|t| drop(t.remove(&format!("{W}.nested_absmax")))), "found nothing"),
        ("an endless scale", Box::new(|t| f32s(t, ".nested_absmax", &[f32::INFINITY])), "not finite"),
        ("a scale that is no number", Box::new(|t| f32s(t, ".nested_absmax", &[f32::NAN])), "not finite"),
        ("17 codes", Box::new(|t| f32s(t, ".quant_map", &[0.0; 17])), "expected F32 [16]"),
        ("another table", Box::new(|t| f32s(t, ".quant_map", &Code::Fp4.book())), "not the table"),
        ("almost the table", Box::new(|t| f32s(t, ".quant_map", &book)), "not the table"),
        ("255 nested codes", Box::new(|t| f32s(t, ".nested_quant_map", &map[..255])), "expected F32 [256]"),
        ("another map", Box::new(|t| f32s(t, ".nested_quant_map", &map)), "not the table"),
        ("a map with a hole", Box::new(|t| f32s(t, ".nested_quant_map", &nan)), "not the table"),
        ("parts of nothing", Box::new(|t| put(t, "norm.absmax", "F32", &[1], vec![0; 4])), "belongs to no quantised"),
        ("a second part", Box::new(|t| put(t, &format!("{W}.absmax.absmax"), "U8", &[1], vec![0])), "belongs to no"),
        ("no state", Box::new(|t| drop(t.remove(&state_name()))), "packed, without a quant_state"),
        ("int8", Box::new(|t| put(t, "a.SCB", "F32", &[1], vec![0; 4])), "LLM.int8()"),
        ("codes alone", Box::new(|t| put(t, "a.weight", "U8", &[1, 1], vec![0])), "without a quant_state"),
        (
            "a state in floats",
            Box::new(|t| put(t, &state_name(), "F32", &[1], vec![0; 4])),
            "not a quant_state; found F32",
        ),
        (
            "two states",
            Box::new(|t| {
                let (dtype, shape, json) = t[&state_name()].clone();
                let json = String::from_utf8(json).unwrap().replace("nf4", "fp4").into_bytes();
                put(t, &super::state_name(W, Code::Fp4), dtype, &shape, json);
            }),
            "a second quant_state",
        ),
        (
            "a state of another code",
            Box::new(|t| {
                let (dtype, shape, json) = t.remove(&state_name()).unwrap();
                put(t, &format!("{W}.quant_state.bitsandbytes__int8"), dtype, &shape, json);
            }),
            "bad quant_type",
        ),
    ];
    for (what, change, culprit) in cases {
        let message = refusal(what, change);
        assert!(message.contains("tensor ") && message.contains(culprit), "{what}: {message}");
    }
}

#[test]
fn weights_and_configuration_must_agree() {
    let tensors = good();
    let file =
        || file_of(tensors.iter().map(|(name, (dtype, shape, bytes))| (name.as_str(), *dtype, &shape[..], &bytes[..])));
    for settings in [Settings { code: Code::Fp4, double: true }, Settings { code: Code::Nf4, double: false }] {
        let raw = Safetensors::from_static(file().leak(), Path::new("lie.safetensors")).unwrap();
        let message = FourBitCheckpoint::new(raw, &settings).err().expect("accepted").to_string();
        assert!(message.contains("config.json") && message.contains("found nf4, double"), "{message}");
    }
    let norm: Tensors = tensors.into_iter().filter(|(name, _)| name == "norm").collect();
    assert!(open(&norm).err().unwrap().to_string().contains("no tensor is quantised"));
}

#[test]
fn blocks_have_one_length() {
    let mut tensors = good();
    let format = Format { code: Code::Nf4, block: 128, scales: ScaleFormat::Nested };
    let quantised = Quantised::new(&[0.5; 128], format);
    let (state, json) = state_part("other.weight", &quantised, [1, 128], "float32");
    for (part, bytes) in
        parts("other.weight", format, [1, 128]).into_iter().zip(contents(&quantised)).chain([(state, json)])
    {
        put(&mut tensors, &part.name, part.dtype, &part.shape, bytes);
    }
    let message = open(&tensors).err().expect("accepted").to_string();
    assert!(message.contains("blocks of another length") && message.contains("other.weight"), "{message}");
}

#[test]
fn damaged_checkpoints_never_panic() {
    let mut random = random();
    for _ in 0..3000 {
        let mut tensors = good();
        for _ in 0..=random(3) {
            let at = random(tensors.len());
            let (_, shape, bytes) = tensors.values_mut().nth(at).unwrap();
            let i = random(bytes.len());
            bytes[i] = if random(2) == 0 { random(256) as u8 } else { b"0123456789[]{},:.\"e-"[random(20)] };
            if random(8) == 0 && shape.len() == 1 && shape[0] == bytes.len() {
                bytes.truncate(random(bytes.len()).max(1));
                *shape = vec![bytes.len()];
            }
        }
        if let Ok(weights) = open(&tensors) {
            weights.names().iter().for_each(|name| drop(weights.read(name)));
        }
    }
}
