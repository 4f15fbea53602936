//! `compare.md`: a table to paste, and a summary in words.

use super::metric::{points, signed, spread};
use super::summary::{Peak, Summary, Variant};
use super::verdict;
use crate::events::units;

pub fn table(summary: &Summary) -> String {
    let row = |variant: &Variant| cells(summary, variant, escape(&variant.name), |difference| difference);
    let rows: Vec<_> = summary.variants.iter().map(row).collect();
    let head = head(summary);
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    // Names to the left, numbers to the right.
    let line = |row: &[String]| {
        let padded =
            row.iter().zip(&widths).enumerate().map(|(i, (cell, &width))| {
                if i == 0 { format!(" {cell:<width$} ") } else { format!(" {cell:>width$} ") }
            });
        format!("|{}|\n", padded.collect::<Vec<_>>().join("|"))
    };
    let rule = widths.iter().enumerate().map(|(i, &width)| match i {
        0 => format!(":{}", "-".repeat(width + 1)),
        _ => format!("{}:", "-".repeat(width + 1)),
    });
    let rule = format!("|{}|\n", rule.collect::<Vec<_>>().join("|"));
    let body: String = rows.iter().map(|row| line(row)).collect();
    format!("# {}\n\n{}{rule}{body}\n{}", escape(&summary.name), line(&head), words(summary))
}

fn head(summary: &Summary) -> Vec<String> {
    let metrics = summary.headline_names().into_iter().map(|name| escape(&summary.label(name)));
    let memory = match summary.variants.first().map(|variant| variant.peak_mem) {
        Some(Peak::Predicted) => "peak memory, foretold",
        _ => "peak memory",
    };
    let difference = format!("Δ to {} [95 %]", escape(&summary.reference));
    let costs = ["trains", memory].into_iter().chain(summary.is_timed().then_some("step [ms]")).map(String::from);
    columns(["variant".into(), "seeds".into()], metrics, difference, costs)
}

/// The row of a variant under its name; `laid_out` has the difference.
pub fn cells(summary: &Summary, variant: &Variant, name: String, laid_out: impl Fn(String) -> String) -> Vec<String> {
    let missing = || "–".to_string();
    let value = |name: &str| variant.metrics.get(name).map_or_else(missing, |e| spread(name, e.mean, e.sd));
    let metrics = summary.headline_names().into_iter().map(value);
    let difference = difference(summary, variant).map_or_else(missing, laid_out);
    let time = summary.is_timed().then(|| variant.step_ms.map_or_else(missing, |ms| format!("{ms:.1}")));
    let costs = [
        variant.trainable.map_or_else(missing, units::count),
        variant.peak_mem_bytes.map_or_else(missing, units::bytes),
    ];
    columns([name, variant.seeds.len().to_string()], metrics, difference, costs.into_iter().chain(time))
}

/// A row in the order of the table of results: the verdicts' metric and the difference by it, costs, the other metrics.
pub fn columns(
    variant: [String; 2],
    mut metrics: impl Iterator<Item = String>,
    difference: String,
    costs: impl Iterator<Item = String>,
) -> Vec<String> {
    let judged = metrics.next();
    variant.into_iter().chain(judged).chain([difference]).chain(costs).chain(metrics).collect()
}

/// By the metric of the verdicts: `+0.0120 (+0.0050 to +0.0200)`; of one seed, the bare difference.
fn difference(summary: &Summary, variant: &Variant) -> Option<String> {
    let (metric, points) = (&summary.metric, points(&summary.metric));
    let difference = variant.metrics.get(metric)?.difference.as_ref()?;
    let [mean, low, high] = match difference.interval {
        Some(of) => [of.mean, of.low, of.high].map(|value| signed(metric, value)),
        None => return difference.values.first().map(|&value| signed(metric, value) + points),
    };
    Some(format!("{mean}{points} ({low} to {high})"))
}

fn words(summary: &Summary) -> String {
    let ranking = verdict::lines(summary).into_iter().map(|line| format!("* {}\n", escape(&line))).collect::<String>();
    let notes = summary.notes.iter().map(|note| format!("* {}\n", escape(note))).collect::<String>();
    format!("## Summary\n\n{ranking}\n## To bear in mind\n\n{notes}")
}

/// Text that neither ends a cell nor a line nor becomes markup.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in crate::events::printable(text).chars() {
        if matches!(c, '|' | '<' | '*' | '`' | '[' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::testing::{Scripted, summary};

    #[test]
    fn the_table_has_a_row_for_each_variant_and_says_how_they_stand() {
        let runs = [
            Scripted::new("lora", 0).eval(0.50),
            Scripted::new("lora", 1).eval(0.52),
            Scripted::new("a|b", 0).eval(0.40),
            Scripted::new("a|b", 1).eval(0.44),
        ];
        let text = table(&summary(&runs));
        assert!(text.contains("| lora "), "{text}");
        assert!(text.contains("| a\\|b "), "{text}");
        // Differences −0.10 and −0.08.
        assert!(text.contains("−0.0900 (−0.1000 to −0.0800)"), "{text}");
        assert!(text.contains("* a\\|b (0.4200): better than lora"), "{text}");
        let columns: Vec<_> =
            text.lines().filter(|l| l.starts_with('|')).map(|l| l.replace("\\|", "").matches('|').count()).collect();
        assert!(columns.len() == 4 && columns.iter().all(|&n| n == columns[0]), "{text}");
    }
}
