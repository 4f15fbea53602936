//! What lies over the panels: the help and the question before quitting.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Clear, Padding, Paragraph, Widget};

use super::{Dashboard, Popup, keys};

pub fn draw(d: &Dashboard, area: Rect, buf: &mut Buffer) {
    match d.popup {
        None => {}
        Some(Popup::Help) => window(d, "keys", help(d), area, buf),
        Some(Popup::Quit) => window(d, "quit?", quit(d), area, buf),
    }
}

fn help(d: &Dashboard) -> Vec<Line<'static>> {
    let told = keys::bindings(d.mode).filter(|binding| !binding.keys.is_empty());
    told.map(|binding| entry(d, binding.keys, binding.help)).collect()
}

/// Two columns where one would be too high.
fn folded(lines: Vec<Line<'static>>, area: Rect) -> Vec<Line<'static>> {
    let width = lines.iter().map(Line::width).max().unwrap_or(0);
    if lines.len() + 2 <= usize::from(area.height) || 2 * width + 9 > usize::from(area.width) {
        return lines;
    }
    let half = lines.len().div_ceil(2);
    let mut lines = lines.into_iter();
    let mut left: Vec<_> = lines.by_ref().take(half).collect();
    for (left, right) in left.iter_mut().zip(lines) {
        left.push_span(" ".repeat(width - left.width() + 3));
        left.spans.extend(right.spans);
    }
    left
}

fn quit(d: &Dashboard) -> Vec<Line<'static>> {
    vec![
        entry(d, "s", "save and stop; --resume goes on from there"),
        entry(d, "k", "stop now, without saving"),
        entry(d, "Esc", "stay"),
    ]
}

fn entry(d: &Dashboard, key: &'static str, text: &'static str) -> Line<'static> {
    Line::from(vec![Span::styled(format!("{key:>9}  "), d.theme.accent()), Span::raw(text)])
}

fn window(d: &Dashboard, title: &'static str, lines: Vec<Line<'static>>, area: Rect, buf: &mut Buffer) {
    let lines = folded(lines, area);
    let vertical = u16::from(lines.len() + 4 <= usize::from(area.height));
    let width = lines.iter().map(Line::width).max().unwrap_or(0) as u16 + 6;
    let area = area.centered(Constraint::Length(width), Constraint::Length(lines.len() as u16 + 2 + 2 * vertical));
    let block = Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(d.theme.accent())
        .title(Line::styled(format!(" {title} "), d.theme.strong()).centered())
        .padding(Padding::symmetric(2, vertical));
    Clear.render(area, buf);
    Paragraph::new(lines).block(block).render(area, buf);
}
