//! Colours, or none: every meaning is also carried by a word, a marker or a weight.

use ratatui::style::{Color, Modifier, Style};

use crate::events::Kind;

/// 256-colour indices: the same on nearly every terminal, whatever its theme.
const SERIES: [u8; 8] = [75, 215, 114, 176, 221, 80, 203, 147];
const FAINT: [u8; 8] = [24, 94, 22, 53, 58, 23, 52, 60];
/// Viridis, dark to bright.
const HEAT: [u8; 9] = [53, 54, 60, 24, 30, 36, 71, 113, 220];

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
            Kind::Start | Kind::Pilot | Kind::Step | Kind::Ranks | Kind::Memory => self.dim(),
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
        let fraction = if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { 0.0 };
        let level = (fraction * (HEAT.len() - 1) as f64).round() as usize;
        let ink = if level >= 5 { Color::Indexed(16) } else { Color::Indexed(255) };
        Some(Style::new().fg(ink).bg(Color::Indexed(HEAT[level])))
    }
}
