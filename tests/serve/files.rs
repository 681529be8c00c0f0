//! Files and folders: what is served of them, and that nothing else is.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate::http::ServerSettings;
use tidegate::poller::record::{Reason, Who};
use tidegate_meter::scratch::pattern;

use crate::support::Site;

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
fn a_file_that_shrinks_and_grows_holds_nobody_up() {
    let site = Site::with(
        ServerSettings { send_timeout: Duration::from_secs(60), ..ServerSettings::default() },
        1,
        100,
    );
    let content = vec![1; 1_000_000];
    let path = site.folder.file("a", &content);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = fs::File::options().write(true).open(path).unwrap();
            while !done.load(Ordering::Relaxed) {
                file.set_len(0).unwrap();
                file.set_len(1_000_000).unwrap();
                // How often it changes; nothing waits for this.
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
        done.store(true, Ordering::Relaxed);
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
