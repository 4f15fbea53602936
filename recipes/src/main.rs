//! `lowrank`: fine-tune with low-rank adapters from one recipe.

mod args;
mod commands;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = args::Args::parse();
    match commands::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => lowrank_cli::report_error::report(&error, args.output.color),
    }
}
