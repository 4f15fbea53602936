//! Real rows as the model sees them: token boundaries, the loss mask, lengths and counts.

use std::fmt::Write;

use super::{Dataset, Sequence, Tokenizer};

/// How the loss mask is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// ANSI colours: trained tokens green, the others grey, neighbours in two shades.
    Colour,
    /// `[trained]` and `not trained|`.
    Plain,
}

/// The first `rows` sequences and what became of all rows. Control characters are escaped.
pub fn render(dataset: &Dataset, tokenizer: &Tokenizer, rows: usize, style: Style) -> String {
    let mut out = String::new();
    for (index, sequence) in dataset.sequences.iter().take(rows).enumerate() {
        let trained = sequence.trained.iter().filter(|&&trained| trained).count();
        let _ = writeln!(out, "sequence {}: {} tokens, {trained} trained", index + 1, sequence.ids.len());
        let _ = writeln!(out, "{}\n", tokens(sequence, tokenizer, style));
    }
    counts(&mut out, dataset);
    histogram(&mut out, &dataset.sequences);
    out
}

fn tokens(sequence: &Sequence, tokenizer: &Tokenizer, style: Style) -> String {
    let mut out = String::new();
    let mut document = 0;
    for (at, piece) in tokenizer.pieces(&sequence.ids).into_iter().enumerate() {
        if sequence.document[at] != document {
            document = sequence.document[at];
            let _ = write!(out, "\n-- document {} --\n", document + 1);
        }
        let breaks = piece.matches('\n').count();
        let (text, trained) = (visible(&piece), sequence.trained[at]);
        match (style, trained) {
            (Style::Plain, true) => out.extend(["[", text.as_str(), "]"]),
            (Style::Plain, false) => out.extend([text.as_str(), "|"]),
            (Style::Colour, _) => {
                let _ = write!(out, "\x1b[{}m{text}\x1b[0m", colour(trained, at));
            }
        }
        out.extend(std::iter::repeat_n('\n', breaks.min(1)));
    }
    out
}

/// Two shades, so that neighbouring tokens can be told apart.
fn colour(trained: bool, at: usize) -> &'static str {
    match (trained, at % 2) {
        (true, 0) => "30;42",
        (true, _) => "30;102",
        (false, 0) => "37;100",
        (false, _) => "90;47",
    }
}

/// Line breaks as `⏎`, other control characters (which could steer a terminal) escaped; a token that adds
/// nothing visible on its own, being part of a character, as `·`.
fn visible(piece: &str) -> String {
    if piece.is_empty() {
        return "·".into();
    }
    piece.chars().fold(String::new(), |mut out, char| {
        match char {
            '\n' => out.push('⏎'),
            char if char.is_control() => out.extend(char.escape_default()),
            char => out.push(char),
        }
        out
    })
}

fn counts(out: &mut String, dataset: &Dataset) {
    let report = &dataset.report;
    let share = 100.0 * report.trained_tokens as f64 / report.tokens.max(1) as f64;
    let _ =
        writeln!(out, "rows      {} read, {} used in {} sequences", report.rows, report.used, dataset.sequences.len());
    let _ = writeln!(out, "tokens    {}, of which {} trained ({share:.1} %)", report.tokens, report.trained_tokens);
    let _ = writeln!(out, "lengths   {} to {}, median {}", report.shortest, report.longest, report.median);
    let left_out = [
        (report.dropped_long, "rows dropped: longer than max_len"),
        (report.truncated, "rows cut to max_len"),
        (report.untrained, "rows dropped: no token is trained"),
    ];
    let warnings = report.warnings.iter().map(|warning| (warning.count, warning.text.as_str()));
    for (count, text) in left_out.into_iter().chain(warnings).filter(|(count, _)| *count > 0) {
        let _ = writeln!(out, "warning   {count} {text}");
    }
}

const BINS: usize = 10;
const BAR: usize = 40;

/// Sequence lengths in at most ten bins of equal width.
fn histogram(out: &mut String, sequences: &[Sequence]) {
    let longest = sequences.iter().map(|sequence| sequence.ids.len()).max().unwrap_or(0);
    let width = longest.div_ceil(BINS).max(1);
    let mut counts = vec![0_usize; longest.div_ceil(width)];
    sequences.iter().filter(|sequence| !sequence.ids.is_empty()).for_each(|s| counts[(s.ids.len() - 1) / width] += 1);
    let most = counts.iter().max().copied().unwrap_or(0).max(1);
    let _ = writeln!(out, "\nsequence length in tokens");
    for (bin, &count) in counts.iter().enumerate() {
        let bar = "#".repeat((count * BAR).div_ceil(most));
        let _ = writeln!(out, "{:>6}-{:<6} {count:>7} {bar}", bin * width + 1, (bin + 1) * width);
    }
}
