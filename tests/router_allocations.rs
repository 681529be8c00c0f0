//! What the router costs in memory: nothing, where there are no parameters.
#![cfg(feature = "router")]

#[path = "../poller/tests/counting/mod.rs"]
mod counting;
mod router_support;
mod support;

use std::net::SocketAddr;
use std::time::Duration;

use router_support::Web;
use support::Wire;
use tidegate::http::{Exchange, Reply, Server};
use tidegate::net::Listeners;

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
    let before = counting::of_all_threads();
    (0..REQUESTS).for_each(|_| ask());
    (counting::of_all_threads() - before) as f64 / REQUESTS as f64
}

#[test]
fn a_route_without_parameters_costs_no_allocation() {
    let listeners = Listeners::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1).unwrap();
    let handler = |exchange: &mut Exchange| exchange.context.reply = Reply::text("hello\n");
    let plain = Server::builder(handler).start(listeners).unwrap();
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
    plain.shutdown(Duration::ZERO);
    plain.join().unwrap();
}
