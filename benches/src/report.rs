//! What a run found, as rows: a table for people, JSON for programs.

use serde::{Deserialize, Serialize};

/// One number of ours beside one of a peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// In what: `s`, `MiB`, `exits`, `IOPS`, `MiB/s`, `1/s`.
    pub unit: String,
    /// Our median.
    pub ours: f64,
    /// The peer.
    pub peer: String,
    /// Its median.
    pub theirs: f64,
    /// Ours by theirs.
    pub ratio: f64,
    /// How often each was measured.
    pub runs: usize,
}

impl Row {
    /// A row of the medians of two series.
    pub fn new(name: &str, unit: &str, ours: &[f64], peer: &str, theirs: &[f64]) -> Self {
        let (runs, ours, theirs) = (ours.len().min(theirs.len()), median(ours), median(theirs));
        Self {
            name: name.to_owned(),
            unit: unit.to_owned(),
            ours,
            peer: peer.to_owned(),
            theirs,
            ratio: ours / theirs,
            runs,
        }
    }

    /// Whether a ratio below 1 speaks for us.
    pub fn less_is_better(&self) -> bool {
        matches!(self.unit.as_str(), "s" | "ms" | "MiB" | "exits")
    }

    /// What the ratio is to be, where the project set itself a goal.
    fn goal(&self) -> &'static str {
        match (self.name.as_str(), self.peer.as_str()) {
            ("boot", "QEMU microvm") => "≤ 0.70",
            ("boot", "bare KVM") => "≤ 1.15",
            ("bios-loader" | "bios-prompt" | "uefi-loader" | "uefi-prompt", _) => "≤ 0.8",
            ("memory", _) => "ours ≤ 6 MiB",
            ("memory-overlay", _) => "ours ≤ 8 MiB",
            (name, _) if ["qcow2", "overlay", "compressed"].iter().any(|kind| name.starts_with(kind)) => {
                "≥ 1.0"
            }
            (name, _) if name.starts_with("block") || name.starts_with("net") => "≥ 1.0",
            _ => "",
        }
    }
}

/// The middle of `values`, the mean of the two middle ones where their number is even; NaN of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

/// The rows as a Markdown table.
pub fn table(rows: &[Row]) -> String {
    let head = ["benchmark", "unit", "ours", "peer", "theirs", "ratio", "goal", "runs"].map(str::to_owned);
    let cells = rows.iter().map(|row| {
        let (ours, theirs, ratio) = (number(row.ours), number(row.theirs), format!("{:.2}", row.ratio));
        let (goal, runs) = (row.goal().to_owned(), row.runs.to_string());
        [row.name.clone(), row.unit.clone(), ours, row.peer.clone(), theirs, ratio, goal, runs]
    });
    let lines: Vec<[String; 8]> = std::iter::once(head).chain(cells).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 8] = std::array::from_fn(width);
    let rule = widths.map(|width| "-".repeat(width));
    let laid_out = |line: &[String; 8]| {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!(" {cell:<width$} |"));
        format!("|{}\n", cells.collect::<String>())
    };
    let mut table = laid_out(&lines[0]);
    table.push_str(&laid_out(&rule));
    lines[1..].iter().for_each(|line| table.push_str(&laid_out(line)));
    table
}

/// `value` with three significant digits or all of its whole ones.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_row_compares_medians_and_counts_runs() {
        let row = Row::new("boot", "s", &[1.0, 2.0, 9.0], "bare KVM", &[4.0, 4.0, 5.0]);
        assert_eq!((row.ours, row.theirs, row.ratio, row.runs), (2.0, 4.0, 0.5, 3));
        let json = serde_json::to_value(&row).expect("plain data");
        let keys: Vec<&str> = json.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(keys.len(), 7, "{keys:?}");
    }

    #[test]
    fn the_table_has_a_line_per_row() {
        let row = Row::new("boot", "s", &[1.234], "bare KVM", &[123.4]);
        let table = table(&[row]);
        assert_eq!(table.lines().count(), 3);
        assert!(table.contains("| 1.23 |") && table.contains("| 123 "), "{table}");
    }
}
