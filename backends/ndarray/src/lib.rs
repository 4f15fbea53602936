//! lowrank on burn-ndarray.

use burn_autodiff::Autodiff;
use burn_ndarray::{NdArray, NdArrayDevice};
use lowrank::runtime::{DeviceInfo, Plug, Processor, Program, Runtime};

/// The backend as `--device ndarray` finds it.
pub static RUNTIME: &dyn Runtime = &Program::<NdArrayPlug>::new();

struct NdArrayPlug;

impl Plug for NdArrayPlug {
    type Backend = Autodiff<NdArray<f32, i32>>;
    const NAME: &'static str = "ndarray";
    const PROCESSOR: Processor = Processor::Cpu;

    fn devices() -> Vec<(DeviceInfo, NdArrayDevice)> {
        let description = format!("CPU, {} threads", lowrank::runtime::cpu_threads());
        vec![(DeviceInfo { name: "ndarray".into(), description, ..DeviceInfo::default() }, NdArrayDevice::Cpu)]
    }
}
