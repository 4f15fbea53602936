//! Numbers drawn with characters: bars, sparklines, shades.

use crate::plot::palette::{SERIES, shape};

const LEFT: [&str; 9] = [" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"];
const LOWER: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const SHADES: [&str; 5] = ["·", "░", "▒", "▓", "█"];

/// One marker per variant, told apart without colour; those of the report.
const MARKERS: [&str; SERIES.len()] = ["●", "▲", "■", "◆", "○", "△", "□", "◇"];

pub fn marker(variant: usize) -> &'static str {
    MARKERS[shape(variant)]
}

/// A bar of `width` cells, filled to eighths of a cell.
pub fn bar(fraction: f64, width: usize) -> String {
    let fraction = if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { 0.0 };
    let eighths = (fraction * width as f64 * 8.0).round() as usize;
    (0..width).map(|cell| LEFT[eighths.saturating_sub(cell * 8).min(8)]).collect()
}

/// The last `width` values from zero up to the largest of them.
pub fn sparkline(values: impl DoubleEndedIterator<Item = f64>, width: usize) -> String {
    let mut values: Vec<_> = values.rev().take(width).collect();
    values.reverse();
    let top = values.iter().copied().filter(|v| v.is_finite()).fold(0.0, f64::max);
    let level = |v: f64| if top > 0.0 && v > 0.0 { ((v / top).min(1.0) * 7.0).round() as usize } else { 0 };
    values.into_iter().map(|v| LOWER[level(v)]).collect()
}

/// A share of the largest value as one of five shades.
pub fn shade(fraction: f64) -> &'static str {
    if fraction.is_nan() || fraction <= 0.0 {
        return SHADES[0];
    }
    SHADES[((fraction * 4.0).ceil() as usize).clamp(1, 4)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_variants_look_alike() {
        let looks: std::collections::HashSet<_> = (0..64).map(|i| (i % SERIES.len(), marker(i))).collect();
        assert_eq!(looks.len(), 64);
    }

    #[test]
    fn bars_fill_by_eighths() {
        assert_eq!(bar(0.0, 3), "   ");
        assert_eq!(bar(0.5, 3), "█▌ ");
        assert_eq!(bar(7.0, 3), "███");
        assert_eq!(bar(f64::NAN, 2), "  ");
    }

    #[test]
    fn sparklines_show_the_newest_values() {
        assert_eq!(sparkline([9.0, 0.0, 1.0, 2.0].into_iter(), 3), "▁▅█");
        assert_eq!(sparkline([f64::NAN, 1.0].into_iter(), 5), "▁█");
        assert_eq!(sparkline([0.0].into_iter(), 5), "▁");
    }

    #[test]
    fn nothing_has_the_lightest_shade() {
        assert_eq!([0.0, 0.01, 0.5, 1.0, f64::NAN].map(shade), ["·", "░", "▒", "█", "·"]);
    }
}
