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
        let device = |index| (info(index), CudaDevice { index });
        (0..count).map(device).collect()
    }
}

/// What the driver says of a device, or why it says nothing.
fn info(index: usize) -> DeviceInfo {
    let name = format!("cuda:{index}");
    let asked = CudaContext::new(index).and_then(|context| {
        let (major, minor) = context.compute_capability()?;
        Ok((format!("{} (compute capability {major}.{minor})", context.name()?), context.total_mem()?))
    });
    match asked {
        Ok((description, memory)) => {
            DeviceInfo { name, description, driver: driver(), memory: Some(memory as u64), largest_buffer: None }
        }
        Err(error) => DeviceInfo { name, description: format!("unusable: {error}"), ..DeviceInfo::default() },
    }
}

/// The newest CUDA that the driver knows: 12040 is 12.4.
fn driver() -> Option<String> {
    let mut version = 0;
    // SAFETY: the driver writes one integer to where the pointer says.
    let answer = unsafe { cudarc::driver::sys::cuDriverGetVersion(&raw mut version) };
    (answer == cudarc::driver::sys::CUresult::CUDA_SUCCESS)
        .then(|| format!("CUDA {}.{}", version / 1000, version % 1000 / 10))
}
