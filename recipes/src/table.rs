//! Aligned columns for people.

use std::ops::Range;

/// A header and rows; columns are as wide as their widest cell, two spaces apart.
pub struct Table {
    rows: Vec<Vec<String>>,
    numbers: Range<usize>,
}

impl Table {
    pub fn new<const N: usize>(header: [&str; N]) -> Self {
        Self::of(header.map(String::from).to_vec())
    }

    pub fn of(header: Vec<String>) -> Self {
        Self { rows: vec![header], numbers: 0..0 }
    }

    /// The cells of these columns end below each other.
    pub fn numbers(self, columns: Range<usize>) -> Self {
        Self { numbers: columns, ..self }
    }

    pub fn row(&mut self, cells: impl Into<Vec<String>>) {
        self.rows.push(cells.into());
    }

    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let widest =
            |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
        let widths: Vec<usize> = (0..columns).filter_map(widest).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).enumerate();
            let padded = cells.map(|(column, (cell, &width))| match self.numbers.contains(&column) {
                true => format!("{cell:>width$}"),
                false => format!("{cell:width$}"),
            });
            padded.collect::<Vec<_>>().join("  ").trim_end().to_string() + "\n"
        };
        self.rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["name", "size"]);
        table.row(["längste".into(), "1".into()]);
        table.row(["b".into(), "20".into()]);
        assert_eq!(table.render(), "name     size\nlängste  1\nb        20\n");
        assert_eq!(table.numbers(1..2).render(), "name     size\nlängste     1\nb          20\n");
    }
}
