//! What the records so far amount to.

use std::cell::OnceCell;
use std::collections::VecDeque;

use super::place::{Part, place};
use super::run::Run;
use crate::compare::{Group, Plan, Setting, Summary, metric};
use crate::events::{Event, Kind, Line, Record};

/// Log lines kept.
const LINES: usize = 5000;

/// Everything the panels show, rebuilt from records alone.
#[derive(Clone, Debug, Default)]
pub struct Board {
    /// Of the comparison whose runs these are.
    pub plan: Option<Plan>,
    /// In the order of their colours.
    pub variants: Vec<Variant>,
    pub runs: Vec<Run>,
    pub log: VecDeque<Entry>,
    /// What the report would say of the runs that have ended; counted when it is asked for.
    summary: OnceCell<Option<Summary>>,
    /// The run that was heard of last.
    pub newest: Option<usize>,
}

/// Runs that differ in their seeds alone share a colour, a marker and a row.
#[derive(Clone, Debug, Default)]
pub struct Variant {
    pub name: String,
    /// In the order in which they began, without pilots that are over.
    pub runs: Vec<usize>,
}

#[derive(Clone, Debug)]
pub struct Entry {
    /// None for what the dashboard says itself.
    pub run: Option<usize>,
    /// Of the clock of all runs.
    pub t: f64,
    pub line: Line,
}

impl Board {
    pub fn new(plan: Option<Plan>) -> Self {
        let names = plan.iter().flat_map(|plan| plan.variants.clone());
        let variants = names.map(|name| Variant { name, runs: Vec::new() }).collect();
        Self { plan, variants, ..Self::default() }
    }

    pub fn record(&mut self, record: &Record) {
        let index = self.index(&record.run);
        self.newest = Some(index);
        if let Event::RunStarted(start) = &record.event {
            let kept = |entry: &Entry| entry.line.step.is_some_and(|step| step <= start.resumed_from);
            self.log.retain(|entry| entry.run != Some(index) || kept(entry));
        }
        self.runs[index].record(record);
        if let Some(line) = Line::of(&record.event).filter(|line| !matches!(line.kind, Kind::Step | Kind::Pilot)) {
            self.enter(Entry { run: Some(index), t: self.elapsed(), line });
        }
        if matches!(record.event, Event::RunEnded { .. } | Event::RunStarted(_)) {
            self.summary.take();
        }
        if matches!(record.event, Event::RunEnded { .. }) && self.runs[index].part == Part::Pilot {
            self.forget(index);
        }
    }

    /// A line in the log that no run wrote.
    pub fn note(&mut self, text: String) {
        self.enter(Entry { run: None, t: self.elapsed(), line: Line { kind: Kind::Note, step: None, text } });
    }

    fn enter(&mut self, entry: Entry) {
        self.log.push_back(entry);
        if self.log.len() > LINES {
            self.log.pop_front();
        }
    }

    fn index(&mut self, name: &str) -> usize {
        // Records of one run come in a row more often than not.
        if let Some(newest) = self.newest.filter(|&newest| self.runs[newest].name == name) {
            return newest;
        }
        let (variant, part) = place(name, self.plan.as_ref());
        let variant = self.variants.iter().position(|known| known.name == variant).unwrap_or_else(|| {
            self.variants.push(Variant { name: variant, runs: Vec::new() });
            self.variants.len() - 1
        });
        let same = |run: &Run| run.variant == variant && run.part == part && (part != Part::Pilot || run.name == name);
        let run = self.runs.iter().position(same).unwrap_or_else(|| {
            self.runs.push(Run::new(name, variant, part));
            self.runs.len() - 1
        });
        let runs = &mut self.variants[variant].runs;
        if !runs.contains(&run) {
            runs.push(run);
        }
        run
    }

    /// A pilot that is over has done its part; its time and its lines in the log stay.
    fn forget(&mut self, index: usize) {
        let Run { name, variant, t, history, .. } = &self.runs[index];
        let (mut over, variant) = (Run { t: *t, ..Run::new(name, *variant, Part::Pilot) }, *variant);
        over.history.state = history.state;
        self.runs[index] = over;
        self.variants[variant].runs.retain(|&run| run != index);
    }

    pub fn summary(&self) -> Option<&Summary> {
        self.summary.get_or_init(|| self.summarise()).as_ref()
    }

    fn summarise(&self) -> Option<Summary> {
        let ended = |variant: &Variant| {
            let mut runs: Vec<_> = self.of(variant).filter(|run| run.ended().is_some()).collect();
            runs.sort_by_key(|run| run.history.seed);
            let runs: Vec<_> = runs.into_iter().map(|run| run.history.clone()).collect();
            (!runs.is_empty()).then(|| Group { name: variant.name.clone(), runs })
        };
        let groups: Vec<_> = self.variants.iter().filter_map(ended).collect();
        let reference = groups.iter().position(|group| group.name == self.reference())?;
        let mode = self.plan.as_ref().map(|plan| plan.mode);
        let chosen = self.plan.as_ref().and_then(|plan| plan.metric.clone());
        let metric = chosen.unwrap_or_else(|| metric::primary(&groups));
        let (notes, sweeps) = (Vec::new(), Vec::new());
        Some(Summary::of(&groups, Setting { name: "", mode, metric, reference, notes, sweeps }))
    }

    /// The variant that the others are measured against.
    pub fn reference(&self) -> &str {
        let planned = self.plan.as_ref().map(|plan| plan.reference.as_str());
        planned.or(self.variants.first().map(|variant| variant.name.as_str())).unwrap_or_default()
    }

    /// Whether what is heard of last is a pilot.
    pub fn is_piloting(&self) -> bool {
        self.newest.is_some_and(|newest| self.runs[newest].part == Part::Pilot)
    }

    /// Runs of a variant, but pilots.
    pub fn of<'a>(&'a self, variant: &'a Variant) -> impl DoubleEndedIterator<Item = &'a Run> {
        variant.runs.iter().map(|&run| &self.runs[run]).filter(|run| run.part != Part::Pilot)
    }

    /// The run that stands for its variant: with the given seed if there is one, else the newest.
    pub fn main(&self, variant: usize, seed: Option<u64>) -> Option<&Run> {
        let variant = self.variants.get(variant)?;
        let chosen = seed.and_then(|seed| self.of(variant).find(|run| run.part == Part::Seed(seed)));
        chosen.or_else(|| self.of(variant).next_back())
    }
}
