//! The one table of keys: what they do, the key bar and the help are made from it.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::Panel;
use super::replay::Jump;
use crate::events::Request;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Quit,
    Interrupt,
    Ask(Request),
    Panel(Panel),
    NextPanel,
    PreviousPanel,
    NextVariant,
    PreviousVariant,
    NextSeed,
    PreviousSeed,
    ShowOrHide,
    ScrollUp,
    ScrollDown,
    Zoom,
    Smooth,
    Axis,
    Closer,
    Wider,
    Whole,
    Log,
    RanksOrNorms,
    Numbers,
    Find,
    Picture,
    Freeze,
    Jump(Jump),
    Play,
    Help,
    Back,
}

/// Who the dashboard looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Runs of this process, which can be asked for things.
    Train,
    /// Runs on disk.
    Watch,
}

pub struct Binding {
    codes: &'static [KeyCode],
    modifiers: KeyModifiers,
    /// As bar and help name them; empty where the line of another binding tells of these too.
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

/// The other direction of the binding before it.
const fn also(codes: &'static [KeyCode], action: Action) -> Binding {
    key(codes, "", "", "", action)
}

use KeyCode::{BackTab, Char, Down, End, Esc, Home, Left, Right, Tab, Up};

const KEYS: &[Binding] = &[
    key(&[Char('q')], "q", "quit", "quit, after asking how", Action::Quit),
    Binding {
        modifiers: KeyModifiers::CONTROL,
        ..key(&[Char('c')], "Ctrl-C", "", "save and stop; again: stop", Action::Interrupt)
    },
    key(&[Char('p')], "p", "pause", "pause after this step, go on", Action::Ask(Request::TogglePause)),
    key(&[Char('s')], "s", "save", "save a checkpoint now", Action::Ask(Request::Save)),
    key(&[Char('e')], "e", "eval", "evaluate now", Action::Ask(Request::Evaluate)),
    key(&[Char('.')], ", .", "time", "back and forth in time", Action::Jump(Jump::By(1))),
    also(&[Char(',')], Action::Jump(Jump::By(-1))),
    key(&[Char('>')], "< >", "", "the same, ten times as far", Action::Jump(Jump::By(10))),
    also(&[Char('<')], Action::Jump(Jump::By(-10))),
    key(&[Home], "Home End", "", "the beginning, the newest", Action::Jump(Jump::Begin)),
    also(&[End], Action::Jump(Jump::End)),
    key(&[Char('P')], "P", "play", "play from here, or stop", Action::Play),
    key(&[Right, Char('l')], "←→", "variant", "choose a variant", Action::NextVariant),
    also(&[Left, Char('h')], Action::PreviousVariant),
    key(&[Char(']')], "[ ]", "", "choose a seed", Action::NextSeed),
    also(&[Char('[')], Action::PreviousSeed),
    key(&[Char(' ')], "space", "", "show or hide the variant", Action::ShowOrHide),
    key(&[Tab], "Tab 1-5", "panel", "choose a panel", Action::NextPanel),
    also(&[BackTab], Action::PreviousPanel),
    also(&[Char('1')], Action::Panel(Panel::Loss)),
    also(&[Char('2')], Action::Panel(Panel::Runs)),
    also(&[Char('3')], Action::Panel(Panel::Modules)),
    also(&[Char('4')], Action::Panel(Panel::Device)),
    also(&[Char('5')], Action::Panel(Panel::Log)),
    key(&[Char('f')], "f", "full", "panel over the whole screen", Action::Zoom),
    key(&[Up, Char('k')], "↑↓", "", "scroll the log", Action::ScrollUp),
    also(&[Down, Char('j')], Action::ScrollDown),
    key(&[Char('m')], "m", "smooth", "smoothing: 0, 0.9, 0.99", Action::Smooth),
    key(&[Char('x')], "x", "axis", "x axis: steps, tokens, time", Action::Axis),
    key(&[Char('+')], "+ - =", "", "newest half, wider, all of x", Action::Closer),
    also(&[Char('-')], Action::Wider),
    also(&[Char('=')], Action::Whole),
    key(&[Char('y')], "y", "", "logarithmic loss axis", Action::Log),
    key(&[Char('r')], "r", "", "ranks or size of the update", Action::RanksOrNorms),
    key(&[Char('n')], "n", "", "numbers in the map", Action::Numbers),
    key(&[Char('/')], "/", "find", "log lines with a text", Action::Find),
    key(&[Char('w')], "w", "", "write the frame as SVG", Action::Picture),
    key(&[Char('z')], "z", "freeze", "freeze the picture alone", Action::Freeze),
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
    KEYS.iter().filter(move |binding| match binding.action {
        Action::Ask(_) => mode == Mode::Train,
        Action::Jump(_) | Action::Play => mode == Mode::Watch,
        _ => true,
    })
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
    fn a_watched_run_cannot_be_asked_and_a_live_one_not_played() {
        let save = KeyEvent::from(Char('s'));
        assert_eq!(action(save, Mode::Train), Some(Action::Ask(Request::Save)));
        assert_eq!(action(save, Mode::Watch), None);
        let back = KeyEvent::new(Char('<'), KeyModifiers::SHIFT);
        assert_eq!(action(back, Mode::Watch), Some(Action::Jump(Jump::By(-10))));
        assert_eq!(action(back, Mode::Train), None);
        let interrupt = KeyEvent::new(Char('c'), KeyModifiers::CONTROL);
        assert_eq!(action(interrupt, Mode::Watch), Some(Action::Interrupt));
        assert_eq!(action(KeyEvent::from(Char('c')), Mode::Train), None);
    }
}
