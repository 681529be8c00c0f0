//! What the router costs in memory: nothing, where there are no parameters.
#![cfg(feature = "router")]

mod router_support;
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use router_support::Web;
use support::Wire;
use tidegate::http::router::Exchange;
use tidegate::http::{Reply, Settings, serve};
use tidegate::net::Listeners;
use tidegate::poller::Config;
use tidegate::record::Sinks;

/// Counts what is allocated in the whole process.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on as it came to the system's allocator, which keeps the contract; counting touches no
// memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const REQUESTS: u64 = 2_000;

/// Allocations for a request on a connection that is kept, the client's included, which are the same each time.
fn allocations(address: SocketAddr, target: &str) -> f64 {
    let mut wire = Wire::connect(address);
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut ask = || {
        wire.send(&request);
        assert_eq!(wire.reply().body_text(), "hello\n");
    };
    (0..100).for_each(|_| ask());
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    (0..REQUESTS).for_each(|_| ask());
    (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / REQUESTS as f64
}

#[test]
fn a_route_without_parameters_costs_no_allocation() {
    let listeners = Listeners::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1).unwrap();
    let handler = |exchange: &mut Exchange| exchange.context.reply = Reply::text("hello\n");
    let (settings, sinks) = (Settings::default(), Sinks::default());
    let plain = serve(handler, listeners, settings, sinks, 10, &Config::default()).unwrap();
    let web = Web::of(|routes| {
        routes.before(|_| ());
        routes.after(|_| ());
        routes.get("/", |_| "hello\n");
        routes.group("/a", |group| {
            group.before(|_| ());
            group.get("/b/{c}", |_| "hello\n");
            group.get("/b/c", |_| "hello\n");
            group.get("/x/c", |_| "hello\n");
        });
    });
    let (without, with) = (allocations(plain.address(), "/a/x/c"), allocations(web.address, "/a/x/c"));
    assert!((with - without).abs() < 0.1, "{with} allocations for a request, {without} without a router");
    // Where a parameter might have been meant, the trie remembers the place to turn back to.
    let fixed = allocations(web.address, "/a/b/c");
    assert!(fixed - with < 1.1, "{fixed} beside a parameter");
    let parameters = allocations(web.address, "/a/b/d");
    assert!(parameters - with < 4.1, "{parameters} with a parameter");
    plain.handles().shutdown(Duration::ZERO);
    plain.join().unwrap();
}
