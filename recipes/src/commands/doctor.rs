//! `lowrank doctor`: what this build has and what this machine offers it.

use lowrank::Result;
use lowrank::events::Format;
use lowrank_cli::device::{BACKENDS, pick, runtimes};
use lowrank_cli::stdout;
use lowrank_cli::table::Table;
use serde_json::json;

use crate::args::Output;

/// Examples: `lowrank doctor`, `lowrank doctor --format json`
#[derive(Debug, clap::Args)]
pub struct Doctor {}

impl Doctor {
    pub fn run(&self, output: &Output) -> Result<()> {
        let runtimes = runtimes();
        let auto = pick("auto").ok().map(|chosen| chosen.device.name);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        if output.format == Format::Json {
            let backends: Vec<_> = runtimes
                .iter()
                .map(|runtime| json!({ "name": runtime.name(), "devices": runtime.devices() }))
                .collect();
            return stdout::print_json(&json!({
                "version": env!("CARGO_PKG_VERSION"), "threads": threads, "backends": backends, "auto": auto,
            }));
        }
        let mut table = Table::new(["backend", "device", "what it is"]);
        for name in BACKENDS {
            match runtimes.iter().find(|runtime| runtime.name() == name) {
                None => table.row([name.into(), "-".into(), format!("not compiled in: build with --features {name}")]),
                Some(runtime) if runtime.devices().is_empty() => {
                    table.row([name.into(), "-".into(), "compiled in, but no device answers".into()]);
                }
                Some(runtime) => runtime.devices().into_iter().for_each(|device| {
                    let note = if Some(&device.name) == auto.as_ref() { ", what `--device auto` takes" } else { "" };
                    table.row([name.into(), device.name, device.description + note]);
                }),
            }
        }
        let version = env!("CARGO_PKG_VERSION");
        stdout::print(&format!("lowrank {version}, {threads} threads\n\n{}", table.render()))
    }
}
