//! Tables for people: columns as wide as their content, numbers to the right.

/// Which side of a column its text stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Longest cell in characters; names from outside are cut, so that a line stays a line.
const CELL_CHARS_MAX: usize = 60;

/// A table that is filled row by row.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(String, Side)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    #[must_use]
    pub fn new(columns: &[(&str, Side)]) -> Self {
        Self {
            columns: columns.iter().map(|(heading, side)| ((*heading).to_owned(), *side)).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Missing cells stay empty, cells beyond the last heading are left out.
    pub fn row<T: ToString>(&mut self, cells: impl IntoIterator<Item = T>) {
        let mut row: Vec<String> =
            cells.into_iter().take(self.columns.len()).map(|cell| tidy(&cell.to_string())).collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
    }

    /// The lines, headings first, without trailing space.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let headings: Vec<String> = self.columns.iter().map(|(heading, _)| heading.clone()).collect();
        let all = || std::iter::once(&headings).chain(&self.rows);
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| all().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        all().map(|row| self.line(row, &widths)).collect()
    }

    fn line(&self, row: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for ((cell, width), (_, side)) in row.iter().zip(widths).zip(&self.columns) {
            let padding = " ".repeat(width - cell.chars().count());
            match side {
                Side::Left => line.extend([cell, padding.as_str(), "  "]),
                Side::Right => line.extend([padding.as_str(), cell, "  "]),
            }
        }
        line.trim_end().to_owned()
    }
}

/// One line without control characters, which would move the cursor of a terminal.
fn tidy(cell: &str) -> String {
    let plain: String = cell.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    if plain.chars().count() <= CELL_CHARS_MAX {
        return plain;
    }
    let mut cut: String = plain.chars().take(CELL_CHARS_MAX - 1).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[("name", Side::Left), ("rows", Side::Right)]);
        table.row(["ä", "7"]);
        table.row(["longer", "12345"]);
        assert_eq!(table.lines(), ["name     rows", "ä           7", "longer  12345"]);
    }

    proptest! {
        /// Whatever comes from outside, a row is one line of bounded length and no line feed or escape gets through.
        #[test]
        fn any_cells_give_one_plain_line_each(rows in proptest::collection::vec(proptest::collection::vec(any::<String>(), 0..5), 0..6)) {
            let mut table = Table::new(&[("a", Side::Left), ("b", Side::Right), ("c", Side::Left)]);
            for row in &rows {
                table.row(row);
            }
            let lines = table.lines();
            prop_assert_eq!(lines.len(), rows.len() + 1);
            for line in lines {
                prop_assert!(!line.chars().any(char::is_control));
                prop_assert!(line.chars().count() <= 3 * (CELL_CHARS_MAX + 2));
            }
        }
    }
}
