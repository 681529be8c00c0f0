//! The HTTP client against servers that mean no good: every one becomes an error, a record, and nothing worse.

mod client_support;

use std::io::Write as _;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use client_support::{Asks, Caller, ok, says, server};
use tidegate::http::codec::response::Fault;
use tidegate::http::{BodyError, ClientError};
use tidegate::net::protocol::Waited;
use tidegate::poller::{Limit, Reason, Who};

/// A reply cut at every place, by a close or by a stall.
const REPLY: &str =
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n";

#[test]
fn what_is_no_response_is_an_error() {
    let asks = Asks::new();
    for garbage in [
        "220 smtp.example ready\r\n",
        "\x15\x03\x01\x00\x02\x02\x28",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ] {
        let server = says(garbage);
        let error = asks.get(&server.url("/")).unwrap_err();
        assert!(matches!(error, ClientError::Malformed(Fault::Malformed(_))), "{garbage:?}: {error}");
    }
    let kept = asks.keeps.counts(8, 8);
    for exchange in kept.exchanges {
        assert_eq!((exchange.end.who, exchange.end.reason), (Who::Peer, Reason::ProtocolError));
    }
}

/// Says this over and over until nobody listens; gives up after far more than anybody should take.
fn forever(caller: &mut Caller, piece: &str) {
    let many = piece.repeat(1_000);
    for _ in 0..1_000 {
        if !caller.say(&many) {
            return;
        }
    }
    panic!("it was listened to without end");
}

#[test]
fn nothing_endless_is_taken() {
    let server = server(|_, caller| {
        let head = caller.request().unwrap_or_default();
        let path = head.split(' ').nth(1).unwrap_or_default();
        match path {
            "/line" => {
                caller.say("HTTP/1.1 200 OK\r\nA: ");
                forever(caller, "aaaaaaaaaa");
            }
            "/fields" => {
                caller.say("HTTP/1.1 200 OK\r\n");
                forever(caller, "A: b\r\n");
            }
            "/interim" => forever(caller, "HTTP/1.1 102 Processing\r\n\r\n"),
            "/blank" => forever(caller, "\r\n"),
            "/extension" => {
                caller.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;");
                forever(caller, "aaaaaaaaaa");
            }
            "/trailers" => {
                caller.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n");
                forever(caller, "A: b\r\n");
            }
            "/body" => {
                caller.say("HTTP/1.1 200 OK\r\n\r\n");
                forever(caller, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
            }
            "/redirect" => {
                caller.say("HTTP/1.1 302 Found\r\nLocation: /there\r\n\r\n");
                // Until it is cut: the body of a redirect is not worth reading.
                while caller.say("aaaaaaaaaa".repeat(1_000)) {}
            }
            _ => assert!(caller.say(ok("there"))),
        }
    });
    let asks = Asks::with(|settings| settings.max_body = 1_000_000);
    for path in ["/line", "/fields", "/interim"] {
        let error = asks.get(&server.url(path)).unwrap_err();
        assert!(matches!(error, ClientError::Malformed(Fault::HeadTooLong)), "{path}: {error}");
    }
    for path in ["/blank", "/extension", "/trailers"] {
        let error = asks.get(&server.url(path)).unwrap_err();
        assert!(matches!(error, ClientError::Malformed(_)), "{path}: {error}");
    }
    let error = asks.get(&server.url("/body")).unwrap_err();
    assert!(matches!(error, ClientError::BodyTooLarge { max_bytes: 1_000_000 }), "{error}");
    assert_eq!(asks.get(&server.url("/redirect")).unwrap().text(), "there");
}

#[test]
fn a_close_at_each_place_is_told_from_the_end() {
    let server = server(|number, caller| {
        caller.request();
        caller.say(&REPLY[..number]);
    });
    let asks = Asks::new();
    for cut in 0..REPLY.len() {
        match asks.get(&server.url("/")) {
            Err(ClientError::Closed(Reason::Abort)) => {}
            other => panic!("cut at {cut}: {other:?}"),
        }
    }
    let kept = asks.keeps.counts(REPLY.len(), REPLY.len());
    for exchange in kept.exchanges {
        assert_eq!((exchange.end.who, exchange.end.reason), (Who::Peer, Reason::Abort));
        assert!(exchange.transfer.is_none());
    }
    assert_eq!(asks.get(&server.url("/")).unwrap().text(), "helloyou");
}

#[test]
fn a_stall_at_each_place_ends_in_time() {
    let server = server(|number, caller| {
        caller.request();
        caller.say(&REPLY[..number]);
        caller.is_left();
    });
    const SOON: Duration = Duration::from_millis(20);
    let asks =
        Asks::with(|settings| (settings.first_byte_timeout, settings.next_byte_timeout) = (SOON, SOON));
    for cut in 0..REPLY.len() {
        let waited = if cut == 0 { Waited::FirstByte } else { Waited::NextByte };
        match asks.get(&server.url("/")) {
            Err(ClientError::Timeout(late)) if late == waited => {}
            other => panic!("stalled at {cut}: {other:?}"),
        }
    }
    asks.keeps.counts(REPLY.len(), REPLY.len());
}

#[test]
fn streams_that_are_cut_say_so() {
    let server = server(|number, caller| {
        caller.request();
        match number {
            0 => assert!(caller.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")),
            1 => assert!(
                caller.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\nno chunk")
            ),
            _ => {
                caller.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome");
                caller.is_left();
            }
        }
    });
    let asks = Asks::with(|settings| settings.next_byte_timeout = Duration::from_millis(50));
    for error in [BodyError::Disconnected, BodyError::Malformed, BodyError::TimedOut] {
        let mut response = asks.run(asks.client.get(server.url("/")).stream()).unwrap();
        assert_eq!(asks.read(&mut response).unwrap_err(), error);
        let record = response.record().expect("it has ended");
        assert_ne!(record.end.reason, Reason::Ok);
    }
}

#[test]
fn bytes_after_a_response_end_its_connection() {
    // Where more comes than was asked for, it is not taken for the next response.
    let server = server(|_, caller| {
        while caller.request().is_some() && caller.say(format!("{}{}", ok("mine"), ok("another's"))) {}
    });
    let asks = Asks::new();
    for _ in 0..3 {
        assert_eq!(asks.get(&server.url("/")).unwrap().text(), "mine");
    }
    assert_eq!(server.callers(), 3);
    // The same where it comes late, on an idle connection.
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let late = client_support::server(move |_, caller| {
        caller.request();
        caller.say(ok("mine"));
        wait.lock().unwrap().recv_timeout(client_support::PATIENCE).unwrap();
        let _ = caller.stream.write_all(ok("another's").as_bytes());
        caller.is_left();
    });
    let asks = Asks::new();
    for n in 1..4 {
        assert_eq!(asks.get(&late.url("/")).unwrap().text(), "mine");
        go.send(()).unwrap();
        let kept = asks.keeps.counts(n, n);
        assert_eq!(kept.connections[n - 1].record.end.reason, Reason::ProtocolError);
    }
}

#[cfg(feature = "decompression")]
#[test]
fn a_bomb_does_not_go_off() {
    let bomb = {
        let mut encoder = flate2_gzip();
        let zeros = vec![0; 1 << 20];
        for _ in 0..8 {
            encoder.write_all(&zeros).unwrap();
        }
        encoder.finish().unwrap()
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", bomb.len());
    let server = says([head.as_bytes(), &bomb].concat());
    let asks = Asks::with(|settings| settings.max_body = 1 << 20);
    let error = asks.get(&server.url("/")).unwrap_err();
    assert!(matches!(error, ClientError::BodyTooLarge { max_bytes: 1_048_576 }), "{error}");
    // As a stream it comes as it is read, a bounded number of bytes at a time.
    let mut response = asks.run(asks.client.get(server.url("/")).stream()).unwrap();
    assert!(response.headers.get("content-encoding").is_none());
    assert_eq!(asks.read(&mut response).unwrap().len(), 8 << 20);
    let record = response.record().unwrap();
    assert_eq!(record.client.as_deref().unwrap().body_decoded_bytes, 8 << 20);
    assert_eq!(record.resp_body_bytes, bomb.len() as u64);
}

#[cfg(feature = "decompression")]
fn flate2_gzip() -> flate2::write::GzEncoder<Vec<u8>> {
    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default())
}

#[test]
fn leave_to_send_does_not_start_the_clock_of_the_answer() {
    let server = server(|_, caller| {
        caller.request();
        caller.say("HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(caller.body(30_000).len(), 30_000);
        caller.say(ok("thanks"));
    });
    let asks = Asks::with(|settings| {
        settings.continue_above = 1_000;
        settings.next_byte_timeout = Duration::from_millis(300);
    });
    // More than a second, longer than the server may stand still.
    let slowly = Limit::new("slowly", Some(20_000));
    let began = Instant::now();
    let put = asks.client.put(server.url("/"), vec![1; 30_000]).upload_limit(&slowly);
    assert_eq!(asks.run(put).unwrap().text(), "thanks");
    assert!(began.elapsed() > Duration::from_millis(600), "it was slow: {:?}", began.elapsed());
}

#[test]
fn a_server_that_expects_nothing_gets_the_body_unasked() {
    let server = server(|_, caller| {
        while let Some(head) = caller.request() {
            if head.contains("Expect:") {
                caller.say("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n");
                assert!(caller.is_left());
                return;
            }
            assert_eq!(caller.body(2_000).len(), 2_000);
            caller.say(ok("thanks"));
        }
    });
    let asks = Asks::with(|settings| settings.continue_above = 1_000);
    let response = asks.run(asks.client.post(server.url("/"), vec![1; 2_000])).unwrap();
    assert_eq!((response.text().as_str(), response.retries), ("thanks", 0));
    // A stream was held back as well, and is still there.
    let (writer, stream) = tidegate::http::body_stream(10_000);
    writer.try_send(vec![1; 2_000]).unwrap();
    writer.finish();
    let server = self::server(|number, caller| {
        let head = caller.request().unwrap();
        assert_eq!(head.contains("Expect:"), number == 0);
        match number {
            0 => caller.say("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"),
            _ => !caller.until(b"\r\n0\r\n\r\n").is_empty() && caller.say(ok("thanks")),
        };
    });
    assert_eq!(asks.run(asks.client.post(server.url("/"), stream)).unwrap().text(), "thanks");
    assert_eq!(asks.keeps.counts(4, 3).exchanges.len(), 4);
}

#[test]
fn a_request_that_waits_for_its_retry_ends_with_the_runtime() {
    let server = says("HTTP/1.1 503 Busy\r\nRetry-After: 20\r\nContent-Length: 0\r\n\r\n");
    let asks = Asks::with(|settings| settings.max_retries = 1);
    let asked = asks.runtime.spawn(asks.client.get(server.url("/")));
    asks.keeps.counts(1, 0);
    asks.runtime.stop(Duration::from_secs(1)).unwrap();
    let ended = asked.wait_for(client_support::PATIENCE).expect("it ends");
    assert!(!matches!(ended, Ok(Ok(_))), "{ended:?}");
}

#[test]
fn a_wait_without_end_that_a_server_asks_for_is_not_waited() {
    let server = says("HTTP/1.1 503 Busy\r\nRetry-After: 18446744073709551615\r\nContent-Length: 0\r\n\r\n");
    let asks = Asks::with(|settings| {
        settings.max_retries = 1;
        settings.total_timeout = Some(Duration::from_secs(60));
    });
    let response = asks.get(&server.url("/")).unwrap();
    assert_eq!((response.status.as_u16(), response.retries), (503, 0));
}

#[test]
fn no_line_gets_into_a_head_by_the_user_agent() {
    let server = server(|_, caller| {
        let head = caller.request().unwrap();
        caller.say(ok(if head.to_lowercase().contains("evil") { "injected" } else { "sound" }));
    });
    let asks = Asks::with(|settings| settings.user_agent = "a\r\nEvil: b".to_owned());
    assert_eq!(asks.get(&server.url("/")).unwrap().text(), "sound");
}
