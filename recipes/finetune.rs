//! Fine-tunes with whatever a recipe says: the whole of it, to read and to copy.
//!
//!     cargo run --release --bin finetune -- tiny/lora [KEY=VALUE]...

use std::process::ExitCode;

use lowrank::events::{Color, Console, Control, Format, Status};
use lowrank::train::{Job, Options, resume_command};
use lowrank::{Error, Result};
use lowrank_cli::{SHIPPED, pick, report_error};

fn main() -> ExitCode {
    match finetune() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report_error::report(&error, Color::Auto),
    }
}

fn finetune() -> Result<()> {
    // A recipe is a shipped name or a file; every key of it can be set from here.
    let mut arguments = std::env::args().skip(1);
    let recipe = arguments.next().unwrap_or_else(|| "tiny/lora".into());
    let overrides: Vec<String> = arguments.collect();
    let resolved = SHIPPED.load(&recipe, &overrides)?;

    // Opens model and data and checks that all of it fits together. Nothing is written yet.
    let mut job = Job::prepare(&resolved, &pick("auto")?)?;
    eprint!("{}", job.banner());

    // Loads the frozen base onto the device, attaches the adapter, makes the run directory.
    let begun = job.begin(&Options::default())?;
    let run = begun.run.ok_or_else(|| Error::Failed("nothing to train".into()))?;

    // Everything the loop says is an event; here they become lines, and `metrics.jsonl` by themselves.
    let control = Control::new();
    control.install_signal_handlers()?;
    let bus = run.bus()?.with(Console::stderr(Format::Text, Color::Auto, run.job.recipe.log.every));
    let path = run.path();
    let outcome = run.train(&bus, &control)?;

    if outcome.status == Status::Interrupted {
        eprintln!("go on with: {}", resume_command(&path));
        return Err(Error::Interrupted { signal: outcome.signal.unwrap_or(2) });
    }
    let difference = outcome.verify.map_or(f64::NAN, |verify| verify.max_abs_logit_diff);
    println!("{} after {} steps, logits of the saved adapter within {difference:.1e}", path.display(), outcome.step);
    Ok(())
}
