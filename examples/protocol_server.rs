//! A server of a protocol of one's own: says everything back, backwards, and how often it was asked.
//!
//! ```sh
//! cargo run --example protocol_server -- --listen 127.0.0.1:7007
//! cargo run --example protocol_client -- 127.0.0.1:7007 hello world
//! ```

mod frames;
mod help;

use std::error::Error;
use std::io::Write as _;
use std::net::SocketAddr;

use frames::Frames;
use tidegate::net::Listeners;
use tidegate::net::protocol::{Exchange, Server};
use tidegate::runtime::Runtime;
use tidegate::task::go;

/// What is kept as long as a connection: how many requests it had.
type Asked = u32;

fn main() -> Result<(), Box<dyn Error>> {
    if help::is_asked(include_str!("protocol_server.rs")) {
        return Ok(());
    }
    let runtime = Runtime::new()?;
    let listeners = Listeners::bind(address()?, 1)?;
    let handler = |exchange: &mut Exchange<Frames, Asked>| {
        exchange.context.connection += 1;
        let request = std::mem::take(&mut exchange.context.request);
        // What takes long is computed elsewhere; the reply goes out when the last task of the series is done.
        exchange.push(go(move || request.chars().rev().collect::<String>()), |backwards, exchange| {
            exchange.context.reply = Some(format!("{}: {backwards}", exchange.context.connection));
            Ok(())
        });
        Ok(())
    };
    let server = Server::builder(Frames, handler).start_on(&runtime.handle(), listeners)?;
    println!("listening on {}", server.address());
    std::io::stdout().flush()?;
    runtime.join()?;
    Ok(())
}

/// What follows `--listen`, or a port that the kernel picks.
fn address() -> Result<SocketAddr, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => Ok(SocketAddr::from(([127, 0, 0, 1], 0))),
        (Some("--listen"), Some(address)) => Ok(address.parse()?),
        _ => Err("usage: protocol_server [--listen ADDRESS:PORT]".into()),
    }
}
