//! Epoll and nothing else: what a request costs where nobody looks at it.
//!
//! One thread waits, reads up to 4 KiB, looks only for the blank line that ends a head, and sends the same reply each
//! time. It knows no method, no timer, no limit on anything, writes no record, and never closes first: no server can be
//! this and none can be cheaper. It is the yardstick beside which the requests per CPU second of the others are laid. It
//! runs as a process of its own, which is this program again.

use std::io::{self, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use super::{Running, listening};
use crate::sys;

/// Tells the process that it is to be the loop.
const ENVIRONMENT: &str = "TIDEGATE_METER_RAW";
const READ: usize = 4096;
const EVENTS: usize = 1024;
const BACKLOG: i32 = 4096;
/// As long as what the others send, so that the kernel has as much to do.
const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nServer: raw epoll\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
    Content-Length: 13\r\nContent-Type: text/plain\r\n\r\nHello, World!";

pub(super) fn start() -> io::Result<Running> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).env(ENVIRONMENT, "1");
    listening::start(command, "raw epoll")
}

/// Becomes the loop, if this process was started for that; then it returns only with an error.
pub(super) fn become_it_if_told() -> Option<io::Error> {
    std::env::var_os(ENVIRONMENT)?;
    run().err()
}

struct Connection {
    socket: OwnedFd,
    /// How much of the blank line came at the end of what was read before.
    blank: usize,
}

fn run() -> io::Result<()> {
    sys::raise_open_files();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    rustix::net::listen(&listener, BACKLOG)?;
    writeln!(io::stdout(), "listening on http://{}", listener.local_addr()?)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(u64::MAX), EventFlags::IN)?;
    let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut buffer = [0; READ];
    loop {
        events.clear();
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            match event.data.u64() {
                u64::MAX => accept(&listener, &epoll, &mut connections)?,
                nth => {
                    let place = &mut connections[nth as usize];
                    if place.as_mut().is_some_and(|connection| !connection.answer(&mut buffer)) {
                        // Closing the socket takes it out of the epoll.
                        *place = None;
                    }
                }
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    epoll: &OwnedFd,
    connections: &mut Vec<Option<Connection>>,
) -> io::Result<()> {
    loop {
        let socket = match rustix::net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(socket) => socket,
            Err(Errno::CONNABORTED | Errno::INTR) => continue,
            Err(Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let nth = socket.as_raw_fd() as usize;
        epoll::add(epoll, &socket, EventData::new_u64(nth as u64), EventFlags::IN)?;
        connections.resize_with(connections.len().max(nth + 1), || None);
        connections[nth] = Some(Connection { socket, blank: 0 });
    }
}

impl Connection {
    /// Reads once, and answers if a head has ended. False when the connection is over.
    fn answer(&mut self, buffer: &mut [u8; READ]) -> bool {
        let read = match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((0, _)) => return false,
            Ok((read, _)) => read,
            Err(Errno::AGAIN | Errno::INTR) => return true,
            Err(_) => return false,
        };
        // A small reply that a client waits for has room in the kernel.
        !head_ends(&mut self.blank, &buffer[..read])
            || rustix::net::send(&self.socket, REPLY, SendFlags::NOSIGNAL)
                .is_ok_and(|sent| sent == REPLY.len())
    }
}

/// Whether a head ends with these bytes; `blank` is how much of the blank line stood at the end of what came before. The
/// clients ask for nothing before they have the reply, so that nothing can follow it.
fn head_ends(blank: &mut usize, bytes: &[u8]) -> bool {
    const END: &[u8; 4] = b"\r\n\r\n";
    if *blank == 0 && bytes.ends_with(END) {
        return true;
    }
    for &byte in bytes {
        *blank = match byte {
            byte if byte == END[*blank] => *blank + 1,
            b'\r' => 1,
            _ => 0,
        };
        if *blank == END.len() {
            *blank = 0;
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_wherever_it_is_cut() {
        let text = b"GET / HTTP/1.1\r\nHost: x\r\n\r\r\n\r\n";
        for cut in 0..text.len() {
            let mut blank = 0;
            assert!(!head_ends(&mut blank, &text[..cut]), "cut at {cut}");
            assert!(head_ends(&mut blank, &text[cut..]) && blank == 0, "cut at {cut}");
        }
    }
}
