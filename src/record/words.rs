//! The words of a request that its record keeps.

/// What was asked: method, target, version, and two fields that logs show. Bytes as the peer sent them, in one
/// allocation: they go to another thread to be written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    bytes: Box<[u8]>,
    /// Where each word ends; the next starts there.
    ends: [u32; 5],
    has_referer: bool,
    has_agent: bool,
}

impl Words {
    /// Keeps these. Method, target and version are empty where the request had none.
    pub fn new(
        method: &[u8],
        target: &[u8],
        version: &[u8],
        referer: Option<&[u8]>,
        agent: Option<&[u8]>,
    ) -> Words {
        let parts = [method, target, version, referer.unwrap_or_default(), agent.unwrap_or_default()];
        let mut ends = [0; 5];
        let mut length = 0;
        for (end, part) in ends.iter_mut().zip(parts) {
            length += part.len();
            *end = u32::try_from(length).unwrap_or(u32::MAX);
        }
        Words {
            bytes: parts.concat().into(),
            ends,
            has_referer: referer.is_some(),
            has_agent: agent.is_some(),
        }
    }

    /// The words of what was no request: its first bytes stand as the target.
    pub fn broken(line: &[u8]) -> Words {
        Words::new(b"", line, b"", None, None)
    }

    /// The method; absent where there was none.
    pub fn method(&self) -> Option<&[u8]> {
        Some(self.word(0)).filter(|word| !word.is_empty())
    }

    /// The target; absent where there was none.
    pub fn target(&self) -> Option<&[u8]> {
        Some(self.word(1)).filter(|word| !word.is_empty())
    }

    /// The version; absent where there was none.
    pub fn version(&self) -> Option<&[u8]> {
        Some(self.word(2)).filter(|word| !word.is_empty())
    }

    /// The Referer field.
    pub fn referer(&self) -> Option<&[u8]> {
        self.has_referer.then(|| self.word(3))
    }

    /// The User-Agent field.
    pub fn agent(&self) -> Option<&[u8]> {
        self.has_agent.then(|| self.word(4))
    }

    /// Bytes of memory they take.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    fn word(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start as usize..self.ends[index] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back() {
        let words = Words::new(b"GET", b"/x", b"HTTP/1.1", Some(b""), None);
        assert_eq!(words.method(), Some(&b"GET"[..]));
        assert_eq!(words.target(), Some(&b"/x"[..]));
        assert_eq!(words.version(), Some(&b"HTTP/1.1"[..]));
        assert_eq!((words.referer(), words.agent()), (Some(&b""[..]), None));
        let words = Words::broken(b"\x16\x03");
        assert_eq!((words.method(), words.target(), words.version()), (None, Some(&b"\x16\x03"[..]), None));
        assert_eq!(Words::default().target(), None);
    }
}
