//! Figures: medians with their spread, and tables of them.

use std::fmt;

/// One figure over all rounds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample(pub(crate) Vec<f64>);

impl Sample {
    /// The middle of the sorted values; of two middle ones their mean.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match (sorted.len(), sorted.len() / 2) {
            (0, _) => f64::NAN,
            (len, half) if len % 2 == 1 => sorted[half],
            (_, half) => f64::midpoint(sorted[half - 1], sorted[half]),
        }
    }

    /// The figures of each round divided by those of `base` in the same round.
    pub(crate) fn over(&self, base: &Self) -> Self {
        Self(self.0.iter().zip(&base.0).map(|(ours, theirs)| ours / theirs).collect())
    }

    fn digits(value: f64) -> usize {
        match value.abs() {
            0.0..0.995 => 3,
            0.995..9.95 => 2,
            9.95..99.5 => 1,
            _ => 0,
        }
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

/// `median (lowest–highest)`.
impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let median = self.median();
        let digits = Self::digits(median);
        let low = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let high = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if self.0.len() < 2 || low == high {
            return write!(f, "{median:.digits$}");
        }
        write!(f, "{median:.digits$} ({low:.digits$}–{high:.digits$})")
    }
}

/// A table in Markdown.
#[derive(Debug)]
pub(crate) struct Table {
    title: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        Self { title: title.into(), columns, rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn print(&self) {
        println!("\n### {}\n\n{self}", self.title);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| {} |", self.columns.join(" | "))?;
        writeln!(f, "| --- |{}", " ---: |".repeat(self.columns.len() - 1))?;
        self.rows.iter().try_for_each(|row| writeln!(f, "| {} |", row.join(" | ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_shows_its_median_and_its_ends() {
        assert_eq!(Sample(vec![3.0, 1.0, 2.0]).to_string(), "2.00 (1.00–3.00)");
        assert_eq!(Sample(vec![120.0, 100.0]).to_string(), "110 (100–120)");
        assert_eq!(Sample(vec![0.25]).to_string(), "0.250");
        assert_eq!(Sample(vec![4.0, 9.0]).over(&Sample(vec![2.0, 3.0])).0, [2.0, 3.0]);
    }
}
