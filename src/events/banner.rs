//! The first screen of a run: what is about to happen, one labelled line per fact.

use std::fmt;

/// Label and text, in the order they are shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Banner(Vec<(String, String)>);

impl Banner {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn line(mut self, label: impl Into<String>, text: impl Into<String>) -> Self {
        self.0.push((label.into(), text.into()));
        self
    }

    pub fn lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(label, text)| (label.as_str(), text.as_str()))
    }
}

impl fmt::Display for Banner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.lines().map(|(label, _)| label.chars().count()).max().unwrap_or(0).max(7);
        for (label, text) in self.lines() {
            for (i, part) in text.lines().enumerate() {
                writeln!(f, "  {:<width$}  {part}", if i == 0 { label } else { "" })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_line_up_under_each_other() {
        let banner = Banner::new().line("recipe", "tiny/lora").line("trains", "12,288 of 1,112,576\nparameters");
        let expected = "  recipe   tiny/lora\n  trains   12,288 of 1,112,576\n           parameters\n";
        assert_eq!(banner.to_string(), expected);
    }
}
