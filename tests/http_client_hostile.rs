//! The HTTP client against servers that mean no good: every one becomes an error, a record, and nothing worse.

mod client_support;

use std::io::Write as _;
use std::sync::mpsc;
use std::time::Duration;

use client_support::{Asks, Caller, ok, says, server};
use tidegate::http::codec::response::Fault;
use tidegate::http::{BodyError, ClientError};
use tidegate::net::protocol::Waited;
use tidegate::poller::{Reason, Who};

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
