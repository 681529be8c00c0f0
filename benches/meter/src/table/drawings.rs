//! What of the results is drawn.

use std::fs;
use std::io;
use std::path::Path;

use crate::cases::{Asking, Case, Load, Pick};
use crate::plot::{self, Bars, COLOURS, Frame, Series};
use crate::report::Group;

/// Draws single downloads, each a plot of its own, and the requests that all contestants answered, in one.
pub(super) fn draw(folder: &Path, results: &[(&Case, Vec<Group>)]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (case, groups) in results {
        draw_download(folder, case, groups)?;
    }
    draw_requests(folder, results)
}

/// One paced download of each contestant, ours over nginx's.
fn draw_download(folder: &Path, case: &Case, groups: &[Group]) -> io::Result<()> {
    let Load::Paced { connections: 1, rate, .. } = case.load else { return Ok(()) };
    let mut series: Vec<Series> = groups
        .iter()
        .zip(COLOURS)
        .map(|(group, colour)| Series {
            name: group.label.clone(),
            colour,
            values: group.bins.iter().map(|&bytes| bytes as f64 / 1e3).collect(),
        })
        .collect();
    // The last one drawn is on top: the smooth line over the saw-tooth.
    series.reverse();
    let frame = Frame {
        title: format!(
            "One download at {}: bytes that arrived in each 100 ms",
            case.title.trim_start_matches("1 × ")
        ),
        x: "seconds".to_owned(),
        y: "kB in 100 ms".to_owned(),
        bin_seconds: 0.1,
        mark: Some((rate as f64 / 1e4, "the rate".to_owned())),
    };
    fs::write(folder.join(format!("pace-{}.svg", case.name)), plot::svg(&frame, &series))
}

/// Requests per CPU second: for each case of them, a bar for each contestant.
fn draw_requests(folder: &Path, results: &[(&Case, Vec<Group>)]) -> io::Result<()> {
    let of_requests = |case: &Case| matches!(case.load, Load::Hello { asking: Asking::Again, .. });
    let results: Vec<_> = results.iter().filter(|(case, _)| of_requests(case)).collect();
    let Some((_, contestants)) = results.first() else { return Ok(()) };
    let bars: Vec<Bars> = contestants
        .iter()
        .map(|first| Bars {
            name: first.label.clone(),
            values: results
                .iter()
                .map(|(_, groups)| {
                    let group = groups.iter().find(|group| group.label == first.label)?;
                    Some(group.figure("requests_per_cpu_s", Pick::Median)? / 1e3)
                })
                .collect(),
        })
        .collect();
    let places: Vec<&str> = results.iter().map(|(case, _)| case.title).collect();
    let title = "Thousands of requests per CPU second of the server";
    fs::write(folder.join("hello.svg"), plot::bars(title, &places, &bars))
}
