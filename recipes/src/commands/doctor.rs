//! `lowrank doctor`: what this build has, what this machine offers it, and whether that works.

use lowrank::events::{Format, units};
use lowrank::runtime::{DeviceInfo, Host, Processor, Runtime, SelfTest};
use lowrank::{Error, Result};
use lowrank_cli::device::{BACKENDS, pick, runtimes};
use lowrank_cli::features::FEATURES;
use lowrank_cli::stdout;
use lowrank_cli::table::Table;
use serde::Serialize;

use crate::args::Output;

const EXAMPLES: &str = "\
Examples:
  lowrank doctor
  lowrank doctor --format json

Each device is tested for about a second; kernels that must be compiled first take longer.
Exit code 1 if a device fails; the others are tested all the same.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Doctor {}

/// Everything that is found.
#[derive(Serialize)]
struct Report {
    version: &'static str,
    /// Cargo features of this build, by name.
    features: serde_json::Value,
    host: Host,
    /// The device that `--device auto` takes.
    auto: Option<String>,
    backends: Vec<Backend>,
}

#[derive(Serialize)]
struct Backend {
    name: &'static str,
    /// None if the backend is not compiled in.
    processor: Option<Processor>,
    devices: Vec<Tested>,
}

/// A device, and either what its test gave or why it failed.
#[derive(Serialize)]
struct Tested {
    #[serde(flatten)]
    device: DeviceInfo,
    self_test: Option<SelfTest>,
    error: Option<String>,
}

impl Doctor {
    pub fn run(&self, output: &Output) -> Result<()> {
        let progress = |device: &DeviceInfo| {
            if !output.quiet {
                eprintln!("testing {}", device.name);
            }
        };
        let report = Report::new(&runtimes(), progress);
        match output.format {
            Format::Json => stdout::print_json(&report)?,
            Format::Text => stdout::print(&report.text())?,
        }
        report.verdict()
    }
}

impl Report {
    fn new(runtimes: &[&dyn Runtime], progress: impl Fn(&DeviceInfo)) -> Self {
        let backend = |name| match runtimes.iter().find(|runtime| runtime.name() == name) {
            None => Backend { name, processor: None, devices: Vec::new() },
            Some(runtime) => Backend::test(*runtime, &progress),
        };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            features: FEATURES
                .iter()
                .map(|(name, compiled_in)| (name.to_string(), serde_json::Value::from(*compiled_in)))
                .collect(),
            host: Host::new(),
            auto: pick("auto").ok().map(|chosen| chosen.device.name),
            backends: BACKENDS.into_iter().map(backend).collect(),
        }
    }

    /// An error that names the devices that failed.
    fn verdict(&self) -> Result<()> {
        let devices = self.backends.iter().flat_map(|backend| &backend.devices);
        let failed: Vec<&str> =
            devices.filter(|tested| tested.error.is_some()).map(|tested| tested.device.name.as_str()).collect();
        if failed.is_empty() { Ok(()) } else { Err(Error::Failed(format!("self-test failed: {}", failed.join(", ")))) }
    }

    fn text(&self) -> String {
        let (version, host) = (self.version, &self.host);
        let named = |wanted: bool| {
            let names = FEATURES.iter().filter(|(_, compiled_in)| *compiled_in == wanted).map(|(name, _)| *name);
            names.collect::<Vec<_>>().join(" ")
        };
        let processor = host.processor.as_deref().unwrap_or("processor");
        let features = if host.features.is_empty() { "none known".into() } else { host.features.join(" ") };
        let memory = match (host.memory, host.available) {
            (Some(all), Some(left)) => format!("{}, {} available", units::bytes(all), units::bytes(left)),
            (all, _) => all.map_or("not known".into(), units::bytes),
        };
        format!(
            "lowrank {version}\nbuilt with   {}\nwithout      {}\nprocessor    {processor}, {} threads\n\
             instructions {features}\nmemory       {memory}\n\n{}",
            named(true),
            named(false),
            host.threads,
            self.table()
        )
    }

    fn table(&self) -> String {
        let mut table = Table::new(["backend", "device", "f32 product", "frozen weights", "first use", "what it is"]);
        for backend in &self.backends {
            let name = || backend.name.to_string();
            let without = |why: String| [name(), "-".into(), "-".into(), "-".into(), "-".into(), why];
            match backend.processor {
                None => table.row(without(format!("not compiled in: build with --features {}", backend.name))),
                Some(_) if backend.devices.is_empty() => {
                    table.row(without("compiled in, but no device answers: is its driver installed?".into()));
                }
                Some(_) => backend.devices.iter().for_each(|tested| {
                    let auto = self.auto.as_ref() == Some(&tested.device.name);
                    let note = if auto { ", what `--device auto` takes" } else { "" };
                    let [product, frozen, first] = tested.outcome();
                    table.row([
                        name(),
                        tested.device.name.clone(),
                        product,
                        frozen,
                        first,
                        tested.description() + note,
                    ]);
                }),
            }
        }
        table.render()
    }
}

impl Backend {
    fn test(runtime: &dyn Runtime, progress: &impl Fn(&DeviceInfo)) -> Self {
        let test = |(number, device): (usize, DeviceInfo)| {
            progress(&device);
            match silently(|| runtime.self_test(number)) {
                Ok(passed) => Tested { device, self_test: Some(passed), error: None },
                Err(error) => Tested { device, self_test: None, error: Some(error.to_string()) },
            }
        };
        let devices = runtime.devices().into_iter().enumerate().map(test).collect();
        Self { name: runtime.name(), processor: Some(runtime.processor()), devices }
    }
}

impl Tested {
    /// Speed, storages and first use; or that it failed.
    fn outcome(&self) -> [String; 3] {
        let Some(test) = &self.self_test else { return ["failed".into(), "-".into(), "-".into()] };
        let product = format!("{:.0} GFLOP/s ({} rows)", test.matmul.gflops, test.matmul.size);
        let storages: Vec<_> = test.frozen.iter().map(|frozen| frozen.storage).collect();
        [product, format!("{} right", storages.join(" ")), format!("{:.0} ms", test.first_use_ms)]
    }

    fn description(&self) -> String {
        let DeviceInfo { description, driver, memory, largest_buffer, .. } = &self.device;
        let facts = [
            driver.as_ref().map(|driver| format!("driver {driver}")),
            memory.map(|memory| format!("memory {}", units::bytes(memory))),
            largest_buffer.map(|bytes| format!("buffers up to {}", units::bytes(bytes))),
            self.error.as_ref().map(|error| format!("FAILED: {error}")),
        ];
        [Some(description.clone())].into_iter().chain(facts).flatten().collect::<Vec<_>>().join(", ")
    }
}

/// The reason of a panic is in the device's row; its trace would only be in the way.
fn silently<T>(test: impl FnOnce() -> T) -> T {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let result = test();
    std::panic::set_hook(hook);
    result
}

#[cfg(test)]
mod tests {
    use lowrank::runtime::{Base, BaseSpec, Frozen, Matmul};

    use super::*;

    /// A backend of one device that works, and one that does not.
    struct Half;

    impl Runtime for Half {
        fn name(&self) -> &'static str {
            "wgpu"
        }
        fn processor(&self) -> Processor {
            Processor::Gpu
        }
        fn devices(&self) -> Vec<DeviceInfo> {
            let device = |name: &str| DeviceInfo { name: name.into(), ..DeviceInfo::default() };
            let memory = Some(24 << 30);
            vec![device("wgpu:0"), DeviceInfo { description: "Some GPU".into(), memory, ..device("wgpu:1") }]
        }
        fn self_test(&self, device: usize) -> Result<SelfTest> {
            match device {
                0 => Err(Error::Failed("device lost".into())),
                _ => Ok(SelfTest {
                    first_use_ms: 3210.4,
                    matmul: Matmul { size: 2048, products: 7, gflops: 812.6, error: 1e-6 },
                    frozen: ["f32", "nf4"].map(|storage| Frozen { storage, error: 0.0 }).to_vec(),
                }),
            }
        }
        fn load(&self, _: usize, _: &BaseSpec<'_>) -> Result<Box<dyn Base>> {
            Err(Error::Failed("it only takes tests".into()))
        }
    }

    #[test]
    fn a_device_that_fails_says_so_and_does_not_stop_the_others() {
        let report = Report::new(&[&Half], |_| ());
        let text = report.text();
        let row = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{text}"));
        assert!(row("wgpu     wgpu:0").contains("failed") && row("wgpu     wgpu:0").contains("FAILED: device lost"));
        let works = row("wgpu     wgpu:1");
        for part in ["813 GFLOP/s (2048 rows)", "f32 nf4 right", "3210 ms", "Some GPU, memory 24 GiB"] {
            assert!(works.contains(part), "{works}");
        }
        assert!(row("cuda").contains("--features cuda"), "only what is given is compiled in");
        let error = report.verdict().unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().as_str()), (1, "self-test failed: wgpu:0"));
        let json = serde_json::to_value(&report).unwrap();
        let devices = &json["backends"][1]["devices"];
        assert_eq!((&devices[0]["error"], &devices[0]["self_test"]), (&"device lost".into(), &serde_json::Value::Null));
        assert_eq!(devices[1]["self_test"]["matmul"]["size"], 2048);
    }
}
