//! The table of runs, and what the selected one is.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use serde_json::Value;

use super::board::Run;
use super::{Dashboard, glyphs};
use crate::events::{Status, units};

/// Heading, width and text of a column, most wanted first.
type Column = (&'static str, usize, fn(&Run) -> String);

const COLUMNS: [Column; 6] = [
    ("loss", 7, |run| run.last.as_ref().map_or("-".into(), |step| format!("{:.3}", step.loss))),
    ("eval", 7, |run| run.eval.as_ref().map_or("-".into(), |eval| format!("{:.3}", eval.loss))),
    ("exact", 6, |run| metric(run, "exact_match").map_or("-".into(), |share| format!("{:.0}%", share * 100.0))),
    ("tok/s", 6, |run| run.speed().map_or("-".into(), units::short)),
    ("trains", 8, |run| {
        let share = run.start.as_ref().map(|s| s.params_trainable as f64 / s.params_total.max(1) as f64);
        share.map_or("-".into(), |share| format!("{:.2}%", share * 100.0))
    }),
    ("peak", 9, |run| run.last.as_ref().map_or("-".into(), |step| units::bytes(step.peak_mem_bytes))),
];

pub fn draw(d: &Dashboard, area: Rect, buf: &mut Buffer) {
    let runs = &d.board().runs;
    let name = runs.iter().map(|run| run.name.chars().count()).max().unwrap_or(0).clamp(4, 16);
    let columns = columns(runs, (area.width as usize).saturating_sub(name + 4));
    let mut head = format!("    {:<name$}", "");
    columns.iter().for_each(|(title, width, _)| head += &format!("{title:>width$}"));
    let mut rows = vec![Line::styled(head, d.theme.dim())];
    for (i, run) in runs.iter().enumerate() {
        let pointer = if i == d.selected && runs.len() > 1 { "▸" } else { " " };
        let title: String = run.name.chars().take(name).collect();
        let mut text = format!("{title:<name$}");
        columns.iter().for_each(|(_, width, cell)| text += &format!("{:>width$}", cell(run)));
        let style = if i == d.selected { d.theme.strong() } else { Default::default() };
        rows.push(Line::from(vec![
            Span::raw(pointer),
            Span::styled(format!("{} ", glyphs::marker(i)), d.theme.run(i)),
            Span::styled(text, style),
        ]));
    }
    rows.push(Line::default());
    rows.extend(
        d.run().into_iter().flat_map(facts).map(|(label, text)| {
            Line::from(vec![Span::styled(format!(" {label:<8}"), d.theme.dim()), Span::raw(text)])
        }),
    );
    for (row, line) in (area.top()..area.bottom()).zip(&rows) {
        buf.set_line(area.x, row, line, area.width);
    }
}

/// As many columns as fit, of those that any run fills.
fn columns(runs: &[Run], mut room: usize) -> Vec<Column> {
    let filled = |(_, _, cell): &Column| runs.iter().any(|run| cell(run) != "-");
    let fits = |&(_, width, _): &Column| {
        let fits = width <= room;
        room = if fits { room - width } else { 0 };
        fits
    };
    COLUMNS.into_iter().filter(filled).filter(fits).collect()
}

fn metric(run: &Run, name: &str) -> Option<f64> {
    run.eval.as_ref()?.metrics.get(name).copied()
}

fn facts(run: &Run) -> Vec<(&'static str, String)> {
    let Some(start) = &run.start else { return Vec::new() };
    let text = |pointer| run.setting(pointer).and_then(Value::as_str);
    let mut facts = Vec::new();
    if let Some(model) = text("/model/path") {
        let parameters = units::short(start.params_total as f64);
        facts.push(("model", format!("{model} · {parameters} · {}", text("/model/dtype").unwrap_or("f32"))));
    }
    if let Some((name, options)) = run.setting("/adapter").and_then(Value::as_object).and_then(|map| map.iter().next())
    {
        let option = |key: &str| {
            options.get(key).and_then(Value::as_f64).map(|value| format!(" · {key} {value}")).unwrap_or_default()
        };
        facts.push(("adapter", format!("{name}{}{}", option("rank"), option("alpha"))));
    }
    facts.push(("trains", format!("{} parameters", units::count(start.params_trainable))));
    facts.extend(text("/data/train").map(|data| ("data", data.into())));
    if let (Some(batch), Some(accumulate)) = (run.setting("/train/batch"), run.setting("/train/accumulate")) {
        facts.push(("batch", format!("{batch} × {accumulate}")));
    }
    if let Some(perplexity) = metric(run, "perplexity") {
        facts.push(("ppl", format!("{perplexity:.2}")));
    }
    if let Some(best) = run.evals.iter().min_by(|a, b| a.loss.total_cmp(&b.loss)) {
        facts.push(("best", format!("{:.4} at step {}", best.loss, best.step)));
    }
    if let Some(ended) = run.ended {
        facts.push(("state", Status::word(ended).into()));
    }
    facts.into_iter().map(|(label, text)| (label, crate::events::printable(&text))).collect()
}
