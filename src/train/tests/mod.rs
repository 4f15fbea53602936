//! The loop over a learner that computes nothing.

mod contest;
mod evaluate;
mod still;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Begun, Job, Options, Outcome, Target};
use crate::Result;
use crate::events::{self, Bus, Control, Event, Record, Request, Sink, Status};
use crate::recipe::Shipped;
use crate::runtime::{DeviceInfo, Processor};
use still::Still;

const RECIPE: &str = r#"
version = 1
[model]
path = "tiny"
[adapter.full]
[data]
train = "rows.csv"
eval = "rows.csv"
max_len = 16
[train]
batch = 2
max_steps = 6
eval_every = 3
save_every = 2
"#;

fn job(folder: &Path) -> Job {
    job_on(&Still(Processor::Cpu), folder, &[])
}

/// Three rows that fit, and one that is too long and is left out.
fn job_on(runtime: &'static Still, folder: &Path, sets: &[String]) -> Job {
    let long = "word ".repeat(40);
    let rows = format!("prompt,completion\na,b\nc,d\ne,f\ng,{long}\n");
    std::fs::write(folder.join("rows.csv"), rows).unwrap();
    let recipe = folder.join("my.toml");
    std::fs::write(&recipe, RECIPE).unwrap();
    let resolved = Shipped(&[]).load(recipe.to_str().unwrap(), sets).unwrap();
    let device = DeviceInfo { name: "still".into(), ..DeviceInfo::default() };
    Job::prepare(&resolved, &Target { runtime, index: 0, device }).unwrap()
}

/// Keeps what happens, and answers it.
struct Script<F>(Arc<Mutex<Vec<Event>>>, F);

impl<F: FnMut(&Event) + Send> Sink for Script<F> {
    fn record(&mut self, record: &Record) {
        self.0.lock().unwrap().push(record.event.clone());
        (self.1)(&record.event);
    }
}

fn train(
    job: &mut Job,
    options: &Options,
    control: &Control,
    answer: impl FnMut(&Event) + Send + 'static,
) -> (Result<Outcome>, Vec<Event>) {
    let Begun { run, .. } = job.begin(options).unwrap();
    let run = run.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let bus: Bus = run.bus().unwrap().with(Script(seen.clone(), answer));
    let outcome = run.train(&bus, control);
    drop(bus);
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    (outcome, seen)
}

fn later(control: &Control, milliseconds: u64, requests: &'static [Request]) {
    let control = control.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(milliseconds));
        requests.iter().for_each(|request| control.request(*request));
    });
}

#[test]
fn saving_and_evaluating_do_not_wait_for_a_pause_to_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = job(folder.path());
    let control = Control::new();
    let (listener, mut missing) = (control.clone(), 2);
    // Without an answer the test ends all the same, and fails.
    later(&control, 20_000, &[Request::StopNow]);
    let options = Options { out: Some(folder.path().join("run")), resume: None };
    let (outcome, seen) = train(&mut job, &options, &control, move |event| match event {
        Event::Step(step) if step.step == 1 => {
            listener.request(Request::TogglePause);
            later(&listener, 120, &[Request::Save, Request::Evaluate]);
        }
        Event::Saved { step: 1, .. } | Event::Eval(events::Eval { step: 1, .. }) => {
            missing -= 1;
            if missing == 0 {
                listener.request(Request::StopNow);
            }
        }
        _ => {}
    });
    assert_eq!(outcome.unwrap().status, Status::Interrupted);
    let steps = seen.iter().filter(|event| matches!(event, Event::Step(_))).count();
    let answers = seen.iter().filter(|event| !matches!(event, Event::Step(_)) && event.step() == Some(1)).count();
    assert_eq!((steps, answers), (1, 2), "{seen:#?}");
}

#[test]
fn a_resumed_run_does_not_repeat_its_warnings() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = job(folder.path());
    let out = folder.path().join("run");
    let warned = |seen: &[Event]| -> Vec<(String, usize)> {
        let warnings = seen.iter().filter_map(|event| match event {
            Event::Warning { code, count, .. } => Some((code.clone(), *count)),
            _ => None,
        });
        warnings.collect()
    };
    // One over-long row and four without a space at the seam, in the training file and in the same file as evaluation.
    let expected =
        [("over_length", 1), ("prompt_touches_completion", 8), ("over_length", 1), ("eval_rows_in_train", 3)];
    let expected = expected.map(|(code, count)| (code.to_string(), count));
    let control = Control::new();
    let listener = control.clone();
    let (outcome, seen) = train(&mut job, &Options { out: Some(out.clone()), resume: None }, &control, move |event| {
        if event.step() == Some(3) {
            listener.request(Request::Stop);
        }
    });
    assert_eq!((outcome.unwrap().status, &warned(&seen)[..]), (Status::Interrupted, &expected[..]));
    let again = Options { out: None, resume: Some(Some(out.clone())) };
    let (outcome, seen) = train(&mut job, &again, &Control::new(), |_| {});
    assert_eq!((outcome.unwrap().status, warned(&seen)), (Status::Finished, Vec::new()));
    let records: Vec<_> =
        events::read(out.join("metrics.jsonl")).unwrap().into_iter().map(|record| record.event).collect();
    assert_eq!(warned(&records), expected);
    let steps: Vec<_> =
        records.iter().filter_map(|event| if let Event::Step(step) = event { Some(step.step) } else { None }).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
}

/// What a run on `runtime` with moments on the host is told: its notes, and its warnings about offloading.
fn told(runtime: &'static Still) -> (Vec<String>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let mut job = job_on(runtime, folder.path(), &["optim.offload=host".into()]);
    let options = Options { out: Some(folder.path().join("run")), resume: None };
    let (_, seen) = train(&mut job, &options, &Control::new(), |_| {});
    let first = seen.iter().position(|event| matches!(event, Event::Step(_) | Event::Eval(_))).unwrap();
    let (mut notes, mut warnings) = (Vec::new(), Vec::new());
    for (i, event) in seen.into_iter().enumerate() {
        let of_offload = |code: &str| code == "offload";
        match event {
            Event::Note { text } => notes.push(text),
            Event::Warning { code, text, .. } if of_offload(&code) => warnings.push(text),
            _ => continue,
        }
        assert!(i < first, "said before anything is computed");
    }
    (notes, warnings)
}

#[test]
fn what_a_processor_means_for_a_run_is_said_once() {
    let (notes, warnings) = told(&Still(Processor::Gpu));
    assert_eq!(
        (&notes[..], warnings.len()),
        (&["first step on still compiles kernels: this can take a minute".into()][..], 0)
    );
    let (notes, warnings) = told(&Still(Processor::Cpu));
    assert_eq!(notes.len(), 0);
    assert_eq!(warnings, ["optim.offload changes nothing on still: its memory is host memory"]);
}

#[test]
fn the_banner_says_where_the_moments_lie() {
    let folder = tempfile::tempdir().unwrap();
    let line = |sets: &[String]| job_on(&Still(Processor::Gpu), folder.path(), sets).banner().to_string();
    let hosted = line(&["optim.offload=host".into()]);
    assert!(
        hosted.contains("optimizer: 0 B on the device, ") && hosted.contains("in host memory; a step moves "),
        "{hosted}"
    );
    assert!(!line(&[]).contains("host memory"));
}
