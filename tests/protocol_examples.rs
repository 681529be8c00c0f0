//! The examples of custom protocols, as they are run by hand.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Built here, for `cargo test --test` builds no examples.
fn example(name: &str) -> PathBuf {
    let here = std::env::current_exe().expect("a test has a path");
    let profile = here.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps");
    let mut build = Command::new(env!("CARGO"));
    build.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--example", name]);
    build.arg("--target-dir").arg(profile.parent().expect("target"));
    if profile.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().expect("cargo runs").success());
    profile.join("examples").join(name)
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_client_talks_to_the_server() {
    let mut server = Command::new(example("protocol_server"));
    let server = server.args(["--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn();
    let mut server = Server(server.expect("the example runs"));
    let mut said = String::new();
    let mut out = BufReader::new(server.0.stdout.take().expect("a pipe"));
    out.read_line(&mut said).expect("it says where it listens");
    let address = said.trim().strip_prefix("listening on ").expect("listening on IP:PORT");
    let client = Command::new(example("protocol_client")).args([address, "hello", "wide", "world"]).output();
    let client = client.expect("the example runs");
    assert!(client.status.success(), "{client:?}");
    assert_eq!(String::from_utf8_lossy(&client.stdout), "1: olleh\n2: ediw\n3: dlrow\n");

    let nobody = Command::new(example("protocol_client")).args(["127.0.0.1:1", "hello"]).output();
    assert!(!nobody.expect("the example runs").status.success());
}
