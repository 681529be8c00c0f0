//! Streams of events that tasks write, each for one client.
#![cfg(feature = "sse")]

mod sse_support;
mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use sse_support::{Exchange, Listener, Running};
use support::{PATIENCE, await_that};
use tidegate::runtime::RuntimeHandle;
use tidegate::sse::{Bound, Delivery, Event, EventWriter, stream, stream_with};
use tidegate::task::{Cancellation, Continuation, Series, Task, future, sleep};
use tidegate_meter::sys::connect_with_small_window;

/// Hands the writer of each request's stream to the test.
fn hand_out(capacity: usize) -> (Running, mpsc::Receiver<EventWriter>) {
    let (tell, writers) = mpsc::channel();
    let running = Running::start(move |exchange: &mut Exchange| {
        let (writer, reply) = stream(capacity);
        exchange.context.reply = reply;
        let _ = tell.send(writer);
    });
    (running, writers)
}

#[test]
fn a_task_writes_tokens_and_the_client_has_each_at_once() {
    let (running, writers) = hand_out(4);
    let mut listener = Listener::connect(running.address, "/", "");
    let writer = writers.recv_timeout(PATIENCE).unwrap();
    let runtime = running.runtime();
    for token in 0..100 {
        runtime.spawn(writer.send(&Event::data(token.to_string()))).wait().unwrap().unwrap();
        assert_eq!(listener.next().unwrap().data, token.to_string());
    }
    writer.finish();
    assert!(listener.next().is_none() && listener.ended_well());
    running.stop(Duration::ZERO);
}

#[test]
fn a_writer_waits_for_a_slow_client_and_nothing_is_lost() {
    let (running, writers) = hand_out(8);
    let slow = connect_with_small_window(running.address, 32 * 1024).unwrap();
    let mut slow = Listener::silent(slow, "/", "");
    let writer = writers.recv_timeout(PATIENCE).unwrap();
    let runtime = running.runtime();
    let text = "x".repeat(4_000);
    let written = Arc::new(AtomicUsize::new(0));
    let (counts, here) = (written.clone(), runtime.clone());
    let write = future(async move {
        for number in 0..300 {
            let event = Event::data(format!("{number} {text}"));
            if !matches!(here.spawn(writer.send(&event)).await, Ok(Ok(()))) {
                return;
            }
            counts.fetch_add(1, Ordering::SeqCst);
        }
        writer.finish();
    });
    let writing = runtime.spawn(write);
    // It comes to a stop: what lies in the kernel and 8 more.
    let mut last = usize::MAX;
    await_that("the writer waits", || {
        // That nothing happens is no event: a tenth of a second without one more counts as that.
        std::thread::sleep(Duration::from_millis(100));
        let now = written.load(Ordering::SeqCst);
        (std::mem::replace(&mut last, now) == now && now > 8).then_some(())
    });
    assert!(last < 300 && !writing.is_done(), "{last}");
    slow.read_head();
    for number in 0..300 {
        assert!(slow.next().unwrap().data.starts_with(&format!("{number} ")));
    }
    writing.wait_for(PATIENCE).unwrap().unwrap();
    assert!(slow.ended_well());
    running.stop(Duration::ZERO);
}

#[test]
fn what_cannot_wait_is_told_that_there_is_no_room() {
    let (running, writers) = hand_out(2);
    let _slow = Listener::silent(connect_with_small_window(running.address, 32 * 1024).unwrap(), "/", "");
    let writer = writers.recv_timeout(PATIENCE).unwrap();
    let event = Event::data("x".repeat(30_000));
    await_that("there is no room", || (!writer.try_send(&event).unwrap()).then_some(()));
    running.stop(Duration::ZERO);
    assert!(writer.is_closed() && writer.try_send(&event).is_err());
}

/// Stands for a call of a model: it never ends by itself, and notes that it was cancelled.
struct Upstream(Arc<AtomicBool>);

impl Task for Upstream {
    type Output = ();

    fn dispatch(self, mut done: Continuation<()>) {
        let cancellation: Cancellation = done.cancellation();
        let place = Arc::new(Mutex::new(Some(done)));
        cancellation.on_cancel(move || {
            self.0.store(true, Ordering::SeqCst);
            drop(place.lock().unwrap().take());
        });
    }
}

#[test]
fn a_client_that_leaves_cancels_the_work_behind_its_stream_at_once() {
    let cancelled = Arc::new(AtomicBool::new(false));
    let seen = cancelled.clone();
    let running = Running::start(move |exchange: &mut Exchange| {
        let (writer, reply) = stream(16);
        exchange.context.reply = reply;
        let Some(runtime) = RuntimeHandle::of_poller() else { return };
        let closed = writer.closed();
        let first = writer.send(&Event::data("first token"));
        let work = Series::new(writer)
            .then(sleep(Duration::from_millis(1)), |(), _| Ok(()))
            .then(first, |sent, _| Ok(sent?))
            .then(Upstream(seen.clone()), |(), _| Ok(()));
        let working = runtime.start(work);
        let canceller = working.canceller();
        working.detach();
        let watch = Series::new(()).then(closed, move |(), _| {
            canceller.cancel();
            Ok(())
        });
        runtime.start(watch).detach();
    });
    let mut listener = Listener::connect(running.address, "/", "");
    assert_eq!(listener.data(1), ["first token"]);
    assert!(!cancelled.load(Ordering::SeqCst));
    drop(listener);
    await_that("the upstream is cancelled", || cancelled.load(Ordering::SeqCst).then_some(()));
    running.stop(Duration::ZERO);
}

#[test]
fn heartbeats_fill_the_wait_for_the_first_token_and_a_rate_spreads_the_rest() {
    let (tell, writers) = mpsc::channel();
    let running = Running::start(move |exchange: &mut Exchange| {
        let delivery = Delivery {
            heartbeat: Some(Duration::from_millis(30)),
            rate: Some(tidegate::sse::EventRate::new(100.0)),
            bound: Bound { events: 100, bytes: usize::MAX },
            ..Delivery::default()
        };
        let (writer, reply) = stream_with(delivery);
        exchange.context.reply = reply;
        let _ = tell.send(writer);
    });
    let mut listener = Listener::connect(running.address, "/", "");
    listener.await_text(&": \n\n".repeat(3));
    let writer = writers.recv_timeout(PATIENCE).unwrap();
    let began = std::time::Instant::now();
    for number in 0..30 {
        assert!(writer.try_send(&Event::data(number.to_string())).unwrap());
    }
    writer.finish();
    let seen = listener.data(30);
    assert_eq!(seen.last().unwrap(), "29");
    assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());
    assert!(listener.ended_well());
    running.stop(Duration::ZERO);
}
