//! The one table of keys: what they do, the key bar and the help are made from it.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::events::Request;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Quit,
    Interrupt,
    Ask(Request),
    NextPanel,
    PreviousPanel,
    NextRun,
    PreviousRun,
    ScrollUp,
    ScrollDown,
    Zoom,
    Smooth,
    Axis,
    Log,
    Find,
    Freeze,
    Help,
    Back,
}

/// Who the dashboard looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A run of this process, which can be asked for things.
    Train,
    /// Runs on disk.
    Watch,
}

pub struct Binding {
    codes: &'static [KeyCode],
    modifiers: KeyModifiers,
    pub keys: &'static str,
    /// For the key bar; empty if only the help shows it.
    pub short: &'static str,
    pub help: &'static str,
    action: Action,
}

const fn key(
    codes: &'static [KeyCode],
    keys: &'static str,
    short: &'static str,
    help: &'static str,
    action: Action,
) -> Binding {
    Binding { codes, modifiers: KeyModifiers::NONE, keys, short, help, action }
}

use KeyCode::{BackTab, Char, Down, Esc, Left, Right, Tab, Up};

const KEYS: &[Binding] = &[
    key(&[Char('q')], "q", "quit", "quit, after asking how", Action::Quit),
    Binding {
        modifiers: KeyModifiers::CONTROL,
        ..key(&[Char('c')], "Ctrl-C", "", "save and stop; twice: stop at once", Action::Interrupt)
    },
    key(&[Char('p')], "p", "pause", "pause after this step, or go on", Action::Ask(Request::TogglePause)),
    key(&[Char('s')], "s", "save", "save a checkpoint now", Action::Ask(Request::Save)),
    key(&[Char('e')], "e", "eval", "evaluate now", Action::Ask(Request::Evaluate)),
    key(&[Tab], "Tab", "panel", "next panel", Action::NextPanel),
    key(&[BackTab], "Shift-Tab", "", "previous panel", Action::PreviousPanel),
    key(&[Char('f')], "f", "zoom", "panel over the whole screen", Action::Zoom),
    key(&[Right, Char('l')], "→", "", "next run", Action::NextRun),
    key(&[Left, Char('h')], "←", "", "previous run", Action::PreviousRun),
    key(&[Up, Char('k')], "↑", "", "scroll the log up", Action::ScrollUp),
    key(&[Down, Char('j')], "↓", "", "scroll the log down", Action::ScrollDown),
    key(&[Char('m')], "m", "smooth", "smoothing of the loss: 0, 0.9, 0.99", Action::Smooth),
    key(&[Char('x')], "x", "axis", "x axis: steps, tokens, time", Action::Axis),
    key(&[Char('y')], "y", "log y", "logarithmic loss axis", Action::Log),
    key(&[Char('/')], "/", "find", "show only log lines with a text", Action::Find),
    key(&[Char('z')], "z", "freeze", "freeze the picture; the run goes on", Action::Freeze),
    key(&[Char('?')], "?", "help", "this help", Action::Help),
    key(&[Esc], "Esc", "", "back", Action::Back),
];

/// What a key press means, if anything.
pub fn action(event: KeyEvent, mode: Mode) -> Option<Action> {
    let held = event.modifiers.intersection(KeyModifiers::CONTROL | KeyModifiers::ALT);
    bindings(mode).find(|b| b.codes.contains(&event.code) && b.modifiers == held).map(|b| b.action)
}

/// The keys that mean something in `mode`.
pub fn bindings(mode: Mode) -> impl Iterator<Item = &'static Binding> {
    KEYS.iter().filter(move |b| mode == Mode::Train || !matches!(b.action, Action::Ask(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_means_two_things() {
        let mut seen = Vec::new();
        for binding in KEYS {
            for code in binding.codes {
                assert!(!seen.contains(&(*code, binding.modifiers)), "{code:?}");
                seen.push((*code, binding.modifiers));
            }
        }
    }

    #[test]
    fn a_watched_run_cannot_be_asked() {
        let save = KeyEvent::from(Char('s'));
        assert_eq!(action(save, Mode::Train), Some(Action::Ask(Request::Save)));
        assert_eq!(action(save, Mode::Watch), None);
        let interrupt = KeyEvent::new(Char('c'), KeyModifiers::CONTROL);
        assert_eq!(action(interrupt, Mode::Watch), Some(Action::Interrupt));
        assert_eq!(action(KeyEvent::from(Char('c')), Mode::Train), None);
    }
}
