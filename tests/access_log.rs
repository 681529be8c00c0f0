//! The access log as a file that others read: formats, rotation, completeness.
#![cfg(feature = "cli")]

mod support;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use support::{Log, Serve, Wire, await_that, check_line, number, program};
use tidegate_meter::scratch::Scratch;
use tidegate_meter::sys::Tell;

#[test]
fn a_rotated_log_is_reopened_and_no_line_is_lost() {
    let serve = Serve::start(&[]);
    serve.file("file", 10);
    let rotated = serve.scratch().join("access.log.1");
    for _ in 0..50 {
        Wire::connect(serve.address()).get("/file");
    }
    std::fs::rename(serve.log_path(), &rotated).unwrap();
    serve.tell(Tell::Reopen);
    await_that("the log is there again", || serve.log_path().exists().then_some(()));
    for _ in 0..50 {
        Wire::connect(serve.address()).get("/file");
    }
    let old = Log::read(&rotated);
    let new = serve.stop().log();
    assert_eq!(old.exchanges.len() + new.exchanges.len(), 100);
    assert_eq!(old.connections.len() + new.connections.len(), 100);
    assert!(!new.exchanges.is_empty(), "nothing in the new file");
    assert_eq!(new.own.len() + old.own.len(), 1, "it says once that it was reopened");
}

#[test]
fn a_log_on_standard_output_comes_after_the_line_that_says_where() {
    let serve = Serve::start_bare(&["--access-log", "-", "--log-format", "json"]);
    serve.file("file", 10);
    Wire::connect(serve.address()).get("/file");
    let stopped = serve.stop();
    assert!(stopped.status.success());
    let log = Log::parse(stopped.stdout.iter().map(String::as_str));
    assert_eq!((log.exchanges.len(), log.connections.len()), (1, 1));
    log.exchanges.iter().chain(&log.connections).for_each(check_line);
}

/// A named pipe.
fn pipe(scratch: &Scratch) -> std::path::PathBuf {
    let path = scratch.path().join("pipe");
    assert!(program("mkfifo").arg(&path).status().unwrap().success());
    path
}

#[test]
fn a_pipe_nobody_reads_is_refused_not_awaited() {
    let scratch = Scratch::new("pipe").unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["serve", "--listen", "127.0.0.1:0", "--access-log"])
        .arg(pipe(&scratch))
        .arg(scratch.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        await_that("it gives up", || child.try_wait().unwrap())
    }));
    let _ = child.kill();
    let said = child.wait_with_output().unwrap();
    assert_eq!(ended.unwrap().code(), Some(1));
    assert!(String::from_utf8_lossy(&said.stderr).contains("nobody reads the pipe"), "{said:?}");
}

#[test]
fn a_log_that_may_not_grow_further_loses_lines_and_not_the_server() {
    let scratch = Scratch::new("full").unwrap();
    let log = scratch.path().join("access.log");
    // One block, less than the lines of one exchange and its connection.
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -f 1; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_tidegate"), "serve"])
        .args(["--listen", "127.0.0.1:0", "--access-log"])
        .args([&log, scratch.path()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap().parse().unwrap();
        Wire::connect(address).get("/");
        await_that("the log is full", || (std::fs::metadata(&log).unwrap().len() >= 512).then_some(()));
        for _ in 0..10 {
            assert_eq!(Wire::connect(address).get("/").head.status, 200);
        }
        tidegate_meter::sys::tell(child.id(), Tell::Terminate).unwrap();
        await_that("it stops", || child.try_wait().unwrap())
    }));
    let _ = child.kill();
    let said = child.wait_with_output().unwrap();
    assert!(ended.unwrap().success(), "{said:?}");
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(text.contains("cannot be written: File too large") && text.contains("lines lost"), "{text}");
}

#[test]
fn a_folder_is_no_access_log_and_a_file_in_it_is_named() {
    let scratch = Scratch::new("folder").unwrap();
    let said = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["serve", "--listen", "127.0.0.1:0", "--access-log"])
        .args([scratch.path(), scratch.path()])
        .output()
        .unwrap();
    assert_eq!(said.status.code(), Some(1));
    let advice =
        format!("is a folder; name a file in it: --access-log {}/access.log", scratch.path().display());
    assert!(String::from_utf8_lossy(&said.stderr).contains(&advice), "{said:?}");
}

#[test]
fn a_pipe_that_is_read_is_a_log() {
    let scratch = Scratch::new("pipe").unwrap();
    let path = pipe(&scratch);
    // For reading and writing, so that opening it does not wait.
    let reader = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    let serve = Serve::start_bare(&["--access-log", path.to_str().unwrap()]);
    serve.file("file", 10);
    for _ in 0..3 {
        Wire::connect(serve.address()).get("/file");
    }
    let lines: Vec<String> = BufReader::new(reader).lines().take(6).map(Result::unwrap).collect();
    let log = Log::parse(lines.iter().map(String::as_str));
    assert_eq!((log.exchanges.len(), log.connections.len()), (3, 3));
    assert!(serve.stop().status.success());
}

#[test]
fn combined_lines_are_what_log_readers_know() {
    let serve = Serve::start_bare(&["--access-log", "-", "--log-format", "combined"]);
    serve.file("file", 1234);
    let mut wire = Wire::connect(serve.address());
    wire.ask("/file?q=\"x\"", "User-Agent: probe/1.0\r\nReferer: http://here/\r\n");
    wire.reply();
    wire.get("/missing-file");
    drop(wire);
    let stopped = serve.stop();
    let lines = stopped.stdout;
    assert_eq!(lines.len(), 2, "{lines:#?}");
    // 127.0.0.1 - - [31/Jan/2026:12:34:56 +0000] "GET /file HTTP/1.1" 200 1234 "http://here/" "probe/1.0"
    assert!(lines[0].starts_with("127.0.0.1 - - ["), "{}", lines[0]);
    assert!(lines[0].ends_with("HTTP/1.1\" 200 1234 \"http://here/\" \"probe/1.0\""), "{}", lines[0]);
    assert!(!lines[0].contains("q=\"x\""), "a quote in the target must not end the field: {}", lines[0]);
    let date = &lines[0]["127.0.0.1 - - [".len()..][..26];
    let shape: String = date
        .chars()
        .map(|c| {
            if c.is_ascii_digit() {
                '9'
            } else if c.is_ascii_alphabetic() {
                'a'
            } else {
                c
            }
        })
        .collect();
    assert!(shape == "99/aaa/9999:99:99:99 +9999" || shape == "99/aaa/9999:99:99:99 -9999", "{date}");
    assert!(lines[1].contains("\"GET /missing-file HTTP/1.1\" 404 "), "{}", lines[1]);
}

#[test]
fn times_and_sizes_of_an_exchange_fit_what_the_client_saw() {
    let serve = Serve::start(&["--rate", "100kB"]);
    serve.file("file", 50_000);
    let mut wire = Wire::connect(serve.address());
    let asked = wire.now();
    let reply = wire.get("/file");
    let took_us = (wire.now() - asked) / 1000;
    let (from, received) = (wire.local(), wire.received);
    drop(wire);
    let log = serve.stop().log();
    let exchange = log.exchange(from);
    check_line(exchange);
    assert_eq!(number(exchange, "wire_out"), received);
    assert_eq!(number(exchange, "resp_body_bytes"), reply.body.len() as u64);
    let total = number(exchange, "total_us");
    // The server's clock starts when it reads the request and stops when the kernel has the last byte.
    assert!(total <= took_us + 1_000 && total + 150_000 >= took_us, "{total} µs, the client saw {took_us}");
    assert!(number(exchange, "ttfb_us") + number(exchange, "transfer_us") <= total + 1);
    let throttled = number(exchange, "throttled_us");
    assert!(throttled <= total && throttled >= total / 2, "{throttled} of {total} µs");
    assert!(number(exchange, "throttle_count") >= 2);
    assert!(number(exchange, "longest_gap_us") > 0 && number(exchange, "longest_gap_us") <= total);
    // Bytes are paused, not blocked: the client took what came.
    assert!(number(exchange, "blocked_us") <= total / 4, "{exchange:#}");
}
