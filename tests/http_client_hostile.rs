//! The HTTP client against servers that mean no good: every one becomes an error, a record, and nothing worse.

mod client_support;

use std::io::Write as _;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use client_support::{Asks, Caller, PATIENCE, ok, says, server};
use tidegate::http::client::Proxies;
use tidegate::http::codec::response::Fault;
use tidegate::http::{BodyError, ClientError};
use tidegate::net::Waited;
use tidegate::poller::{Limit, Reason, Who};
use tidegate::task::Series;

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
    // On a busy machine the first byte may be late, where it is not what is waited for.
    let hasty = Asks::with(|settings| settings.first_byte_timeout = SOON);
    let asks = Asks::with(|settings| settings.next_byte_timeout = SOON);
    for cut in 0..REPLY.len() {
        let (asks, waited) = match cut {
            0 => (&hasty, Waited::FirstByte),
            _ => (&asks, Waited::NextByte),
        };
        match asks.get(&server.url("/")) {
            Err(ClientError::Timeout(late)) if late == waited => {}
            other => panic!("stalled at {cut}: {other:?}"),
        }
    }
    hasty.keeps.counts(1, 1);
    asks.keeps.counts(REPLY.len() - 1, REPLY.len() - 1);
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
    asks.runtime.shutdown(Duration::from_secs(1)).unwrap();
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

#[test]
fn what_comes_unasked_just_before_a_request_is_not_its_answer() {
    // The poller is kept from hearing of it: all that it knows when it sends the next request is what the kernel knows.
    let (go, wait) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let (wait, tell) = (std::sync::Mutex::new(wait), std::sync::Mutex::new(tell));
    let server = server(move |number, caller| {
        caller.request();
        caller.say(ok(if number == 0 { "first" } else { "second" }));
        if number == 0 {
            wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            tell.lock().unwrap().send(caller.say(ok("evil"))).unwrap();
        }
        caller.is_left();
    });
    let asks = Asks::with(|settings| settings.max_connections = 1);
    let (client, url) = (asks.client.clone(), server.url("/"));
    let series = Series::new(Vec::new()).then(asks.client.get(&url), move |response, series| {
        series.context.push(response?.text());
        go.send(())?;
        assert!(told.recv_timeout(PATIENCE)?);
        series.push(client.get(&url), |response, series| {
            series.context.push(response?.text());
            Ok(())
        });
        Ok(())
    });
    let ended = asks.runtime.start(series).wait_for(PATIENCE).expect("in time").unwrap();
    assert_eq!(ended.into_result().unwrap(), ["first", "second"]);
    assert_eq!(server.callers(), 2);
    drop(asks.client);
    let kept = asks.keeps.counts(2, 2);
    let ends: Vec<_> = kept.connections.iter().map(|entry| entry.record.end.reason).collect();
    assert!(ends.contains(&Reason::ProtocolError), "{ends:?}");
}

#[test]
fn a_server_that_leaves_at_each_step_of_a_request_leaves_one_record() {
    for step in [
        "at once",
        "after the head",
        "in the body",
        "after its leave",
        "after an early hint",
        "in the head of its answer",
    ] {
        let server = server(move |_, caller| {
            if step == "at once" {
                return;
            }
            caller.request();
            match step {
                "in the body" => drop(caller.body(1_000)),
                "after its leave" => drop(caller.say("HTTP/1.1 100 Continue\r\n\r\n")),
                "after an early hint" => drop(caller.say("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")),
                "in the head of its answer" => drop(caller.say("HTTP/1.1 200 OK\r\nContent-")),
                _ => {}
            }
        });
        let asks = Asks::with(|settings| {
            settings.continue_above = if step == "after its leave" { 1_000 } else { u64::MAX };
            // Of one that left at once nobody knows whether it was asked at all.
            settings.max_retries = if step == "at once" { 0 } else { 2 };
        });
        // A large one, that a server which has gone cannot have taken.
        let error = asks.run(asks.client.post(server.url("/"), vec![1; 20_000_000])).unwrap_err();
        assert!(matches!(error, ClientError::Closed(Reason::Abort)), "{step}: {error}");
        let kept = asks.keeps.counts(1, 1);
        assert_eq!(kept.exchanges[0].end.reason, Reason::Abort, "{step}");
        assert_eq!(server.callers(), 1, "{step}: it may have been acted on");
    }
}

#[test]
fn a_request_that_is_cancelled_while_a_redirect_is_thrown_away_leaves_one_record() {
    for head in [
        "HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 1000\r\n\r\nsome of it",
        "HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 1000\r\n\r\nsome of it",
    ] {
        let (tell, told) = mpsc::channel();
        let tell = std::sync::Mutex::new(tell);
        let server = server(move |_, caller| {
            caller.request();
            caller.say(head);
            tell.lock().unwrap().send(()).unwrap();
            assert!(caller.is_left(), "nothing else is asked");
        });
        let asks = Asks::with(|settings| settings.max_retries = 1);
        let task = asks.runtime.spawn(asks.client.get(server.url("/")));
        told.recv_timeout(PATIENCE).unwrap();
        // Endpoints lie on the pollers in turn. That they answer means that every poller has read what came before.
        for other in [says(ok("x")), says(ok("x"))] {
            asks.get(&other.url("/")).unwrap();
        }
        task.cancel();
        assert!(task.wait_for(PATIENCE).unwrap().is_err());
        asks.keeps.until("its end", |kept| kept.connections.iter().any(|entry| entry.exchanges == 1));
        for other in [says(ok("x")), says(ok("x"))] {
            asks.get(&other.url("/")).unwrap();
        }
        let Asks { client, keeps, runtime } = asks;
        drop(client);
        drop(runtime);
        // All is over, and nothing was added.
        let all = keeps.counts(5, 5);
        assert_eq!(server.callers(), 1);
        let cut = all.exchanges.iter().find(|exchange| exchange.status != Some(200)).unwrap();
        assert_eq!((cut.end.reason, cut.phase), (Reason::LocalClose, "reply"));
    }
}

#[test]
fn a_tunnel_cannot_be_asked_for() {
    let server = says("HTTP/1.1 200 OK\r\n\r\n");
    let asks = Asks::new();
    let connect = asks.client.request(tidegate::http::Method::CONNECT, server.url("/"));
    let error = asks.run(connect).unwrap_err();
    assert!(matches!(error, ClientError::Request(_)), "{error}");
    assert_eq!(server.callers(), 0);
}

#[test]
fn secrets_in_a_url_stay_with_its_server() {
    let elsewhere = server(|_, caller| {
        let head = caller.request().unwrap().to_lowercase();
        caller.say(ok(if head.contains("authorization") { "told" } else { "not told" }));
    });
    // The same host, and another port: that may be somebody else's.
    let there = elsewhere.url("/");
    let server = server(move |_, caller| {
        let head = caller.request().unwrap();
        assert!(head.contains("Authorization: Basic dTpw\r\n"), "{head}");
        caller.say(format!("HTTP/1.1 307 Moved\r\nLocation: {there}\r\nContent-Length: 0\r\n\r\n"));
    });
    let asks = Asks::new();
    let url = server.url("/").replace("http://", "http://u:p@");
    assert_eq!(asks.get(&url).unwrap().text(), "not told");
}

#[test]
fn no_proxy_that_cannot_be_used_is_gone_round() {
    let server = says(ok("straight"));
    let leads = server.url("/");
    let redirects = client_support::server(move |_, caller| {
        caller.request();
        caller.say(format!("HTTP/1.1 302 Found\r\nLocation: {leads}\r\nContent-Length: 0\r\n\r\n"));
    });
    let proxies = |past: String| {
        Proxies::from_variables(move |name| match name {
            "http_proxy" => Some("socks5://u:secret@127.0.0.1:1080".to_owned()),
            "no_proxy" => Some(past.clone()),
            _ => None,
        })
    };
    let asks = Asks::with(|settings| settings.proxies = proxies(String::new()));
    let error = asks.get(&server.url("/")).unwrap_err();
    assert!(matches!(error, ClientError::BadProxy(_)) && !error.is_passing(), "{error}");
    let said = error.to_string();
    assert!(
        said.contains("http_proxy") && said.contains("http://HOST:PORT") && !said.contains("secret"),
        "{said}"
    );
    // The same where a redirect leads there.
    let asks = Asks::with(|settings| settings.proxies = proxies(redirects.address.to_string()));
    assert!(matches!(asks.get(&redirects.url("/")), Err(ClientError::BadProxy(_))));
    let asks = Asks::with(|settings| settings.proxies = proxies("127.0.0.0/8".to_owned()));
    assert_eq!(asks.get(&redirects.url("/")).unwrap().text(), "straight");
    assert_eq!(server.callers(), 1);
}
