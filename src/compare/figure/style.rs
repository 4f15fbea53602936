//! Colours of a plot, on light paper and on dark.

use crate::plot::palette::{BRIGHT, HEAT, SERIES, hex};

/// The hues of the dashboard's series, dark enough for white paper: contrast of at least 4.5 to 1.
const ON_WHITE: [&str; 8] = ["#1666b0", "#a35200", "#2a7a2a", "#9a3a9a", "#7d6300", "#00797b", "#c62828", "#5b52c4"];

const LIGHT: &str = "--paper:#ffffff;--ink:#1b1f24;--dim:#57606a;--line:#d0d7de;--soft:#f3f5f7";
const DARK: &str = "--paper:#14161b;--ink:#d7dae0;--dim:#9aa2ad;--line:#363b44;--soft:#1d2027";

/// Variables of a page that holds plots, for both kinds of paper; print is light.
pub fn page() -> String {
    let (light, dark) = (variables(LIGHT, |i| ON_WHITE[i].into()), variables(DARK, on_black));
    let series: String = (0..SERIES.len()).map(|i| format!(".s{i}{{color:var(--s{i})}}")).collect();
    format!(
        ":root{{color-scheme:light dark;{light}}}\n\
         @media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n{series}\n{}{}",
        shapes(|name| format!("var(--{name})")),
        heat()
    )
}

/// The style of a plot that stands alone. Colours are written out: not every renderer knows variables; those that
/// know media queries turn dark where the reader does.
pub fn standalone() -> String {
    let sheet = |set: &'static str, color: fn(usize) -> String| {
        let series: String = (0..SERIES.len()).map(|i| format!(".s{i}{{color:{}}}", color(i))).collect();
        series + "\n" + &shapes(|name| value(set, name))
    };
    format!(
        "{}{}@media (prefers-color-scheme:dark){{\n{}}}\n",
        sheet(LIGHT, |i| ON_WHITE[i].into()),
        heat(),
        sheet(DARK, on_black)
    )
}

fn on_black(index: usize) -> String {
    hex(SERIES[index]).unwrap_or_default()
}

fn variables(set: &str, color: fn(usize) -> String) -> String {
    (0..SERIES.len()).fold(set.to_string(), |all, i| format!("{all};--s{i}:{}", color(i)))
}

fn value(set: &str, name: &str) -> String {
    let mut parts = set.split(';').filter_map(|part| part.strip_prefix("--")?.split_once(':'));
    parts.find(|(key, _)| *key == name).map_or_else(String::new, |(_, value)| value.into())
}

fn shapes(color: impl Fn(&str) -> String) -> String {
    format!(
        ".plot text{{fill:{ink};font-size:12px}}\n.plot .dim{{fill:{dim}}}\n.plot .title{{font-size:14px;font-weight:bold}}\n\
         .plot .halo{{stroke:{paper};stroke-width:4px;stroke-linejoin:round;paint-order:stroke}}\n.plot .paper{{fill:{paper}}}\n.plot .grid{{stroke:{line};stroke-width:1;fill:none}}\n\
         .plot .frame{{stroke:{dim};stroke-width:1;fill:none}}\n.plot .front{{stroke:{dim};stroke-width:1.5;fill:none}}\n",
        ink = color("ink"),
        dim = color("dim"),
        paper = color("paper"),
        line = color("line"),
    )
}

fn heat() -> String {
    let level = |(i, index): (usize, &u8)| {
        let ink = if i >= BRIGHT { "#000000" } else { "#ffffff" };
        let fill = hex(*index).unwrap_or_default();
        format!(".plot .h{i}{{fill:{fill}}}\n.plot .i{i}{{fill:{ink}}}\n")
    };
    HEAT.iter().enumerate().map(level).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn luminance(color: &str) -> f64 {
        let part = |at: usize| {
            let value = f64::from(u8::from_str_radix(&color[at..at + 2], 16).unwrap()) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
    }

    /// WCAG 2's contrast ratio.
    fn contrast(a: &str, b: &str) -> f64 {
        let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
        a.max(b) / a.min(b)
    }

    #[test]
    fn every_colour_can_be_read_on_its_paper() {
        for (i, on_white) in ON_WHITE.iter().enumerate() {
            assert!(contrast(on_white, &value(LIGHT, "paper")) >= 4.5, "{i} on white");
            assert!(contrast(&on_black(i), &value(DARK, "paper")) >= 4.5, "{i} on black");
        }
        for set in [LIGHT, DARK] {
            for ink in ["ink", "dim"] {
                assert!(contrast(&value(set, ink), &value(set, "paper")) >= 4.5, "{ink} in {set}");
            }
        }
    }
}
