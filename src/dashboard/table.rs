//! The table of variants, what may be said of them, and what the selected one is.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::facts::facts;
use super::run::Run;
use super::{Dashboard, glyphs};
use crate::compare::metric;
use crate::events::units;

/// A row's variant, and the run that stands for it.
#[derive(Clone, Copy)]
struct Row<'a> {
    d: &'a Dashboard,
    variant: usize,
    run: &'a Run,
}

/// Heading, width and text of a column.
struct Column {
    title: &'static str,
    width: usize,
    cell: fn(Row) -> Option<String>,
}

const fn column(title: &'static str, width: usize, cell: fn(Row) -> Option<String>) -> Column {
    Column { title, width, cell }
}

/// Stands for the name of the task's own metric.
const TASK: &str = "task";

/// Most wanted first.
const COLUMNS: [Column; 7] = [
    column("loss", 7, |row| row.run.last.as_ref().map(|step| loss(step.loss))),
    column("eval", 7, |row| row.d.board().score(row.variant).map(|score| loss(score.loss))),
    column("±", 6, |row| row.d.board().score(row.variant)?.sd.map(spread)),
    column(TASK, 6, |row| {
        let name = task(row.d)?;
        row.run.metric(&name).map(|value| metric::narrow(&name, value)[1].clone())
    }),
    column("trains", 7, |row| {
        let start = row.run.history.start.as_ref()?;
        Some(format!("{:.2}%", 100.0 * start.params_trainable as f64 / start.params_total.max(1) as f64))
    }),
    column("tok/s", 6, |row| row.run.speed().map(units::short)),
    column("peak", 9, peak),
];

/// The metric that the comparison goes by, else the first that is neither a loss nor made of one.
fn task(d: &Dashboard) -> Option<String> {
    let chosen = d.board().plan.as_ref().and_then(|plan| plan.metric.clone()).filter(|name| metric::is_task(name));
    if chosen.is_some() {
        return chosen;
    }
    let evals = d.board().runs.iter().filter_map(|run| run.history.evals.last());
    evals.flat_map(|eval| eval.metrics.keys()).find(|name| metric::is_task(name)).cloned()
}

fn loss(loss: f64) -> String {
    if loss.abs() < 100.0 { format!("{loss:.3}") } else { units::short(loss) }
}

fn spread(sd: f64) -> String {
    let text = if sd < 1.0 { format!("{sd:.3}") } else { units::short(sd) };
    text.trim_start_matches('0').into()
}

/// Measured; foretold where variants share a process and its memory.
fn peak(row: Row) -> Option<String> {
    let bytes = match &row.d.board().plan {
        Some(_) => row.run.history.start.as_ref()?.memory.peak,
        None => row.run.last.as_ref()?.peak_mem_bytes,
    };
    Some(units::bytes(bytes))
}

pub fn draw(d: &Dashboard, area: Rect, buf: &mut Buffer) {
    let board = d.board();
    let order = board.order();
    let name = board.variants.iter().map(|v| v.name.chars().count()).max().unwrap_or(0).clamp(4, 16);
    let columns = columns(d, usize::from(area.width).saturating_sub(name + 4));
    let mut head = format!("    {:<name$}", "");
    let [task, _] = task(d).map_or_else(Default::default, |name| metric::narrow(&name, 0.0));
    for Column { title, width, .. } in &columns {
        head += &format!("{:>width$}", if *title == TASK { &task } else { *title });
    }
    let said = words(d, d.board().lead(), usize::from(area.width).saturating_sub(1));
    // The table may cover all but the first words; where it is longer still, it follows the selected row.
    let height = usize::from(area.height).saturating_sub(1);
    let room = order.len().min(height.saturating_sub(said.len()).max(height.min(3)));
    let at = order.iter().position(|&variant| variant == d.selected).unwrap_or(0);
    let first = (at + 1).saturating_sub(room).min(order.len().saturating_sub(room));
    let mut lines = vec![Line::styled(head, d.theme.dim())];
    lines.extend(order.iter().skip(first).take(room).map(|&variant| row(d, variant, name, &columns)));
    if lines.len() + 1 + said.len() <= usize::from(area.height) {
        lines.push(Line::default());
    }
    lines.extend(said);
    lines.extend(below(d, usize::from(area.width).saturating_sub(1)));
    for (y, line) in (area.top()..area.bottom()).zip(&lines) {
        buf.set_line(area.x, y, line, area.width);
    }
}

fn row(d: &Dashboard, variant: usize, name: usize, columns: &[&Column]) -> Line<'static> {
    let board = d.board();
    let (chosen, hidden) = (variant == d.selected, d.hidden.contains(&variant));
    let marker = if hidden { "-" } else { glyphs::marker(variant) };
    let title: String = board.variants[variant].name.chars().take(name).collect();
    let style = match (chosen, hidden) {
        (true, _) => d.theme.strong(),
        (false, true) => d.theme.dim(),
        (false, false) => Default::default(),
    };
    let mut line = Line::from(vec![
        Span::raw(if chosen && board.variants.len() > 1 { "▸" } else { " " }),
        Span::styled(format!("{marker} "), d.theme.run(variant)),
        Span::styled(format!("{title:<name$}"), style),
    ]);
    let Some(run) = d.main(variant) else {
        line.push_span(Span::styled(waiting(d, variant), d.theme.dim()));
        return line;
    };
    if run.is_lost() {
        line.push_span(Span::styled(format!(" {}", run.history.standing()), d.theme.warn()));
        return line;
    }
    let lost = board.of(&board.variants[variant]).any(Run::is_lost);
    line.push_span(Span::styled(if lost { "!" } else { " " }, d.theme.warn()));
    if let (Some((done, all)), None) = (run.pilot, &run.last) {
        line.push_span(Span::styled(format!(" pilot {done}/{all}"), d.theme.dim()));
        return line;
    }
    let mut text = String::new();
    for (i, column) in columns.iter().enumerate() {
        let width = column.width - usize::from(i == 0);
        text += &format!("{:>width$}", (column.cell)(Row { d, variant, run }).unwrap_or_else(|| "-".into()));
    }
    line.push_span(Span::styled(text, style));
    line
}

/// What a variant without a run waits for.
fn waiting(d: &Dashboard, variant: usize) -> String {
    let board = d.board();
    match board.variants[variant].runs.last().map(|&run| &board.runs[run]) {
        Some(pilot) => {
            let (done, all) = pilot.progress();
            let name = pilot.name.strip_prefix(&board.variants[variant].name).unwrap_or(&pilot.name);
            format!("  {} {done}/{all}", name.trim_start_matches('/'))
        }
        None => "  queued".into(),
    }
}

/// As many columns as fit, of those that any variant fills.
fn columns(d: &Dashboard, mut room: usize) -> Vec<&'static Column> {
    let variants = 0..d.board().variants.len();
    let filled = |column: &&Column| {
        let mut rows = variants.clone().filter_map(|variant| Some(Row { d, variant, run: d.main(variant)? }));
        rows.any(|row| (column.cell)(row).is_some())
    };
    let fits = |column: &&Column| {
        let fits = column.width <= room;
        room = if fits { room - column.width } else { 0 };
        fits
    };
    COLUMNS.iter().filter(filled).filter(fits).collect()
}

/// The verdict on the selected variant, and after an empty line facts about it.
fn below(d: &Dashboard, width: usize) -> Vec<Line<'static>> {
    let mut lines = words(d, d.board().verdict(d.selected), width);
    let fact = |(label, text)| Line::from(vec![Span::styled(format!(" {label:<8}"), d.theme.dim()), Span::raw(text)]);
    if d.board().variants.len() > 1 {
        lines.push(Line::default());
    }
    lines.extend(d.run().into_iter().flat_map(facts).map(fact));
    lines
}

/// How many seeds the numbers are of, for the panel's lower edge.
pub fn seeds(d: &Dashboard) -> Line<'static> {
    let text = d.board().spread().map_or_else(String::new, |text| format!(" {text} "));
    Line::styled(text, d.theme.dim())
}

fn words(d: &Dashboard, text: Option<String>, width: usize) -> Vec<Line<'static>> {
    let lines = text.into_iter().flat_map(|text| wrapped(&text, width));
    lines.map(|line| Line::styled(format!(" {line}"), d.theme.words())).collect()
}

/// Lines of whole words.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => *line = format!("{line} {word}"),
            Some(line) if line.is_empty() => line.push_str(word),
            _ => lines.push(word.into()),
        }
    }
    lines
}
