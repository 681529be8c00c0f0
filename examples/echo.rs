//! Says back what it is sent, whatever the method and the path.
//!
//! ```text
//! cargo run --example echo -- --listen 127.0.0.1:8080
//! curl --data-binary @film.bin http://127.0.0.1:8080/ -o copy.bin
//! ```
//!
//! A small body is read whole first. A large one goes back while it arrives: what the client does not take is not read
//! from it either.
//!
//! Also `--pollers` and rates, as the example `hello` has them.

mod help;
mod support;

use support::Options;
use tidegate::http::{Body, Exchange, Handler, Intake, Request, RequestBody};
use tidegate::task::Error;

/// Many clients read nothing before they have sent everything, which goes well for what fits into buffers.
const WHOLE_MAX: u64 = 1024 * 1024;

#[derive(Clone)]
struct Echo;

impl Handler for Echo {
    fn intake(&self, request: &Request) -> Intake {
        match request.body_length() {
            Some(..=WHOLE_MAX) => Intake::Whole { max_bytes: WHOLE_MAX },
            _ => Intake::Stream { max_bytes: u64::MAX },
        }
    }

    fn handle(&self, exchange: &mut Exchange) {
        let context = &mut exchange.context;
        let request = context.request().clone();
        if let Some(media) = request.header("content-type") {
            context.reply.headers.add("Content-Type", media);
        }
        context.reply.body = match std::mem::take(&mut context.body) {
            RequestBody::None => Body::Empty,
            RequestBody::Whole(body) => body.into(),
            RequestBody::Stream(reader) => Body::Stream(reader.into_body()),
        };
    }
}

fn main() -> Result<(), Error> {
    if help::is_asked(include_str!("echo.rs")) {
        return Ok(());
    }
    Options::read(&[])?.serve(Echo)
}
