//! How `tidegate fetch` comes to its end where not all goes well, and two of them at the same file.

mod client_support;
mod fetch_support;
mod support;

use std::io::Read as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use client_support::{ok, says, server};
use fetch_support::{Fetch, code, said};
use support::{Nginx, Serve, await_that};
use tidegate_meter::scratch::{make_file, pattern};
use tidegate_meter::sys::{self, Tell};

#[test]
fn an_interrupted_download_goes_on_where_it_was() {
    let nginx = Nginx::start("", "");
    make_file(&nginx.root().join("a"), 4_000_000).unwrap();
    let fetch = Fetch::new();
    let url = nginx.url("/a");
    let child = fetch.command(&[&url, "--rate", "1MB"]).stderr(Stdio::piped()).spawn().unwrap();
    await_that("some bytes", || {
        std::fs::metadata(fetch.path("a.part")).ok().filter(|part| part.len() > 200_000)
    });
    sys::tell(child.id(), Tell::Interrupt).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 130);
    let text = said(&output);
    assert!(
        text.contains(" bytes are kept in a.part: go on with --resume") && text.lines().count() == 1,
        "{text}"
    );
    assert_eq!(fetch.names(), ["a.part", "a.part.json"]);
    let kept = std::fs::read(fetch.path("a.part")).unwrap();
    assert!(kept.len() < 4_000_000 && kept == pattern(0, kept.len()));

    let (code, lines) = fetch.json(&[&url, "--resume"]);
    assert_eq!((code, &lines[0]["resumed_from"]), (0, &kept.len().into()));
    assert_eq!(lines[0]["resp_body_bytes"], 4_000_000 - kept.len());
    assert!(fetch.holds("a", &pattern(0, 4_000_000)));
    assert_eq!(fetch.names(), ["a"]);
    // What is whole is left alone.
    let (code, lines) = fetch.json(&[&url, "--resume"]);
    assert_eq!((code, lines[0].get("status")), (0, None));
}

#[test]
fn an_interrupted_upload_says_so() {
    let server = server(|_, caller| {
        caller.request();
        caller.is_left();
    });
    let fetch = Fetch::new();
    make_file(&fetch.path("up"), 1_000_000).unwrap();
    let url = server.url("/in");
    let child =
        fetch.command(&[&url, "--upload", "up", "--rate", "10kB"]).stderr(Stdio::piped()).spawn().unwrap();
    await_that("it asks", || (server.callers() == 1).then_some(()));
    sys::tell(child.id(), Tell::Interrupt).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), said(&output)), (130, format!("tidegate: interrupted: {url}\n")));
}

#[test]
fn two_at_once_do_not_make_a_mixture() {
    let serve = Serve::start(&[]);
    serve.file("a", 1_000_000);
    let fetch = Fetch::new();
    let url = serve.url("/a");
    let mut first = fetch.command(&[&url, "--rate", "500kB", "-q"]).spawn().unwrap();
    await_that("some bytes", || {
        std::fs::metadata(fetch.path("a.part")).ok().filter(|part| part.len() > 50_000)
    });
    for options in [&["-q"][..], &["-q", "--resume"]] {
        let second = fetch.run(&[&[&*url], options].concat());
        let text = said(&second);
        assert_eq!(code(&second), 9, "{text}");
        assert!(text.contains("a.part: another fetch is at work on it") && !text.contains("kept"), "{text}");
    }
    let status = await_that("the end", || first.try_wait().unwrap());
    assert!(status.success());
    assert!(fetch.holds("a", &pattern(0, 1_000_000)));
    assert_eq!(fetch.names(), ["a"]);
}

#[test]
fn a_full_disk_is_said_and_devices_stay_what_they_are() {
    let serve = Serve::start(&[]);
    serve.file("a", 500_000);
    let fetch = Fetch::new();
    let output = fetch.run(&[&serve.url("/a"), "-o", "/dev/full"]);
    let text = said(&output);
    assert_eq!(code(&output), 9, "{text}");
    assert!(text.contains("failed: /dev/full: No space left on device"), "{text}");
    let output = fetch.run(&[&serve.url("/a"), "-o", "/dev/null", "--resume"]);
    assert_eq!(code(&output), 0, "{}", said(&output));
    for device in ["/dev/full", "/dev/null"] {
        assert!(std::fs::metadata(device).unwrap().file_type().is_char_device());
        assert!(!Path::new(&format!("{device}.part")).exists());
    }
    // Where files may not grow further; a folder in the place of the file.
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "ulimit -f 100; exec \"$@\"",
        "sh",
        env!("CARGO_BIN_EXE_tidegate"),
        "fetch",
        &serve.url("/a"),
    ]);
    let output = command
        .env_remove("http_proxy")
        .env_remove("all_proxy")
        .args(["-o", "limited"])
        .current_dir(fetch.scratch.path())
        .output()
        .unwrap();
    let text = said(&output);
    assert_eq!(code(&output), 9, "{text}");
    assert!(
        text.contains("limited.part: File too large") && text.contains("are kept in limited.part"),
        "{text}"
    );
    std::fs::create_dir(fetch.path("folder")).unwrap();
    std::fs::create_dir(fetch.path("folder/a")).unwrap();
    let output = fetch.run(&[&serve.url("/a"), "-o", "folder"]);
    assert_eq!(code(&output), 9, "{}", said(&output));
    assert!(said(&output).contains("folder/a is a folder"), "{}", said(&output));
    for name in ["limited.part", "limited.part.json"] {
        std::fs::remove_file(fetch.path(name)).unwrap();
    }
    std::fs::remove_dir_all(fetch.path("folder")).unwrap();
    // A pipe is written to as it comes.
    let pipe = fetch.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut child = fetch.command(&[&serve.url("/a"), "-o", "pipe", "-q"]).spawn().unwrap();
    assert!(std::fs::read(&pipe).unwrap() == pattern(0, 500_000));
    assert!(child.wait().unwrap().success());
    assert_eq!(fetch.names(), ["pipe"]);
}

#[test]
fn a_reader_who_has_had_enough_is_a_failure_in_one_line() {
    let serve = Serve::start(&[]);
    serve.file("a", 20_000_000);
    let fetch = Fetch::new();
    let mut command = fetch.command(&[&serve.url("/a"), "-o", "-", "-q"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut ten = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut ten).unwrap();
    assert_eq!(ten, pattern(0, 10)[..]);
    let output = child.wait_with_output().unwrap();
    let text = said(&output);
    assert_eq!(code(&output), 9, "{text}");
    assert!(text.contains(": stdout: Broken pipe") && text.trim_end().lines().count() == 1, "{text}");
    // Nor is there anybody to tell of it.
    for arguments in [&["--proxy", "socks5://x"][..], &["-o", "no/such/folder"]] {
        let mut command = fetch.command(&[&[&*serve.url("/a")], arguments].concat());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stderr.take());
        let status = child.wait().unwrap().code();
        assert!(matches!(status, Some(2 | 9)), "{arguments:?}: {status:?}");
    }
}

#[test]
fn proxies_that_cannot_be_used_are_refused_in_words() {
    let server = says(ok("x"));
    let fetch = Fetch::new();
    for proxy in [
        "socks5://u:secret@127.0.0.1:1",
        "socks5h://127.0.0.1:1",
        "socks4://127.0.0.1",
        "https://127.0.0.1:1",
    ] {
        let output = fetch.run(&[&server.url("/"), "--proxy", proxy]);
        let text = said(&output);
        assert_eq!(code(&output), 2, "{text}");
        assert!(text.contains("http://HOST:PORT") && !text.contains("secret"), "{text}");
        let output = fetch.command(&[&server.url("/")]).env("http_proxy", proxy).output().unwrap();
        let text = said(&output);
        assert_eq!(code(&output), 4, "{text}");
        assert!(
            text.contains("http_proxy: ") && text.contains("http://HOST:PORT") && !text.contains("secret"),
            "{text}"
        );
    }
    assert_eq!(server.callers(), 0, "nothing went straight");
    let mut command = fetch.command(&[&server.url("/x")]);
    command.env("http_proxy", "socks5://127.0.0.1:1").env("no_proxy", "10.0.0.0/8 127.0.0.0/8");
    assert_eq!(code(&command.output().unwrap()), 0);
    let mut command = fetch.command(&[&server.url("/x"), "--proxy", ""]);
    assert_eq!(code(&command.env("http_proxy", "socks5://127.0.0.1:1").output().unwrap()), 0);
}

#[test]
fn the_bar_moves_while_a_file_is_sent() {
    let nginx = Nginx::start(
        "",
        "client_max_body_size 20m; location /in/ { dav_methods PUT; create_full_put_path on; }",
    );
    let fetch = Fetch::new();
    make_file(&fetch.path("up"), 1_000_000).unwrap();
    // Python gives it a terminal, and hands on what is drawn there.
    let script = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let mut command = Command::new("python3");
    command.args(["-c", script, env!("CARGO_BIN_EXE_tidegate"), "fetch", &nginx.url("/in/a")]);
    command.args(["--upload", "up", "--rate", "500kB"]).env_remove("http_proxy").env_remove("all_proxy");
    let output = command.current_dir(fetch.scratch.path()).stdin(Stdio::null()).output();
    let output = output.expect("python3: run tests/run, which installs it");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(code(&output), 0, "{text}");
    let shares: Vec<u32> =
        text.match_indices("% ").filter_map(|(at, _)| text[..at].rsplit(' ').next()?.parse().ok()).collect();
    let mut between: Vec<u32> = shares.iter().copied().filter(|share| (1..100).contains(share)).collect();
    assert!(shares.is_sorted(), "{shares:?}");
    between.dedup();
    assert!(between.len() >= 4, "{shares:?}");
    assert!(text.contains(" of 1.00 MB"), "{text}");
}

#[test]
fn what_goes_into_no_file_fails_as_well() {
    let server = server(|_, caller| {
        let head = caller.request().unwrap();
        match head.split(' ').nth(1).unwrap() {
            "/cut" => caller.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345"),
            _ => caller.say("HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 4\r\n\r\nnone"),
        };
    });
    let fetch = Fetch::new();
    make_file(&fetch.path("up"), 10).unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (url, to, expected) in [
        (server.url("/cut"), &["-o", "-"][..], 8),
        (server.url("/missing"), &["-o", "-"], 7),
        (server.url("/missing"), &["-o", "/dev/null"], 7),
        (server.url("/missing"), &["--upload", "up"], 7),
        (server.url("/missing"), &["--upload", "not-there"], 9),
        (format!("http://{closed}/"), &["-o", "-"], 4),
        (format!("http://{closed}/"), &["--upload", "up"], 4),
    ] {
        let output = fetch.run(&[&[&*url, "--retry", "0"], to].concat());
        let text = said(&output);
        assert_eq!(code(&output), expected, "{url} {to:?}: {text}");
        assert_eq!(text.matches("failed: ").count(), 1, "{url} {to:?}: {text}");
    }
}

#[test]
fn the_time_of_a_transfer_is_that_of_all_its_attempts() {
    let server = server(|_, caller| {
        caller.request();
        caller.say("HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 10\r\n\r\n12345");
        caller.is_left();
    });
    let fetch = Fetch::new();
    let output = fetch.run(&[&server.url("/a"), "--timeout", "200ms", "--retry", "5"]);
    let text = said(&output);
    assert_eq!((code(&output), server.callers()), (6, 1), "{text}");
    assert!(text.contains("it took longer than --timeout; 5 bytes are kept in a.part"), "{text}");
    let output = fetch.run(&[&server.url("/b"), "--stall-timeout", "50ms", "--retry", "0"]);
    assert!(said(&output).contains("nothing of the body came for too long"), "{}", said(&output));
}
