//! The axes of the loss chart, and where a value lies on them.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{Axis, Dashboard};
use crate::events::units;
use crate::plot::ticks;

/// The cell of `value` on an axis of `cells` cells, each with `dots` braille dots.
pub fn dot(value: f64, [low, high]: [f64; 2], cells: u16, dots: u16) -> u16 {
    let last = f64::from((cells * dots).saturating_sub(1));
    let place = ((value - low) / (high - low) * last).round().clamp(0.0, last);
    place as u16 / dots
}

/// Draws both axes and returns what they leave for the curves.
pub fn draw(d: &Dashboard, x: [f64; 2], y: [f64; 2], area: Rect, buf: &mut Buffer) -> Rect {
    let rows = area.height.saturating_sub(2);
    let marks = y_marks(d, y, rows);
    let width = marks.iter().map(|(_, text)| text.len()).max().unwrap_or(0) as u16 + 1;
    if area.width < width + 10 || rows < 3 {
        return area;
    }
    let plot = Rect::new(area.x + width + 1, area.y, area.width - width - 1, rows);
    let (axis_x, axis_y) = (plot.x - 1, plot.bottom());
    for row in plot.top()..plot.bottom() {
        buf.set_string(axis_x, row, "│", d.theme.border());
    }
    for (value, text) in marks {
        let row = plot.bottom() - 1 - dot(value, y, rows, 4);
        buf.set_string(axis_x - 1 - text.len() as u16, row, &text, d.theme.dim());
        buf.set_string(axis_x, row, "┤", d.theme.border());
    }
    buf.set_string(axis_x, axis_y, format!("└{}", "─".repeat(plot.width as usize)), d.theme.border());
    let mut free = area.x;
    // There is no half step.
    let whole = |value: &f64| d.axis == Axis::Time || value.fract() == 0.0;
    for value in ticks::linear(x[0], x[1], usize::from(plot.width / 12)).into_iter().filter(whole) {
        let text = if d.axis == Axis::Time { units::clock(value) } else { units::short(value) };
        let column = plot.x + dot(value, x, plot.width, 2);
        let start = column.saturating_sub(text.len() as u16 / 2).min(area.right().saturating_sub(text.len() as u16));
        if start >= free {
            buf.set_string(column, axis_y, "┬", d.theme.border());
            buf.set_string(start, axis_y + 1, &text, d.theme.dim());
            free = start + text.len() as u16 + 2;
        }
    }
    plot
}

/// Position on the axis and text of each mark.
fn y_marks(d: &Dashboard, y: [f64; 2], rows: u16) -> Vec<(f64, String)> {
    let count = usize::from(rows / 3).clamp(2, 8);
    let values =
        if d.log_scale { ticks::logarithmic(y[0].exp(), y[1].exp(), count) } else { ticks::linear(y[0], y[1], count) };
    let step = values.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
    let place = |value: f64| if d.log_scale { value.ln() } else { value };
    values.into_iter().map(|value| (place(value), ticks::label(value, step))).collect()
}
