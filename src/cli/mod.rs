//! The program: its command line, its messages, its exit codes.

mod args;
mod failure;
mod fetch;
mod serve;
mod signals;
pub mod units;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

/// Runs the program with the arguments of the process.
///
/// Exits with 0 when all went well, 1 when something failed, 2 when the command line was wrong; `fetch` has further ones.
pub fn main() -> ExitCode {
    let args = args::Args::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let outcome = match args.command {
        args::Command::Serve(args) => serve::run(*args).map(|()| ExitCode::SUCCESS),
        args::Command::Fetch(args) => fetch::run(*args),
    };
    outcome.unwrap_or_else(|failure| {
        // Where nobody listens there is nobody to tell that.
        let _ = writeln!(std::io::stderr().lock(), "tidegate: {failure}");
        failure.exit_code()
    })
}
