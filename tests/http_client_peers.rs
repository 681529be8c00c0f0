//! The HTTP client with real servers and proxies at the other end, and under budgets.

mod client_support;
mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use client_support::Asks;
use support::{Nginx, Serve, await_that, program};
use tidegate::http::client::Proxies;
use tidegate::http::{Body, ClientError};
use tidegate::poller::{Budget, Limit};
use tidegate::task::Parallel;
use tidegate_meter::scratch::{make_file, pattern};

#[test]
fn nginx_serves_files_and_compresses_them() {
    let nginx = Nginx::start(
        "types { text/plain txt; }",
        "gzip on; gzip_types text/plain; gzip_min_length 1; keepalive_requests 3;",
    );
    make_file(&nginx.root().join("a.txt"), 300_000).unwrap();
    let asks = Asks::new();
    for n in 0..7 {
        let response = asks.get(&nginx.url("/a.txt")).unwrap();
        assert!(response.bytes() == pattern(0, 300_000), "{n}");
        let record = response.record().unwrap();
        if cfg!(feature = "decompression") {
            assert!(
                record.resp_body_bytes < 300_000
                    && record.client.as_deref().unwrap().body_decoded_bytes == 300_000
            );
        }
        // It closes a connection after three requests, and says so.
        assert_eq!(record.client.as_deref().unwrap().reused, n % 3 != 0);
    }
    let plain = asks.run(asks.client.get(nginx.url("/a.txt")).decompress(false)).unwrap();
    assert_eq!(plain.record().unwrap().resp_body_bytes, 300_000);
    let range = asks.run(asks.client.get(nginx.url("/a.txt")).header("Range", "bytes=5-9")).unwrap();
    assert_eq!((range.status.as_u16(), range.bytes()), (206, &pattern(5, 5)[..]));
    let missing = asks.get(&nginx.url("/none")).unwrap();
    assert_eq!(missing.status.as_u16(), 404);
}

#[test]
fn nginx_takes_uploads() {
    let nginx = Nginx::start(
        "",
        "client_max_body_size 20m; location /in/ { dav_methods PUT; create_full_put_path on; }",
    );
    let asks = Asks::new();
    let body = pattern(0, 5_000_000);
    let response = asks.run(asks.client.put(nginx.url("/in/bytes"), body.clone())).unwrap();
    if response.status.as_u16() == 405 {
        panic!("nginx has no dav module: run tests/run, which installs nginx-light");
    }
    assert_eq!(response.status.as_u16(), 201);
    assert!(std::fs::read(nginx.root().join("in/bytes")).unwrap() == body);
    let path = nginx.root().join("file");
    make_file(&path, 3_000_000).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    let id = tidegate::http::body::FileId { device: 0, inode: 0 };
    let body = Body::File { file: Arc::new(file), id, offset: 1_000, len: 2_000_000 };
    let response = asks.run(asks.client.put(nginx.url("/in/file"), body)).unwrap();
    assert_eq!(response.status.as_u16(), 201);
    assert!(std::fs::read(nginx.root().join("in/file")).unwrap() == pattern(1_000, 2_000_000));
    assert_eq!(response.record().unwrap().req_body_bytes, 2_000_000);
}

#[test]
fn a_slow_server_is_not_a_late_one() {
    let nginx = Nginx::start("", "limit_rate 300k;");
    make_file(&nginx.root().join("slow"), 500_000).unwrap();
    let asks = Asks::with(|settings| settings.next_byte_timeout = Duration::from_secs(3));
    let began = Instant::now();
    let response = asks.get(&nginx.url("/slow")).unwrap();
    assert!(response.bytes() == pattern(0, 500_000));
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
}

/// A program that is stopped with the test.
struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn pythons_server_closes_and_is_understood() {
    let nginx_like = tidegate_meter::scratch::Scratch::new("python").unwrap();
    make_file(&nginx_like.path().join("a"), 200_000).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = program("python3");
    command
        .args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string()])
        .current_dir(nginx_like.path());
    let _python = Stopped(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    await_that("python listens", || TcpStream::connect(("127.0.0.1", port)).ok());
    let asks = Asks::new();
    let requests: Parallel<_> =
        (0..20).map(|_| asks.client.get(format!("http://127.0.0.1:{port}/a"))).collect();
    for response in asks.runtime.run(requests).unwrap() {
        assert!(response.unwrap().unwrap().bytes() == pattern(0, 200_000));
    }
    let folder = asks.get(&format!("http://127.0.0.1:{port}/")).unwrap();
    assert!(folder.text().contains("href=\"a\""));
}

/// A proxy of a few lines: for each connection it reads a head, and joins both ends.
struct Proxy {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

fn proxy(password: Option<&'static str>) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let count = count.clone();
            std::thread::spawn(move || relay(client, password, &count));
        }
    });
    Proxy { address, asked }
}

fn relay(mut client: TcpStream, password: Option<&str>, count: &AtomicUsize) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if client.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    count.fetch_add(1, Ordering::SeqCst);
    let head = String::from_utf8(head).unwrap();
    if password.is_some_and(|password| !head.contains(&format!("Proxy-Authorization: Basic {password}\r\n")))
    {
        let _ = client.write_all(b"HTTP/1.1 407 Who?\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    }
    let target = head.split(' ').nth(1).unwrap();
    let mut server = if head.starts_with("CONNECT ") {
        let Ok(server) = TcpStream::connect(target) else {
            let _ = client.write_all(b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n");
            return;
        };
        client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").unwrap();
        server
    } else {
        let rest = target.strip_prefix("http://").expect("the absolute form");
        let (host, path) = rest.split_once('/').unwrap();
        let mut server = TcpStream::connect(host).unwrap();
        // One request a connection is enough of a proxy here.
        let head =
            head.replacen(target, &format!("/{path}"), 1).replacen("\r\n", "\r\nConnection: close\r\n", 1);
        server.write_all(head.as_bytes()).unwrap();
        server
    };
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let _ = std::io::copy(&mut server, &mut client);
    let _ = client.shutdown(std::net::Shutdown::Both);
}

#[test]
fn requests_go_through_a_proxy_and_past_it() {
    let serve = Serve::start(&[]);
    serve.file("a", 100_000);
    let proxy = proxy(Some("bWU6aXQ="));
    let url = format!("http://me:it@{}", proxy.address);
    let asks = Asks::with(|settings| settings.proxies = Proxies::all(&url).unwrap().except("past.example"));
    for _ in 0..3 {
        assert!(asks.get(&serve.url("/a")).unwrap().bytes() == pattern(0, 100_000));
    }
    assert_eq!(proxy.asked.load(Ordering::SeqCst), 3);
    let unknown = Asks::with(|settings| settings.proxies = Proxies::all(&proxy.address.to_string()).unwrap());
    assert_eq!(unknown.get(&serve.url("/a")).unwrap().status.as_u16(), 407);
    let past = Asks::with(|settings| settings.proxies = Proxies::all(&url).unwrap().except("127.0.0.1"));
    past.get(&serve.url("/a")).unwrap();
    assert_eq!(proxy.asked.load(Ordering::SeqCst), 4);
}

/// A transfer of so many bytes at so many a second: neither much faster nor much slower. A busy machine makes it slower
/// only.
fn is_paced(bytes: u64, rate: u64, took: Duration) {
    let ideal = bytes as f64 / rate as f64;
    let took = took.as_secs_f64();
    assert!(
        took >= ideal * 0.85 && took <= ideal * 1.5 + 0.5,
        "{bytes} bytes at {rate}/s took {took} s, not {ideal}"
    );
}

#[test]
fn one_request_keeps_to_its_own_limit_both_ways() {
    let serve = Serve::start(&[]);
    serve.file("a", 1_000_000);
    let asks = Asks::new();
    let limit = Limit::new("one", Some(800_000));
    let began = Instant::now();
    let response = asks.run(asks.client.get(serve.url("/a")).limit(&limit)).unwrap();
    is_paced(1_000_000, 800_000, began.elapsed());
    assert!(response.bytes() == pattern(0, 1_000_000));
    let throttled = response.record().unwrap().client.as_deref().unwrap().read_throttled;
    assert!(throttled > Duration::from_millis(500), "{throttled:?}");
    // The next one on the same connection has none.
    let began = Instant::now();
    let response = asks.get(&serve.url("/a")).unwrap();
    assert!(response.record().unwrap().client.as_deref().unwrap().reused);
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());

    // The same through a budget of its own, and without it again.
    let budget = Budget::builder("own").rate(800_000).build();
    let began = Instant::now();
    asks.run(asks.client.get(serve.url("/a")).budget(&budget)).unwrap();
    is_paced(1_000_000, 800_000, began.elapsed());
    let began = Instant::now();
    let response = asks.get(&serve.url("/a")).unwrap();
    assert!(response.record().unwrap().client.as_deref().unwrap().reused);
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());

    let sink = client_support::server(|_, caller| {
        caller.request();
        caller.body(1_000_000);
        caller.say(client_support::ok("thanks"));
    });
    let began = Instant::now();
    let body = vec![1; 1_000_000];
    let response = asks.run(asks.client.put(sink.url("/"), body).upload_limit(&limit)).unwrap();
    // The first quantum is not waited for, nor is the last; what the kernels hold does not count.
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    assert!(response.record().unwrap().pauses.throttled_ns > 500_000_000);
}

#[test]
fn a_request_has_its_part_of_a_budget_by_weight() {
    let serve = Serve::start(&[]);
    serve.file("three", 900_000);
    serve.file("one", 300_000);
    let asks = Asks::new();
    let budget = Budget::builder("both").rate(600_000).build();
    let requests: Parallel<_> = [("/three", 3), ("/one", 1)]
        .map(|(path, weight)| asks.client.get(serve.url(path)).budget_weighted(&budget, weight))
        .into_iter()
        .collect();
    let took: Vec<_> = asks.runtime.run(requests).unwrap();
    let took = took.into_iter().map(|response| response.unwrap().unwrap().record().unwrap().total);
    let [three, one] = took.collect::<Vec<_>>()[..] else { panic!("two were asked for") };
    // With like parts, the shorter one would take half as long as the other.
    assert!(one.as_secs_f64() > 0.75 * three.as_secs_f64(), "{one:?} beside {three:?}");
}

#[test]
fn all_requests_share_the_clients_budget() {
    let serve = Serve::start(&[]);
    serve.file("a", 400_000);
    let budget = Budget::builder("all").rate(1_000_000).build();
    // A pause of the budget's is longer than these; it is nobody's fault.
    let patience = Duration::from_millis(300);
    let asks = Asks::with(|settings| {
        settings.spending.ingress_budget = Some(budget);
        (settings.first_byte_timeout, settings.next_byte_timeout) = (patience, patience);
    });
    let began = Instant::now();
    let requests: Parallel<_> = (0..5).map(|_| asks.client.get(serve.url("/a"))).collect();
    for response in asks.runtime.run(requests).unwrap() {
        match response.unwrap() {
            Ok(response) => assert!(response.bytes() == pattern(0, 400_000)),
            Err(error @ ClientError::Timeout(_)) => panic!("a pause was taken for the server's: {error}"),
            Err(error) => panic!("{error}"),
        }
    }
    is_paced(2_000_000, 1_000_000, began.elapsed());
}
