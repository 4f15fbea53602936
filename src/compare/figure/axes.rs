//! A frame with axes, and where values lie in it.

use super::svg::{Anchor, LETTER, Svg};
use crate::events::units;
use crate::plot::ticks;

pub const WIDTH: f64 = 620.0;
pub const HEIGHT: f64 = 380.0;
const RIGHT: f64 = 20.0;
const BOTTOM: f64 = 46.0;

/// How the marks of an axis are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Number,
    /// Of shares from 0 to 1.
    Percent,
    /// `8.1k`
    Count,
    /// `00:07:46`
    Clock,
}

#[derive(Clone, Debug)]
pub struct Axis {
    pub title: String,
    pub unit: Unit,
    pub range: [f64; 2],
    pub spacing: Spacing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    Linear,
    Logarithmic,
}

impl Axis {
    /// Position of `value` from 0 to 1; outside of that, beyond the ends.
    fn share(&self, value: f64) -> f64 {
        let place = |v: f64| if self.spacing == Spacing::Logarithmic { v.ln() } else { v };
        let [low, high] = self.range.map(place);
        (place(value) - low) / (high - low)
    }

    fn marks(&self, count: usize) -> Vec<(f64, String)> {
        let [low, high] = self.range;
        let values = match self.spacing {
            Spacing::Linear => ticks::linear(low, high, count),
            Spacing::Logarithmic => ticks::logarithmic(low, high, count),
        };
        let step = values.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
        let text = |value: f64| match self.unit {
            Unit::Number => ticks::label(value, step),
            // Rounded, or the last bit of a difference would ask for another decimal.
            Unit::Percent => ticks::label(100.0 * value, (1e6 * step).round() / 1e4),
            Unit::Count => count_label(value, step),
            Unit::Clock => units::clock(value),
        };
        let mut marks: Vec<_> = values.into_iter().map(|value| (value, text(value))).collect();
        // Marks closer than what their text tells apart say the same.
        marks.dedup_by(|a, b| a.1 == b.1);
        marks
    }
}

/// `950`, `1.2k`, `12.5M`: as many decimals as tell marks a `step` apart.
fn count_label(value: f64, step: f64) -> String {
    let (unit, suffix) = match value.abs() {
        v if v >= 1e9 => (1e9, "G"),
        v if v >= 1e6 => (1e6, "M"),
        v if v >= 1e3 => (1e3, "k"),
        _ => (1.0, ""),
    };
    let text = ticks::label(value / unit, step / unit);
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{suffix}")
}

/// Where the values are drawn.
pub struct Frame {
    left: f64,
    top: f64,
    pub x: Axis,
    pub y: Axis,
}

impl Frame {
    /// Draws both axes, their grid and titles below `top`.
    pub fn draw(svg: &mut Svg, top: f64, x: Axis, y: Axis) -> Self {
        let rows = y.marks(6);
        let widest = rows.iter().map(|(_, text)| text.chars().count()).max().unwrap_or(0) as f64;
        let frame = Frame { left: 34.0 + LETTER * widest, top, x, y };
        let [[left, top], [right, bottom]] = frame.corners();
        for (value, text) in rows {
            let y = frame.y(value);
            svg.line([left, y], [right, y], "grid");
            svg.text([left - 6.0, y + 4.0], Anchor::End, "dim", &text);
        }
        let mut free = left - 30.0;
        for (value, text) in frame.x.marks(7) {
            let (x, half) = (frame.x(value), LETTER * text.chars().count() as f64 / 2.0);
            svg.line([x, top], [x, bottom], "grid");
            if x - half > free {
                svg.text([x, bottom + 17.0], Anchor::Middle, "dim", &text);
                free = x + half + 8.0;
            }
        }
        svg.raw(&format!("<path d=\"M{left:.1} {top:.1}V{bottom:.1}H{right:.1}\" class=\"frame\"/>"));
        svg.text([(left + right) / 2.0, bottom + 37.0], Anchor::Middle, "", &frame.x.title);
        svg.upright([14.0, (top + bottom) / 2.0], &frame.y.title);
        frame
    }

    /// Top left and bottom right.
    pub fn corners(&self) -> [[f64; 2]; 2] {
        [[self.left, self.top], [WIDTH - RIGHT, HEIGHT - BOTTOM]]
    }

    pub fn x(&self, value: f64) -> f64 {
        self.left + self.x.share(value) * (WIDTH - RIGHT - self.left)
    }

    pub fn y(&self, value: f64) -> f64 {
        let bottom = HEIGHT - BOTTOM;
        bottom - self.y.share(value) * (bottom - self.top)
    }

    pub fn at(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        [self.x(x), self.y(y)]
    }

    pub fn contains(&self, [x, y]: [f64; 2]) -> bool {
        let [[left, top], [right, bottom]] = self.corners();
        (left..=right).contains(&x) && (top..=bottom).contains(&y)
    }
}

/// From the lowest to the highest finite value, with a margin on both sides; none where there is no finite value.
pub fn range(values: impl Iterator<Item = f64>, margin: f64) -> Option<[f64; 2]> {
    let finite = values.filter(|value| value.is_finite());
    let [low, high] = finite.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], v| [low.min(v), high.max(v)]);
    // Where all are zero, the scale says nothing and is that of shares.
    let least = if low == 0.0 && high == 0.0 { 1.0 } else { high.abs() * 1e-3 };
    let margin = ((high - low) * margin).max(least).max(1e-9);
    (low <= high).then_some([low - margin, high + margin])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_say_what_tells_them_apart() {
        let axis = |range, unit, spacing| Axis { title: String::new(), unit, range, spacing };
        let texts = |axis: Axis| axis.marks(5).into_iter().map(|mark| mark.1).collect::<Vec<_>>().join(" ");
        assert_eq!(texts(axis([0.0, 5000.0], Unit::Count, Spacing::Linear)), "0 1k 2k 3k 4k 5k");
        assert_eq!(
            texts(axis([24_300.0, 25_700.0], Unit::Count, Spacing::Linear)),
            "24.4k 24.6k 24.8k 25k 25.2k 25.4k 25.6k"
        );
        assert_eq!(
            texts(axis([0.0, 120.0], Unit::Clock, Spacing::Linear)),
            "00:00:00 00:00:20 00:00:40 00:01:00 00:01:20 00:01:40 00:02:00"
        );
        assert_eq!(texts(axis([0.9, 1.0], Unit::Percent, Spacing::Linear)), "90 92 94 96 98 100");
        assert_eq!(texts(axis([0.0795, 0.13], Unit::Percent, Spacing::Linear)), "8 9 10 11 12 13");
        assert_eq!(texts(axis([900.0, 6000.0], Unit::Count, Spacing::Logarithmic)), "1k 2k 5k");
    }

    #[test]
    fn equal_values_still_make_a_range() {
        let [low, high] = range([2.0, f64::NAN, 2.0].into_iter(), 0.1).unwrap();
        assert!(low < 2.0 && high > 2.0);
        assert_eq!(range([0.0, 0.0].into_iter(), 0.1), Some([-1.0, 1.0]));
        assert_eq!(range([f64::NAN].into_iter(), 0.1), None);
    }
}
