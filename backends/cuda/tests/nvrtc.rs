//! The kernels of packed weights through CubeCL's CUDA compiler and NVRTC. Needs neither a driver nor a GPU, and runs nothing.
//!
//! NVRTC is looked for as the loader looks for libraries, the headers in `$CUDA_PATH/include`. Also a test of the crate
//! `lowrank-kernels`, where it builds in a fraction of the time: `cargo test -p lowrank-kernels --features nvrtc --test nvrtc`.

use std::ffi::{CStr, CString};
use std::path::PathBuf;

use cubecl::ir::{DeviceProperties, HardwareProperties, MemoryDeviceProperties, VectorSize};
use cubecl::prelude::{AddressType, KernelDefinition};
use cubecl::profile::TimingMethod;
use cubecl::server::ExecutionMode;
use cubecl::{Compiler, features::Features};
use cubecl_cpp::cuda::{CudaDialect, mma::CudaWmmaCompiler};
use cubecl_cpp::register_supported_types;
use cubecl_cpp::shared::{CompilationOptions, CppCompiler, CppSupportedFeatures};
use cudarc::nvrtc::{result, sys};

type CudaCompiler = CppCompiler<CudaDialect<CudaWmmaCompiler>>;

/// Turing, Ampere, Hopper.
const ARCHITECTURES: [&str; 3] = ["sm_75", "sm_80", "sm_90a"];

/// What the CUDA runtime of CubeCL says of a device, as far as kernels without tensor cores ask.
fn properties() -> DeviceProperties {
    let hardware = HardwareProperties {
        load_width: 128,
        plane_size_min: 32,
        plane_size_max: 32,
        max_bindings: 1024,
        max_shared_memory_size: 48 << 10,
        max_cube_count: (i32::MAX as u32, 65535, 65535),
        max_units_per_cube: 1024,
        max_cube_dim: (1024, 1024, 64),
        num_streaming_multiprocessors: None,
        num_cpu_cores: None,
        num_tensor_cores: None,
        min_tensor_cores_dim: None,
        max_vector_size: VectorSize::MAX,
    };
    let memory = MemoryDeviceProperties { max_page_size: 1 << 30, alignment: 512 };
    let mut properties = DeviceProperties::new(Features::default(), memory, hardware, TimingMethod::System);
    register_supported_types(&mut properties);
    properties
}

fn source(kernel: KernelDefinition) -> String {
    let features = CppSupportedFeatures { fast_math: true, grid_constants: true, ..Default::default() };
    let options = CompilationOptions { warp_size: 32, supports_features: features };
    let address = AddressType::U32.unsigned_type();
    let compiled = CudaCompiler::default().compile(kernel, &options, ExecutionMode::Unchecked, address);
    compiled.expect("a kernel that CubeCL compiles").to_string()
}

/// PTX, or what NVRTC has against it.
fn compile(source: &str, architecture: &str, include: &str) -> Result<String, String> {
    let source = CString::new(source).expect("no zeros in a source");
    let options = [format!("--gpu-architecture={architecture}"), format!("--include-path={include}")];
    let program = result::create_program(&source, None).map_err(|error| error.to_string())?;
    // SAFETY: the program was made above, is destroyed once and last, and its source outlives it.
    unsafe {
        let compiled = result::compile_program(program, &options);
        let text = if compiled.is_ok() { result::get_ptx(program) } else { result::get_program_log(program) };
        let text = text.map_err(|error| error.to_string())?;
        result::destroy_program(program).map_err(|error| error.to_string())?;
        let text = CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned();
        compiled.map(|()| text.clone()).map_err(|_| text)
    }
}

#[test]
fn nvrtc_compiles_every_kernel() {
    // SAFETY: only looks for the shared library; without it every other call would panic.
    if !unsafe { sys::is_culib_present() } {
        return eprintln!("skipped: no NVRTC");
    }
    let include = std::env::var_os("CUDA_PATH").map_or("/usr/local/cuda".into(), PathBuf::from).join("include");
    if !include.join("cuda_runtime.h").exists() {
        return eprintln!("skipped: no CUDA headers in {}, see CUDA_PATH", include.display());
    }
    let include = include.display().to_string();
    for (name, kernel) in lowrank_kernels::sources(&properties()) {
        let source = source(kernel);
        for architecture in ARCHITECTURES {
            let ptx = compile(&source, architecture, &include)
                .unwrap_or_else(|log| panic!("{name} for {architecture}: {log}\n{source}"));
            assert!(ptx.contains(&format!(".entry {name}")), "{name} for {architecture}");
            // Sums and decoded weights belong in registers.
            assert!(!ptx.contains("ld.local"), "{name} for {architecture} spills\n{source}");
        }
    }
}
