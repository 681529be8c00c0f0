//! The media type of a file, from its name.

/// The type, and whether it is text that has to say its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaType {
    essence: &'static str,
    text: bool,
}

impl MediaType {
    /// Of the file with this name. A name that says nothing is bytes, so that a browser saves rather than guesses.
    pub fn of(path: &[u8]) -> MediaType {
        let name = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
        let extension = match name.iter().rposition(|&b| b == b'.') {
            Some(at) if at > 0 => &name[at + 1..],
            _ => b"",
        };
        let guess = std::str::from_utf8(extension).ok().and_then(|ext| mime_guess::from_ext(ext).first_raw());
        let essence = guess.unwrap_or("application/octet-stream");
        let text = essence.starts_with("text/") || essence == "application/javascript";
        MediaType { essence, text }
    }

    /// Without parameters.
    pub fn essence(self) -> &'static str {
        self.essence
    }
}

impl std::fmt::Display for MediaType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.essence)?;
        if self.text { f.write_str("; charset=utf-8") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        for (path, expected) in [
            ("a/b.html", "text/html; charset=utf-8"),
            ("B.HTML", "text/html; charset=utf-8"),
            ("a.js", "text/javascript; charset=utf-8"),
            ("a.css", "text/css; charset=utf-8"),
            ("a.txt", "text/plain; charset=utf-8"),
            ("a.json", "application/json"),
            ("a.png", "image/png"),
            ("a.svg", "image/svg+xml"),
            ("a.wasm", "application/wasm"),
            ("a.mp4", "video/mp4"),
            ("a.tar.gz", "application/gzip"),
            ("README", "application/octet-stream"),
            ("a.b/README", "application/octet-stream"),
            ("a.", "application/octet-stream"),
            (".png", "application/octet-stream"),
            ("a.nosuchtype", "application/octet-stream"),
        ] {
            assert_eq!(MediaType::of(path.as_bytes()).to_string(), expected, "{path}");
        }
        assert_eq!(MediaType::of(b"a.\xff").to_string(), "application/octet-stream");
    }
}
