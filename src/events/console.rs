//! Where there is no dashboard: one greppable line per report.

use std::io::{IsTerminal, Write};

use indexmap::IndexMap;

use super::{Banner, Event, Kind, Line, Record, Sink, Step, units};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    /// Every record, as in `metrics.jsonl`.
    Json,
}

/// Whether to write in colour; `Auto` asks the terminal and `NO_COLOR`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

impl Color {
    /// The answer for stderr.
    pub fn enabled(self) -> bool {
        self.enabled_on(&std::io::stderr())
    }

    pub fn enabled_on(self, stream: &impl IsTerminal) -> bool {
        match self {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => stream.is_terminal() && !no_color(),
        }
    }
}

/// <https://no-color.org>: set and not empty.
pub(crate) fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

#[derive(Clone, Copy, PartialEq)]
enum Reports {
    All,
    Last,
}

/// Writes reports as lines. A terminal that has gone away is no reason to stop training: errors are ignored.
pub struct Console<W> {
    out: W,
    format: Format,
    color: bool,
    /// Steps between lines, after the first few.
    every: usize,
    reports: Reports,
    runs: IndexMap<String, Progress>,
}

/// What the lines of one run need to know of earlier events.
#[derive(Default)]
struct Progress {
    steps: usize,
    /// Step and clock where this process began.
    begin: (usize, f64),
    at: usize,
    /// Tokens and milliseconds since the last line.
    tokens: usize,
    ms: f64,
    /// The newest report of each kind, for the summary.
    last: IndexMap<Kind, String>,
}

impl Console<std::io::Stderr> {
    pub fn stderr(format: Format, color: Color, every: usize) -> Self {
        Self::new(std::io::stderr(), format, color, every)
    }
}

impl<W: Write> Console<W> {
    pub fn new(out: W, format: Format, color: Color, every: usize) -> Self {
        let runs = IndexMap::new();
        Self { out, format, color: color.enabled(), every: every.max(1), reports: Reports::All, runs }
    }

    /// Holds its lines back until a run ends and then prints the last of each kind, as is right after a dashboard.
    pub fn summary(mut self) -> Self {
        self.reports = Reports::Last;
        self
    }

    /// Prints the first screen, in text only.
    pub fn banner(&mut self, banner: &Banner) {
        if self.format == Format::Text {
            let _ = write!(self.out, "{banner}");
        }
    }

    fn text(&mut self, record: &Record) {
        let several = self.runs.len() > 1;
        let progress = self.runs.entry(record.run.clone()).or_default();
        let Some(mut line) = progress.line(record, self.every) else { return };
        if several {
            line.text = format!("{}  [{}]", line.text, record.run);
        }
        let text = render(&line, progress, self.color);
        if self.reports == Reports::All {
            let _ = writeln!(self.out, "{text}");
            return;
        }
        if line.kind == Kind::Note {
            return; // it was of what came next
        }
        progress.last.shift_remove(&line.kind);
        progress.last.insert(line.kind, text);
        if line.kind == Kind::Done {
            for text in progress.last.values() {
                let _ = writeln!(self.out, "{text}");
            }
        }
    }
}

impl<W: Write + Send> Sink for Console<W> {
    fn record(&mut self, record: &Record) {
        match self.format {
            Format::Text => self.text(record),
            Format::Json => {
                if let Ok(line) = serde_json::to_string(record) {
                    let _ = writeln!(self.out, "{line}");
                }
            }
        }
    }

    fn flush(&mut self) {
        let _ = self.out.flush();
    }
}

impl Progress {
    fn line(&mut self, record: &Record, every: usize) -> Option<Line> {
        match &record.event {
            Event::RunStarted(run) => {
                let first = self.steps == 0;
                (self.steps, self.begin, self.at) = (run.steps, (run.resumed_from, record.t), run.resumed_from);
                if first && run.resumed_from == 0 {
                    return None; // the banner has said it all; what a pilot decided it has not
                }
            }
            Event::Pilot(pilot) if pilot.step < pilot.steps && !spaced(pilot.step, every) => return None,
            Event::Step(step) => {
                self.at = step.step;
                self.tokens += step.tokens;
                self.ms += step.step_ms;
                if !self.due(step.step, every) {
                    return None;
                }
                let mut line = Line::of(&record.event)?;
                line.text += &self.speed(step, record.t);
                return Some(line);
            }
            _ => {}
        }
        Line::of(&record.event)
    }

    /// The first and last step always have a line.
    fn due(&self, step: usize, every: usize) -> bool {
        step == self.begin.0 + 1 || step == self.steps || spaced(step, every)
    }

    fn speed(&mut self, step: &Step, now: f64) -> String {
        let rate = self.tokens as f64 / (self.ms / 1e3).max(1e-9);
        (self.tokens, self.ms) = (0, 0.0);
        let done = step.step.saturating_sub(self.begin.0).max(1);
        let left = self.steps.saturating_sub(step.step);
        let eta = (now - self.begin.1) / done as f64 * left as f64;
        let memory = units::bytes(step.mem_bytes).replace(' ', "");
        format!("  tok/s {rate:.0}  mem {memory}  eta {}", units::clock(eta))
    }
}

/// The first lines come soon, later ones every so often.
fn spaced(step: usize, every: usize) -> bool {
    [1, 2, 5, 10, 20, 50].contains(&step) || (step > 50 || every < 10) && step.is_multiple_of(every)
}

/// `step   120/2000  loss ...`: the word, the step, the text.
fn render(line: &Line, progress: &Progress, color: bool) -> String {
    let width = (2 * progress.steps.to_string().len() + 1).max(8);
    let place = match (line.kind, line.step) {
        (Kind::Step, Some(step)) if progress.steps > 0 => format!("{step}/{}", progress.steps),
        (Kind::Done, _) if progress.steps > 0 => format!("{}/{}", progress.at, progress.steps),
        (_, Some(step)) => step.to_string(),
        (_, None) => String::new(),
    };
    let word = format!("{:<6}", line.kind.word());
    let code = match line.kind {
        Kind::Start | Kind::Pilot | Kind::Step | Kind::Ranks | Kind::Note | Kind::Memory => "2",
        Kind::Eval => "36",
        Kind::Saved => "32",
        Kind::Sample => "35",
        Kind::Warn => "33",
        Kind::Done => "1",
    };
    let word = if color { format!("\x1b[{code}m{word}\x1b[0m") } else { word };
    format!("{word} {place:<width$}  {}", line.text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Eval, Status, Verify};

    fn record(t: f64, event: Event) -> Record {
        Record { run: "lora".into(), t, event }
    }

    fn started(steps: usize, resumed_from: usize) -> Event {
        let run = serde_json::json!({"event": "run_started", "plan": {}, "command": [], "versions": {}, "hashes": {},
            "params_trainable": 12288, "params_total": 1112576, "device": "flex", "steps": steps,
            "resumed_from": resumed_from,
            "memory": {"base": 0, "adapter": 0, "optimizer": 0, "activations": 0, "peak": 0}});
        serde_json::from_value(run).unwrap()
    }

    fn step(step: usize) -> Record {
        let lr = IndexMap::from([("default".to_string(), 2e-4)]);
        let mut event = Step { step, loss: 1.63214, lr, grad_norm: 0.906, tokens: 812, ..Step::default() };
        (event.step_ms, event.mem_bytes) = (100.0, 4_187_593_113);
        record(step as f64 / 10.0, Event::Step(event))
    }

    fn printed(mut console: Console<Vec<u8>>, records: &[Record]) -> String {
        records.iter().for_each(|record| console.record(record));
        String::from_utf8(console.out).unwrap()
    }

    fn text(every: usize) -> Console<Vec<u8>> {
        Console::new(Vec::new(), Format::Text, Color::Never, every)
    }

    fn a_run() -> Vec<Record> {
        let mut records = vec![record(0.0, started(120, 0))];
        records.extend((1..=120).map(step));
        records.push(record(12.0, Event::Eval(Eval { step: 120, loss: 1.741, metrics: IndexMap::new() })));
        records.push(record(12.0, Event::Saved { step: 120, path: "runs/a/final".into() }));
        let verify = Some(Verify { max_abs_logit_diff: 3.1e-7 });
        records.push(record(13.0, Event::RunEnded { status: Status::Finished, seconds: 13.0, verify }));
        records
    }

    #[test]
    fn lines_are_aligned_and_complete() {
        let text = printed(text(60), &a_run());
        let tail: Vec<_> = text.lines().skip(6).collect();
        assert_eq!(
            tail,
            [
                "step   60/120    loss 1.6321  lr 2.0e-4  grad 0.91  tok/s 8120  mem 3.9GiB  eta 00:00:06",
                "step   120/120   loss 1.6321  lr 2.0e-4  grad 0.91  tok/s 8120  mem 3.9GiB  eta 00:00:00",
                "eval   120       loss 1.7410",
                "saved  120       runs/a/final",
                "done   120/120   finished in 00:00:13  saved equals trained within 3.1e-7",
            ]
        );
    }

    #[test]
    fn the_spacing_grows() {
        let steps = |text: &str| -> Vec<String> {
            text.lines().filter_map(|l| l.strip_prefix("step")?.trim().split('/').next().map(str::to_string)).collect()
        };
        let mut records = vec![record(0.0, started(120, 0))];
        records.extend((1..=119).map(step));
        assert_eq!(
            steps(&printed(text(10), &records)),
            ["1", "2", "5", "10", "20", "50", "60", "70", "80", "90", "100", "110"]
        );
        let mut resumed = vec![record(0.0, started(120, 77))];
        resumed.extend((78..=120).map(step));
        assert_eq!(steps(&printed(text(100), &resumed)), ["78", "100", "120"]);
    }

    #[test]
    fn a_pilot_has_lines_of_its_own_and_what_it_decided_another() {
        use crate::events::PilotStep;
        let mut records = vec![record(0.0, started(4, 0))];
        records.extend((1..=70).map(|step| record(0.1, Event::Pilot(PilotStep { step, steps: 70, loss: 2.5 }))));
        records.push(record(9.0, started(4, 0)));
        let text = printed(text(100), &records);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 6 + 1 + 1, "{text}");
        assert_eq!(lines[6], "pilot            70/70  loss 2.5000");
        assert_eq!(lines[7], "start            12,288 of 1,112,576 parameters train on flex");
    }

    #[test]
    fn colour_and_json_are_asked_for() {
        assert!(!printed(text(10), &a_run()).contains('\x1b'));
        let console = Console::new(Vec::new(), Format::Text, Color::Always, 10);
        assert!(printed(console, &a_run()).contains("\x1b[36meval  \x1b[0m 120"));
        let console = Console::new(Vec::new(), Format::Json, Color::Always, 10);
        let lines: Vec<_> = a_run().iter().map(|record| serde_json::to_string(record).unwrap()).collect();
        assert!(printed(console, &a_run()).lines().eq(lines.iter()));
    }

    #[test]
    fn the_summary_is_the_last_of_each_kind() {
        let mut records = a_run();
        records.insert(1, record(0.0, Event::Note { text: "kernels are compiled".into() }));
        assert!(printed(text(10), &records).starts_with("note             kernels are compiled\nstep   1/120"));
        let text = printed(text(10).summary(), &records);
        let words: Vec<_> = text.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
        assert_eq!(words, ["step", "eval", "saved", "done"]);
    }
}
