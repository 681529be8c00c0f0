//! How the HTTP client comes to its connections: names, addresses in turn, and what is given up on the way.

mod client_support;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use client_support::{Asks, PATIENCE, ok, says, server};
use tidegate::http::ClientError;
use tidegate::net::Waited;
use tidegate::net::{Resolve, Resolving};
use tidegate::poller::{Peer, Reason, Role};
use tidegate::task::Parallel;

/// Knows the same addresses for every name.
struct Knows(Vec<SocketAddr>);

impl Resolve for Knows {
    fn resolve(&self, _: &str, _: u16, resolving: Resolving) {
        resolving.answer(Ok(self.0.clone()));
    }
}

/// Answers nobody; hands on who asks.
struct Holds(Mutex<mpsc::Sender<Resolving>>);

impl Resolve for Holds {
    fn resolve(&self, _: &str, _: u16, resolving: Resolving) {
        self.0.lock().unwrap().send(resolving).unwrap();
    }
}

fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn addresses_that_refuse_are_passed_over() {
    let server = says(ok("x"));
    let known = Knows(vec![closed(), closed(), server.address]);
    let asks = Asks::with(|settings| settings.resolver = Arc::new(known));
    let response = asks.get("http://some.example/").unwrap();
    let record = response.record().unwrap();
    assert_eq!((response.text(), record.peer.clone()), ("x".to_owned(), Peer::Inet(server.address)));
    let facts = record.client.as_deref().unwrap();
    assert!(facts.dns.is_some() && facts.connect.is_some() && facts.retries == 0);
    drop(asks.client);
    let kept = asks.keeps.counts(1, 3);
    let refused = kept.connections.iter().filter(|c| c.record.end.reason == Reason::ConnectFailed).count();
    assert_eq!(refused, 2, "each attempt leaves its record");

    let asks = Asks::with(|settings| settings.resolver = Arc::new(Knows(vec![closed(), closed()])));
    assert!(matches!(asks.get("http://some.example/"), Err(ClientError::Connect(Reason::ConnectFailed))));
    let kept = asks.keeps.counts(1, 2);
    assert_eq!((kept.exchanges[0].phase, kept.exchanges[0].conn_id), ("connect", 0));
    assert_eq!(kept.exchanges[0].role, Role::Client);
    let asks = Asks::with(|settings| settings.resolver = Arc::new(Knows(Vec::new())));
    let error = asks.get("http://some.example/").unwrap_err();
    assert!(matches!(&error, ClientError::Resolve(e) if e.kind() == io::ErrorKind::NotFound), "{error}");
}

#[test]
fn an_address_that_is_silent_has_the_next_tried_beside_it() {
    // A listener whose queue is full lets the kernel drop further callers.
    let full = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = full.local_addr().unwrap();
    let crowd: Vec<_> = (0..5_000)
        .map_while(|_| std::net::TcpStream::connect_timeout(&silent, Duration::from_millis(200)).ok())
        .collect();
    assert!(crowd.len() < 5_000, "its queue is never full");
    let server = says(ok("x"));
    let asks = Asks::with(|settings| settings.resolver = Arc::new(Knows(vec![silent, server.address])));
    let began = Instant::now();
    assert_eq!(asks.get("http://some.example/").unwrap().text(), "x");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(240) && took < Duration::from_secs(5), "{took:?}");
    drop(asks.client);
    // The slower one is closed, and has its record.
    asks.keeps.counts(1, 2);
    // The whole time is kept from the first moment on, not only once the next address would be tried.
    let asks = Asks::with(|settings| settings.resolver = Arc::new(Knows(vec![silent])));
    let began = Instant::now();
    let error =
        asks.run(asks.client.get("http://some.example/").timeout(Duration::from_millis(20))).unwrap_err();
    assert!(matches!(error, ClientError::Timeout(Waited::Total)), "{error}");
    assert!(began.elapsed() < Duration::from_millis(240), "{:?}", began.elapsed());
}

#[test]
fn names_have_their_own_time_and_can_be_given_up() {
    let (tell, told) = mpsc::channel();
    let asks = Asks::with(|settings| {
        settings.resolver = Arc::new(Holds(Mutex::new(tell)));
        settings.dns_timeout = Duration::from_millis(30);
    });
    let error = asks.get("http://some.example/").unwrap_err();
    assert!(matches!(error, ClientError::Timeout(Waited::Addresses)), "{error}");
    // An answer that comes too late is of no use, and does no harm.
    told.recv_timeout(PATIENCE).unwrap().answer(Ok(vec![closed()]));
    let total = asks.client.get("http://some.example/").timeout(Duration::from_millis(10));
    assert!(matches!(asks.run(total), Err(ClientError::Timeout(Waited::Total))));
    drop(told.recv_timeout(PATIENCE).unwrap());
    let kept = asks.keeps.counts(2, 0);
    assert!(kept.exchanges.iter().all(|exchange| exchange.phase == "resolve" || exchange.phase == "wait"));

    let (tell, told) = mpsc::channel();
    let asks = Asks::with(|settings| settings.resolver = Arc::new(Holds(Mutex::new(tell))));
    let task = asks.runtime.spawn(asks.client.get("http://some.example/"));
    let resolving = told.recv_timeout(PATIENCE).unwrap();
    task.cancel();
    assert!(task.wait_for(PATIENCE).unwrap().is_err());
    let kept = asks.keeps.counts(1, 0);
    assert_eq!(kept.exchanges[0].end.reason, Reason::LocalClose);
    drop(resolving);
    // Resolvers that give up fail the request.
    let task = asks.runtime.spawn(asks.client.get("http://some.example/"));
    drop(told.recv_timeout(PATIENCE).unwrap());
    assert!(matches!(task.wait_for(PATIENCE).unwrap().unwrap(), Err(ClientError::Resolve(_))));
}

#[test]
fn a_crowd_that_is_cancelled_leaves_nothing_behind() {
    let server = server(|number, caller| {
        while caller.request().is_some() {
            if number % 2 == 0 {
                caller.say(ok("x"));
            }
        }
    });
    let asks = Asks::with(|settings| (settings.max_connections, settings.max_waiting) = (8, 1_000));
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let tasks: Vec<_> = (0..300).map(|_| asks.runtime.spawn(asks.client.get(server.url("/")))).collect();
    let mut left: Vec<_> = tasks.into_iter().map(Some).collect();
    while left.iter().any(Option::is_some) {
        let index = random.usize(..left.len());
        if let Some(task) = left[index].take() {
            task.cancel();
            let _ = task.wait_for(PATIENCE).expect("it ends");
        }
    }
    drop(asks.client.clone());
    // Every request has its record, and no connection is left that serves nobody.
    let kept = asks.keeps.until("all records", |kept| kept.exchanges.len() == 300);
    assert!(kept.exchanges.iter().all(|exchange| exchange.client.is_some()));
    // What is left of the pool serves the next one.
    let ended: Parallel<_> =
        (0..20).map(|_| asks.client.head(server.url("/")).timeout(Duration::from_secs(1))).collect();
    let answered = asks.runtime.run(ended).unwrap().into_iter().filter(|r| matches!(r, Ok(Ok(_)))).count();
    assert!(answered > 0);
    let debug = format!("{:?}", asks.client);
    assert!(debug.contains("endpoints: 1") || debug.contains("endpoints: 0"), "{debug}");
}
