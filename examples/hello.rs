//! The smallest server: says hello to whoever asks.
//!
//! ```text
//! cargo run --example hello -- --listen 127.0.0.1:8080
//! curl http://127.0.0.1:8080/
//! ```
//!
//! `--pollers N` gives it more threads; `--rate`, `--client-rate` and `--total-rate` (bytes per second) limit each
//! connection, each client and everything.

mod help;
mod support;

use support::Options;
use tidegate::http::{Exchange, Method, Reply, StatusCode};
use tidegate::task::Error;

fn hello(exchange: &mut Exchange) {
    let method = exchange.context.request().method();
    // To HEAD the same goes without its body.
    if !matches!(*method, Method::GET | Method::HEAD) {
        exchange.context.reply = Reply::error(StatusCode::METHOD_NOT_ALLOWED).header("Allow", "GET, HEAD");
        return;
    }
    let reply = &mut exchange.context.reply;
    reply.headers.add("Content-Type", "text/plain");
    reply.body = "Hello, World!".into();
}

fn main() -> Result<(), Error> {
    if help::is_asked(include_str!("hello.rs")) {
        return Ok(());
    }
    Options::read(&[])?.serve(hello)
}
