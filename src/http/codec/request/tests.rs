//! Heads as they come, and as they should not.

use super::*;
use proptest::prelude::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 16_384, fields: 100, target: 8_192 };

fn parse(bytes: &[u8]) -> (Parsed, Request) {
    // Nothing of an earlier head may be left of it.
    let mut request = Request::default();
    let before = b"QUERY /before HTTP/1.0\r\nContent-Length: 7\r\nConnection: keep-alive\r\nRange: z\r\n\r\n";
    assert!(matches!(super::parse(before, &LIMITS, &mut request), Parsed::Head { .. }));
    (super::parse(bytes, &LIMITS, &mut request), request)
}

fn head(text: &str) -> Request {
    match parse(text.as_bytes()) {
        (Parsed::Head { consumed }, request) => {
            assert!(consumed <= text.len());
            request
        }
        (other, _) => panic!("{text:?}: {other:?}"),
    }
}

fn refused(bytes: &[u8]) -> Refused {
    match parse(bytes).0 {
        Parsed::Refused(refused) => refused,
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(bytes)),
    }
}

fn is_partial(bytes: &[u8]) -> bool {
    matches!(parse(bytes).0, Parsed::Partial)
}

#[test]
fn a_head_is_read() {
    let text =
        "GET /a%20b?q=1 HTTP/1.1\r\nHost: x:8080\r\nRange: bytes=0-1\r\nX-Empty:\r\nrange: two\r\n\r\nrest";
    let (Parsed::Head { consumed }, request) = parse(text.as_bytes()) else { panic!() };
    assert_eq!(consumed, text.len() - 4);
    assert_eq!(request.head_len(), consumed);
    assert_eq!(request.method(), Method::GET);
    assert_eq!(request.method_text(), b"GET");
    assert_eq!(request.target(), b"/a%20b?q=1");
    assert_eq!(request.version(), Version::HTTP_11);
    assert_eq!(request.header("RANGE"), Some(&b"bytes=0-1"[..]));
    assert_eq!(request.header_all("range").count(), 2);
    assert_eq!(request.header("x-empty"), Some(&b""[..]));
    assert_eq!(request.header("absent"), None);
    assert!(request.keep_alive());
}

#[test]
fn a_request_that_comes_again_is_known_and_one_that_was_refused_is_not() {
    let (first, other) = (b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut request = Request::default();
    assert!(!request.is_at_front_of(b"") && !request.is_at_front_of(first));
    super::parse(first, &HeadLimits::default(), &mut request);
    assert!(request.is_at_front_of(first) && request.is_at_front_of(&[&first[..], b"GET"].concat()));
    assert!(!request.is_at_front_of(other) && !request.is_at_front_of(&first[..first.len() - 1]));
    let without_host = b"GET /a HTTP/1.1\r\n\r\n";
    let parsed = super::parse(without_host, &HeadLimits::default(), &mut request);
    assert!(matches!(parsed, Parsed::Refused(_)) && !request.is_at_front_of(without_host));
}

#[test]
fn the_host_of_an_absolute_target_outranks_the_field() {
    for (target, host) in [
        ("/", Some("field:80")),
        ("//other/x", Some("field:80")),
        ("*", Some("field:80")),
        ("http://target", Some("target")),
        ("HTTP://target:81/x?y", Some("target:81")),
        ("https://[::1]:443?y", Some("[::1]:443")),
        ("ftp://target/", Some("field:80")),
    ] {
        let request = head(&format!("GET {target} HTTP/1.1\r\nHost: field:80\r\n\r\n"));
        assert_eq!(request.host(), host.map(str::as_bytes), "{target}");
    }
    assert_eq!(head("GET / HTTP/1.0\r\n\r\n").host(), None);
    assert_eq!(head("GET / HTTP/1.1\r\nHost:\r\n\r\n").host(), None);
    assert_eq!(head("GET http://x/ HTTP/1.0\r\n\r\n").host(), Some(&b"x"[..]));
}

#[test]
fn a_target_whose_host_is_none_is_refused() {
    for target in ["http://user@x/", "http://user:word@x/", "http://x\\y/", "http://\"x\"/"] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(refused(text.as_bytes()).status, StatusCode::BAD_REQUEST, "{target}");
    }
}

#[test]
fn leading_blank_lines_belong_to_the_head() {
    let text = b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let (Parsed::Head { consumed }, request) = parse(text) else { panic!() };
    assert_eq!((consumed, request.head_len()), (text.len(), text.len() - 4));
    assert!(is_partial(b"\r\n"));
    assert_eq!(refused(b"\n\n\n\n\n\n\n\n\nGET / HTTP/1.1\r\n").status, StatusCode::BAD_REQUEST);
}

#[test]
fn every_prefix_of_a_head_is_partial() {
    let text = b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for end in 0..text.len() {
        assert!(is_partial(&text[..end]), "{end}");
    }
}

#[test]
fn keep_alive_follows_version_and_connection() {
    let table = [
        ("HTTP/1.1", "", true),
        ("HTTP/1.1", "Connection: close\r\n", false),
        ("HTTP/1.1", "Connection: Close\r\n", false),
        ("HTTP/1.1", "Connection: upgrade, close\r\n", false),
        ("HTTP/1.1", "Connection: upgrade\r\nConnection: close\r\n", false),
        ("HTTP/1.1", "Connection: closed\r\n", true),
        ("HTTP/1.1", "Connection: keep-alive\r\n", true),
        ("HTTP/1.0", "", false),
        ("HTTP/1.0", "Connection: keep-alive\r\n", true),
        ("HTTP/1.0", "Connection: Keep-Alive, x\r\n", true),
        ("HTTP/1.0", "Connection: keep-alive, close\r\n", false),
    ];
    for (version, field, expected) in table {
        let request = head(&format!("GET / {version}\r\nHost: x\r\n{field}\r\n"));
        assert_eq!(request.keep_alive(), expected, "{version} {field:?}");
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    let table = [
        ("", StatusCode::BAD_REQUEST),
        ("Host: x\r\nHost: x\r\n", StatusCode::BAD_REQUEST),
        ("Host: x/y\r\n", StatusCode::BAD_REQUEST),
        ("Host: x y\r\n", StatusCode::BAD_REQUEST),
        ("Host: u@x\r\n", StatusCode::BAD_REQUEST),
        ("Host: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n", StatusCode::BAD_REQUEST),
        ("Host: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n", StatusCode::BAD_REQUEST),
        ("Host: x\r\nContent-Length: 5, 5\r\n", StatusCode::BAD_REQUEST),
        ("Host: x\r\nContent-Length: -5\r\n", StatusCode::BAD_REQUEST),
        ("Host: x\r\nContent-Length: +5\r\n", StatusCode::BAD_REQUEST),
        ("Host: x\r\nContent-Length: 0x5\r\n", StatusCode::BAD_REQUEST),
        ("Host: x\r\nContent-Length:\r\n", StatusCode::BAD_REQUEST),
        ("Host: x\r\nContent-Length: 99999999999999999999999\r\n", StatusCode::PAYLOAD_TOO_LARGE),
        ("Host: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n", StatusCode::BAD_REQUEST),
        ("Host: x\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n", StatusCode::BAD_REQUEST),
        ("Host: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n", StatusCode::BAD_REQUEST),
        ("Host: x\r\nContent-Length: 5\r\nTransfer-Encoding: gzip\r\n", StatusCode::BAD_REQUEST),
        ("Host: x\r\nTransfer-Encoding:\r\n", StatusCode::NOT_IMPLEMENTED),
        ("Host: x\r\nTransfer-Encoding: xchunked\r\n", StatusCode::NOT_IMPLEMENTED),
        ("Host: x\r\nTransfer-Encoding: chunked, chunked\r\n", StatusCode::NOT_IMPLEMENTED),
        ("Host: x\r\nTransfer-Encoding: chunked;q=1\r\n", StatusCode::NOT_IMPLEMENTED),
        ("Host: x\r\nTransfer-Encoding: \"chunked\"\r\n", StatusCode::NOT_IMPLEMENTED),
        ("Host: x\r\nTransfer-Encoding: identity\r\n", StatusCode::NOT_IMPLEMENTED),
        ("Host: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", StatusCode::BAD_REQUEST),
        ("Host: x\r\nTransfer-Encoding: gzip\r\n", StatusCode::NOT_IMPLEMENTED),
        ("Host: x\r\nTransfer-Encoding: gzip, chunked\r\n", StatusCode::NOT_IMPLEMENTED),
        ("Host: x\r\nExpect: tea\r\n", StatusCode::EXPECTATION_FAILED),
    ];
    for (fields, status) in table {
        let refused = refused(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes());
        assert_eq!(refused.status, status, "{fields:?}");
        assert!(refused.line.is_none() && !refused.advice.is_empty(), "{fields:?}");
    }
    let old = refused(b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(old.status, StatusCode::BAD_REQUEST);
}

#[test]
fn who_begins_with_tls_is_told_that_it_is_not_spoken() {
    let refused = refused(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    assert!(refused.advice.contains("TLS") && refused.advice.contains("http://"), "{refused:?}");
    assert!(is_partial(b"") && !self::refused(b"\x16GET").advice.contains("TLS"));
}

#[test]
fn what_is_no_request_is_refused() {
    let table: &[(&[u8], StatusCode)] = &[
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", StatusCode::BAD_REQUEST),
        (b"\0\0\0\0", StatusCode::BAD_REQUEST),
        (b"GET\r\n", StatusCode::BAD_REQUEST),
        (b" GET / HTTP/1.1\r\n", StatusCode::BAD_REQUEST),
        (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", StatusCode::BAD_REQUEST),
        (b"GET / a HTTP/1.1\r\nHost: x\r\n\r\n", StatusCode::BAD_REQUEST),
        (b"GET /\x7f HTTP/1.1\r\nHost: x\r\n\r\n", StatusCode::BAD_REQUEST),
        (b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n", StatusCode::BAD_REQUEST),
        (b"G\xc3\x84T / HTTP/1.1\r\n", StatusCode::BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", StatusCode::BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", StatusCode::BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", StatusCode::BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", StatusCode::BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n", StatusCode::BAD_REQUEST),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", StatusCode::HTTP_VERSION_NOT_SUPPORTED),
        (b"GET / HTTP/1.2\r\n\r\n", StatusCode::HTTP_VERSION_NOT_SUPPORTED),
        (b"GET / HTTP/3\r\n\r\n", StatusCode::HTTP_VERSION_NOT_SUPPORTED),
    ];
    for (bytes, status) in table {
        let refused = refused(bytes);
        assert_eq!(refused.status, *status, "{:?}", String::from_utf8_lossy(bytes));
        assert!(refused.line.is_some());
    }
    assert_eq!(refused(b"\x16\x03\x01hello\r\nsecond").line.unwrap(), b"\x16\x03\x01hello");
}

#[test]
fn limits_are_kept() {
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(LIMITS.target));
    assert_eq!(refused(long.as_bytes()).status, StatusCode::URI_TOO_LONG);
    let longer = format!("GET /{}", "a".repeat(LIMITS.bytes));
    assert_eq!(refused(longer.as_bytes()).status, StatusCode::URI_TOO_LONG);
    let big = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(LIMITS.bytes));
    assert_eq!(refused(big.as_bytes()).status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let many = |n| format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(n));
    assert_eq!(refused(many(LIMITS.fields).as_bytes()).status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert_eq!(head(&many(LIMITS.fields - 1)).header_all("a").count(), LIMITS.fields - 1);

    // Exactly the limit passes, with another request behind it.
    let base = "GET / HTTP/1.1\r\nHost: x\r\nA: \r\n\r\n".len();
    let exact = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\nGET", "a".repeat(LIMITS.bytes - base));
    assert_eq!(head(&exact).head_len(), LIMITS.bytes);
    let over = format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(LIMITS.bytes - base + 1));
    assert_eq!(refused(over.as_bytes()).status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
}

#[test]
fn bodies_and_expectations() {
    let request = head("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n");
    assert_eq!((request.body_length(), request.expects_continue()), (Some(5), true));
    let request = head("GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n");
    assert!(!request.expects_continue());
    let request = head("POST / HTTP/1.0\r\nContent-Length: 0\r\n\r\n");
    assert_eq!((request.method(), request.body_length()), (&Method::POST, Some(0)));
    let request =
        head("PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: CHUNKED\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!((request.body_length(), request.expects_continue(), request.has_body()), (None, true, true));
    assert!(!head("GET / HTTP/1.1\r\nHost: x\r\n\r\n").has_body());
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn no_head_like_bytes_panic(line in "[A-Z]{0,5} ?/?[ -~]{0,20} HTTP/1.[01]", fields in "([A-Za-z-]{0,16}:? ?[ -~]{0,12}\r?\n){0,6}") {
        let text = format!("{line}\r\n{fields}\r\n");
        if let (Parsed::Head { consumed }, request) = parse(text.as_bytes()) {
            prop_assert!(consumed <= text.len());
            prop_assert!(request.target().len() <= LIMITS.target);
        }
    }

    #[test]
    fn a_cut_head_is_never_complete(cut in 0usize..60) {
        let text = b"GET /x HTTP/1.1\r\nHost: example\r\nAccept: */*\r\nA: b\r\nCc: dd\r\n\r\n";
        prop_assert!(is_partial(&text[..cut]));
    }
}
