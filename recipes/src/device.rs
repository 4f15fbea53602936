//! Which backends this program holds, and which of their devices `--device` means.

use lowrank::recipe::nearest;
use lowrank::runtime::{DeviceInfo, Runtime};
use lowrank::train::Target;
use lowrank::{Error, Result};

use crate::tidy::tidy;

/// Every backend there is a plug for; each is also the name of its cargo feature.
pub const BACKENDS: [&str; 4] = ["cuda", "wgpu", "flex", "ndarray"];
/// CPU backends, the faster one first.
const CPU: [&str; 2] = ["flex", "ndarray"];
/// Drivers that compute on the CPU what they are asked to compute on a GPU.
const SOFTWARE: [&str; 3] = ["llvmpipe", "lavapipe", "swiftshader"];

/// The backends that are compiled in, in the order in which `auto` tries them; programs that compute begin here.
pub fn runtimes() -> Vec<&'static dyn Runtime> {
    crate::allocator::small_pages();
    vec![
        #[cfg(feature = "cuda")]
        tidy!(lowrank_cuda),
        #[cfg(feature = "wgpu")]
        tidy!(lowrank_wgpu),
        #[cfg(feature = "flex")]
        tidy!(lowrank_flex),
        #[cfg(feature = "ndarray")]
        tidy!(lowrank_ndarray),
    ]
}

/// What `--device` means: `auto`, `cpu`, a backend, or `backend:n`.
/// A backend that is not compiled in, or has no such device, is an input error.
/// Called on the thread that is going to compute, which from then on is one of those that share the work.
pub fn pick(wanted: &str) -> Result<Target> {
    crate::threads::join_pool();
    let runtimes = runtimes();
    let backends: Vec<Backend> = runtimes.iter().map(|&runtime| Backend::of(runtime)).collect();
    let (backend, index, device) = choose(&backends, wanted)?;
    Ok(Target { runtime: runtimes[backend], index, device })
}

/// A compiled backend and the way to ask for its devices, which may wake a driver.
struct Backend {
    name: &'static str,
    devices: Box<dyn Fn() -> Vec<DeviceInfo>>,
}

impl Backend {
    fn of(runtime: &'static dyn Runtime) -> Self {
        Self { name: runtime.name(), devices: Box::new(|| runtime.devices()) }
    }
}

/// Number of the backend, number of its device, and the device.
type Choice = (usize, usize, DeviceInfo);

fn choose(backends: &[Backend], wanted: &str) -> Result<Choice> {
    let first = |backend: usize| (backends[backend].devices)().into_iter().next().map(|device| (backend, 0, device));
    let named = |name: &str| backends.iter().position(|backend| backend.name == name);
    match wanted {
        "auto" => (0..backends.len())
            .filter_map(first)
            .find(|(_, _, device)| !is_software(device))
            .or_else(|| (0..backends.len()).find_map(first))
            .ok_or_else(|| not_compiled("cpu", backends)),
        "cpu" => CPU.iter().filter_map(|name| named(name)).find_map(first).ok_or_else(|| not_compiled("cpu", backends)),
        _ => {
            let (name, number) = wanted.split_once(':').unwrap_or((wanted, "0"));
            let backend = named(name).ok_or_else(|| not_compiled(name, backends))?;
            let devices = (backends[backend].devices)();
            let index = number.parse::<usize>().ok().filter(|&index| index < devices.len());
            let index = index.ok_or_else(|| no_device(wanted, &devices))?;
            Ok((backend, index, devices[index].clone()))
        }
    }
}

fn is_software(device: &DeviceInfo) -> bool {
    let description = device.description.to_lowercase();
    SOFTWARE.iter().any(|driver| description.contains(driver))
}

fn not_compiled(backend: &str, backends: &[Backend]) -> Error {
    let have: Vec<&str> = backends.iter().map(|backend| backend.name).collect();
    let have = if have.is_empty() { "no backend".into() } else { have.join(", ") };
    let feature = if backend == "cpu" { CPU[0] } else { backend };
    if BACKENDS.contains(&feature) {
        let error = Error::input(format!("`--device {backend}` is not compiled in")).found(have);
        return error.hint(format!("build with `--features {feature}`")).into();
    }
    let known = || ["auto", "cpu"].into_iter().chain(BACKENDS);
    let error = Error::input(format!("unknown device `{backend}`")).expected(known().collect::<Vec<_>>().join(" | "));
    match nearest(backend, known()) {
        Some(near) => error.hint(format!("did you mean `{near}`?")).into(),
        None => error.into(),
    }
}

fn no_device(wanted: &str, devices: &[DeviceInfo]) -> Error {
    let error = Error::input(format!("no device `{wanted}`"));
    let list = devices.iter().map(|device| format!("{} ({})", device.name, device.description)).collect::<Vec<_>>();
    match list.is_empty() {
        true => error.found("no device at all: is its driver installed?").hint("`--device cpu` always works").into(),
        false => error.found(list.join(", ")).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(name: &'static str, devices: &'static [(&'static str, &'static str)]) -> Backend {
        let info = |(name, description): &(&str, &str)| DeviceInfo {
            name: (*name).into(),
            description: (*description).into(),
            ..DeviceInfo::default()
        };
        Backend { name, devices: Box::new(move || devices.iter().map(info).collect()) }
    }

    fn all() -> Vec<Backend> {
        vec![
            backend("cuda", &[]),
            backend("wgpu", &[("wgpu:0", "llvmpipe (LLVM 17)"), ("wgpu:1", "Some GPU")]),
            backend("flex", &[("flex", "2 threads")]),
            backend("ndarray", &[("ndarray", "2 threads")]),
        ]
    }

    #[test]
    fn names_choose_devices() {
        for (wanted, device) in [
            ("auto", "flex"),
            ("cpu", "flex"),
            ("ndarray", "ndarray"),
            ("flex:0", "flex"),
            ("wgpu", "wgpu:0"),
            ("wgpu:1", "wgpu:1"),
        ] {
            let (index, _, chosen) = choose(&all(), wanted).unwrap();
            assert_eq!(chosen.name, device, "{wanted}");
            assert!(device.starts_with(all()[index].name));
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let flex_only = || vec![backend("flex", &[("flex", "2 threads")])];
        for (compiled, wanted, told) in [
            (flex_only(), "wgpu:1", "--features wgpu"),
            (flex_only(), "cuda", "--features cuda"),
            (vec![], "auto", "--features flex"),
            (all(), "cuda", "driver"),
            (all(), "wgpu:7", "wgpu:1 (Some GPU)"),
            (all(), "gpu", "auto | cpu"),
            (all(), "wgp", "did you mean `wgpu`?"),
        ] {
            let error = choose(&compiled, wanted).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(told), "{wanted}: {error}");
        }
    }
}
