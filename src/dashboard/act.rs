//! What keys do to the dashboard.

use std::collections::BTreeSet;

use crossterm::event::{KeyCode, KeyEvent};

use super::keys::{self, Action};
use super::place::Part;
use super::{Axis, Dashboard, Effect, Mode, PANELS, Panel, Popup, SMOOTHING};
use crate::events::Request;

/// Beyond it one can tell steps apart anyway.
const MOST_HALVINGS: u32 = 10;

impl Dashboard {
    pub(super) fn key(&mut self, key: KeyEvent) -> Option<Effect> {
        let action = keys::action(key, self.mode);
        if action == Some(Action::Interrupt) {
            self.stopping = true;
            return Some(if self.mode == Mode::Train { Effect::Interrupt } else { Effect::Close });
        }
        if self.typing {
            self.type_into_find(key.code);
            return None;
        }
        match self.popup.take() {
            Some(Popup::Quit) => self.answer(key.code),
            Some(Popup::Help) => None,
            None => self.act(action?),
        }
    }

    fn act(&mut self, action: Action) -> Option<Effect> {
        match action {
            Action::Quit if self.mode == Mode::Watch => return Some(Effect::Close),
            Action::Quit => self.popup = Some(Popup::Quit),
            Action::Interrupt => return Some(Effect::Interrupt),
            Action::Ask(request) => {
                self.paused ^= request == Request::TogglePause;
                return Some(Effect::Ask(request));
            }
            Action::Picture => return Some(Effect::Picture),
            Action::Jump(jump) => self.replay.jump(self.live.plan.as_ref(), jump),
            Action::Play => self.replay.play(self.live.plan.as_ref()),
            Action::Freeze => self.frozen = if self.frozen.is_some() { None } else { Some(self.live.clone()) },
            Action::Panel(panel) => self.focus = panel,
            Action::NextPanel => self.turn(1),
            Action::PreviousPanel => self.turn(PANELS.len() - 1),
            Action::NextVariant => self.select(1),
            Action::PreviousVariant => self.select(-1),
            Action::NextSeed => self.select_seed(1),
            Action::PreviousSeed => self.select_seed(-1),
            Action::Help => self.popup = Some(Popup::Help),
            Action::Back => {
                (self.zoomed, self.seed) = (false, None);
                self.find.clear();
            }
            other => self.set(other),
        }
        None
    }

    /// Settings of single panels.
    fn set(&mut self, action: Action) {
        match action {
            Action::ShowOrHide => self.hidden = &self.hidden ^ &BTreeSet::from([self.selected]),
            Action::ScrollUp => self.scroll = (self.scroll + 1).min(self.board().log.len().saturating_sub(1)),
            Action::ScrollDown => self.scroll = self.scroll.saturating_sub(1),
            Action::Zoom => self.zoomed = !self.zoomed,
            Action::Smooth => self.smoothing = (self.smoothing + 1) % SMOOTHING.len(),
            Action::Axis => {
                self.axis = match self.axis {
                    Axis::Step => Axis::Tokens,
                    Axis::Tokens => Axis::Time,
                    Axis::Time => Axis::Step,
                }
            }
            Action::Closer => self.halvings = (self.halvings + 1).min(MOST_HALVINGS),
            Action::Wider => self.halvings = self.halvings.saturating_sub(1),
            Action::Whole => self.halvings = 0,
            Action::Log => self.log_scale = !self.log_scale,
            Action::RanksOrNorms => self.norms = !self.norms,
            Action::Numbers => self.numbers = !self.numbers,
            Action::Find => {
                (self.typing, self.focus, self.scroll) = (true, Panel::Log, 0);
                self.find.clear();
            }
            _ => {}
        }
    }

    /// The focus goes round the panels that have something to show.
    fn turn(&mut self, by: usize) {
        let at = |panel| PANELS.iter().position(|&p| p == panel).unwrap_or(0);
        loop {
            self.focus = PANELS[(at(self.focus) + by) % PANELS.len()];
            if self.focus != Panel::Modules || self.has_map() {
                break;
            }
        }
    }

    /// Goes down or up the table.
    fn select(&mut self, by: isize) {
        let order = self.board().order();
        if let Some(next) = stepped(&order, &self.selected, by) {
            self.selected = next;
        }
    }

    /// Goes through the seeds that the selected variant has begun, from the newest.
    fn select_seed(&mut self, by: isize) {
        let Some(variant) = self.board().variants.get(self.selected) else { return };
        let seeds: Vec<_> = self.board().of(variant).map(|run| run.part).collect();
        let now = self.run().map_or(Part::Whole, |run| run.part);
        if let Some(Part::Seed(seed)) = stepped(&seeds, &now, by) {
            self.seed = Some(seed);
        }
    }

    fn answer(&mut self, code: KeyCode) -> Option<Effect> {
        let request = match code {
            KeyCode::Char('s') => Request::Stop,
            KeyCode::Char('k') => Request::StopNow,
            KeyCode::Esc | KeyCode::Char('q' | 'n') => return None,
            _ => {
                self.popup = Some(Popup::Quit);
                return None;
            }
        };
        self.stopping = true;
        Some(Effect::Ask(request))
    }

    fn type_into_find(&mut self, code: KeyCode) {
        match code {
            KeyCode::Char(c) => self.find.push(c),
            KeyCode::Backspace => drop(self.find.pop()),
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.find.clear();
            }
            _ => {}
        }
    }
}

/// The item so many places after `now`, round and round.
fn stepped<T: Copy + PartialEq>(items: &[T], now: &T, by: isize) -> Option<T> {
    let at = items.iter().position(|item| item == now).map_or(0, |at| at as isize + by);
    items.get(at.rem_euclid(items.len().max(1) as isize) as usize).copied()
}
