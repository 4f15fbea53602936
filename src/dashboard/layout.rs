//! Which panels are shown, and where.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Widget};

use super::{Dashboard, Panel, chart, device, header, heat, log, popup, table};

/// Rows of the heat map and of the device panel, with their borders.
const MIDDLE: u16 = 10;

pub fn draw(d: &Dashboard, area: Rect, buf: &mut Buffer) {
    let bar = u16::from(area.height >= 3);
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(bar)]).areas(area);
    header::draw(d, head, buf);
    if d.zoomed || area.width < 60 || area.height < 16 {
        panel(d, d.focus, body, buf);
    } else if area.width >= 100 && area.height >= 30 {
        large(d, body, buf);
    } else {
        medium(d, body, buf);
    }
    header::foot(d, foot, buf);
    popup::draw(d, area, buf);
}

fn large(d: &Dashboard, area: Rect, buf: &mut Buffer) {
    let [top, bottom] =
        Layout::vertical([Constraint::Fill(1), Constraint::Length((area.height / 6).clamp(5, 12))]).areas(area);
    let [left, right] = Layout::horizontal([Constraint::Fill(1), side(area.width)]).areas(top);
    let split = Layout::vertical([Constraint::Fill(1), Constraint::Length(MIDDLE)]);
    let [table, machine] = split.areas(right);
    if d.has_map() {
        let [curves, map] = split.areas(left);
        panel(d, Panel::Loss, curves, buf);
        panel(d, Panel::Modules, map, buf);
    } else {
        panel(d, Panel::Loss, left, buf);
    }
    panel(d, Panel::Runs, table, buf);
    panel(d, Panel::Device, machine, buf);
    panel(d, Panel::Log, bottom, buf);
}

/// The device panel becomes one line, the log two; the heat map waits for `Tab` and `f`.
fn medium(d: &Dashboard, area: Rect, buf: &mut Buffer) {
    let [top, machine, bottom] =
        Layout::vertical([Constraint::Fill(1), Constraint::Length(1), Constraint::Length(4)]).areas(area);
    let [left, right] = Layout::horizontal([Constraint::Fill(1), side(area.width)]).areas(top);
    let main = if d.focus == Panel::Modules { Panel::Modules } else { Panel::Loss };
    panel(d, main, left, buf);
    panel(d, Panel::Runs, right, buf);
    device::line(d, machine, buf);
    panel(d, Panel::Log, bottom, buf);
}

fn side(width: u16) -> Constraint {
    Constraint::Length((width * 2 / 5).clamp(26, 48))
}

fn panel(d: &Dashboard, panel: Panel, area: Rect, buf: &mut Buffer) {
    let border = if d.focus == panel { d.theme.accent() } else { d.theme.border() };
    let mut block = Block::bordered().border_type(BorderType::Rounded).border_style(border);
    for title in titles(d, panel, usize::from(area.width)) {
        block = block.title(title);
    }
    block = match panel {
        Panel::Modules => block.title_bottom(heat::legend(d, area.width.saturating_sub(2)).right_aligned()),
        Panel::Runs => block.title_bottom(table::seeds(d)),
        _ => block,
    };
    let inner = block.inner(area);
    block.render(area, buf);
    match panel {
        Panel::Loss => chart::draw(d, inner, buf),
        Panel::Runs => table::draw(d, inner, buf),
        Panel::Modules => heat::draw(d, inner, buf),
        Panel::Device => device::draw(d, inner, buf),
        Panel::Log => log::draw(d, inner, buf),
    }
}

/// Name on the left, what it is set to on the right.
fn titles(d: &Dashboard, panel: Panel, width: usize) -> Vec<Line<'static>> {
    let dim = |text: String| Line::styled(text, d.theme.dim());
    let (name, setting) = match panel {
        Panel::Loss => ("loss".to_string(), dim(chart::setting(d))),
        Panel::Runs if d.board().variants.len() > 1 => ("variants, lowest eval first".into(), Line::default()),
        Panel::Runs => ("run".into(), Line::default()),
        Panel::Modules => heat::title(d),
        Panel::Device => (device::title(d), Line::default()),
        Panel::Log => ("log".into(), dim(log::setting(d))),
    };
    let taken = if setting.width() > 0 { setting.width() + 6 } else { 4 };
    let name: String = name.chars().take(width.saturating_sub(taken)).collect();
    let name = Line::from(vec![Span::raw(" "), Span::styled(name, d.theme.title()), Span::raw(" ")]);
    let mut titles = vec![name.left_aligned()];
    if setting.width() > 0 {
        let spans = [vec![Span::raw(" ")], setting.spans, vec![Span::raw(" ")]].concat();
        titles.push(Line::from(spans).style(setting.style).right_aligned());
    }
    titles
}
