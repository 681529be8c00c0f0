//! A slow producer: a line now and then, each sent when it is there.
//!
//! ```text
//! cargo run --example stream -- --listen 127.0.0.1:8080 --lines 10 --interval 500
//! curl -N http://127.0.0.1:8080/
//! ```
//!
//! `--lines` says how many, `--interval` how many milliseconds apart. Nobody knows the length beforehand, so HTTP/1.1
//! sends the reply chunked. Also `--pollers` and rates, as the example `hello` has them.

mod help;
mod support;

use std::time::Duration;

use support::Options;
use tidegate::http::{Exchange, Reply, StatusCode, body_stream};
use tidegate::runtime::RuntimeHandle;
use tidegate::task::{Dropped, Error, future, sleep};

/// How much may wait for a client that is slower than the producer.
const CAPACITY: usize = 64 * 1024;

fn stream(exchange: &mut Exchange, lines: u64, interval: Duration) {
    let Some(runtime) = RuntimeHandle::of_poller() else {
        exchange.context.reply = Reply::error(StatusCode::SERVICE_UNAVAILABLE);
        return;
    };
    let (writer, body) = body_stream(CAPACITY);
    exchange.context.reply = Reply::text(body);
    let here = runtime.clone();
    // Started aside: the reply's head goes now, and this runs on beside it.
    let produce = future(async move {
        for line in 1..=lines {
            here.spawn(sleep(interval)).await?;
            // Waits for room. Where the client has left there is nobody to write for.
            if here.spawn(writer.send(format!("line {line}\n").into_bytes())).await?.is_err() {
                return Ok(());
            }
        }
        writer.finish();
        Ok::<_, Dropped>(())
    });
    runtime.spawn(produce).detach();
}

fn main() -> Result<(), Error> {
    if help::is_asked(include_str!("stream.rs")) {
        return Ok(());
    }
    let options = Options::read(&["--lines", "--interval"])?;
    let lines = options.value("--lines")?.unwrap_or(10);
    let interval = Duration::from_millis(options.value("--interval")?.unwrap_or(500));
    options.serve(move |exchange: &mut Exchange| stream(exchange, lines, interval))
}
