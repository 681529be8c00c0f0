//! The HTTP server beside nginx, hyper, and epoll without a server on it: the table of `docs/benchmarks.md`.
//!
//! ```text
//! cargo bench --bench http                          all cases, three runs of each in turn: about ten minutes
//! cargo bench --bench http -- --list                the cases
//! cargo bench --bench http -- hello-64 close        some of them
//! cargo bench --bench http -- --quick               short windows: does everything work?
//! ```
//!
//! It needs nginx, wrk, curl and openssl (`apt-get install nginx-light wrk curl openssl`), two CPUs, and nothing else
//! running. What is measured besides `tidegate` it builds first: the example `hello`, and the server in `peers/hyper`.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use tidegate_meter::table::{self, Options, Programs};

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    let Arguments { options } = Arguments::parse();
    if !options.bench && !options.list {
        // `cargo test --benches` runs this too, without `--bench`: that it builds is all there is to test.
        return ExitCode::SUCCESS;
    }
    // The programs of this package lie together; what is built for the bench alone lies beside them.
    let tidegate = PathBuf::from(env!("CARGO_BIN_EXE_tidegate"));
    let built = tidegate.parent().unwrap_or(Path::new("target/release"));
    let target = built.parent().unwrap_or(Path::new("target"));
    let peers = target.join("peers");
    let programs = Programs {
        hello: built.join("examples/hello"),
        hyper: peers.join("release/hyper-hello"),
        tidegate: tidegate.clone(),
    };
    if !options.list
        && let Err(error) = build(target, &peers)
    {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    let data = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
    table::run(&table::HTTP, &options, &programs, &data)
}

fn build(target: &Path, peers: &Path) -> io::Result<()> {
    cargo(&["--example", "hello"], target)?;
    cargo(&["--locked", "--manifest-path", "benches/peers/hyper/Cargo.toml"], peers)
}

fn cargo(what: &[&str], target: &Path) -> io::Result<()> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--release", "--quiet"]).args(what).arg("--target-dir").arg(target);
    let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("{} does not build", what.join(" "))))
    }
}
