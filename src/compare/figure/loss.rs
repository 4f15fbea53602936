//! Losses against steps, tokens or time: a line for each variant, its evaluations as markers.

use super::axes::{Axis, Frame, HEIGHT, Spacing, Unit, WIDTH, range};
use super::svg::{Anchor, Svg, path};
use super::{Figure, mark};
use crate::checkpoint::RunStatus;
use crate::compare::group::Group;
use crate::compare::history::Run;
use crate::compare::metric::loss_unit;
use crate::compare::plan::Mode;
use crate::plot::curve::{Point, smooth, thin};

/// Points of a curve that a plot of this width can show.
const COLUMNS: usize = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    Step,
    Tokens,
    Time,
}

impl Against {
    fn of(self, point: &Point) -> f64 {
        match self {
            Against::Step => point.step as f64,
            Against::Tokens => point.tokens as f64,
            Against::Time => point.t,
        }
    }

    fn names(self) -> (&'static str, &'static str, Unit) {
        match self {
            Against::Step => ("step", "optimizer steps", Unit::Count),
            Against::Tokens => ("tokens", "tokens through the model", Unit::Count),
            Against::Time => ("time", "time since the start [h:min:s]", Unit::Clock),
        }
    }
}

/// A mean over seeds, and the lowest and highest of them.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stop {
    x: f64,
    mean: f64,
    low: f64,
    high: f64,
}

struct Curve {
    smoothed: Vec<Stop>,
    /// Of a single run, as it was measured.
    raw: Vec<(f64, f64)>,
    evals: Vec<Stop>,
    diverged: bool,
}

/// None where no run has a loss yet.
pub fn loss(groups: &[Group], against: Against, mode: Option<Mode>) -> Option<Figure> {
    let (name, title, unit) = against.names();
    let beta = weight(groups);
    let curves: Vec<_> = groups.iter().map(|group| curve(group, against, beta)).collect();
    let ends = curves.iter().flat_map(|c| c.smoothed.iter().chain(&c.evals)).map(|stop| stop.x);
    let end = ends.filter(|x| x.is_finite()).fold(0.0, f64::max);
    let x = Axis { title: title.into(), unit, range: [0.0, end.max(1.0)], spacing: Spacing::Linear };
    let y = Axis {
        title: format!("loss [{}]", loss_unit(groups)),
        unit: Unit::Number,
        range: losses(&curves)?,
        spacing: Spacing::Linear,
    };

    let mut svg = Svg::new(WIDTH, HEIGHT);
    let heading = format!("Loss by {name}");
    svg.text([12.0, 22.0], Anchor::Start, "title", &heading);
    let names: Vec<_> = groups.iter().map(|group| group.name.as_str()).collect();
    let height = mark::legend(&mut svg, &names, [12.0, WIDTH - 12.0, 44.0]);
    let frame = Frame::draw(&mut svg, 38.0 + height, x, y);
    let clip = clip(&mut svg, &frame, name);
    for (i, curve) in curves.iter().enumerate() {
        svg.raw(&format!("<g class=\"{}\" data-variant=\"{i}\" clip-path=\"url(#{clip})\">", mark::class(i)));
        draw(&mut svg, &frame, curve, i);
        svg.raw("</g>");
    }
    let caption = caption(groups, against, mode, beta);
    Some(Figure { id: format!("loss-by-{name}"), svg: svg.finish(&heading), caption, frames: None })
}

fn clip(svg: &mut Svg, frame: &Frame, name: &str) -> String {
    let [[left, top], [right, bottom]] = frame.corners();
    // Markers at the ends of the axes stay whole.
    let (x, y, width, height) = (left - 6.0, top - 6.0, right - left + 12.0, bottom - top + 12.0);
    svg.raw(&format!(
        "<clipPath id=\"clip-{name}\"><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/></clipPath>"
    ));
    format!("clip-{name}")
}

fn draw(svg: &mut Svg, frame: &Frame, curve: &Curve, index: usize) {
    let line = |stops: &[(f64, f64)]| {
        let points = thin(stops.to_vec(), COLUMNS);
        path(&points.iter().map(|&(x, y)| frame.at([x, y])).collect::<Vec<_>>())
    };
    let of = |value: fn(&Stop) -> f64| curve.smoothed.iter().map(|s| (s.x, value(s))).collect::<Vec<_>>();
    if curve.raw.is_empty() {
        let (low, mut high) = (of(|s| s.low), of(|s| s.high));
        high.reverse();
        // A band has no gaps to show; what is not finite is the line's to tell.
        let edge: Vec<_> = [thin(low, COLUMNS), thin(high, COLUMNS)].concat();
        let edge: Vec<_> = edge.into_iter().filter(|p| p.1.is_finite()).map(|(x, y)| frame.at([x, y])).collect();
        svg.raw(&format!("<path d=\"{}Z\" fill=\"currentColor\" fill-opacity=\"0.14\"/>", path(&edge)));
    } else {
        let d = line(&curve.raw);
        svg.raw(&format!("<path d=\"{d}\" fill=\"none\" stroke=\"currentColor\" stroke-opacity=\"0.3\"/>"));
    }
    let (d, dash) = (line(&of(|s| s.mean)), mark::dash(index));
    svg.raw(&format!("<path d=\"{d}\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"2\"{dash}/>"));
    for stop in &curve.evals {
        let at = frame.at([stop.x, stop.mean]);
        if !frame.contains(at) {
            continue;
        }
        if stop.high > stop.low {
            let (low, high) = (frame.y(stop.low), frame.y(stop.high));
            svg.raw(&format!("<path d=\"M{:.1} {low:.1}V{high:.1}\" stroke=\"currentColor\"/>", at[0]));
        }
        svg.raw(&mark::marker(index, at, 4.0));
    }
}

/// Weight of what came before in the smoothed curves: a moving average over about a twentieth of the longest run, so
/// that it does not lag visibly behind the evaluations, and over a hundred steps at most.
fn weight(groups: &[Group]) -> f64 {
    let steps = groups.iter().flat_map(|group| &group.runs).map(|run| run.train.len()).max().unwrap_or(0);
    1.0 - 1.0 / (steps as f64 / 20.0).clamp(1.0, 100.0)
}

fn curve(group: &Group, against: Against, beta: f64) -> Curve {
    let smoothed = |run: &Run| {
        let losses = smooth(run.train.iter().map(|point| point.loss), beta);
        run.train.iter().zip(losses).map(|(&point, loss)| Point { loss, ..point }).collect::<Vec<_>>()
    };
    let tracks: Vec<_> = group.runs.iter().map(smoothed).collect();
    let evals: Vec<Vec<_>> = group.runs.iter().map(|run| run.evals.iter().map(|eval| eval.at).collect()).collect();
    let raw = match &group.runs[..] {
        [run] => run.train.iter().map(|point| (against.of(point), point.loss)).collect(),
        _ => Vec::new(),
    };
    let diverged = group.runs.iter().any(|run| run.state == RunStatus::Diverged);
    Curve { smoothed: merge(&tracks, against), raw, evals: merge(&evals, against), diverged }
}

/// One track of several, step by step, over the steps that all of them have.
fn merge(tracks: &[Vec<Point>], against: Against) -> Vec<Stop> {
    let Some((first, others)) = tracks.split_first() else { return Vec::new() };
    let stop = |point: &Point| {
        let find = |track: &Vec<Point>| {
            track.binary_search_by_key(&point.step, |other| other.step).ok().map(|index| track[index])
        };
        let others: Option<Vec<_>> = others.iter().map(find).collect();
        let points = [vec![*point], others?].concat();
        let mean = |of: &dyn Fn(&Point) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
        let losses = points.iter().map(|point| point.loss);
        Some(Stop {
            x: mean(&|point| against.of(point)),
            mean: mean(&|point| point.loss),
            low: losses.clone().fold(f64::INFINITY, f64::min),
            high: losses.fold(f64::NEG_INFINITY, f64::max),
        })
    };
    first.iter().filter_map(stop).collect()
}

/// A variant that diverged must not push all others into one line.
fn losses(curves: &[Curve]) -> Option<[f64; 2]> {
    let of = |curves: &mut dyn Iterator<Item = &Curve>| {
        let stops: Vec<_> = curves.flat_map(|c| c.smoothed.iter().chain(&c.evals)).collect();
        range(stops.iter().flat_map(|stop| [stop.low, stop.high]), 0.05)
    };
    of(&mut curves.iter().filter(|curve| !curve.diverged)).or_else(|| of(&mut curves.iter()))
}

fn caption(groups: &[Group], against: Against, mode: Option<Mode>, beta: f64) -> String {
    let seeds = if groups.iter().any(|group| group.runs.len() > 1) {
        "Line: mean over seeds of the smoothed training loss, as far as all seeds went; band: lowest and highest seed."
    } else {
        "Line: smoothed training loss; behind it, thin, the loss of each step."
    };
    let clock = match (against, mode) {
        (Against::Time, Some(Mode::Race)) => " The clock is the race's: it runs while other variants take their turn.",
        _ => "",
    };
    let cut = if groups.iter().flat_map(|group| &group.runs).any(|run| run.state == RunStatus::Diverged) {
        " A variant that diverged may leave the plot."
    } else {
        ""
    };
    format!("{seeds} Exponential moving average, {beta:.2}. Markers: evaluations.{clock}{cut}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(step: usize, tokens: usize, loss: f64) -> Point {
        Point { step, tokens, t: 0.0, loss }
    }

    #[test]
    fn seeds_are_averaged_over_the_steps_that_all_have() {
        let tracks =
            [vec![point(1, 10, 2.0), point(2, 20, 1.0), point(3, 30, 0.5)], vec![point(1, 14, 4.0), point(3, 34, 1.5)]];
        let merged = merge(&tracks, Against::Tokens);
        let stop = |x, mean, low, high| Stop { x, mean, low, high };
        assert_eq!(merged, [stop(12.0, 3.0, 2.0, 4.0), stop(32.0, 1.0, 0.5, 1.5)]);
    }
}
