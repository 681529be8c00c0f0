//! What lies between the gate and the kernel: nothing for a plain socket, TLS for another.
//!
//! The gate decides how many bytes may go on the wire, then asks the transport to move that many. A transport
//! that adds bytes of its own (records, handshakes, alerts) counts them: it says how much of the program's bytes
//! it took and how much went on the wire. It never writes on its own account outside these calls, so nothing
//! passes the gate unseen.
//!
//! A transport may have to speak with its peer before it takes the program's bytes (a handshake). What is queued
//! meanwhile waits in the outbox.

use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

use crate::buffers::Buffers;
use crate::record::{Handshake, Who};
use crate::sys;

/// What one write moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wrote {
    /// Bytes of the program that are done with and will not be offered again. A transport that changes them says so when
    /// the last byte made of them has gone: until then it is offered them again, and knows that it has them. So this may
    /// be more than was offered now, but never more than was offered since the last that were done with.
    pub plain: u64,
    /// Bytes that went on the wire.
    pub wire: u64,
    /// The kernel took less than it was offered: nothing more until it tells that the socket is writable.
    pub full: bool,
}

/// What one read moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Bytes for the program, at the front of the buffer.
    pub plain: usize,
    /// Bytes that came off the wire.
    pub wire: u64,
    /// The kernel gave less than was asked for: nothing more until it tells that the socket is readable.
    pub drained: bool,
    /// The peer will send no more.
    pub eof: bool,
}

/// What a transport failed for, inside the [`io::Error`] that its calls return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Who ended it: the peer, by what it said; this end, that did not accept what the peer is.
    pub who: Who,
    /// What it was, for people.
    pub words: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, fault)
    }
}

/// Moves bytes between an outbox and the kernel. Nothing here blocks; an error of kind `WouldBlock` means that
/// nothing moved and the kernel will tell when to come again. Another error ends the socket, for a [`Fault`] if there is
/// one in it; what the transport has still to say about it ([`Transport::wants_write`]) goes before.
///
/// `buffers` are for what is under way; a transport gives back what it took when nothing is.
pub trait Transport {
    /// Reads into `buf`, taking at most `wire_allowance` bytes off the wire; what else is in `buf` afterwards means
    /// nothing. The read that makes the transport
    /// [ready](Transport::is_ready) gives no bytes yet.
    fn read(&mut self, buf: &mut [u8], wire_allowance: u64, buffers: &mut Buffers) -> io::Result<Received>;

    /// Writes from `bufs`, putting at most `wire_allowance` bytes on the wire, its own waiting bytes first. `bufs`
    /// may be empty, to write only those, and is while it is not [ready](Transport::is_ready). `more` says that further
    /// bytes follow at once.
    fn write(
        &mut self,
        bufs: &[IoSlice<'_>],
        wire_allowance: u64,
        more: bool,
        buffers: &mut Buffers,
    ) -> io::Result<Wrote>;

    /// Whether it can send from files. Where it cannot, the first bytes of a file go together with what is before them.
    fn sends_files(&self) -> bool {
        false
    }

    /// Sends up to `len` bytes of a file without them passing through the program, at most `wire_allowance` on the
    /// wire. `None`: this transport cannot, the caller reads the range and writes it instead. Nothing sent of a
    /// non-empty range, although the socket is not full: the file ended early.
    fn send_file(
        &mut self,
        file: &File,
        offset: u64,
        len: u64,
        wire_allowance: u64,
    ) -> io::Result<Option<Wrote>> {
        let _ = (file, offset, len, wire_allowance);
        Ok(None)
    }

    /// Whether it takes and gives the program's bytes. False until a handshake is done, and again after a [`Fault`].
    fn is_ready(&self) -> bool {
        true
    }

    /// How many bytes on the wire `plain` bytes of the program's would be, those that wait already included.
    fn wire_bytes(&self, plain: u64) -> u64 {
        plain
    }

    /// How many of the program's bytes go well into `wire` bytes: what is read from a file or a source at a time.
    fn plain_bytes(&self, wire: u64) -> u64 {
        wire
    }

    /// Whether it has bytes to write (a handshake, an alert, the rest of what it has taken), whatever the outbox holds.
    fn wants_write(&self) -> bool {
        false
    }

    /// Whether it holds received bytes it has not handed over, whatever the kernel holds.
    fn wants_read(&self) -> bool {
        false
    }

    /// Says on the wire that nothing more will be written. May leave bytes to write ([`Transport::wants_write`]);
    /// is called again after them, until it answers true.
    fn finish(&mut self, buffers: &mut Buffers) -> io::Result<bool>;

    /// What its handshake came to so far; `None` where there is none to do. When it was done is not the transport's to
    /// know.
    fn handshake(&self) -> Option<Handshake> {
        None
    }

    /// Whether the peer's end came bare: FIN, without the goodbye that this transport has. Anybody on the way can make
    /// that, so what came may not be all.
    fn is_truncated(&self) -> bool {
        false
    }

    /// The socket underneath.
    fn plain(&self) -> &Plain;

    /// The socket underneath.
    fn plain_mut(&mut self) -> &mut Plain;
}

/// The plain socket: bytes go as they are.
pub enum Plain {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix stream socket.
    Unix(UnixStream),
}

impl Plain {
    /// Whether it is TCP.
    pub fn is_tcp(&self) -> bool {
        matches!(self, Plain::Tcp(_))
    }

    /// Reads once; zero is the peer's FIN. For transports above.
    pub fn receive(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        sys::receive(&*self, buf)
    }

    /// Writes once; says how many bytes the kernel took. `more` says that further bytes follow at once. For transports
    /// above.
    pub fn send(&mut self, bufs: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
        match bufs {
            [one] => sys::send(&*self, one, more),
            several => sys::send_vectored(&*self, several, more),
        }
    }

    /// The error the kernel has for this socket, if any.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Plain::Tcp(stream) => stream.take_error(),
            Plain::Unix(stream) => stream.take_error(),
        }
    }
}

impl Transport for Plain {
    fn read(&mut self, buf: &mut [u8], wire_allowance: u64, _buffers: &mut Buffers) -> io::Result<Received> {
        let ask = buf.len().min(usize::try_from(wire_allowance).unwrap_or(usize::MAX));
        let n = self.receive(&mut buf[..ask])?;
        Ok(Received { plain: n, wire: n as u64, drained: n < ask, eof: n == 0 && ask > 0 })
    }

    fn write(
        &mut self,
        bufs: &[IoSlice<'_>],
        _wire_allowance: u64,
        more: bool,
        _buffers: &mut Buffers,
    ) -> io::Result<Wrote> {
        // The gate has cut the slices to the allowance; without overhead there is nothing else to keep to.
        let offered: usize = bufs.iter().map(|slice| slice.len()).sum();
        if offered == 0 {
            return Ok(Wrote::default());
        }
        let n = self.send(bufs, more)?;
        Ok(Wrote { plain: n as u64, wire: n as u64, full: n < offered })
    }

    fn sends_files(&self) -> bool {
        true
    }

    fn send_file(
        &mut self,
        file: &File,
        offset: u64,
        len: u64,
        wire_allowance: u64,
    ) -> io::Result<Option<Wrote>> {
        let ask = usize::try_from(len.min(wire_allowance)).unwrap_or(usize::MAX);
        // Short does not mean full here, and then no edge follows: a signal may cut the call at any page, and the file
        // may have ended there, if only at that moment. Only the next call can tell.
        let n = sys::send_file(&*self, file, offset, ask)?;
        Ok(Some(Wrote { plain: n as u64, wire: n as u64, full: false }))
    }

    fn finish(&mut self, _buffers: &mut Buffers) -> io::Result<bool> {
        match self {
            Plain::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Plain::Unix(stream) => stream.shutdown(Shutdown::Write),
        }?;
        Ok(true)
    }

    fn plain(&self) -> &Plain {
        self
    }

    fn plain_mut(&mut self) -> &mut Plain {
        self
    }
}

impl AsFd for Plain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Plain::Tcp(stream) => stream.as_fd(),
            Plain::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Source for Plain {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Plain::Tcp(stream) => stream.register(registry, token, interests),
            Plain::Unix(stream) => stream.register(registry, token, interests),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Plain::Tcp(stream) => stream.reregister(registry, token, interests),
            Plain::Unix(stream) => stream.reregister(registry, token, interests),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Plain::Tcp(stream) => stream.deregister(registry),
            Plain::Unix(stream) => stream.deregister(registry),
        }
    }
}

/// A socket's transport: the plain one in place, any other in a box.
pub enum Wire {
    /// Bytes go as they are.
    Plain(Plain),
    /// Something in between, such as TLS.
    Boxed(Box<dyn Transport>),
}

impl Wire {
    /// The transport.
    pub fn get(&mut self) -> &mut dyn Transport {
        match self {
            Wire::Plain(plain) => plain,
            Wire::Boxed(transport) => transport.as_mut(),
        }
    }

    /// The socket underneath.
    pub fn plain(&self) -> &Plain {
        match self {
            Wire::Plain(plain) => plain,
            Wire::Boxed(transport) => transport.plain(),
        }
    }

    /// The socket underneath.
    pub fn plain_mut(&mut self) -> &mut Plain {
        match self {
            Wire::Plain(plain) => plain,
            Wire::Boxed(transport) => transport.plain_mut(),
        }
    }

    /// See [`Transport::is_ready`].
    pub fn is_ready(&self) -> bool {
        match self {
            Wire::Plain(_) => true,
            Wire::Boxed(transport) => transport.is_ready(),
        }
    }

    /// See [`Transport::sends_files`].
    pub fn sends_files(&self) -> bool {
        match self {
            Wire::Plain(_) => true,
            Wire::Boxed(transport) => transport.sends_files(),
        }
    }

    /// See [`Transport::wire_bytes`].
    pub fn wire_bytes(&self, plain: u64) -> u64 {
        match self {
            Wire::Plain(_) => plain,
            Wire::Boxed(transport) => transport.wire_bytes(plain),
        }
    }

    /// See [`Transport::plain_bytes`].
    pub fn plain_bytes(&self, wire: u64) -> u64 {
        match self {
            Wire::Plain(_) => wire,
            Wire::Boxed(transport) => transport.plain_bytes(wire),
        }
    }

    /// See [`Transport::handshake`].
    pub fn handshake(&self) -> Option<Handshake> {
        match self {
            Wire::Plain(_) => None,
            Wire::Boxed(transport) => transport.handshake(),
        }
    }

    /// See [`Transport::is_truncated`].
    pub fn is_truncated(&self) -> bool {
        match self {
            Wire::Plain(_) => false,
            Wire::Boxed(transport) => transport.is_truncated(),
        }
    }

    /// See [`Transport::wants_write`].
    pub fn wants_write(&self) -> bool {
        match self {
            Wire::Plain(_) => false,
            Wire::Boxed(transport) => transport.wants_write(),
        }
    }

    /// See [`Transport::wants_read`].
    pub fn wants_read(&self) -> bool {
        match self {
            Wire::Plain(_) => false,
            Wire::Boxed(transport) => transport.wants_read(),
        }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wire::Plain(Plain::Tcp(stream)) => write!(f, "Tcp({})", stream.as_raw_fd()),
            Wire::Plain(Plain::Unix(stream)) => write!(f, "Unix({})", stream.as_raw_fd()),
            Wire::Boxed(transport) => write!(f, "Boxed({})", transport.plain().as_fd().as_raw_fd()),
        }
    }
}
