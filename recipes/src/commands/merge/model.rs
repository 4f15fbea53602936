//! `lowrank merge` where a model comes out: into which weights the adapter goes, and what that costs.

use std::io::IsTerminal;

use clap::ValueEnum;
use lowrank::adapters::merge::{Form, MergeReport, Merged, OutDtype, write};
use lowrank::adapters::peft::PeftAdapter;
use lowrank::models::{Opened, Stored};
use lowrank::train::{Adapters, Fidelity, Probe, Subject};
use lowrank::{Error, Result};
use lowrank_cli::table::Table;

use super::Merge;
use crate::args::Output;
use lowrank_cli::device;

/// Which weights of a quantised base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Weights {
    /// Those that the codes stand for, which the adapter was trained over: exact
    Dequantised,
    /// Those of the base's files, before they were quantised
    Original,
    /// As dequantised, and quantised again: a bitsandbytes checkpoint
    Requantised,
}

impl Weights {
    const ALL: [Weights; 3] = [Weights::Dequantised, Weights::Original, Weights::Requantised];

    fn name(self) -> &'static str {
        match self {
            Weights::Dequantised => "dequantised",
            Weights::Original => "original",
            Weights::Requantised => "requantised",
        }
    }

    fn form(self) -> Form {
        if self == Weights::Requantised { Form::Requantised } else { Form::Dense }
    }
}

/// A base, and what a run made of it.
struct Bases<'a> {
    opened: &'a Opened,
    stored: Stored<'a>,
}

impl<'a> Bases<'a> {
    fn is_quantised(&self) -> bool {
        self.stored.storage().quant.is_some()
    }

    fn merged(&'a self, into: Weights, adapter: Option<&'a PeftAdapter>) -> Result<Merged<'a>> {
        if into == Weights::Requantised && !self.is_quantised() {
            let error = Error::input("this base is not quantised").key("--into").found(into.name());
            return Err(error.hint("leave `--into` out; `base.quant` in a recipe quantises").into());
        }
        if into == Weights::Original && self.opened.is_quantised() {
            let error = Error::input("the original weights are not known: the base's files are quantised");
            return Err(error.file(self.opened.weights.path()).key("--into").found(into.name()).into());
        }
        let config = &self.opened.config;
        let base = if into == Weights::Original { self.opened.weights.as_ref() } else { &self.stored };
        match adapter {
            Some(adapter) => Merged::new(base, config, adapter, into.form()),
            None => Ok(Merged::plain(base, config, into.form())),
        }
    }
}

impl Merge {
    /// The base of a run by itself.
    pub(super) fn base_alone(&self, output: &Output) -> Result<()> {
        let [path] = &self.adapters[..] else {
            return Err(Error::input("one base at a time").key("--base-only").found(self.adapters.len()).into());
        };
        let subject = Subject::open(path, self.base.as_deref())?;
        if subject.is_whole() {
            let error = Error::input("every weight of this run was trained").file(path).key("--base-only");
            return Err(error.hint("its `final/` is the model").into());
        }
        let bases = Bases { opened: &subject.opened, stored: subject.stored()? };
        self.write(&bases.merged(self.into.unwrap_or(Weights::Dequantised), None)?, &subject.opened, output)
    }

    pub(super) fn model(&self, adapters: &Adapters, adapter: &PeftAdapter, output: &Output) -> Result<()> {
        let opened = &adapters.subject.opened;
        if self.unmerge {
            let merged = Merged::new(opened.weights.as_ref(), &opened.config, adapter, Form::Dense)?;
            return self.write(&merged, opened, output);
        }
        let bases = Bases { opened, stored: adapters.stored()? };
        let default = if bases.is_quantised() { Weights::Dequantised } else { Weights::Original };
        let into = self.into.unwrap_or(default);
        self.write(&bases.merged(into, Some(adapter))?, opened, output)?;
        if bases.is_quantised() { tell_differences(&bases, adapters, adapter, into) } else { Ok(()) }
    }

    fn write(&self, merged: &Merged, opened: &Opened, output: &Output) -> Result<()> {
        let quiet = output.quiet || !std::io::stderr().is_terminal();
        let mut progress = |done: usize, all: usize| {
            if !quiet {
                eprint!("\rmerging {done}/{all} tensors{}", if done == all { "\n" } else { "" });
            }
        };
        let dtype = OutDtype::from(self.dtype.unwrap_or_default());
        let report = write(merged, dtype, &self.out, &mut progress)?;
        opened.tokenizer.save(&self.out)?;
        tell(&report);
        Ok(())
    }
}

fn tell(report: &MergeReport) {
    eprintln!("{} tensors, {} of them changed", report.tensors, report.changed);
    if report.untied {
        eprintln!("the head no longer shares the embedding's weight: only one of them was adapted");
    }
    if report.rounding > 0.0 {
        eprintln!("rounding changed a value by at most {:.1e}, in {}", report.rounding, report.rounding_tensor);
    }
}

/// Whichever was written, what each of the three does to the outputs. None is written for it.
fn tell_differences(bases: &Bases, adapters: &Adapters, adapter: &PeftAdapter, chosen: Weights) -> Result<()> {
    let opened = bases.opened;
    let target = device::pick("cpu").or_else(|_| device::pick("auto"))?;
    let probe = Probe::of(adapters.subject.recipe.as_ref(), opened);
    let fidelity = Fidelity::of(&target, &opened.config, &bases.stored, adapter, &probe)?;
    let mut table = Table::new(["into", "largest difference of a logit", "mean KL, nats", ""]);
    for into in Weights::ALL {
        let written = if into == chosen { "written" } else { "" };
        let [logit, kl] = match into {
            Weights::Original if opened.is_quantised() => ["not known".to_string(), String::new()],
            _ => {
                let difference = fidelity.difference(&bases.merged(into, Some(adapter))?)?;
                [difference.max_logit, difference.mean_kl].map(|value| format!("{value:.1e}"))
            }
        };
        table.row([into.name().to_string(), logit, kl, written.to_string()]);
    }
    eprintln!("outputs against the trained model's: {}, in f32 on {}", probe.what, target.device.name);
    eprint!("{}", table.render());
    Ok(())
}
