//! The docs and the code in step: links lead somewhere, and what the program can be told and what it says is written down.
#![cfg(feature = "cli")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of a folder that end so, in order.
fn files(folder: &str, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = paths.filter(|path| path.to_string_lossy().ends_with(end)).collect();
    found.sort();
    found
}

fn pages() -> Vec<PathBuf> {
    let folders = ["", "docs", "docs/concepts", "docs/tutorial", "poller", "benches"];
    let pages: Vec<PathBuf> = folders.iter().flat_map(|folder| files(folder, ".md")).collect();
    assert!(pages.len() > 25, "{pages:?}");
    pages
}

/// The text of the parts of a page that are no code.
fn prose(page: &str) -> String {
    page.split("```").step_by(2).collect()
}

/// The names by which a page's headings can be linked to.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = prose(page);
    let headings = headings.lines().filter(|line| line.starts_with('#'));
    let named = headings.map(|line| line.trim_start_matches('#').trim().to_lowercase());
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    named.map(|name| name.chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut count = 0;
    for page in pages() {
        let text = read(&page);
        let prose = prose(&text);
        let links = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').map_or((link, None), |(file, name)| (file, Some(name)));
            let target = match file {
                "" => page.clone(),
                // A link may be broken between two lines.
                file => page.parent().unwrap().join(file.replace('\n', " ")),
            };
            assert!(target.exists(), "{}: there is no {link}", page.display());
            if let Some(anchor) = anchor {
                let there = anchors(&read(&target)).contains(&anchor.replace('\n', ""));
                assert!(there, "{}: {} has no such heading: {link}", page.display(), target.display());
            }
            count += 1;
        }
    }
    assert!(count > 100, "{count} links");
}

/// Paths in the pages that are said without a link.
#[test]
fn files_that_are_named_are_there() {
    let folders = ["src/", "poller/", "examples/", "tests/", "benches/", "docs/", "fuzz/", ".ci/"];
    let mut missing = Vec::new();
    for page in pages() {
        let text = read(&page);
        let prose = prose(&text);
        let named = prose.split('`').skip(1).step_by(2);
        for name in named.filter(|name| folders.iter().any(|folder| name.starts_with(folder))) {
            let path = name.split([' ', ':', '*']).next().unwrap();
            // The poller's own pages speak of the poller's own files.
            let bases = [root(), page.parent().unwrap()];
            if !bases.iter().any(|base| base.join(path).exists()) {
                missing.push(format!("{}: {name}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// The flags in a text.
fn flags(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    let longer = words.filter(|word| word.starts_with("--") && word.len() > 3);
    longer.map(|word| word.trim_end_matches('-')).collect()
}

fn help_of(command: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate")).args([command, "--help"]).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_flag_is_in_the_docs_and_the_docs_have_no_other() {
    let pages: Vec<String> = pages().iter().map(read).collect();
    for command in ["serve", "fetch"] {
        let help = help_of(command);
        let known = flags(&help);
        assert!(known.len() > 15, "{known:?}");
        // Those that every program has.
        let own = known.iter().filter(|flag| !["--help", "--version"].contains(flag));
        let told: Vec<_> =
            own.filter(|flag| !pages.iter().any(|page| flags(page).contains(**flag))).collect();
        assert!(told.is_empty(), "no page tells of {told:?} of tidegate {command}");
        let start = format!("tidegate {command} ");
        for line in pages.iter().flat_map(|page| page.lines()).filter(|line| line.contains(&start)) {
            let told = line.split(&start).nth(1).unwrap().split(['|', '`']).next().unwrap();
            let unknown: Vec<_> = flags(told).difference(&known).copied().collect();
            assert!(unknown.is_empty(), "tidegate {command} has no {unknown:?}: {line}");
        }
    }
}

/// The names of the fields of a struct, as serde writes them.
fn fields_of(source: &str, name: &str) -> Vec<String> {
    let head = ["struct ", name].concat();
    let after = |rest: &str| rest.starts_with([' ', '<']);
    let start = source.match_indices(&head).find(|(at, _)| after(&source[at + head.len()..]));
    let start = start.unwrap_or_else(|| panic!("there is no {name}")).0;
    let body = source[start..].split("\n}").next().unwrap();
    let mut fields = Vec::new();
    let mut is_flat = false;
    for line in body.lines().skip(1).map(str::trim) {
        match line.split_once(": ") {
            _ if line.starts_with("#[serde(flatten)]") => is_flat = true,
            _ if line.starts_with(['#', '/']) => {}
            Some((field, _)) if !std::mem::take(&mut is_flat) => {
                fields.push(field.rsplit(' ').next().unwrap().to_owned());
            }
            _ => {}
        }
    }
    assert!(!fields.is_empty(), "{name}");
    fields
}

/// The part of a page below a heading, up to the next of its kind.
fn section<'p>(page: &'p str, heading: &str) -> &'p str {
    let start = page.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("there is no {heading}"));
    let rest = &page[start + heading.len() + 1..];
    rest.split("\n## ").next().unwrap()
}

/// The names that stand first in the rows of a part's tables.
fn rows(part: &str) -> Vec<String> {
    let cells = part.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let names = cells.flat_map(|cell| cell.split('`').step_by(2).map(str::to_owned).collect::<Vec<_>>());
    names.filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_') && name.len() > 1).collect()
}

#[test]
fn every_field_of_the_records_is_defined_and_no_other() {
    let (page, lines) = (read("docs/metrics.md"), read("src/record/line.rs"));
    let report = read("src/cli/fetch/report.rs");
    let figures = read("poller/src/event/figures.rs");
    let pauses = fields_of(&lines, "PauseFields");
    for (heading, structs, source) in [
        ("## The exchange line", &["ExchangeLine", "ClientFields", "EventFields"][..], &lines),
        ("## The connection line", &["ConnectionLine", "TlsFields", "TcpFields"], &lines),
        ("## The log line", &["LogLine"], &lines),
        ("## Pauses", &["PauseFields"], &lines),
        ("## What `tidegate fetch --json` says", &["Line"], &report),
        ("## The poller's figures", &["PollerFigures"], &figures),
    ] {
        let part = section(&page, heading);
        let defined: BTreeSet<String> = rows(part).into_iter().collect();
        let fields: BTreeSet<String> = structs.iter().flat_map(|name| fields_of(source, name)).collect();
        let spoken = |field: &&String| !part.contains(&format!("`{field}`"));
        let missing: Vec<_> = fields.difference(&defined).filter(spoken).collect();
        assert!(missing.is_empty(), "{heading} does not define {missing:?}");
        // The six of the pauses stand in one row, and are defined in a part of their own.
        let more: Vec<_> = defined.difference(&fields).filter(|name| !pauses.contains(name)).collect();
        assert!(more.is_empty(), "{heading} defines {more:?}, which nothing writes");
    }
}

#[test]
fn every_word_for_an_end_is_explained() {
    let (page, source) = (read("docs/metrics.md"), read("poller/src/record.rs"));
    let told = section(&page, "## How it ended");
    let words: Vec<&str> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Reason::")?.split_once(" => \"")?.1.split('"').next())
        .collect();
    assert!(words.len() > 10, "{words:?}");
    for word in words {
        assert!(told.contains(&format!("\n| `{word}` |")), "{word} is not explained");
    }
}

#[test]
fn every_example_is_shown_and_every_page_is_listed() {
    let pages: String = pages().iter().map(read).collect();
    let changelog = read("CHANGELOG.md");
    for example in files("examples", ".rs").iter().chain(&files("poller/examples", ".rs")) {
        let name = example.file_stem().unwrap().to_string_lossy();
        let shown = ["--example ", "examples/"].iter().any(|how| {
            let use_of_it = format!("{how}{name}");
            let mut after = pages.match_indices(&use_of_it).map(|(at, _)| &pages[at + use_of_it.len()..]);
            after.any(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        });
        assert!(shown, "no page shows how {name} is run");
        assert!(changelog.contains(&format!("`{name}`")), "the changelog does not list the example {name}");
    }
    let contents = read("docs/tutorial/README.md");
    for page in files("docs/tutorial", ".md") {
        let name = page.file_name().unwrap().to_string_lossy();
        assert!(name == "README.md" || contents.contains(&format!("({name})")), "{name} is not listed");
    }
}

/// The names with their lengths before them, as in a mangled symbol (`6rustls`); what follows each has to be no letter.
fn mangled_names(pattern: &str) -> Vec<&str> {
    let is_letter = |c: char| c == '_' || c.is_ascii_alphabetic();
    let (mut found, mut rest) = (Vec::new(), pattern);
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (number, after) =
            rest.split_at(start + rest[start..].find(|c: char| !c.is_ascii_digit()).unwrap());
        rest = after;
        // Digits of a range, or those before a symbol's hash, name nothing.
        if !after.starts_with(is_letter) || after.starts_with("h*") {
            continue;
        }
        let length: usize = number[start..].parse().unwrap();
        let name = after.get(..length).unwrap_or_default();
        let whole = !name.is_empty() && name.chars().all(|c| is_letter(c) || c.is_ascii_digit());
        assert!(
            whole && !after[length..].starts_with(is_letter),
            "{pattern}: {length} is not the length of it"
        );
        found.push(name);
        rest = &after[length..];
    }
    found
}

/// A length that is wrong matches nothing, and the linker does not say so.
#[test]
fn the_modules_that_are_linked_apart_are_named_as_the_compiler_does() {
    let script = read("src/cli/link/rare.ld");
    let patterns = script.split([' ', '(', ')', '\n']).filter(|word| word.starts_with(".text."));
    let names: Vec<_> = patterns.flat_map(mangled_names).collect();
    assert!(names.len() > 30 && names.contains(&"rustls") && names.contains(&"flt2dec"), "{names:?}");
    // Our own move and are renamed.
    let folders = "src/cli/fetch src/http/client src/http/codec/response.rs src/http/body src/sse src/net/tls src/net/pool \
                   src/net/protocol/client.rs src/task/future src/record/access_log";
    for place in folders.split_whitespace() {
        let file = format!("{place}.rs");
        assert!(root().join(place).exists() || root().join(&file).exists(), "{place} is gone: see rare.ld");
    }
}
