//! Server-sent events: what is published goes to everybody who listens.
//!
//! ```text
//! cargo run --example sse -- --listen 127.0.0.1:8080 --interval 1000
//! curl -N http://127.0.0.1:8080/events                        what everybody gets
//! curl -d 'hello, all' http://127.0.0.1:8080/publish          one more for all
//! curl -N -H 'Last-Event-ID: 3' http://127.0.0.1:8080/events  what came after the third, and on from there
//! ```
//!
//! `GET /` is a page that shows them. `--interval` says how many milliseconds lie between two events (0: none but those
//! that are published), `--bytes` how long they are, `--heartbeat` after how many milliseconds of silence a heartbeat
//! comes. `--rate` is in bytes a second for each client, `--event-rate` in events a second. Also `--pollers` and the other
//! rates, as the example `hello` has them.

mod help;
mod support;

use std::ops::ControlFlow;
use std::time::Duration;

use support::Options;
use tidegate::http::codec::target::Target;
use tidegate::http::{Exchange, Method, Reply, RequestBody, StatusCode, WholeBody};
use tidegate::runtime::Runtime;
use tidegate::sse::{Delivery, Event, EventRate, Hub};
use tidegate::task::{Error, Ticks};

const TOPIC: &str = "all";

const PAGE: &str = "<!doctype html>
<title>Events</title>
<pre id=log></pre>
<script>
const log = line => document.getElementById('log').prepend(line + '\\n');
const source = new EventSource('/events');
source.onopen = () => log('connected');
source.onerror = () => log('connecting again');
source.onmessage = event => log(event.lastEventId + ': ' + event.data);
for (const name of ['lagged', 'gap'])
    source.addEventListener(name, event => log(name + ': ' + event.data));
</script>
";

fn answer(hub: &Hub, exchange: &mut Exchange) {
    let request = exchange.context.request().clone();
    let Ok(target) = Target::parse(request.target()) else {
        exchange.context.reply = Reply::error(StatusCode::BAD_REQUEST);
        return;
    };
    exchange.context.reply = match (request.method(), target.path()) {
        // Most streams begin with GET; a client that has more to say may begin one with POST.
        (&Method::GET | &Method::POST, b"events") => hub.subscribe([TOPIC]).resume(&request).reply(),
        (&Method::POST, b"publish") => {
            let body = match std::mem::take(&mut exchange.context.body) {
                RequestBody::Whole(body) => body,
                _ => WholeBody::default(),
            };
            match hub.publish(TOPIC, Event::data(String::from_utf8_lossy(&body))) {
                Ok(id) => Reply::text(format!("{id}\n")),
                Err(error) => Reply::explained(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
            }
        }
        (&Method::GET | &Method::HEAD, b"") => Reply::html(PAGE),
        (_, b"events" | b"publish" | b"") => Reply::error(StatusCode::METHOD_NOT_ALLOWED),
        _ => Reply::error(StatusCode::NOT_FOUND),
    };
}

fn main() -> Result<(), Error> {
    if help::is_asked(include_str!("sse.rs")) {
        return Ok(());
    }
    let options = Options::read(&["--interval", "--bytes", "--heartbeat", "--event-rate"])?;
    let millis = |name| options.value(name).map(|value| value.map(Duration::from_millis));
    let interval = millis("--interval")?.unwrap_or(Duration::from_secs(1));
    let bytes = options.value("--bytes")?.unwrap_or(0);
    let heartbeat = millis("--heartbeat")?.unwrap_or(Duration::from_secs(15));
    let delivery = Delivery {
        heartbeat: Some(heartbeat).filter(|heartbeat| !heartbeat.is_zero()),
        retry: Some(Duration::from_secs(1)),
        retry_jitter: Duration::from_secs(1),
        rate: options.value("--event-rate")?.map(EventRate::new),
        ..Delivery::default()
    };
    let hub = Hub::builder().ring(1_000, 4 << 20).delivery(delivery).build();

    // The events come from somewhere else than the server: here from a series of ticks.
    let clock = Runtime::builder().pollers(1).compute_threads(1).build()?;
    if !interval.is_zero() {
        let hub = hub.clone();
        let ticks = Ticks::every(interval).for_each(move |tick| {
            let event = Event::data(format!("{:<bytes$}", format!("tick {}", tick.number)));
            match hub.publish(TOPIC, event) {
                Ok(_) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        clock.start(ticks).detach();
    }
    options.serve(move |exchange: &mut Exchange| answer(&hub, exchange))
}
