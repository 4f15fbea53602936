//! Times training steps and greedy generation of one method over one base, and prints a JSON object.
//!
//!     cargo bench -p lowrank-cli --bench step -- make smollm135 DIR
//!     cargo bench -p lowrank-cli --bench step -- run DIR --method lora --generate 32
//!     cargo bench -p lowrank-cli --bench step -- table FILE
//!
//! `make` writes an untrained model of that shape; `run` measures; `table` sets the objects of several runs, ours and
//! those of `benches/reference.py`, side by side. `benches/compare_peft.sh` does all three.

mod make;
mod measure;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lowrank::events::Color;
use lowrank_cli::report_error;

#[derive(Parser)]
struct Arguments {
    /// What `cargo bench` adds by itself.
    #[arg(long, global = true, hide = true)]
    bench: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write an untrained model: config.json and model.safetensors.
    Make { shape: make::Shape, dir: PathBuf },
    /// Measure training steps, then generation.
    Run(measure::Settings),
    /// Ratios of what several runs printed, as a Markdown table.
    Table { file: PathBuf },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Make { shape, dir } => make::write(shape, &dir),
        Command::Run(settings) => measure::run(&settings),
        Command::Table { file } => table::print(&file),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report_error::report(&error, Color::Auto),
    }
}
