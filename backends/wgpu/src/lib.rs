//! lowrank on burn-wgpu: Vulkan, Metal or DirectX 12.

use burn_autodiff::Autodiff;
use burn_wgpu::{Wgpu, WgpuDevice};
use lowrank::runtime::{DeviceInfo, Plug, Processor, Program, Runtime};
use wgpu::DeviceType;

/// The backend as `--device wgpu[:n]` finds it.
pub static RUNTIME: &dyn Runtime = &Program::<WgpuPlug>::new();

struct WgpuPlug;

impl Plug for WgpuPlug {
    type Backend = Autodiff<Wgpu>;
    const NAME: &'static str = "wgpu";
    const PROCESSOR: Processor = Processor::Gpu;

    /// Adapters by kind, the strongest first; burn numbers them within their kind.
    fn devices() -> Vec<(DeviceInfo, WgpuDevice)> {
        let descriptor = wgpu::InstanceDescriptor {
            backends: wgpu::Backends::PRIMARY,
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        };
        let instance = wgpu::Instance::new(descriptor);
        let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
        let infos: Vec<_> = adapters.iter().map(|adapter| (adapter.get_info(), adapter.limits())).collect();
        let of = |kind: DeviceType, device: fn(usize) -> WgpuDevice| {
            let found = infos.iter().filter(move |(info, _)| info.device_type == kind);
            found.enumerate().map(move |(i, found)| (device(i), found))
        };
        let devices = of(DeviceType::DiscreteGpu, WgpuDevice::DiscreteGpu)
            .chain(of(DeviceType::IntegratedGpu, WgpuDevice::IntegratedGpu))
            .chain(of(DeviceType::VirtualGpu, WgpuDevice::VirtualGpu))
            .chain(of(DeviceType::Cpu, |_| WgpuDevice::Cpu).take(1));
        devices.enumerate().map(|(i, (device, (info, limits)))| (describe(i, info, limits), device)).collect()
    }
}

/// wgpu does not say how much memory there is, only how much of it one buffer may take.
fn describe(i: usize, info: &wgpu::AdapterInfo, limits: &wgpu::Limits) -> DeviceInfo {
    let driver = format!("{} {}", info.driver, info.driver_info).trim().to_string();
    DeviceInfo {
        name: format!("wgpu:{i}"),
        description: format!("{} ({:?}, {:?})", info.name, info.backend, info.device_type),
        driver: Some(driver).filter(|driver| !driver.is_empty()),
        memory: None,
        largest_buffer: Some(limits.max_buffer_size.min(limits.max_storage_buffer_binding_size)),
    }
}
