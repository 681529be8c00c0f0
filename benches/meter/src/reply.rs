//! Just enough of HTTP/1.1 to know where a reply's body starts and how long it is. Pure.

/// What the head of a reply says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Status code.
    pub status: u16,
    /// Bytes of the head, the empty line included.
    pub bytes: usize,
    /// Length of the body; absent when it goes to the end of the connection.
    pub length: Option<u64>,
    /// The body is chunked.
    pub chunked: bool,
    /// The server will close after this reply.
    pub closes: bool,
}

/// Reads the head of a reply from the start of `bytes`. `Ok(None)`: not all of it is there yet.
pub fn parse_head(bytes: &[u8]) -> Result<Option<Head>, String> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return match bytes.len() {
            0..=MOST_HEAD => Ok(None),
            n => Err(format!("{n} bytes and no end of the reply's head")),
        };
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| "the reply's head is not text".to_owned())?;
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| format!("not a status line: {first:?}"))?;
    let mut head = Head { status, bytes: end + 4, length: None, chunked: false, closes: false };
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| format!("not a header field: {line:?}"))?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            head.length = Some(value.parse().map_err(|_| format!("not a length: {value:?}"))?);
        } else if name.eq_ignore_ascii_case("connection") {
            head.closes = value.eq_ignore_ascii_case("close");
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if value != "chunked" {
                return Err(format!("transfer-encoding {value} is not understood here"));
            }
            head.chunked = true;
        }
    }
    if matches!(status, 204 | 304) {
        head.length = Some(0);
    }
    Ok(Some(head))
}

const MOST_HEAD: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_with_length() {
        let bytes = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-Length: 42\r\nConnection: close\r\n\r\nbody";
        let head = parse_head(bytes).unwrap().unwrap();
        assert_eq!(
            head,
            Head { status: 200, bytes: bytes.len() - 4, length: Some(42), chunked: false, closes: true }
        );
    }

    #[test]
    fn head_not_there_yet() {
        assert_eq!(parse_head(b"HTTP/1.1 200 OK\r\nServer"), Ok(None));
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(parse_head(b"SSH-2.0-x\r\n\r\n").is_err());
        assert!(parse_head(&[b'x'; 20_000]).is_err());
        assert!(parse_head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n").is_err());
    }
}
