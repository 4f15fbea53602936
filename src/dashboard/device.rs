//! Memory, speed, where a step's time goes, and how the optimizer fares.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;
use serde_json::Value;

use super::run::Run;
use super::{Dashboard, glyphs};
use crate::events::{Step, units};

pub fn title(d: &Dashboard) -> String {
    let Some(run) = d.run() else { return "device".into() };
    let device = run.history.start.as_ref().map(|start| start.device.as_str());
    let whose = (d.board().variants.len() > 1).then_some(run.name.as_str());
    let parts = ["device"].into_iter().chain(device).chain(whose);
    crate::events::printable(&parts.collect::<Vec<_>>().join(" · "))
}

/// The whole panel.
pub fn draw(d: &Dashboard, area: Rect, buf: &mut Buffer) {
    let Some((run, step)) = d.run().and_then(|run| Some((run, run.last.as_ref()?))) else { return };
    let width = usize::from(area.width.saturating_sub(9 + 11)).max(1);
    let rows = [
        memory(d, run, step, width),
        peak(d, run, step),
        speed(d, run, width),
        split(d, step, width),
        times(d, step),
        rate(d, run, step),
        gradient(d, run, step),
        saved(run),
    ];
    for (y, (label, spans)) in (area.top()..area.bottom()).zip(rows) {
        let mut line = Line::from(Span::styled(format!(" {label:<8}"), d.theme.dim()));
        line.spans.extend(spans);
        buf.set_line(area.x, y, &line, area.width);
    }
}

/// The panel in one line.
pub fn line(d: &Dashboard, area: Rect, buf: &mut Buffer) {
    let Some((run, step)) = d.run().and_then(|run| Some((run, run.last.as_ref()?))) else { return };
    let mut line = Line::default();
    let facts = [
        ("mem", units::bytes(step.mem_bytes)),
        ("tok/s", run.speed().map_or("-".into(), units::short)),
        ("step", format!("{:.0} ms", step.step_ms)),
        ("lr", rates(step)),
        ("|grad|", format!("{:.2}", step.grad_norm)),
        ("skipped", step.skipped.to_string()),
        ("saved", run.saved.map_or("-".into(), |(step, _)| step.to_string())),
    ];
    for (label, value) in facts.into_iter().filter(|(label, _)| *label != "skipped" || step.skipped > 0) {
        line.push_span(Span::styled(format!(" {label} "), d.theme.dim()));
        line.push_span(Span::raw(format!("{value} ")));
    }
    line.render(area, buf);
}

type Row = (&'static str, Vec<Span<'static>>);

/// Against the predicted peak, or the measured one where that is higher.
fn memory(d: &Dashboard, run: &Run, step: &Step, width: usize) -> Row {
    let alone = d.board().plan.is_none();
    let predicted = run.history.start.as_ref().filter(|_| alone).map_or(0, |start| start.memory.peak);
    let top = predicted.max(step.peak_mem_bytes).max(1);
    let bar = glyphs::bar(step.mem_bytes as f64 / top as f64, width);
    ("memory", framed(d, bar, format!("{:>8}", units::bytes(step.mem_bytes))))
}

fn peak(d: &Dashboard, run: &Run, step: &Step) -> Row {
    let predicted = run.history.start.as_ref().map(|start| start.memory.peak).filter(|&peak| peak > 0);
    let about = match (predicted, &d.board().plan) {
        // What variants do not share cannot be told from outside.
        (_, Some(_)) => " of the process".into(),
        (Some(peak), None) => format!(" of {} predicted", units::bytes(peak)),
        (None, None) => String::new(),
    };
    let measured = Span::raw(format!(" {}", units::bytes(step.peak_mem_bytes)));
    ("peak", vec![measured, Span::styled(about, d.theme.dim())])
}

fn speed(d: &Dashboard, run: &Run, width: usize) -> Row {
    let line = glyphs::sparkline(run.speeds.iter().copied(), width);
    let speed = run.speed().map_or("-".into(), units::short);
    ("tok/s", vec![Span::styled(format!(" {line:<width$}"), d.theme.part(2)), Span::raw(format!(" {speed:>8}"))])
}

fn framed(d: &Dashboard, bar: String, value: String) -> Vec<Span<'static>> {
    let edge = |text: &'static str| Span::styled(text, d.theme.border());
    vec![edge("▕"), Span::styled(bar, d.theme.run(0)), edge("▏"), Span::raw(value)]
}

/// One bar for the whole step, in the proportions of its parts.
fn split(d: &Dashboard, step: &Step, width: usize) -> Row {
    let whole = step.step_ms.max(parts(step).iter().map(|(_, ms)| ms).sum()).max(1e-9);
    let mut spans = vec![Span::raw(" ")];
    let mut left = width;
    for (i, (_, ms)) in parts(step).into_iter().enumerate() {
        let cells = ((ms / whole * width as f64).round() as usize).min(left);
        left -= cells;
        spans.push(Span::styled(["█", "▓", "▒"][i].repeat(cells), d.theme.part(i)));
    }
    spans.push(Span::raw(format!("{} {:>8}", " ".repeat(left), format!("{:.0} ms", step.step_ms))));
    ("step", spans)
}

fn times(d: &Dashboard, step: &Step) -> Row {
    let time = |(i, (name, ms)): (usize, (&str, f64))| {
        [Span::styled(format!(" {name} "), d.theme.part(i)), Span::raw(format!("{ms:.0} "))]
    };
    ("", parts(step).into_iter().enumerate().flat_map(time).collect())
}

fn parts(step: &Step) -> [(&'static str, f64); 3] {
    [("fwd", step.forward_ms), ("bwd", step.backward_ms), ("opt", step.optimizer_ms)]
}

fn rates(step: &Step) -> String {
    step.lr.values().map(|&rate| units::rate(rate)).collect::<Vec<_>>().join("/")
}

fn rate(d: &Dashboard, run: &Run, step: &Step) -> Row {
    let schedule = run.setting("/optim/schedule").and_then(Value::as_object).and_then(|map| map.keys().next());
    let schedule = schedule.cloned().unwrap_or_default();
    ("lr", vec![Span::raw(format!(" {}  ", rates(step))), Span::styled(schedule, d.theme.dim())])
}

fn gradient(d: &Dashboard, run: &Run, step: &Step) -> Row {
    let clip = run.setting("/optim/clip").and_then(Value::as_f64).filter(|&clip| clip > 0.0);
    let clipped = clip.is_some_and(|clip| step.grad_norm > clip);
    let clip = clip.map_or(String::new(), |clip| format!("{} {clip}", if clipped { "clipped to" } else { "clip" }));
    let skipped = if step.skipped > 0 { d.theme.warn() } else { d.theme.dim() };
    let spans = vec![
        Span::raw(format!(" {:.2}  ", step.grad_norm)),
        Span::styled(clip, d.theme.dim()),
        Span::styled(format!("  skipped {}", step.skipped), skipped),
    ];
    ("|grad|", spans)
}

fn saved(run: &Run) -> Row {
    let text = run.saved.map_or(" not yet".into(), |(step, t)| {
        let ago = (run.t - t).max(0.0);
        format!(" step {step}, {ago:.0} s ago")
    });
    ("saved", vec![Span::raw(text)])
}
