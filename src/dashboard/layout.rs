//! Which panels are shown, and where.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Widget};

use super::board::Run;
use super::{Dashboard, Panel, chart, device, glyphs, heat, keys, log, popup, runs};
use crate::events::{Status, units};

/// Rows of the heat map and of the device panel, with their borders.
const MIDDLE: u16 = 10;

pub fn draw(d: &Dashboard, area: Rect, buf: &mut Buffer) {
    let bar = u16::from(area.height >= 3);
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(bar)]).areas(area);
    header(d, head, buf);
    if d.zoomed || area.width < 60 || area.height < 16 {
        panel(d, d.focus, body, buf);
    } else if area.width >= 100 && area.height >= 30 {
        large(d, body, buf);
    } else {
        medium(d, body, buf);
    }
    key_bar(d, foot, buf);
    popup::draw(d, area, buf);
}

fn large(d: &Dashboard, area: Rect, buf: &mut Buffer) {
    let [top, bottom] =
        Layout::vertical([Constraint::Fill(1), Constraint::Length((area.height / 6).clamp(5, 12))]).areas(area);
    let [left, right] = Layout::horizontal([Constraint::Fill(1), side(area.width)]).areas(top);
    let split = Layout::vertical([Constraint::Fill(1), Constraint::Length(MIDDLE)]);
    let [table, machine] = split.areas(right);
    if d.modules().is_some() {
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
    for title in titles(d, panel) {
        block = block.title(title);
    }
    let inner = block.inner(area);
    block.render(area, buf);
    match panel {
        Panel::Loss => chart::draw(d, inner, buf),
        Panel::Runs => runs::draw(d, inner, buf),
        Panel::Modules => heat::draw(d, inner, buf),
        Panel::Device => device::draw(d, inner, buf),
        Panel::Log => log::draw(d, inner, buf),
    }
}

/// Name on the left, what it is set to on the right.
fn titles(d: &Dashboard, panel: Panel) -> Vec<Line<'static>> {
    let (name, setting) = match panel {
        Panel::Loss => ("loss".to_string(), chart::setting(d)),
        Panel::Runs => (if d.board().runs.len() > 1 { "runs" } else { "run" }.into(), String::new()),
        Panel::Modules => heat::title(d),
        Panel::Device => (device::title(d), String::new()),
        Panel::Log => ("log".into(), log::setting(d)),
    };
    let name = Line::from(vec![Span::raw(" "), Span::styled(name, d.theme.title()), Span::raw(" ")]);
    let mut titles = vec![name.left_aligned()];
    if !setting.is_empty() {
        titles.push(Line::styled(format!(" {setting} "), d.theme.dim()).right_aligned());
    }
    titles
}

fn header(d: &Dashboard, area: Rect, buf: &mut Buffer) {
    let mut left = Line::from(Span::styled(" lowrank ", d.theme.badge()));
    let Some(run) = d.run() else {
        left.push_span(Span::styled("  waiting for the first event", d.theme.dim()));
        return left.render(area, buf);
    };
    left.push_span(Span::styled(format!("  {}  ", run.name), d.theme.strong()));
    left.push_span(Span::styled(subject(run), d.theme.dim()));
    let right = status(d, run, area.width);
    let room = area.width.saturating_sub(right.width() as u16);
    left.render(Rect { width: room, ..area }, buf);
    right.right_aligned().render(area, buf);
}

/// What is trained on what, and where.
fn subject(run: &Run) -> String {
    let text = |pointer| run.setting(pointer).and_then(|value| value.as_str());
    let device = run.start.as_ref().map(|start| start.device.as_str());
    let parts: Vec<_> = [text("/model/path"), text("/data/train"), device].into_iter().flatten().collect();
    crate::events::printable(&parts.join(" · "))
}

/// `120/200 ████▌   60%  00:00:12  eta 00:00:08`, shorter where there is less room.
fn status(d: &Dashboard, run: &Run, width: u16) -> Line<'static> {
    let (done, all) = run.progress();
    let fraction = done as f64 / all.max(1) as f64;
    let mut line = Line::default();
    let word = match (run.ended, d.frozen.is_some()) {
        (_, true) => Some("frozen"),
        (Some(status), _) => Some(Status::word(status)),
        (None, _) if d.stopping => Some("stopping"),
        (None, _) if d.paused => Some("paused"),
        _ => None,
    };
    if let Some(word) = word {
        let well = run.ended == Some(Status::Finished) && d.frozen.is_none();
        line.push_span(Span::styled(word, if well { d.theme.accent() } else { d.theme.warn() }));
        line.push_span("  ");
    }
    line.push_span(Span::raw(format!("{done}/{all} ")));
    if width >= 80 {
        line.push_span(Span::styled("▕", d.theme.border()));
        line.push_span(Span::styled(glyphs::bar(fraction, 12), d.theme.run(0)));
        line.push_span(Span::styled("▏", d.theme.border()));
    }
    line.push_span(Span::styled(format!("{:>4.0}% ", 100.0 * fraction), d.theme.strong()));
    if width >= 60 {
        line.push_span(Span::raw(format!(" {} ", units::clock(run.t))));
    }
    if let (Some(eta), None, true) = (run.eta(), run.ended, width >= 80) {
        line.push_span(Span::styled(format!(" eta {} ", units::clock(eta)), d.theme.dim()));
    }
    line
}

fn key_bar(d: &Dashboard, area: Rect, buf: &mut Buffer) {
    let mut line = Line::default();
    for binding in keys::bindings(d.mode).filter(|binding| !binding.short.is_empty()) {
        let last = binding.keys == "?";
        let width = binding.keys.chars().count() + binding.short.len() + 3;
        // Room is kept for the way to all the others.
        if !last && line.width() + width + 8 > area.width as usize {
            continue;
        }
        line.push_span(Span::styled(format!(" {}", binding.keys), d.theme.accent()));
        line.push_span(Span::styled(format!(" {} ", binding.short), d.theme.dim()));
    }
    line.render(area, buf);
}
