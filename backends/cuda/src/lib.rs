//! lowrank on burn-cuda. Builds without a CUDA toolkit; running needs the driver and NVRTC.

use burn_autodiff::Autodiff;
use burn_cuda::{Cuda, CudaDevice};
use cudarc::driver::CudaContext;
use lowrank::runtime::{DeviceInfo, Plug, Processor, Program, Runtime};

/// The backend as `--device cuda[:n]` finds it.
pub static RUNTIME: &dyn Runtime = &Program::<CudaPlug>::new();

struct CudaPlug;

impl Plug for CudaPlug {
    type Backend = Autodiff<Cuda>;
    const NAME: &'static str = "cuda";
    const PROCESSOR: Processor = Processor::Gpu;

    fn devices() -> Vec<(DeviceInfo, CudaDevice)> {
        // SAFETY: only looks for the driver's shared library; without it every other call would panic.
        if !unsafe { cudarc::driver::sys::is_culib_present() } {
            return Vec::new();
        }
        let count = CudaContext::device_count().unwrap_or(0).max(0) as usize;
        let describe = |index| CudaContext::new(index).and_then(|context| context.name());
        let device = |index: usize| {
            let description = describe(index).unwrap_or_else(|error| format!("unusable: {error}"));
            (DeviceInfo { name: format!("cuda:{index}"), description }, CudaDevice { index })
        };
        (0..count).map(device).collect()
    }
}
