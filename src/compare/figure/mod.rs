//! Plots as SVG: text and shapes that carry classes, and one style sheet that gives them colours.

mod axes;
mod heat;
mod loss;
mod mark;
mod style;
mod svg;
mod trade;

pub use heat::{heat, totals};
pub use loss::{Against, loss};
pub use style::{page, standalone};
pub use svg::escape;
pub use trade::{Cost, trade};

/// A plot: what is drawn, and what is to be said below it.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Name of its file, without extension.
    pub id: String,
    /// An `<svg>` element without a style sheet.
    pub svg: String,
    pub caption: String,
    /// What a slider needs to show other steps, as JSON.
    pub frames: Option<String>,
}

/// Letters, digits and dashes alone: fit for a file's name and an element's.
fn identifier(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect()
}
