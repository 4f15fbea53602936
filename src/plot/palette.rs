//! Which colour a run or a value has: indices of the 256-colour table, the same on nearly every terminal.

/// A run's colour, by its place among the runs.
pub const SERIES: [u8; 8] = [75, 215, 114, 176, 221, 80, 203, 147];
/// Which of as many markers a run has. Beyond the last colour they begin again one further on, so that no two runs of the
/// first sixty-four share both.
pub fn shape(run: usize) -> usize {
    (run + run / SERIES.len()) % SERIES.len()
}

/// Viridis, dark to bright.
pub const HEAT: [u8; 9] = [53, 54, 60, 24, 30, 36, 71, 113, 220];
/// Levels of [`HEAT`] from here on are bright enough for dark ink.
pub const BRIGHT: usize = 5;

/// The level of [`HEAT`] for a share of the largest value.
pub fn level(fraction: f64) -> usize {
    let fraction = if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { 0.0 };
    (fraction * (HEAT.len() - 1) as f64).round() as usize
}

/// `#5fafff`. `None` for the sixteen colours that the terminal's user chooses.
pub fn hex(index: u8) -> Option<String> {
    // The cube and the grey ramp that follow the sixteen system colours.
    let level = |i: u8| if i == 0 { 0 } else { 55 + 40 * i };
    let [r, g, b] = match index {
        16..=231 => [(index - 16) / 36, (index - 16) / 6 % 6, (index - 16) % 6].map(level),
        232.. => [8 + 10 * (index - 232); 3],
        _ => return None,
    };
    Some(format!("#{r:02x}{g:02x}{b:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_those_of_xterm() {
        assert_eq!(hex(75).as_deref(), Some("#5fafff"));
        assert_eq!(hex(16).as_deref(), Some("#000000"));
        assert_eq!(hex(245).as_deref(), Some("#8a8a8a"));
        assert_eq!(hex(7), None);
        assert_eq!([f64::NAN, 0.0, 0.5, 9.0].map(level), [0, 0, 4, 8]);
    }
}
