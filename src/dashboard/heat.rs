//! The heat map: module kind × layer, by active rank or by the size of the weight update.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use super::run::{Measure, Modules, Run};
use super::{Dashboard, glyphs};
use crate::plot::palette::HEAT;

/// Columns for the names of the module kinds.
const NAMES: u16 = 14;
/// Columns for the sum of a row.
const SUMS: u16 = 8;
/// A cell as wide as this has its number in it.
const WIDE: usize = 6;

/// Name and setting of the panel.
pub fn title(d: &Dashboard) -> (String, Line<'static>) {
    let (Some(run), Some(modules)) = (d.run(), d.modules()) else { return ("modules".into(), Line::default()) };
    let variants = &d.board().variants;
    let whose = if variants.len() > 1 { format!(", {}", variants[run.variant].name) } else { String::new() };
    let whose = crate::events::printable(&whose);
    match modules.measure {
        Measure::Rank { budget, total } => (format!("ranks{whose}"), bar(d, run, budget, total)),
        Measure::UpdateNorm => {
            (format!("update ‖s·BA‖{whose}"), Line::styled(format!("step {}", modules.step), d.theme.dim()))
        }
    }
}

/// `budget ▕██████▌  ▏ 196 → 144 at step 1600`
fn bar(d: &Dashboard, run: &Run, budget: usize, total: usize) -> Line<'static> {
    let to_come = target(run).filter(|&(target, _)| target < budget);
    let text = to_come.map_or(format!("{budget} of {total}"), |(t, step)| format!("{budget} → {t} at step {step}"));
    let edge = |text: &'static str| Span::styled(text, d.theme.border());
    let filled = glyphs::bar(budget as f64 / total.max(1) as f64, 8);
    let label = Span::styled("budget ", d.theme.dim());
    Line::from(vec![label, edge("▕"), Span::styled(filled, d.theme.part(2)), edge("▏"), Span::raw(format!(" {text}"))])
}

/// The budget that AdaLoRA ends with, and the step from which it holds.
fn target(run: &Run) -> Option<(usize, usize)> {
    let setting = |key: &str| run.setting(&format!("/adapter/adalora/{key}"))?.as_u64();
    let modules = run.ranks.as_ref()?.cells.len();
    let steps = run.history.start.as_ref()?.steps;
    Some((setting("target_rank")? as usize * modules, steps.saturating_sub(setting("final_steps")? as usize)))
}

/// What the shades mean, where cells are too narrow for numbers.
pub fn legend(d: &Dashboard, width: u16) -> Line<'static> {
    let Some(modules) = d.modules().filter(|modules| !d.numbers && Grid::of(modules, width).width < WIDE) else {
        return Line::default();
    };
    let (top, share) = (highest(modules), |level: usize, of: usize| level as f64 / of as f64);
    let mut line = Line::default();
    if d.theme.heat(0.0).is_some() {
        line.push_span(Span::styled(" 0 ", d.theme.dim()));
        let swatch = |level| d.theme.heat(share(level, HEAT.len() - 1)).map(|style| Span::styled("  ", style));
        line.spans.extend((0..HEAT.len()).filter_map(swatch));
        line.push_span(Span::styled(format!(" {} ", number(top)), d.theme.dim()));
        return line;
    }
    for level in 0..=4 {
        let (from, to) = ((share(level, 4) - 0.25) * top, share(level, 4) * top);
        let text = match (level, modules.measure) {
            (0, _) => "0".into(),
            (_, Measure::Rank { .. }) => format!("{:.0}-{:.0}", (from + 1.0).floor(), to.floor()),
            (_, Measure::UpdateNorm) => format!("≤{to:.2}"),
        };
        line.push_span(Span::styled(format!(" {} {text} ", glyphs::shade(share(level, 4))), d.theme.dim()));
    }
    line
}

/// How layers are laid out: wide cells where there are few, several layers to a cell where there are many.
struct Grid {
    per_cell: usize,
    columns: usize,
    width: usize,
}

impl Grid {
    fn of(modules: &Modules, width: u16) -> Self {
        let layers = modules.cells.iter().map(|cell| cell.layer + 1).max().unwrap_or(1);
        let room = usize::from(width.saturating_sub(NAMES + SUMS)).max(1);
        let per_cell = layers.div_ceil(room);
        let columns = layers.div_ceil(per_cell);
        Self { per_cell, columns, width: (room / columns).clamp(1, 7) }
    }

    fn x(&self, column: usize) -> u16 {
        NAMES + (column * self.width) as u16
    }
}

pub fn draw(d: &Dashboard, area: Rect, buf: &mut Buffer) {
    let Some(modules) = d.modules() else {
        let so_far = if d.run().is_some_and(|run| run.ended().is_some()) { "" } else { " so far" };
        let text = format!("neither ranks nor norms{so_far}");
        return Line::styled(text, d.theme.dim()).centered().render(area, buf);
    };
    let (grid, top) = (Grid::of(modules, area.width), highest(modules));
    let mut rows = area.top()..area.bottom();
    if let Some(y) = rows.next() {
        buf.set_stringn(area.x, y, "layer", area.width as usize, d.theme.dim());
        heading(d, &grid, Rect { y, height: 1, ..area }, buf);
    }
    for (kind, y) in kinds(modules).iter().zip(rows) {
        buf.set_stringn(area.x, y, kind, NAMES as usize - 1, d.theme.dim());
        for column in 0..grid.columns {
            let layers = column * grid.per_cell..(column + 1) * grid.per_cell;
            if let Some(value) = value(modules, kind, layers) {
                let at = Rect { x: area.x + grid.x(column), y, ..area }.intersection(area);
                cell(d, value, (value / top, modules.measure), grid.width, at, buf);
            }
        }
        if modules.measure != Measure::UpdateNorm {
            let total: f64 = modules.cells.iter().filter(|cell| cell.kind == *kind).map(|cell| cell.value).sum();
            let x = (area.x + grid.x(grid.columns) + 1).min(area.right());
            buf.set_stringn(x, y, format!("{total:>5.0}"), usize::from(area.right() - x).min(6), d.theme.dim());
        }
    }
}

fn highest(modules: &Modules) -> f64 {
    modules.cells.iter().map(|cell| cell.value).filter(|value| value.is_finite()).fold(0.0, f64::max)
}

/// In the order in which the model names them.
fn kinds(modules: &Modules) -> Vec<&str> {
    let mut kinds: Vec<&str> = Vec::new();
    for cell in &modules.cells {
        if !kinds.contains(&cell.kind.as_str()) {
            kinds.push(&cell.kind);
        }
    }
    kinds
}

fn value(modules: &Modules, kind: &str, layers: std::ops::Range<usize>) -> Option<f64> {
    let cells = modules.cells.iter().filter(|cell| cell.kind == kind && layers.contains(&cell.layer));
    cells.map(|cell| cell.value).reduce(f64::max)
}

fn heading(d: &Dashboard, grid: &Grid, area: Rect, buf: &mut Buffer) {
    let every = 4usize.div_ceil(grid.width);
    for column in (0..grid.columns).step_by(every) {
        let text = format!("{:^width$}", column * grid.per_cell, width = grid.width);
        let x = (area.x + grid.x(column)).min(area.right());
        buf.set_stringn(x, area.y, text, usize::from(area.right() - x), d.theme.dim());
    }
}

/// A shade, a number, or both where there is room for both.
fn cell(d: &Dashboard, value: f64, (share, measure): (f64, Measure), width: usize, area: Rect, buf: &mut Buffer) {
    let style = d.theme.heat(share);
    let shade = if style.is_some() { " " } else { glyphs::shade(share) };
    let text = match (width >= WIDE, d.numbers) {
        (true, true) => format!("{:^width$}", number(value)),
        (true, false) => format!("{shade}{:^w$}", number(value), w = width - 1),
        (false, true) => format!("{:^width$}", digit(value, share, measure)),
        (false, false) => shade.repeat(width),
    };
    buf.set_stringn(area.x, area.y, text, width.min(area.width as usize), style.unwrap_or(d.theme.dim()));
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// A rank as 0-9 and a-z; of a norm, the tenths of the largest.
fn digit(value: f64, share: f64, measure: Measure) -> char {
    let digit = if measure == Measure::UpdateNorm { (share * 10.0).min(9.0) } else { value.min(35.0) };
    char::from_digit(digit.max(0.0) as u32, 36).unwrap_or('?')
}
