//! What the tests of ends share: handlers of all manners, and what holds of records whatever happened.

// Each test binary uses its part of this.
#![allow(dead_code)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate::http::body::{BodySource, BodyWaker};
use tidegate::http::{
    Exchange, Handler, Intake, Reply, Request, RequestBody, ServerSettings, StatusCode, StreamBody,
};
use tidegate::poller::{Limit, Pull};
use tidegate::record::{ConnectionEntry, ExchangeRecord};
use tidegate::task::{Continuation, Parked, Task, sleep};

use super::support::Wire;

pub(crate) const BIG: usize = 30_000_000;
pub(crate) const LONG: Duration = Duration::from_secs(600);

/// Answers as the first letter of the path says, and takes the body as the second does: stream, discard, whole.
#[derive(Clone, Default)]
pub(crate) struct Ways {
    /// Handlers that wait to be told.
    pub(crate) waiting: Arc<Mutex<Vec<Parked<()>>>>,
}

/// Waits until somebody takes it from there.
struct Wait(Arc<Mutex<Vec<Parked<()>>>>);

impl Task for Wait {
    type Output = ();

    fn dispatch(self, done: Continuation<()>) {
        self.0.lock().unwrap().push(done.park());
    }
}

impl Handler for Ways {
    fn intake(&self, request: &Request) -> Intake {
        match request.target().get(2) {
            Some(b's') => Intake::Stream { max_bytes: 1_000 },
            Some(b'd') => Intake::Discard { max_bytes: 1_000 },
            _ => Intake::Whole { max_bytes: 1_000 },
        }
    }

    fn handle(&self, exchange: &mut Exchange) {
        let way = exchange.context.request().target().get(1).copied();
        exchange.context.reply = match way {
            Some(b'b') => Reply::text(vec![b'x'; BIG]),
            Some(b'p') => Reply::text(vec![b'x'; 50_000]).limit(&Limit::new("slow", Some(100_000))),
            Some(b'q') => Reply::text(vec![b'x'; BIG]).limit(&Limit::new("slow", Some(1_000))),
            Some(b'f') => Reply::text(StreamBody::new(Says { left: 1_000, then: Pull::Failed })),
            Some(b'v') => Reply::text(StreamBody::new(Says { left: 1_000, then: Pull::Starved })),
            Some(b'c') => Reply::text(StreamBody::new(Says { left: 1_000, then: Pull::End })),
            Some(b'n') => Reply::new(StatusCode::NO_CONTENT).body("nothing of this goes"),
            Some(b'm') => Reply::new(StatusCode::NOT_MODIFIED).body("nothing of this goes"),
            Some(b'u') => Reply::new(StatusCode::RESET_CONTENT).body("nothing of this goes"),
            Some(b'i') => Reply::new(StatusCode::CONTINUE).body("nothing of this goes"),
            Some(b'r') => Reply::error(StatusCode::UNAUTHORIZED),
            Some(b'w') => {
                exchange.push(sleep(Duration::from_millis(200)), |(), _| Ok(()));
                Reply::text("waited\n")
            }
            Some(b'k') => {
                exchange.push(Wait(self.waiting.clone()), |(), _| Ok(()));
                Reply::text("told\n")
            }
            Some(b'h') => {
                exchange.push(sleep(LONG), |(), _| Ok(()));
                return;
            }
            Some(b'a') => {
                if let RequestBody::Stream(reader) = std::mem::take(&mut exchange.context.body) {
                    exchange.push(reader.collect(u64::MAX), |all, exchange| {
                        exchange.context.reply = Reply::text(format!("{} bytes\n", all?.len()));
                        Ok(())
                    });
                }
                return;
            }
            _ => Reply::text("well\n"),
        };
    }
}

/// Says so many bytes, and then only this.
struct Says {
    left: usize,
    then: Pull,
}

impl BodySource for Says {
    fn attach(&mut self, _: BodyWaker) {}

    fn pull(&mut self, max: usize, out: &mut Vec<u8>) -> Pull {
        let now = self.left.min(max);
        self.left -= now;
        out.resize(out.len() + now, b'x');
        if now > 0 { Pull::More } else { self.then }
    }
}

/// Patient in all but one thing.
pub(crate) fn patient() -> ServerSettings {
    let [header_timeout, body_timeout, idle_timeout, send_timeout] = [LONG; 4];
    ServerSettings { header_timeout, body_timeout, idle_timeout, send_timeout, ..ServerSettings::default() }
}

pub(crate) const GET: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
pub(crate) const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

pub(crate) fn post(target: &str, fields: &str, body: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n{body}")
}

/// Sends a request that is answered at once and something more in one write. When the answer is here, both were read.
pub(crate) fn sends_behind(client: &mut Wire, more: impl AsRef<[u8]>) {
    client.send([GET.as_bytes(), more.as_ref()].concat());
    assert_eq!(client.reply().body_text(), "well\n");
}

pub(crate) fn said(record: &ExchangeRecord) -> (u16, String) {
    let end = format!("{}/{}/{}", record.end_who(), record.phase, record.end.reason.as_str());
    (record.status.unwrap_or(0), end)
}

/// What holds whatever happened.
#[track_caller]
pub(crate) fn adds_up(what: &str, exchanges: &[Arc<ExchangeRecord>], entry: &ConnectionEntry) {
    assert_eq!(entry.exchanges, exchanges.len() as u64, "{what}");
    let (mut wire_in, mut wire_out) = (0, 0);
    for (record, nth) in exchanges.iter().zip(1..) {
        assert_eq!((record.exchange_id, record.conn_id), (nth, entry.record.conn_id), "{what}");
        assert_eq!(record.wire_in, record.req_header_bytes + record.req_body_bytes, "{what}");
        assert_eq!(record.wire_out, record.resp_header_bytes + record.resp_body_bytes, "{what}");
        assert_eq!(record.first_byte.is_some(), record.wire_out > 0, "{what}");
        assert!(record.first_byte.unwrap_or_default() <= record.total, "{what}");
        wire_in += record.wire_in;
        wire_out += record.wire_out;
    }
    assert!(wire_in <= entry.record.wire_in, "{what}: {wire_in} > {}", entry.record.wire_in);
    assert_eq!(wire_out, entry.record.wire_out, "{what}");
}
