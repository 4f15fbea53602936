//! Loss curves: smoothed line over the faint raw one, evaluations as markers, all runs in one chart.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;
use ratatui::widgets::canvas::{Canvas, Context, Line as Segment};

use super::board::Run;
use super::{Axis, Dashboard};
use super::{glyphs, theme::Theme};
use crate::events::units;
use crate::plot::curve::{Point, thin};
use crate::plot::ticks;

/// What the chart is set to, for its title.
pub fn setting(d: &Dashboard) -> String {
    let smoothing = if d.beta() > 0.0 { format!("EMA {}", d.beta()) } else { "raw".into() };
    let axis = match d.axis {
        Axis::Step => "steps",
        Axis::Tokens => "tokens",
        Axis::Time => "time",
    };
    format!("{smoothing} · {} eval · {axis}{}", glyphs::marker(0), if d.log_scale { " · log" } else { "" })
}

type Curve = Vec<(f64, f64)>;

/// One run, in the chart's coordinates.
struct Curves {
    run: usize,
    raw: Curve,
    smooth: Curve,
    evals: Curve,
}

pub fn draw(d: &Dashboard, area: Rect, buf: &mut Buffer) {
    let curves: Vec<_> = d.board().runs.iter().enumerate().map(|(i, run)| curves(d, i, run, area.width)).collect();
    let Some((x, y)) = bounds(&curves) else {
        return Line::styled("no steps yet", d.theme.dim()).centered().render(area, buf);
    };
    let plot = axes(d, x, y, area, buf);
    let selected = d.selected.min(curves.len().saturating_sub(1));
    // The selected run is drawn last, on top.
    let order = || curves.iter().filter(|c| c.run != selected).chain(&curves[selected..=selected]);
    let paint = |ctx: &mut Context| {
        if let Some(color) = d.theme.faint(selected).filter(|_| d.beta() > 0.0) {
            line(ctx, &curves[selected].raw, color);
        }
        for c in order() {
            ctx.layer();
            line(ctx, &c.smooth, d.theme.curve(c.run));
        }
    };
    Canvas::default().marker(Marker::Braille).x_bounds(x).y_bounds(y).paint(paint).render(plot, buf);
    for c in order() {
        for &(px, py) in c.evals.iter().chain(signposts(d, c).iter()) {
            let column = plot.x + dot(px, x, plot.width, 2);
            let row = plot.bottom() - 1 - dot(py, y, plot.height, 4);
            buf.set_string(column, row, glyphs::marker(c.run), d.theme.run(c.run));
        }
    }
    legend(d, plot, buf);
}

/// The cell of `value` on an axis of `cells` cells, each with `dots` braille dots.
fn dot(value: f64, [low, high]: [f64; 2], cells: u16, dots: u16) -> u16 {
    let last = f64::from((cells * dots).saturating_sub(1));
    let place = ((value - low) / (high - low) * last).round().clamp(0.0, last);
    place as u16 / dots
}

/// Marks along the curve where colour cannot tell the runs apart.
fn signposts(d: &Dashboard, curves: &Curves) -> Curve {
    if d.theme == Theme::Color || d.board().runs.len() < 2 || curves.smooth.is_empty() {
        return Vec::new();
    }
    let n = curves.smooth.len();
    // Each run has its own phase, so that curves on top of each other show both markers.
    let at = |k: usize| (n * (2 * k + 1) / 8 + curves.run * n / 40).min(n - 1);
    (0..4).map(|k| curves.smooth[at(k)]).filter(|point| point.1.is_finite()).collect()
}

fn curves(d: &Dashboard, index: usize, run: &Run, width: u16) -> Curves {
    let x = |point: &Point| match d.axis {
        Axis::Step => point.step as f64,
        Axis::Tokens => point.tokens as f64,
        Axis::Time => point.t,
    };
    let y = |loss: f64| if d.log_scale { loss.ln() } else { loss };
    let raw: Curve = run.train.iter().map(|p| (x(p), y(p.loss))).collect();
    let smooth: Curve = run.train.iter().zip(run.smoothed(d.beta())).map(|(p, loss)| (x(p), y(loss))).collect();
    let evals = run.evals.iter().map(|p| (x(p), y(p.loss))).filter(|p| p.1.is_finite()).collect();
    let dots = 2 * width as usize;
    Curves { run: index, raw: thin(raw, dots), smooth: thin(smooth, dots), evals }
}

/// Ranges of x and y that hold the smoothed curves and the evaluations; spikes of the raw loss may leave them.
fn bounds(curves: &[Curves]) -> Option<([f64; 2], [f64; 2])> {
    let points = || curves.iter().flat_map(|c| c.smooth.iter().chain(&c.evals)).filter(|p| p.1.is_finite());
    let range = |values: &mut dyn Iterator<Item = f64>| {
        values.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], v| [low.min(v), high.max(v)])
    };
    let x = range(&mut points().map(|p| p.0));
    let [low, high] = range(&mut points().map(|p| p.1));
    if low > high {
        return None;
    }
    let margin = ((high - low) * 0.06).max(high.abs() * 1e-3).max(1e-6);
    Some(([0f64.min(x[0]), x[1].max(1.0)], [low - margin, high + margin]))
}

fn line(ctx: &mut Context, curve: &[(f64, f64)], color: Color) {
    for pair in curve.windows(2) {
        let [(x1, y1), (x2, y2)] = [pair[0], pair[1]];
        if y1.is_finite() && y2.is_finite() {
            ctx.draw(&Segment { x1, y1, x2, y2, color });
        }
    }
}

/// Draws both axes and returns what they leave for the curves.
fn axes(d: &Dashboard, x: [f64; 2], y: [f64; 2], area: Rect, buf: &mut Buffer) -> Rect {
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
    for value in ticks::linear(x[0], x[1], usize::from(plot.width / 12)) {
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

/// Names and newest losses, top right, where falling curves leave room.
fn legend(d: &Dashboard, plot: Rect, buf: &mut Buffer) {
    let runs = &d.board().runs;
    let width = runs.iter().map(|run| run.name.chars().count()).max().unwrap_or(0).min(18);
    let full = width as u16 + 14;
    if plot.width < 2 * full || runs.len() as u16 + 2 > plot.height {
        return;
    }
    for (i, run) in runs.iter().enumerate() {
        let loss = run.smoothed(d.beta()).into_iter().rfind(|loss| loss.is_finite());
        let loss = loss.map_or_else(|| "     -".into(), |loss| format!("{loss:6.3}"));
        let name: String = run.name.chars().take(width).collect();
        let style = if i == d.selected { d.theme.strong() } else { d.theme.dim() };
        let line = Line::from(vec![
            Span::styled(format!(" ━{}━ ", glyphs::marker(i)), d.theme.run(i)),
            Span::styled(format!("{name:<width$} {loss} "), style),
        ]);
        let x = plot.right().saturating_sub(full);
        buf.set_line(x, plot.y + i as u16, &line, full);
    }
}
