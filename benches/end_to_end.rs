//! `tidegate serve` beside nginx over loopback, measured from outside: the table of `docs/`.
//!
//! ```text
//! cargo bench --bench end_to_end                    all cases, three runs of each in turn
//! cargo bench --bench end_to_end -- --list          the cases
//! cargo bench --bench end_to_end -- 1x1MB idle      some of them
//! cargo bench --bench end_to_end -- --quick         short windows: does everything work?
//! ```
//!
//! It needs nginx (`apt-get install nginx-light`), two CPUs, and nothing else running.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use tidegate_meter::table::{self, Options, Programs};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    let Command { options } = Command::parse();
    if !options.bench && !options.list {
        // `cargo test --benches` runs this too, without `--bench`: that it builds is all there is to test.
        return ExitCode::SUCCESS;
    }
    let data = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
    let programs = Programs { tidegate: env!("CARGO_BIN_EXE_tidegate").into(), ..Programs::default() };
    table::run(&table::SERVE, &options, &programs, &data)
}
