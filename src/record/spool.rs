//! Lines that are made but not yet written.
//!
//! Pure but for the writer it is lent. A full or failing disk leaves lines here, up to a bound; what is beyond is
//! counted as lost. A line that was written in part is finished first when writing works again, so that one bad
//! moment of a disk tears no line.

use std::io::{self, Write};

/// The most bytes that wait. Enough for some thousand lines; a disk that stays full costs no memory.
const BYTES_MAX: usize = 1024 * 1024;
/// What is kept allocated while nothing waits.
const BYTES_KEPT: usize = 64 * 1024;

/// Bytes of whole lines, the first of them perhaps written in part.
#[derive(Debug, Default)]
pub(super) struct Spool {
    bytes: Vec<u8>,
    written: usize,
}

impl Spool {
    /// Adds what `make` appends, which is one line; false when there is no room, and then it is not made.
    pub(super) fn push(&mut self, make: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.waiting() >= BYTES_MAX {
            return false;
        }
        make(&mut self.bytes);
        true
    }

    /// Bytes that wait.
    pub(super) fn waiting(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Writes what it can. After an error what is left waits for the next time.
    pub(super) fn write_to(&mut self, out: &mut dyn Write) -> io::Result<()> {
        while self.waiting() > 0 {
            match out.write(&self.bytes[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let whole = self.whole_lines_written();
                    self.bytes.drain(..whole);
                    return Err(error);
                }
            }
        }
        self.clear();
        out.flush()
    }

    /// Gives up a line that was written in part: its start stands in a file that is no longer written to. Says how
    /// many lines that loses.
    pub(super) fn drop_torn(&mut self) -> u64 {
        if self.written == 0 || self.bytes[self.written - 1] == b'\n' {
            return 0;
        }
        let rest = &self.bytes[self.written..];
        self.written += rest.iter().position(|&b| b == b'\n').map_or(rest.len(), |end| end + 1);
        1
    }

    /// Gives up all that waits; says how many lines that loses.
    pub(super) fn drop_all(&mut self) -> u64 {
        let lines = self.bytes[self.written..].iter().filter(|&&b| b == b'\n').count();
        self.clear();
        lines as u64
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(BYTES_KEPT);
        self.written = 0;
    }

    /// Takes the whole lines at the front out of the count; what stays is the torn line's written part.
    fn whole_lines_written(&mut self) -> usize {
        let whole = self.bytes[..self.written].iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
        self.written -= whole;
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Takes so many bytes, then fails.
    struct Disk {
        room: usize,
        content: Vec<u8>,
        chunk: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room).min(self.chunk);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.content.extend_from_slice(&bytes[..count]);
            self.room -= count;
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn push(spool: &mut Spool, line: &str) -> bool {
        spool.push(|out| out.extend_from_slice(line.as_bytes()))
    }

    #[test]
    fn a_full_disk_tears_no_line() {
        let mut disk = Disk { room: 6, content: Vec::new(), chunk: 100 };
        let mut spool = Spool::default();
        push(&mut spool, "one\n");
        push(&mut spool, "two\n");
        assert!(spool.write_to(&mut disk).is_err());
        push(&mut spool, "three\n");
        assert!(spool.write_to(&mut disk).is_err());
        disk.room = 100;
        spool.write_to(&mut disk).unwrap();
        assert_eq!(disk.content, b"one\ntwo\nthree\n");
        assert_eq!(spool.waiting(), 0);
    }

    #[test]
    fn a_new_file_does_not_start_with_half_a_line() {
        let mut old = Disk { room: 6, content: Vec::new(), chunk: 100 };
        let mut new = Disk { room: 100, content: Vec::new(), chunk: 100 };
        let mut spool = Spool::default();
        for line in ["one\n", "two\n", "three\n"] {
            push(&mut spool, line);
        }
        assert!(spool.write_to(&mut old).is_err());
        assert_eq!(spool.drop_torn(), 1);
        assert_eq!(spool.drop_torn(), 0);
        spool.write_to(&mut new).unwrap();
        assert_eq!(new.content, b"three\n");
    }

    #[test]
    fn what_waits_is_bounded_and_counted_when_dropped() {
        let mut spool = Spool::default();
        let line = format!("{}\n", "x".repeat(1_000));
        let mut kept = 0;
        while push(&mut spool, &line) {
            kept += 1;
        }
        assert!(spool.waiting() < BYTES_MAX + 2_000);
        assert!(spool.write_to(&mut Disk { room: 2_500, content: Vec::new(), chunk: 700 }).is_err());
        assert_eq!(spool.drop_all(), kept - 2);
        assert_eq!(spool.drop_all(), 0);
    }

    proptest! {
        #[test]
        fn every_line_is_written_or_counted(steps in proptest::collection::vec((0usize..3, 0usize..60, 1usize..9), 1..60)) {
            let mut spool = Spool::default();
            let mut disk = Disk { room: 0, content: Vec::new(), chunk: 1 };
            let (mut pushed, mut lost) = (0u64, 0u64);
            for (action, room, chunk) in steps {
                (disk.room, disk.chunk) = (room, chunk);
                match action {
                    0 => { push(&mut spool, &format!("line {pushed}\n")); pushed += 1; }
                    1 => { let _ = spool.write_to(&mut disk); }
                    _ => {
                        let torn = spool.drop_torn();
                        // A new file: the torn start stays in the old one.
                        if torn > 0 { disk.content.truncate(disk.content.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1)); }
                        lost += torn;
                    }
                }
            }
            disk.room = usize::MAX;
            spool.write_to(&mut disk).unwrap();
            let text = String::from_utf8(disk.content).unwrap();
            prop_assert_eq!(text.lines().count() as u64, pushed - lost);
            prop_assert!(text.lines().all(|line| line.starts_with("line ")));
        }
    }
}
