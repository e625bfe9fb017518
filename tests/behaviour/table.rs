//! What is printed: tables in Markdown, in which a cell that is not as it should be is marked.

/// One of ours.
pub(crate) struct Cell {
    text: String,
    good: bool,
}

impl Cell {
    /// `good`: at least as good as the best of the field whose outcome is right, and right itself.
    pub(crate) fn of(text: impl Into<String>, good: bool) -> Self {
        Self { text: text.into(), good }
    }

    /// What came before this one.
    pub(crate) fn after(self, text: &str, good: bool) -> Self {
        Self { text: format!("{text}{}", self.text), good: self.good && good }
    }
}

/// One table: what happens, the best of the field, and ours.
pub(crate) struct Table {
    lines: Vec<Vec<String>>,
    good: bool,
}

impl Table {
    pub(crate) fn new(title: &str, ours: &[&str]) -> Self {
        let heads = [title, "best of the field"].into_iter().chain(ours.iter().copied());
        Self { lines: vec![heads.map(str::to_owned).collect()], good: true }
    }

    pub(crate) fn row(&mut self, what: &str, best: &str, ours: impl IntoIterator<Item = Cell>) {
        let mut line = vec![what.to_owned(), best.to_owned()];
        for cell in ours {
            self.good &= cell.good;
            line.push(if cell.good { cell.text } else { format!("**{}** (!)", cell.text) });
        }
        self.lines.push(line);
    }

    /// Prints it; whether every cell is good.
    #[allow(clippy::print_stdout, reason = "its tables are what it is for")]
    pub(crate) fn print(&self) -> bool {
        let columns = self.lines[0].len();
        let width = |column: usize| {
            self.lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        for (number, line) in self.lines.iter().enumerate() {
            let cells: Vec<_> = line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
            println!("| {} |", cells.join(" | "));
            if number == 0 {
                println!("|{}", "---|".repeat(columns));
            }
        }
        println!();
        self.good
    }
}
