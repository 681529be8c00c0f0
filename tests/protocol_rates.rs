//! The rates of custom protocols, at both ends and in both directions: within 5 % of what was asked for.
//!
//! A file of its own, and one test, so that nothing of ours runs beside it. That the rate is not exceeded must hold in
//! every round. That it is used to the full is the best of some rounds, for what a stalled machine loses is not made up for
//! (docs/concepts/budgets.md).

mod protocol_support;

use std::time::Instant;

use protocol_support::{Frames, listeners};
use tidegate::net::Spending;
use tidegate::net::protocol::{Client, ClientSettings, Exchange, Server, ServerSettings};
use tidegate::poller::{Budget, Limit};
use tidegate::runtime::Runtime;
use tidegate::task::Parallel;

const RATE: u64 = 1_000_000;
const BYTES: usize = 1_000_000;
const ROUNDS: usize = 6;

/// Moves `BYTES` bytes one way in one exchange or several, and says which part of the rate that was.
fn part_of_the_rate(server: Spending, client: Spending, upload: bool, exchanges: usize) -> f64 {
    let runtime = Runtime::new().unwrap();
    let handler = move |series: &mut Exchange<Frames>| {
        series.context.reply = Some(vec![0; if upload { 0 } else { BYTES / exchanges }]);
        Ok(())
    };
    let settings = ServerSettings { spending: server, ..ServerSettings::default() };
    let server = Server::builder(Frames::default(), handler)
        .settings(settings)
        .start_on(&runtime.handle(), listeners(1))
        .unwrap();
    let settings = ClientSettings { spending: client, ..ClientSettings::default() };
    let client = Client::new(&runtime.handle(), Frames::default(), settings);
    let request = || vec![0; if upload { BYTES / exchanges } else { 0 }];
    let requests: Parallel<_> = (0..exchanges).map(|_| client.request(server.address(), request())).collect();
    let began = Instant::now();
    for reply in runtime.run(requests).unwrap() {
        reply.unwrap().unwrap();
    }
    BYTES as f64 / began.elapsed().as_secs_f64() / RATE as f64
}

#[test]
fn rates_are_obeyed_within_five_percent() {
    let limit = || Some(Limit::new("test", Some(RATE)));
    let budget = || Some(Budget::builder("test").rate(RATE).build());
    let none = Spending::default;
    type Case = (&'static str, fn(Spending) -> (Spending, Spending), bool, bool, usize);
    let cases: [Case; 5] = [
        ("server, out", |spending| (spending, Spending::default()), true, false, 1),
        ("server, in", |spending| (spending, Spending::default()), false, true, 1),
        ("client, out", |spending| (Spending::default(), spending), true, true, 1),
        ("client, in", |spending| (Spending::default(), spending), false, false, 1),
        ("client, in, shared by ten", |spending| (Spending::default(), spending), false, false, 10),
    ];
    for (name, sides, egress, upload, exchanges) in cases {
        let mut best = 0.0_f64;
        for _ in 0..ROUNDS {
            let spending = match (egress, exchanges) {
                (true, _) => Spending { egress_limit: limit(), ..none() },
                (false, 1) => Spending { ingress_limit: limit(), ..none() },
                (false, _) => Spending { ingress_budget: budget(), ..none() },
            };
            let (server, client) = sides(spending);
            let part = part_of_the_rate(server, client, upload, exchanges);
            assert!(part <= 1.05, "{name}: {part} of the rate");
            best = best.max(part);
            if best >= 0.95 {
                break;
            }
        }
        assert!(best >= 0.95, "{name}: {best} of the rate at best");
    }
}
