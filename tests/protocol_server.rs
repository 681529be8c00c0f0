//! The server of a custom protocol, with clients made of plain sockets that do what clients do, and with ours.

mod protocol_support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use protocol_support::{
    Frames, Keeps, PATIENCE, connect, frame, listeners, random_bytes, read_frame, write_split,
};
use tidegate::net::protocol::{Client, ClientError, ClientSettings, Exchange, Server, ServerSettings};
use tidegate::poller::{Reason, Role};
use tidegate::runtime::Runtime;
use tidegate::task::{Continuation, Parallel, Task, go, sleep};

const SOON: Duration = Duration::from_millis(50);

type Turn = Exchange<Frames, u64, Vec<u8>>;

/// Answers with what it was asked; how depends on the first byte.
fn echo(series: &mut Turn) -> Result<(), tidegate::task::Error> {
    series.context.connection += 1;
    match series.context.request.first() {
        Some(b'c') => series.push(go(|| 1), |_, series| {
            series.context.data.push(b'!');
            series.context.reply = Some(series.context.request.clone());
            Ok(())
        }),
        Some(b's') => series.push(sleep(Duration::from_millis(1)), |(), series| {
            series.context.reply = Some(series.context.request.clone());
            Ok(())
        }),
        Some(b'n') => series.context.reply = Some(series.context.connection.to_string().into_bytes()),
        Some(b'e') => return Err("as planned".into()),
        Some(b'E') => series.push(go(|| ()), |(), _| Err("as planned".into())),
        Some(b'p') => panic!("as planned"),
        Some(b'P') => series.push(go(|| panic!("as planned")), |(), _| Ok(())),
        Some(b'1') => {}
        Some(b'q') => {
            series.context.close = true;
            series.context.reply = Some(b"bye".to_vec());
        }
        _ => series.context.reply = Some(std::mem::take(&mut series.context.request)),
    }
    Ok(())
}

fn start(runtime: &Runtime, settings: ServerSettings) -> Server {
    Server::builder(Frames::default(), echo)
        .settings(settings)
        .start_on(&runtime.handle(), listeners(1))
        .unwrap()
}

/// Never done; says when it is given up.
struct Never(mpsc::Sender<&'static str>);

impl Task for Never {
    type Output = ();

    fn dispatch(self, mut done: Continuation<()>) {
        let Never(tell) = self;
        tell.send("began").unwrap();
        let cancellation = done.cancellation();
        // Kept by what cancels it.
        cancellation.on_cancel(move || {
            tell.send("cancelled").unwrap();
            drop(done);
        });
    }
}

fn start_never(runtime: &Runtime, settings: ServerSettings) -> (Server, mpsc::Receiver<&'static str>) {
    let (tell, told) = mpsc::channel();
    let server = Server::builder(Frames::default(), move |series: &mut Turn| {
        series.push(Never(tell.clone()), |(), _| Ok(()));
        Ok(())
    })
    .settings(settings)
    .start_on(&runtime.handle(), listeners(1))
    .unwrap();
    (server, told)
}

#[test]
fn requests_of_any_size_in_any_pieces_are_answered_in_order() {
    let (keeps, sinks) = Keeps::new();
    let runtime = Runtime::builder().pollers(2).build().unwrap();
    let server = Server::builder(Frames::default(), echo)
        .settings(ServerSettings { sinks, ..ServerSettings::default() })
        .start_on(&runtime.handle(), listeners(2))
        .unwrap();
    let mut threads = Vec::new();
    for _ in 0..6 {
        let address = server.address();
        threads.push(std::thread::spawn(move || {
            let bodies: Vec<_> = (0..40)
                .map(|n| {
                    let mut body = random_bytes(if n % 8 == 0 {
                        fastrand::usize(..300_000)
                    } else {
                        fastrand::usize(..2_000)
                    });
                    body.insert(0, [b'c', b's', b'x'][n % 3]);
                    body
                })
                .collect();
            // All ahead: a pipeline, which is read while it is written.
            let mut stream = connect(address);
            let wire: Vec<u8> = bodies.iter().flat_map(|body| frame(body)).collect();
            let mut writer = stream.try_clone().unwrap();
            let writing = std::thread::spawn(move || write_split(&mut writer, &wire));
            for body in &bodies {
                assert!(read_frame(&mut stream).unwrap() == *body);
            }
            writing.join().unwrap();
            bodies.iter().map(|body| body.len() as u64 + 4).sum::<u64>()
        }));
    }
    let bytes: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    let kept = keeps.counts(240, 6);
    assert_eq!(kept.exchanges.iter().map(|e| e.wire_in).sum::<u64>(), bytes);
    assert_eq!(kept.exchanges.iter().map(|e| e.wire_out).sum::<u64>(), bytes);
    for exchange in &kept.exchanges {
        assert_eq!((exchange.end.reason, exchange.phase, exchange.role), (Reason::Ok, "reply", Role::Server));
        assert!(exchange.first_byte.unwrap() + exchange.transfer.unwrap() <= exchange.total);
    }
}

#[test]
fn the_data_of_a_connection_lives_as_long_as_it() {
    let runtime = Runtime::new().unwrap();
    let server = start(&runtime, ServerSettings::default());
    for _ in 0..2 {
        let mut stream = connect(server.address());
        for n in 1..=5 {
            let ask: &[u8] = if n % 2 == 0 { b"c" } else { b"n" };
            stream.write_all(&frame(ask)).unwrap();
            let reply = read_frame(&mut stream).unwrap();
            assert_eq!(reply, if n % 2 == 0 { b"c".to_vec() } else { n.to_string().into_bytes() });
        }
    }
}

#[test]
fn a_failed_series_closes_the_connection_or_is_answered_by_the_codec() {
    for request in [b"e", b"E", b"p", b"P"] {
        for on_failure in [None, Some(b"sorry".to_vec())] {
            let (keeps, sinks) = Keeps::new();
            let runtime = Runtime::new().unwrap();
            let codec = Frames { on_failure: on_failure.clone() };
            let settings = ServerSettings { sinks, ..ServerSettings::default() };
            let server = Server::builder(codec, echo)
                .settings(settings)
                .start_on(&runtime.handle(), listeners(1))
                .unwrap();
            let mut stream = connect(server.address());
            stream.write_all(&[frame(b"before"), frame(request)].concat()).unwrap();
            assert_eq!(read_frame(&mut stream).unwrap(), b"before");
            assert_eq!(read_frame(&mut stream), on_failure);
            let reason = match on_failure {
                Some(_) => {
                    stream.write_all(&frame(b"after")).unwrap();
                    assert_eq!(read_frame(&mut stream).unwrap(), b"after");
                    Reason::Ok
                }
                None => Reason::Internal,
            };
            drop(stream);
            let kept = keeps.until("records", |kept| kept.connections.len() == 1);
            assert_eq!(kept.exchanges[1].end.reason, reason);
            assert_eq!(kept.connections[0].record.end.reason, reason);
        }
    }
}

#[test]
fn an_exchange_may_have_no_reply_or_be_the_last() {
    let (keeps, sinks) = Keeps::new();
    let runtime = Runtime::new().unwrap();
    let server = start(&runtime, ServerSettings { sinks, ..ServerSettings::default() });
    let mut stream = connect(server.address());
    let wire = [frame(b"1"), frame(b"x"), frame(b"q"), frame(b"never looked at")].concat();
    stream.write_all(&wire).unwrap();
    assert_eq!(read_frame(&mut stream).unwrap(), b"x");
    assert_eq!(read_frame(&mut stream).unwrap(), b"bye");
    assert_eq!(read_frame(&mut stream), None);
    let kept = keeps.counts(3, 1);
    assert_eq!((kept.exchanges[0].wire_out, kept.exchanges[0].status), (0, None));
    assert_eq!(kept.exchanges[2].status, Some(200));
}

#[test]
fn bad_clients_are_recorded_and_harm_nobody() {
    let (keeps, sinks) = Keeps::new();
    let runtime = Runtime::new().unwrap();
    let settings = ServerSettings {
        sinks,
        max_request: 1_000,
        request_timeout: SOON,
        idle_timeout: 4 * SOON,
        ..ServerSettings::default()
    };
    let server = start(&runtime, settings);
    let end = |wire: &[u8], then: fn(&mut TcpStream)| {
        let before = keeps.kept();
        let mut stream = connect(server.address());
        stream.write_all(wire).unwrap();
        then(&mut stream);
        // Or the server would linger for it.
        let _ = stream.shutdown(Shutdown::Write);
        let kept = keeps.until("records", |kept| kept.connections.len() > before.connections.len());
        let record = &kept.connections.last().unwrap().record;
        let exchanges: Vec<_> =
            kept.exchanges[before.exchanges.len()..].iter().map(|e| (e.end.reason, e.phase)).collect();
        (record.end.reason, exchanges)
    };
    let wait: fn(&mut TcpStream) = |stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    };
    let leave: fn(&mut TcpStream) = |stream| stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(
        end(b"GET / HTTP/1.1\r\n\r\n", wait),
        (Reason::ProtocolError, vec![(Reason::ProtocolError, "request")])
    );
    assert_eq!(end(&frame(&[0; 1_000]), wait), (Reason::Denied, vec![(Reason::Denied, "request")]));
    assert_eq!(end(&frame(&[0; 900])[..500], wait), (Reason::Timeout, vec![(Reason::Timeout, "request")]));
    assert_eq!(end(&frame(&[0; 900])[..500], leave), (Reason::Abort, vec![(Reason::Abort, "request")]));
    assert_eq!(end(b"", leave), (Reason::Ok, vec![]));
    assert_eq!(end(b"", wait), (Reason::Timeout, vec![]));
    assert_eq!(end(&frame(&[0; 900]), wait), (Reason::Timeout, vec![(Reason::Ok, "reply")]));
    // A place is given back after the record.
    let deadline = Instant::now() + PATIENCE;
    while server.connections() > 0 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}

#[test]
fn a_connection_that_goes_away_cancels_its_series() {
    let runtime = Runtime::new().unwrap();
    let (keeps, sinks) = Keeps::new();
    let (server, told) = start_never(&runtime, ServerSettings { sinks, ..ServerSettings::default() });
    let mut stream = connect(server.address());
    stream.write_all(&frame(b"x")).unwrap();
    assert_eq!(told.recv_timeout(PATIENCE), Ok("began"));
    drop(stream);
    assert_eq!(told.recv_timeout(PATIENCE), Ok("cancelled"));
    let kept = keeps.counts(1, 1);
    assert_eq!((kept.exchanges[0].end.reason, kept.exchanges[0].phase), (Reason::Abort, "handler"));

    // Our own client too, when its task is cancelled.
    let client = Client::new(&runtime.handle(), Frames::default(), ClientSettings::default());
    let request = runtime.spawn(client.request(server.address(), b"x".to_vec()));
    assert_eq!(told.recv_timeout(PATIENCE), Ok("began"));
    request.cancel();
    assert_eq!(told.recv_timeout(PATIENCE), Ok("cancelled"));
    keeps.counts(2, 2);
}

#[test]
fn a_peer_that_has_only_finished_is_answered_where_that_is_wanted() {
    let runtime = Runtime::new().unwrap();
    let server = start(&runtime, ServerSettings { half_close: true, ..ServerSettings::default() });
    let mut stream = connect(server.address());
    stream.write_all(&[frame(b"s1"), frame(b"s2"), frame(b"c3")].concat()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    for reply in [b"s1", b"s2", b"c3"] {
        assert_eq!(read_frame(&mut stream).unwrap(), reply);
    }
    assert_eq!(read_frame(&mut stream), None);
}

#[test]
fn a_series_that_takes_too_long_is_cancelled() {
    let runtime = Runtime::new().unwrap();
    let (keeps, sinks) = Keeps::new();
    let settings = ServerSettings { sinks, series_timeout: Some(SOON), ..ServerSettings::default() };
    let (server, told) = start_never(&runtime, settings);
    let mut stream = connect(server.address());
    stream.write_all(&frame(b"x")).unwrap();
    assert_eq!(read_frame(&mut stream), None);
    assert_eq!(told.recv_timeout(PATIENCE), Ok("began"));
    assert_eq!(told.recv_timeout(PATIENCE), Ok("cancelled"));
    drop(stream);
    let kept = keeps.counts(1, 1);
    assert_eq!((kept.exchanges[0].end.reason, kept.exchanges[0].phase), (Reason::Timeout, "handler"));
}

#[test]
fn callers_beyond_the_limit_are_turned_away_and_recorded() {
    let (keeps, sinks) = Keeps::new();
    let runtime = Runtime::new().unwrap();
    let server = start(&runtime, ServerSettings { sinks, max_connections: 2, ..ServerSettings::default() });
    let mut streams: Vec<_> = (0..2).map(|_| connect(server.address())).collect();
    for stream in &mut streams {
        stream.write_all(&frame(b"x")).unwrap();
        assert_eq!(read_frame(stream).unwrap(), b"x");
    }
    assert_eq!(read_frame(&mut connect(server.address())), None);
    let kept = keeps.counts(2, 1);
    assert_eq!(kept.connections[0].record.end.reason, Reason::Denied);
    drop(streams);
    keeps.counts(2, 3);
}

#[test]
fn stopping_lets_exchanges_end_and_closes_the_rest() {
    let (keeps, sinks) = Keeps::new();
    let runtime = Runtime::builder().pollers(2).build().unwrap();
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Arc::new(std::sync::Mutex::new(wait));
    let begun = Arc::new(AtomicUsize::new(0));
    let count = begun.clone();
    let handler = move |series: &mut Turn| {
        let (wait, count) = (wait.clone(), count.clone());
        series.push(
            go(move || {
                count.fetch_add(1, Ordering::SeqCst);
                wait.lock().unwrap().recv_timeout(PATIENCE).is_ok()
            }),
            |_, series| {
                series.context.reply = Some(b"done".to_vec());
                Ok(())
            },
        );
        Ok(())
    };
    let settings = ServerSettings { sinks, ..ServerSettings::default() };
    let server = Server::builder(Frames::default(), handler)
        .settings(settings)
        .start_on(&runtime.handle(), listeners(2))
        .unwrap();
    let mut busy = connect(server.address());
    busy.write_all(&frame(b"x")).unwrap();
    let mut idle = connect(server.address());
    while begun.load(Ordering::SeqCst) < 1 || server.connections() < 2 {
        std::thread::yield_now();
    }
    let stopping = runtime.spawn(server.shutdown(PATIENCE));
    assert_eq!(read_frame(&mut idle), None);
    drop(idle);
    assert!(!stopping.is_done());
    go_on.send(()).unwrap();
    assert_eq!(read_frame(&mut busy).unwrap(), b"done");
    assert_eq!(read_frame(&mut busy), None);
    drop(busy);
    stopping.wait_for(PATIENCE).unwrap().unwrap();
    assert!(TcpStream::connect(server.address()).is_err());
    let kept = keeps.counts(1, 2);
    assert!(kept.connections.iter().all(|entry| entry.record.end.reason == Reason::Shutdown));
}

#[test]
fn stopping_cuts_what_takes_too_long() {
    let runtime = Runtime::new().unwrap();
    let (keeps, sinks) = Keeps::new();
    let (server, told) = start_never(&runtime, ServerSettings { sinks, ..ServerSettings::default() });
    let mut stream = connect(server.address());
    stream.write_all(&frame(b"x")).unwrap();
    assert_eq!(told.recv_timeout(PATIENCE), Ok("began"));
    runtime.run(server.shutdown(SOON)).unwrap();
    assert_eq!(told.recv_timeout(PATIENCE), Ok("cancelled"));
    let kept = keeps.counts(1, 1);
    assert_eq!((kept.exchanges[0].end.reason, kept.exchanges[0].phase), (Reason::Shutdown, "handler"));
}

#[test]
fn a_runtime_that_is_stopped_lets_exchanges_end() {
    let runtime = Runtime::new().unwrap();
    let (keeps, sinks) = Keeps::new();
    let (tell, told) = mpsc::channel();
    let settings = ServerSettings { sinks, ..ServerSettings::default() };
    let server = Server::builder(Frames::default(), move |series: &mut Turn| {
        // Said by a task: it has begun. A series that has not when the runtime is stopped is not started.
        let tell = tell.clone();
        series.push(go(move || tell.send(()).unwrap()), |(), _| Ok(()));
        series.push(sleep(4 * SOON), |(), _| Ok(()));
        series.push(go(|| b"done".to_vec()), |done, series| {
            series.context.reply = Some(done);
            Ok(())
        });
        Ok(())
    })
    .settings(settings)
    .start_on(&runtime.handle(), listeners(1))
    .unwrap();
    let mut stream = connect(server.address());
    stream.write_all(&frame(b"x")).unwrap();
    told.recv_timeout(PATIENCE).unwrap();
    let reading = std::thread::spawn(move || (read_frame(&mut stream), read_frame(&mut stream)));
    runtime.shutdown(PATIENCE).unwrap();
    assert_eq!(reading.join().unwrap(), (Some(b"done".to_vec()), None));
    let kept = keeps.counts(1, 1);
    assert_eq!(kept.exchanges[0].end.reason, Reason::Ok);
    assert_eq!(kept.connections[0].record.end.reason, Reason::Shutdown);
}

#[test]
fn a_runtime_that_stops_lets_nobody_in_and_serves_what_is_in() {
    let (other, runtime) = (Runtime::new().unwrap(), Runtime::builder().pollers(2).build().unwrap());
    let upstream = start(&other, ServerSettings::default()).address();
    let (keeps, sinks) = Keeps::new();
    let (begin, begun) = mpsc::channel();
    let (release, held) = mpsc::channel::<()>();
    let held = Arc::new(std::sync::Mutex::new(held));
    let client = Client::new(&runtime.handle(), Frames::default(), ClientSettings::default());
    let handler = move |series: &mut Turn| {
        if series.context.request != b"busy" {
            return echo(series);
        }
        let (begin, held, client) = (begin.clone(), held.clone(), client.clone());
        let wait = go(move || {
            begin.send(()).unwrap();
            held.lock().unwrap().recv().unwrap();
        });
        // It needs a timer, a connection and a thread while the runtime stops.
        series.push(wait, |(), _| Ok(()));
        series.push(sleep(Duration::from_millis(1)), |(), _| Ok(()));
        series.push(client.request(upstream, b"c".to_vec()), |reply, series| {
            series.context.reply = Some(reply?);
            Ok(())
        });
        Ok(())
    };
    let settings = ServerSettings { sinks, ..ServerSettings::default() };
    let server = Server::builder(Frames::default(), handler)
        .settings(settings)
        .start_on(&runtime.handle(), listeners(2))
        .unwrap();
    let (mut busy, mut halfway, mut idle) =
        (connect(server.address()), connect(server.address()), connect(server.address()));
    busy.write_all(&frame(b"busy")).unwrap();
    begun.recv_timeout(PATIENCE).unwrap();
    halfway.write_all(&frame(b"c")).unwrap();
    assert_eq!(read_frame(&mut halfway).unwrap(), b"c");
    idle.write_all(&frame(b"x")).unwrap();
    assert_eq!(read_frame(&mut idle).unwrap(), b"x");
    let (head, rest) = (&frame(b"c half")[..6], &frame(b"c half")[6..]);
    halfway.write_all(head).unwrap();

    let stopping = std::thread::spawn(move || runtime.shutdown(PATIENCE).unwrap());
    assert_eq!(read_frame(&mut idle), None, "what is idle is closed at once");
    drop(idle);
    // Each poller closes its listener.
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(server.address()).is_ok() {
        assert!(Instant::now() < deadline, "it still listens");
    }
    assert!(!stopping.is_finished());
    halfway.write_all(rest).unwrap();
    assert_eq!(read_frame(&mut halfway).unwrap(), b"c half");
    assert_eq!(read_frame(&mut halfway), None);
    drop(halfway);
    release.send(()).unwrap();
    assert_eq!(read_frame(&mut busy).unwrap(), b"c");
    assert_eq!(read_frame(&mut busy), None);
    drop(busy);
    stopping.join().unwrap();
    let kept = keeps.until("all exchanges are recorded", |kept| kept.exchanges.len() == 4);
    assert!(kept.exchanges.iter().all(|record| record.end.reason == Reason::Ok));
}

#[test]
fn a_request_that_had_arrived_when_the_runtime_stops_is_answered() {
    for _ in 0..50 {
        let runtime = Runtime::new().unwrap();
        let server = start(&runtime, ServerSettings::default());
        // Let in, served and quiet, or still at the door.
        let (mut known, mut new) = (connect(server.address()), connect(server.address()));
        known.write_all(&frame(b"x")).unwrap();
        assert_eq!(read_frame(&mut known).unwrap(), b"x");
        for stream in [&mut known, &mut new] {
            stream.write_all(&frame(b"c")).unwrap();
        }
        let stopping = std::thread::spawn(move || runtime.shutdown(PATIENCE).unwrap());
        for mut stream in [known, new] {
            assert_eq!(read_frame(&mut stream).unwrap(), b"c");
            assert_eq!(read_frame(&mut stream), None);
        }
        stopping.join().unwrap();
    }
}

#[test]
fn a_runtime_that_goes_away_cuts_and_records() {
    let runtime = Runtime::new().unwrap();
    let (keeps, sinks) = Keeps::new();
    let (server, told) = start_never(&runtime, ServerSettings { sinks, ..ServerSettings::default() });
    let mut streams: Vec<_> = (0..5).map(|_| connect(server.address())).collect();
    for stream in &mut streams {
        stream.write_all(&frame(b"x")).unwrap();
        assert_eq!(told.recv_timeout(PATIENCE), Ok("began"));
    }
    drop(runtime);
    for stream in &mut streams {
        assert_eq!(read_frame(stream), None);
        assert_eq!(told.recv_timeout(PATIENCE), Ok("cancelled"));
    }
    keeps.counts(5, 5);
    assert_eq!(server.connections(), 0);
}

#[test]
fn both_ends_logs_agree() {
    let ((ours, our_sinks), (theirs, their_sinks)) = (Keeps::new(), Keeps::new());
    let runtime = Runtime::builder().pollers(2).build().unwrap();
    let settings = ServerSettings { sinks: their_sinks, ..ServerSettings::default() };
    let server = Server::builder(Frames::default(), echo)
        .settings(settings)
        .start_on(&runtime.handle(), listeners(2))
        .unwrap();
    let settings = ClientSettings { sinks: our_sinks, max_connections: 8, ..ClientSettings::default() };
    let client = Client::new(&runtime.handle(), Frames::default(), settings);
    let mut requests = Parallel::new();
    for n in 0..500 {
        let mut body = random_bytes(fastrand::usize(..5_000));
        body.insert(0, [b'c', b's', b'x'][n % 3]);
        requests.push(client.request(server.address(), body));
    }
    for reply in runtime.run(requests).unwrap() {
        reply.unwrap().unwrap();
    }
    drop(client);
    let (ours, theirs) = (ours.counts(500, 8), theirs.counts(500, 8));
    for entry in &ours.connections {
        let record = &entry.record;
        let matching = theirs.connections.iter().filter(|other| {
            (other.record.wire_in, other.record.wire_out, other.exchanges)
                == (record.wire_out, record.wire_in, entry.exchanges)
        });
        assert!(matching.count() >= 1, "{record:?}");
        assert_eq!((record.role, entry.record.end_who()), (Role::Client, "client"));
    }
}

#[test]
fn a_reply_that_cannot_be_said_closes() {
    let runtime = Runtime::new().unwrap();
    let server = Server::builder(Frames::default(), |series: &mut Turn| {
        series.context.reply = Some(vec![0; 1 << 24]);
        Ok(())
    })
    .start_on(&runtime.handle(), listeners(1))
    .unwrap();
    let client = Client::new(&runtime.handle(), Frames::default(), ClientSettings::default());
    let error = runtime.run(client.request(server.address(), vec![1])).unwrap().unwrap_err();
    assert!(matches!(error, ClientError::Closed(_)), "{error:?}");
}
