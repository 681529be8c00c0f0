//! The file server over real sockets.
#![cfg(feature = "cli")]
#![cfg(feature = "http")]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant};

use support::{Site, Wire};
use tidegate::http::Settings;
use tidegate::net::PacingBuilder;
use tidegate::poller::record::{Reason, Who};
use tidegate_meter::scratch::pattern;

#[test]
fn a_file_is_served_and_recorded() {
    let site = Site::new();
    let content = pattern(0, 300_000);
    site.folder.file("a/b.bin", &content);
    let mut client = site.connect();
    let response = client.get("/a/b.bin?x=1");
    assert_eq!(response.head.status, 200);
    assert!(response.body == content);
    assert_eq!(response.field("content-type"), "application/octet-stream");
    assert_eq!(response.field("server"), "tidegate");
    assert_eq!(response.field("accept-ranges"), "bytes");
    assert!(response.field("date").ends_with(" GMT") && !response.field("etag").is_empty());
    let record = site.records.exchanges(1).remove(0);
    assert_eq!(record.status, Some(200));
    assert_eq!(record.words.target(), Some(&b"/a/b.bin?x=1"[..]));
    assert_eq!(record.req_header_bytes, client.sent);
    assert_eq!(record.resp_header_bytes, response.head.bytes as u64);
    assert_eq!(record.resp_body_bytes, 300_000);
    assert_eq!((record.wire_in, record.wire_out), (client.sent, client.received));
    assert_eq!((record.end.who, record.end.reason, record.phase), (Who::Local, Reason::Ok, "reply"));
    let (first_byte, transfer) = (record.first_byte.unwrap(), record.transfer.unwrap());
    assert!(
        first_byte > Duration::ZERO && transfer > Duration::ZERO && record.total == first_byte + transfer
    );
    let sent = (client.sent, client.received);
    drop(client);
    let (_, connections) = site.records.connections(1);
    let entry = &connections[0];
    assert_eq!((entry.record.wire_in, entry.record.wire_out), sent);
    assert_eq!((entry.exchanges, entry.record.phase), (1, "idle"));
    assert_eq!((entry.record.end.who, entry.record.end.reason), (Who::Peer, Reason::Ok));
    assert_eq!(entry.record.tcp.unwrap().acked_bytes, Some(sent.1));
}

#[test]
fn keep_alive_serves_one_after_another() {
    let site = Site::new();
    site.folder.file("a", "first");
    site.folder.file("b", "second");
    let mut client = site.connect();
    for _ in 0..5 {
        assert_eq!(client.get("/a").body_text(), "first");
        assert_eq!(client.get("/none").head.status, 404);
        assert_eq!(client.get("/b").body_text(), "second");
    }
    client.send("GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let response = client.reply();
    assert_eq!(response.field("connection"), "close");
    client.expect_end();
    let (exchanges, connections) = site.records.connections(1);
    assert_eq!(exchanges.len(), 16);
    assert!(exchanges.iter().enumerate().all(|(index, record)| record.exchange_id == index as u64 + 1));
    assert_eq!(connections[0].exchanges, 16);
    assert_eq!(exchanges.iter().map(|record| record.wire_out).sum::<u64>(), client.received);
    assert_eq!(exchanges.iter().map(|record| record.wire_in).sum::<u64>(), client.sent);
}

#[test]
fn old_clients_get_what_they_ask_for() {
    let site = Site::new();
    site.folder.file("a", "old");
    let mut client = site.connect();
    client.send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.reply().field("connection"), "keep-alive");
    client.send("GET /a HTTP/1.0\r\n\r\n");
    let response = client.reply();
    assert_eq!((response.body_text().as_str(), response.field("connection")), ("old", "close"));
    client.expect_end();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let site = Site::new();
    let files: Vec<_> = (0..60).map(|n| pattern(0, n * 3_000)).collect();
    for (n, content) in files.iter().enumerate() {
        site.folder.file(&format!("f{n}"), content);
    }
    let mut client = site.connect();
    let requests: String = (0..60)
        .map(|n| format!("GET /f{n} HTTP/1.1\r\nHost: x\r\n\r\n{}", if n % 7 == 0 { "\r\n" } else { "" }))
        .collect();
    client.send(&requests);
    for content in &files {
        let response = client.reply();
        assert_eq!(response.head.status, 200);
        assert!(response.body == *content);
    }
    let records = site.records.exchanges(60);
    assert_eq!(records.iter().map(|record| record.wire_out).sum::<u64>(), client.received);
    // The line end after the last request is nobody's.
    assert_eq!(records.iter().map(|record| record.wire_in).sum::<u64>(), client.sent);
    assert!(records.windows(2).all(|pair| pair[0].exchange_id + 1 == pair[1].exchange_id));
}

#[test]
fn a_flood_of_pipelined_requests_is_held_back_not_buffered() {
    let site = Site::new();
    site.folder.file("big", vec![7; 1_000_000]);
    let mut client = site.connect();
    // Nobody reads the replies: the server must stop reading requests, so that this client is stopped too.
    client.stream.set_nonblocking(true).unwrap();
    let request = "GET /big HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
    let mut sent = 0;
    let until = Instant::now() + Duration::from_secs(10);
    let mut stuck_since: Option<Instant> = None;
    while stuck_since.is_none_or(|since| since.elapsed() < Duration::from_millis(300)) {
        assert!(Instant::now() < until && sent < 200_000_000, "it goes on taking requests: {sent}");
        match std::io::Write::write(&mut client.stream, request.as_bytes()) {
            Ok(count) => (sent, stuck_since) = (sent + count, None),
            Err(_) => {
                stuck_since.get_or_insert_with(Instant::now);
                std::thread::yield_now();
            }
        }
    }
}

#[test]
fn a_request_that_comes_in_pieces_is_put_together() {
    let site = Site::new();
    site.folder.file("a", "whole");
    let mut client = site.connect();
    let requests = "GET /a HTTP/1.1\r\nHost: x\r\nX-Long: y\r\n\r\nHEAD /a HTTP/1.1\r\nHost: x\r\n\r\n";
    for piece in requests.as_bytes().chunks(3) {
        client.send(piece);
        std::thread::yield_now();
    }
    assert_eq!(client.reply().body_text(), "whole");
    assert_eq!(client.bodiless().field("content-length"), "5");
    let records = site.records.exchanges(2);
    assert_eq!(records[0].wire_in + records[1].wire_in, client.sent);
}

#[test]
fn head_options_and_others() {
    let site = Site::new();
    site.folder.file("a.html", "<p>");
    let mut client = site.connect();
    client.send("HEAD /a.html HTTP/1.1\r\nHost: x\r\nRange: bytes=0-0\r\n\r\n");
    let head = client.bodiless();
    assert_eq!((head.head.status, head.field("content-length")), (200, "3"));
    assert_eq!(head.field("content-type"), "text/html; charset=utf-8");
    client.send("HEAD /none HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.bodiless().head.status, 404);
    for target in ["*", "/a.html"] {
        client.send(format!("OPTIONS {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let options = client.reply();
        assert_eq!((options.head.status, options.field("allow")), (204, "GET, HEAD, OPTIONS"));
    }
    for method in ["POST", "PUT", "DELETE", "BREW"] {
        client.send(format!("{method} /a.html HTTP/1.1\r\nHost: x\r\n\r\n"));
        let response = client.reply();
        assert_eq!((response.head.status, response.field("allow")), (405, "GET, HEAD, OPTIONS"), "{method}");
    }
    client.send("TRACE / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.reply().head.status, 501);
    let records = site.records.exchanges(9);
    assert_eq!((records[0].resp_body_bytes, records[1].resp_body_bytes), (0, 0));
}

#[test]
fn ranges_and_conditions() {
    let site = Site::new();
    let content = pattern(0, 10_000);
    site.folder.file("a", &content);
    let mut client = site.connect();
    let etag = client.get("/a").field("etag").to_owned();
    let modified = client.get("/a").field("last-modified").to_owned();
    let mut ask = |fields: &str| {
        client.send(format!("GET /a HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n"));
        client.reply()
    };
    let part = ask("Range: bytes=100-199");
    assert_eq!((part.head.status, part.field("content-range")), (206, "bytes 100-199/10000"));
    assert!(part.body == content[100..200]);
    let end = ask("Range: bytes=-1");
    assert!(end.head.status == 206 && end.body == content[9_999..]);
    let beyond = ask("Range: bytes=10000-");
    assert_eq!((beyond.head.status, beyond.field("content-range")), (416, "bytes */10000"));
    assert!(ask("Range: bytes=0-1,5-6").body == content);
    assert!(ask("Range: lines=0-1").head.status == 200);
    assert_eq!(ask(&format!("Range: bytes=0-1\r\nIf-Range: {etag}")).head.status, 206);
    assert_eq!(ask("Range: bytes=0-1\r\nIf-Range: \"other\"").head.status, 200);
    let fresh = ask(&format!("If-None-Match: {etag}"));
    assert!(
        fresh.head.status == 304 && fresh.field("etag") == etag && fresh.field("content-length").is_empty()
    );
    assert_eq!(ask(&format!("If-Modified-Since: {modified}")).head.status, 304);
    assert_eq!(ask("If-Match: \"other\"").head.status, 412);
    assert_eq!(ask("If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT").head.status, 412);
    site.folder.file("a", "changed");
    assert_eq!(ask(&format!("If-None-Match: {etag}")).body_text(), "changed");
    assert_eq!(ask("If-None-Match: *").head.status, 304);
    site.folder.file("empty", "");
    assert_eq!(client.get("/empty").body.len(), 0);
}

#[test]
fn directories() {
    let site = Site::new();
    site.folder.file("sub/index.html", "index");
    site.folder.file("list/b.txt", "b");
    site.folder.file("list/a & <b>.txt", "a");
    site.folder.file("list/.hidden", "h");
    site.folder.file("list/dir/x", "x");
    symlink("b.txt", site.folder.root().join("list/link.txt")).unwrap();
    fs::write(site.folder.outside("secret"), "s").unwrap();
    symlink(site.folder.outside("secret"), site.folder.root().join("list/leak")).unwrap();
    let mut client = site.connect();
    let moved = client.get("/sub?q=1");
    assert_eq!((moved.head.status, moved.field("location")), (301, "/sub/?q=1"));
    assert_eq!(client.get("//sub").field("location"), "/sub/");
    let index = client.get("/sub/");
    assert_eq!(
        (index.body_text().as_str(), index.field("content-type")),
        ("index", "text/html; charset=utf-8")
    );
    let page = client.get("/list/");
    assert_eq!((page.head.status, page.field("content-type")), (200, "text/html; charset=utf-8"));
    let text = page.body_text();
    for part in ["b.txt", "a &amp; &lt;b&gt;.txt", "dir/", "link.txt", "./a%20%26%20%3Cb%3E.txt"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("hidden") && !text.contains("leak"), "{text}");
    assert_eq!(client.get("/").head.status, 200);
    assert_eq!(client.get("/list/b.txt/").head.status, 404);
    assert_eq!(client.get("/nothing/").head.status, 404);
    client.send("HEAD /list/ HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.bodiless().field("content-length"), page.body.len().to_string());
    assert_eq!(client.get("/list/b.txt").body_text(), "b");
}

#[test]
fn nothing_outside_the_root_is_served() {
    let site = Site::new();
    fs::write(site.folder.outside("secret"), "secret").unwrap();
    site.folder.file("in", "in");
    let root = site.folder.root();
    symlink("../secret", root.join("relative")).unwrap();
    symlink(site.folder.outside("secret"), root.join("absolute")).unwrap();
    symlink("..", root.join("up")).unwrap();
    symlink("/", root.join("slash")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    symlink("circle", root.join("circle")).unwrap();
    symlink("in", root.join("inside")).unwrap();
    let mut client = site.connect();
    let escapes = [
        "/../secret",
        "/..%2fsecret",
        "/%2e%2e/secret",
        "/%2e%2e%2fsecret",
        "/in/../../secret",
        "/./../secret",
        "/..%252fsecret",
        "/..\\secret",
        "/..%5csecret",
        "//../secret",
        "/%2fetc/passwd",
        "//etc/passwd",
        "/relative",
        "/absolute",
        "/up/secret",
        "/up",
        "/slash/etc/passwd",
        "/magic/etc/passwd",
        "/circle",
        "http://x/../secret",
        "/up/root/in",
        "/..;/secret",
        "/%c0%ae%c0%ae/secret",
        "/.../secret",
    ];
    for target in escapes {
        let response = client.get(target);
        assert_eq!(response.head.status, 404, "{target}: {}", response.body_text());
        assert!(
            !response.body_text().contains("secret\n") && !response.body_text().contains("root:"),
            "{target}"
        );
    }
    assert_eq!(client.get("/inside").body_text(), "in");
    for target in ["/in%00", "/%", "/%zz", "in", "/in#x"] {
        assert_eq!(client.get(target).head.status, 400, "{target}");
    }
}

#[test]
fn what_is_no_file_is_not_found_and_blocks_nobody() {
    let site = Site::new();
    let root = site.folder.root();
    let made = std::process::Command::new("mkfifo").arg(root.join("pipe")).status().unwrap();
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    symlink("/dev/zero", root.join("zero")).unwrap();
    let secret = site.folder.file("locked", "x");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    site.folder.file(".hidden", "x");
    site.folder.file(".well-known/x", "known");
    let mut client = site.connect();
    for target in ["/pipe", "/socket", "/zero", "/.hidden", "/.git/", "/pipe/"] {
        assert_eq!(client.get(target).head.status, 404, "{target}");
    }
    assert_eq!(client.get("/.well-known/x").body_text(), "known");
    // Root may read anything.
    assert!(matches!(client.get("/locked").head.status, 403 | 200));
    // May be entered, not listed: the folder is there all the same.
    site.folder.file("dark/index.html", "light");
    fs::set_permissions(root.join("dark"), fs::Permissions::from_mode(0o311)).unwrap();
    assert_eq!(client.get("/dark").head.status, 301);
    assert_eq!(client.get("/dark/").body_text(), "light");
    fs::set_permissions(root.join("dark"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(client.get(&format!("/{}", "n".repeat(300))).head.status, 404);
}

#[test]
fn bodies_are_skipped_refused_or_the_end() {
    let site = Site::new();
    site.folder.file("a", "a");
    let mut client = site.connect();
    client.send("GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n");
    for chunk in vec![b'z'; 60_000].chunks(7_000) {
        client.send(chunk);
    }
    assert_eq!(client.reply().body_text(), "a");
    client.send(
        "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET /a HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    assert_eq!(client.reply().head.status, 405);
    assert_eq!(client.reply().body_text(), "a");
    let records = site.records.exchanges(3);
    assert_eq!(
        (records[0].req_body_bytes, records[1].req_body_bytes, records[2].req_body_bytes),
        (60_000, 3, 0)
    );
    assert_eq!(records.iter().map(|record| record.wire_in).sum::<u64>(), client.sent);
    for (request, status) in [
        ("GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n", 413),
        ("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n", 405),
        ("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", 405),
        ("GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", 200),
        ("GET /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n\r\n", 400),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501),
        ("GET /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400),
    ] {
        let response = site.ask(request);
        assert_eq!((response.head.status, response.field("connection")), (status, "close"), "{request}");
    }
}

#[test]
fn garbage_is_answered_recorded_and_closed() {
    let site = Site::new();
    site.folder.file("a", "a");
    for (garbage, status, reason) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], 400, Reason::ProtocolError),
        (b"HELO example.com\r\n", 400, Reason::ProtocolError),
        (b"\0\0\0\0\0\0", 400, Reason::ProtocolError),
        (b"GET / HTTP/1.1\r\n\r\n", 400, Reason::ProtocolError),
        (b"GET /a HTTP/1.1\r\nHost: x\r\nBad Name: y\r\n\r\n", 400, Reason::ProtocolError),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, Reason::ProtocolError),
    ] {
        let site = Site::new();
        let response = site.ask(garbage);
        assert_eq!((response.head.status, response.field("connection")), (status, "close"));
        let (exchanges, connections) = site.records.connections(1);
        assert_eq!((exchanges.len(), connections[0].exchanges), (1, 1));
        assert_eq!((exchanges[0].status, exchanges[0].phase), (Some(status), "request"));
        assert_eq!((exchanges[0].end.who, exchanges[0].end.reason), (Who::Local, reason));
        assert_eq!(connections[0].record.wire_in, garbage.len() as u64);
        assert_eq!((connections[0].record.end.reason, connections[0].record.phase), (reason, "request"));
    }
    // What came before the garbage is answered first.
    let mut client = site.connect();
    client.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\nnonsense here\r\n");
    assert_eq!(client.reply().body_text(), "a");
    assert_eq!(client.reply().head.status, 400);
    client.expect_end();
}

#[test]
fn heads_have_a_limit() {
    let site = Site::new();
    for (request, status) in [
        (format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(17_000)), 431),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(101)), 431),
        (format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(9_000)), 414),
        (format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100_000)), 414),
    ] {
        let site_response = site.ask(&request);
        assert_eq!(site_response.head.status, status, "{}", &request[..40]);
    }
    let records = site.records.exchanges(4);
    assert!(records.iter().all(|record| record.end.reason == Reason::Denied && record.phase == "request"));
    // Slowly too: no newline for a long time, and then many small pieces.
    let mut client = site.connect();
    client.send("GET /");
    for _ in 0..170 {
        client.send([b'a'; 100]);
    }
    assert_eq!(client.reply().head.status, 414);
}

#[test]
fn no_answer_to_head_has_a_body_not_even_a_refusal() {
    let site = Site::new();
    site.folder.file("a", "a");
    let long = "a".repeat(17_000);
    for (request, status) in [
        ("HEAD /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), 404),
        ("HEAD /a HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("HEAD /a HTTP/1.1\r\nHost: x\r\nnot a field\r\n\r\n".to_owned(), 400),
        ("HEAD /a HTTP/2.0\r\nHost: x\r\n\r\n".to_owned(), 505),
        (format!("HEAD /a HTTP/1.1\r\nHost: x\r\nA: {long}\r\n\r\n"), 431),
        (format!("HEAD /{long} HTTP/1.1\r\n"), 414),
    ] {
        let mut client = site.connect();
        client.send(&request);
        assert_eq!(client.bodiless().head.status, status, "{}", &request[..20]);
        client.expect_end();
    }
}

#[test]
fn the_gap_of_a_reply_is_its_own() {
    let pacing = PacingBuilder { connection: Some(100_000), ..PacingBuilder::default() }.build();
    let site = Site::with(Settings { pacing, ..Settings::default() }, 1, 100);
    site.folder.file("a", pattern(0, 2_000));
    let mut client = site.connect();
    // Paused in the middle of this many; then several of them go in one write.
    client.send(
        "GET /a HTTP/1.1\r\nHost: x\r\n\r\n".repeat(4) + &"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n".repeat(60),
    );
    for _ in 0..4 {
        client.reply();
    }
    for _ in 0..60 {
        client.bodiless();
    }
    for record in site.records.exchanges(64) {
        let gap = Duration::from_nanos(record.pauses.longest_gap_ns);
        let transfer = record.transfer.unwrap();
        let throttled = Duration::from_nanos(record.pauses.throttled_ns);
        assert!(gap <= record.total, "{record:?}");
        // Nothing of a reply that went in one piece was ever waited for, except for its first byte.
        assert!(gap <= throttled + transfer, "{record:?}");
    }
}

fn impatient() -> Settings {
    Settings {
        header_timeout: Duration::from_millis(150),
        body_timeout: Duration::from_millis(150),
        idle_timeout: Duration::from_millis(250),
        ..Settings::default()
    }
}

#[test]
fn a_slow_head_is_given_up() {
    let site = Site::with(impatient(), 1, 100);
    let started = Instant::now();
    let mut client = site.connect();
    client.send("GET /a HTTP/1.1\r\nHos");
    let response = client.reply();
    assert_eq!((response.head.status, response.field("connection")), (408, "close"));
    client.expect_end();
    assert!(started.elapsed() >= Duration::from_millis(150));
    let (exchanges, connections) = site.records.connections(1);
    assert_eq!(
        (exchanges[0].status, exchanges[0].end.reason, exchanges[0].phase),
        (Some(408), Reason::Timeout, "request")
    );
    assert_eq!((exchanges[0].end.who, exchanges[0].wire_in), (Who::Local, client.sent));
    assert_eq!((connections[0].record.end.reason, connections[0].record.phase), (Reason::Timeout, "request"));
}

#[test]
fn a_slow_second_head_has_its_own_time() {
    let site = Site::with(impatient(), 1, 100);
    site.folder.file("a", "a");
    let mut client = site.connect();
    client.get("/a");
    std::thread::sleep(Duration::from_millis(120));
    let started = Instant::now();
    client.send("GET /a HT");
    assert_eq!(client.reply().head.status, 408);
    assert!(started.elapsed() >= Duration::from_millis(145), "{:?}", started.elapsed());
    let record = site.records.exchanges(2).remove(1);
    assert!(record.total < Duration::from_millis(1_000) && record.total >= Duration::from_millis(145));
}

#[test]
fn a_request_that_comes_in_pieces_behind_a_long_reply_has_its_time() {
    const TIMEOUT: Duration = Duration::from_millis(700);
    for (first, rest, status) in [
        ("GET /a HT", "TP/1.1\r\nHost: x\r\n\r\n", 200),
        ("GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1234", "56789", 200),
        ("GET /a HT", "", 408),
    ] {
        let site = Site::with(
            Settings { header_timeout: TIMEOUT, body_timeout: TIMEOUT, ..Settings::default() },
            1,
            100,
        );
        site.folder.file("big", vec![1; 30_000_000]);
        site.folder.file("a", "a");
        let mut client = site.connect();
        client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
        let length: usize = client.bodiless().field("content-length").parse().unwrap();
        // Nothing more is read until there is room for another reply: the client could not send the rest.
        client.send(first);
        std::thread::sleep(TIMEOUT + Duration::from_millis(100));
        let resumed = Instant::now();
        client.discard(length);
        client.send(rest);
        assert_eq!(client.reply().head.status, status, "{first}");
        assert!(status == 200 || resumed.elapsed() >= TIMEOUT);
    }
}

#[test]
fn a_request_sent_while_a_reply_is_under_way_starts_when_it_is_sent() {
    let site = Site::new();
    site.folder.file("big", vec![1; 30_000_000]);
    site.folder.file("a", "a");
    let mut client = site.connect();
    client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    let length: usize = client.bodiless().field("content-length").parse().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    client.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.take(length).len(), length);
    assert_eq!(client.reply().body_text(), "a");
    let records = site.records.exchanges(2);
    let apart = records[1].started.duration_since(records[0].started).unwrap();
    assert!(apart >= Duration::from_millis(190), "{apart:?}");
    assert!(records[0].pauses.blocked_ns >= 150_000_000 && records[1].pauses.blocked_ns < 100_000_000);
}

#[test]
fn shutdown_answers_what_had_arrived() {
    let mut site = Site::new();
    site.folder.file("a", "a");
    let mut clients: Vec<Wire> = (0..20).map(|_| site.connect()).collect();
    for client in &mut clients {
        client.get("/a");
    }
    for client in &mut clients {
        client.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    site.stop(Duration::from_secs(10));
    for client in &mut clients {
        assert_eq!(client.reply().body_text(), "a");
        client.expect_end();
    }
    site.join();
}

#[test]
fn a_silent_caller_is_closed_without_a_word() {
    let site = Site::with(impatient(), 1, 100);
    let mut client = site.connect();
    client.expect_end();
    let (exchanges, connections) = site.records.connections(1);
    assert!(exchanges.is_empty());
    assert_eq!((connections[0].record.end.reason, connections[0].record.phase), (Reason::Timeout, "idle"));
    assert_eq!(connections[0].exchanges, 0);
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    let site = Site::with(impatient(), 1, 100);
    site.folder.file("a", "a");
    let mut client = site.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/a").body_text(), "a");
        // Longer than the header timeout, shorter than the idle one.
        std::thread::sleep(Duration::from_millis(180));
    }
    let quiet = Instant::now();
    client.expect_end();
    assert!(quiet.elapsed() < Duration::from_secs(5));
    let (exchanges, connections) = site.records.connections(1);
    assert_eq!(exchanges.len(), 3);
    assert_eq!(
        (connections[0].record.end.who, connections[0].record.end.reason),
        (Who::Local, Reason::Timeout)
    );
    assert_eq!(connections[0].record.phase, "idle");
}

#[test]
fn a_slow_body_is_given_up() {
    let site = Site::with(impatient(), 1, 100);
    let mut client = site.connect();
    client.send("GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nsome");
    assert_eq!(client.reply().head.status, 408);
    client.expect_end();
    let record = site.records.exchanges(1).remove(0);
    assert_eq!((record.req_body_bytes, record.end.reason), (4, Reason::Timeout));
}

#[test]
fn a_reader_that_stops_is_timed_out_and_counted_to_the_byte() {
    let settings = Settings { send_timeout: Duration::from_millis(200), ..Settings::default() };
    let site = Site::with(settings, 1, 100);
    site.folder.file("big", vec![1; 40_000_000]);
    let mut client = site.connect();
    client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    let (exchanges, connections) = site.records.connections(1);
    let record = &exchanges[0];
    assert_eq!((record.status, record.phase, record.end.who), (Some(200), "reply", Who::Local));
    assert_eq!(record.end.reason, Reason::Timeout);
    assert!(record.first_byte.is_some() && record.transfer.is_none());
    assert!(record.resp_body_bytes < 40_000_000 && record.pauses.blocked_ns >= 190_000_000, "{record:?}");
    assert_eq!(record.wire_out, connections[0].record.wire_out);
    assert_eq!(record.wire_out, record.resp_header_bytes + record.resp_body_bytes);
}

#[test]
fn a_client_that_leaves_in_the_middle_is_recorded() {
    let site = Site::new();
    site.folder.file("big", vec![1; 60_000_000]);
    let mut client = site.connect();
    client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\nGET /next HTTP/1.1\r\nHost: x\r\n\r\n");
    client.bodiless();
    client.take(100_000);
    client.reset();
    let (exchanges, connections) = site.records.connections(1);
    assert_eq!(exchanges.len() as u64, connections[0].exchanges);
    let record = &exchanges[0];
    assert_eq!((record.end.who, record.end.reason, record.phase), (Who::Peer, Reason::Abort, "reply"));
    assert!(record.transfer.is_none() && record.resp_body_bytes >= 100_000);
    assert_eq!(record.wire_out, connections[0].record.wire_out);
    assert_eq!((connections[0].record.end.who, connections[0].record.phase), (Who::Peer, "reply"));
}

#[test]
fn a_client_that_leaves_in_a_head_is_recorded() {
    let site = Site::new();
    let mut client = site.connect();
    client.send("GET /a HTTP/1.1\r\nHos");
    let sent = client.sent;
    drop(client);
    let (exchanges, connections) = site.records.connections(1);
    let record = &exchanges[0];
    assert_eq!((record.status, record.end.who, record.end.reason), (None, Who::Peer, Reason::Abort));
    assert_eq!((record.phase, record.wire_in, record.wire_out), ("request", sent, 0));
    assert_eq!((connections[0].record.end.reason, connections[0].exchanges), (Reason::Abort, 1));
}

#[test]
fn a_half_closed_client_gets_all_it_asked_for() {
    let site = Site::new();
    let content = pattern(0, 2_000_000);
    site.folder.file("big", &content);
    let mut client = site.connect();
    client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\nGET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    client.half_close();
    assert!(client.reply().body == content);
    assert!(client.reply().body == content);
    client.expect_end();
    let (exchanges, connections) = site.records.connections(1);
    assert!(exchanges.iter().all(|record| record.end.reason == Reason::Ok));
    assert_eq!((connections[0].record.end.who, connections[0].record.end.reason), (Who::Peer, Reason::Ok));
}

#[test]
fn a_full_server_says_so() {
    let site = Site::with(Settings::default(), 1, 2);
    site.folder.file("a", "a");
    let (mut first, mut second) = (site.connect(), site.connect());
    assert_eq!((first.get("/a").head.status, second.get("/a").head.status), (200, 200));
    let mut third = site.connect();
    let response = third.reply();
    assert_eq!((response.head.status, response.field("retry-after")), (503, "1"));
    third.expect_end();
    drop(third);
    let (_, connections) = site.records.connections(1);
    assert_eq!((connections[0].record.end.reason, connections[0].record.phase), (Reason::Denied, "accept"));
    drop(first);
    site.records.connections(2);
    assert_eq!(site.get("/a").head.status, 200);
}

#[test]
fn shutdown_lets_the_busy_finish_and_the_idle_go() {
    let mut site = Site::new();
    let content = pattern(0, 20_000_000);
    site.folder.file("big", &content);
    site.folder.file("a", "a");
    let (mut idle, mut busy, mut fresh) = (site.connect(), site.connect(), site.connect());
    idle.get("/a");
    fresh.get("/a");
    busy.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    let length = busy.bodiless().field("content-length").parse().unwrap();
    fresh.send("GET /a HTTP/1.1\r\nHost");
    // Until the server has seen it there is nothing to finish.
    std::thread::sleep(Duration::from_millis(50));
    site.stop(Duration::from_secs(10));
    idle.expect_end();
    fresh.send(": x\r\n\r\n");
    let last = fresh.reply();
    assert_eq!((last.body_text().as_str(), last.field("connection")), ("a", "close"));
    fresh.expect_end();
    assert!(busy.take(length) == content);
    busy.expect_end();
    site.join();
    let (exchanges, connections) = site.records.connections(3);
    assert!(exchanges.iter().all(|record| record.end.reason == Reason::Ok));
    assert!(connections.iter().all(|entry| entry.record.end.reason == Reason::Shutdown), "{connections:?}");
}

#[test]
fn shutdown_cuts_what_does_not_finish() {
    let mut site = Site::new();
    site.folder.file("big", vec![1; 60_000_000]);
    let mut client = site.connect();
    client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    client.bodiless();
    site.stop(Duration::from_secs(60));
    // Asked again, the shorter grace counts.
    site.stop(Duration::from_millis(50));
    site.join();
    let (exchanges, connections) = site.records.connections(1);
    assert_eq!((exchanges[0].end.reason, exchanges[0].end.who), (Reason::Shutdown, Who::Local));
    assert_eq!(exchanges[0].wire_out, connections[0].record.wire_out);
    assert!(connections[0].record.dropped_out > 0);
}

#[test]
fn several_pollers_share_one_port() {
    let site = Site::with(Settings::default(), 3, 100);
    site.folder.file("a", "a");
    let mut clients: Vec<Wire> = (0..40).map(|_| site.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/a").body_text(), "a");
    }
    drop(clients);
    let (_, connections) = site.records.connections(40);
    let mut ids: Vec<_> = connections.iter().map(|entry| entry.record.conn_id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 40);
}

#[test]
fn a_file_that_shrinks_and_grows_holds_nobody_up() {
    let site = Site::with(Settings { send_timeout: Duration::from_secs(60), ..Settings::default() }, 1, 100);
    let content = vec![1; 1_000_000];
    let path = site.folder.file("a", &content);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = fs::File::options().write(true).open(path).unwrap();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                file.set_len(0).unwrap();
                file.set_len(1_000_000).unwrap();
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        for _ in 0..300 {
            let mut client = site.connect();
            client.send("GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            // One that hangs leaves after this, and its record says so.
            client.stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
            client.drain();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let (exchanges, _) = site.records.connections(300);
    assert!(exchanges.iter().all(|record| matches!(record.end.reason, Reason::Ok | Reason::SourceFailed)));
}

#[test]
fn a_file_that_shrinks_ends_the_connection_not_the_server() {
    let site = Site::new();
    let path = site.folder.file("big", vec![1; 50_000_000]);
    let mut client = site.connect();
    client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    client.bodiless();
    fs::write(&path, "short").unwrap();
    assert!(client.drain().len() < 50_000_000);
    let record = site.records.exchanges(1).remove(0);
    assert_eq!((record.end.who, record.end.reason), (Who::Local, Reason::SourceFailed));
    assert_eq!(site.get("/big").body_text(), "short");
}
