//! Quality against cost: a marker for each variant, those that no other beats joined by the Pareto front.

use super::axes::{Axis, Frame, HEIGHT, Spacing, Unit, WIDTH, range};
use super::mark::{self, shortened};
use super::svg::{Anchor, LETTER, Svg, path};
use super::{Figure, identifier};
use crate::compare::metric::{Better, Form, form};
use crate::compare::summary::{Peak, Summary, Variant};

/// Costs further apart than this factor are drawn on a logarithmic axis.
const WIDE: f64 = 20.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    Trainable,
    Memory,
}

impl Cost {
    fn of(self, variant: &Variant) -> Option<f64> {
        match self {
            Cost::Trainable => variant.trainable.map(|count| count as f64),
            Cost::Memory => variant.peak_mem_bytes.map(|bytes| bytes as f64 / MIB),
        }
    }

    fn on_front(self, variant: &Variant) -> bool {
        match self {
            Cost::Trainable => variant.on_front_by_trainable,
            Cost::Memory => variant.on_front_by_memory,
        }
    }

    fn axis(self, summary: &Summary) -> (&'static str, String, Unit) {
        let predicted = summary.variants.iter().any(|variant| variant.peak_mem == Peak::Predicted);
        match self {
            Cost::Trainable => ("trained parameters", "trained parameters".into(), Unit::Count),
            Cost::Memory if predicted => ("memory", "peak memory, foretold [MiB]".into(), Unit::Number),
            Cost::Memory => ("memory", "peak memory, measured [MiB]".into(), Unit::Number),
        }
    }
}

const MIB: f64 = 1024.0 * 1024.0;

/// None where fewer than two variants have both numbers.
pub fn trade(summary: &Summary, cost: Cost) -> Option<Figure> {
    let points: Vec<_> = summary.variants.iter().enumerate().filter_map(|(i, v)| point(summary, cost, i, v)).collect();
    if points.len() < 2 {
        return None;
    }
    let (name, title, unit) = cost.axis(summary);
    let (x, spacing) = costs(&points)?;
    let ends = points.iter().flat_map(|p| [p.value - p.sd, p.value + p.sd]);
    let x = Axis { title, unit, range: x, spacing };
    let quality = summary.label(&summary.metric);
    let of = range(ends, 0.1)?;
    let (title, unit, range) = match form(&summary.metric) {
        Form::Percent => (format!("{quality} [%]"), Unit::Percent, shares(of)),
        Form::Number => (quality.clone(), Unit::Number, of),
    };
    let y = Axis { title, unit, range, spacing: Spacing::Linear };

    let mut svg = Svg::new(WIDTH, HEIGHT);
    let heading = format!("{quality} by {name}");
    svg.text([12.0, 22.0], Anchor::Start, "title", &heading);
    let names: Vec<_> = summary.variants.iter().map(|variant| variant.name.as_str()).collect();
    let height = mark::legend(&mut svg, &names, [12.0, WIDTH - 12.0, 44.0]);
    let frame = Frame::draw(&mut svg, 38.0 + height, x, y);
    front(&mut svg, &frame, &points, summary.better);
    points.iter().for_each(|point| draw(&mut svg, &frame, point));
    labels(&mut svg, &frame, &points, summary);
    let caption = format!(
        "Mean over finished seeds, bar: one standard deviation. Ringed and joined: the Pareto front, variants that none \
         beats in both ({} is better, less cost is better).",
        summary.better.word()
    );
    let id = format!("quality-by-{}", identifier(name));
    Some(Figure { id, svg: svg.finish(&heading), caption, frames: None })
}

struct Spot {
    index: usize,
    cost: f64,
    value: f64,
    sd: f64,
    on_front: bool,
}

fn point(summary: &Summary, cost: Cost, index: usize, variant: &Variant) -> Option<Spot> {
    let estimate = variant.metrics.get(&summary.metric).filter(|estimate| estimate.mean.is_finite())?;
    let sd = estimate.sd.filter(|sd| sd.is_finite()).unwrap_or(0.0);
    Some(Spot { index, cost: cost.of(variant)?, value: estimate.mean, sd, on_front: cost.on_front(variant) })
}

fn costs(points: &[Spot]) -> Option<([f64; 2], Spacing)> {
    let low = points.iter().map(|point| point.cost).fold(f64::INFINITY, f64::min);
    let high = points.iter().map(|point| point.cost).fold(0.0, f64::max);
    if low > 0.0 && high / low > WIDE {
        return Some(([low / 1.5, high * 1.5], Spacing::Logarithmic));
    }
    let [low, high] = range(points.iter().map(|point| point.cost), 0.12)?;
    Some(([low.max(0.0), high], Spacing::Linear))
}

/// Not beyond what a share can be by more than a marker's height.
fn shares([low, high]: [f64; 2]) -> [f64; 2] {
    let [low, high] = [low.max(0.0), high.min(1.0)];
    let margin = 0.05 * (high - low);
    [low - margin, high + margin]
}

/// Steps from one variant of the front to the next: what lies beyond them is beaten.
fn front(svg: &mut Svg, frame: &Frame, points: &[Spot], better: Better) {
    let mut ahead: Vec<_> = points.iter().filter(|point| point.on_front).collect();
    ahead.sort_by(|a, b| a.cost.total_cmp(&b.cost));
    let mut stairs: Vec<[f64; 2]> = Vec::new();
    for point in ahead {
        let [x, y] = frame.at([point.cost, point.value]);
        stairs.extend(stairs.last().map(|last| [x, last[1]]));
        stairs.push([x, y]);
    }
    let [[_, top], [right, bottom]] = frame.corners();
    let (Some(&first), Some(&last)) = (stairs.first(), stairs.last()) else { return };
    let worst = if better == Better::Higher { bottom } else { top };
    stairs.insert(0, [first[0], worst]);
    stairs.push([right, last[1]]);
    svg.raw(&format!("<path d=\"{}\" class=\"front\" stroke-dasharray=\"4 3\"/>", path(&stairs)));
}

fn draw(svg: &mut Svg, frame: &Frame, point: &Spot) {
    let [x, y] = frame.at([point.cost, point.value]);
    svg.raw(&format!("<g class=\"{}\" data-variant=\"{}\">", mark::class(point.index), point.index));
    if point.sd > 0.0 {
        let [bottom, top] = frame.y.range;
        let ends = [point.value - point.sd, point.value + point.sd].map(|value| value.clamp(bottom, top));
        let [low, high] = ends.map(|value| frame.y(value));
        svg.raw(&format!("<path d=\"M{x:.1} {low:.1}V{high:.1}\" stroke=\"currentColor\" stroke-width=\"1.5\"/>"));
    }
    svg.raw(&mark::marker(point.index, [x, y], 5.5));
    if point.on_front {
        svg.raw(&format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"10\" class=\"front\"/>"));
    }
    svg.raw("</g>");
}

/// A name beside each marker where it covers neither another name nor a marker; the legend has those that find no room.
fn labels(svg: &mut Svg, frame: &Frame, points: &[Spot], summary: &Summary) {
    let spots: Vec<_> = points.iter().map(|point| (point, frame.at([point.cost, point.value]))).collect();
    let mut taken: Vec<[f64; 4]> = spots.iter().map(|(_, [x, y])| [x - 11.0, y - 11.0, x + 11.0, y + 11.0]).collect();
    let [[left, top], [right, bottom]] = frame.corners();
    for (point, [x, y]) in spots {
        let name = shortened(&summary.variants[point.index].name, 20);
        let width = LETTER * name.chars().count() as f64;
        // Above and below first: the front runs to the right.
        let places = [[x + 8.0, y - 14.0], [x + 8.0, y + 25.0], [x + 13.0, y + 4.0], [x - 13.0 - width, y + 4.0]];
        let area = |[x, y]: [f64; 2]| [x, y - 11.0, x + width, y + 3.0];
        let fits = |place: &&[f64; 2]| {
            let [x1, y1, x2, y2] = area(**place);
            let inside = x1 >= left && y1 >= top && x2 <= right && y2 <= bottom;
            inside && taken.iter().all(|[a1, b1, a2, b2]| x2 < *a1 || x1 > *a2 || y2 < *b1 || y1 > *b2)
        };
        if let Some(&place) = places.iter().find(fits) {
            svg.text(place, Anchor::Start, "dim halo", &name);
            taken.push(area(place));
        }
    }
}
