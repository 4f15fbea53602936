//! The kernels of packed weights against the host's arithmetic, without the model around them.
//!
//! Also a test of the crate `lowrank-kernels`, where it builds in a fraction of the time:
//! `cargo test -p lowrank-kernels --features wgpu --test wgpu`.

use burn::tensor::{Int, Tensor, TensorData, f16};
use burn_wgpu::{Wgpu, WgpuDevice};
use lowrank_kernels::four_bit::{Code, Format, Quantised, ScaleFormat, Scales, dynamic_map};
use lowrank_kernels::{
    BlockScales, Compute, FourBit, FrozenWeight, LowRankBackend, Side, bf16, frozen_matmul, frozen_rows, host,
    plain_frozen_matmul, splitmix,
};

/// Largest difference, in parts of `Σ |x| |w|`. f32 sums in any order of up to 20,000 terms stay below.
const TOLERANCE: f32 = 1e-5;

const SIDES: [Side; 2] = [Side::Forward, Side::Backward];

/// Rows of `x`: at the step from one kernel to the other, a full tile, and tiles of which one is not full.
const ROWS: [usize; 5] = [1, 8, 9, 64, 130];

const NF4: Format = Format { code: Code::Nf4, block: 64, scales: ScaleFormat::F32 };

/// The device that burn would take, if there is any.
fn device() -> Option<WgpuDevice> {
    let descriptor = wgpu::InstanceDescriptor {
        backends: wgpu::Backends::PRIMARY,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    };
    let adapters = wgpu::Instance::new(descriptor).enumerate_adapters(wgpu::Backends::PRIMARY);
    let found = !pollster::block_on(adapters).is_empty();
    if !found {
        eprintln!("skipped: no wgpu device");
    }
    found.then(WgpuDevice::default)
}

/// Between -1 and 1.
fn uniform(seed: u64, n: usize) -> Vec<f32> {
    let value = |i| (splitmix::next(seed << 32 | i) as f64 / u64::MAX as f64) as f32;
    (0..n as u64).map(|i| 2.0 * value(i) - 1.0).collect()
}

fn floats(values: &[f32], device: &WgpuDevice) -> <Wgpu as burn::tensor::backend::BackendTypes>::FloatTensorPrimitive {
    Tensor::<Wgpu, 1>::from_data(TensorData::from(values), device).into_primitive().tensor()
}

fn integers(bytes: &[u8], device: &WgpuDevice) -> <Wgpu as burn::tensor::backend::BackendTypes>::IntTensorPrimitive {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let values: Vec<i32> = bytes.as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect();
    Tensor::<Wgpu, 1, Int>::from_data(TensorData::from(&values[..]), device).into_primitive()
}

/// A weight on the device, and its values.
struct Case {
    weight: FrozenWeight<Wgpu>,
    values: Vec<f32>,
    shape: [usize; 2],
}

fn four_bit(shape: [usize; 2], format: Format, compute: Compute, device: &WgpuDevice) -> Case {
    let [rows, cols] = shape;
    let quantised = Quantised::new(&uniform(1, rows * cols), format);
    let scales = match &quantised.scales {
        Scales::F32(scales) => BlockScales::F32(floats(scales, device)),
        Scales::Nested(nested) => BlockScales::Nested {
            codes: integers(&nested.codes, device),
            scales: floats(&nested.scales, device),
            map: floats(&dynamic_map(), device),
            offset: floats(&[nested.offset], device),
        },
    };
    let (codes, book) = (integers(&quantised.bytes, device), floats(&format.code.book(), device));
    let weight = FrozenWeight::FourBit(FourBit { codes, scales, book, block: format.block, rows, cols, compute });
    Case { weight, values: quantised.dequantise(), shape }
}

fn bfloat16(shape: [usize; 2], compute: Compute, device: &WgpuDevice) -> Case {
    let [rows, cols] = shape;
    let codes = bf16::pack(&uniform(2, rows * cols));
    let mut values = vec![0.0; rows * cols];
    bf16::unpack(&codes, 0, &mut values);
    let codes = Tensor::<Wgpu, 1, Int>::from_data(TensorData::from(&codes[..]), device).into_primitive();
    let weight = FrozenWeight::Bf16 { codes, table: floats(&bf16::table(), device), rows, cols, compute };
    Case { weight, values, shape }
}

fn transposed(values: &[f32], [rows, cols]: [usize; 2]) -> Vec<f32> {
    (0..rows * cols).map(|i| values[i % rows * cols + i / rows]).collect()
}

/// The product on the device, and the largest difference from `x` times `values` in parts of `Σ |x| |w|`.
fn difference(case: &Case, x: &[f32], m: usize, side: Side, round: fn(f32) -> f32, device: &WgpuDevice) -> f32 {
    let [rows, cols] = case.shape;
    let (inner, outer) = if side == Side::Forward { (cols, rows) } else { (rows, cols) };
    let input = Tensor::<Wgpu, 2>::from_data(TensorData::new(x.to_vec(), [m, inner]), device);
    let found = frozen_matmul(input, case.weight.clone(), side).into_data().to_vec::<f32>().expect("f32");
    let product = |f: &dyn Fn(f32) -> f32| {
        let x: Vec<f32> = x.iter().map(|x| f(*x)).collect();
        let w: Vec<f32> = case.values.iter().map(|w| f(*w)).collect();
        let w = if side == Side::Forward { transposed(&w, case.shape) } else { w };
        host::matmul(&x, [m, inner], &w, [inner, outer])
    };
    let (expected, magnitude) = (product(&round), product(&f32::abs));
    assert_eq!(found.len(), expected.len());
    let off = found.iter().zip(&expected).zip(&magnitude).map(|((y, e), s)| (y - e).abs() / s);
    off.fold(0.0, |worst, off| if off.is_nan() { f32::INFINITY } else { worst.max(off) })
}

fn check(case: &Case, rows: &[usize], device: &WgpuDevice) {
    for side in SIDES {
        for &m in rows {
            let inner = case.shape[usize::from(side == Side::Forward)];
            let off = difference(case, &uniform(3, m * inner), m, side, |value| value, device);
            assert!(off <= TOLERANCE, "{:?} of {:?}, {m} rows, {side:?}: off by {off}", case.weight, case.shape);
        }
    }
}

#[test]
fn four_bit_products_of_any_shape() {
    let Some(device) = device() else { return };
    for shape in [[1, 1], [3, 5], [33, 7], [64, 64], [48, 96], [65, 129], [7, 1000], [300, 72], [1023, 8]] {
        for code in Code::ALL {
            for scales in [ScaleFormat::F32, ScaleFormat::Nested] {
                check(&four_bit(shape, Format { code, scales, ..NF4 }, Compute::F32, &device), &ROWS, &device);
            }
        }
    }
}

#[test]
fn blocks_of_every_size_straddle_rows() {
    let Some(device) = device() else { return };
    for block in lowrank_kernels::four_bit::BLOCKS {
        for scales in [ScaleFormat::F32, ScaleFormat::Nested] {
            // One of each kernel: every block is compiled for anew.
            check(&four_bit([130, 200], Format { block, scales, ..NF4 }, Compute::F32, &device), &[1, 130], &device);
        }
    }
}

#[test]
fn bfloat16_products_of_any_shape() {
    let Some(device) = device() else { return };
    for shape in [[1, 1], [3, 5], [64, 64], [65, 129], [63, 66], [300, 72]] {
        check(&bfloat16(shape, Compute::F32, &device), &ROWS, &device);
    }
}

/// In every storage, by hand and as tensor operations on the same device.
#[test]
fn the_plain_body_computes_the_same() {
    let Some(device) = device() else { return };
    let shape = [70, 136];
    let nested = Format { scales: ScaleFormat::Nested, ..NF4 };
    let cases = [
        four_bit(shape, NF4, Compute::F32, &device),
        four_bit(shape, nested, Compute::F32, &device),
        bfloat16(shape, Compute::F32, &device),
    ];
    for (case, side) in cases.iter().flat_map(|case| SIDES.map(|side| (case, side))) {
        for m in ROWS {
            let inner = shape[usize::from(side == Side::Forward)];
            let x = || Tensor::<Wgpu, 2>::from_data(TensorData::new(uniform(3, m * inner), [m, inner]), &device);
            let plain = plain_frozen_matmul(x(), case.weight.clone(), side);
            let off = (frozen_matmul(x(), case.weight.clone(), side) - plain).abs().max().into_scalar();
            // Sums of up to 136 terms below 1.
            assert!(off <= 136.0 * TOLERANCE, "{:?}, {m} rows, {side:?}: off by {off}", case.weight);
        }
    }
}

fn f16_device() -> Option<WgpuDevice> {
    let device = device()?;
    let found = Wgpu::<f32, i32, u32>::computes_in(Compute::F16, &device);
    if !found {
        eprintln!("skipped: the adapter has no f16");
    }
    found.then_some(device)
}

fn f16_rounded(value: f32) -> f32 {
    f16::from_f32(value).to_f32()
}

#[test]
fn half_precision_rounds_operands_and_not_sums() {
    let Some(device) = f16_device() else { return };
    let nested = Format { scales: ScaleFormat::Nested, ..NF4 };
    for (shape, format) in [([72, 320], NF4), ([65, 129], nested)] {
        let cases = [four_bit(shape, format, Compute::F16, &device), bfloat16(shape, Compute::F16, &device)];
        for (case, side) in cases.iter().flat_map(|case| SIDES.map(|side| (case, side))) {
            for m in [1, 9, 63, 64, 130] {
                let x = uniform(3, m * shape[usize::from(side == Side::Forward)]);
                let off = difference(case, &x, m, side, f16_rounded, &device);
                assert!(off <= TOLERANCE, "{:?} of {shape:?}, {m} rows, {side:?}: off by {off}", case.weight);
                assert!(difference(case, &x, m, side, |value| value, &device) > TOLERANCE);
            }
        }
    }
}

/// More elements than are decoded at a time, on either side.
#[test]
fn slices_join_without_a_seam() {
    let Some(device) = f16_device() else { return };
    for shape in [[600, 20_000], [20_000, 600]] {
        let case = four_bit(shape, NF4, Compute::F16, &device);
        for side in SIDES {
            let x = uniform(3, 64 * shape[usize::from(side == Side::Forward)]);
            let off = difference(&case, &x, 64, side, f16_rounded, &device);
            assert!(off <= TOLERANCE, "{shape:?} {side:?}: off by {off}");
        }
    }
}

#[test]
fn a_type_the_device_lacks_is_not_computed_in() {
    let Some(device) = device() else { return };
    assert!(Wgpu::<f32, i32, u32>::computes_in(Compute::F32, &device));
    // WGSL has no bfloat16.
    assert!(!Wgpu::<f32, i32, u32>::computes_in(Compute::Bf16, &device));
}

#[test]
fn rows_come_out_as_they_are() {
    let Some(device) = device() else { return };
    let nested = Format { scales: ScaleFormat::Nested, ..NF4 };
    for case in [four_bit([65, 129], nested, Compute::F32, &device), four_bit([40, 64], NF4, Compute::F32, &device)] {
        let ids = [3, 0, 39, 3];
        let tensor = Tensor::<Wgpu, 1, Int>::from_data(TensorData::from(ids), &device);
        let found = frozen_rows(case.weight, tensor).into_data().to_vec::<f32>().expect("f32");
        let cols = case.shape[1];
        let expected = ids.iter().flat_map(|id| &case.values[*id as usize * cols..][..cols]);
        let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 2.0 * f32::EPSILON, "{worst}");
    }
}

/// A product of what is not computed yet, and of a slice whose rows do not lie one behind the other.
#[test]
fn operands_may_be_views() {
    let Some(device) = device() else { return };
    let case = four_bit([40, 64], NF4, Compute::F32, &device);
    for m in [4, 20] {
        let wide = Tensor::<Wgpu, 2>::from_data(TensorData::new(uniform(3, 128 * m), [128, m]), &device);
        let view = || (wide.clone().transpose() * 2.0).slice([0..m, 64..128]);
        let direct = frozen_matmul(view(), case.weight.clone(), Side::Forward).into_data();
        let copied = Tensor::<Wgpu, 2>::from_data(view().into_data(), &device);
        let expected = frozen_matmul(copied, case.weight.clone(), Side::Forward).into_data();
        direct.assert_eq(&expected, true);
    }
}
