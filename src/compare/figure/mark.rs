//! How a variant looks: colour, marker and dash, so that any one of them tells it from its neighbours.

use super::svg::{Anchor, LETTER, Svg};

const DASHES: [&str; 4] = ["", "7 3", "2 3", "9 3 2 3"];
const COLORS: usize = crate::plot::palette::SERIES.len();

/// Class that gives the colour.
pub fn class(index: usize) -> String {
    format!("s{}", index % COLORS)
}

/// `stroke-dasharray`, or nothing for a solid line.
pub fn dash(index: usize) -> String {
    // Beyond the last colour they begin again, with other dashes.
    match DASHES[(index + index / COLORS) % DASHES.len()] {
        "" => String::new(),
        dash => format!(" stroke-dasharray=\"{dash}\""),
    }
}

/// The dashboard's markers: four shapes, filled and then hollow.
pub fn marker(index: usize, [x, y]: [f64; 2], r: f64) -> String {
    let shape = crate::plot::palette::shape(index);
    let d = match shape % 4 {
        0 => format!("M{:.1} {y:.1}a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0Z", x - r, d = 2.0 * r),
        1 => format!("M{x:.1} {:.1}l{r} {h}h-{w}Z", y - r, h = 1.8 * r, w = 2.0 * r),
        2 => format!("M{:.1} {:.1}h{w}v{w}h-{w}Z", x - 0.9 * r, y - 0.9 * r, w = 1.8 * r),
        _ => format!("M{x:.1} {:.1}l{h} {h}l-{h} {h}l-{h} -{h}Z", y - 1.2 * r, h = 1.2 * r),
    };
    if shape < 4 {
        format!("<path d=\"{d}\" fill=\"currentColor\"/>")
    } else {
        format!("<path d=\"{d}\" class=\"paper\" stroke=\"currentColor\" stroke-width=\"1.6\"/>")
    }
}

/// Names with a piece of line and a marker each, in rows between `left` and `right`. Returns the height they take.
pub fn legend(svg: &mut Svg, names: &[&str], [left, right, top]: [f64; 3]) -> f64 {
    let (mut x, mut y) = (left, top);
    for (i, name) in names.iter().enumerate() {
        let name = shortened(name, 28);
        let width = 40.0 + LETTER * name.chars().count() as f64;
        if x > left && x + width > right {
            (x, y) = (left, y + 18.0);
        }
        svg.raw(&format!("<g class=\"{}\" data-variant=\"{i}\">", class(i)));
        svg.raw(&format!(
            "<path d=\"M{x:.1} {m:.1}h26\" stroke=\"currentColor\" stroke-width=\"2\"{}/>{}",
            dash(i),
            marker(i, [x + 13.0, y - 4.0], 4.0),
            m = y - 4.0
        ));
        svg.text([x + 32.0, y], Anchor::Start, "", &name);
        svg.raw("</g>");
        x += width + 10.0;
    }
    y - top + 18.0
}

/// At most `most` characters, an ellipsis for the rest.
pub fn shortened(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        return name.into();
    }
    name.chars().take(most - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_of_thirty_two_variants_look_the_same() {
        let look = |i: usize| (class(i), dash(i), marker(i, [0.0; 2], 4.0));
        let looks: std::collections::HashSet<_> = (0..32).map(look).collect();
        assert_eq!(looks.len(), 32);
        // Without colour, the first eight differ by marker alone.
        let shapes: std::collections::HashSet<_> = (0..8).map(|i| marker(i, [0.0; 2], 4.0)).collect();
        assert_eq!(shapes.len(), 8);
    }
}
