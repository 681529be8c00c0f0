//! Panics in what users write: their client is told 500 where that can still be said, and nobody else notices.
#![cfg(feature = "http")]

mod support;

use std::str::FromStr;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use support::{Host, PATIENCE, Wire};
use tidegate::http::body::{BodySource, BodyWaker};
use tidegate::http::router::{HttpError, Router, Routes, asynchronous};
use tidegate::http::{
    BodyWriter, Exchange, ExchangeContext, Fields, Handler, Intake, Reply, Request, RequestBody,
    ServerSettings, StreamBody, body_stream,
};
use tidegate::poller::{Pull, Reason};
use tidegate::runtime::RuntimeHandle;
use tidegate::task::{Outcome, Series, go, sleep};

/// Panics at its place.
struct Bomb(&'static str);

impl Bomb {
    fn at(&self, place: &str) {
        assert_ne!(self.0, place, "as planned");
    }
}

impl BodySource for Bomb {
    fn attach(&mut self, _: BodyWaker) {
        self.at("attach");
    }

    fn pull(&mut self, _: usize, out: &mut Vec<u8>) -> Pull {
        self.at("pull");
        out.push(b'x');
        if self.0 == "endless" { Pull::More } else { Pull::End }
    }

    fn trailers(&mut self) -> Option<Fields> {
        self.at("trailers");
        None
    }

    fn shutting_down(&mut self) {
        self.at("shutting down");
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        self.at("drop");
    }
}

impl FromStr for Bomb {
    type Err = std::convert::Infallible;

    fn from_str(_: &str) -> Result<Bomb, Self::Err> {
        panic!("as planned");
    }
}

fn describe(routes: &mut Routes<'_>) {
    routes.get("/well", |_| "well\n");
    routes.get("/handler", |_| -> Reply { panic!("as planned") });
    routes.post("/handler", |_| -> Reply { panic!("as planned") });
    routes.post("/stream", |_| -> Reply { panic!("as planned") }).stream(1_000_000);
    routes.get("/extractor/{x}", |exchange| {
        let _bomb: Bomb = exchange.context.path("x")?;
        Ok::<_, HttpError>("unreachable")
    });
    routes.get("/callback", |exchange| exchange.push(go(|| ()), |(), _| panic!("as planned")));
    routes.get("/timer", |exchange| {
        exchange.push(sleep(Duration::from_millis(1)), |(), _| panic!("as planned"));
    });
    routes.get("/go", |exchange| exchange.push(go(|| panic!("as planned")), |(), _| Ok(())));
    routes.get("/task-left", |exchange| -> Reply {
        exchange.push(sleep(Duration::from_secs(600)), |(), _| Ok(()));
        panic!("as planned")
    });
    routes.get("/finally", |exchange| exchange.set_finally(|_, _| panic!("as planned")));
    routes.get(
        "/async",
        asynchronous(|_, _| async {
            if true {
                panic!("as planned")
            }
        }),
    );
    routes.group("/before", |group| {
        group.before(|_: &mut Exchange| -> () { panic!("as planned") });
        group.get("/x", |_| "unreachable");
    });
    routes.group("/after", |group| {
        group.after(|_| panic!("as planned"));
        group.get("/x", |_| "changed");
        group.get("/later", |exchange| exchange.push(go(|| ()), |(), _| Ok(())));
    });
    routes.group("/page", |group| {
        group.errors(|_, _| panic!("as planned"));
        group.get("/x", |_| HttpError::bad_request("no"));
    });
    for place in ["attach", "pull", "trailers", "drop"] {
        routes.get(&format!("/source/{place}"), move |_| Reply::text(StreamBody::new(Bomb(place))));
    }
}

/// A client on each poller, most likely, that was there before.
fn bystanders(host: &Host) -> Vec<Wire> {
    let mut clients: Vec<Wire> = (0..8).map(|_| host.connect()).collect();
    clients.iter_mut().for_each(are_well);
    clients
}

fn are_well(client: &mut Wire) {
    assert_eq!(client.get("/well").body_text(), "well\n");
}

/// What panics on the way of a request without a body.
const TARGETS: [&str; 12] = [
    "/handler",
    "/extractor/1",
    "/callback",
    "/timer",
    "/go",
    "/task-left",
    "/finally",
    "/async",
    "/before/x",
    "/after/x",
    "/after/later",
    "/page/x",
];

fn are_told(host: &Host) {
    let mut others = bystanders(host);
    let mut client = host.connect();
    for target in TARGETS {
        // The connection goes on, too.
        assert_eq!(client.get(target).head.status, 500, "{target}");
        others.iter_mut().for_each(are_well);
    }
    for (target, body) in [("/handler", 10), ("/handler", 100_000), ("/stream", 10), ("/stream", 100_000)] {
        let mut client = host.connect();
        client.send(format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {body}\r\n\r\n"));
        client.send(vec![b'x'; body]);
        assert_eq!(client.reply().head.status, 500, "{target}");
        others.iter_mut().for_each(are_well);
    }
}

#[test]
fn whatever_of_a_route_panics_its_client_is_told_and_nobody_else_notices() {
    let unrecorded = Host::unrecorded(ServerSettings::default(), Router::build(describe).unwrap());
    are_told(&unrecorded);
    unrecorded.end();
    let host = Host::new(Router::build(describe).unwrap());
    are_told(&host);
    // Eight bystanders, who asked once and once more each time.
    let (records, _) = host.records.connections(13);
    let told = records.iter().filter(|record| record.status == Some(500)).collect::<Vec<_>>();
    assert_eq!(told.len(), TARGETS.len() + 4);
    assert!(
        told.iter().all(|record| (record.end.reason, record.phase) == (Reason::Ok, "reply")),
        "{told:#?}"
    );
    assert_eq!(records.len(), told.len() + 8 * (1 + told.len()));
    host.end();
}

#[test]
fn a_source_that_panics_cuts_its_reply_and_nobody_elses() {
    let host = Host::new(Router::build(describe).unwrap());
    let mut others = bystanders(&host);
    for (nth, place) in ["attach", "pull", "trailers", "drop"].into_iter().enumerate() {
        let mut client = host.connect();
        client.ask(&format!("/source/{place}"), "Connection: close\r\n");
        let all = client.drain();
        let whole = all.ends_with(b"0\r\n\r\n");
        // Where only the drop does, all had been made.
        assert_eq!(whole, place == "drop", "{place}: {:?}", String::from_utf8_lossy(&all));
        drop(client);
        let (records, connections) = host.records.connections(nth + 1);
        let record = records
            .iter()
            .find(|record| record.words.target() == Some(format!("/source/{place}").as_bytes()));
        let reason = if whole { Reason::Ok } else { Reason::Internal };
        assert_eq!(record.unwrap().end.reason, reason, "{place}");
        assert_eq!(connections[nth].exchanges, 1, "{place}");
        others.iter_mut().for_each(are_well);
    }
    host.end();
}

#[test]
fn a_source_whose_drop_panics_when_its_client_leaves_ends_no_poller() {
    let host = Host::new(|exchange: &mut Exchange| {
        exchange.context.reply = match exchange.context.request().target() {
            b"/endless" => Reply::text(StreamBody::new(Both(Bomb("endless"), Bomb("drop")))),
            _ => Reply::text("well\n"),
        };
    });
    let mut others = bystanders(&host);
    for nth in 0..6 {
        let mut client = host.connect();
        client.ask("/endless", "");
        client.take(100);
        client.reset();
        let (_, connections) = host.records.connections(nth + 1);
        assert_eq!(connections[nth].record.end.reason, Reason::Abort);
        others.iter_mut().for_each(are_well);
    }
    host.end();
}

/// The first makes a body, the other one only goes with it.
struct Both(Bomb, #[expect(dead_code, reason = "it is dropped")] Bomb);

impl BodySource for Both {
    fn attach(&mut self, waker: BodyWaker) {
        self.0.attach(waker);
    }

    fn pull(&mut self, max: usize, out: &mut Vec<u8>) -> Pull {
        self.0.pull(max, out)
    }
}

#[test]
fn who_is_told_that_a_client_left_may_panic() {
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let router = Router::build(|routes| {
        routes.get("/well", |_| "well\n");
        routes.get("/stream", move |_| {
            let (writer, body) = body_stream(1_000);
            let _ = writer.try_send("some");
            let left = writer.closed();
            let tell = tell.lock().unwrap().clone();
            let watches = Series::new(writer).then(left, move |(), _: &mut Series<BodyWriter>| {
                let _ = tell.send(());
                panic!("as planned")
            });
            RuntimeHandle::of_poller().unwrap().start(watches).detach();
            Reply::text(body)
        });
    });
    let host = Host::new(router.unwrap());
    let mut others = bystanders(&host);
    for nth in 0..4 {
        let mut client = host.connect();
        client.ask("/stream", "");
        client.head();
        client.reset();
        told.recv_timeout(PATIENCE).unwrap();
        host.records.connections(nth + 1);
        others.iter_mut().for_each(are_well);
    }
    host.end();
}

#[test]
fn who_panics_when_the_server_stops_does_not_keep_it() {
    let host = Host::new(|exchange: &mut Exchange| {
        exchange.context.reply = match exchange.context.request().target() {
            b"/stops" => Reply::text(StreamBody::new(Says(Bomb("shutting down")))),
            b"/works" => {
                exchange.push(sleep(Duration::from_millis(100)), |(), _| panic!("as planned"));
                return;
            }
            _ => Reply::text("well\n"),
        };
    });
    let (mut streams, mut works, mut well) = (host.connect(), host.connect(), host.connect());
    streams.ask("/stops", "");
    streams.head();
    works.send("GET /well HTTP/1.1\r\nHost: x\r\n\r\nGET /works HTTP/1.1\r\nHost: x\r\n\r\n");
    works.reply();
    are_well(&mut well);
    host.stop(PATIENCE);
    assert!(!streams.drain().ends_with(b"0\r\n\r\n"));
    let last = works.reply();
    assert_eq!((last.head.status, last.field("connection")), (500, "close"));
    well.expect_end();
    let (exchanges, connections) = host.records.connections(3);
    assert_eq!((exchanges.len(), connections.len()), (4, 3));
    host.end();
}

/// Says a word, and nothing more until it is told to stop.
struct Says(Bomb);

impl BodySource for Says {
    fn attach(&mut self, _: BodyWaker) {}

    fn pull(&mut self, _: usize, _: &mut Vec<u8>) -> Pull {
        Pull::Starved
    }

    fn shutting_down(&mut self) {
        self.0.shutting_down();
    }
}

/// Panics where it is asked what it wants of a body, or for its last word.
#[derive(Clone)]
struct Panics(Arc<str>);

impl Handler for Panics {
    fn intake(&self, request: &Request) -> Intake {
        assert!(request.target() != b"/intake", "as planned");
        Intake::Stream { max_bytes: 1_000_000 }
    }

    fn handle(&self, exchange: &mut Exchange) {
        exchange.context.reply = Reply::text("well\n");
        if let RequestBody::Stream(reader) = std::mem::take(&mut exchange.context.body) {
            exchange.push(reader.collect(1_000), |_, _| Ok(()));
        }
    }

    fn finish(&self, context: &mut ExchangeContext, _: Outcome) {
        assert!(context.request().target() != b"/finish", "{}", self.0);
    }
}

#[test]
fn a_handler_of_its_own_kind_may_panic_wherever_it_is_asked() {
    let host = Host::new(Panics("as planned".into()));
    let mut others = bystanders(&host);
    for (target, status, closes) in [("/intake", 500, "close"), ("/finish", 500, ""), ("/well", 200, "")] {
        let mut client = host.connect();
        client.send(format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"));
        let reply = client.reply();
        assert_eq!((reply.head.status, reply.field("connection")), (status, closes), "{target}");
        others.iter_mut().for_each(are_well);
    }
    let (records, _) = host.records.connections(3);
    let intake = records.iter().find(|record| record.words.target() == Some(b"/intake")).unwrap();
    assert_eq!((intake.status, intake.end.reason, intake.phase), (Some(500), Reason::Internal, "request"));
    host.end();
}
