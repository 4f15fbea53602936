//! One file per command.

pub mod check;
pub mod compare;
pub mod completions;
pub mod convert;
pub mod doctor;
pub mod embed;
pub mod estimate;
pub mod eval;
pub mod generate;
pub mod inspect;
pub mod merge;
pub mod methods;
pub mod predict;
pub mod recipes;
pub mod report;
pub mod schema;
pub mod train;
pub mod watch;

use lowrank::Result;

use crate::args::{Args, Command};

pub fn run(args: &Args) -> Result<()> {
    let output = &args.output;
    match &args.command {
        Command::Train(command) => command.run(output),
        Command::Compare(command) => command.run(output),
        Command::Recipes(command) => command.run(output),
        Command::Methods(command) => command.run(output),
        Command::Check(command) => command.run(output),
        Command::Watch(command) => command.run(output),
        Command::Report(command) => command.run(output),
        Command::Eval(command) => command.run(output),
        Command::Generate(command) => command.run(output),
        Command::Predict(command) => command.run(output),
        Command::Embed(command) => command.run(output),
        Command::Merge(command) => command.run(output),
        Command::Convert(command) => command.run(output),
        Command::Estimate(command) => command.run(output),
        Command::Inspect(command) => command.run(output),
        Command::Doctor(command) => command.run(output),
        Command::Schema(command) => command.run(output),
        Command::Completions(command) => command.run(),
    }
}
