//! The table, for people and for programs.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde_json::{Value, json};

/// The target of a row.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// nothing in particular: it is to be known
    Known,
}

/// Two figures of each pair of runs: ours, and the one that it is compared with.
#[derive(Clone, PartialEq, Default, Debug)]
pub(super) struct Pairs(Vec<(f64, f64)>);

/// A row.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Row {
    /// as in the list of targets
    pub(super) number: u8,
    /// what is measured
    pub(super) what: &'static str,
    /// what it is compared with; "-": a figure by itself
    pub(super) against: &'static str,
    /// of both figures
    pub(super) unit: &'static str,
    pub(super) pairs: Pairs,
    /// for the ratio
    pub(super) goal: Goal,
    /// what else is to be known
    pub(super) note: Option<String>,
}

impl Pairs {
    pub(super) fn push(&mut self, ours: f64, theirs: f64) {
        self.0.push((ours, theirs));
    }

    pub(super) fn ours(&self) -> f64 {
        middle(self.0.iter().map(|pair| pair.0))
    }

    pub(super) fn theirs(&self) -> f64 {
        middle(self.0.iter().map(|pair| pair.1))
    }

    fn ratios(&self) -> impl Iterator<Item = f64> + Clone {
        self.0.iter().map(|(ours, theirs)| ours / theirs)
    }

    /// The median of the pairs' ratios, the least and the largest.
    pub(super) fn ratio(&self) -> (f64, f64, f64) {
        let ratios = self.ratios();
        let least = ratios.clone().fold(f64::INFINITY, f64::min);
        (middle(ratios.clone()), least, ratios.fold(f64::NEG_INFINITY, f64::max))
    }
}

impl Row {
    /// A difference that is not above zero has no ratio to another.
    fn is_clear(&self) -> bool {
        self.pairs.0.iter().all(|(ours, theirs)| *ours > 0.0 && *theirs > 0.0)
    }

    /// Returns whether the goal is met; `None` if there is no goal or no result.
    fn is_met(&self) -> Option<bool> {
        if !self.is_clear() {
            return None;
        }
        let (ratio, ..) = self.pairs.ratio();
        Some(match self.goal {
            Goal::AtMost(most) => ratio <= most,
            Goal::AtLeast(least) => ratio >= least,
            Goal::Known => return None,
        })
    }
}

/// The median; of an even number the mean of the two in the middle.
pub(super) fn middle(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match (values.get(half.saturating_sub(1)), values.get(half)) {
        (Some(low), Some(high)) if values.len().is_multiple_of(2) => f64::midpoint(*low, *high),
        (_, Some(high)) => *high,
        _ => f64::NAN,
    }
}

/// For people.
pub(super) fn text(about: &[String], rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["#", "what", "Hapax", "compared with", "", "ratio", "spread", "target", ""]);
    for row in rows {
        let (ratio, least, most) = row.pairs.ratio();
        let alone = row.against == "-";
        let unless_alone = |text: String| if alone { String::new() } else { text };
        let if_clear = |text: String| if alone || !row.is_clear() { String::new() } else { text };
        table.add_row([
            row.number.to_string(),
            row.what.to_owned(),
            format!("{} {}", figure(row.pairs.ours()), row.unit),
            unless_alone(row.against.to_owned()),
            unless_alone(format!("{} {}", figure(row.pairs.theirs()), row.unit)),
            if_clear(format!("{ratio:.2}")),
            if_clear(format!("{least:.2}..{most:.2}")),
            match row.goal {
                Goal::AtMost(most) if alone => format!("≤ {most} {}", row.unit),
                Goal::AtMost(most) => format!("≤ {most:?}"),
                Goal::AtLeast(least) => format!("≥ {least:?}"),
                Goal::Known => String::new(),
            },
            match row.is_met() {
                Some(true) => "met".to_owned(),
                Some(false) => "missed".to_owned(),
                None if row.is_clear() => String::new(),
                None => "unclear".to_owned(),
            },
        ]);
    }
    for column in [2, 4, 5, 6, 7] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = format!("{}\n\n{table}\n", about.join("\n"));
    for row in rows {
        if let Some(note) = &row.note {
            text += &format!("row {}: {note}\n", row.number);
        }
    }
    if rows.iter().any(|row| !row.is_clear()) {
        text += "unclear: in some pair, what was added was less than what runs differ by.\n";
    }
    text += "Figures are medians of alternating runs, the ratio is the median of the pairs' ratios, the spread their least and\n\
             largest. Rows 7 and 8 are printed by cargo bench --bench engines -- 10000 10000000.";
    text
}

/// Three digits that count, or a whole number with its thousands set apart.
fn figure(value: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is above 1000")]
    match value.abs() {
        1000.0.. => crate::tools::text::grouped(value.abs().round() as u64),
        10.0..1000.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// For programs.
pub(super) fn json(about: &[String], rows: &[Row]) -> Value {
    let row = |row: &Row| {
        let (ratio, least, most) = row.pairs.ratio();
        let target = match row.goal {
            Goal::AtMost(bound) => json!({ "at_most": bound }),
            Goal::AtLeast(bound) => json!({ "at_least": bound }),
            Goal::Known => Value::Null,
        };
        json!({
            "row": row.number,
            "what": row.what,
            "against": row.against,
            "unit": row.unit,
            "hapax": row.pairs.ours(),
            "other": (row.against != "-").then(|| row.pairs.theirs()),
            "ratio": ratio,
            "ratio_min": least,
            "ratio_max": most,
            "pairs": row.pairs.0,
            "target": target,
            "met": row.is_met(),
            "note": row.note,
        })
    };
    json!({ "about": about, "rows": rows.iter().map(row).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pairs: &[(f64, f64)], goal: Goal) -> Row {
        let pairs = Pairs(pairs.to_vec());
        Row { number: 1, what: "CPU", against: "haproxy", unit: "µs", pairs, goal, note: None }
    }

    #[test]
    fn the_ratio_is_the_median_of_the_pairs() {
        let row = row(&[(2.0, 1.0), (30.0, 10.0), (1.0, 2.0)], Goal::AtMost(2.0));
        assert_eq!(row.pairs.ratio(), (2.0, 0.5, 3.0));
        assert_eq!((row.pairs.ours(), row.pairs.theirs()), (2.0, 2.0));
        assert_eq!(row.is_met(), Some(true));
        assert_eq!(middle([1.0, 4.0, 2.0, 3.0].into_iter()), 2.5);
    }

    #[test]
    fn what_has_no_ratio_is_neither_met_nor_missed() {
        for pairs in [[(2.0, 1.0), (1.0, -1.0)], [(2.0, 1.0), (-1.0, 1.0)], [(1.0, 0.0), (1.0, 1.0)]] {
            let row = row(&pairs, Goal::AtMost(1.3));
            assert_eq!(row.is_met(), None);
            assert!(text(&[], std::slice::from_ref(&row)).contains("≤ 1.3 ┆ unclear"));
            assert!(json(&[], &[row])["rows"][0]["met"].is_null());
        }
    }

    #[test]
    fn a_row_without_a_target_has_its_ratio_and_no_verdict() {
        let row = row(&[(3.0, 2.0)], Goal::Known);
        let text = text(&[], std::slice::from_ref(&row));
        assert!(text.contains("1.50") && !text.contains("unclear"), "{text}");
        let json = json(&[], &[row]);
        assert!(json["rows"][0]["target"].is_null() && json["rows"][0]["met"].is_null());
        assert_eq!(json["rows"][0]["ratio"], 1.5);
    }

    #[test]
    fn the_table_says_what_is_met_and_what_is_missed() {
        let rows = [row(&[(2.0, 1.0)], Goal::AtMost(2.0)), row(&[(2.0, 1.0)], Goal::AtLeast(2.1))];
        let text = text(&["2 cores".to_owned()], &rows);
        assert!(
            text.contains("2.000 µs") && text.contains("≤ 2.0 ┆ met") && text.contains("≥ 2.1 ┆ missed"),
            "{text}"
        );
        assert_eq!(json(&[], &rows)["rows"][1]["met"], false);
        assert_eq!([0.1234, 12.34, 1234567.8].map(figure), ["0.123", "12.3", "1,234,568"]);
    }
}
