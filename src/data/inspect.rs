//! Real rows as the model sees them: token boundaries, the loss mask, answers, lengths and counts.

use std::fmt::Write;

use super::{Answer, Dataset, Reference, Sequence, Tokenizer};

/// How the loss mask is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// ANSI colours: trained tokens green, the others grey, neighbours in two shades.
    Colour,
    /// `[trained]` and `not trained|`.
    Plain,
}

/// The first `rows` sequences with their answers, and what became of all rows. `labels` are the names of the classes. Control
/// characters are escaped.
pub fn render(dataset: &Dataset, labels: &[String], tokenizer: &Tokenizer, rows: usize, style: Style) -> String {
    let mut out = String::new();
    for (index, sequence) in dataset.sequences.iter().take(rows).enumerate() {
        let _ = writeln!(out, "sequence {}: {} tokens, {} trained", index + 1, sequence.ids.len(), sequence.counted());
        let _ = writeln!(out, "{}", tokens(sequence, tokenizer, style));
        for line in answer(dataset, index, labels, tokenizer, style) {
            let _ = writeln!(out, "{line}");
        }
        out.push('\n');
    }
    counts(&mut out, dataset);
    histogram(&mut out, &dataset.sequences);
    out
}

/// What is asked about a sequence beside its own tokens, line by line.
fn answer(dataset: &Dataset, index: usize, labels: &[String], tokenizer: &Tokenizer, style: Style) -> Vec<String> {
    let sequence = &dataset.sequences[index];
    let label = |class: usize| labels.get(class).map_or_else(|| class.to_string(), |label| visible(label));
    match &sequence.answer {
        Answer::Tokens | Answer::Unknown => Vec::new(),
        Answer::Class(class) => vec![format!("label     {}", label(*class as usize))],
        Answer::Number(number) => vec![format!("number    {number}")],
        Answer::Tags(tags) => {
            let pieces = tokenizer.pieces(&sequence.ids);
            let tagged = pieces.iter().zip(tags).filter_map(|(piece, &tag)| Some((piece, usize::try_from(tag).ok()?)));
            let tagged = tagged.map(|(piece, tag)| format!("{}/{}", visible(piece.trim()), label(tag)));
            vec![format!("tags      {}", tagged.collect::<Vec<_>>().join(" "))]
        }
        Answer::Span([first, last]) => {
            let text = match &dataset.reference {
                Reference::Windows { passages, windows } => windows
                    .get(index)
                    .and_then(|window| passages.get(window.passage)?.text(window, *first as usize, *last as usize)),
                _ => None,
            };
            vec![text.map_or("answer    none here".into(), |text| format!("answer    {}", visible(text)))]
        }
        Answer::Alike { others, score } => {
            let line = |(at, other): (usize, &Sequence)| {
                let likeness = if at == 0 { "like  " } else { "unlike" };
                format!("{likeness}    {}", tokens(other, tokenizer, style))
            };
            let score = score.map(|score| format!("score     {score}"));
            others.iter().enumerate().map(line).chain(score).collect()
        }
        Answer::Text(ids) => {
            let trained = (0..ids.len()).map(|at| at > 0).collect();
            let text = Sequence { ids: ids.clone(), trained, document: vec![0; ids.len()], ..Sequence::default() };
            vec![format!("target    {}", tokens(&text, tokenizer, style))]
        }
    }
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
