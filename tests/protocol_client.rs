//! The client of a custom protocol, against peers made of plain sockets that do what peers do.

mod protocol_support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use protocol_support::{
    Frames, Keeps, PATIENCE, echo_server, frame, here, plain_server, random_bytes, read_frame,
};
use tidegate::net::protocol::{Client, ClientError, ClientSettings};
use tidegate::net::{Resolve, Resolving};
use tidegate::net::{Spending, Waited};
use tidegate::poller::{Limit, Reason};
use tidegate::runtime::Runtime;
use tidegate::task::{Parallel, Series, WaitError, sleep};

const SOON: Duration = Duration::from_millis(50);

fn client(runtime: &Runtime, settings: ClientSettings) -> Client<Frames> {
    Client::new(&runtime.handle(), Frames::default(), settings)
}

#[test]
fn replies_are_byte_exact() {
    let (keeps, sinks) = Keeps::new();
    let runtime = Runtime::builder().pollers(2).build().unwrap();
    let address = echo_server();
    let client = client(&runtime, ClientSettings { sinks, max_connections: 4, ..ClientSettings::default() });
    let bodies: Vec<_> = (0..60)
        .map(|n| {
            random_bytes(if n % 10 == 0 { fastrand::usize(..900_000) } else { fastrand::usize(..3_000) })
        })
        .collect();
    let requests: Parallel<_> = bodies.iter().map(|body| client.request(address, body.clone())).collect();
    let replies = runtime.run(requests).unwrap();
    for (reply, body) in replies.into_iter().zip(&bodies) {
        assert!(reply.unwrap().unwrap() == *body);
    }
    drop(client);
    let kept = keeps.until("records", |kept| kept.connections.len() == 4);
    let kept = {
        drop(kept);
        keeps.counts(60, 4)
    };
    let bytes: u64 = bodies.iter().map(|body| body.len() as u64 + 4).sum();
    assert_eq!(kept.exchanges.iter().map(|e| e.wire_out).sum::<u64>(), bytes);
    assert_eq!(kept.exchanges.iter().map(|e| e.wire_in).sum::<u64>(), bytes);
    assert_eq!(kept.connections.iter().map(|c| c.record.plain_in).sum::<u64>(), bytes);
    for exchange in &kept.exchanges {
        assert_eq!((exchange.end.reason, exchange.phase, exchange.status), (Reason::Ok, "reply", Some(200)));
        assert_eq!(exchange.words.method(), Some(&b"FRAME"[..]));
        assert!(exchange.first_byte.unwrap() + exchange.transfer.unwrap() <= exchange.total);
    }
}

#[test]
fn connections_are_kept_and_closed_when_they_idle() {
    let (keeps, sinks) = Keeps::new();
    let runtime = Runtime::new().unwrap();
    let address = echo_server();
    let client = client(&runtime, ClientSettings { sinks, idle_timeout: SOON, ..ClientSettings::default() });
    for n in 0..20 {
        assert_eq!(runtime.run(client.request(address, vec![n])).unwrap().unwrap(), [n]);
    }
    let kept = keeps.counts(20, 1);
    let record = &kept.connections[0].record;
    assert_eq!((record.end.reason, record.phase), (Reason::Timeout, "idle"));
}

/// Answers when told to.
struct Held {
    address: std::net::SocketAddr,
    go: mpsc::Sender<()>,
    open: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

fn held_server() -> Held {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (open.clone(), most.clone());
    let address = plain_server(move |_, mut stream| {
        let now = counts.0.fetch_add(1, Ordering::SeqCst) + 1;
        counts.1.fetch_max(now, Ordering::SeqCst);
        while let Some(body) = read_frame(&mut stream) {
            if wait.lock().unwrap().recv_timeout(PATIENCE).is_err()
                || stream.write_all(&frame(&body)).is_err()
            {
                break;
            }
        }
        counts.0.fetch_sub(1, Ordering::SeqCst);
    });
    Held { address, go, open, most }
}

#[test]
fn the_pool_has_its_limits_and_the_queue_its_bound() {
    let (keeps, sinks) = Keeps::new();
    let runtime = Runtime::new().unwrap();
    let held = held_server();
    let settings = ClientSettings {
        sinks,
        max_connections: 2,
        max_idle: 1,
        max_waiting: 3,
        ..ClientSettings::default()
    };
    let client = client(&runtime, settings);
    let handles: Vec<_> = (0..6u8).map(|n| runtime.spawn(client.request(held.address, vec![n]))).collect();
    let mut outcomes: Vec<_> = handles.into_iter().map(Some).collect();
    let refused = outcomes.pop().unwrap().unwrap().wait_for(PATIENCE).unwrap().unwrap();
    assert!(matches!(refused, Err(ClientError::QueueFull)), "{refused:?}");
    for _ in 0..5 {
        held.go.send(()).unwrap();
    }
    for (n, handle) in outcomes.into_iter().enumerate() {
        let reply = handle.unwrap().wait_for(PATIENCE).unwrap().unwrap().unwrap();
        assert_eq!(reply, [n as u8]);
    }
    assert_eq!(held.most.load(Ordering::SeqCst), 2);
    // One stays, one goes.
    let kept = keeps.until("one is closed", |kept| kept.connections.len() == 1 && kept.exchanges.len() == 6);
    let refused: Vec<_> = kept.exchanges.iter().filter(|e| e.conn_id == 0).collect();
    assert_eq!(refused.len(), 1);
    assert_eq!((refused[0].end.reason, refused[0].phase), (Reason::Denied, "wait"));
    drop(client);
    keeps.until("the other too", |kept| kept.connections.len() == 2);
    let deadline = Instant::now() + PATIENCE;
    while held.open.load(Ordering::SeqCst) > 0 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}

#[test]
fn each_timeout_says_what_was_waited_for() {
    let runtime = Runtime::new().unwrap();
    let timed_out = |settings: ClientSettings, address, body: Vec<u8>| {
        let (keeps, sinks) = Keeps::new();
        let client = client(&runtime, ClientSettings { sinks, ..settings });
        let began = Instant::now();
        let waited = match runtime.run(client.request(address, body)).unwrap() {
            Err(ClientError::Timeout(waited)) => waited,
            other => panic!("{other:?}"),
        };
        assert!(began.elapsed() >= SOON, "{:?}", began.elapsed());
        let kept = keeps.counts(1, 1);
        assert_eq!(kept.exchanges[0].end.reason, Reason::Timeout);
        (waited, kept.exchanges[0].phase)
    };
    let silent = plain_server(|_, mut stream| {
        read_frame(&mut stream);
        let _ = stream.read(&mut [0]);
    });
    let half = plain_server(|_, mut stream| {
        let body = read_frame(&mut stream).unwrap();
        stream.write_all(&frame(&body)[..5]).unwrap();
        let _ = stream.read(&mut [0]);
    });
    let deaf = TcpListener::bind(here()).unwrap();
    let deaf_address = deaf.local_addr().unwrap();
    let settings = ClientSettings::default;
    assert_eq!(
        timed_out(ClientSettings { first_byte_timeout: SOON, ..settings() }, silent, vec![1; 10]),
        (Waited::FirstByte, "wait")
    );
    assert_eq!(
        timed_out(ClientSettings { next_byte_timeout: SOON, ..settings() }, half, vec![1; 10]),
        (Waited::NextByte, "reply")
    );
    assert_eq!(
        timed_out(ClientSettings { total_timeout: Some(SOON), ..settings() }, half, vec![1; 10]),
        (Waited::Total, "reply")
    );
    // Connected by the kernel, never accepted: more than its buffers hold does not go.
    assert_eq!(
        timed_out(
            ClientSettings { next_byte_timeout: SOON, ..settings() },
            deaf_address,
            vec![1; 12_000_000]
        ),
        (Waited::Send, "request")
    );
}

#[test]
fn connecting_times_out() {
    // A listener whose queue is full: the kernel drops what comes.
    let full = tidegate::poller::sys::listen_tcp(here(), 1, false).unwrap();
    let address = full.local_addr().unwrap();
    let runtime = Runtime::new().unwrap();
    let (keeps, sinks) = Keeps::new();
    let client = client(
        &runtime,
        ClientSettings {
            sinks,
            connect_timeout: SOON * 4,
            retry_stale: false,
            first_byte_timeout: SOON * 20,
            ..ClientSettings::default()
        },
    );
    let outcomes =
        runtime.run((0..8).map(|n| client.request(address, vec![n])).collect::<Parallel<_>>()).unwrap();
    let late =
        outcomes.iter().filter(|outcome| matches!(outcome, Ok(Err(ClientError::Timeout(Waited::Connect)))));
    let late = late.count();
    assert!(late >= 4, "{outcomes:?}");
    let kept = keeps.counts(8, 8);
    assert_eq!(kept.exchanges.iter().filter(|e| e.phase == "connect").count(), late);
}

#[test]
fn waiting_for_a_connection_times_out() {
    let (keeps, sinks) = Keeps::new();
    let runtime = Runtime::new().unwrap();
    let held = held_server();
    let settings =
        ClientSettings { sinks, max_connections: 1, wait_timeout: SOON, ..ClientSettings::default() };
    let client = client(&runtime, settings);
    let first = runtime.spawn(client.request(held.address, vec![1]));
    let second = runtime.spawn(client.request(held.address, vec![2]));
    let third = runtime.spawn(client.request(held.address, vec![3]).timeout(SOON / 2));
    let error = second.wait_for(PATIENCE).unwrap().unwrap().unwrap_err();
    assert!(matches!(error, ClientError::Timeout(Waited::Connection)), "{error:?}");
    let error = third.wait_for(PATIENCE).unwrap().unwrap().unwrap_err();
    assert!(matches!(error, ClientError::Timeout(Waited::Total)), "{error:?}");
    held.go.send(()).unwrap();
    assert_eq!(first.wait_for(PATIENCE).unwrap().unwrap().unwrap(), [1]);
    drop(client);
    keeps.until("all", |kept| kept.exchanges.len() == 3 && kept.connections.len() == 1);
}

#[test]
fn what_a_bad_peer_does_is_told() {
    let runtime = Runtime::new().unwrap();
    let ask = |address, settings: ClientSettings| {
        let (keeps, sinks) = Keeps::new();
        let client = client(&runtime, ClientSettings { sinks, ..settings });
        let error = runtime.run(client.request(address, vec![7; 100])).unwrap().unwrap_err();
        let kept = keeps.counts(1, 1);
        (error, kept.exchanges[0].end.reason, kept.exchanges[0].wire_in)
    };
    let in_the_middle = plain_server(|_, mut stream| {
        let body = read_frame(&mut stream).unwrap();
        stream.write_all(&frame(&body)[..50]).unwrap();
    });
    let (error, reason, bytes) = ask(in_the_middle, ClientSettings::default());
    assert!(matches!(error, ClientError::Closed(Reason::Abort)), "{error:?}");
    assert_eq!((reason, bytes), (Reason::Abort, 50));

    let garbage = plain_server(|_, mut stream| {
        read_frame(&mut stream).unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let (error, reason, _) = ask(garbage, ClientSettings::default());
    assert!(matches!(error, ClientError::Malformed(_)), "{error:?}");
    assert_eq!(reason, Reason::ProtocolError);

    let long = plain_server(|_, mut stream| {
        read_frame(&mut stream).unwrap();
        let _ = stream.write_all(&frame(&[0; 2_000]));
    });
    let (error, reason, _) = ask(long, ClientSettings { max_reply: 1_000, ..ClientSettings::default() });
    assert!(matches!(error, ClientError::TooLong), "{error:?}");
    assert_eq!(reason, Reason::Denied);

    // Nobody there.
    let address = { TcpListener::bind(here()).unwrap().local_addr().unwrap() };
    let (error, reason, _) = ask(address, ClientSettings::default());
    assert!(matches!(error, ClientError::Connect(Reason::ConnectFailed)), "{error:?}");
    assert_eq!(reason, Reason::ConnectFailed);

    // More than was asked for: the reply counts, the connection does not.
    let (keeps, sinks) = Keeps::new();
    let chatty = plain_server(|_, mut stream| {
        let body = read_frame(&mut stream).unwrap();
        stream.write_all(&[frame(&body), frame(b"and another thing")].concat()).unwrap();
    });
    let client = client(&runtime, ClientSettings { sinks, ..ClientSettings::default() });
    assert_eq!(runtime.run(client.request(chatty, vec![1])).unwrap().unwrap(), [1]);
    assert_eq!(keeps.counts(1, 1).connections[0].record.end.reason, Reason::ProtocolError);
}

#[test]
fn a_request_that_cannot_be_said_fails() {
    let (keeps, sinks) = Keeps::new();
    let runtime = Runtime::new().unwrap();
    let client = client(&runtime, ClientSettings { sinks, ..ClientSettings::default() });
    let error = runtime.run(client.request(echo_server(), vec![0; 1 << 24])).unwrap().unwrap_err();
    assert!(matches!(error, ClientError::Encode(_)), "{error:?}");
    keeps.counts(1, 1);
}

#[test]
fn a_stale_connection_is_tried_again_once() {
    let (keeps, sinks) = Keeps::new();
    let runtime = Runtime::new().unwrap();
    // The first connection serves one, waits for the next, and closes instead of answering.
    let address = plain_server(|number, mut stream| {
        while let Some(body) = read_frame(&mut stream) {
            stream.write_all(&frame(&body)).unwrap();
            if number == 0 {
                let _ = stream.read(&mut [0; 5]);
                return;
            }
        }
    });
    let client = client(&runtime, ClientSettings { sinks, ..ClientSettings::default() });
    for n in 0..3 {
        assert_eq!(runtime.run(client.request(address, vec![n])).unwrap().unwrap(), [n]);
    }
    drop(client);
    // Both tries are exchanges.
    let kept = keeps.counts(4, 2);
    assert_eq!(kept.exchanges.iter().filter(|e| e.end.reason == Reason::Abort).count(), 1);

    // A peer that always does so is not asked for ever.
    let (keeps, sinks) = Keeps::new();
    let address = plain_server(|_, mut stream| {
        read_frame(&mut stream);
    });
    let client = self::client(&runtime, ClientSettings { sinks, ..ClientSettings::default() });
    let error = runtime.run(client.request(address, vec![1])).unwrap().unwrap_err();
    assert!(matches!(error, ClientError::Closed(_)), "{error:?}");
    keeps.counts(1, 1);
}

#[test]
fn cancel_before_while_and_after() {
    let (keeps, sinks) = Keeps::new();
    let runtime = Runtime::new().unwrap();
    let held = held_server();
    let client = client(&runtime, ClientSettings { sinks, max_connections: 1, ..ClientSettings::default() });
    // Before: it never starts.
    let series = Series::new(())
        .then(sleep(PATIENCE), |_, _| Ok(()))
        .then(client.request(held.address, vec![0]), |_, _| Ok(()));
    let series = runtime.start(series);
    series.cancel();
    assert!(series.wait_for(PATIENCE).unwrap().unwrap().outcome.is_err());
    // While it waits for the reply, and while another waits for the connection.
    let running = runtime.spawn(client.request(held.address, vec![1]));
    let waiting = runtime.spawn(client.request(held.address, vec![2]));
    let last = runtime.spawn(client.request(held.address, vec![3]));
    waiting.cancel();
    assert_eq!(waiting.wait_for(PATIENCE).unwrap().unwrap_err(), WaitError::Dropped);
    while held.open.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    running.cancel();
    assert_eq!(running.wait_for(PATIENCE).unwrap().unwrap_err(), WaitError::Dropped);
    // Its connection is closed, and the next request has a new one. The server answers the first one too, in vain.
    keeps.until("closed", |kept| kept.connections.len() == 1);
    held.go.send(()).unwrap();
    held.go.send(()).unwrap();
    assert_eq!(last.wait_for(PATIENCE).unwrap().unwrap().unwrap(), [3]);
    // After: nothing happens.
    held.go.send(()).unwrap();
    let done = runtime.spawn(client.request(held.address, vec![4]));
    while !done.is_done() {
        std::thread::yield_now();
    }
    done.cancel();
    assert_eq!(done.wait_for(PATIENCE).unwrap().unwrap().unwrap(), [4]);
    drop(client);
    let kept = keeps.until("all", |kept| kept.connections.len() == 2 && kept.exchanges.len() == 4);
    let cancelled = kept.exchanges.iter().filter(|e| e.end.reason == Reason::LocalClose).count();
    assert_eq!(cancelled, 2);
}

#[test]
fn a_runtime_that_goes_away_ends_requests() {
    let (keeps, sinks) = Keeps::new();
    let runtime = Runtime::new().unwrap();
    let held = held_server();
    let client = client(&runtime, ClientSettings { sinks, max_connections: 3, ..ClientSettings::default() });
    let handles: Vec<_> = (0..10).map(|n| runtime.spawn(client.request(held.address, vec![n]))).collect();
    while held.open.load(Ordering::SeqCst) < 3 {
        std::thread::yield_now();
    }
    drop(runtime);
    for handle in handles {
        assert!(handle.wait_for(PATIENCE).unwrap().is_err());
    }
    // Those that waited may have had a connection for a moment, when one before them was cut.
    let connections = keeps.kept().connections.len();
    assert!(connections >= 3);
    keeps.counts(10, connections);
    // On a runtime that has ended nothing comes of a request.
    let other = Runtime::new().unwrap();
    assert_eq!(other.run(client.request(held.address, vec![1])).unwrap_err(), WaitError::Dropped);
}

/// Knows two names.
struct Book(std::net::SocketAddr, std::net::SocketAddr);

impl Resolve for Book {
    fn resolve(&self, host: &str, _: u16, resolving: Resolving) {
        match host {
            "both" => resolving.answer(Ok(vec![self.0, self.1])),
            "nobody" => resolving.answer(Ok(Vec::new())),
            _ => drop(resolving),
        }
    }
}

#[test]
fn names_are_resolved_and_all_addresses_tried() {
    let (keeps, sinks) = Keeps::new();
    let runtime = Runtime::new().unwrap();
    let closed = { TcpListener::bind(here()).unwrap().local_addr().unwrap() };
    let resolver = Arc::new(Book(closed, echo_server()));
    let settings = ClientSettings { sinks, resolver, ..ClientSettings::default() };
    let client = client(&runtime, settings);
    assert_eq!(runtime.run(client.request(("both", 80), vec![5])).unwrap().unwrap(), [5]);
    for name in ["nobody", "dropped"] {
        let error = runtime.run(client.request((name, 80), vec![5])).unwrap().unwrap_err();
        assert!(matches!(error, ClientError::Resolve(_)), "{error:?}");
    }
    drop(client);
    let kept = keeps.until("all", |kept| kept.connections.len() == 2 && kept.exchanges.len() == 4);
    assert_eq!(kept.exchanges.iter().filter(|e| e.phase == "resolve").count(), 2);
    let client = self::client(&runtime, ClientSettings::default());
    let port = echo_server().port();
    assert_eq!(runtime.run(client.request(("localhost", port), vec![6])).unwrap().unwrap(), [6]);
}

#[test]
fn what_our_own_budget_holds_up_is_not_the_peers_silence() {
    let runtime = Runtime::new().unwrap();
    let limit = Limit::new("closed", Some(0));
    let settings = ClientSettings {
        first_byte_timeout: SOON,
        spending: Spending { ingress_limit: Some(limit.clone()), ..Spending::default() },
        ..ClientSettings::default()
    };
    let patient = client(&runtime, settings.clone());
    let reply = runtime.spawn(patient.request(echo_server(), vec![1; 1_000]));
    let reply = reply.wait_for(8 * SOON).expect_err("nothing can come in");
    limit.set_rate(None);
    assert_eq!(reply.wait_for(PATIENCE).unwrap().unwrap().unwrap().len(), 1_000);
    // The total runs on.
    let limit = Limit::new("closed", Some(0));
    let spending = Spending { ingress_limit: Some(limit), ..Spending::default() };
    let hurried = client(&runtime, ClientSettings { spending, ..settings });
    let late = runtime.spawn(hurried.request(echo_server(), vec![1]).timeout(4 * SOON));
    let error = late.wait_for(PATIENCE).unwrap().unwrap().unwrap_err();
    assert!(matches!(error, ClientError::Timeout(Waited::Total)), "{error:?}");
}
