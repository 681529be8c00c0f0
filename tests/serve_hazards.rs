//! A folder that changes under the server's hands, and what may lie in one.
#![cfg(feature = "cli")]

mod support;

use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::{Serve, Site, Wire, check_log, end, number};
use tidegate::http::ServerSettings;
use tidegate::net::Pacing;
use tidegate::poller::Reason;
use tidegate_meter::scratch::pattern;
use tidegate_meter::sys::Tell;

const SIZE: usize = 400_000;

/// A site whose replies take their time.
fn slow() -> Site {
    let pacing = Pacing::builder().connection(1_000_000).build();
    Site::with(ServerSettings { pacing, ..ServerSettings::default() }, 1, 100)
}

#[test]
fn a_file_that_is_replaced_removed_or_grows_goes_on_as_it_was_announced() {
    let site = slow();
    let old = pattern(0, SIZE);
    for (what, change) in [
        ("replaced", (|path, fresh| fs::rename(fresh, path)) as fn(&std::path::Path, &std::path::Path) -> _),
        ("removed", |path, _| fs::remove_file(path)),
        ("grown", |path, _| fs::File::options().append(true).open(path)?.write_all(&[b'z'; SIZE])),
        ("moved away", |path, fresh| fs::rename(path, fresh)),
    ] {
        let path = site.folder.file("file", &old);
        let fresh = site.folder.file("fresh", vec![b'y'; SIZE]);
        let mut client = site.connect();
        client.ask("/file", "");
        let (head, text) = client.head();
        assert_eq!(head.length, Some(SIZE as u64));
        change(&path, &fresh).unwrap();
        let mut reply = support::Reply { head, text, body: Vec::new(), reads: Vec::new() };
        client.body(&mut reply, u64::MAX, Duration::MAX);
        assert!(reply.body == old, "{what}: {} bytes", reply.body.len());
        assert_eq!(client.get("/none").head.status, 404, "{what}: the connection goes on");
    }
    assert!(site.records.exchanges(8).iter().all(|record| record.end.reason == Reason::Ok));
}

#[test]
fn a_folder_that_becomes_a_link_leads_nobody_out() {
    let site = Site::new();
    fs::create_dir(site.folder.outside("out")).unwrap();
    fs::write(site.folder.outside("out/file"), "secret").unwrap();
    site.folder.file("real/file", "public");
    let root = site.folder.root();
    let done = AtomicBool::new(false);
    let (mut served, mut missed) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Both are put in the place of the other, at once, by a rename.
            while !done.load(Ordering::Relaxed) {
                symlink("real", root.join("next")).unwrap();
                fs::rename(root.join("next"), root.join("way")).unwrap();
                symlink("../out", root.join("next")).unwrap();
                fs::rename(root.join("next"), root.join("way")).unwrap();
            }
        });
        let mut client = site.connect();
        for _ in 0..3_000 {
            let reply = client.get("/way/file");
            match reply.head.status {
                200 => {
                    assert_eq!(reply.body_text(), "public");
                    served += 1;
                }
                404 => missed += 1,
                other => panic!("{other}: {}", reply.body_text()),
            }
            let listing = client.get("/way/");
            assert!(!listing.body_text().contains("secret"));
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(served > 0 && missed > 0, "{served} {missed}");
}

#[test]
fn pipes_in_a_folder_hold_nobody_up_wherever_they_lie() {
    let site = Site::new();
    let root = site.folder.root();
    let pipe = |name: &str| {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        assert!(Command::new("mkfifo").arg(root.join(name)).status().unwrap().success());
    };
    // As a file, as an index, behind a link, and in a listing.
    ["pipe", "index/index.html", "list/pipe"].into_iter().for_each(pipe);
    symlink("../pipe", root.join("list/link")).unwrap();
    site.folder.file("list/file", "file");
    let mut client = site.connect();
    for _ in 0..3 {
        for target in ["/pipe", "/list/link", "/list/pipe", "/index/index.html", "/pipe/x"] {
            assert_eq!(client.get(target).head.status, 404, "{target}");
        }
        let list = client.get("/list/");
        assert!(
            list.body_text().contains("./file") && !list.body_text().contains("./pipe"),
            "{}",
            list.body_text()
        );
        assert!(!list.body_text().contains("./link"));
        let index = client.get("/index/");
        assert_eq!(index.head.status, 200);
        assert!(index.body_text().contains("Nothing here"));
    }
}

#[test]
fn a_name_that_breaks_lines_breaks_no_page_and_no_log() {
    let serve = Serve::start(&[]);
    let names: [&[u8]; 4] = [b"two\nlines", b"\r\nSet-Cookie: a=b", b"tab\there", b"\xff\x80"];
    for name in names {
        fs::write(serve.root().join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
    }
    let mut client = Wire::connect(serve.address());
    let page = client.get("/").body_text();
    let rows = page.lines().filter(|line| line.starts_with("<tr><td><a")).collect::<Vec<_>>();
    assert_eq!(rows.len(), names.len(), "{page}");
    for (row, name) in rows.iter().zip(0..) {
        let link = row.split('"').nth(1).unwrap().trim_start_matches('.');
        let reply = client.get(link);
        assert!(names.contains(&&reply.body[..]), "{name}: {link}");
        assert!(!reply.text.contains("Set-Cookie"));
    }
    // Of a folder it says where it is.
    fs::create_dir(serve.root().join("a\r\nSet-Cookie: a=b")).unwrap();
    let reply = client.get("/a%0d%0aSet-Cookie:%20a=b");
    assert_eq!((reply.head.status, reply.field("set-cookie")), (301, ""));
    assert_eq!(client.get(&format!("/{}", "%0a".repeat(200))).head.status, 404);
    drop(client);
    let log = serve.stop().log();
    check_log(&log);
    assert_eq!((log.exchanges.len(), log.connections.len()), (names.len() + 3, 1));
}

#[test]
fn ranges_at_the_edges_are_bytes_or_nothing() {
    let site = Site::new();
    let content = pattern(0, 1_000);
    site.folder.file("file", &content);
    site.folder.file("empty", "");
    let mut client = site.connect();
    let tag = client.get("/file").field("etag").to_owned();
    let date = client.get("/file").field("last-modified").to_owned();
    let huge = "9".repeat(40);
    for (target, fields, status, part) in [
        ("/file", "Range: bytes=-0\r\n".to_owned(), 416, 0..0),
        ("/file", "Range: bytes=0-\r\n".to_owned(), 206, 0..1_000),
        ("/file", "Range: bytes=999-\r\n".to_owned(), 206, 999..1_000),
        ("/file", "Range: bytes=1000-\r\n".to_owned(), 416, 0..0),
        ("/file", format!("Range: bytes=0-{huge}\r\n"), 206, 0..1_000),
        ("/file", format!("Range: bytes={huge}-\r\n"), 416, 0..0),
        ("/file", format!("Range: bytes=-{huge}\r\n"), 206, 0..1_000),
        ("/file", format!("Range: bytes={huge}-{huge}\r\n"), 416, 0..0),
        ("/file", "Range: bytes=0-0,-1\r\n".to_owned(), 200, 0..1_000),
        ("/file", format!("Range: bytes={}0-1\r\n", "0-1,".repeat(1_000)), 200, 0..1_000),
        ("/file", format!("Range: bytes=1-2\r\nIf-Range: {tag}\r\n"), 206, 1..3),
        ("/file", format!("Range: bytes=1-2\r\nIf-Range: W/{tag}\r\n"), 200, 0..1_000),
        ("/file", "Range: bytes=1-2\r\nIf-Range: \"other\"\r\n".to_owned(), 200, 0..1_000),
        ("/file", format!("Range: bytes=1-2\r\nIf-Range: {date}\r\n"), 206, 1..3),
        ("/file", "Range: bytes=1-2\r\nIf-Range: yesterday\r\n".to_owned(), 200, 0..1_000),
        ("/empty", String::new(), 200, 0..0),
        ("/empty", "Range: bytes=0-\r\n".to_owned(), 416, 0..0),
        ("/empty", "Range: bytes=-1\r\n".to_owned(), 416, 0..0),
    ] {
        client.ask(target, &fields);
        let reply = client.reply();
        assert_eq!(reply.head.status, status, "{target} {fields}");
        if status != 416 {
            assert!(reply.body == content[part], "{target} {fields}");
        }
    }
    drop(client);
    let (exchanges, connections) = site.records.connections(1);
    assert_eq!(exchanges.iter().map(|record| record.wire_out).sum::<u64>(), connections[0].record.wire_out);
}

#[test]
fn a_term_ends_whatever_is_under_way_within_its_time() {
    let serve = Serve::start(&["--rate", "20kB", "--shutdown-timeout", "700ms"]);
    serve.file("file", 5_000_000);
    let begun: Vec<Wire> = [
        "",
        "GET /fi",
        "GET /file HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /file HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nsome",
        "GET /file HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nso",
    ]
    .into_iter()
    .map(|more| {
        let mut client = Wire::connect(serve.address());
        client.send(format!("GET /none HTTP/1.1\r\nHost: x\r\n\r\n{more}"));
        assert_eq!(client.reply().head.status, 404);
        client
    })
    .collect();
    let silent = Wire::connect(serve.address());
    let asked = std::time::Instant::now();
    serve.tell(Tell::Terminate);
    let log = serve.await_end().log();
    let took = asked.elapsed();
    assert!((Duration::from_millis(600)..Duration::from_secs(5)).contains(&took), "{took:?}");
    check_log(&log);
    assert_eq!(log.connections.len(), 6);
    for client in begun.iter().chain([&silent]) {
        let connection = log.connection(client.local());
        assert_eq!(end(connection), "server/shutdown");
        assert_eq!(number(connection, "wire_in"), client.sent);
    }
    let cut = log.exchanges.iter().filter(|line| end(line) == "server/shutdown").count();
    assert_eq!((cut, log.exchanges.len()), (4, 9));
}
