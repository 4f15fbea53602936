//! The log: everything that is not a step, newest at the bottom.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::board::Entry;
use super::{Dashboard, glyphs};
use crate::events::units;

/// What is looked for, for the title.
pub fn setting(d: &Dashboard) -> String {
    match (d.typing, d.find.as_str(), d.scroll) {
        (true, find, _) => format!("find: {find}▏"),
        (false, "", 0) => String::new(),
        (false, "", scroll) => format!("{scroll} below"),
        (false, find, _) => format!("with \"{find}\" · Esc shows all"),
    }
}

pub fn draw(d: &Dashboard, area: Rect, buf: &mut Buffer) {
    let find = d.find.to_lowercase();
    let matches = |entry: &&Entry| {
        let line = &entry.line;
        find.is_empty() || line.text.to_lowercase().contains(&find) || line.kind.word().contains(&find)
    };
    let shown: Vec<_> = d.board().log.iter().filter(matches).collect();
    let end = shown.len().saturating_sub(d.scroll).max(shown.len().min(area.height as usize));
    let begin = end.saturating_sub(area.height as usize);
    for (y, entry) in (area.top()..area.bottom()).zip(&shown[begin..end]) {
        buf.set_line(area.x, y, &line(d, entry), area.width);
    }
}

fn line<'a>(d: &Dashboard, entry: &'a Entry) -> Line<'a> {
    let mut line = Line::from(Span::styled(format!(" {} ", units::clock(entry.t)), d.theme.dim()));
    if d.board().variants.len() > 1 {
        let variant = entry.run.and_then(|run| d.board().runs.get(run)).map(|run| run.variant);
        let marker = variant.map_or(" ", glyphs::marker);
        line.push_span(Span::styled(format!("{marker} "), d.theme.run(variant.unwrap_or(0))));
    }
    line.push_span(Span::styled(format!("{:<6} ", entry.line.kind.word()), d.theme.kind(entry.line.kind)));
    let step = entry.line.step.map(|step| step.to_string()).unwrap_or_default();
    line.push_span(Span::styled(format!("{step:>6}  "), d.theme.dim()));
    line.push_span(Span::raw(entry.line.text.as_str()));
    line
}
