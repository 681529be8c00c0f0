//! Streams of events with real clients: curl, Python, a browser; and through nginx.
#![cfg(feature = "sse")]

mod sse_support;
mod support;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use sse_support::{Exchange, Listener, Running, await_subscribers};
use support::{Nginx, await_that, program};
use tidegate::http::body::{BodySource, BodyWaker};
use tidegate::http::codec::target::Target;
use tidegate::http::{Body, Reply, StreamBody};
use tidegate::poller::Pull;
use tidegate::sse::{Delivery, Event, Hub};
use tidegate_meter::scratch::Scratch;

/// A program that runs, whose lines come as they are printed.
struct Printing {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Printing {
    fn start(mut command: Command) -> Printing {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Printing { child, lines }
    }

    /// Waits for a line.
    fn await_line(&self, wanted: &str) -> Duration {
        let began = Instant::now();
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(20));
            if line.unwrap_or_else(|_| panic!("{wanted:?} was never printed")) == wanted {
                return began.elapsed();
            }
        }
    }
}

impl Drop for Printing {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Each event as it is published.
fn each_comes_at_once(hub: &Hub, client: &Printing, line: impl Fn(u32) -> String) {
    await_subscribers(hub, 1);
    for number in 1..=20 {
        hub.publish("t", Event::data(number.to_string())).unwrap();
        let took = client.await_line(&line(number));
        assert!(took < Duration::from_secs(2), "{number} took {took:?}");
    }
}

#[test]
fn curl_prints_events_as_they_come() {
    let hub = Hub::new();
    let running = Running::of(&hub);
    let mut curl = program("curl");
    curl.args(["-sN", &format!("http://{}/t", running.address)]);
    let curl = Printing::start(curl);
    each_comes_at_once(&hub, &curl, |number| format!("data: {number}"));
    drop(curl);
    // Gone: it is noticed at once, not with the next heartbeat.
    let began = Instant::now();
    await_subscribers(&hub, 0);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    running.stop(Duration::ZERO);
}

#[test]
fn nginx_passes_events_on_at_once_as_it_gathers_other_replies() {
    let hub = Hub::new();
    let running = Running::of(&hub);
    let nginx = Nginx::gathering_in_front_of(running.address);
    let mut curl = program("curl");
    curl.args(["-sN", &format!("http://{}/t", nginx.address())]);
    let curl = Printing::start(curl);
    each_comes_at_once(&hub, &curl, |number| format!("data: {number}"));
    // Through it, too, a client that leaves is noticed.
    drop(curl);
    await_subscribers(&hub, 0);
    drop(nginx);
    running.stop(Duration::ZERO);
}

const PYTHON: &str = "
import sys, urllib.request
reply = urllib.request.urlopen(sys.argv[1])
assert reply.headers['Content-Type'] == 'text/event-stream'
for line in reply:
    if line.startswith(b'data: '):
        print('got', line[6:].decode().strip(), flush=True)
";

#[test]
fn python_reads_events_line_by_line() {
    let hub = Hub::new();
    let running = Running::of(&hub);
    let mut python = program("python3");
    python.args(["-c", PYTHON, &format!("http://{}/t", running.address)]);
    let python = Printing::start(python);
    each_comes_at_once(&hub, &python, |number| format!("got {number}"));
    running.stop(Duration::ZERO);
}

/// Cuts a stream after so many bytes, wherever that is.
struct Cut {
    inner: Box<dyn BodySource>,
    left: usize,
}

impl BodySource for Cut {
    fn attach(&mut self, waker: BodyWaker) {
        self.inner.attach(waker);
    }

    fn pull(&mut self, max: usize, out: &mut Vec<u8>) -> Pull {
        let before = out.len();
        if self.left == 0 {
            return Pull::Failed;
        }
        let pull = self.inner.pull(max.min(self.left), out);
        self.left -= out.len() - before;
        pull
    }
}

fn cut_after(bytes: usize, mut reply: Reply) -> Reply {
    if let Body::Stream(stream) = std::mem::take(&mut reply.body) {
        reply.body = StreamBody::new(Cut { inner: stream.into_source(), left: bytes }).into();
    }
    reply
}

const PAGE: &str = "<!doctype html><script>
const seen = [];
const source = new EventSource('/events');
const done = () => fetch('/done?' + seen.join(','));
source.onmessage = event => { seen.push(event.lastEventId); if (event.data == 'last') { source.close(); done(); } };
source.addEventListener('gap', event => { seen.push('gap'); });
</script>";

const EVENTS: u32 = 40;

#[test]
fn a_browser_reconnects_and_resumes_without_loss_or_repetition() {
    let retry = Some(Duration::from_millis(50));
    let hub = Hub::builder().delivery(Delivery { retry, ..Delivery::default() }).build();
    let (tell, told) = mpsc::channel();
    let subscribes = hub.clone();
    let running = Running::start(move |exchange: &mut Exchange| {
        let request = exchange.context.request().clone();
        let Ok(target) = Target::parse(request.target()) else { return };
        exchange.context.reply = match target.path() {
            b"events" => {
                let id = request.header("last-event-id").map(|id| String::from_utf8_lossy(id).into_owned());
                let _ = tell.send(format!("connects after {}", id.unwrap_or_default()));
                let reply = subscribes.subscribe(["t"]).resume(&request).reply();
                cut_after(400, reply)
            }
            b"done" => {
                let _ = tell.send(String::from_utf8_lossy(target.query().unwrap_or_default()).into_owned());
                Reply::text("")
            }
            _ => Reply::html(PAGE),
        };
    });
    let profile = Scratch::new("chromium").unwrap();
    let mut chromium = program("chromium");
    chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
    chromium.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    chromium.arg(format!("--user-data-dir={}", profile.path().display()));
    chromium.arg(format!("http://{}/", running.address)).stderr(Stdio::null());
    let browser = Printing::start(chromium);
    // A browser takes its time to start.
    let long = Duration::from_secs(60);
    assert_eq!(told.recv_timeout(long).expect("it connects"), "connects after ");
    await_that("it is subscribed", || (hub.figures().subscribed > 0).then_some(()));
    let publisher = thread::spawn({
        let hub = hub.clone();
        move || {
            for number in 1..=EVENTS {
                let data = if number == EVENTS { String::from("last") } else { "x".repeat(30) };
                hub.publish("t", Event::data(data)).unwrap();
                // So that some come while it is away and some while it is there.
                thread::sleep(Duration::from_millis(15));
            }
        }
    });
    let mut connects = 0;
    let seen = loop {
        let line = told.recv_timeout(long).expect("it has them all");
        match line.strip_prefix("connects after ") {
            Some(id) => {
                assert!(!id.is_empty(), "it says where it was");
                connects += 1;
            }
            None => break line,
        }
    };
    publisher.join().unwrap();
    let expected: Vec<String> = (1..=EVENTS).map(|number| number.to_string()).collect();
    assert_eq!(seen, expected.join(","));
    assert!(connects >= 3, "{connects}");
    assert_eq!(hub.figures().gaps, 0);
    drop(browser);
    running.stop(Duration::ZERO);
}

#[test]
fn what_a_proxy_sees_is_what_a_client_sees() {
    // The same bytes, through nginx and without.
    let hub = Hub::new();
    let running = Running::of(&hub);
    let nginx = Nginx::gathering_in_front_of(running.address);
    let mut listeners =
        [running.address, nginx.address()].map(|address| Listener::connect(address, "/t", ""));
    await_subscribers(&hub, 2);
    for number in 1..=100 {
        hub.publish("t", Event::data(format!("{number}\n{}", "x".repeat(number * 37))).with_name("n"))
            .unwrap();
    }
    let [direct, proxied] = &mut listeners;
    for _ in 1..=100 {
        assert_eq!(direct.next().unwrap(), proxied.next().unwrap());
    }
    drop(nginx);
    running.stop(Duration::ZERO);
}
