//! The heat map: module kind × layer, by active rank or by the size of the weight update.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::Widget;

use super::board::{Measure, Modules};
use super::{Dashboard, glyphs};

/// Columns for the names of the module kinds.
const NAMES: u16 = 12;

/// Name and setting of the panel.
pub fn title(d: &Dashboard) -> (String, String) {
    match d.modules() {
        Some(Modules { measure: Measure::Rank { budget }, step, .. }) => {
            ("active ranks".into(), format!("budget {budget} · step {step}"))
        }
        Some(Modules { measure: Measure::UpdateNorm, step, .. }) => {
            ("size of the update ‖s·BA‖".into(), format!("step {step}"))
        }
        None => ("modules".into(), String::new()),
    }
}

pub fn draw(d: &Dashboard, area: Rect, buf: &mut Buffer) {
    let Some(modules) = d.modules() else {
        return Line::styled("this run reports neither ranks nor norms", d.theme.dim()).centered().render(area, buf);
    };
    let kinds = kinds(modules);
    let layers = modules.cells.iter().map(|cell| cell.layer + 1).max().unwrap_or(1);
    let room = usize::from(area.width.saturating_sub(NAMES + 8)).max(1);
    // Wide cells where there are few layers, several layers to a cell where there are many.
    let per_cell = layers.div_ceil(room);
    let columns = layers.div_ceil(per_cell);
    let width = (room / columns).clamp(1, 7);
    let top = modules.cells.iter().map(|cell| cell.value).filter(|v| v.is_finite()).fold(0.0, f64::max);

    let mut rows = area.top()..area.bottom();
    if let Some(y) = rows.next() {
        buf.set_stringn(area.x, y, "layer", area.width as usize, d.theme.dim());
        heading(d, columns, per_cell, width, Rect { y, height: 1, ..area }, buf);
    }
    for (kind, y) in kinds.iter().zip(rows) {
        buf.set_stringn(area.x, y, kind, NAMES as usize - 1, d.theme.dim());
        for column in 0..columns {
            let x = area.x + NAMES + (column * width) as u16;
            if let Some(value) = value(modules, kind, column * per_cell..(column + 1) * per_cell) {
                cell(d, value, value / top, width, Rect { x, y, ..area }.intersection(area), buf);
            }
        }
        let total: f64 = modules.cells.iter().filter(|cell| cell.kind == *kind).map(|cell| cell.value).sum();
        if modules.measure != Measure::UpdateNorm {
            let x = area.x + NAMES + (columns * width) as u16 + 1;
            buf.set_stringn(x.min(area.right()), y, format!("{total:>5.0}"), 6, d.theme.dim());
        }
    }
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

fn heading(d: &Dashboard, columns: usize, per_cell: usize, width: usize, area: Rect, buf: &mut Buffer) {
    let every = 4usize.div_ceil(width);
    for column in (0..columns).step_by(every) {
        let text = format!("{:^width$}", column * per_cell);
        let x = (area.x + NAMES + (column * width) as u16).min(area.right());
        buf.set_stringn(x, area.y, text, usize::from(area.right() - x), d.theme.dim());
    }
}

fn cell(d: &Dashboard, value: f64, fraction: f64, width: usize, area: Rect, buf: &mut Buffer) {
    let room = width.min(area.width as usize);
    let number = if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    match d.theme.heat(fraction) {
        Some(style) if width >= 5 => buf.set_stringn(area.x, area.y, format!("{number:^width$}"), room, style),
        Some(style) => buf.set_stringn(area.x, area.y, " ".repeat(width), room, style),
        None if width >= 6 => {
            let text = format!("{}{number:^w$}", glyphs::shade(fraction), w = width - 1);
            buf.set_stringn(area.x, area.y, text, room, d.theme.dim())
        }
        None => buf.set_stringn(area.x, area.y, glyphs::shade(fraction).repeat(width), room, d.theme.dim()),
    };
}
