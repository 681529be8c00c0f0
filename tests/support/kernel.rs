//! What the kernel knows of a connection between two programs of this machine: the table `/proc/net/tcp`.

use std::net::SocketAddr;

/// One end of a connection.
struct Socket {
    /// Whether both ends are open.
    established: bool,
    /// Bytes, and FIN as one, that were written and that the other end's kernel does not have yet.
    unsent: u64,
    /// Bytes, and FIN as one, that came and that the program has not read.
    unread: u64,
}

/// Whether the program at the other end has read all that was written at this one, FIN included.
pub(super) fn all_is_read(here: SocketAddr, there: SocketAddr) -> bool {
    // In this order: what is on its way is neither unsent nor unread.
    socket(here, there).is_some_and(|socket| socket.unsent == 0)
        && socket(there, here).is_some_and(|socket| socket.unread == 0)
}

/// Whether the other end has been closed or has said that it will send no more.
pub(super) fn is_left(here: SocketAddr, there: SocketAddr) -> bool {
    socket(there, here).is_none_or(|socket| !socket.established)
}

/// The end at `from` of the connection to `to`; `None`: there is none any more.
fn socket(from: SocketAddr, to: SocketAddr) -> Option<Socket> {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel's table of connections");
    let (from, to) = (as_in_the_table(from), as_in_the_table(to));
    table.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (mut word, hex) =
            (|| words.next(), |text: &str| u64::from_str_radix(text, 16).expect("a number"));
        if word()? != from || word()? != to {
            return None;
        }
        let state = hex(word()?);
        let (unsent, unread) = word()?.split_once(':')?;
        // 1 is TCP_ESTABLISHED.
        Some(Socket { established: state == 1, unsent: hex(unsent), unread: hex(unread) })
    })
}

/// The address as it lies in memory, read as a number, and the port.
fn as_in_the_table(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else { panic!("the table has IPv4 only: {address}") };
    format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
}
