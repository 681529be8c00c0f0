//! The table of the HTTP server, made quickly: its peers start, are measured, and are stopped.

use std::process::Command;
use std::sync::Mutex;

use tidegate_meter::scratch::Scratch;

/// Whether the program succeeds, and what it prints. One at a time: all want the same two CPUs.
fn table(arguments: &[&str]) -> (bool, String) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let data = Scratch::new("table").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-meter"));
    command.args(["table", "--http", "--quick", "--data"]).arg(data.path()).args(arguments);
    let out = command.output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    (out.status.success(), text.into_owned())
}

/// The figures of a row of the table.
fn row<'t>(text: &'t str, label: &str) -> Vec<&'t str> {
    let row = text.lines().find(|line| line.starts_with(&format!("| {label}")));
    row.unwrap_or_else(|| panic!("no row {label:?} in\n{text}")).split('|').skip(2).map(str::trim).collect()
}

#[test]
fn raw_epoll_answers_and_is_counted() {
    let (worked, text) = table(&["--only", "raw epoll", "hello-64"]);
    assert!(worked, "{text}");
    assert!(row(&text, "raw epoll")[0].parse::<f64>().unwrap() > 1000.0, "{text}");
    assert_eq!(text.matches("not measured").count(), 4, "ours was left out\n{text}");
}

#[test]
fn nginx_answers_on_kept_and_on_new_connections() {
    let (worked, text) = table(&["--only", "nginx", "hello-64", "close"]);
    assert!(worked, "{text}");
    assert_eq!(text.matches("\n| nginx").count(), 2, "{text}");
    assert!(row(&text, "nginx")[0].parse::<f64>().unwrap() > 1000.0, "{text}");
}

#[test]
fn a_peer_that_is_not_there_fails_the_table() {
    let (worked, text) = table(&["--only", "hyper", "--hyper", "/nowhere/hyper", "hello-64"]);
    assert!(!worked && text.contains("/nowhere/hyper"), "{text}");
}
