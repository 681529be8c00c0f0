//! The measuring client: one thread, one epoll, level-triggered, one read an event.
//!
//! It opens connections, asks, time-stamps what comes and throws the bytes away. It owns the sockets and their
//! timelines; it makes no figure of them. Whoever measures drives it: [`Client::open`], then
//! [`Client::run_until`] up to a moment of [`Client::now`].

mod connection;
mod stall;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};

use connection::Step;
pub use connection::{Connection, Exchange};
use stall::StallWatch;

use crate::sys::{self, Clock};

/// What becomes of the bytes of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// Copied out of the kernel and dropped, as any client must at least.
    Copy,
    /// Dropped inside the kernel (`MSG_TRUNC`): the client costs next to nothing.
    Truncate,
    /// Copied and hashed (FNV-1a), to be compared with what should have come.
    Hash,
}

/// What a connection does when a reply is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Stays open and quiet.
    Stay,
    /// Asks for the same again on the same connection.
    Repeat,
    /// Closes, and asks for the same again on a new connection.
    Reconnect,
}

/// What to open.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server.
    pub to: SocketAddr,
    /// How many connections.
    pub connections: usize,
    /// The path to ask for.
    pub path: String,
    /// Whether the server is asked to keep the connection after the reply.
    pub keep_alive: bool,
    /// What follows a reply.
    pub then: Then,
    /// What becomes of the body.
    pub discard: Discard,
}

/// The client.
pub struct Client {
    clock: Clock,
    epoll: rustix::fd::OwnedFd,
    events: Vec<Event>,
    buffer: Vec<u8>,
    connections: Vec<Connection>,
    stall: StallWatch,
}

impl Client {
    /// A client without connections.
    pub fn new() -> io::Result<Client> {
        Ok(Client {
            clock: Clock::start(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS),
            buffer: vec![0; BUFFER],
            connections: Vec::new(),
            stall: StallWatch::default(),
        })
    }

    /// The moment on the client's clock, in nanoseconds; that of the time stamps.
    pub fn now(&self) -> u64 {
        self.clock.now()
    }

    /// All connections, in the order of opening.
    pub fn connections(&self) -> &[Connection] {
        &self.connections
    }

    /// Opens connections and waits until each has got the first bytes of its body, or all of it where `Then` is to
    /// stay and `whole` is asked for. Not more than a hundred or so wait to be answered at a time: a full
    /// backlog would lose callers, and they would return a second later. Returns the index of the first.
    pub fn open(&mut self, plan: &Plan, whole: bool, within: Duration) -> io::Result<usize> {
        let first = self.connections.len();
        let end = first + plan.connections;
        let deadline = self.now() + within.as_nanos() as u64;
        self.connections.reserve(plan.connections);
        let mut settled = first;
        while settled < end {
            while self.connections.len() < end && self.connections.len() < settled + OPENING_AT_ONCE {
                let nth = self.connections.len();
                let connection = Connection::open(plan, self.clock.now())?;
                epoll::add(
                    &self.epoll,
                    connection.socket(),
                    EventData::new_u64(nth as u64),
                    EventFlags::OUT,
                )?;
                self.connections.push(connection);
            }
            if self.now() >= deadline {
                let open = self.connections.len();
                let state = self.connections[settled].describe();
                return Err(io::Error::other(format!(
                    "{} of {} connections answered in {within:?}, {open} open; the next one: {state}",
                    settled - first,
                    plan.connections
                )));
            }
            self.turn(HEARTBEAT)?;
            while let Some(connection) = self.connections.get(settled) {
                connection.check()?;
                let done = if whole { connection.replies() > 0 } else { connection.body_bytes() > 0 };
                if !done {
                    break;
                }
                settled += 1;
            }
        }
        Ok(first)
    }

    /// Reads until the moment comes.
    pub fn run_until(&mut self, moment: u64) -> io::Result<()> {
        loop {
            let now = self.now();
            if now >= moment {
                return Ok(());
            }
            self.turn(HEARTBEAT.min(moment - now))?;
        }
    }

    /// Reads until all connections have had as many replies in all, or the moment comes. Tells whether they had.
    pub fn run_until_replies(&mut self, replies: u64, moment: u64) -> io::Result<bool> {
        while self.connections.iter().any(|connection| connection.replies() < replies) {
            let now = self.now();
            if now >= moment {
                return Ok(false);
            }
            self.turn(HEARTBEAT.min(moment - now))?;
        }
        Ok(true)
    }

    /// Forgets the stalls there were: the measuring begins.
    pub fn forget_stalls(&mut self) {
        self.stall = StallWatch::default();
    }

    /// The longest time since then in which the client did not read although data could have been there.
    pub fn longest_stall(&self) -> Duration {
        self.stall.longest()
    }

    /// The first failure of any connection, as an error.
    pub fn check(&self) -> io::Result<()> {
        self.connections.iter().try_for_each(Connection::check)
    }

    /// Waits at most that many nanoseconds and reads once from every socket that has something.
    fn turn(&mut self, wait: u64) -> io::Result<()> {
        if sys::stop_asked() {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "asked to stop"));
        }
        let timeout = Timespec { tv_sec: 0, tv_nsec: wait as i64 };
        let before = self.clock.now();
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let back = self.clock.now();
        self.stall.waited(before, wait, back);
        for at in 0..self.events.len() {
            let nth = self.events[at].data.u64();
            self.ready(nth)?;
        }
        self.stall.worked(back, self.clock.now());
        Ok(())
    }

    fn ready(&mut self, nth: u64) -> io::Result<()> {
        let connection = &mut self.connections[nth as usize];
        match connection.on_ready(&mut self.buffer, &self.clock)? {
            Step::More => {}
            Step::Connected => {
                epoll::modify(&self.epoll, connection.socket(), EventData::new_u64(nth), EventFlags::IN)?;
            }
            Step::Ended => epoll::delete(&self.epoll, connection.socket())?,
            Step::Reconnect => {
                // Closing the old socket takes it out of the epoll.
                connection.reconnect(self.clock.now())?;
                epoll::add(&self.epoll, connection.socket(), EventData::new_u64(nth), EventFlags::OUT)?;
            }
        }
        Ok(())
    }
}

/// Asked of epoll at once.
const EVENTS: usize = 1024;
/// The most a read takes: more than the kernel ever has ready at the rates of interest.
const BUFFER: usize = 256 * 1024;
/// Connections that wait for their first answer at a time: fewer than any server's backlog.
const OPENING_AT_ONCE: usize = 128;
/// The longest wait, ns. Short enough that a stall of the machine shows as a late return.
const HEARTBEAT: u64 = 5_000_000;
