//! Bytes that the HTTP client hands on are those that were sent, whatever the framing, the cuts, the rates and the reader.

mod client_support;

use std::sync::Arc;
use std::time::Duration;

use client_support::{Asks, server};
use tidegate::http::{Body, body_stream};
use tidegate::poller::{Budget, Limit};
use tidegate_meter::scratch::pattern;

/// A body in this framing, in pieces of random sizes; `None`: until the end of the connection.
fn reply(random: &mut fastrand::Rng, body: &[u8]) -> (Vec<u8>, bool) {
    match random.u8(..3) {
        0 => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            ([head.as_bytes(), body].concat(), false)
        }
        1 => {
            let mut all = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            let mut rest = body;
            while !rest.is_empty() {
                let (now, later) = rest.split_at(random.usize(1..=rest.len().min(50_000)));
                all.extend_from_slice(format!("{:X};x=\"y\"\r\n", now.len()).as_bytes());
                all.extend_from_slice(now);
                all.extend_from_slice(b"\r\n");
                rest = later;
            }
            all.extend_from_slice(b"0\r\nT: t\r\n\r\n");
            (all, false)
        }
        _ => ([b"HTTP/1.1 200 OK\r\n\r\n", body].concat(), true),
    }
}

#[test]
fn bytes_are_the_same_under_any_framing_cut_rate_and_reader() {
    let seed =
        std::env::var("TIDEGATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(fastrand::u64(..));
    println!("TIDEGATE_SEED={seed}");
    let source = server(move |number, caller| {
        let mut random = fastrand::Rng::with_seed(seed ^ number as u64);
        while let Some(head) = caller.request() {
            let length: usize = head.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
            let (all, closes) = reply(&mut random, &pattern(0, length));
            let mut rest = &all[..];
            while !rest.is_empty() {
                let most = if random.u8(..4) == 0 { 20 } else { 100_000 };
                let (now, later) = rest.split_at(random.usize(1..=rest.len().min(most)));
                if !caller.say(now) {
                    return;
                }
                rest = later;
            }
            if closes {
                return;
            }
        }
    });
    let budget = Budget::builder("all").rate(20_000_000).build();
    let asks = Asks::with(|settings| settings.spending.ingress_budget = Some(budget));
    let mut random = fastrand::Rng::with_seed(seed);
    for n in 0..40 {
        let length = if n % 4 == 0 { random.usize(..2_000_000) } else { random.usize(..5_000) };
        let mut request = asks.client.get(source.url(&format!("/{length}")));
        if random.bool() {
            let rate = random.u64(3_000_000..50_000_000);
            request = request.limit(&Limit::new("one", Some(rate)));
        }
        let bytes = if random.bool() {
            let mut response = asks.run(request.stream()).unwrap();
            if random.u8(..4) == 0 {
                // A reader that takes its time: the pause is of the reader's, so nothing is late.
                asks.runtime.run(tidegate::task::sleep(Duration::from_millis(20))).unwrap();
            }
            asks.read(&mut response).unwrap()
        } else {
            asks.run(request).unwrap().into_bytes()
        };
        assert!(bytes == pattern(0, length), "request {n}: {} bytes of {length}", bytes.len());
    }
}

#[test]
fn bytes_that_are_sent_are_the_same_under_any_rate_and_framing() {
    let seed =
        std::env::var("TIDEGATE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(fastrand::u64(..));
    println!("TIDEGATE_SEED={seed}");
    let sink = server(|_, caller| {
        while let Some(head) = caller.request() {
            let length: usize = head.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
            if head.contains("Expect: 100-continue") {
                caller.say("HTTP/1.1 100 Continue\r\n\r\n");
            }
            let body = if head.contains("Transfer-Encoding: chunked") {
                let mut all = Vec::new();
                loop {
                    let line = String::from_utf8(caller.until(b"\r\n")).unwrap();
                    let size = usize::from_str_radix(line.trim(), 16).unwrap();
                    all.extend(caller.body(size));
                    assert_eq!(caller.body(2), b"\r\n");
                    if size == 0 {
                        break all;
                    }
                }
            } else {
                caller.body(length)
            };
            let verdict = if body == pattern(0, length) { "same" } else { "other" };
            caller.say(client_support::ok(verdict));
        }
    });
    let asks = Asks::new();
    let mut random = fastrand::Rng::with_seed(seed);
    for n in 0..30 {
        let length = if n % 4 == 0 { random.usize(..3_000_000) } else { random.usize(..10_000) };
        let url = sink.url(&format!("/{length}"));
        let bytes = pattern(0, length);
        let limit = Limit::new("one", Some(random.u64(5_000_000..50_000_000)));
        let whole = random.bool();
        let (writer, stream) = body_stream(random.usize(1..100_000));
        let body = match whole {
            true if random.bool() => Body::Bytes(bytes.clone()),
            true => Body::Page { hash: 0, bytes: Arc::from(&bytes[..]) },
            false => Body::Stream(stream),
        };
        let response = asks.runtime.spawn(asks.client.put(url, body).upload_limit(&limit));
        let mut rest = &bytes[..];
        while !whole && !rest.is_empty() {
            let (now, later) = rest.split_at(random.usize(1..=rest.len().min(90_000)));
            asks.runtime.run(writer.send(now.to_vec())).unwrap().unwrap();
            rest = later;
        }
        writer.finish();
        let response = response.wait_for(client_support::PATIENCE).unwrap().unwrap().unwrap();
        assert_eq!(response.text(), "same", "request {n} of {length} bytes, whole: {whole}");
    }
}
