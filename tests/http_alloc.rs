//! A request on a kept connection allocates nothing: a counting allocator around the poller's thread.
#![cfg(feature = "http")]

#[path = "../poller/tests/counting/mod.rs"]
mod counting;
mod support;

use support::Wire;
use tidegate::http::{Exchange, Server, ServerSettings};
use tidegate::net::{Listeners, Pacing};

/// Says hello; and at `/count`, how often its thread has allocated before the request.
fn hello(exchange: &mut Exchange) {
    let count = counting::of_this_thread();
    let reply = &mut exchange.context.reply;
    reply.headers.add("Content-Type", "text/plain");
    reply.headers.add("X-Number", 42);
    reply.body = "Hello, World!".into();
    if exchange.context.request().target() == b"/count" {
        exchange.context.reply.body = count.to_string().into();
    }
}

#[test]
fn a_request_on_a_kept_connection_allocates_nothing() {
    let limited = Pacing::builder().connection(1 << 40).client(1 << 40).total(1 << 40);
    for rates in [Pacing::builder(), limited] {
        let settings = ServerSettings { pacing: rates.build(), ..ServerSettings::default() };
        let listeners = Listeners::bind(([127, 0, 0, 1], 0).into(), 1).unwrap();
        let server = Server::builder(hello).settings(settings).start(listeners).unwrap();
        let mut client = Wire::connect(server.address());
        let count = |client: &mut Wire| client.get("/count").body_text().parse::<u64>().unwrap();
        // Pools and buffers have been filled then; asking twice shows what asking costs.
        (0..100).for_each(|_| drop(client.get("/")));
        count(&mut client);
        let (before, asked) = (count(&mut client), count(&mut client));
        for _ in 0..300 {
            let reply = client.get("/");
            assert_eq!((reply.body_text().as_str(), reply.field("x-number")), ("Hello, World!", "42"));
        }
        let after = count(&mut client);
        // The timer wheel, as it turns, moves an entry once in a while.
        assert!(after - asked <= asked - before + 10, "300 requests allocated {} times", after - asked);
        server.shutdown(std::time::Duration::ZERO);
        server.join().unwrap();
    }
}
