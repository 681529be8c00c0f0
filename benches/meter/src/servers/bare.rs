//! A loop that does nothing but send: what pacing costs where nothing else is done.
//!
//! It accepts, throws the request away, answers with a head, and then gives each connection its quantum by `sendfile` at its
//! place on a grid a sixteenth of the interval wide, as we do. No budget, no record, no event: the floor on this
//! machine, at this hour. It runs as a process of its own, which is this program again.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Running, Wish};
use crate::cases::BIG;
use crate::sys;

/// Tells the process that it is to be the loop: connections, bytes per second of each, milliseconds, file.
const ENVIRONMENT: &str = "TIDEGATE_METER_BARE";
const GRID: usize = 16;

pub(super) fn start(connections: usize, interval: Duration, wish: &Wish) -> io::Result<Running> {
    let rate = wish.rate.ok_or_else(|| io::Error::other("the bare loop has no rate to keep"))?;
    let file = wish.root.join(BIG.0);
    let what = format!("{connections} {rate} {} {}", interval.as_millis(), file.display());
    let mut child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(ENVIRONMENT, what)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no pipe to the bare loop"))?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    match line.trim().parse() {
        Ok(address) => Ok(Running { child, address, name: "the bare loop", _scratch: None }),
        Err(_) => {
            child.kill()?;
            child.wait()?;
            Err(io::Error::other(format!("the bare loop did not say where it listens: {line:?}")))
        }
    }
}

/// Becomes the loop, if this process was started for that; then it returns only with an error.
pub(super) fn become_it_if_told() -> Option<io::Error> {
    let what = std::env::var(ENVIRONMENT).ok()?;
    let mut words = what.splitn(4, ' ');
    let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
    let (connections, rate, millis) = (number()?, number()?, number()?);
    let file = words.next()?;
    run(connections as usize, rate, Duration::from_millis(millis), file).err()
}

struct Download {
    stream: TcpStream,
    file: File,
    offset: u64,
}

fn run(connections: usize, rate: u64, interval: Duration, path: &str) -> io::Result<()> {
    sys::raise_open_files();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let mut stdout = io::stdout();
    writeln!(stdout, "{}", listener.local_addr()?)?;
    stdout.flush()?;
    let quantum = (u128::from(rate) * interval.as_nanos() / 1_000_000_000) as usize;
    // One place for each connection; those of one point of the grid lie together.
    let mut places: Vec<Option<Download>> = (0..connections).map(|_| None).collect();
    let mut taken = 0;
    let mut next = Instant::now();
    // No point without a connection: nothing is to be done there.
    let points = GRID.min(connections.max(1));
    loop {
        for point in 0..points {
            next += interval / points as u32;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            while taken < connections {
                let Some(download) = accept(&listener, path)? else { break };
                places[taken] = Some(download);
                taken += 1;
            }
            let (from, to) = (connections * point / points, connections * (point + 1) / points);
            for place in &mut places[from..to] {
                let Some(Download { stream, file, offset }) = place else { continue };
                match rustix::fs::sendfile(&*stream, &*file, Some(offset), quantum) {
                    Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
                    Err(_) => *place = None,
                }
            }
        }
    }
}

fn accept(listener: &TcpListener, path: &str) -> io::Result<Option<Download>> {
    let mut stream = match listener.accept() {
        Ok((stream, _)) => stream,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        Err(error) => return Err(error),
    };
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    // The meter's request comes in one piece.
    let _ = stream.read(&mut [0; 4096])?;
    let file = File::open(path)?;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", file.metadata()?.len());
    stream.write_all(head.as_bytes())?;
    stream.set_nonblocking(true)?;
    Ok(Some(Download { stream, file, offset: 0 }))
}
