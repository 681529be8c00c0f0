//! The client of event streams, against our server, nginx, and servers that misbehave.
#![cfg(feature = "sse")]

mod sse_support;
mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use sse_support::{Running, await_subscribers};
use support::{PATIENCE, await_that};
use tidegate::http::{get, post};
use tidegate::runtime::Runtime;
use tidegate::sse::{
    Event, EventSource, EventSourceError, EventSourceSettings, Hub, Message, ParserLimits, TooLong, connect,
};
use tidegate::task::{Elapsed, TaskExt as _};

fn quick() -> EventSourceSettings {
    EventSourceSettings { retry: Duration::from_millis(10), ..EventSourceSettings::default() }
}

fn source(address: SocketAddr, settings: EventSourceSettings) -> EventSource {
    EventSource::new(settings, move || get(format!("http://{address}/t")))
}

fn next(runtime: &Runtime, source: &EventSource) -> Result<Option<Message>, EventSourceError> {
    runtime.spawn(source.next()).wait_for(PATIENCE).expect("an answer in time").unwrap()
}

/// Answers each connection with the next of these texts, and closes it. Gives back the requests.
fn scripted(replies: Vec<String>) -> (SocketAddr, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = thread::spawn(move || {
        let answer = |reply: String| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") {
                assert_eq!(stream.read(&mut byte).unwrap(), 1);
                request.push(byte[0]);
            }
            stream.write_all(reply.as_bytes()).unwrap();
            String::from_utf8(request).unwrap()
        };
        replies.into_iter().map(answer).collect()
    });
    (address, serving)
}

fn stream_of(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n{body}")
}

fn status(status: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nContent-Type: text/html\r\n\r\n")
}

#[test]
fn events_come_from_our_own_hub_until_it_closes() {
    let hub = Hub::new();
    let running = Running::of(&hub);
    let runtime = Runtime::new().unwrap();
    let events = connect(format!("http://{}/t", running.address));
    let first = runtime.spawn(events.next());
    await_subscribers(&hub, 1);
    for number in 1..=50 {
        hub.publish("t", Event::data(number.to_string()).with_name("n")).unwrap();
    }
    assert_eq!(first.wait_for(PATIENCE).unwrap().unwrap().unwrap().unwrap().data, "1");
    for number in 2..=50 {
        let message = next(&runtime, &events).unwrap().unwrap();
        assert_eq!(
            (message.data, message.event.as_str(), message.id.to_string()),
            (number.to_string(), "n", number.to_string())
        );
    }
    hub.close(None);
    // It comes again, and is told not to.
    assert_eq!(next(&runtime, &events).unwrap(), None);
    assert_eq!(next(&runtime, &events).unwrap(), None);
    running.stop(PATIENCE);
}

#[test]
fn it_connects_again_and_goes_on_after_the_last_whole_event() {
    let (address, requests) = scripted(vec![
        stream_of("retry: 1\nid: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\ndata: cut in the mid"),
        status("503 Service Unavailable"),
        stream_of("id: 3\ndata: c\n\n"),
        status("204 No Content"),
    ]);
    let runtime = Runtime::new().unwrap();
    let events = source(address, quick());
    let data: Vec<String> =
        std::iter::from_fn(|| next(&runtime, &events).unwrap().map(|message| message.data)).collect();
    assert_eq!(data, ["a", "b", "c"]);
    let ids: Vec<Option<String>> = requests
        .join()
        .unwrap()
        .iter()
        .map(|request| {
            assert!(request.to_ascii_lowercase().contains("accept: text/event-stream\r\n"), "{request}");
            let lower = request.to_ascii_lowercase();
            lower.lines().find_map(|line| line.strip_prefix("last-event-id: ").map(str::to_owned))
        })
        .collect();
    assert_eq!(ids, [None, Some("2".into()), Some("2".into()), Some("3".into())]);
}

#[test]
fn what_is_no_stream_of_events_is_an_error() {
    let html = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi".to_owned();
    let (address, _requests) = scripted(vec![html, status("404 Not Found")]);
    let runtime = Runtime::new().unwrap();
    let error = next(&runtime, &source(address, quick())).unwrap_err();
    assert!(matches!(&error, EventSourceError::ContentType(other) if other == "text/html"), "{error}");
    let error = next(&runtime, &source(address, quick())).unwrap_err();
    assert!(matches!(&error, EventSourceError::Status(status) if status.as_u16() == 404), "{error}");
}

#[test]
fn a_line_without_end_is_an_error() {
    let (address, _requests) = scripted(vec![stream_of(&format!("data: {}", "x".repeat(5_000)))]);
    let limits = ParserLimits { line_bytes: 1_000, event_bytes: 1_000 };
    let runtime = Runtime::new().unwrap();
    let error = next(&runtime, &source(address, EventSourceSettings { limits, ..quick() })).unwrap_err();
    assert!(matches!(error, EventSourceError::TooLong(TooLong::Line(1_000))), "{error}");
}

#[test]
fn attempts_that_bring_nothing_come_to_an_end_where_that_is_wanted() {
    // Nobody listens there any more.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let runtime = Runtime::new().unwrap();
    let events = source(address, EventSourceSettings { max_attempts: Some(3), ..quick() });
    let error = next(&runtime, &events).unwrap_err();
    assert!(matches!(error, EventSourceError::Attempts(3)), "{error}");
}

#[test]
fn a_silent_stream_is_given_up_and_begun_anew() {
    let hub = Hub::new();
    let running = Running::of(&hub);
    let runtime = Runtime::new().unwrap();
    let idle_timeout = Some(Duration::from_millis(100));
    let events = source(running.address, EventSourceSettings { idle_timeout, ..quick() });
    let waiting = runtime.spawn(events.next());
    await_that("it has begun anew twice", || (hub.figures().subscribed >= 3).then_some(()));
    hub.publish("t", Event::data("at last")).unwrap();
    // It may be between two streams just then; the ring has it, but a client without an id asks for nothing.
    let published = thread::spawn({
        let hub = hub.clone();
        move || {
            while hub.figures().delivered == 0 {
                hub.publish("t", Event::data("at last")).unwrap();
                // How often it is said anew.
                thread::sleep(Duration::from_millis(20));
            }
        }
    });
    assert_eq!(waiting.wait_for(PATIENCE).unwrap().unwrap().unwrap().unwrap().data, "at last");
    published.join().unwrap();
    running.stop(Duration::ZERO);
}

#[test]
fn who_stops_waiting_loses_nothing_and_two_cannot_wait_at_once() {
    let hub = Hub::new();
    let running = Running::of(&hub);
    let runtime = Runtime::new().unwrap();
    let address = running.address;
    // A stream may as well begin with POST.
    let events = EventSource::new(quick(), move || post(format!("http://{address}/t"), "{}"));
    let short = Duration::from_millis(1);
    for number in 1..=30 {
        // Nothing has been published: whoever waits gives up, at whatever stage of connecting and reading it is.
        let given_up = runtime.run(events.next().timeout(short)).unwrap();
        assert!(matches!(given_up, Err(Elapsed)), "{given_up:?}");
        await_that("it lets go in its own time", || events.last_event_id());
        if number == 1 {
            await_subscribers(&hub, 1);
        }
        hub.publish("t", Event::data(number.to_string())).unwrap();
        assert_eq!(next(&runtime, &events).unwrap().unwrap().data, number.to_string());
    }
    assert_eq!(hub.figures().subscribed, 1, "what was begun went on");
    let waits = runtime.spawn(events.next());
    let error = loop {
        // Until the other one has begun to wait.
        if let Err(error) = next(&runtime, &events) {
            break error;
        }
    };
    assert!(matches!(error, EventSourceError::InUse), "{error}");
    waits.cancel();
    running.stop(Duration::ZERO);
}

#[test]
fn what_a_server_is_not_up_to_now_is_asked_again() {
    let (address, requests) = scripted(vec![
        "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            .to_owned(),
        status("500 Internal Server Error"),
        status("520 Something of a proxy"),
        status("408 Request Timeout"),
        status("429 Too Many Requests"),
        stream_of("data: a\n\n"),
        status("501 Not Implemented"),
    ]);
    let runtime = Runtime::new().unwrap();
    let settings = EventSourceSettings { max_retry_wait: Duration::from_millis(20), ..quick() };
    let events = source(address, settings);
    assert_eq!(next(&runtime, &events).unwrap().unwrap().data, "a");
    let error = next(&runtime, &events).unwrap_err();
    assert!(matches!(&error, EventSourceError::Status(status) if status.as_u16() == 501), "{error}");
    assert_eq!(next(&runtime, &events).unwrap(), None, "that was the end");
    let requests = requests.join().unwrap();
    assert!(requests[1].starts_with("GET /elsewhere ") && requests[2].starts_with("GET /t "), "{requests:?}");
}

#[test]
fn an_id_that_no_field_can_carry_does_not_end_the_stream() {
    let (address, requests) = scripted(vec![
        stream_of("id: a\u{1}b\ndata: 1\n\n"),
        stream_of("id: \u{e9} 2\ndata: 2\n\n"),
        stream_of("id\ndata: 3\n\n"),
        status("204 No Content"),
    ]);
    let runtime = Runtime::new().unwrap();
    let events = source(address, quick());
    let ids: Vec<String> =
        std::iter::from_fn(|| next(&runtime, &events).unwrap().map(|message| message.id.to_string()))
            .collect();
    assert_eq!(ids, ["a\u{1}b", "\u{e9} 2", ""]);
    let said: Vec<bool> = requests
        .join()
        .unwrap()
        .iter()
        .map(|request| request.to_lowercase().contains("last-event-id: \u{e9} 2\r\n"))
        .collect();
    assert_eq!(said, [false, false, true, false]);
}

#[test]
fn quiet_streams_are_no_attempts_in_vain_and_short_ones_are() {
    let served = |hold: Duration| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let mut stream = stream;
                let _ = stream.read(&mut [0; 1_000]);
                let event = if number < 4 { ":\n" } else { "data: at last\n\n" };
                let _ = stream.write_all(stream_of(event).as_bytes());
                // How long it says nothing.
                thread::sleep(hold);
            }
        });
        address
    };
    let settings = EventSourceSettings {
        retry: Duration::from_millis(1),
        max_retry_wait: Duration::from_millis(50),
        max_attempts: Some(3),
        ..EventSourceSettings::default()
    };
    let runtime = Runtime::new().unwrap();
    let events = source(served(Duration::from_millis(100)), settings.clone());
    assert_eq!(next(&runtime, &events).unwrap().unwrap().data, "at last");
    let error = next(&runtime, &source(served(Duration::ZERO), settings)).unwrap_err();
    assert!(matches!(error, EventSourceError::Attempts(3)), "{error}");
}
