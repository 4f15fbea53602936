//! From a checked job to a run on a device: fresh, or where a checkpoint left off.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use indexmap::IndexMap;

use super::artifact::model_values;
use super::bases::Bases;
use super::cursor::Cursor;
use super::run::{Evals, active_ranks};
use super::save::split;
use super::{Initial, Job, Options, Run, resident_bytes};
use crate::adapters::{AdapterConfig, Module, Origin, Selected};
use crate::checkpoint::{self, Conditions, Hashes, Layout, Resumption, RunDir, RunInfo, Source, Start, TrainState};
use crate::data::Report;
use crate::events::{Bus, Event, Jsonl, RunStarted, truncate_after};
use crate::recipe::Offload;
use crate::runtime::{AdapterSpec, Base, Learner, Processor, cpu_threads};
use crate::{Error, Result};

/// A run ready to train, or what there is to say when nothing is left to do.
pub struct Begun<'a> {
    pub run: Option<Run<'a>>,
    pub notes: Vec<String>,
    pub warnings: Vec<String>,
}

impl Job {
    /// Loads the base, attaches the adapter, makes or reopens the run directory.
    pub fn begin(&mut self, options: &Options) -> Result<Begun<'_>> {
        self.begin_among(options, &Bases::default())
    }

    /// The same, over a base of `bases` where one is as this job needs it; one that is not there yet joins them.
    pub fn begin_among(&mut self, options: &Options, bases: &Bases) -> Result<Begun<'_>> {
        let Some(resume) = &options.resume else {
            let initial = self.initial()?;
            let started_from = initial.as_ref().map(|initial| initial.sha256.clone());
            let (base, learner) = self.load(initial, bases)?;
            let dir = RunDir::create(options.out.as_deref(), &self.name)?;
            let run = self.run(dir, started_from, base, learner)?;
            return Ok(Begun { run: Some(run), notes: Vec::new(), warnings: Vec::new() });
        };
        if let (Some(_), Some(out)) = (resume, &options.out) {
            return Err(Error::input("a resumed run stays where it is").file(out).hint("leave out --out").into());
        }
        let argument = match resume {
            Some(path) => path.clone(),
            None => match &options.out {
                Some(out) => out.clone(),
                None => checkpoint::newest_run(Path::new("runs"), &self.name)?,
            },
        };
        let (path, source) = checkpoint::locate(&argument);
        let dir = RunDir::open(path)?;
        self.resume(dir, source, bases)
    }

    fn resume(&mut self, dir: RunDir, source: Source<'_>, bases: &Bases) -> Result<Begun<'_>> {
        self.adopt(&dir)?;
        let hashes = self.hashes()?;
        let now = Conditions {
            recipe: &self.recipe,
            hashes: &hashes,
            device: &self.target.device.name,
            threads: cpu_threads(),
            total_steps: self.steps,
        };
        let Resumption { start, mut notes, warnings } = checkpoint::resume(&dir, source, &now)?;
        if let Start::Finished { .. } = start {
            return Ok(Begun { run: None, notes, warnings });
        }
        // A checkpoint has everything; without one the run starts once more from where it started.
        let initial = if matches!(start, Start::Fresh) { self.initial()? } else { None };
        let started_from = match &start {
            Start::From(saved) => saved.state.hashes.adapter.clone(),
            _ => initial.as_ref().map(|initial| initial.sha256.clone()),
        };
        let (base, mut learner) = self.load(initial, bases)?;
        let mut state = None;
        let from = if let Start::From(saved) = &start { Some(&**saved) } else { None };
        let (best, note) = checkpoint::settle_best(&dir, from)?;
        notes.extend(note);
        if let Start::From(saved) = start {
            let (values, moments) = split(saved.moments);
            learner.import(&match self.recipe.adapter {
                AdapterConfig::Full(_) => model_values(&saved.adapter_files, &dir.checkpoints())?,
                _ => values,
            })?;
            learner.set_state(&moments, saved.state.step - saved.state.skipped_total)?;
            state = Some(TrainState { best, ..saved.state });
        }
        let total_steps = self.steps;
        let mut run = self.run(dir, started_from, base, learner)?;
        if let Some(state) = state {
            run.resumed_from = state.step;
            run.saved = state.step;
            run.state = TrainState { total_steps, ..state };
            run.cursor = run.cursor_at();
        }
        Ok(Begun { run: Some(run), notes, warnings })
    }

    /// What the recipe leaves open and a pilot of the run has decided already.
    pub(super) fn adopt(&mut self, dir: &Layout) -> Result<()> {
        let Some(pilot) = self.pilot().filter(|_| dir.recipe().exists()) else { return Ok(()) };
        if let Some(decided) = pilot.adopt(&dir.read_recipe()?.adapter) {
            self.settle(decided);
        }
        Ok(())
    }

    fn load(&self, initial: Option<Initial>, bases: &Bases) -> Result<(Rc<dyn Base>, Box<dyn Learner>)> {
        let base = bases.get(self)?;
        let values = initial.as_ref().map(|initial| &initial.values);
        let mut learner = base.attach(&AdapterSpec { values, ..self.adapter_spec() })?;
        if let Some(initial) = initial {
            initial.import(learner.as_mut())?;
        }
        Ok((base, learner))
    }

    pub(super) fn adapter_spec(&self) -> AdapterSpec<'_> {
        AdapterSpec {
            adapter: &self.recipe.adapter,
            origin: Origin::Recipe,
            optim: &self.recipe.optim,
            seed: self.recipe.seed,
            total_steps: self.steps,
            values: None,
        }
    }

    /// `started_from` is the sha256 of the adapter that training started from, if it did.
    fn run(
        &mut self,
        dir: RunDir,
        started_from: Option<String>,
        base: Rc<dyn Base>,
        learner: Box<dyn Learner>,
    ) -> Result<Run<'_>> {
        let hashes = Hashes { adapter: started_from, ..self.hashes()? };
        let mut info = RunInfo::new(&self.name);
        info.versions.insert("burn".into(), "0.21.0".into());
        info.device = self.target.device.name.clone();
        info.threads = cpu_threads();
        info.hashes = hashes.clone();
        dir.write_recipe(&self.recipe.to_toml()?)?;
        dir.write_info(&info)?;
        let state = TrainState {
            seed: self.recipe.seed,
            hashes,
            device: info.device.clone(),
            threads: info.threads,
            total_steps: self.steps,
            ..TrainState::default()
        };
        let ranks = active_ranks(learner.as_ref());
        let cursor = Cursor::new(self.splits.train.sequences.len(), self.recipe.train.batch, self.recipe.seed, 0, 0);
        Ok(Run {
            job: self,
            dir,
            info,
            base,
            learner,
            state,
            resumed_from: 0,
            ranks,
            resting: resident_bytes(),
            cursor,
            saved: 0,
            evals: Evals::default(),
        })
    }

    pub(super) fn hashes(&self) -> Result<Hashes> {
        Ok(Hashes {
            base: self.opened.base_sha256(),
            data: self.splits.sha256.clone(),
            tokenizer: self.opened.tokenizer.sha256(),
            recipe: checkpoint::fingerprint(&self.recipe)?,
            adapter: None,
        })
    }

    /// Choices of modules and ranks that work and are seldom meant.
    fn adapter_warnings(&self) -> Vec<((String, String), usize)> {
        let warning = |code: &str, text: String, count| ((code.to_string(), text), count);
        let mut warnings = Vec::new();
        let parameters = |site: &Selected| self.recipe.adapter.spec().map_or(0, |spec| spec.parameters(site));
        let wasteful: Vec<_> = self.selected.iter().filter(|site| parameters(site) >= site.rows * site.cols).collect();
        if let Some(site) = wasteful.first() {
            let (train, whole) = (parameters(site), site.rows * site.cols);
            let text = format!("rank {}: {train} numbers train beside the {whole} of {}", site.rank, site.path);
            warnings.push(warning("rank", text, wasteful.len()));
        }
        let modules = Module::list(&self.opened.config);
        let shared = Module::vocabulary(&modules).map(|module| module.map(|module| module.path.as_str()));
        let tied =
            |site: &&Selected| self.opened.config.tie_word_embeddings && shared.contains(&Some(site.path.as_str()));
        let tied: Vec<_> = self.selected.iter().filter(tied).collect();
        if let [site] = &tied[..] {
            let text = format!(
                "{} shares its weight with its counterpart, which stays as it is: a merge unties them",
                site.path
            );
            warnings.push(warning("tied", text, 1));
        }
        warnings
    }

    /// What each process that works on the run is told before the first step.
    pub(super) fn notes(&self) -> Vec<Event> {
        let name = self.target.runtime.name();
        let text = format!("first step on {name} compiles kernels: this can take a minute");
        let compiles = self.target.runtime.processor() == Processor::Gpu && self.steps > 0;
        compiles.then_some(Event::Note { text }).into_iter().collect()
    }

    /// Settings that have no effect on this device.
    fn device_warnings(&self) -> Vec<((String, String), usize)> {
        let runtime = self.target.runtime;
        let hosted = self.recipe.optim.offload == Offload::Host && runtime.processor() == Processor::Cpu;
        let text = format!("optim.offload changes nothing on {}: its memory is host memory", runtime.name());
        hosted.then(|| (("offload".into(), text), 1)).into_iter().collect()
    }

    /// What is worth a warning before the first step; what holds of training and evaluation rows alike comes once.
    pub(super) fn warnings(&self) -> Vec<Event> {
        let warning = |code: &str, text: &str, count| ((code.to_string(), text.to_string()), count);
        let of = |part: &str, report: &Report| {
            let counted = [
                ("over_length", format!("{part} rows longer than data.max_len were dropped"), report.dropped_long),
                ("truncated", format!("{part} rows longer than data.max_len were cut"), report.truncated),
                ("untrained", format!("{part} rows have no trained token and were left out"), report.untrained),
            ];
            let counted = counted.into_iter().filter(|(_, _, count)| *count > 0);
            let counted = counted.map(|(code, text, count)| warning(code, &text, count));
            counted.chain(report.warnings.iter().map(|w| warning(&w.code, &w.text, w.count))).collect::<Vec<_>>()
        };
        let eval = self.splits.eval.as_ref().map(|eval| of("evaluation", &eval.report));
        let eval = eval.into_iter().flatten();
        let of_method = self.recipe.adapter.spec().map(|spec| spec.warnings(self.steps)).unwrap_or_default();
        let of_method = of_method.iter().map(|text| warning("adapter", text, 1));
        let mut counts: IndexMap<_, usize> = IndexMap::new();
        let of_adapter = of_method.chain(self.adapter_warnings()).chain(self.device_warnings());
        for (warning, count) in of_adapter.chain(of("training", &self.splits.train.report)).chain(eval) {
            *counts.entry(warning).or_default() += count;
        }
        counts.into_iter().map(|((code, text), count)| Event::Warning { code, text, count }).collect()
    }
}

impl Run<'_> {
    /// A bus whose records go to `metrics.jsonl`; on resume, records after the checkpoint are dropped and the
    /// clock goes on from where it was.
    pub fn bus(&self) -> Result<Bus> {
        self.bus_of(&self.run_name())
    }

    /// The same, for a run of that name.
    pub fn bus_of(&self, name: &str) -> Result<Bus> {
        let path = self.dir.metrics();
        let mut seconds = 0.0;
        if path.exists() && self.resumed_from == 0 {
            // Nothing of it is continued: step 0 comes again.
            std::fs::remove_file(&path).map_err(Error::io(&path))?;
        } else if path.exists() {
            seconds = truncate_after(&path, self.resumed_from)?.max(self.state.elapsed_seconds);
        }
        Ok(Bus::new(name).starting_at(seconds).with(Jsonl::append(&path)?))
    }

    /// Last part of the run directory's path.
    pub fn run_name(&self) -> String {
        self.dir.path().file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned())
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().to_path_buf()
    }

    pub(super) fn started_event(&self) -> Event {
        let job = &*self.job;
        let hashes = &self.info.hashes;
        Event::RunStarted(Box::new(RunStarted {
            plan: serde_json::to_value(&job.recipe).unwrap_or_default(),
            command: self.info.command.clone(),
            versions: self.info.versions.clone(),
            hashes: [
                ("base", Some(&hashes.base)),
                ("data", Some(&hashes.data)),
                ("tokenizer", Some(&hashes.tokenizer)),
            ]
            .into_iter()
            .chain([("adapter", hashes.adapter.as_ref())])
            .filter_map(|(what, hash)| Some((what.to_string(), hash?.clone())))
            .collect(),
            params_trainable: self.learner.trainable().values().map(|shape| shape.iter().product::<usize>()).sum(),
            params_total: job.total,
            device: self.info.device.clone(),
            memory: crate::events::Memory { base: self.base.bytes(), ..job.memory.clone() },
            steps: job.steps,
            resumed_from: self.resumed_from,
        }))
    }
}

/// What to type to go on with an interrupted run.
pub fn resume_command(path: &Path) -> String {
    format!("lowrank train --resume={}", path.display())
}
