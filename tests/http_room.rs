//! The memory that whole bodies take on all connections together: it is bounded, what does not fit is refused and recorded,
//! and whatever ends an exchange gives back what its body took.
#![cfg(feature = "http")]

mod support;

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use support::{Host, PATIENCE, Waits, Wire, await_that};
use tidegate::http::router::{HttpError, Router, Uploads};
use tidegate::http::{
    BodyReader, Exchange, Handler, Intake, Reply, Request, RequestBody, Server, ServerSettings, WholeBody,
};
use tidegate::poller::Reason;
use tidegate::poller::record::End;
use tidegate::record::ExchangeRecord;
use tidegate::runtime::Runtime;
use tidegate::task::Parked;
use tidegate_meter::scratch::Scratch;

const ROOM: u64 = 1_000_000;
/// Of each body; half of it is sent.
const BODY: usize = 100_000;
const CLIENTS: usize = 40;

/// Does as the first letter of the path says.
#[derive(Clone)]
struct Ways {
    /// Bodies that were kept.
    kept: Arc<Mutex<Vec<WholeBody>>>,
    readers: Arc<Mutex<Vec<BodyReader>>>,
    waits: Arc<Mutex<Waits<()>>>,
}

impl Handler for Ways {
    fn intake(&self, request: &Request) -> Intake {
        match request.target().get(1) {
            Some(b's' | b'c') => Intake::Stream { max_bytes: u64::MAX },
            Some(b'd') => Intake::Discard { max_bytes: u64::MAX },
            _ => Intake::Whole { max_bytes: u64::MAX },
        }
    }

    fn handle(&self, exchange: &mut Exchange) {
        let way = exchange.context.request().target().get(1).copied();
        if way == Some(b'p') {
            panic!("as planned, with the body in the context");
        }
        if way == Some(b'w') {
            exchange.push(self.waits.lock().unwrap().clone(), |(), _| Ok(()));
            return;
        }
        match std::mem::take(&mut exchange.context.body) {
            RequestBody::Whole(_body) if way == Some(b't') => panic!("as planned, with the body in hand"),
            RequestBody::Whole(body) if way == Some(b'k') => self.kept.lock().unwrap().push(body),
            RequestBody::Whole(body) => exchange.context.reply = Reply::text(format!("{}", body.len())),
            RequestBody::Stream(reader) if way == Some(b'c') => {
                exchange.push(reader.collect(u64::MAX), |body, exchange| {
                    exchange.context.reply = Reply::text(format!("{}", body?.len()));
                    Ok(())
                });
            }
            RequestBody::Stream(reader) => {
                self.readers.lock().unwrap().push(reader);
                exchange.push(self.waits.lock().unwrap().clone(), |(), _| Ok(()));
            }
            RequestBody::None => exchange.context.reply = Reply::text("nothing\n"),
        }
    }
}

impl Ways {
    fn new() -> (Ways, mpsc::Receiver<Parked<()>>) {
        let (waits, waiting) = Waits::new();
        let waits = Arc::new(Mutex::new(waits));
        (Ways { kept: Arc::default(), readers: Arc::default(), waits }, waiting)
    }

    /// Never waits.
    fn host(settings: ServerSettings) -> Host {
        host(Ways::new().0, settings)
    }
}

fn host(handler: impl Handler + Clone + Send + 'static, settings: ServerSettings) -> Host {
    Host::with(ServerSettings { max_whole_bytes: Some(ROOM), ..settings }, handler)
}

/// A route that takes bodies whole, behind something that is asked first.
fn guarded() -> Router {
    let router = Router::build(|routes| {
        routes.before(|_| ());
        let tell = |exchange: &mut Exchange| match &exchange.context.body {
            RequestBody::Whole(body) => Ok(format!("{}", body.len())),
            other => Err(HttpError::bad_request(format!("{other:?}"))),
        };
        routes.post("/ask", tell).whole(u64::MAX);
        routes.get("/hello", |_| "hello\n");
        routes
            .post("/panic", |_| -> Reply { panic!("as planned, with the body in the context") })
            .whole(u64::MAX);
        let take = |exchange: &mut Exchange| -> Reply {
            let _body = std::mem::take(&mut exchange.context.body);
            panic!("as planned, with the body in hand")
        };
        routes.post("/take-and-panic", take).whole(u64::MAX);
    });
    router.unwrap()
}

fn post(target: &str, fields: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n")
}

/// A whole request.
fn whole(target: &str, length: usize) -> Vec<u8> {
    let mut request = post(target, &format!("Content-Length: {length}\r\n")).into_bytes();
    request.resize(request.len() + length, b'x');
    request
}

const HALF: usize = BODY / 2;

/// Half a body, by its length or by chunks, and the other half.
fn halves(target: &str, chunked: bool) -> (Vec<u8>, Vec<u8>) {
    if !chunked {
        let mut request = whole(target, BODY);
        let rest = request.split_off(request.len() - HALF);
        return (request, rest);
    }
    let mut chunk = format!("{HALF:x}\r\n").into_bytes();
    chunk.resize(chunk.len() + HALF, b'x');
    chunk.extend_from_slice(b"\r\n");
    let first = [post(target, "Transfer-Encoding: chunked\r\n").into_bytes(), chunk.clone()].concat();
    (first, [chunk, b"0\r\n\r\n".to_vec()].concat())
}

/// The same of a form, whose text it is.
fn halves_of_form() -> (Vec<u8>, Vec<u8>) {
    let head = "--x\r\nContent-Disposition: form-data; name=a\r\n\r\n";
    let form = [head.as_bytes(), &vec![b'x'; BODY], b"\r\n--x--\r\n"].concat();
    let fields =
        format!("Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {}\r\n", form.len());
    let mut request = [post("/form", &fields).into_bytes(), form].concat();
    // The parser keeps back what might be the beginning of the end.
    let rest = request.split_off(request.len() - HALF + 1_000);
    (request, rest)
}

/// Who holds half a body, and the other half that is to come.
struct Holder {
    wire: Wire,
    rest: Vec<u8>,
}

/// Has clients send half a body, one after another, until the room is full and many are refused. Gives back those who were
/// not.
fn fill(host: &Host, target: &str, chunked: bool) -> Vec<Holder> {
    fill_with(host, || halves(target, chunked))
}

fn fill_with(host: &Host, halves: impl Fn() -> (Vec<u8>, Vec<u8>)) -> Vec<Holder> {
    let refused_before = host.figures().whole_refused;
    let mut holders = Vec::new();
    for _ in 0..CLIENTS {
        let before = host.figures();
        let (half, rest) = halves();
        let mut wire = host.connect();
        // Where it is refused, the server may have closed already.
        let _ = wire.try_send(&half);
        let taken = await_that("half a body is taken or refused", || {
            let now = host.figures();
            let refused = now.whole_refused > before.whole_refused;
            (refused || now.whole_bytes >= before.whole_bytes + HALF as u64).then_some(!refused)
        });
        if taken {
            holders.push(Holder { wire, rest });
        } else {
            let reply = wire.reply();
            assert_eq!((reply.head.status, reply.field("retry-after")), (503, "1"));
        }
    }
    let figures = host.figures();
    let refused = figures.whole_refused - refused_before;
    assert_eq!(refused as usize, CLIENTS - holders.len());
    assert!(figures.whole_bytes_peak <= ROOM && figures.whole_bytes <= ROOM, "{figures:?}");
    // Each has half of its body here, and at most twice that of memory.
    assert!(figures.whole_bytes >= (holders.len() * HALF) as u64, "{figures:?}");
    assert!((9..=20).contains(&holders.len()), "{} holders", holders.len());
    holders
}

/// The records of the refused, once they are there.
fn refusals(host: &Host, count: usize) -> Vec<Arc<ExchangeRecord>> {
    let refused = |record: &&Arc<ExchangeRecord>| record.end.reason == Reason::Denied;
    let kept = host
        .records
        .until("the refused are recorded", |kept| kept.exchanges.iter().filter(refused).count() >= count);
    let records: Vec<_> = kept.exchanges.iter().filter(refused).cloned().collect();
    assert_eq!(records.len(), count);
    for record in &records {
        assert_eq!(
            (record.status, record.end, record.phase),
            (Some(503), End::local(Reason::Denied), "request")
        );
    }
    records
}

/// Nothing is held any more, and all of it can be had by one.
fn assert_empty(host: &Host, target: &str) {
    await_that("all is given back", || (host.figures().whole_bytes == 0).then_some(()));
    let mut wire = host.connect();
    wire.send(whole(target, ROOM as usize));
    let reply = wire.reply();
    assert_eq!((reply.head.status, reply.body_text()), (200, ROOM.to_string()));
    await_that("the last one, too", || (host.figures().whole_bytes == 0).then_some(()));
}

#[test]
fn halves_of_bodies_fill_the_room_and_who_finds_none_is_told_and_recorded() {
    for chunked in [false, true] {
        for host in [Ways::host(ServerSettings::default()), host(guarded(), ServerSettings::default())] {
            let holders = fill(&host, "/ask", chunked);
            let mut refused = CLIENTS - holders.len();
            refusals(&host, refused);
            // Without a body there is nothing to be refused.
            assert_eq!(host.connect().get("/hello").head.status, 200);
            for Holder { mut wire, rest } in holders {
                wire.send(rest);
                let reply = wire.reply();
                // Half of a body is not a promise of room for the other half: the first may be told to go.
                match reply.head.status {
                    503 => refused += 1,
                    status => assert_eq!((status, reply.body_text()), (200, BODY.to_string())),
                }
            }
            assert!(refused <= CLIENTS - 8, "{refused} refused");
            assert_empty(&host, "/ask");
            assert_eq!(host.figures().whole_refused, refused as u64);
            host.end();
        }
    }
}

#[test]
fn clients_that_leave_give_back_what_they_held_whatever_way_they_leave() {
    for host in [Ways::host(ServerSettings::default()), host(guarded(), ServerSettings::default())] {
        for chunked in [false, true] {
            for Holder { wire, .. } in fill(&host, "/ask", chunked) {
                wire.reset();
            }
            assert_empty(&host, "/ask");
            let mut left: Vec<_> =
                fill(&host, "/ask", chunked).into_iter().map(|holder| holder.wire).collect();
            left.iter_mut().for_each(Wire::half_close);
            assert_empty(&host, "/ask");
        }
        host.end();
    }
}

#[test]
fn bodies_that_do_not_come_in_time_give_back_what_they_held() {
    let hurried = || ServerSettings { body_timeout: Duration::from_millis(300), ..ServerSettings::default() };
    for host in [Ways::host(hurried()), host(guarded(), hurried())] {
        let mut late: Vec<_> = (0..8).map(|_| host.connect()).collect();
        late.iter_mut().for_each(|wire| wire.send(halves("/ask", false).0));
        for wire in &mut late {
            assert_eq!(wire.reply().head.status, 408);
        }
        assert!(host.figures().whole_bytes_peak >= HALF as u64);
        drop(late);
        assert_empty(&host, "/ask");
        host.end();
    }
}

#[test]
fn handlers_that_panic_give_back_what_they_held() {
    for host in [Ways::host(ServerSettings::default()), host(guarded(), ServerSettings::default())] {
        for target in ["/panic", "/take-and-panic"] {
            let mut wire = host.connect();
            // Many more than there is room for at once.
            for _ in 0..2 * ROOM as usize / BODY {
                wire.send(whole(target, BODY));
                assert_eq!(wire.reply().head.status, 500);
            }
            assert_empty(&host, "/ask");
        }
        assert_eq!(host.figures().whole_refused, 0);
        host.end();
    }
}

#[test]
fn a_body_counts_while_its_exchange_lasts_and_a_series_that_is_cancelled_gives_it_back() {
    let (ways, waiting) = Ways::new();
    let host = host(ways, ServerSettings::default());
    for ends_well in [true, false] {
        let mut wire = host.connect();
        wire.send(whole("/wait", ROOM as usize));
        let waits = waiting.recv_timeout(PATIENCE).unwrap();
        assert_eq!(host.figures().whole_bytes, ROOM);
        let refused = host.ask(post("/ask", "Content-Length: 1\r\n"));
        assert_eq!((refused.head.status, refused.field("connection")), (503, "close"));
        if ends_well {
            waits.complete(()).unwrap();
            assert_eq!(wire.reply().head.status, 200);
        } else {
            wire.reset();
        }
        assert_empty(&host, "/ask");
    }
    refusals(&host, 2);
    host.end();
}

#[test]
fn a_body_that_is_kept_counts_until_it_is_dropped_or_made_the_programs_own() {
    let (ways, _) = Ways::new();
    let host = host(ways.clone(), ServerSettings::default());
    let mut wire = host.connect();
    for _ in 0..2 {
        wire.send(whole("/keep", BODY));
        assert_eq!(wire.reply().head.status, 200);
    }
    host.records.exchanges(2);
    assert_eq!(host.figures().whole_bytes, 2 * BODY as u64);
    let bytes = ways.kept.lock().unwrap().pop().map(WholeBody::into_bytes);
    assert_eq!((bytes.map(|bytes| bytes.len()), host.figures().whole_bytes), (Some(BODY), BODY as u64));
    ways.kept.lock().unwrap().clear();
    assert_empty(&host, "/ask");
    host.end();
}

#[test]
fn a_client_that_waits_to_be_asked_is_not_asked_for_what_there_is_no_room_for() {
    for host in [Ways::host(ServerSettings::default()), host(guarded(), ServerSettings::default())] {
        let target = "/ask";
        let holders = fill(&host, target, false);
        // For more than all of it there is never room: no use in trying again.
        let lengths = [("Content-Length: 900000\r\n", 503, "1"), ("Content-Length: 1000001\r\n", 413, "")];
        for (length, status, again) in lengths {
            let reply = host.ask(post(target, &format!("{length}Expect: 100-continue\r\n")));
            assert_eq!((reply.head.status, reply.field("connection")), (status, "close"), "{length}");
            assert_eq!(reply.field("retry-after"), again, "{length}");
        }
        drop(holders);
        await_that("all is given back", || (host.figures().whole_bytes == 0).then_some(()));
        host.end();
    }
}

#[test]
fn a_body_larger_than_the_room_is_too_large_and_not_to_be_tried_again() {
    let host = Ways::host(ServerSettings::default());
    let reply = host.ask(post("/ask", &format!("Content-Length: {}\r\n", ROOM + 1)));
    assert_eq!((reply.head.status, reply.field("retry-after")), (413, ""));
    let mut wire = host.connect();
    let mut request = post("/ask", "Transfer-Encoding: chunked\r\n").into_bytes();
    request.extend_from_slice(format!("{:x}\r\n", ROOM + 1).as_bytes());
    request.resize(request.len() + ROOM as usize + 1, b'x');
    wire.send(request);
    assert_eq!(wire.reply().head.status, 413);
    assert_eq!(host.figures().whole_refused, 0);
    assert_empty(&host, "/ask");
    host.end();
}

#[test]
fn streams_are_not_counted_until_they_are_collected() {
    let (ways, waiting) = Ways::new();
    let host = host(ways.clone(), ServerSettings::default());
    let holders = fill(&host, "/collect", true);
    refusals(&host, CLIENTS - holders.len());
    drop(holders);
    await_that("all is given back", || (host.figures().whole_bytes == 0).then_some(()));
    let before = host.figures();
    let streams: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut wire = host.connect();
            wire.send(halves("/stream", false).0);
            (wire, waiting.recv_timeout(PATIENCE).unwrap())
        })
        .collect();
    let mut thrown_away = host.connect();
    thrown_away.send(whole("/discard", 3 * ROOM as usize));
    assert_eq!(thrown_away.reply().body_text(), "nothing\n");
    assert_eq!(host.figures(), before);
    drop(thrown_away);
    ways.readers.lock().unwrap().clear();
    for (wire, waits) in streams {
        waits.complete(()).unwrap();
        drop(wire);
    }
    host.end();
}

#[test]
fn texts_of_forms_are_counted_like_bodies() {
    let scratch = Scratch::new("room").unwrap();
    let uploads = Uploads::to_folder(scratch.path()).max_text_bytes(10 * BODY);
    let router = Router::build(|routes| {
        let receive = move |exchange: &mut Exchange| {
            let form = uploads.receive(&mut exchange.context)?;
            exchange.push(form, |form, exchange| {
                let bytes: usize = form?.texts.iter().map(|(_, text)| text.len()).sum();
                exchange.context.reply = Reply::text(bytes.to_string());
                Ok(())
            });
            Ok::<_, HttpError>(())
        };
        routes.post("/form", receive.clone()).stream(u64::MAX);
        // It is here already when the form is taken apart, and counted besides.
        routes.post("/whole-form", receive).whole(u64::MAX);
        routes
            .post("/ask", |exchange| match &exchange.context.body {
                RequestBody::Whole(body) => format!("{}", body.len()),
                other => format!("{other:?}"),
            })
            .whole(u64::MAX);
    });
    let host = host(router.unwrap(), ServerSettings::default());
    let holders = fill_with(&host, halves_of_form);
    refusals(&host, CLIENTS - holders.len());
    let mut answered = 0;
    for (index, Holder { mut wire, rest }) in holders.into_iter().enumerate() {
        if index % 2 == 0 {
            wire.reset();
            continue;
        }
        wire.send(rest);
        match wire.reply() {
            reply if reply.head.status == 503 => {}
            reply => {
                assert_eq!((reply.head.status, reply.body_text()), (200, BODY.to_string()));
                answered += 1;
            }
        }
    }
    assert!(answered > 0);
    assert_empty(&host, "/ask");
    let mut wire = host.connect();
    let (half, rest) = halves_of_form();
    wire.send(
        [half, rest]
            .concat()
            .strip_prefix(b"POST /form")
            .map(|rest| [b"POST /whole-form", rest].concat())
            .unwrap(),
    );
    assert_eq!(wire.reply().body_text(), BODY.to_string());
    drop(wire);
    assert_empty(&host, "/ask");
    host.end();
}

#[test]
fn without_a_bound_all_that_comes_is_counted_and_nobody_refused() {
    let (ways, waiting) = Ways::new();
    let host = Host::with(ServerSettings { max_whole_bytes: None, ..ServerSettings::default() }, ways);
    let mut wire = host.connect();
    wire.send(whole("/wait", 3 * ROOM as usize));
    let waits = waiting.recv_timeout(PATIENCE).unwrap();
    assert_eq!((host.figures().whole_bytes, host.figures().whole_refused), (3 * ROOM, 0));
    waits.complete(()).unwrap();
    assert_eq!(wire.reply().head.status, 200);
    await_that("all is given back", || (host.figures().whole_bytes == 0).then_some(()));
    host.end();
}

#[test]
fn a_server_that_stops_gives_all_back() {
    let (ways, waiting) = Ways::new();
    let runtime = Runtime::builder().pollers(2).build().unwrap();
    let settings = ServerSettings { max_whole_bytes: Some(ROOM), ..ServerSettings::default() };
    let serving =
        Server::builder(ways).settings(settings).start_on(&runtime.handle(), Host::listeners(2)).unwrap();
    let mut half = Wire::connect(serving.address());
    half.send(halves("/ask", false).0);
    let mut waits = Wire::connect(serving.address());
    waits.send(whole("/wait", BODY));
    let parked = waiting.recv_timeout(PATIENCE).unwrap();
    let both = (HALF + BODY) as u64;
    await_that("both are held", || (serving.figures().whole_bytes >= both).then_some(()));
    runtime.shutdown(Duration::ZERO).unwrap();
    drop(parked);
    await_that("all is given back", || (serving.figures().whole_bytes == 0).then_some(()));
}

/// Many at once, on all pollers, each doing with its body what comes to its mind.
#[test]
fn a_crowd_that_comes_and_goes_as_it_likes_never_has_more_and_leaves_nothing() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    for host in [Ways::host(ServerSettings::default()), host(guarded(), ServerSettings::default())] {
        let client = |number: u64| {
            let mut random = fastrand::Rng::with_seed(seed + number);
            for _ in 0..30 {
                let (half, rest) = halves("/ask", random.bool());
                let mut wire = host.connect();
                let some = random.usize(..half.len());
                let (first, second) = half.split_at(some);
                let sent = wire.try_send(first) && wire.try_send(second);
                match random.u8(..4) {
                    0 => wire.reset(),
                    1 => wire.half_close(),
                    2 => drop(wire),
                    _ if sent && wire.try_send(&rest) => {
                        let status = wire.reply().head.status;
                        assert!(matches!(status, 200 | 503), "{status}");
                    }
                    _ => {}
                }
            }
        };
        let client = &client;
        std::thread::scope(|scope| (0..24).for_each(|number| drop(scope.spawn(move || client(number)))));
        assert_empty(&host, "/ask");
        assert!(host.figures().whole_bytes_peak <= ROOM, "{:?}", host.figures());
        host.end();
    }
}
