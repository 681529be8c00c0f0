//! A directory as a page.
//!
//! Pure: entries in, HTML out. Works without scripts, on a phone, and in the dark. Every name is escaped for where
//! it stands: as text, and as a link that stays in this directory whatever the name is.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use crate::http::codec::target::encode_part;

/// The most entries a page has. A directory can have millions; a page of them would help nobody and would have
/// to be held in memory.
pub const ENTRIES_MAX: usize = 10_000;

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: Vec<u8>,
    /// Whether it is a directory.
    pub directory: bool,
    /// Its size in bytes; said of files only.
    pub size: u64,
    /// When it was modified, in seconds since 1970.
    pub modified: i64,
}

/// The page of the directory at `path` (decoded, without slashes at its ends). `truncated` says that there are
/// more entries than these.
pub fn page(path: &[u8], mut entries: Vec<Entry>, truncated: bool) -> String {
    entries
        .sort_by_cached_key(|entry| (!entry.directory, entry.name.to_ascii_lowercase(), entry.name.clone()));
    let mut html = String::with_capacity(1_500 + entries.len() * 160);
    let title = format!("/{}", String::from_utf8_lossy(path));
    let _ = write!(
        html,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{}</title>\n<style>{STYLE}</style>\n\
         </head>\n<body>\n<h1>",
        Text(&title)
    );
    crumbs(&mut html, path);
    html.push_str("</h1>\n<table>\n<thead><tr><th>Name</th><th>Size</th><th>Modified (UTC)</th></tr></thead>\n<tbody>\n");
    if !path.is_empty() {
        html.push_str("<tr><td><a href=\"../\">../</a></td><td></td><td></td></tr>\n");
    }
    for entry in &entries {
        row(&mut html, entry);
    }
    html.push_str("</tbody>\n</table>\n");
    if entries.is_empty() {
        html.push_str("<p>Nothing here.</p>\n");
    }
    if truncated {
        let _ = writeln!(html, "<p>There is more: only {ENTRIES_MAX} names are shown.</p>");
    }
    html.push_str("</body>\n</html>\n");
    html
}

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.25rem;overflow-wrap:anywhere}\
table{width:100%;border-collapse:collapse}\
th{text-align:left;font-weight:600;border-bottom:1px solid #8888}\
td,th{padding:.2rem .5rem .2rem 0;vertical-align:top}\
td:first-child{overflow-wrap:anywhere}\
td+td,th+th{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}\
tbody tr:hover{background:#8882}\
a{text-decoration:none}a:hover{text-decoration:underline}";

/// The path as links, one for each directory above. They are relative: wherever the root stands in the paths of the
/// server, they stay below it.
fn crumbs(html: &mut String, path: &[u8]) {
    let parts: Vec<&[u8]> = path.split(|&b| b == b'/').filter(|part| !part.is_empty()).collect();
    let up = |levels: usize| if levels == 0 { "./".to_owned() } else { "../".repeat(levels) };
    let _ = write!(html, "<a href=\"{}\">/</a>", up(parts.len()));
    for (depth, part) in parts.iter().enumerate() {
        let name = String::from_utf8_lossy(part);
        let name = Text(&name);
        let _ = match parts.len() - depth - 1 {
            0 => write!(html, "{name}/"),
            levels => write!(html, "<a href=\"{}\">{name}</a>/", up(levels)),
        };
    }
}

fn row(html: &mut String, entry: &Entry) {
    let slash = if entry.directory { "/" } else { "" };
    let name = String::from_utf8_lossy(&entry.name);
    // "./" keeps a name such as "javascript:x" a name.
    let _ = write!(
        html,
        "<tr><td><a href=\"./{}{slash}\">{}{slash}</a></td><td>",
        encode_part(&entry.name),
        Text(&name)
    );
    if !entry.directory {
        html.push_str(&human_size(entry.size));
    }
    html.push_str("</td><td>");
    html.push_str(&date(entry.modified));
    html.push_str("</td></tr>\n");
}

/// Text that stands between tags or in an attribute.
struct Text<'a>(&'a str);

impl std::fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // A name with a line break, or one that turns the writing direction, must not fake another row.
                c if c.is_control()
                    || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
                {
                    f.write_char('\u{fffd}')?;
                }
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1_024.0;
    let mut unit = 0;
    // 1,023.95 would be printed as 1024.0.
    while value >= 1_023.95 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `2024-05-01 13:37`, from the HTTP date, which knows the calendar.
fn date(seconds: i64) -> String {
    let Some(seconds) = u64::try_from(seconds).ok().filter(|&seconds| seconds < 253_402_300_800) else {
        return String::new();
    };
    let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
    let mut words = text.split(' ').skip(1);
    let (Some(day), Some(month), Some(year), Some(time)) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return String::new();
    };
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = MONTHS.iter().position(|&name| name == month).map_or(0, |index| index + 1);
    format!("{year}-{month:02}-{day} {}", time.get(..5).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, directory: bool, size: u64) -> Entry {
        Entry { name: name.as_bytes().to_vec(), directory, size, modified: 784_111_777 }
    }

    #[test]
    fn directories_come_first_then_names() {
        let html = page(
            b"a/b",
            vec![entry("Zed", false, 1), entry("apple", false, 2_048), entry("sub", true, 0)],
            false,
        );
        let places: Vec<_> =
            ["../", "sub/", "apple", "Zed"].map(|name| html.find(&format!(">{name}</a>"))).to_vec();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}");
        assert!(html.contains("<td>2.0 KiB</td><td>1994-11-06 08:49</td>"));
        assert!(html.contains("<h1><a href=\"../../\">/</a><a href=\"../\">a</a>/b/</h1>"));
        assert!(!html.contains("There is more"));
    }

    #[test]
    fn the_root_has_no_parent_and_may_be_empty() {
        let html = page(b"", Vec::new(), true);
        assert!(!html.contains("../") && html.contains("Nothing here") && html.contains("There is more"));
    }

    #[test]
    fn hostile_names_stay_names() {
        let names = [
            "<script>alert(1)</script>",
            "\"onmouseover=x",
            "javascript:alert(1)",
            "a&b",
            "a?b#c%d",
            "x\ny",
            "a\u{202e}fdp.exe",
            "..",
            "//evil",
        ];
        for name in names {
            let html = page(b"d", vec![entry(name, false, 1)], false);
            assert!(!html.contains("<script>") && !html.contains("\"onmouseover"), "{name}");
            assert!(!html.contains('\u{202e}') && !html.contains("x\ny"), "{name}");
            let start = html.find("href=\"./").expect(name) + 8;
            let link = &html[start..start + html[start..].find('"').unwrap()];
            assert!(!link.contains([':', '?', '#', '<', '&', '\n', '/']), "{name}: {link}");
        }
        let html = page(b"<b>/\"q", Vec::new(), false);
        assert!(!html.contains("<b>") && html.contains("&lt;b&gt;"));
        let bytes = Entry { name: b"\xff\xfe".to_vec(), directory: true, size: 0, modified: -1 };
        assert!(page(b"", vec![bytes], false).contains("href=\"./%FF%FE/\""));
    }

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            (1_048_575, "1.0 MiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }
}
