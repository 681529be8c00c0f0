//! The HTTP client, against servers made of plain sockets that do what servers do.

mod client_support;

use std::io::Write as _;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use client_support::{Asks, PATIENCE, ok, says, server};
use tidegate::http::{Body, ClientError, Method, ResponseBody, StatusCode, body_stream};
use tidegate::net::Waited;
use tidegate::poller::{Peer, Reason};
use tidegate::task::Parallel;

const SOON: Duration = Duration::from_millis(60);

#[test]
fn a_response_comes_with_its_record() {
    let server = says(
        "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\n\r\nhello",
    );
    let asks = Asks::new();
    for reused in [false, true] {
        let response = asks.run(asks.client.get(server.url("/a?b")).header("X-B", "2")).unwrap();
        assert_eq!(
            (response.status, response.bytes(), response.text().len()),
            (StatusCode::OK, &b"hello"[..], 5)
        );
        assert_eq!((response.headers["x-a"].as_bytes(), response.url.path()), (&b"1"[..], "/a"));
        let record = response.record().unwrap().clone();
        let facts = record.client.as_deref().unwrap();
        assert_eq!((facts.reused, facts.connect.is_some(), facts.dns), (reused, !reused, None));
        assert_eq!((facts.redirects, facts.retries, facts.body_decoded_bytes), (0, 0, 5));
        assert_eq!((record.resp_body_bytes, record.req_body_bytes, record.status), (5, 0, Some(200)));
        assert_eq!(record.resp_header_bytes, 86, "the interim head is counted");
        assert_eq!((record.wire_in, record.wire_out), (91, record.req_header_bytes));
        assert_eq!(record.words.target(), Some(&b"/a?b"[..]));
        assert!(record.first_byte.unwrap() + record.transfer.unwrap() <= record.total);
    }
    drop(asks.client);
    let kept = asks.keeps.counts(2, 1);
    assert_eq!((kept.exchanges[0].end.reason, kept.exchanges[0].phase), (Reason::Ok, "reply"));
    assert_eq!(kept.connections[0].exchanges, 2);
}

#[test]
fn bodies_end_in_every_way() {
    let asks = Asks::new();
    for (reply, body) in [
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nSum: 5\r\n\r\n",
            "abcde",
        ),
        ("HTTP/1.0 200 OK\r\n\r\nuntil the end", "until the end"),
        ("HTTP/1.1 204 No Content\r\n\r\n", ""),
    ] {
        let server = server(move |_, caller| {
            caller.request();
            caller.say(reply);
        });
        let response = asks.get(&server.url("/")).unwrap();
        assert_eq!(response.text(), body);
        assert_eq!(response.trailers.is_some(), body == "abcde");
    }
    let server = says("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    for _ in 0..2 {
        let response = asks.run(asks.client.head(server.url("/"))).unwrap();
        assert_eq!(
            (response.bytes().len(), response.headers["content-length"].as_bytes()),
            (0, &b"1000"[..])
        );
    }
    assert_eq!(server.callers(), 1, "a reply without a body leaves the connection as it was");
}

#[test]
fn one_that_the_server_closed_meanwhile_is_not_an_error() {
    // Each connection serves one request and then goes, without a word before.
    let server = server(|_, caller| {
        caller.request();
        caller.say(ok("x"));
        let _ = caller.stream.shutdown(std::net::Shutdown::Both);
    });
    let asks = Asks::new();
    for _ in 0..30 {
        assert_eq!(asks.get(&server.url("/")).unwrap().text(), "x");
    }
}

#[test]
fn requests_carry_their_bodies() {
    let (tell, told) = mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let server = server(move |_, caller| {
        while let Some(head) = caller.request() {
            let body = if head.contains("Transfer-Encoding: chunked") {
                caller.until(b"0\r\n\r\n")
            } else {
                let length =
                    head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap_or("0");
                caller.body(length.parse().unwrap())
            };
            tell.lock().unwrap().send((head, body)).unwrap();
            caller.say(ok("thanks"));
        }
    });
    let asks = Asks::new();
    let large = vec![7; 300_000];
    for (body, length) in [(Body::from("small"), 5), (Body::Bytes(large.clone()), 300_000), (Body::Empty, 0)]
    {
        asks.run(asks.client.post(server.url("/up"), body)).unwrap();
        let (head, body) = told.recv_timeout(PATIENCE).unwrap();
        assert!(head.starts_with("POST /up HTTP/1.1\r\n") && body.len() == length, "{head}");
    }
    let (writer, stream) = body_stream(16);
    let response = asks.runtime.spawn(asks.client.put(server.url("/"), stream));
    for piece in ["one ", "two ", "three"] {
        asks.runtime.run(writer.send(piece)).unwrap().unwrap();
    }
    writer.finish();
    let response = response.wait_for(PATIENCE).unwrap().unwrap().unwrap();
    let (_, body) = told.recv_timeout(PATIENCE).unwrap();
    let text = String::from_utf8(body).unwrap();
    assert!(text.contains("one ") && text.contains("three") && text.ends_with("0\r\n\r\n"), "{text}");
    assert_eq!(response.record().unwrap().req_body_bytes, text.len() as u64, "the framing is counted");
    assert_eq!(server.callers(), 1);
}

#[test]
fn a_large_body_waits_for_leave_and_is_spared_where_that_is_not_given() {
    let server = server(|_, caller| {
        while let Some(head) = caller.request() {
            assert!(head.contains("Expect: 100-continue\r\n"), "{head}");
            if head.starts_with("PUT /no") {
                caller.say("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
                assert!(caller.is_left() && caller.body(1).is_empty(), "nothing of the body came");
                return;
            }
            if head.starts_with("PUT /yes") {
                caller.say("HTTP/1.1 100 Continue\r\n\r\n");
            }
            assert_eq!(caller.body(2_000).len(), 2_000);
            caller.say(ok("yes"));
        }
    });
    let asks = Asks::with(|settings| settings.continue_above = 1_000);
    let put = |path: &str| asks.run(asks.client.put(server.url(path), vec![1; 2_000])).unwrap();
    assert_eq!(put("/no").status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(put("/yes").text(), "yes");
    // Some servers never give leave; that is known after a second.
    let began = Instant::now();
    assert_eq!(put("/silent").text(), "yes");
    assert!(began.elapsed() >= Duration::from_millis(990));
}

#[test]
fn a_server_that_refuses_early_is_heard() {
    let server = server(|_, caller| {
        caller.request();
        caller.say("HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nnay");
        assert!(caller.is_left());
    });
    let asks = Asks::with(|settings| settings.continue_above = u64::MAX);
    let (writer, stream) = body_stream(10_000);
    // It is never finished: the answer comes all the same, and the rest is not sent.
    writer.try_send(vec![1; 5_000]).unwrap();
    let response = asks.run(asks.client.post(server.url("/"), stream)).unwrap();
    assert_eq!((response.status, response.text()), (StatusCode::FORBIDDEN, "nay".to_owned()));
    asks.runtime.spawn(writer.closed()).wait_for(PATIENCE).unwrap().unwrap();
}

#[test]
fn redirects_are_followed_and_secrets_stay_at_home() {
    let elsewhere = server(|_, caller| {
        while let Some(head) = caller.request() {
            let secret = ["authorization", "cookie"].iter().any(|name| head.to_lowercase().contains(name));
            caller.say(ok(if secret { "told" } else { "not told" }));
        }
    });
    let there = elsewhere.url("/z");
    let server = server(move |_, caller| {
        while let Some(head) = caller.request() {
            let path = head.split(' ').nth(1).unwrap();
            let (status, to) = match path {
                "/a" => (302, "b?x=1".to_owned()),
                "/b?x=1" => (308, "/end".to_owned()),
                "/post" => (303, "/end".to_owned()),
                "/keep" => (307, "/end".to_owned()),
                "/away" => (301, there.clone()),
                "/circle" => (302, "/circle".to_owned()),
                "/endless" => (302, "/endless?".to_owned()),
                "/mailto" => (302, "mailto:x".to_owned()),
                path if path.starts_with("/endless") => (302, format!("{path}x")),
                "/end" => {
                    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                    caller.body(length.map_or(0, |length| length.parse().unwrap()));
                    let kept = head.to_lowercase().contains("authorization: secret");
                    caller.say(ok(&format!("{} {kept}", head.split(' ').next().unwrap())));
                    continue;
                }
                path => panic!("{path}"),
            };
            if head.starts_with("POST") {
                caller.body(4);
            }
            caller
                .say(format!("HTTP/1.1 {status} Moved\r\nLocation: {to}\r\nContent-Length: 5\r\n\r\nmoved"));
        }
    });
    let asks = Asks::new();
    let with_secret =
        |url: String| asks.client.get(url).header("Authorization", "secret").header("Cookie", "c=1");
    let response = asks.run(with_secret(server.url("/a"))).unwrap();
    assert_eq!((response.text(), response.redirects), ("GET true".to_owned(), 2));
    assert_eq!((response.url.to_string(), server.callers()), (server.url("/end"), 1));
    assert_eq!(response.record().unwrap().client.as_deref().unwrap().redirects, 2);
    assert_eq!(asks.run(with_secret(server.url("/away"))).unwrap().text(), "not told");
    assert_eq!(asks.run(asks.client.post(server.url("/post"), "data")).unwrap().text(), "GET false");
    assert_eq!(asks.run(asks.client.post(server.url("/keep"), "data")).unwrap().text(), "POST false");
    for path in ["/circle", "/endless"] {
        let error = asks.get(&server.url(path)).unwrap_err();
        assert!(matches!(error, ClientError::TooManyRedirects), "{error}");
    }
    assert!(matches!(asks.get(&server.url("/mailto")), Err(ClientError::Redirect(_))));
    let plain = asks.run(asks.client.get(server.url("/a")).max_redirects(0)).unwrap();
    assert_eq!((plain.status, plain.text()), (StatusCode::FOUND, "moved".to_owned()));
}

#[test]
fn what_failed_is_asked_again_where_that_does_no_harm() {
    let server = server(|number, caller| {
        while let Some(head) = caller.request() {
            match (number, head.split(' ').nth(1).unwrap()) {
                (_, "/busy") => {
                    caller.say("HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 4\r\n\r\nbusy")
                }
                (_, "/later") => {
                    caller.say("HTTP/1.1 503 Busy\r\nRetry-After: 3600\r\nContent-Length: 4\r\n\r\nbusy")
                }
                (_, "/once") => return,
                (n, _) if n < 2 => return,
                _ => caller.say(ok("at last")),
            };
        }
    });
    let asks = Asks::with(|settings| settings.max_retries = 2);
    let response = asks.get(&server.url("/")).unwrap();
    assert_eq!((response.text(), response.retries, server.callers()), ("at last".to_owned(), 2, 3));
    let error = asks.run(asks.client.post(server.url("/once"), "x")).unwrap_err();
    assert!(matches!(error, ClientError::Closed(_)), "{error}");
    let callers = server.callers();
    assert_eq!(callers, 3, "it went out once, on the connection that was kept");
    let response = asks.get(&server.url("/busy")).unwrap();
    assert_eq!((response.status, response.retries), (StatusCode::SERVICE_UNAVAILABLE, 2));
    assert!(server.callers() <= callers + 1, "answers leave their connection usable");
    let later = asks.get(&server.url("/later")).unwrap();
    assert_eq!(
        (later.status, later.retries, later.text()),
        (StatusCode::SERVICE_UNAVAILABLE, 0, "busy".to_owned())
    );
}

#[test]
fn every_time_has_its_name() {
    let waited = |error: ClientError| match error {
        ClientError::Timeout(waited) => waited,
        other => panic!("{other}"),
    };
    let silent = server(|_, caller| {
        let head = caller.request().unwrap_or_default();
        if head.starts_with("GET /head") {
            caller.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome");
        }
        caller.is_left();
    });
    let asks = Asks::with(|settings| {
        (settings.first_byte_timeout, settings.next_byte_timeout) = (SOON, SOON);
        (settings.max_connections, settings.wait_timeout) = (1, SOON / 2);
    });
    assert_eq!(waited(asks.get(&silent.url("/")).unwrap_err()), Waited::FirstByte);
    assert_eq!(waited(asks.get(&silent.url("/head")).unwrap_err()), Waited::NextByte);
    let total = asks.client.get(silent.url("/")).timeout(SOON / 2);
    assert_eq!(waited(asks.run(total).unwrap_err()), Waited::Total);
    let both: Parallel<_> = (0..2).map(|_| asks.client.get(silent.url("/"))).collect();
    let mut errors: Vec<_> =
        asks.runtime.run(both).unwrap().into_iter().map(|r| waited(r.unwrap().unwrap_err())).collect();
    errors.sort_by_key(|waited| *waited == Waited::FirstByte);
    assert_eq!(errors, [Waited::Connection, Waited::FirstByte]);
    let kept = asks.keeps.counts(5, 4);
    assert!(kept.exchanges.iter().all(|exchange| exchange.end.reason == Reason::Timeout));
    let phases: Vec<_> = kept.exchanges.iter().map(|exchange| exchange.phase).collect();
    assert_eq!(phases.iter().filter(|phase| **phase == "reply").count(), 1, "{phases:?}");
}

#[test]
fn streams_are_read_as_they_come_and_hold_the_server_back() {
    const TOTAL: usize = 40 << 20;
    let (tell, told) = mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let server = server(move |_, caller| {
        caller.request();
        caller.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {TOTAL}\r\n\r\n"));
        caller.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let (piece, mut sent, mut stalled) = (vec![5; 1 << 20], 0, false);
        while sent < TOTAL {
            match caller.stream.write(&piece[..piece.len().min(TOTAL - sent)]) {
                Ok(n) => sent += n,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if !std::mem::replace(&mut stalled, true) {
                        tell.lock().unwrap().send(sent).unwrap();
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
    });
    let asks = Asks::with(|settings| settings.next_byte_timeout = Duration::from_secs(5));
    let mut response = asks.run(asks.client.get(server.url("/")).stream()).unwrap();
    assert!(response.record().is_none());
    // Nobody reads: the server cannot send more than what the two kernels and the stream hold.
    let sent = told.recv_timeout(PATIENCE).unwrap();
    assert!(sent < TOTAL / 2, "{sent} bytes went although nobody reads");
    let body = asks.read(&mut response).unwrap();
    assert!(body.len() == TOTAL && body.iter().all(|byte| *byte == 5));
    assert_eq!(response.record().unwrap().resp_body_bytes, TOTAL as u64);
}

#[test]
fn a_stream_that_is_dropped_closes_its_connection() {
    let (tell, told) = mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let server = server(move |_, caller| {
        caller.request();
        caller.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome");
        tell.lock().unwrap().send(caller.is_left()).unwrap();
    });
    let asks = Asks::new();
    let response = asks.run(asks.client.get(server.url("/")).stream()).unwrap();
    assert!(matches!(response.body, ResponseBody::Stream(_)));
    drop(response);
    assert!(told.recv_timeout(PATIENCE).unwrap(), "the server sees it at once");
    let kept = asks.keeps.counts(1, 1);
    assert_eq!((kept.exchanges[0].end.reason, kept.exchanges[0].phase), (Reason::LocalClose, "reply"));
}

#[test]
fn cancelled_requests_close_their_connection_wherever_they_are() {
    let (tell, told) = mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let server = server(move |_, caller| {
        let head = caller.request();
        tell.lock().unwrap().send(head.is_some()).unwrap();
        tell.lock().unwrap().send(caller.is_left()).unwrap();
    });
    let asks = Asks::with(|settings| settings.max_connections = 1);
    let first = asks.runtime.spawn(asks.client.get(server.url("/")));
    assert!(told.recv_timeout(PATIENCE).unwrap());
    let second = asks.runtime.spawn(asks.client.get(server.url("/")));
    second.cancel();
    assert!(second.wait_for(PATIENCE).unwrap().is_err());
    first.cancel();
    assert!(told.recv_timeout(PATIENCE).unwrap(), "the connection is closed");
    let kept = asks.keeps.counts(2, 1);
    assert!(kept.exchanges.iter().all(|exchange| exchange.end.reason == Reason::LocalClose));
    // What is dropped with its runtime leaves nothing behind.
    let third = asks.runtime.spawn(asks.client.get(server.url("/")));
    assert!(told.recv_timeout(PATIENCE).unwrap());
    drop(asks.runtime);
    assert!(third.wait_for(PATIENCE).is_ok_and(|gone| gone.is_err() || gone.is_ok_and(|r| r.is_err())));
    assert!(told.recv_timeout(PATIENCE).unwrap());
}

#[test]
fn the_pool_has_its_limits_and_the_queue_its_bound() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let server = server(move |_, caller| {
        while caller.request().is_some() {
            wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            caller.say(ok("x"));
        }
    });
    let asks = Asks::with(|settings| {
        (settings.max_connections, settings.max_idle, settings.max_waiting) = (2, 1, 3);
    });
    let mut tasks: Vec<_> = (0..6).map(|_| asks.runtime.spawn(asks.client.get(server.url("/")))).collect();
    // Two are on their way and three wait, or there would be room for it.
    let beyond = tasks.pop().unwrap().wait_for(PATIENCE).unwrap().unwrap();
    assert!(matches!(beyond, Err(ClientError::QueueFull)), "{beyond:?}");
    (0..5).for_each(|_| go.send(()).unwrap());
    tasks.into_iter().for_each(|task| drop(task.wait_for(PATIENCE).unwrap().unwrap().unwrap()));
    assert_eq!(server.callers(), 2);
    drop(asks.client);
    asks.keeps.counts(6, 2);
}

#[test]
fn connections_that_idle_are_closed() {
    let server = says(ok("x"));
    let asks = Asks::with(|settings| settings.idle_timeout = SOON);
    for _ in 0..5 {
        asks.get(&server.url("/")).unwrap();
    }
    let kept = asks.keeps.counts(5, 1);
    assert_eq!(
        (kept.connections[0].record.end.reason, kept.connections[0].record.phase),
        (Reason::Timeout, "idle")
    );
}

#[test]
fn a_host_is_found_and_all_its_addresses_are_tried() {
    // Nobody listens on [::1] at this port, or so we hope: the name has both addresses on most machines.
    let server = says(ok("x"));
    let asks = Asks::new();
    let url = format!("http://localhost:{}/", server.address.port());
    let response = asks.get(&url).unwrap();
    let record = response.record().unwrap();
    assert!(record.client.as_deref().unwrap().dns.is_some());
    assert_eq!(record.peer, Peer::Inet(server.address));
    assert!(matches!(asks.get("http://no-such-host.invalid/"), Err(ClientError::Resolve(_))));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = asks.get(&format!("http://{closed}/")).unwrap_err();
    assert!(matches!(error, ClientError::Connect(Reason::ConnectFailed)), "{error}");
}

#[test]
fn methods_and_urls_are_what_was_asked() {
    let server = server(|_, caller| {
        while let Some(head) = caller.request() {
            caller.say(ok(&head));
        }
    });
    let asks = Asks::new();
    let response = asks.run(asks.client.request(Method::DELETE, server.url("/a b?c d#e"))).unwrap();
    assert!(response.text().starts_with("DELETE /a%20b?c%20d HTTP/1.1\r\n"), "{}", response.text());
    let user = format!("http://me:secret@{}/", server.address);
    let response = asks.get(&user).unwrap();
    assert!(response.text().contains("Authorization: Basic bWU6c2VjcmV0\r\n"));
    assert!(!response.url.to_string().contains("secret"));
    assert!(matches!(asks.get("gopher://x/"), Err(ClientError::Url(_))));
    assert!(matches!(
        asks.run(asks.client.get(server.url("/")).header("a b", "c")),
        Err(ClientError::Request(_))
    ));
    // The client that the runtime keeps for all.
    let page = asks.runtime.run(tidegate::http::get(server.url("/kept"))).unwrap().unwrap();
    assert!(page.text().starts_with("GET /kept "));
}
