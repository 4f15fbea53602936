//! The first and the last line of the screen: what runs and how far it is; keys, or the place in time.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use super::run::Run;
use super::{Dashboard, Mode, glyphs, keys};
use crate::checkpoint::RunStatus;
use crate::events::units;

pub fn draw(d: &Dashboard, area: Rect, buf: &mut Buffer) {
    let mut left = Line::from(Span::styled(" lowrank ", d.theme.badge()));
    if d.board().newest.is_none() && d.board().plan.is_none() {
        left.push_span(Span::styled("  waiting for the first event", d.theme.dim()));
        return left.render(area, buf);
    }
    let (name, mut about) = subject(d);
    let right = status(d, area.width);
    let room = area.width.saturating_sub(right.width() as u16);
    // What little room there is goes to the name, then to the last of what is about it, then to the verb.
    let verb = format!(" {}", verb(d));
    let mut free = usize::from(room).saturating_sub(left.width() + name.chars().count() + 3);
    let last = about.last().map_or(0, |part| part.chars().count() + 3);
    if free >= verb.len() + last {
        free -= verb.len();
        left.push_span(Span::raw(verb));
    }
    while about.iter().map(|part| part.chars().count() + 3).sum::<usize>() > free {
        about.remove(0);
    }
    left.push_span(Span::styled(format!("  {name}"), d.theme.strong()));
    left.spans.extend(about.iter().map(|part| Span::styled(format!(" · {part}"), d.theme.dim())));
    left.render(Rect { width: room.saturating_sub(1), ..area }, buf);
    right.right_aligned().render(area, buf);
}

fn verb(d: &Dashboard) -> &'static str {
    match (d.mode, &d.board().plan) {
        (Mode::Watch, _) => "watch",
        (Mode::Train, Some(_)) => "compare",
        (Mode::Train, None) => "train",
    }
}

/// What is trained; on what, and where.
fn subject(d: &Dashboard) -> (String, Vec<String>) {
    let board = d.board();
    let run = d.run().or_else(|| board.runs.first());
    let device = run.and_then(|run| run.history.start.as_ref()).map(|start| start.device.clone());
    let (name, parts) = match &board.plan {
        Some(plan) => {
            let seed =
                board.seed().filter(|&(_, seeds)| seeds > 1).map(|(place, seeds)| format!("seed {place}/{seeds}"));
            (plan.name.clone(), vec![device, if board.is_piloting() { Some("sweep".into()) } else { seed }])
        }
        None => {
            let text = |pointer| run.and_then(|run| run.setting(pointer)).and_then(|v| v.as_str()).map(String::from);
            let name = run.map_or_else(String::new, |run| run.name.clone());
            (name, vec![text("/model/path"), text("/data/train"), device])
        }
    };
    let about = parts.into_iter().flatten().map(|part| crate::events::printable(&part));
    (crate::events::printable(&name), about.collect())
}

/// `step 40/60 ▕████▌  ▏  62%  00:01:12  eta 00:02:10`, shorter where there is less room.
fn status(d: &Dashboard, width: u16) -> Line<'static> {
    let board = d.board();
    let (done, all) = match board.plan {
        Some(_) => board.round().map(Run::progress).max().unwrap_or((0, 0)),
        None => d.run().map_or((0, 0), Run::progress),
    };
    let share = match board.plan {
        Some(_) if board.is_over() => 1.0,
        Some(_) => board.share(),
        None => done as f64 / all.max(1) as f64,
    };
    let mut line = Line::default();
    if let Some((word, style)) = word(d) {
        line.push_span(Span::styled(word, style));
        line.push_span("  ");
    }
    let label = if width >= 90 { "step " } else { "" };
    line.push_span(Span::raw(format!("{label}{done}/{all} ")));
    if width >= 80 {
        line.push_span(Span::styled("▕", d.theme.border()));
        line.push_span(Span::styled(
            glyphs::bar(share, usize::from(width / 10).saturating_sub(3).min(12)),
            d.theme.run(0),
        ));
        line.push_span(Span::styled("▏", d.theme.border()));
    }
    line.push_span(Span::styled(format!("{:>4.0}% ", 100.0 * share), d.theme.strong()));
    let elapsed = if board.plan.is_some() { board.elapsed() } else { d.run().map_or(0.0, |run| run.t) };
    if width >= 60 {
        line.push_span(Span::raw(format!("{} ", units::clock(elapsed))));
    }
    if let (Some(eta), false, true) = (eta(d), is_over(d), width >= 80) {
        line.push_span(Span::styled(format!("eta {} ", units::clock(eta)), d.theme.dim()));
    }
    line
}

fn eta(d: &Dashboard) -> Option<f64> {
    if d.board().plan.is_some() { d.board().eta() } else { d.run()?.eta() }
}

fn is_over(d: &Dashboard) -> bool {
    if d.board().plan.is_some() { d.board().is_over() } else { d.run().is_some_and(|run| run.ended().is_some()) }
}

fn word(d: &Dashboard) -> Option<(&'static str, ratatui::style::Style)> {
    let ended = match d.board().plan {
        Some(_) => d.board().is_over().then_some(RunStatus::Finished),
        None => d.run().and_then(Run::ended),
    };
    match ended {
        _ if d.frozen.is_some() && d.replay.board().is_none() => Some(("frozen", d.theme.warn())),
        Some(RunStatus::Finished) => Some((RunStatus::Finished.word(), d.theme.accent())),
        Some(status) => Some((status.word(), d.theme.warn())),
        None if d.stopping => Some(("stopping", d.theme.warn())),
        None if d.paused => Some(("paused", d.theme.warn())),
        None => None,
    }
}

/// Keys; the place in time while it is not now.
pub fn foot(d: &Dashboard, area: Rect, buf: &mut Buffer) {
    match d.replay.place() {
        Some(place) => scrubber(d, place, area, buf),
        None => key_bar(d, area, buf),
    }
}

fn key_bar(d: &Dashboard, area: Rect, buf: &mut Buffer) {
    let mut line = Line::default();
    for binding in keys::bindings(d.mode).filter(|binding| !binding.short.is_empty()) {
        let (keys, last) = (binding.keys.split(' ').next().unwrap_or_default(), binding.keys == "?");
        let keys = if binding.keys.starts_with(',') { binding.keys } else { keys };
        let width = keys.chars().count() + binding.short.len() + 3;
        // Room is kept for the way to all the others.
        if !last && line.width() + width + 8 > area.width as usize {
            continue;
        }
        line.push_span(Span::styled(format!(" {keys}"), d.theme.accent()));
        line.push_span(Span::styled(format!(" {} ", binding.short), d.theme.dim()));
    }
    line.render(area, buf);
}

/// `▶ 00:00:41 ━━━━━━━●───────── 00:01:38  , . move  P play  End newest`
fn scrubber(d: &Dashboard, (t, end): (f64, f64), area: Rect, buf: &mut Buffer) {
    let keys = [(", .", "move"), ("P", if d.replay.is_playing() { "stop" } else { "play" }), ("End", "newest")];
    let wide = area.width >= 60;
    let text: usize = if wide { keys.iter().map(|(key, word)| key.len() + word.len() + 3).sum() } else { 0 };
    let width = usize::from(area.width).saturating_sub(text + 24);
    let share = if end > 0.0 { (t / end).clamp(0.0, 1.0) } else { 0.0 };
    let at = (share * width.saturating_sub(1) as f64).round() as usize;
    let mut line = Line::from(Span::styled(if d.replay.is_playing() { " ▶ " } else { " ‖ " }, d.theme.accent()));
    line.push_span(Span::raw(format!("{} ", units::clock(t))));
    if width > 0 {
        line.push_span(Span::styled("━".repeat(at), d.theme.run(0)));
        line.push_span(Span::styled("●", d.theme.accent()));
        line.push_span(Span::styled("─".repeat(width - 1 - at), d.theme.border()));
    }
    line.push_span(Span::styled(format!(" {} ", units::clock(end)), d.theme.dim()));
    for (key, word) in keys.into_iter().filter(|_| wide) {
        line.push_span(Span::styled(format!(" {key}"), d.theme.accent()));
        line.push_span(Span::styled(format!(" {word} "), d.theme.dim()));
    }
    line.render(area, buf);
}
