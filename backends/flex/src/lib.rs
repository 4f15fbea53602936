//! lowrank on burn-flex, the faster CPU backend.

use burn_autodiff::Autodiff;
use burn_flex::{Flex, FlexDevice};
use lowrank::runtime::{DeviceInfo, Plug, Processor, Program, Runtime};

/// The backend as `--device flex` finds it.
pub static RUNTIME: &dyn Runtime = &Program::<FlexPlug>::new();

struct FlexPlug;

impl Plug for FlexPlug {
    type Backend = Autodiff<Flex>;
    const NAME: &'static str = "flex";
    const PROCESSOR: Processor = Processor::Cpu;

    fn devices() -> Vec<(DeviceInfo, FlexDevice)> {
        let description = format!("CPU, {} threads", lowrank::runtime::cpu_threads());
        vec![(DeviceInfo { name: "flex".into(), description, ..DeviceInfo::default() }, FlexDevice)]
    }
}
