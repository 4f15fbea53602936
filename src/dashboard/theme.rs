//! Colours, or none: every meaning is also carried by a word, a marker or a weight.

use ratatui::style::{Color, Modifier, Style};

use crate::events::Kind;
use crate::plot::palette::{BRIGHT, HEAT, SERIES, level};

/// Of each of [`SERIES`], for the unsmoothed curve.
const FAINT: [u8; 8] = [24, 94, 22, 53, 58, 23, 52, 60];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    Color,
    Mono,
}

impl Theme {
    /// Mono where `NO_COLOR` is set.
    pub fn detect() -> Self {
        if crate::events::no_color() { Theme::Mono } else { Theme::Color }
    }

    fn fg(self, index: u8) -> Style {
        match self {
            Theme::Color => Style::new().fg(Color::Indexed(index)),
            Theme::Mono => Style::new(),
        }
    }

    pub fn dim(self) -> Style {
        self.fg(245)
    }

    pub fn border(self) -> Style {
        self.fg(239)
    }

    /// A panel's name, which lies on its border.
    pub fn title(self) -> Style {
        self.strong().fg(Color::Reset)
    }

    pub fn accent(self) -> Style {
        self.fg(75).add_modifier(Modifier::BOLD)
    }

    /// Something said in a sentence.
    pub fn words(self) -> Style {
        self.fg(151)
    }

    pub fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub fn badge(self) -> Style {
        self.accent().add_modifier(Modifier::REVERSED)
    }

    pub fn warn(self) -> Style {
        self.fg(221).add_modifier(Modifier::BOLD)
    }

    pub fn run(self, index: usize) -> Style {
        self.fg(SERIES[index % SERIES.len()])
    }

    /// Colour of a run's curve, for canvases.
    pub fn curve(self, index: usize) -> Color {
        self.run(index).fg.unwrap_or(Color::Reset)
    }

    /// Colour of the unsmoothed curve; none where it could not be told from the smoothed one.
    pub fn faint(self, index: usize) -> Option<Color> {
        (self == Theme::Color).then(|| Color::Indexed(FAINT[index % FAINT.len()]))
    }

    pub fn kind(self, kind: Kind) -> Style {
        match kind {
            Kind::Start | Kind::Pilot | Kind::Step | Kind::Ranks | Kind::Note | Kind::Memory => self.dim(),
            Kind::Eval => self.fg(80),
            Kind::Saved => self.fg(114),
            Kind::Sample => self.fg(176),
            Kind::Warn => self.warn(),
            Kind::Done => self.strong(),
        }
    }

    /// Parts of a split bar: forward, backward, optimizer.
    pub fn part(self, index: usize) -> Style {
        self.fg([75, 176, 114][index % 3])
    }

    /// A cell of a heat map, `fraction` of the largest value; `None` without colour.
    pub fn heat(self, fraction: f64) -> Option<Style> {
        if self == Theme::Mono {
            return None;
        }
        let level = level(fraction);
        let ink = if level >= BRIGHT { Color::Indexed(16) } else { Color::Indexed(255) };
        Some(Style::new().fg(ink).bg(Color::Indexed(HEAT[level])))
    }
}
