//! Loss curves: smoothed line over the faint raw one, evaluations as markers, all variants in one chart.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;
use ratatui::widgets::canvas::{Canvas, Context, Line as Segment};

use super::axes::{self, dot};
use super::run::Run;
use super::{Axis, Dashboard};
use super::{glyphs, theme::Theme};
use crate::plot::curve::{Point, thin};

/// Variants that the legend names; it would cover the curves of more, and the table has them all.
const MOST_NAMES: usize = 5;

/// What the chart is set to, for its title.
pub fn setting(d: &Dashboard) -> String {
    let smoothing = if d.beta() > 0.0 { format!("EMA {}", d.beta()) } else { "raw".into() };
    let axis = match d.axis {
        Axis::Step => "steps",
        Axis::Tokens => "tokens",
        Axis::Time => "time",
    };
    let newest = if d.halvings > 0 { format!(" · newest 1/{}", 1u32 << d.halvings) } else { String::new() };
    let scale = if d.log_scale { " · log" } else { "" };
    format!("{smoothing} · {} eval · {axis}{newest}{scale}", glyphs::marker(0))
}

type Curve = Vec<(f64, f64)>;

/// One run, in the chart's coordinates.
struct Curves {
    variant: usize,
    /// Whether it stands for its variant; other seeds and pilots do not.
    main: bool,
    raw: Curve,
    smooth: Curve,
    evals: Curve,
}

pub fn draw(d: &Dashboard, area: Rect, buf: &mut Buffer) {
    let mut curves: Vec<_> = shown(d).map(|(run, main)| curves(d, run, main, area.width)).collect();
    let Some(x) = range(&curves, |c| &c.smooth, |point| point.0).map(|x| stretch(d, x)) else {
        return Line::styled("no steps yet", d.theme.dim()).centered().render(area, buf);
    };
    curves.iter_mut().for_each(|c| c.cut(x));
    let Some(y) = range(&curves, |c| &c.smooth, |point| point.1).map(widened) else { return };
    let plot = axes::draw(d, x, y, area, buf);
    // What matters most is drawn last, on top.
    curves.sort_by_key(|c| (c.main, c.variant == d.selected));
    let paint = |ctx: &mut Context| {
        for c in &curves {
            paint(d, c, ctx);
        }
    };
    Canvas::default().marker(Marker::Braille).x_bounds(x).y_bounds(y).paint(paint).render(plot, buf);
    for c in curves.iter().filter(|c| c.main) {
        for &(px, py) in c.evals.iter().chain(signposts(d, c).iter()) {
            let column = plot.x + dot(px, x, plot.width, 2);
            let row = plot.bottom() - 1 - dot(py, y, plot.height, 4);
            buf.set_string(column, row, glyphs::marker(c.variant), d.theme.run(c.variant));
        }
    }
    legend(d, plot, buf);
}

/// Runs of the variants that are not hidden, and whether each stands for its variant.
fn shown(d: &Dashboard) -> impl Iterator<Item = (&Run, bool)> {
    let board = d.board();
    let visible = board.variants.iter().enumerate().filter(|(variant, _)| !d.hidden.contains(variant));
    visible.flat_map(move |(variant, of)| {
        let main = d.main(variant).map(|run| &run.name);
        let runs = of.runs.iter().map(|&run| &board.runs[run]);
        // Without colour nothing is faint.
        runs.map(move |run| (run, main == Some(&run.name))).filter(|(_, main)| *main || d.theme == Theme::Color)
    })
}

fn curves(d: &Dashboard, run: &Run, main: bool, width: u16) -> Curves {
    let x = |point: &Point| match d.axis {
        Axis::Step => point.step as f64,
        Axis::Tokens => point.tokens as f64,
        Axis::Time => point.t,
    };
    let y = |loss: f64| if d.log_scale { loss.ln() } else { loss };
    let train = &run.history.train;
    let dots = (2 * width as usize) << d.halvings;
    let smooth = thin(train.iter().zip(run.smoothed(d.beta())).map(|(p, loss)| (x(p), y(loss))).collect(), dots);
    let raw = main && run.variant == d.selected && d.beta() > 0.0;
    let raw = if raw { thin(train.iter().map(|p| (x(p), y(p.loss))).collect(), dots) } else { Vec::new() };
    let evals = run.history.evals.iter().map(|eval| (x(&eval.at), y(eval.at.loss))).filter(|p| p.1.is_finite());
    Curves { variant: run.variant, main, raw, smooth, evals: evals.collect() }
}

impl Curves {
    /// Leaves out what is older than the range, but for the point from which the line comes in.
    fn cut(&mut self, [low, _]: [f64; 2]) {
        for curve in [&mut self.raw, &mut self.smooth] {
            curve.drain(..curve.partition_point(|point| point.0 < low).saturating_sub(1));
        }
        self.evals.retain(|point| point.0 >= low);
    }
}

/// Lowest and highest of curves and evaluations; spikes of the raw loss may leave it.
fn range(curves: &[Curves], line: fn(&Curves) -> &Curve, value: fn(&(f64, f64)) -> f64) -> Option<[f64; 2]> {
    let points = curves.iter().flat_map(|c| line(c).iter().chain(&c.evals)).filter(|p| p.1.is_finite()).map(value);
    let [low, high] = points.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], v| [low.min(v), high.max(v)]);
    (low <= high).then_some([low, high])
}

/// From zero to the newest, or the newest part of it.
fn stretch(d: &Dashboard, [low, high]: [f64; 2]) -> [f64; 2] {
    let (low, high) = (0f64.min(low), high.max(1.0));
    [high - (high - low) / f64::from(1u32 << d.halvings), high]
}

fn widened([low, high]: [f64; 2]) -> [f64; 2] {
    let margin = ((high - low) * 0.06).max(high.abs() * 1e-3).max(1e-6);
    [low - margin, high + margin]
}

/// The smoothed curve, over the raw one of the selected variant.
fn paint(d: &Dashboard, c: &Curves, ctx: &mut Context) {
    let faint = d.theme.faint(c.variant);
    if let Some(color) = faint {
        line(ctx, &c.raw, color);
        ctx.layer();
    }
    let color = if c.main { Some(d.theme.curve(c.variant)) } else { faint };
    if let Some(color) = color {
        line(ctx, &c.smooth, color);
        ctx.layer();
    }
}

fn line(ctx: &mut Context, curve: &[(f64, f64)], color: Color) {
    for pair in curve.windows(2) {
        let [(x1, y1), (x2, y2)] = [pair[0], pair[1]];
        if y1.is_finite() && y2.is_finite() {
            ctx.draw(&Segment { x1, y1, x2, y2, color });
        }
    }
}

/// Marks along the curve where colour cannot tell the variants apart.
fn signposts(d: &Dashboard, curves: &Curves) -> Curve {
    if d.theme == Theme::Color || d.board().variants.len() < 2 || curves.smooth.is_empty() {
        return Vec::new();
    }
    let n = curves.smooth.len();
    // Each variant has its own phase, so that curves on top of each other show both markers.
    let at = |k: usize| (n * (2 * k + 1) / 8 + curves.variant * n / 40).min(n - 1);
    (0..4).map(|k| curves.smooth[at(k)]).filter(|point| point.1.is_finite()).collect()
}

/// Names and newest losses, top right, where falling curves leave room.
fn legend(d: &Dashboard, plot: Rect, buf: &mut Buffer) {
    let board = d.board();
    let shown: Vec<_> = board.order().into_iter().filter(|variant| !d.hidden.contains(variant)).collect();
    let name = |variant: usize| board.variants[variant].name.as_str();
    let width = shown.iter().map(|&variant| name(variant).chars().count()).max().unwrap_or(0).min(18);
    let full = width as u16 + 14;
    if plot.width < 2 * full || shown.len() > MOST_NAMES || shown.len() as u16 + 2 > plot.height {
        return;
    }
    for (row, &variant) in shown.iter().enumerate() {
        let newest = |run: &Run| run.smoothed(d.beta()).into_iter().rfind(|loss| loss.is_finite());
        let loss = d
            .main(variant)
            .filter(|run| !run.is_lost())
            .and_then(newest)
            .map_or_else(|| "     -".into(), |loss| format!("{loss:6.3}"));
        let text: String = name(variant).chars().take(width).collect();
        let style = if variant == d.selected { d.theme.strong() } else { d.theme.dim() };
        let line = Line::from(vec![
            Span::styled(format!(" ━{}━ ", glyphs::marker(variant)), d.theme.run(variant)),
            Span::styled(format!("{text:<width$} {loss} "), style),
        ]);
        buf.set_line(plot.right().saturating_sub(full), plot.y + row as u16, &line, full);
    }
}
