//! Hubs of server-sent events, over real sockets.
#![cfg(feature = "sse")]

mod sse_support;
mod support;

use std::io::Write as _;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use sse_support::{Listener, Running, await_subscribers, topics};
use support::{PATIENCE, await_that};
use tidegate::http::ServerSettings;
use tidegate::net::Pacing;
use tidegate::poller::{Budget, Limit, Reason};
use tidegate::runtime::Runtime;
use tidegate::sse::{
    Bound, Delivery, Departure, Event, EventRate, Hub, Message, Policy, PublishError, SubscriberRecord,
};
use tidegate::task::Spender;
use tidegate_meter::sys::connect_with_small_window;

fn hub(delivery: Delivery) -> Hub {
    Hub::builder().delivery(delivery).build()
}

/// With so many events as a bound.
fn bounded(policy: Policy, events: usize) -> Delivery {
    Delivery { policy, bound: Bound { events, bytes: usize::MAX }, ..Delivery::default() }
}

fn publish(hub: &Hub, topic: &str, range: std::ops::RangeInclusive<u32>) {
    for number in range {
        hub.publish(topic, Event::data(number.to_string())).unwrap();
    }
}

fn numbers(range: std::ops::RangeInclusive<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// Of so many bytes, so that few fill what lies between server and client.
fn large(number: u32) -> Event {
    Event::data(format!("{number} {}", "x".repeat(4_000))).with_name("n").with_key(number.to_string())
}

/// A client with little room that asks and does not read.
fn sleeper(running: &Running, path: &str) -> Listener {
    Listener::silent(connect_with_small_window(running.address, 32 * 1024).unwrap(), path, "")
}

#[test]
fn the_head_keeps_others_from_holding_the_stream_up() {
    let hub = hub(Delivery {
        retry: Some(Duration::from_secs(3)),
        retry_jitter: Duration::from_secs(2),
        ..Delivery::default()
    });
    let running = Running::of(&hub);
    let mut listener = Listener::connect(running.address, "/t", "");
    for field in [
        "HTTP/1.1 200",
        "Content-Type: text/event-stream\r\n",
        "Cache-Control: no-cache\r\n",
        "X-Accel-Buffering: no\r\n",
    ] {
        assert!(listener.head.contains(field), "{field} is not in {}", listener.head);
    }
    listener.await_text("\n\n");
    let retry: u64 = listener.text.trim().strip_prefix("retry: ").unwrap().parse().unwrap();
    assert!((3_000..=5_000).contains(&retry), "{retry}");
    running.stop(Duration::ZERO);
}

#[test]
fn all_subscribers_get_all_events_in_one_order_from_many_publishers() {
    const THREADS: u32 = 4;
    const EACH: u32 = 50;
    let hub = hub(bounded(Policy::DropOldest, 1_000));
    let running = Running::of(&hub);
    let mut listeners: Vec<Listener> = (0..20)
        .map(|at| Listener::connect(running.address, if at % 2 == 0 { "/a" } else { "/a+b" }, ""))
        .collect();
    await_subscribers(&hub, 20);
    let barrier = Arc::new(Barrier::new(THREADS as usize));
    let publishers: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (hub, barrier) = (hub.clone(), barrier.clone());
            thread::spawn(move || {
                barrier.wait();
                for number in 0..EACH {
                    let topic = if number % 5 == 0 { "b" } else { "a" };
                    hub.publish(topic, Event::data(format!("{topic} {thread} {number}"))).unwrap();
                }
            })
        })
        .collect();
    publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
    let of_both = listeners[1].data((THREADS * EACH) as usize);
    let of_a: Vec<String> = of_both.iter().filter(|data| data.starts_with('a')).cloned().collect();
    assert_eq!(of_a.len(), (THREADS * EACH * 4 / 5) as usize);
    for (at, listener) in listeners.iter_mut().enumerate().filter(|(at, _)| *at != 1) {
        let expected = if at % 2 == 0 { &of_a } else { &of_both };
        assert_eq!(&listener.data(expected.len()), expected, "{at}");
    }
    for thread in 0..THREADS {
        let own: Vec<&String> =
            of_both.iter().filter(|data| data.split(' ').nth(1) == Some(&thread.to_string())).collect();
        assert!(own.windows(2).all(|two| number_of(two[0]) < number_of(two[1])), "{own:?}");
    }
    let figures = await_that("all are counted", || {
        let figures = hub.figures();
        (figures.delivered == u64::from(20 * THREADS * EACH * 9 / 10)).then_some(figures)
    });
    assert_eq!((figures.published, figures.dropped, figures.subscribers), (u64::from(THREADS * EACH), 0, 20));
    running.stop(Duration::ZERO);
}

fn number_of(data: &str) -> u32 {
    data.split(' ').next_back().unwrap().parse().unwrap()
}

#[test]
fn who_comes_back_gets_what_it_missed_and_no_more() {
    let hub = Hub::new();
    let running = Running::of(&hub);
    publish(&hub, "t", 1..=5);
    hub.publish("other", Event::data("not for them")).unwrap();
    publish(&hub, "t", 7..=8);
    let mut missed = vec!["4".to_owned(), "5".into(), "7".into(), "8".into()];
    for (path, fields) in [("/t", "Last-Event-ID: 3\r\n"), ("/t?a=b&lastEventId=3", "")] {
        let mut listener = Listener::connect(running.address, path, fields);
        assert_eq!(listener.data(missed.len()), missed);
        missed.push("9".to_owned());
        await_that("it is subscribed", || (hub.figures().subscribers == 1).then_some(()));
        let next = hub.publish("t", Event::data("9")).unwrap();
        let message = listener.next().unwrap();
        assert_eq!((message.data.as_str(), &*message.id), ("9", next.to_string().as_str()));
        drop(listener);
        // A client that is gone is noticed at once.
        await_subscribers(&hub, 0);
    }
    // From now on.
    let mut fresh = Listener::connect(running.address, "/t", "");
    await_subscribers(&hub, 1);
    publish(&hub, "t", 50..=50);
    assert_eq!(fresh.data(1), ["50"]);
    assert_eq!(hub.figures().gaps, 0);
    running.stop(Duration::ZERO);
}

#[test]
fn a_gap_is_told_of_and_never_otherwise() {
    let hub = Hub::builder().ring(3, 1 << 20).first_id(100).build();
    let running = Running::of(&hub);
    publish(&hub, "t", 100..=105);
    let come_back = |id: &str| {
        let field = format!("Last-Event-ID: {id}\r\n");
        let mut listener = Listener::connect(running.address, "/t", &field);
        let mut messages: Vec<Message> = Vec::new();
        while messages.last().is_none_or(|last| last.data != "105") {
            messages.push(listener.next().unwrap());
        }
        let gap = messages[0].event == "gap";
        (gap, messages.into_iter().map(|message| message.id.to_string()).collect::<Vec<_>>())
    };
    // The ring has 103 to 105; who has 102 misses nothing.
    assert_eq!(come_back("102"), (false, vec!["103".into(), "104".into(), "105".into()]));
    for id in ["101", "99", "5000", "7", "of another server", "18446744073709551616"] {
        let (gap, ids) = come_back(id);
        assert_eq!((gap, ids), (true, numbers(102..=105)), "{id}");
    }
    assert_eq!(hub.figures().gaps, 6);
    running.stop(Duration::ZERO);
}

#[test]
fn ids_may_be_given() {
    let hub = Hub::new();
    let running = Running::of(&hub);
    for id in ["x", "y", "z"] {
        hub.publish("t", Event::data(id).with_id(id)).unwrap();
    }
    let mut listener = Listener::connect(running.address, "/t", "Last-Event-ID: x\r\n");
    assert_eq!(listener.data(2), ["y", "z"]);
    let mut lost = Listener::connect(running.address, "/t", "Last-Event-ID: w\r\n");
    assert_eq!(lost.next().unwrap().event, "gap");
    running.stop(Duration::ZERO);
}

#[test]
fn heartbeats_come_before_the_first_event_and_in_every_silence() {
    let beat = Duration::from_millis(40);
    for name in [None, Some(String::from("beat"))] {
        let hub =
            hub(Delivery { heartbeat: Some(beat), heartbeat_event: name.clone(), ..Delivery::default() });
        let running = Running::of(&hub);
        let began = Instant::now();
        let mut listener = Listener::connect(running.address, "/t", "");
        let expected = if name.is_some() { "event: beat\ndata: \n\n".repeat(3) } else { ": \n\n".repeat(4) };
        listener.await_text(&expected);
        assert!(began.elapsed() >= beat * 3, "{:?}", began.elapsed());
        assert!(hub.figures().heartbeats >= 3);
        publish(&hub, "t", 1..=1);
        assert!((0..100).any(|_| listener.next().unwrap().data == "1"));
        running.stop(Duration::ZERO);
    }
}

#[test]
fn one_slow_reader_among_fifty_holds_nobody_up() {
    let hub = hub(bounded(Policy::DropOldest, 10));
    let running = Running::of(&hub);
    let slow = sleeper(&running, "/t");
    let mut listeners: Vec<Listener> =
        (0..49).map(|_| Listener::connect(running.address, "/t", "")).collect();
    await_subscribers(&hub, 50);
    for round in 0..150 {
        let began = Instant::now();
        hub.publish("t", large(round)).unwrap();
        for listener in &mut listeners {
            assert_eq!(number_of_large(&listener.next().unwrap()), round);
        }
        assert!(began.elapsed() < Duration::from_secs(2), "round {round} took {:?}", began.elapsed());
    }
    assert!(hub.figures().dropped > 0, "the slow one has lost some");
    drop(slow);
    running.stop(Duration::ZERO);
}

fn number_of_large(message: &Message) -> u32 {
    message.data.split(' ').next().unwrap().parse().unwrap()
}

/// What a client that slept through 200 events was sent: numbers, and how many it was told it lost.
fn after_sleeping(policy: Policy) -> (Vec<u32>, u64, Hub) {
    let hub = hub(bounded(policy, 10));
    let running = Running::of(&hub);
    let mut slow = sleeper(&running, "/t");
    await_subscribers(&hub, 1);
    for number in 1..=200 {
        hub.publish("t", large(number)).unwrap();
    }
    await_that("the events were brought", || {
        let figures = hub.figures();
        (figures.dropped + figures.delivered >= 190).then_some(())
    });
    slow.read_head();
    let (mut seen, mut lost) = (Vec::new(), 0);
    while seen.len() as u64 + lost < 200 {
        let message = slow.next().unwrap();
        match message.event.as_str() {
            "lagged" => lost += message.data.parse::<u64>().unwrap(),
            _ => seen.push(number_of_large(&message)),
        }
    }
    running.stop(Duration::ZERO);
    (seen, lost, hub)
}

#[test]
fn the_oldest_are_dropped_and_counted_to_one() {
    let (seen, lost, hub) = after_sleeping(Policy::DropOldest);
    assert!(seen.windows(2).all(|two| two[0] < two[1]), "{seen:?}");
    assert!(seen.contains(&200) && lost > 100, "{lost}");
    assert_eq!(lost, hub.figures().dropped);
}

#[test]
fn the_newest_are_dropped_and_counted_to_one() {
    let (seen, lost, hub) = after_sleeping(Policy::DropNewest);
    assert!(seen.windows(2).all(|two| two[0] < two[1]), "{seen:?}");
    assert!(!seen.contains(&200) && lost > 100, "{lost}");
    assert_eq!(lost, hub.figures().dropped);
}

#[test]
fn only_the_latest_of_each_key_waits_where_that_is_wanted() {
    let hub = hub(bounded(Policy::Conflate, 10));
    let running = Running::of(&hub);
    let mut slow = sleeper(&running, "/t");
    await_subscribers(&hub, 1);
    for number in 1..=300 {
        let key = format!("k{}", number % 3);
        let data = format!("{key} {number} {}", "x".repeat(4_000));
        hub.publish("t", Event::data(data).with_key(key)).unwrap();
    }
    await_that("the events were brought", || (hub.figures().conflated > 200).then_some(()));
    slow.read_head();
    let mut latest = std::collections::HashMap::new();
    while latest.values().copied().filter(|number| *number > 297).count() < 3 {
        let message = slow.next().unwrap();
        let mut words = message.data.split(' ');
        let (key, number) = (words.next().unwrap().to_owned(), words.next().unwrap().parse::<u32>().unwrap());
        assert!(latest.insert(key, number) < Some(number), "{number} came late");
    }
    let figures = hub.figures();
    assert_eq!((figures.dropped, figures.delivered + figures.conflated), (0, 300));
    running.stop(Duration::ZERO);
}

#[test]
fn who_is_too_slow_is_cut_and_comes_back_for_the_rest() {
    let (tell, left) = mpsc::channel();
    let on_left = move |record: &SubscriberRecord| drop(tell.send(record.clone()));
    let hub = Hub::builder().delivery(bounded(Policy::Disconnect, 10)).on_left(on_left).build();
    let running = Running::of(&hub);
    let slow = sleeper(&running, "/t");
    await_subscribers(&hub, 1);
    for number in 1..=100 {
        hub.publish("t", large(number)).unwrap();
    }
    await_subscribers(&hub, 0);
    let record = running.record();
    assert_eq!(record.end.reason, Reason::SlowConsumer, "{record:?}");
    let left = left.recv_timeout(PATIENCE).unwrap();
    assert_eq!((left.departure, left.queue_peak), (Departure::Overflow, 10));
    assert_eq!(hub.figures().cut_slow, 1);
    drop(slow);
    let mut again = Listener::connect(running.address, "/t", "Last-Event-ID: 0\r\n");
    let seen: Vec<u32> = (0..100).map(|_| number_of_large(&again.next().unwrap())).collect();
    assert_eq!(seen, (1..=100).collect::<Vec<u32>>());
    running.stop(Duration::ZERO);
}

#[test]
fn who_is_held_back_by_a_budget_is_told_apart_from_who_is_slow() {
    let hub = hub(bounded(Policy::Disconnect, 10));
    let pacing = Pacing::builder().connection(10_000).build();
    let running = Running::with(topics(&hub), ServerSettings { pacing, ..ServerSettings::default() });
    // It reads all it can.
    let mut listener = Listener::connect(running.address, "/t", "");
    await_subscribers(&hub, 1);
    let reading = thread::spawn(move || listener.ended_well());
    let mut number = 0;
    while hub.figures().subscribers > 0 {
        number += 1;
        hub.publish("t", large(number)).unwrap();
        // Faster than the rate, and slower than a client that is not held back.
        thread::sleep(Duration::from_millis(20));
    }
    let record = running.record();
    assert_eq!(record.end.reason, Reason::Throttled, "{record:?}");
    assert!(record.pauses.throttled_ns > record.pauses.blocked_ns, "{:?}", record.pauses);
    assert!(!reading.join().unwrap());
    assert_eq!((hub.figures().cut_throttled, hub.figures().cut_slow), (1, 0));
    running.stop(Duration::ZERO);
}

#[test]
fn publishers_wait_for_the_slowest_where_that_is_wanted() {
    let hub = hub(bounded(Policy::Block, 4));
    let running = Running::of(&hub);
    let runtime = Runtime::new().unwrap();
    let mut slow = sleeper(&running, "/t");
    await_subscribers(&hub, 1);
    let mut number = 0;
    let waiting = loop {
        number += 1;
        let sent = runtime.spawn(hub.publish_waiting("t", large(number)));
        // As long as it takes nothing, it is full sooner or later.
        match sent.wait_for(Duration::from_millis(200)) {
            Ok(sent) => sent.unwrap().unwrap(),
            Err(waits) => break waits,
        };
    };
    assert_eq!(hub.publish("t", Event::data("x")), Err(PublishError::Congested));
    hub.publish("other", Event::data("x")).unwrap();
    let cancelled = runtime.spawn(hub.publish_waiting("t", large(0)));
    let last = runtime.spawn(hub.publish_waiting("t", large(number + 1)));
    cancelled.cancel();
    assert!(!waiting.is_done() && !last.is_done());
    slow.read_head();
    let seen: Vec<u32> = (0..=number).map(|_| number_of_large(&slow.next().unwrap())).collect();
    assert_eq!(seen, (1..=number + 1).collect::<Vec<u32>>());
    waiting.wait_for(PATIENCE).unwrap().unwrap().unwrap();
    last.wait_for(PATIENCE).unwrap().unwrap().unwrap();
    assert!(hub.figures().queue_peak <= 4 && hub.figures().dropped == 0);
    // One that leaves holds nobody up.
    drop(slow);
    await_subscribers(&hub, 0);
    hub.publish("t", Event::data("x")).unwrap();
    running.stop(Duration::ZERO);
}

#[test]
fn who_waits_for_a_subscriber_that_leaves_goes_on() {
    let hub = hub(bounded(Policy::Block, 2));
    let running = Running::of(&hub);
    let runtime = Runtime::new().unwrap();
    let slow = sleeper(&running, "/t");
    await_subscribers(&hub, 1);
    let waiting = loop {
        match runtime.spawn(hub.publish_waiting("t", large(1))).wait_for(Duration::from_millis(200)) {
            Ok(sent) => sent.unwrap().unwrap(),
            Err(waits) => break waits,
        };
    };
    drop(slow);
    waiting.wait_for(PATIENCE).unwrap().unwrap().unwrap();
    running.stop(Duration::ZERO);
}

#[test]
fn events_a_second_hold_for_each_client_and_the_rest_waits_or_is_conflated() {
    let rate = EventRate::with_burst(50.0, 2);
    let conflate_after = Some(Duration::from_millis(60));
    let hub = hub(Delivery { rate: Some(rate), conflate_after, ..Delivery::default() });
    let running = Running::of(&hub);
    let mut listener = Listener::connect(running.address, "/t", "");
    await_subscribers(&hub, 1);
    let began = Instant::now();
    for number in 1..=11 {
        hub.publish("t", Event::data(number.to_string()).with_key("k")).unwrap();
    }
    assert_eq!(listener.data(11), numbers(1..=11));
    let took = began.elapsed();
    // One or two at once, then one every 20 ms.
    assert!(took >= Duration::from_millis(170), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(hub.figures().conflated, 0);
    running.stop(Duration::ZERO);
}

#[test]
fn who_is_held_back_for_long_gets_only_the_latest() {
    let rate = EventRate::new(0.0);
    let conflate_after = Some(Duration::from_millis(50));
    let beat = Duration::from_millis(60);
    let hub = hub(Delivery {
        rate: Some(rate.clone()),
        conflate_after,
        heartbeat: Some(beat),
        ..bounded(Policy::Disconnect, 10)
    });
    let running = Running::of(&hub);
    let mut listener = Listener::connect(running.address, "/t", "");
    await_subscribers(&hub, 1);
    // The first goes, the second waits.
    publish(&hub, "t", 1..=2);
    assert_eq!(listener.data(1), ["1"]);
    // Heartbeats are not held back; two of them mean that the second has waited long enough.
    listener.await_text(&": \n\n".repeat(2));
    publish(&hub, "t", 3..=100);
    await_that("they are conflated", || (hub.figures().conflated == 98).then_some(()));
    rate.set_rate(1_000.0);
    assert_eq!(listener.data(1), ["100"]);
    assert_eq!(hub.figures().cut_throttled, 0);
    running.stop(Duration::ZERO);
}

#[test]
fn clients_share_a_budget_of_events() {
    let total = Budget::builder("events").rate(100).build();
    let hub = hub(Delivery { event_budgets: Some(Spender::new(&total)), ..Delivery::default() });
    let running = Running::of(&hub);
    let mut listeners = [(); 2].map(|()| Listener::connect(running.address, "/t", ""));
    await_subscribers(&hub, 2);
    let began = Instant::now();
    publish(&hub, "t", 1..=25);
    for listener in &mut listeners {
        assert_eq!(listener.data(25), numbers(1..=25));
    }
    // 50 events at 100 a second, but for what a budget lets go at once.
    assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());
    running.stop(Duration::ZERO);
}

#[test]
fn bytes_of_one_client_and_of_all_are_limited_by_the_reply() {
    let hub = hub(bounded(Policy::Block, 100));
    let total = Budget::builder("total").rate(60_000).build();
    let (subscribes, spends) = (hub.clone(), total.clone());
    let running = Running::start(move |exchange: &mut sse_support::Exchange| {
        let reply = subscribes.subscribe(["t"]).reply().budget(&spends);
        exchange.context.reply = match exchange.context.request().target() {
            b"/slow" => reply.limit(&Limit::new("slow", Some(10_000))),
            _ => reply,
        };
    });
    let mut listeners = ["/", "/", "/slow"].map(|path| Listener::connect(running.address, path, ""));
    await_subscribers(&hub, 3);
    let began = Instant::now();
    for number in 1..=15 {
        hub.publish("t", Event::data(format!("{number} {}", "x".repeat(1_000))).with_name("n")).unwrap();
    }
    let took = listeners.each_mut().map(|listener| {
        (1..=15).for_each(|number| assert_eq!(number_of_large(&listener.next().unwrap()), number));
        began.elapsed()
    });
    // 15 KB at 10 KB/s, but for a burst of a few hundred milliseconds; the others have 25 KB/s each.
    assert!(took[2] >= Duration::from_millis(1_000), "{took:?}");
    assert!(took[0] >= Duration::from_millis(250) && took[0] < took[2], "{took:?}");
    assert!(total.spent() > 45_000);
    running.stop(Duration::ZERO);
}

#[test]
fn a_hub_that_closes_says_its_last_word_and_has_nobody_come_again() {
    let hub = Hub::new();
    let running = Running::of(&hub);
    let mut listeners: Vec<Listener> = (0..5).map(|_| Listener::connect(running.address, "/t", "")).collect();
    await_subscribers(&hub, 5);
    publish(&hub, "t", 1..=3);
    hub.close(Some(Event::data("bye").with_name("end")));
    assert_eq!(hub.publish("t", Event::data("x")), Err(PublishError::Closed));
    for listener in &mut listeners {
        assert_eq!(listener.data(4), ["1", "2", "3", "bye"]);
        assert!(listener.next().is_none() && listener.ended_well());
    }
    let late = Listener::connect(running.address, "/t", "");
    assert!(late.head.starts_with("HTTP/1.1 204 "), "{}", late.head);
    await_subscribers(&hub, 0);
    running.stop(PATIENCE);
}

#[test]
fn a_server_that_stops_ends_its_streams_well() {
    let hub = Hub::new();
    let running = Running::of(&hub);
    let mut listeners: Vec<Listener> = (0..5).map(|_| Listener::connect(running.address, "/t", "")).collect();
    await_subscribers(&hub, 5);
    publish(&hub, "t", 1..=3);
    let began = Instant::now();
    let stopping = thread::spawn(move || running.stop(PATIENCE));
    for listener in &mut listeners {
        assert_eq!(listener.data(3), ["1", "2", "3"]);
        assert!(listener.next().is_none() && listener.ended_well());
    }
    drop(listeners);
    stopping.join().unwrap();
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
}

#[test]
fn a_server_that_stops_waits_no_longer_than_it_was_told_for_who_takes_nothing() {
    let hub = hub(bounded(Policy::DropOldest, 10));
    let running = Running::of(&hub);
    let _slow = sleeper(&running, "/t");
    await_subscribers(&hub, 1);
    for number in 1..=100 {
        hub.publish("t", large(number)).unwrap();
    }
    await_that("it is full", || (hub.figures().dropped > 0).then_some(()));
    let began = Instant::now();
    running.stop(Duration::from_millis(300));
    let took = began.elapsed();
    assert!((Duration::from_millis(290)..Duration::from_secs(5)).contains(&took), "{took:?}");
    assert_eq!(hub.figures().subscribers, 0);
}

#[test]
fn a_head_request_makes_no_subscriber_and_a_post_does() {
    let hub = Hub::new();
    let running = Running::of(&hub);
    let ask = |request: &str| {
        let mut listener = Listener::unasked(running.address);
        listener.stream.write_all(request.as_bytes()).unwrap();
        listener.read_head();
        assert!(listener.head.contains("Content-Type: text/event-stream"), "{}", listener.head);
        listener
    };
    drop(ask("HEAD /t HTTP/1.1\r\nHost: test\r\n\r\n"));
    assert_eq!(hub.figures().subscribed, 0);
    let posted = ask("POST /t HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\n{}");
    await_subscribers(&hub, 1);
    drop(posted);
    await_subscribers(&hub, 0);
    assert_eq!(hub.figures().topics, 0, "a topic that nobody needs is forgotten");
    running.stop(Duration::ZERO);
}

#[test]
fn one_client_cannot_take_all_topics() {
    let hub = Hub::builder().max_topics_each(3).build();
    let running = Running::of(&hub);
    let beyond = Listener::connect(running.address, "/a+b+c+d", "");
    assert!(beyond.head.starts_with("HTTP/1.1 400 "), "{}", beyond.head);
    let _kept = Listener::connect(running.address, "/a+b+c", "");
    await_subscribers(&hub, 1);
    assert_eq!(hub.figures().topics, 3);
    running.stop(Duration::ZERO);
}

#[test]
fn a_topic_can_be_forgotten() {
    let hub = Hub::builder().max_topics(2).build();
    let running = Running::of(&hub);
    publish(&hub, "a", 1..=1);
    publish(&hub, "b", 2..=2);
    assert_eq!(hub.publish("c", Event::data("x")), Err(PublishError::TooManyTopics));
    let mut listener = Listener::connect(running.address, "/b", "");
    await_subscribers(&hub, 1);
    hub.forget("a");
    hub.forget("b");
    hub.forget("never was");
    assert_eq!(hub.figures().topics, 1, "b has a subscriber");
    publish(&hub, "c", 3..=3);
    publish(&hub, "b", 4..=4);
    assert_eq!(listener.data(1), ["4"]);
    // Who was there before is told that there was something.
    let mut late = Listener::connect(running.address, "/b", "Last-Event-ID: 0\r\n");
    let gap = late.next().unwrap();
    assert_eq!((gap.event.as_str(), late.data(1)), ("gap", vec![String::from("4")]));
    running.stop(Duration::ZERO);
}

#[test]
fn topics_are_bounded() {
    let hub = Hub::builder().max_topics(2).build();
    let running = Running::of(&hub);
    let kept = [Listener::connect(running.address, "/a", ""), Listener::connect(running.address, "/b", "")];
    await_subscribers(&hub, 2);
    let beyond = Listener::connect(running.address, "/c", "");
    assert!(beyond.head.starts_with("HTTP/1.1 503 "), "{}", beyond.head);
    assert_eq!(hub.publish("c", Event::data("x")), Err(PublishError::TooManyTopics));
    drop(kept);
    await_subscribers(&hub, 0);
    hub.publish("c", Event::data("x")).unwrap();
    running.stop(Duration::ZERO);
}
