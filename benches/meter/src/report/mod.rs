//! Samples of several repeats made into one row, one verdict, one JSON object. Pure: text in, text out.

mod columns;

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::cases::{Bound, Case, Figures, Pick, Reach, Sample};
use crate::figures::Spread;

/// All samples of one contestant of one case.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its label.
    pub label: String,
    /// The figures of each repeat.
    pub repeats: Vec<Figures>,
    /// Bytes a 100 ms of one connection in the latest repeat.
    pub bins: Vec<u64>,
}

/// Sorts samples by label, in the order in which labels came.
pub fn groups(samples: Vec<Sample>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for sample in samples {
        match groups.iter_mut().find(|group| group.label == sample.label) {
            Some(group) => {
                group.repeats.push(sample.figures);
                group.bins = sample.bins;
            }
            None => {
                groups.push(Group { label: sample.label, repeats: vec![sample.figures], bins: sample.bins })
            }
        }
    }
    groups
}

impl Group {
    /// One figure of all repeats; absent where it was not measured.
    pub fn spread(&self, name: &str) -> Option<Spread> {
        let values: Vec<f64> = self.repeats.iter().filter_map(|figures| figures.get(name).copied()).collect();
        (!values.is_empty()).then(|| Spread::of(values))
    }

    /// One figure of all repeats, as one.
    pub fn figure(&self, name: &str, pick: Pick) -> Option<f64> {
        let spread = self.spread(name)?;
        Some(match pick {
            Pick::Median => spread.p50,
            Pick::Least => spread.min,
            Pick::Greatest => spread.max,
        })
    }
}

/// The case as a heading and a Markdown table, its columns aligned.
pub fn table(case: &Case, groups: &[Group]) -> String {
    let columns = columns::of(&case.load);
    let mut rows = vec![vec!["server".to_owned()]];
    rows[0].extend(columns.iter().map(|column| column.title.to_owned()));
    for group in groups {
        let mut row = vec![group.label.clone()];
        row.extend(columns.iter().map(|column| column.cell(group)));
        rows.push(row);
    }
    format!("### {} (`{}`)\n\n{}", case.title, case.name, markdown(&rows, 1))
}

/// Whether one thing was reached.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The case.
    pub case: &'static str,
    /// What was to be reached.
    pub reach: Reach,
    /// What was measured, in words.
    pub measured: String,
    /// Whether it was; absent when it could not be told.
    pub met: Option<bool>,
}

/// Holds the samples of a case against its bounds.
pub fn verdicts(case: &Case, groups: &[Group]) -> Vec<Verdict> {
    case.reach.iter().map(|&reach| verdict(case.name, reach, groups)).collect()
}

fn verdict(case: &'static str, reach: Reach, groups: &[Group]) -> Verdict {
    let of = |label: &str| groups.iter().find(|group| group.label == label);
    let found = of(reach.label).and_then(|group| match reach.bound {
        Bound::AtMost(name, pick, most) => {
            let figure = group.figure(name, pick)?;
            Some((number(figure), figure <= most))
        }
        Bound::Around1(least, greatest, tolerance) => {
            let low = group.figure(least, Pick::Least)?;
            let high = group.figure(greatest, Pick::Greatest)?;
            Some((format!("{low:.4} to {high:.4}"), low >= 1.0 - tolerance && high <= 1.0 + tolerance))
        }
        Bound::AtMostOf(name, other, factor) => {
            let figure = group.figure(name, Pick::Median)?;
            let theirs = of(other)?.figure(name, Pick::Median)?;
            Some((format!("{} beside {}", number(figure), number(theirs)), figure <= theirs * factor))
        }
        Bound::AtLeastOf(name, other, factor) => {
            let figure = group.figure(name, Pick::Median)?;
            let theirs = of(other)?.figure(name, Pick::Median)?;
            let text = format!("{} beside {}: {:.3}", number(figure), number(theirs), figure / theirs);
            Some((text, figure >= theirs * factor))
        }
        Bound::AtMostOfAll(name, others) | Bound::AtLeastOfAll(name, others) => {
            let figure = group.figure(name, Pick::Median)?;
            // All of them, or it is not told.
            let all = others
                .iter()
                .map(|label| of(label)?.figure(name, Pick::Median))
                .collect::<Option<Vec<_>>>()?;
            let all = Spread::of(all);
            let least = matches!(reach.bound, Bound::AtMostOfAll(..));
            let best = if least { all.min } else { all.max };
            let met = if least { figure <= best } else { figure >= best };
            Some((format!("{} beside {}", number(figure), number(best)), met))
        }
    });
    match found {
        Some((measured, met)) => Verdict { case, reach, measured, met: Some(met) },
        None => Verdict { case, reach, measured: "not measured".to_owned(), met: None },
    }
}

/// The verdicts as a Markdown table.
pub fn verdict_table(verdicts: &[Verdict]) -> String {
    let head = ["case", "server", "reach", "measured", "met"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for verdict in verdicts {
        let met = match verdict.met {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "?",
        };
        let row = [verdict.case, verdict.reach.label, verdict.reach.what, &verdict.measured, met];
        rows.push(row.map(str::to_owned).to_vec());
    }
    markdown(&rows, 3)
}

/// A case with all its repeats, for other programs.
pub fn json(case: &Case, groups: &[Group]) -> Value {
    let groups: Vec<Value> = groups
        .iter()
        .map(|group| json!({ "label": group.label, "repeats": group.repeats, "bytes_a_100ms": group.bins }))
        .collect();
    json!({ "case": case.name, "title": case.title, "contestants": groups })
}

/// Names and figures below each other, aligned.
pub fn list(figures: &Figures) -> String {
    let wide = figures.keys().map(|name| name.len()).max().unwrap_or_default();
    let mut out = String::new();
    for (name, value) in figures {
        let _ = writeln!(out, "{name:wide$}  {}", number(*value));
    }
    out
}

/// A number with three figures that count, more for large ones.
pub fn number(value: f64) -> String {
    let size = value.abs();
    let decimals = match size {
        _ if size == 0.0 || size >= 100.0 => 0,
        _ if size >= 10.0 => 1,
        _ if size >= 1.0 => 2,
        _ if size >= 0.1 => 3,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

/// Rows, the first of them the head. The first columns are text, the others are set to the right.
pub fn markdown(rows: &[Vec<String>], text_columns: usize) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row.get(column).map_or(0, |cell| cell.chars().count()))
            .max()
            .unwrap_or(0)
            .max(3)
    };
    let columns = rows.first().map_or(0, Vec::len);
    let mut out = String::new();
    for (nth, row) in rows.iter().enumerate() {
        for (column, cell) in row.iter().enumerate() {
            let pad = " ".repeat(width(column) - cell.chars().count());
            let _ = if column < text_columns {
                write!(out, "| {cell}{pad} ")
            } else {
                write!(out, "| {pad}{cell} ")
            };
        }
        out.push_str("|\n");
        if nth == 0 {
            for column in 0..columns {
                let (dashes, colon) = (width(column), if column < text_columns { "-" } else { ":" });
                let _ = write!(out, "|-{}{colon}", "-".repeat(dashes));
            }
            out.push_str("|\n");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;

    fn sample(label: &str, figures: &[(&'static str, f64)]) -> Sample {
        Sample { label: label.to_owned(), figures: figures.iter().copied().collect(), bins: Vec::new() }
    }

    #[test]
    fn best_of_bursts_median_of_cpu_and_extremes_of_rates() {
        let case = cases::SERVE.iter().find(|case| case.name == "1x1MB").unwrap();
        let run = |burst, cpu, low, high| {
            sample(
                "tidegate",
                &[("burst_100ms_p99", burst), ("cpu_s_per_gb", cpu), ("ratio_min", low), ("ratio_max", high)],
            )
        };
        let groups =
            groups(vec![run(3.0, 9.0, 1.0, 1.0), run(1.2, 30.0, 0.999, 1.0), run(2.0, 8.0, 1.0, 1.006)]);
        let met: Vec<Option<bool>> = verdicts(case, &groups).iter().map(|verdict| verdict.met).collect();
        // The rate went over; the best burst is good; no gap was measured; the median CPU is good.
        assert_eq!(met, [Some(false), Some(true), None, Some(true)]);
    }

    #[test]
    fn ahead_of_every_peer_means_of_the_best_and_of_all() {
        let case = cases::HTTP.iter().find(|case| case.name == "hello-64").unwrap();
        let run = |label, requests| sample(label, &[("requests_per_cpu_s", requests), ("p99_ms", 2.0)]);
        let mut samples = vec![run("tidegate", 95.0), run("raw epoll", 100.0), run("nginx", 90.0)];
        let met = |samples| {
            let verdicts = verdicts(case, &groups(samples));
            verdicts.iter().map(|verdict| verdict.met).collect::<Vec<_>>()
        };
        assert_eq!(met(samples.clone()), [Some(true), None, None, None]);
        samples.extend([run("hyper", 96.0), run("tidegate, limits", 91.0)]);
        assert_eq!(met(samples), [Some(true), Some(false), Some(true), Some(true)]);
    }

    #[test]
    fn tables_are_aligned() {
        let text = markdown(&[vec!["a".into(), "×".into()], vec!["bcdef".into(), "1.25".into()]], 1);
        assert_eq!(text, "| a     |    × |\n|-------|-----:|\n| bcdef | 1.25 |\n");
    }

    #[test]
    fn numbers() {
        assert_eq!(
            ["1234", "12.3", "1.23", "0.123", "0.0123", "0"],
            [1234.4, 12.34, 1.234, 0.1234, 0.01234, 0.0].map(number)[..]
        );
    }
}
