//! A file server of one's own: a handler that sends files, or reads them and says what is in them.
//!
//! ```text
//! cargo run --example file_server -- FOLDER                   until Enter is pressed
//! cargo run --example file_server -- FOLDER 500000            so many bytes a second for each connection
//! curl http://127.0.0.1:PORT/film.bin                         the file
//! curl 'http://127.0.0.1:PORT/hello.txt?count'                how many lines and words it has
//! ```

mod help;

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{env, ffi, io};

use tidegate::http::StatusCode;
use tidegate::http::codec::target::Target;
use tidegate::http::{Body, Exchange, Reply};
use tidegate::http::{Files, Handler, Server, ServerSettings};
use tidegate::net::{Listeners, Pacing};
use tidegate::poller::file::Root;
use tidegate::record::{ConnectionEntry, ExchangeRecord, Sink, Sinks};
use tidegate::task::{Error, blocking, go, read_up_to};

#[derive(Clone)]
struct Counting {
    root: Arc<Root>,
    files: Files,
}

/// No larger file is read to be counted.
const COUNTED_MAX: u64 = 16 << 20;

impl Handler for Counting {
    fn handle(&self, exchange: &mut Exchange) {
        let request = exchange.context.request().clone();
        match Target::parse(request.target()) {
            Ok(target) if target.query() == Some(b"count") && !target.is_hidden() => {
                self.count(target.path().to_vec(), exchange);
            }
            // Whatever else is asked for, the library's own handler knows what to do.
            _ => self.files.handle(exchange),
        }
    }
}

impl Counting {
    /// Adds tasks; the reply goes when the last one is done.
    fn count(&self, path: Vec<u8>, exchange: &mut Exchange) {
        let root = self.root.clone();
        let open = move || root.file(Path::new(ffi::OsStr::from_bytes(&path)), false);
        exchange.push(blocking(open), |opened, exchange| {
            let Ok(file) = opened? else {
                exchange.context.reply = Reply::error(StatusCode::NOT_FOUND);
                return Ok(());
            };
            exchange.push(read_up_to(Arc::new(file), COUNTED_MAX), |bytes, exchange| {
                let bytes = bytes?;
                exchange.push(go(move || count(&bytes)), |text, exchange| {
                    exchange.context.reply.body = Body::Bytes(text.into_bytes());
                    Ok(())
                });
                Ok(())
            });
            Ok(())
        });
    }
}

fn count(bytes: &[u8]) -> String {
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    let words = bytes.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).count();
    format!("lines: {lines}, words: {words}\n")
}

/// Prints a line for each exchange, whatever ended it.
struct Print;

impl Sink for Print {
    fn exchange(&self, record: &Arc<ExchangeRecord>) {
        let target = String::from_utf8_lossy(record.words.target().unwrap_or_default()).into_owned();
        let (status, bytes) = (record.status.unwrap_or_default(), record.resp_body_bytes);
        let (total, rate) = (record.total.as_millis(), record.pauses.throttled_ns / 1_000_000);
        println!("{status} {target}: {bytes} bytes in {total} ms, {rate} of them for the rate");
    }

    fn connection(&self, _: &Arc<ConnectionEntry>) {}
}

fn main() -> Result<(), Error> {
    if help::is_asked(include_str!("file_server.rs")) {
        return Ok(());
    }
    let folder = env::args().nth(1).ok_or("which folder?")?;
    let rate = env::args().nth(2).map(|rate| rate.parse()).transpose()?;
    let root = Arc::new(Root::open(Path::new(&folder))?);
    let handler = Counting { files: Files::new(root.clone()), root };
    let pacing = Pacing::builder().connection(rate).build();
    let sinks = Sinks::new([Arc::new(Print) as Arc<dyn Sink>]);
    let settings = ServerSettings { pacing, sinks, ..ServerSettings::default() };
    let listeners = Listeners::bind(([127, 0, 0, 1], 0).into(), 1)?;

    let server = Server::builder(handler).settings(settings).start(listeners)?;
    println!("listening on http://{}", server.address());
    io::stdin().read_line(&mut String::new())?;
    // What is in flight has five seconds.
    server.shutdown(Duration::from_secs(5));
    Ok(server.join()?)
}
