//! Replies in fewer bytes, read by curl and by Python.
#![cfg(feature = "compression")]

mod router_support;
mod support;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use router_support::Web;
use support::program;
use tidegate::http::router::Compression;
use tidegate::http::{Body, Exchange, Files, Reply, StatusCode, body_stream};
use tidegate::poller::file::Root;
use tidegate::runtime::RuntimeHandle;
use tidegate::task::{Dropped, future, sleep};
use tidegate_meter::scratch::Scratch;

const CODINGS: [&str; 3] = ["gzip", "br", "zstd"];

fn words(bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 100);
    let mut random = fastrand::Rng::with_seed(7);
    while text.len() < bytes {
        text.extend(format!("{} passes gate {}; ", random.u8(..), random.u16(..)).bytes());
    }
    text.truncate(bytes);
    text
}

/// A text now and then.
fn stream(exchange: &mut Exchange, lines: u32, media: &str) {
    let runtime = RuntimeHandle::of_poller().unwrap();
    let (writer, body) = body_stream(1_000);
    exchange.context.reply = Reply::text(body);
    exchange.context.reply.headers.set("Content-Type", media);
    let here = runtime.clone();
    let produce = future(async move {
        for line in 0..lines {
            here.spawn(sleep(Duration::from_millis(5))).await?;
            let line = format!("data: line {line} of {lines}\n\n").into_bytes();
            if here.spawn(writer.send(line)).await?.is_err() {
                return Ok(());
            }
        }
        writer.finish();
        Ok::<_, Dropped>(())
    });
    runtime.spawn(produce).detach();
}

fn web(site: &Scratch, compression: Compression) -> Web {
    let root = Root::open(site.path()).unwrap();
    Web::of(move |routes| {
        routes.get("/small", |_| Reply::text(words(300)));
        routes
            .get("/page", |_| Reply::html(words(10_000)).header("ETag", "\"one\"").header("Vary", "Cookie"));
        routes.get("/large", |_| Reply::html(Body::page(words(1_000_000))));
        routes.get("/picture", |_| {
            Reply::new(StatusCode::OK).header("Content-Type", "image/png").body(words(9_000))
        });
        routes.get("/packed", |_| Reply::text(words(9_000)).header("Content-Encoding", "x-own"));
        routes
            .get("/as-it-is", |_| Reply::text(words(9_000)).header("Cache-Control", "private, no-transform"));
        routes.get("/stream", |exchange| stream(exchange, 40, "text/plain"));
        routes.get("/events", |exchange| stream(exchange, 3, "text/event-stream"));
        routes.get("/fails", |_| StatusCode::NOT_FOUND);
        routes.files("/files", root);
        routes.compress(compression);
    })
}

fn site() -> Scratch {
    let site = Scratch::new("compression").unwrap();
    fs::write(site.path().join("large.txt"), words(4_000_000)).unwrap();
    fs::write(site.path().join("small.html"), words(5_000)).unwrap();
    fs::write(site.path().join("empty.txt"), "").unwrap();
    site
}

/// Head and body as curl has them once it has undone the coding, and how many bytes came.
fn fetch(web: &Web, coding: &str, target: &str) -> (String, Vec<u8>, u64) {
    let accept = format!("Accept-Encoding: {coding}");
    let arguments = ["--compressed", "-H", &accept, "-D", "/dev/stderr", "-w", "%{stderr}\n%{size_download}"];
    let output = web.try_curl(&arguments, target);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{target}: {said}");
    let (head, size) = said.rsplit_once('\n').unwrap();
    (head.to_ascii_lowercase(), output.stdout, size.parse().unwrap())
}

#[test]
fn curl_gets_every_byte_in_every_coding() {
    let site = site();
    let web = web(&site, Compression::new());
    for coding in CODINGS {
        for (target, expected) in [
            ("/page", words(10_000)),
            ("/large", words(1_000_000)),
            ("/files/large.txt", words(4_000_000)),
            ("/files/small.html", words(5_000)),
        ] {
            let (head, body, size) = fetch(&web, coding, target);
            assert!(head.contains(&format!("content-encoding: {coding}\r\n")), "{target}: {head}");
            assert!(head.contains("vary: accept-encoding\r\n") && !head.contains("accept-ranges"), "{head}");
            assert!(body == expected, "{coding} {target}");
            assert!(size < expected.len() as u64 * 2 / 3, "{coding} {target}: {size} bytes");
        }
        let (head, body, _) = fetch(&web, coding, "/stream");
        assert!(head.contains(&format!("content-encoding: {coding}")) && body.len() > 40 * 20, "{head}");
        assert!(body.starts_with(b"data: line 0 of 40\n\n") && body.ends_with(b"data: line 39 of 40\n\n"));
    }
}

#[test]
fn what_would_not_get_smaller_or_must_not_change_goes_as_it_is() {
    let site = site();
    let web = web(&site, Compression::new());
    for (target, length) in [
        ("/small", 300),
        ("/picture", 9_000),
        ("/packed", 9_000),
        ("/as-it-is", 9_000),
        ("/fails", 50),
        ("/files/empty.txt", 0),
    ] {
        let reply = web.ask("GET", target, "Accept-Encoding: gzip\r\n", "");
        assert_eq!(
            (reply.body.len(), reply.field("content-length")),
            (length, length.to_string().as_str()),
            "{target}"
        );
        assert!(!reply.text.contains("gzip"), "{target}");
    }
    for accepted in ["", "Accept-Encoding: identity\r\n", "Accept-Encoding: gzip;q=0\r\n"] {
        let reply = web.ask("GET", "/page", accepted, "");
        assert_eq!((reply.body.len(), reply.field("content-encoding")), (10_000, ""));
        assert_eq!(reply.field("etag"), "\"one\"");
        assert!(reply.text.contains("Vary: Cookie\r\n") && reply.text.contains("Vary: Accept-Encoding\r\n"));
    }
    let (head, events, _) = fetch(&web, "gzip", "/events");
    assert!(!head.contains("content-encoding") && events.starts_with(b"data: line 0"), "{head}");
}

#[test]
fn tags_and_ranges_stay_true() {
    let site = site();
    let web = web(&site, Compression::new());
    let plain = web.get("/files/small.html");
    let tag = plain.field("etag").to_owned();
    let (packed, ..) = fetch(&web, "gzip", "/files/small.html");
    assert!(packed.contains(&format!("etag: w/{tag}\r\n")), "{packed}");
    // What the client has of it is still good, whichever of both it asks with.
    for tag in [tag.clone(), format!("W/{tag}")] {
        let fields = format!("Accept-Encoding: gzip\r\nIf-None-Match: {tag}\r\n");
        let reply = web.ask("GET", "/files/small.html", &fields, "");
        assert_eq!((reply.head.status, reply.field("vary")), (304, "Accept-Encoding"));
    }
    let part = web.ask("GET", "/files/small.html", "Accept-Encoding: gzip\r\nRange: bytes=10-19\r\n", "");
    assert_eq!((part.head.status, &part.body[..]), (206, &words(20)[10..]));
    let head = web.curl(&["--head", "--compressed", "-H", "Accept-Encoding: gzip"], "/files/large.txt");
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("Content-Encoding: gzip\r\n"), "{head}");
}

#[test]
fn a_file_that_is_packed_already_is_sent_so() {
    let site = Scratch::new("precompressed").unwrap();
    let plain = site.path().join("a.js");
    fs::write(&plain, words(50_000)).unwrap();
    assert!(program("gzip").arg("-k").arg(&plain).status().unwrap().success());
    fs::create_dir(site.path().join("a.js.zst")).unwrap();
    fs::write(site.path().join("b.png"), "b").unwrap();
    fs::write(site.path().join("b.png.gz"), "never").unwrap();
    let root = Arc::new(Root::open(site.path()).unwrap());
    let web = Web::of(|routes| {
        routes.files("/files", Files::new(root.clone()).precompressed());
        routes.files("/kept", Files::new(root).precompressed().cached(1_000_000));
        routes.compress(Compression::new());
    });
    let packed = fs::metadata(site.path().join("a.js.gz")).unwrap().len();
    for folder in ["/files", "/kept"] {
        let target = format!("{folder}/a.js");
        let (head, body, size) = fetch(&web, "zstd, gzip", &target);
        assert!(body == words(50_000) && size == packed, "{folder}: {size} bytes, not {packed}");
        for part in [
            "content-encoding: gzip\r\n",
            "content-type: text/javascript; charset=utf-8\r\n",
            "accept-ranges",
        ] {
            assert!(head.contains(part), "{part} in {head}");
        }
        assert_eq!(head.matches("vary: accept-encoding\r\n").count(), 1, "{head}");
        let whole = web.get(&target);
        assert_eq!(
            (whole.body.len(), whole.field("content-encoding"), whole.field("vary")),
            (50_000, "", "Accept-Encoding")
        );
        let zipped = web.ask("GET", &target, "Accept-Encoding: gzip\r\n", "");
        assert_ne!(whole.field("etag"), zipped.field("etag"));
        let fields = format!("Accept-Encoding: gzip\r\nIf-None-Match: {}\r\n", zipped.field("etag"));
        let same = web.ask("GET", &target, &fields, "");
        assert_eq!((same.head.status, same.field("content-encoding")), (304, ""));
        assert_eq!(web.ask("GET", &format!("{folder}/b.png"), "Accept-Encoding: gzip\r\n", "").body, b"b");
    }
}

#[test]
fn events_come_one_by_one_where_asked_for() {
    let site = site();
    let web = web(&site, Compression::new().event_streams());
    let script = "
import http.client, sys, zlib
connection = http.client.HTTPConnection(sys.argv[1], timeout=20)
connection.request('GET', '/events', headers={'Accept-Encoding': 'gzip'})
reply = connection.getresponse()
assert reply.headers['Content-Encoding'] == 'gzip', reply.headers
decoder = zlib.decompressobj(31)
for n in range(3):
    said = b''
    while not said.endswith(b'\\n\\n'):
        said += decoder.decompress(reply.read1(1))
    assert said == b'data: line %d of 3\\n\\n' % n, said
assert decoder.decompress(reply.read()) == b'' and decoder.eof
";
    let output = program("python3").args(["-c", script, &web.address.to_string()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn encoders_are_bounded_and_what_is_beyond_goes_as_it_is() {
    let site = site();
    let compression = Compression::new().max_encoders(0);
    let web = web(&site, compression.clone());
    let reply = web.ask("GET", "/page", "Accept-Encoding: gzip\r\n", "");
    assert_eq!((reply.body.len(), reply.field("content-encoding")), (10_000, ""));
    assert_eq!((reply.field("etag"), compression.refused()), ("\"one\"", 1));
}
