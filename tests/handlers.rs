//! Handlers as users write them: an exchange is a series.
#![cfg(feature = "http")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use support::{Host, PATIENCE, Waits};
use tidegate::http::{Body, Exchange, ServerSettings};
use tidegate::task::{Series, go, sleep};

/// What a caller of its own is answered.
fn answer(host: &Host) -> (u16, String) {
    let reply = host.connect().get("/");
    (reply.head.status, reply.body_text())
}

fn say(exchange: &mut Exchange, text: impl Into<String>) {
    exchange.context.reply.body = Body::Bytes(text.into().into_bytes());
}

#[test]
fn what_a_handler_adds_runs_before_the_reply_goes() {
    let host = Host::new(|exchange: &mut Exchange| {
        exchange.context.data.insert(vec![1]);
        exchange.push(go(|| 2), |two, exchange| {
            let numbers = exchange.context.data.get_mut::<Vec<i32>>().ok_or("the data is gone")?;
            numbers.push(two);
            exchange.push(sleep(Duration::from_millis(1)), |(), exchange| {
                let numbers = exchange.context.data.remove::<Vec<i32>>();
                say(exchange, format!("{numbers:?}"));
                Ok(())
            });
            Ok(())
        });
    });
    assert_eq!(answer(&host), (200, String::from("Some([1, 2])")));
    let record = &host.records.exchanges(1)[0];
    assert_eq!((record.status, record.resp_body_bytes), (Some(200), 12));
    host.end();
}

#[test]
fn errors_and_panics_are_answered_and_the_server_goes_on() {
    for (path, handler) in [
        (
            "error",
            (|exchange: &mut Exchange| exchange.push(go(|| ()), |(), _| Err("as planned".into())))
                as fn(&mut Exchange),
        ),
        ("panic in a callback", |exchange| exchange.push(go(|| ()), |(), _| panic!("as planned"))),
        ("panic in a computation", |exchange| exchange.push(go(|| panic!("as planned")), |(), _| Ok(()))),
        ("cancelled", |exchange| exchange.cancel()),
    ] {
        let host = Host::new(handler);
        for nth in 0..2 {
            assert_eq!(answer(&host).0, 500, "{path}");
            assert_eq!(host.records.exchanges(nth + 1)[nth].status, Some(500), "{path}");
        }
        host.end();
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_however_long_each_takes() {
    let host = Host::new(|exchange: &mut Exchange| {
        let target = String::from_utf8_lossy(exchange.context.request().target()).into_owned();
        let time = if target == "/slow" { 20 } else { 0 };
        exchange.push(sleep(Duration::from_millis(time)), move |(), exchange| {
            say(exchange, target);
            Ok(())
        });
    });
    let mut wire = host.connect();
    for target in ["/slow", "/a", "/slow", "/b"] {
        wire.ask(target, "");
    }
    for target in ["/slow", "/a", "/slow", "/b"] {
        assert_eq!(wire.reply().body_text(), target);
    }
    host.end();
}

#[test]
fn a_connection_keeps_data_for_its_exchanges_and_drops_it_with_itself() {
    struct Last(mpsc::Sender<usize>, usize);
    impl Drop for Last {
        fn drop(&mut self) {
            let _ = self.0.send(self.1);
        }
    }
    let (dropped, seen) = mpsc::channel();
    let host = Host::new(move |exchange: &mut Exchange| {
        let mut data = exchange.context.connection().lock();
        let count = match data.get_mut::<Last>() {
            Some(last) => {
                last.1 += 1;
                last.1
            }
            None => {
                data.insert(Last(dropped.clone(), 1));
                1
            }
        };
        drop(data);
        say(exchange, count.to_string());
    });
    let mut wire = host.connect();
    for count in ["1", "2", "3"] {
        wire.ask("/", "");
        assert_eq!(wire.reply().body_text(), count);
    }
    assert_eq!(answer(&host).1, "1", "another connection has its own");
    assert_eq!(seen.recv_timeout(PATIENCE), Ok(1));
    drop(wire);
    assert_eq!(seen.recv_timeout(PATIENCE), Ok(3));
    host.end();
}

#[test]
fn a_client_that_leaves_cancels_its_series() {
    let (waits, waiting) = Waits::new();
    let (tell, ended) = mpsc::channel();
    let host = Host::new(move |exchange: &mut Exchange| {
        exchange.push(waits.clone(), |(), _| Ok(()));
        let tell = tell.clone();
        exchange.set_finally(move |outcome, _| {
            let _ = tell.send(outcome.as_ref().map_err(ToString::to_string).copied());
        });
    });
    let mut wire = host.connect();
    wire.ask("/", "");
    let parked = waiting.recv_timeout(PATIENCE).unwrap();
    wire.reset();
    assert_eq!(ended.recv_timeout(PATIENCE).unwrap(), Err(String::from("the series was cancelled")));
    assert!(!parked.is_waiting());
    let (exchanges, connections) = host.records.connections(1);
    assert_eq!((exchanges[0].status, exchanges[0].phase), (None, "handler"));
    assert_eq!(connections[0].record.phase, "handler");
    host.end();
}

#[test]
fn a_series_has_the_time_that_the_server_gives_it_or_its_handler() {
    let settings = ServerSettings { series_timeout: Some(Duration::from_millis(300)), ..Default::default() };
    let host = Host::with(settings, |exchange: &mut Exchange| {
        let target = String::from_utf8_lossy(exchange.context.request().target()).into_owned();
        if target == "/longer" {
            exchange.context.set_timeout(PATIENCE);
        }
        let time = if target == "/at-once" { Duration::ZERO } else { Duration::from_millis(500) };
        let time = if target == "/never" { Duration::from_secs(3_600) } else { time };
        exchange.push(sleep(time), move |(), exchange| Ok(say(exchange, target)));
    });
    for (target, status) in [("/at-once", 200), ("/never", 503), ("/longer", 200)] {
        assert_eq!(host.connect().get(target).head.status, status, "{target}");
    }
    host.end();
}

#[test]
fn stopping_waits_for_series_and_cuts_those_that_take_too_long() {
    let (waits, waiting) = Waits::new();
    let ended = Arc::new(AtomicUsize::new(0));
    let count = ended.clone();
    let mut host = Host::new(move |exchange: &mut Exchange| {
        exchange.push(waits.clone(), |(), _| Ok(()));
        let count = count.clone();
        exchange.set_finally(move |_, _| {
            count.fetch_add(1, Ordering::SeqCst);
        });
    });
    let mut answered = host.connect();
    answered.ask("/", "");
    let first = waiting.recv_timeout(PATIENCE).unwrap();
    let mut cut = host.connect();
    cut.ask("/", "");
    let second = waiting.recv_timeout(PATIENCE).unwrap();
    host.stop(Duration::from_millis(300));
    first.complete(()).unwrap();
    assert_eq!(answered.reply().head.status, 200);
    host.join();
    assert!(!second.is_waiting());
    assert_eq!(ended.load(Ordering::SeqCst), 2);
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("as planned");
    }
}

#[test]
fn whatever_panics_there_is_one_record_of_each_and_the_next_caller_is_served() {
    let host = Host::new(|exchange: &mut Exchange| match exchange.context.request().target() {
        b"/handler" => panic!("as planned"),
        b"/finally" => exchange.set_finally(|_, _| panic!("as planned")),
        b"/finally-later" => {
            exchange.push(go(|| ()), |(), _| Ok(()));
            exchange.set_finally(|_, _| panic!("as planned"));
        }
        b"/data" => drop(exchange.context.data.insert(Bomb)),
        b"/data-later" => {
            exchange.context.data.insert(Bomb);
            exchange.push(go(|| ()), |(), _| Ok(()));
        }
        b"/maker" => {
            exchange.push(go(|| ()), |(), exchange| {
                let maker = |_: &mut ()| -> tidegate::task::Sleep { panic!("as planned") };
                exchange.push(Series::new(()).then_with(maker, |(), _| Ok(())), |ended, _| {
                    ended.into_result()?;
                    Ok(())
                });
                Ok(())
            });
        }
        _ => say(exchange, "fine"),
    });
    let cases = [
        ("/handler", Some(500)),
        ("/finally", Some(500)),
        ("/finally-later", Some(500)),
        ("/data", Some(200)),
        ("/data-later", Some(200)),
        ("/maker", Some(500)),
    ];
    for (nth, (target, status)) in cases.into_iter().enumerate() {
        let mut wire = host.connect();
        wire.ask(target, "Connection: close\r\n");
        wire.await_close();
        drop(wire);
        let before = 2 * nth;
        let kept = host.records.counts(before + 1, before + 1);
        assert_eq!(kept.exchanges[before].status, status, "{target}");
        assert_eq!(answer(&host), (200, String::from("fine")), "after {target}");
        host.records.counts(before + 2, before + 2);
    }
    host.end();
}

#[test]
fn data_of_a_client_that_left_may_panic_and_the_others_are_answered() {
    let (waits, waiting) = Waits::new();
    let host = Host::new(move |exchange: &mut Exchange| {
        if exchange.context.request().target() == b"/bomb" {
            exchange.context.data.insert(Bomb);
        }
        exchange.push(waits.clone(), |(), _| Ok(()));
    });
    for _ in 0..20 {
        let (mut leaves, mut stays) = (host.connect(), host.connect());
        leaves.ask("/bomb", "");
        let first = waiting.recv_timeout(PATIENCE).unwrap();
        stays.ask("/", "");
        let second = waiting.recv_timeout(PATIENCE).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || leaves.reset());
            scope.spawn(move || {
                // It panics here where the client has left by now.
                let _left = std::panic::catch_unwind(|| first.complete(()));
                second.complete(()).unwrap();
            });
        });
        assert_eq!(stays.reply().head.status, 200);
    }
    host.end();
}

#[test]
fn a_handler_that_holds_its_poller_is_counted() {
    let host = Host::new(|exchange: &mut Exchange| {
        // The slowness itself.
        if exchange.context.request().target() == b"/slow" {
            std::thread::sleep(Duration::from_millis(80));
        }
    });
    let mut wire = host.connect();
    for target in ["/slow", "/quick"] {
        wire.ask(target, "");
        assert_eq!(wire.reply().head.status, 200);
    }
    // The turn of the first was over before the second was answered on the same poller.
    assert!(host.runtime().figures().slow_callbacks >= 1);
    host.end();
}
