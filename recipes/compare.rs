//! Races the variants of a compare recipe over one base and says which is better: the whole of it, to read and to copy.
//!
//!     cargo run --release --bin compare -- tiny/all [KEY=VALUE]...

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use lowrank::compare::{Comparison, Judged, Pictures};
use lowrank::events::{Color, Console, Control, Format};
use lowrank::train::{Contest, Options, Place};
use lowrank::{Error, Result};
use lowrank_cli::{SHIPPED, pick, report_error};

fn main() -> ExitCode {
    match compare() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report_error::report(&error, Color::Auto),
    }
}

fn compare() -> Result<()> {
    // A recipe and what its variants change of it; overrides hold for all of them.
    let mut arguments = std::env::args().skip(1);
    let recipe = arguments.next().unwrap_or_else(|| "tiny/all".into());
    let overrides: Vec<String> = arguments.collect();
    let recipe = SHIPPED.load_comparison(&recipe, &overrides)?;

    // Checks every variant against model and data. Nothing is written yet.
    let mut contest = Contest::prepare(recipe, pick("auto")?)?;
    eprint!("{}", contest.banner()?);

    // All variants take turns on this thread, each step on the same batch. Every run has a directory and a bus of its own.
    let place = Place::take(&Options::default(), &contest.comparison.name)?;
    let control = Control::new();
    control.install_signal_handlers()?;
    let console = Arc::new(Mutex::new(Console::stderr(Format::Text, Color::Auto, 10)));
    let entries = contest.run(&place, &|bus| bus.with(console.clone()), &control)?;
    if control.stop().is_some() {
        eprintln!("go on with: lowrank compare --resume={}", place.dir().display());
        return Err(Error::Interrupted { signal: control.signal().unwrap_or(2) });
    }
    // A variant that failed or diverged has dropped out; the others went on.
    for entry in &entries {
        if let Some(Err(error)) = &entry.came {
            eprintln!("warn   {}, seed {}: {error}", entry.variant, entry.seed);
        }
    }

    // Everything in the report comes from the metrics.jsonl of the runs.
    let comparison = Comparison::read(&[place.dir().into()], Judged::default())?;
    comparison.write(place.dir(), Pictures::default())?;
    println!("{}", comparison.to_markdown());
    Ok(())
}
