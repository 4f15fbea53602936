//! The kernels before any runtime compiles them, so that compilers can be tested without their device.

use burn::tensor::{bf16, f16};
use cubecl::ir::DeviceProperties;
use cubecl::prelude::*;

use super::packed::{Packed, PackedCompilationArg, Run, ScalesCompilationArg};
use super::{matvec, slices, tiled};
use crate::{Compute, Side};

const ARRAY: ArrayCompilationArg = ArrayCompilationArg { inplace: None };

/// Every kernel in every storage and type that a device with these properties may be asked for, by name.
pub fn sources(properties: &DeviceProperties) -> Vec<(String, KernelDefinition)> {
    let computes = [Compute::F32, Compute::Bf16, Compute::F16];
    let runs = [Run::new(8), Run::new(1)];
    let all = computes.into_iter().flat_map(|compute| runs.map(|run| (compute, run)));
    let of = |(compute, run): (Compute, Run)| match (compute, run.vector) {
        (Compute::F32, 1) => typed::<f32, Const<1>>(compute, run, properties),
        (Compute::F32, _) => typed::<f32, Const<4>>(compute, run, properties),
        (Compute::Bf16, 1) => typed::<bf16, Const<1>>(compute, run, properties),
        (Compute::Bf16, _) => typed::<bf16, Const<4>>(compute, run, properties),
        (Compute::F16, 1) => typed::<f16, Const<1>>(compute, run, properties),
        (Compute::F16, _) => typed::<f16, Const<4>>(compute, run, properties),
    };
    all.flat_map(of).collect()
}

fn typed<F: Float, N: Size>(
    compute: Compute,
    run: Run,
    properties: &DeviceProperties,
) -> Vec<(String, KernelDefinition)> {
    let nested = ScalesCompilationArg::Nested { codes: ARRAY, values: ARRAY, map: ARRAY, offset: ARRAY };
    let four_bit = |scales| PackedCompilationArg::FourBit { codes: ARRAY, book: ARRAY, scales };
    let storages = [
        ("bf16", PackedCompilationArg::Bf16 { codes: ARRAY }),
        ("four_bit", four_bit(ScalesCompilationArg::F32 { values: ARRAY })),
        ("nested", four_bit(nested)),
    ];
    let kernels = storages.iter().flat_map(|(storage, weight)| {
        let name = |kernel: &str| format!("{kernel}_{storage}_{}_{}", compute.name(), run.vector);
        let unpack = (name("unpack"), unpack::<F, N>(&name("unpack"), weight, run, compute, properties));
        let matvec = [1, matvec::MOST_ROWS].map(|m| {
            let name = name(&format!("matvec{m}"));
            (name.clone(), matvec::<F, N>(&name, weight, m, run, compute, properties))
        });
        let tiled = [Side::Forward, Side::Backward].map(|side| {
            let [one, four] = [1, 4].map(|of_x| name(&format!("tiled{side:?}{of_x}")));
            [
                (one.clone(), tiled::<F, Const<1>, N>(&one, weight, side, [1, run.vector], compute, properties)),
                (four.clone(), tiled::<F, Const<4>, N>(&four, weight, side, [4, run.vector], compute, properties)),
            ]
        });
        [unpack].into_iter().chain(matvec).chain(tiled.into_iter().flatten())
    });
    kernels.collect()
}

fn builder(properties: &DeviceProperties) -> KernelBuilder {
    let mut builder = KernelBuilder::default();
    builder.device_properties(properties);
    AddressType::U32.register(&mut builder.scope);
    builder
}

fn unpack<F: Float, N: Size>(
    name: &str,
    weight: &PackedCompilationArg,
    run: Run,
    compute: Compute,
    properties: &DeviceProperties,
) -> KernelDefinition {
    let mut builder = builder(properties);
    let weight = <Packed as LaunchArg>::expand(weight, &mut builder);
    let out = <Array<Vector<F, N>> as LaunchArg>::expand_output(&ARRAY, &mut builder);
    let [row, col, cols, width] = std::array::from_fn(|_| <u32 as LaunchArg>::expand(&(), &mut builder));
    let dtype = super::dtype(compute).into();
    slices::unpack::expand::<F, N>(&mut builder.scope, run.vector, weight, out, row, col, cols, width, 64, dtype);
    builder.build(KernelSettings::default().cube_dim(CubeDim::new_1d(256)).kernel_name(name))
}

fn matvec<F: Float, N: Size>(
    name: &str,
    weight: &PackedCompilationArg,
    m: usize,
    run: Run,
    compute: Compute,
    properties: &DeviceProperties,
) -> KernelDefinition {
    let mut builder = builder(properties);
    let x = <Array<Vector<f32, N>> as LaunchArg>::expand(&ARRAY, &mut builder);
    let weight = <Packed as LaunchArg>::expand(weight, &mut builder);
    let y = <Array<f32> as LaunchArg>::expand_output(&ARRAY, &mut builder);
    let [rows, cols] = std::array::from_fn(|_| <u32 as LaunchArg>::expand(&(), &mut builder));
    let dtype = super::dtype(compute).into();
    matvec::matvec::expand::<F, N>(&mut builder.scope, run.vector, x, weight, y, rows, cols, m, run.len, 64, dtype);
    builder.build(KernelSettings::default().cube_dim(CubeDim::new_1d(matvec::UNITS as u32)).kernel_name(name))
}

fn tiled<F: Float, V: Size, N: Size>(
    name: &str,
    weight: &PackedCompilationArg,
    side: Side,
    [of_x, of_w]: [usize; 2],
    compute: Compute,
    properties: &DeviceProperties,
) -> KernelDefinition {
    let mut builder = builder(properties);
    let x = <Array<Vector<f32, V>> as LaunchArg>::expand(&ARRAY, &mut builder);
    let weight = <Packed as LaunchArg>::expand(weight, &mut builder);
    let y = <Array<f32> as LaunchArg>::expand_output(&ARRAY, &mut builder);
    let [m, rows, cols] = std::array::from_fn(|_| <u32 as LaunchArg>::expand(&(), &mut builder));
    let dtype = super::dtype(compute).into();
    tiled::tiled::expand::<F, V, N>(&mut builder.scope, of_x, of_w, x, weight, y, m, rows, cols, side, 64, dtype);
    builder.build(KernelSettings::default().cube_dim(CubeDim::new_1d(tiled::UNITS as u32)).kernel_name(name))
}
