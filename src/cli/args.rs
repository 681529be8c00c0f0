//! The command line.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::cli::fetch::FetchArgs;
use crate::cli::units;

/// Serves, and says how fast.
#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version,
    about = "A network server in which every byte passes a gate, and every connection leaves its account.",
    after_help = "Begin with: tidegate serve --help, tidegate fetch --help",
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Serve the files of a folder over HTTP, as fast as you allow.
    Serve(Box<ServeArgs>),
    /// Download files over HTTP, as fast as you allow; or send one.
    Fetch(Box<FetchArgs>),
}

const EXAMPLES: &str = "\
Examples:
  Serve this folder to this machine, on port 8080:
      tidegate serve

  To the whole network, each download at 1 MB/s, the first 2 MB of it at full speed:
      tidegate serve ~/Videos --listen 0.0.0.0:8080 --rate 1MB --rate-after 2MB

  No client gets more than 20 Mbit/s however many connections it opens, and all together
  leave half of a 100 Mbit/s line free:
      tidegate serve --client-rate 20Mbit --total-rate 50Mbit

  Over TLS:
      tidegate serve --tls-cert fullchain.pem --tls-key privkey.pem --listen 0.0.0.0:8443

  See what became of every exchange and connection (in another terminal: tail -F access.log | jq .):
      tidegate serve ~/Videos --access-log access.log

Rates and sizes:
  500000           bytes
  64k 1m 1g        1024, 1024^2, 1024^3 bytes, as nginx reads them
  64kB 1MB 1GB     1000, 1000^2, 1000^3 bytes
  64KiB 1MiB 1GiB  1024, 1024^2, 1024^3 bytes
  512kbit 8Mbit    bits
  A rate may end in /s. Decimals are fine: 1.5MB/s. To have no limit, leave the flag out.

Times: 250ms, 5s, 1.5s, 1m, 1h

Signals:
  TERM, INT   stop: no new callers, finish what is in flight, cut the rest at --shutdown-timeout;
              a second one cuts at once
  USR1        open the access log anew, after it was moved away
  HUP         with TLS: read the certificates anew; if they are not good, the old ones stay

Names that start with a dot are not served, save /.well-known/; nor are links that lead out of ROOT.
More is said on stderr with RUST_LOG=info or RUST_LOG=debug.";

/// What `tidegate serve` can be told.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(super) struct ServeArgs {
    /// The folder whose files are served.
    #[arg(value_name = "ROOT", default_value = ".")]
    pub(super) root: PathBuf,

    /// Where to listen. Port 0 picks a free one; the address in use is printed on stdout.
    #[arg(short, long, value_name = "ADDR", default_value = "127.0.0.1:8080", value_parser = address)]
    pub(super) listen: SocketAddr,

    /// Speak TLS with this certificate: a PEM file with the certificate first and those that vouch for it behind it.
    /// Given again, each with its --tls-key, the name that a client asks for decides; the first is for all others.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(super) tls_cert: Vec<PathBuf>,

    /// The private key of the certificate, as a PEM file.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(super) tls_key: Vec<PathBuf>,

    /// Let in only clients with a certificate that one of these authorities (a PEM file) vouches for.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(super) tls_client_ca: Option<PathBuf>,

    /// How many poller threads [default: one for each CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) pollers: Option<u16>,

    /// The most bytes per second of each connection.
    #[arg(long, value_name = "RATE", value_parser = units::rate, allow_hyphen_values = true)]
    pub(super) rate: Option<u64>,

    /// How many bytes of each reply go at full speed before --rate holds. What is above --rate counts them.
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = units::size, allow_hyphen_values = true)]
    pub(super) rate_after: u64,

    /// The most bytes per second of all connections of one client address together (IPv6: of one /64 network).
    #[arg(long, value_name = "RATE", value_parser = units::rate, allow_hyphen_values = true)]
    pub(super) client_rate: Option<u64>,

    /// The most bytes per second of everything together.
    #[arg(long, value_name = "RATE", value_parser = units::rate, allow_hyphen_values = true)]
    pub(super) total_rate: Option<u64>,

    /// How far apart the writes of a limited connection are: short is smooth, long is cheap [default: adapts to how
    /// many there are, 16ms to 200ms]
    #[arg(long, value_name = "T", value_parser = units::pace_interval, allow_hyphen_values = true)]
    pub(super) pace_interval: Option<Duration>,

    /// Write a line for each exchange and each connection to this file, or to stdout with "-".
    #[arg(long, value_name = "PATH|-")]
    pub(super) access_log: Option<PathBuf>,

    /// How the lines look. "combined" is nginx's format and has exchanges only.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub(super) log_format: LogFormat,

    /// The most connections at a time; a caller beyond is told to come again [default: 7/8 of the descriptors the
    /// system allows, at most 50000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_connections: Option<u32>,

    /// How long a request's head may take to arrive, from its first byte.
    #[arg(long, value_name = "T", default_value = "10s", value_parser = units::duration, allow_hyphen_values = true)]
    pub(super) header_timeout: Duration,

    /// How long a client may send nothing of a request's body.
    #[arg(long, value_name = "T", default_value = "1m", value_parser = units::duration, allow_hyphen_values = true)]
    pub(super) body_timeout: Duration,

    /// How long a connection may wait for its next request.
    #[arg(long, value_name = "T", default_value = "75s", value_parser = units::duration, allow_hyphen_values = true)]
    pub(super) idle_timeout: Duration,

    /// How long a client may take nothing of what could go. Waiting for a rate does not count.
    #[arg(long, value_name = "T", default_value = "1m", value_parser = units::send_timeout, allow_hyphen_values = true)]
    pub(super) send_timeout: Duration,

    /// How long a stop waits for what is in flight.
    #[arg(long, value_name = "T", default_value = "30s", value_parser = units::duration_or_zero, allow_hyphen_values = true)]
    pub(super) shutdown_timeout: Duration,
}

/// How lines of the access log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Combined,
    Json,
}

impl ServeArgs {
    /// Flags that do nothing without another one, and what each wants: a typing mistake, or a wrong idea of the other.
    pub(super) fn idle_flags(&self) -> Vec<&'static str> {
        let limited = self.rate.or(self.client_rate).or(self.total_rate).is_some();
        let checks = [
            (self.rate_after > 0 && self.rate.is_none(), "--rate-after does nothing without --rate"),
            (self.pace_interval.is_some() && !limited, "--pace-interval does nothing without a rate"),
            (
                self.log_format == LogFormat::Combined && self.access_log.is_none(),
                "--log-format does nothing without --access-log",
            ),
        ];
        checks.into_iter().filter_map(|(idle, message)| idle.then_some(message)).collect()
    }
}

/// An address to listen on: `IP:PORT`, `NAME:PORT`, or a port of this machine alone.
fn address(text: &str) -> Result<SocketAddr, String> {
    const GOOD: &str =
        "good ones: 127.0.0.1:8080 (this machine only), 0.0.0.0:8080 (every network), [::1]:8080";
    if let Ok(port) = text.parse::<u16>() {
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    match text.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && !name.contains(':') && port.parse::<u16>().is_ok() => {
            let mut found =
                text.to_socket_addrs().map_err(|error| format!("{name} is not known: {error}; {GOOD}"))?;
            found.next().ok_or_else(|| format!("{name} has no address; {GOOD}"))
        }
        _ => Err(format!("not an address and a port; {GOOD}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn serve(args: &[&str]) -> Result<ServeArgs, String> {
        let all = ["tidegate", "serve"].iter().chain(args);
        match Args::try_parse_from(all) {
            Ok(Args { command: Command::Serve(args) }) => Ok(*args),
            Ok(Args { command }) => panic!("{command:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn defaults() {
        let args = serve(&[]).unwrap();
        assert_eq!(args.listen, SocketAddr::from(([127, 0, 0, 1], 8080)));
        assert_eq!((args.root, args.rate, args.rate_after), (PathBuf::from("."), None, 0));
        assert_eq!((args.log_format, args.max_connections), (LogFormat::Json, None));
    }

    #[test]
    fn all_flags() {
        let line = "-l 0.0.0.0:0 --pollers 2 --rate 1MB/s --rate-after 64k --client-rate 8Mbit --total-rate 1g \
                    --pace-interval 40ms --access-log - --log-format combined --max-connections 5 \
                    --header-timeout 1s --body-timeout 1s --idle-timeout 2s --send-timeout 3s --shutdown-timeout 0s /srv";
        let args = serve(&line.split_whitespace().collect::<Vec<_>>()).unwrap();
        assert_eq!(
            (args.rate, args.client_rate, args.total_rate),
            (Some(1_000_000), Some(1_000_000), Some(1 << 30))
        );
        assert_eq!((args.rate_after, args.pace_interval), (65_536, Some(Duration::from_millis(40))));
        assert_eq!((args.access_log, args.log_format), (Some(PathBuf::from("-")), LogFormat::Combined));
        assert_eq!((args.shutdown_timeout, args.root), (Duration::ZERO, PathBuf::from("/srv")));
    }

    #[test]
    fn mistakes_are_explained() {
        for (args, hint) in [
            (&["--rate", "10Mb"][..], "bits or bytes"),
            (&["--rate", "0"], "leave the flag out"),
            (&["--rate", "fast"], "good ones: 500k"),
            (&["--rate", "-5"], "good ones: 500k"),
            (&["--rate-after", "-1k"], "good ones: 64k"),
            (&["--idle-timeout", "-5s"], "good ones: 40ms"),
            (&["--rate-after", "1MB/s"], "not a rate"),
            (&["--idle-timeout", "5"], "good ones: 40ms"),
            (&["--pace-interval", "1h"], "from 1ms to 10s"),
            (&["--listen", ":8080"], "0.0.0.0:8080"),
            (&["--listen", "127.0.0.1"], "127.0.0.1:8080"),
            (&["--max-connections", "0"], "not in"),
        ] {
            let message = serve(args).unwrap_err();
            assert!(message.contains(hint), "{args:?}: {message}");
        }
    }

    #[test]
    fn flags_that_do_nothing_are_said() {
        for (args, count) in [
            (&["--rate-after", "1k"][..], 1),
            (&["--rate-after", "1k", "--total-rate", "1m"], 1),
            (&["--rate-after", "1k", "--rate", "1m"], 0),
            (&["--pace-interval", "40ms", "--client-rate", "1m"], 0),
            (&["--pace-interval", "40ms", "--log-format", "combined"], 2),
            (&["--log-format", "combined", "--access-log", "-"], 0),
        ] {
            assert_eq!(serve(args).unwrap().idle_flags().len(), count, "{args:?}");
        }
    }

    #[test]
    fn addresses() {
        for (text, parsed) in [
            ("8080", "127.0.0.1:8080"),
            ("0", "127.0.0.1:0"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::]:80", "[::]:80"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), parsed);
        }
        assert!(address("localhost:80").unwrap().ip().is_loopback());
        for text in ["", ":", "x", "::1", "1.2.3.4:99999", "host:", "[::1]"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
