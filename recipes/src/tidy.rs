//! Backends of a program, whose allocator is told when a base is there.

use lowrank::Result;
use lowrank::runtime::{Base, BaseSpec, DeviceInfo, Processor, Runtime, SelfTest};

use crate::allocator;

/// What a base leaves behind while it loads goes back to the system: in the holes between what stays, a training step would
/// find room for little.
pub(crate) struct Tidy(pub &'static dyn Runtime);

/// The backend of a crate.
macro_rules! tidy {
    ($backend:ident) => {{
        static RUNTIME: $crate::tidy::Tidy = $crate::tidy::Tidy($backend::RUNTIME);
        &RUNTIME
    }};
}
pub(crate) use tidy;

impl Runtime for Tidy {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn processor(&self) -> Processor {
        self.0.processor()
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        self.0.devices()
    }

    fn self_test(&self, device: usize) -> Result<SelfTest> {
        self.0.self_test(device)
    }

    fn load(&self, device: usize, base: &BaseSpec<'_>) -> Result<Box<dyn Base>> {
        allocator::give_back_pages();
        let base = self.0.load(device, base);
        allocator::keep_pages();
        base
    }
}
