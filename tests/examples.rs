//! Runs the examples, and looks at what they print.

// The other test binaries use more of it.
#[allow(dead_code)]
#[path = "support/waiting.rs"]
mod waiting;

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use tidegate_meter::cases::{self, Bench};
use tidegate_meter::scratch::Scratch;
use tidegate_meter::servers::Server;
use tidegate_meter::sys;
use waiting::await_that;

/// None takes a tenth of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an example prints. It must end well, and in time.
fn run(name: &str, arguments: &[&str]) -> String {
    let (succeeded, text) = Running::start(name, arguments).end();
    assert!(succeeded, "{name} failed\n{text}");
    text
}

/// An example that runs. Its input is open until it is told to end.
struct Running {
    name: String,
    child: Child,
    /// What it prints comes line by line.
    lines: mpsc::Receiver<String>,
}

impl Running {
    fn start(name: &str, arguments: &[&str]) -> Running {
        let mut command = Command::new(example(name));
        command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {name}: {error}"));
        let output = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Running { name: name.to_owned(), child, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{} says nothing", self.name))
    }

    /// Where a server listens, as it says first.
    fn address(&self) -> String {
        let line = self.line();
        line.strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}")).to_owned()
    }

    /// The same, of one that speaks HTTP, without the scheme.
    fn http_address(&self) -> String {
        let address = self.address();
        address.strip_prefix("http://").unwrap_or_else(|| panic!("{address:?}")).to_owned()
    }

    /// Closes its input, which ends a server. Whether it ends well, and what it has still printed.
    fn end(mut self) -> (bool, String) {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        let mut text = String::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => text.extend([&line, "\n"]),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("{} does not end\n{text}", self.name),
            }
        }
        // It has closed its output, so it is ending.
        let status = await_that(&format!("{} ends\n{text}", self.name), || self.child.try_wait().unwrap());
        (status.success(), text)
    }
}

impl Drop for Running {
    /// For a test that fails.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A built example. `cargo test --test examples` builds none, and would leave old ones where they are: so all are built
/// here, once, which takes no time if nothing has changed.
fn example(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let tests = std::env::current_exe().unwrap();
        let profile = tests.ancestors().nth(2).unwrap().to_owned();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--workspace", "--examples", "--target-dir"]);
        build.arg(profile.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "the examples do not build");
        profile.join("examples")
    });
    built.join(name)
}

#[track_caller]
fn says(output: &str, parts: &[&str]) {
    for part in parts {
        assert!(output.contains(part), "{part:?} is not in:\n{output}");
    }
}

#[test]
fn sort() {
    says(&run("sort", &["50000"]), &["sorted 50000 numbers", "in order: true"]);
    says(&run("sort", &["0"]), &["sorted 0 numbers", "in order: true"]);
    says(&run("sort", &["3"]), &["sorted 3 numbers", "in order: true"]);
}

#[test]
fn matrix() {
    says(&run("matrix", &["61"]), &["61 × 61 in 8 tasks", "right: true"]);
}

#[test]
fn timers() {
    let output = run("timers", &[]);
    says(&output, &["and another after it", "10000 timers side by side", "an hour is over early", "tick 3"]);
    says(&output, &["gave back \"its context\"", " missed\n"]);
}

#[test]
fn async_both_ways() {
    let output = run("async_both_ways", &[]);
    says(&output, &["a task, awaited: 42", "side by side: two", "from within: 42", "the series, awaited"]);
}

#[test]
fn resource_pool() {
    let output = run("resource_pool", &[]);
    says(&output, &["six jobs, 2 connections", "job 6 has", "within 30 ms: ", "calls: 3", "2 to be had"]);
    let numbers = output.lines().filter_map(|line| line.split("job ").nth(1)?.chars().next());
    assert_eq!(numbers.collect::<String>(), "123456", "first come, first served\n{output}");
}

/// A file of a known size, and a text.
fn site() -> Scratch {
    let site = Scratch::new("examples").unwrap();
    std::fs::write(site.path().join("film.bin"), vec![7; 50_000]).unwrap();
    std::fs::write(site.path().join("hello.txt"), "one two\nthree\n").unwrap();
    site
}

/// The reply to a GET, head and body, read to the end of the connection.
fn get(address: &str, target: &str) -> String {
    ask(address, &format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
}

/// The reply to a request.
fn ask(address: &str, request: &str) -> String {
    let mut wire = TcpStream::connect(address).unwrap();
    wire.set_read_timeout(Some(PATIENCE)).unwrap();
    wire.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    wire.read_to_string(&mut reply).unwrap();
    reply
}

#[test]
fn hello() {
    let unlimited = "1000000000";
    let rates = ["--rate", unlimited, "--client-rate", unlimited, "--total-rate", unlimited];
    let limited = [&["--listen", "127.0.0.1:0", "--pollers", "2"], &rates[..]].concat();
    for arguments in [&[][..], &limited] {
        let server = Running::start("hello", arguments);
        let address = server.http_address();
        let reply = get(&address, "/any/path?at=all");
        says(&reply, &["HTTP/1.1 200 OK\r\n", "\r\nContent-Type: text/plain\r\n", "\r\n\r\nHello, World!"]);
        let head = ask(&address, "HEAD / HTTP/1.0\r\n\r\n");
        assert!(head.contains("Content-Length: 13\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        says(&ask(&address, "DELETE / HTTP/1.0\r\n\r\n"), &["405 Method Not Allowed", "Allow: GET, HEAD"]);
    }
    let (succeeded, _) = Running::start("hello", &["--port", "80"]).end();
    assert!(!succeeded, "an option that is not known is no option");
}

#[test]
fn tls_echo() {
    let scratch = Scratch::new("tls_echo").unwrap();
    let (chain, key) = (scratch.path().join("chain.pem"), scratch.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed([String::from("localhost")]).unwrap();
    std::fs::write(&chain, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let files = [chain.to_str().unwrap(), key.to_str().unwrap()];
    let server = Running::start("tls_echo", &["127.0.0.1:0", files[0], files[1]]);
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-brief", "-verify_return_error", "-servername", "localhost"]);
    openssl.args(["-CAfile", files[0], "-connect", &server.address()]);
    openssl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut openssl = openssl.spawn().expect("openssl: run tests/run, which installs it");
    openssl.stdin.as_mut().unwrap().write_all(b"there and back\n").unwrap();
    let mut line = String::new();
    BufReader::new(openssl.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "there and back\n");
    drop(openssl.stdin.take());
    openssl.wait().unwrap();
    says(&server.line(), &["TLSv1.3", "TLS_AES_256_GCM_SHA384", "localhost"]);
    says(&server.line(), &["15 bytes back, client/open/ok -"]);
    let (succeeded, _) = Running::start("tls_echo", &["127.0.0.1:0", files[0], files[0]]).end();
    assert!(!succeeded, "there is no key in the chain");
}

#[test]
fn echo() {
    let server = Running::start("echo", &["--listen", "127.0.0.1:0"]);
    let address = server.http_address();
    for (method, body) in [("POST", "one\ntwo\n"), ("PUT", ""), ("DELETE", "why"), ("BREW", "tea")] {
        let length = body.len();
        let reply = ask(
            &address,
            &format!(
                "{method} /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: text/x\r\nContent-Length: {length}\r\n\r\n{body}"
            ),
        );
        says(&reply, &["200 OK", "Content-Type: text/x\r\n", &format!("\r\n\r\n{body}")]);
        assert!(reply.ends_with(body), "{reply}");
    }
}

#[test]
fn stream() {
    let server = Running::start("stream", &["--lines", "3", "--interval", "50"]);
    let address = server.http_address();
    let mut wire = TcpStream::connect(&address).unwrap();
    wire.set_read_timeout(Some(PATIENCE)).unwrap();
    wire.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let began = Instant::now();
    let (mut lines, mut came) = (BufReader::new(wire).lines(), Vec::new());
    assert!(lines.by_ref().any(|line| line.unwrap().is_empty()), "the head");
    for line in lines {
        came.push((line.unwrap(), began.elapsed()));
    }
    let texts: Vec<_> = came.iter().map(|(line, _)| line.as_str()).collect();
    assert_eq!(texts, ["line 1", "line 2", "line 3"]);
    assert!(came[2].1 - came[0].1 > Duration::from_millis(50), "each comes when it is there: {came:?}");
    says(&get(&address, "/"), &["Transfer-Encoding: chunked", "7\r\nline 1\n\r\n", "\r\n0\r\n\r\n"]);
}

#[test]
fn api() {
    let folder = Scratch::new("api").unwrap();
    let path = folder.path().to_str().unwrap();
    let server = Running::start("api", &["--folder", path, "--download-rate", "1000000"]);
    let address = server.http_address();
    let post = |target: &str, media: &str, body: &str| {
        let length = body.len();
        let fields =
            format!("Host: x\r\nConnection: close\r\nContent-Type: {media}\r\nContent-Length: {length}");
        ask(&address, &format!("POST {target} HTTP/1.1\r\n{fields}\r\n\r\n{body}"))
    };
    says(&get(&address, "/"), &["200 OK", "X-Content-Type-Options: nosniff", "\r\n\r\nhello\n"]);
    says(&post("/notes", "application/json", r#"{"text":"a","tags":["x"]}"#), &["201 Created", "\r\n\r\n1"]);
    says(&post("/notes", "application/json", r#"{"text":"b"}"#), &["201 Created", "\r\n\r\n2"]);
    says(&get(&address, "/notes/2"), &["200 OK", r#"{"text":"b","tags":[]}"#]);
    says(&get(&address, "/notes?tag=x"), &[r#"{"1":{"text":"a","tags":["x"]}}"#]);
    says(
        &get(&address, "/notes/7"),
        &["404 Not Found", r#"{"error":"There is nothing of this name here."}"#],
    );
    says(&get(&address, "/notes/x"), &["400 Bad Request", "id in the path: invalid digit"]);
    let wrong = post("/notes", "application/json", r#"{"text":1}"#);
    says(&wrong, &["422 Unprocessable Entity", "text: invalid type: integer `1`, expected a string"]);
    let picture = "p".repeat(600_000);
    let form =
        format!("--x\r\nContent-Disposition: form-data; name=p; filename=p\r\n\r\n{picture}\r\n--x--\r\n");
    says(&post("/pictures", "multipart/form-data; boundary=x", &form), &["200 OK", "1.bin: 600000 bytes\n"]);
    let began = Instant::now();
    assert!(get(&address, "/pictures/1.bin").ends_with(&picture));
    assert!(began.elapsed() > Duration::from_millis(300), "it has a rate");
    says(&get(&address, "/ticks/1"), &["200 OK", "tick 1\n"]);
    says(&get(&address, "/ticks/many"), &["400 Bad Request", "count in the path: invalid digit"]);
}

#[test]
fn file_server() {
    let site = site();
    let server = Running::start("file_server", &[site.path().to_str().unwrap(), "100000"]);
    let address = server.address();
    let address = address.strip_prefix("http://").unwrap();
    says(&get(address, "/hello.txt?count"), &["200 OK", "\r\n\r\nlines: 2, words: 3\n"]);
    says(&get(address, "/hello.txt"), &["200 OK", "\r\n\r\none two\nthree\n"]);
    says(&get(address, "/nothing?count"), &["404 Not Found"]);
    says(&get(address, "/..%2f..%2fetc%2fpasswd?count"), &["404 Not Found"]);
    let began = Instant::now();
    assert!(get(address, "/film.bin").len() > 50_000);
    assert!(began.elapsed() > Duration::from_millis(300), "it has a rate");
    let (ended_well, output) = server.end();
    assert!(ended_well);
    says(&output, &["200 /hello.txt?count: 19 bytes", "200 /film.bin: 50000 bytes in", "404 /nothing?count"]);
}

/// What `cargo bench --bench http` does with it, for some hundred milliseconds: wrk's load, the kernel's accounts.
#[test]
fn hello_can_be_measured() {
    let data = Scratch::new("bench").unwrap();
    let cpus = sys::allowed_cpus();
    let (server_cpu, client_cpu) = (cpus[0], cpus[cpus.len() - 1]);
    let bench = Bench { data: data.path().to_owned(), server_cpu, client_cpu, quick: true };
    let limits = ["--rate", "1000000000", "--client-rate", "1000000000", "--total-rate", "1000000000"];
    for (name, arguments) in [("hello-64", &limits[..0]), ("hello-256", &limits[..]), ("close", &limits[..0])]
    {
        let case = cases::HTTP.iter().find(|case| case.name == name).unwrap();
        let arguments = [&["--pollers", "1"], arguments].concat().into_iter().map(str::to_owned).collect();
        let server = Server::Program { name: "hello", program: example("hello"), arguments };
        let samples = case.run(&bench, &server, "tidegate").unwrap();
        let figures = &samples[0].figures;
        assert_eq!(figures["errors"], 0.0, "{name}: {figures:?}");
        assert!(figures["requests_per_s"] > 100.0 && figures["p99_ms"] > 0.0, "{name}: {figures:?}");
        // More would be less than 1 µs a request.
        assert!((1.0..1e6).contains(&figures["requests_per_cpu_s"]), "{name}: {figures:?}");
    }
}

#[test]
fn graph() {
    let output = run("graph", &[]);
    says(&output, &[" ms of work in ", "refused: ", "stopped: node 0 of a graph: a semicolon is missing"]);
    let place = |what| output.find(what).unwrap_or_else(|| panic!("{what:?} is not in:\n{output}"));
    let chain = ["config.h", "parser.c", "engine.c", ": link", ": test", ": pack"].map(place);
    assert!(chain.is_sorted() && place("manual") < place(": pack"), "{output}");
    assert_eq!(output.matches(": link").count(), 1, "what waits for a failed node is not begun\n{output}");
}

#[test]
fn wget() {
    let site = site();
    let server = Running::start("file_server", &[site.path().to_str().unwrap()]);
    let address = server.address();
    let urls = ["/film.bin", "/nothing", "/hello.txt"].map(|path| format!("{address}{path}"));
    let [film, nothing, hello] = urls.each_ref().map(String::as_str);
    let output = run("wget", &[film, nothing, hello]);
    let lines: Vec<_> = output.lines().collect();
    for (line, parts) in
        lines.iter().zip([["200     50000 bytes", film], ["404", nothing], ["200        14 bytes", hello]])
    {
        says(line, &parts);
    }
    // What cannot be fetched takes nothing from the others.
    let (succeeded, output) = Running::start("wget", &[film, "http://127.0.0.1:1/"]).end();
    assert!(!succeeded);
    says(&output, &["200     50000 bytes", "- http://127.0.0.1:1/: cannot connect"]);
    assert!(server.end().0);
}

#[test]
fn wget_to_file() {
    let site = site();
    let server = Running::start("file_server", &[site.path().to_str().unwrap()]);
    let address = server.address();
    let copy = site.path().join("copy.bin");
    let path = copy.to_str().unwrap();
    says(&run("wget_to_file", &[&format!("{address}/film.bin"), path]), &["50000 bytes", "done"]);
    assert_eq!(std::fs::read(&copy).unwrap(), vec![7; 50_000]);
    std::fs::remove_file(&copy).unwrap();
    let (succeeded, output) = Running::start("wget_to_file", &[&format!("{address}/nothing"), path]).end();
    assert!(!succeeded && !copy.exists());
    says(&output, &["not written: the server says 404"]);
    assert!(server.end().0);
}

#[test]
fn download() {
    let site = site();
    let server = Running::start("file_server", &[site.path().to_str().unwrap()]);
    let address = server.address();
    let copy = site.path().join("copy.bin");
    let path = copy.to_str().unwrap();
    let began = std::time::Instant::now();
    says(&run("download", &[&format!("{address}/film.bin"), path, "100000"]), &["50000 bytes"]);
    assert!(began.elapsed().as_millis() > 350, "50 kB at 100 kB/s");
    assert_eq!(std::fs::read(&copy).unwrap(), vec![7; 50_000]);
    let (succeeded, _) = Running::start("download", &[&format!("{address}/nothing"), path, "100000"]).end();
    assert!(!succeeded);
    assert!(server.end().0);
}

#[test]
fn protocol_client_and_server() {
    let server = Running::start("protocol_server", &["--listen", "127.0.0.1:0"]);
    let address = server.address();
    let output = run("protocol_client", &[&address, "hello", "wide", "world"]);
    assert_eq!(output, "1: olleh\n2: ediw\n3: dlrow\n");
    let (succeeded, output) = Running::start("protocol_client", &["127.0.0.1:1", "hello"]).end();
    assert!(!succeeded && output.is_empty(), "nobody is there\n{output}");
}

/// Each line of code that the tutorial and the front page show of tasks is one of an example, or of an example in the
/// documentation.
#[test]
fn the_tutorial_shows_what_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = HashSet::new();
    for folder in [
        "examples",
        "examples/frames",
        "src/task",
        "src/task/sync",
        "src/http/router",
        "src/sse",
        "src/sse/client",
    ] {
        for file in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = file.unwrap().path();
            if path.is_file() {
                code.extend(std::fs::read_to_string(path).unwrap().lines().map(plain));
            }
        }
    }
    let tutorial =
        ["04-tasks", "05-computing", "06-protocols", "07-handlers", "08-server", "09-events", "10-client"];
    let pages = tutorial.map(|page| (format!("docs/tutorial/{page}.md"), "#"));
    for (page, from) in pages.into_iter().chain([(String::from("README.md"), "## Compose work")]) {
        let text = std::fs::read_to_string(root.join(&page)).unwrap();
        let text = &text[text.find(from).unwrap()..];
        for block in text.split("```rust\n").skip(1) {
            for line in block.split("```").next().unwrap().lines().map(plain) {
                assert!(code.contains(&line), "{page}: no example has the line\n{line}");
            }
        }
    }
}

fn plain(line: &str) -> String {
    line.trim().trim_start_matches("///").trim_start_matches("//!").trim().trim_end_matches(';').to_owned()
}
