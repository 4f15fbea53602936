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
    keys::bindings(d.mode).map(|binding| entry(d, binding.keys, binding.help)).collect()
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
    let width = lines.iter().map(Line::width).max().unwrap_or(0) as u16 + 6;
    let area = area.centered(Constraint::Length(width), Constraint::Length(lines.len() as u16 + 4));
    let block = Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(d.theme.accent())
        .title(Line::styled(format!(" {title} "), d.theme.strong()).centered())
        .padding(Padding::symmetric(2, 1));
    Clear.render(area, buf);
    Paragraph::new(lines).block(block).render(area, buf);
}
