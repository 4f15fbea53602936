//! Elements of an SVG picture, as text.

/// Pixels of a letter of 12 pixels' height, on the wide side: where text ends decides what may stand beside it.
pub const LETTER: f64 = 7.0;

pub struct Svg {
    width: f64,
    height: f64,
    body: String,
}

#[derive(Clone, Copy)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    pub fn new(width: f64, height: f64) -> Self {
        let body = format!("<rect class=\"paper\" width=\"{width:.0}\" height=\"{height:.0}\"/>\n");
        Self { width, height, body }
    }

    pub fn raw(&mut self, element: &str) {
        self.body += element;
        self.body.push('\n');
    }

    pub fn text(&mut self, [x, y]: [f64; 2], anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escape(text);
        self.raw(&format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\">{text}</text>"));
    }

    /// Read from below, centred at its place.
    pub fn upright(&mut self, [x, y]: [f64; 2], text: &str) {
        let text = escape(text);
        self.raw(&format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 {x:.1} {y:.1})\">{text}</text>"
        ));
    }

    pub fn line(&mut self, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2], class: &str) {
        self.raw(&format!("<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" class=\"{class}\"/>"));
    }

    /// The element, described by `title` to those who do not see it.
    pub fn finish(self, title: &str) -> String {
        let Self { width, height, body } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
             height=\"{height:.0}\" role=\"img\" class=\"plot\" font-family=\"system-ui, -apple-system, 'Segoe UI', \
             'DejaVu Sans', sans-serif\">\n<title>{}</title>\n{body}</svg>",
            escape(title)
        )
    }
}

/// A polyline with gaps where a number is not finite; `M` and `L` of a path.
pub fn path(points: &[[f64; 2]]) -> String {
    let (mut path, mut pen_is_down) = (String::new(), false);
    for [x, y] in points {
        if x.is_finite() && y.is_finite() {
            path += &format!("{}{x:.1} {y:.1}", if pen_is_down { 'L' } else { 'M' });
        }
        pen_is_down = x.is_finite() && y.is_finite();
    }
    path
}

/// Text that is only text, between tags and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            // XML has no way to say these.
            c if c.is_control() && !matches!(c, '\n' | '\t') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("<b a=\"1\" c='&'>\x1b\n"), "&lt;b a=&quot;1&quot; c=&#39;&amp;&#39;&gt;\u{fffd}\n");
    }

    #[test]
    fn a_curve_breaks_where_it_has_no_value() {
        assert_eq!(path(&[[0.0, 1.0], [1.0, 2.0], [2.0, f64::NAN], [3.0, 4.0]]), "M0.0 1.0L1.0 2.0M3.0 4.0");
    }
}
