//! Budgets of routes and of keys, on real sockets.
#![cfg(feature = "router")]

mod router_support;
mod support;

use std::time::{Duration, Instant};

use router_support::Web;
use support::Wire;
use tidegate::http::Reply;
use tidegate::http::ServerSettings;
use tidegate::http::router::{by_address, by_header, by_path};
use tidegate::net::Pacing;
use tidegate::poller::budget::KeyedBudgets;
use tidegate::poller::file::Root;
use tidegate::poller::{Budget, Limit};
use tidegate_meter::scratch::Scratch;

/// What goes through a route, in these tests.
const RATE: u64 = 1_000_000;
const TIME: Duration = Duration::from_secs(1);
/// Never whole while a test looks. Zeros, which the kernel has without anybody writing them.
const BODY: usize = 100_000_000;
static FILM: [u8; BODY] = [0; BODY];

/// How many bytes a second come over each of several connections that ask for these, while all of them read.
fn rates(web: &Web, asked: &[(&str, &str)]) -> Vec<f64> {
    std::thread::scope(|scope| {
        let readers: Vec<_> = asked
            .iter()
            .map(|(target, fields)| {
                scope.spawn(move || {
                    let mut wire = Wire::connect(web.address);
                    wire.ask(target, fields);
                    wire.head();
                    // The first bytes are those that buffers and bursts let through.
                    wire.read_for(Duration::from_millis(200), usize::MAX);
                    let began = Instant::now();
                    let before = wire.received;
                    wire.linger(TIME);
                    (wire.received - before) as f64 / began.elapsed().as_secs_f64()
                })
            })
            .collect();
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    })
}

#[track_caller]
fn near(rate: f64, expected: u64) {
    let ratio = rate / expected as f64;
    assert!((0.7..1.3).contains(&ratio), "{rate:.0} bytes/s, not {expected}");
}

fn film(_: &mut tidegate::http::Exchange) -> Reply {
    Reply::text(&FILM[..])
}

#[test]
fn the_replies_of_a_route_share_its_budget_and_others_do_not() {
    let budget = Budget::builder("films").rate(RATE).build();
    let site = Scratch::new("router-pacing").unwrap();
    std::fs::write(site.path().join("film.bin"), &FILM[..20_000_000]).unwrap();
    let web = Web::of(|routes| {
        routes.get("/film", film).budget(&budget);
        routes.files("/files", Root::open(site.path()).unwrap()).budget(&budget);
        routes.get("/short", |_| Reply::text(&FILM[..300_000])).budget(&budget);
        routes.get("/other", film);
    });
    let rates = rates(&web, &[("/film", ""), ("/files/film.bin", "")]);
    near(rates[0] + rates[1], RATE);
    near(rates[0], RATE / 2);
    // A connection that goes on to another route is held by this one's budget no more.
    let mut wire = Wire::connect(web.address);
    wire.get("/short");
    let began = Instant::now();
    wire.ask("/other", "");
    wire.head();
    wire.discard(BODY);
    assert!(began.elapsed().as_secs_f64() < BODY as f64 / (10 * RATE) as f64);
}

#[test]
fn each_key_has_a_budget_of_its_own() {
    let keyed = |name: &str| KeyedBudgets::new(name.to_owned(), Some(RATE), None, Duration::from_secs(60));
    let (headers, paths) = (keyed("header"), keyed("path"));
    let addresses = KeyedBudgets::new("address", Some(RATE), None, Duration::from_secs(60));
    let web = Web::of(|routes| {
        routes.get("/header", film).budget_by(&headers, by_header("x-key"));
        routes.get("/path/{tenant}", film).budget_by(&paths, by_path("tenant"));
        routes.get("/address", film).budget_by(&addresses, by_address);
    });
    let (a, b) = ("X-Key: a\r\n", "X-Key: b\r\n");
    let by_header = rates(&web, &[("/header", a), ("/header", a), ("/header", b)]);
    near(by_header[0] + by_header[1], RATE);
    near(by_header[2], RATE);
    let unnamed = rates(&web, &[("/header", ""), ("/header", "")]);
    near(unnamed[0] + unnamed[1], RATE);
    let by_path = rates(&web, &[("/path/a", ""), ("/path/%61", ""), ("/path/b", "")]);
    near(by_path[0] + by_path[1], RATE);
    near(by_path[2], RATE);
    let by_address = rates(&web, &[("/address", ""), ("/address", "")]);
    near(by_address[0] + by_address[1], RATE);
    assert_eq!((headers.len(), paths.len(), addresses.len()), (3, 2, 1));
}

#[test]
fn a_route_has_a_limit_for_each_reply_and_a_part_before_it() {
    let pacing = Pacing::builder().connection(RATE / 2).build();
    let limit = Limit::new("route", Some(RATE));
    let web = Web::with(ServerSettings { pacing, ..ServerSettings::default() }, |routes| {
        routes.get("/limited", film).limit(&limit);
        routes.get("/after", film).limit(&limit).rate_after(5_000_000);
        routes.get("/as-connected", film);
    });
    let rates = rates(&web, &[("/limited", ""), ("/limited", ""), ("/as-connected", "")]);
    near(rates[0], RATE);
    near(rates[1], RATE);
    near(rates[2], RATE / 2);
    let mut wire = Wire::connect(web.address);
    wire.ask("/after", "");
    let began = Instant::now();
    wire.discard(5_000_000);
    assert!(began.elapsed() < Duration::from_secs(2), "the first part is free");
    wire.discard(1_500_000);
    assert!(began.elapsed() > Duration::from_secs(1), "what is behind it is not");
}
