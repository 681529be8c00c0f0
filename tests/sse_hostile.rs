//! Clients that ask for nonsense, come and go, or take nothing; and publishers that are too fast: nothing is lost without a
//! word, and nothing grows without bound.
#![cfg(feature = "sse")]

mod sse_support;
mod support;

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use sse_support::*;
use support::{PATIENCE, await_that};
use tidegate::http::Reply;
use tidegate::poller::Reason;
use tidegate::runtime::Runtime;
use tidegate::sse::{Bound, Delivery, Event, Hub, Policy, PublishError, stream};

fn large(number: u32) -> Event {
    Event::data(format!("{number} {}", "x".repeat(4_000)))
}

/// Of a client that asked, and reads nothing for now.
fn sleeper(running: &Running, path: &str) -> Listener {
    let stream = tidegate_meter::sys::connect_with_small_window(running.address, 32 * 1024).unwrap();
    Listener::silent(stream, path, "")
}

#[test]
fn ids_that_nobody_gave_bring_all_there_is_and_a_gap() {
    let hub = Hub::builder().ring(3, 1 << 20).first_id(10).build();
    let running = Running::of(&hub);
    for number in 1..=5 {
        hub.publish("t", Event::data(number.to_string())).unwrap();
    }
    // 10 to 14 were published, 12 to 14 are kept. Too old, before all, not yet given, no numbers, and worse.
    let long = "9".repeat(7_000);
    let ids = [
        "10",
        "8",
        "15",
        "18446744073709551615",
        "18446744073709551616",
        "-1",
        "0x0c",
        "12 13",
        "12\u{0}",
        &long,
        "\u{fffd}",
    ];
    for id in ids {
        let mut listener = Listener::connect(
            running.address,
            "/t",
            &format!("Last-Event-ID: {}\r\n", id.replace('\0', "%00")),
        );
        let gap = listener.next().unwrap();
        assert_eq!((gap.event.as_str(), gap.data.as_str()), ("gap", "11"), "{id:?}");
        assert_eq!(listener.data(3), ["3", "4", "5"], "{id:?}");
    }
    // No text at all, and line ends by way of the query.
    for (target, field) in [
        ("/t", &b"Last-Event-ID: \xff\xfe\xc3\r\n"[..]),
        ("/t?lastEventId=12%0Adata:%20evil%0A%0A", b""),
        ("/t?lastEventId=%00%ff+", b""),
    ] {
        let mut listener = Listener::unasked(running.address);
        let head = [b"GET ", target.as_bytes(), b" HTTP/1.1\r\nHost: test\r\n", field, b"\r\n"].concat();
        listener.stream.write_all(&head).unwrap();
        listener.read_head();
        assert_eq!(listener.next().unwrap().event, "gap");
        assert_eq!(listener.data(3), ["3", "4", "5"]);
        assert!(!listener.text.contains("evil"), "{}", listener.text);
    }
    // What is known brings what comes after it: the last but one that is gone, one that is kept, the very last.
    for (id, rest) in [("11", &["3", "4", "5"][..]), ("13", &["5"]), ("14", &[])] {
        let mut listener = Listener::connect(running.address, "/t", &format!("Last-Event-ID: {id}\r\n"));
        assert_eq!(listener.data(rest.len()), rest, "{id}");
    }
    await_subscribers(&hub, 0);
    assert_eq!((hub.figures().gaps, hub.figures().subscribed), (14, 17));
    running.stop(Duration::ZERO);
}

#[test]
fn clients_that_leave_while_many_publish_take_nothing_from_those_that_stay() {
    const THREADS: u32 = 4;
    const EACH: u32 = 2_000;
    let left = Arc::<Mutex<u64>>::default();
    let hub = {
        let left = left.clone();
        let bound = Bound { events: 20_000, bytes: 64 << 20 };
        Hub::builder()
            .delivery(Delivery { bound, ..Delivery::default() })
            .on_left(move |record| *left.lock().unwrap() += record.events_sent)
            .build()
    };
    let running = Running::of(&hub);
    let address = running.address;
    let mut stays: Vec<Listener> = (0..4).map(|_| Listener::connect(address, "/t+u", "")).collect();
    await_subscribers(&hub, 4);
    let stop = Arc::new(AtomicBool::new(false));
    let coming_and_going: Vec<_> = (0..2)
        .map(|seed| {
            let stop = stop.clone();
            thread::spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                while !stop.load(Relaxed) {
                    let mut listener = Listener::connect(address, "/t", "Last-Event-ID: 0\r\n");
                    (0..random.usize(0..5)).for_each(|_| drop(listener.next()));
                    if random.bool() {
                        tidegate_meter::sys::reset_on_close(&listener.stream).unwrap();
                    }
                }
            })
        })
        .collect();
    let publishing: Vec<_> = (0..THREADS)
        .map(|thread| {
            let hub = hub.clone();
            thread::spawn(move || {
                for number in 0..EACH {
                    let topic = if number % 2 == 0 { "t" } else { "u" };
                    hub.publish(topic, Event::data(format!("{thread} {number}"))).unwrap();
                }
            })
        })
        .collect();
    publishing.into_iter().for_each(|thread| thread.join().unwrap());
    let mut orders = stays.iter_mut().map(|listener| listener.data((THREADS * EACH) as usize));
    let first = orders.next().unwrap();
    assert!(orders.all(|order| order == first), "all in the same order");
    for thread in 0..THREADS {
        let own: Vec<u32> = first
            .iter()
            .filter_map(|data| data.strip_prefix(&format!("{thread} ")))
            .map(|number| number.parse().unwrap())
            .collect();
        assert_eq!(own, (0..EACH).collect::<Vec<_>>());
    }
    stop.store(true, Relaxed);
    coming_and_going.into_iter().for_each(|thread| thread.join().unwrap());
    drop(stays);
    await_subscribers(&hub, 0);
    let figures = hub.figures();
    assert_eq!((figures.dropped, figures.cut_slow), (0, 0));
    // What each was sent is what was delivered; the last may be about to be told of.
    await_that("all have been told of", || (*left.lock().unwrap() == figures.delivered).then_some(()));
    running.stop(Duration::ZERO);
}

#[test]
fn a_record_tells_what_became_of_a_slow_clients_events_and_only_of_those() {
    const BOUND: usize = 5;
    let bound = Bound { events: BOUND, bytes: 1 << 20 };
    let delivery = Delivery { policy: Policy::DropOldest, bound, ..Delivery::default() };
    let hub = Hub::builder().delivery(delivery).build();
    let topics = topics(&hub);
    let running = Running::start(move |exchange: &mut Exchange| match exchange.context.request().target() {
        b"/plain" => exchange.context.reply = Reply::text("no events"),
        b"/own" => {
            let (writer, reply) = stream(4);
            exchange.context.reply = reply;
            assert!(writer.try_send(&Event::data("one")).unwrap());
            assert!(writer.try_send(&Event::data("two")).unwrap());
        }
        _ => topics(exchange),
    });
    let slow = sleeper(&running, "/t");
    await_subscribers(&hub, 1);
    let mut published = 0;
    await_that("it is full", || {
        published += 1;
        hub.publish("t", large(published)).unwrap();
        (hub.figures().dropped > 10).then_some(())
    });
    drop(slow);
    let record = running.record();
    let facts = record.events.as_deref().expect("what became of its events");
    assert_eq!((facts.queue_peak, facts.conflated), (BOUND as u64, 0));
    assert_eq!((facts.dropped, facts.sent), (hub.figures().dropped, hub.figures().delivered));
    assert!(facts.sent > 0 && facts.sent + facts.dropped <= u64::from(published), "{facts:?}");
    assert_eq!((record.end.reason, record.phase), (Reason::Abort, "reply"));

    // One that ends well, and one that a task wrote.
    let mut keeps_up = Listener::connect(running.address, "/t", "");
    await_subscribers(&hub, 1);
    for number in 1..=3 {
        hub.publish("t", large(number)).unwrap();
    }
    keeps_up.data(3);
    hub.close(Some(Event::data("bye")));
    assert!(keeps_up.ended_well());
    let record = running.record();
    let facts = record.events.as_deref().unwrap();
    assert_eq!((facts.sent, facts.dropped, record.end.reason), (4, 0, Reason::Ok));
    assert!((1..=4).contains(&facts.queue_peak));
    assert!(Listener::connect(running.address, "/own", "").ended_well());
    assert_eq!(running.record().events.as_deref().map(|facts| (facts.sent, facts.queue_peak)), Some((2, 2)));
    for path in ["/plain", "/t"] {
        drop(Listener::connect(running.address, path, ""));
        assert_eq!(running.record().events, None, "{path}");
    }
    running.stop(Duration::ZERO);
}

#[test]
fn a_poller_that_is_held_up_has_publishers_wait_before_its_line_grows_without_bound() {
    let hub = Hub::new();
    let (hold, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let (tell, told) = mpsc::channel();
    let topics = topics(&hub);
    let running = Running::start(move |exchange: &mut Exchange| match exchange.context.request().target() {
        // What no handler should do.
        b"/hold" => {
            tell.send(()).unwrap();
            let _ = held.lock().unwrap().recv();
            exchange.context.reply = Reply::text("");
        }
        _ => topics(exchange),
    });
    let runtime = Runtime::new().unwrap();
    // On both pollers, as likely as not; one of them is held up.
    let mut listeners: Vec<Listener> =
        (0..16).map(|_| Listener::connect(running.address, "/t", "")).collect();
    await_subscribers(&hub, 16);
    let _holder = Listener::silent(std::net::TcpStream::connect(running.address).unwrap(), "/hold", "");
    told.recv_timeout(PATIENCE).unwrap();
    let mut published = 0_u64;
    let begun = Instant::now();
    while hub.publish("t", Event::data("x")).is_ok() {
        published += 1;
        assert!(published < 1_000_000 && begun.elapsed() < PATIENCE, "{published}");
    }
    assert!(published >= 65_536, "{published}");
    assert_eq!(hub.publish("t", Event::data("x")), Err(PublishError::Congested));
    hub.publish("other", Event::data("x")).unwrap();
    let waits = runtime.spawn(hub.publish_waiting("t", Event::data("at last")));
    drop(hold);
    waits.wait_for(PATIENCE).unwrap().unwrap().unwrap();
    for listener in &mut listeners {
        listener.await_text("at last");
    }
    assert_eq!(hub.figures().congested, 2);
    running.stop(Duration::ZERO);
}

#[test]
fn a_server_that_stops_lets_those_go_on_who_wait_for_its_clients() {
    let bound = Bound { events: 2, bytes: 1 << 20 };
    let delivery = Delivery { policy: Policy::Block, bound, ..Delivery::default() };
    let hub = Hub::builder().delivery(delivery).build();
    let running = Running::of(&hub);
    let runtime = Runtime::new().unwrap();
    let _slow = sleeper(&running, "/t");
    await_subscribers(&hub, 1);
    let waiting = loop {
        match runtime.spawn(hub.publish_waiting("t", large(1))).wait_for(Duration::from_millis(200)) {
            Ok(sent) => {
                sent.unwrap().unwrap();
            }
            Err(waits) => break waits,
        }
    };
    let more: Vec<_> = (0..10).map(|number| runtime.spawn(hub.publish_waiting("t", large(number)))).collect();
    let begun = Instant::now();
    running.stop(Duration::from_millis(300));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    waiting.wait_for(PATIENCE).unwrap().unwrap().unwrap();
    for sent in more {
        sent.wait_for(PATIENCE).unwrap().unwrap().unwrap();
    }
    // The hub serves others.
    let next = Running::of(&hub);
    let mut listener = Listener::connect(next.address, "/t", "");
    await_subscribers(&hub, 1);
    hub.publish("t", Event::data("here")).unwrap();
    listener.await_text("here");
    next.stop(Duration::ZERO);
}

#[test]
fn subscribers_outlive_the_handles_of_their_hub_and_are_recorded() {
    let (tell, told) = mpsc::channel();
    let delivery = Delivery { heartbeat: Some(Duration::from_millis(50)), ..Delivery::default() };
    let hub =
        Hub::builder().delivery(delivery).on_left(move |record| tell.send(record.clone()).unwrap()).build();
    hub.publish("t", Event::data("kept")).unwrap();
    // The handler lets go of it with the one request it answers.
    let handle = Arc::new(Mutex::new(Some(hub)));
    let running = Running::start(move |exchange: &mut Exchange| {
        let hub = handle.lock().unwrap().take().unwrap();
        exchange.context.reply = hub.subscribe(["t"]).resume_after("0").reply();
    });
    let mut listener = Listener::connect(running.address, "/", "");
    assert_eq!(listener.data(1), ["kept"]);
    // Heartbeats go on.
    for _ in 0..3 {
        listener.await_more();
    }
    drop(listener);
    let record = told.recv_timeout(PATIENCE).unwrap();
    assert_eq!((record.events_sent, &*record.topics[0]), (1, "t"));
    assert_eq!(running.record().events.as_deref().map(|facts| facts.sent), Some(1));
    running.stop(Duration::ZERO);
}
