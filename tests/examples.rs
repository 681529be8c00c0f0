//! Runs the examples, and looks at what they print.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// None takes a tenth of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an example prints. It must end well, and in time.
fn run(name: &str, arguments: &[&str]) -> String {
    let mut child = Command::new(example(name))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {name}: {error}"));
    let mut output = child.stdout.take().unwrap();
    let reader = thread::spawn(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).map(|_| text)
    });
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                child.kill().unwrap();
                panic!("{name} does not end");
            }
            None => thread::sleep(Duration::from_millis(10)),
        }
    };
    let text = reader.join().unwrap().unwrap();
    assert!(status.success(), "{name}: {status}\n{text}");
    text
}

/// The built example. Cargo builds all of them with the tests, unless only this test is asked for.
fn example(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.ancestors().nth(2).unwrap().join("examples").join(name);
    if !path.exists() {
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        build.args(["build", "--quiet", "--example", name]).current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(build.status().unwrap().success(), "cannot build {name}");
    }
    path
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
