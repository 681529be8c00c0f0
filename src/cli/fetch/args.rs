//! The command line of `tidegate fetch`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;

use crate::cli::units;
use crate::http::client::Url;

const EXAMPLES: &str = "\
Examples:
  Download a file into this folder, at 1 MB/s at most:
      tidegate fetch http://127.0.0.1:8080/big.iso --rate 1MB

  Several, four at a time, and all together leave half of a 100 Mbit/s line free:
      tidegate fetch URL... -o downloads/ --total-rate 50Mbit

  Go on where an earlier try was cut; what it left is in big.iso.part:
      tidegate fetch http://127.0.0.1:8080/big.iso --resume

  Into another program, with a report of each phase on stderr:
      tidegate fetch http://127.0.0.1:8080/data.tar -o - | tar x

  Send a file (PUT), slowly:
      tidegate fetch http://127.0.0.1:8080/in/log.txt --upload log.txt --rate 100kB

  From a server with a certificate of your own making:
      tidegate fetch https://localhost:8443/a --cacert ca.pem

  Look at the figures with a program:
      tidegate fetch URL... --json | jq '{file, bytes, connect_us, ttfb_us, read_throttled_us}'

Files: a download goes to NAME.part, and NAME.part.json remembers what it is of. When it is whole \
it takes its name, in the place of what had that name. A cut one stays. --resume asks the server for \
the rest on condition that the file is still the same: by its ETag, else by its date, else (where it \
has neither) only if its size is the one remembered; where it is not the same, it is fetched from the \
start. A file NAME without NAME.part is whole, and --resume leaves it alone. Two at once do not write \
the same NAME.part: the second fails. What is no file (/dev/null, a pipe) is written to as it is.

Proxies: http_proxy (in small letters only), https_proxy, and all_proxy for those of both that are not \
set, as curl reads them: [http://][USER:PASSWORD@]HOST[:PORT], the port 1080 if none is written. They \
are spoken to in plain HTTP; where one is set that is not (https://, socks5://), nothing is asked at \
all. no_proxy says who is asked without, with commas or blanks between:
  example.org      a name, and all below it; .example.org and *.example.org mean the same
  127.0.0.1, ::1   an address that is written in the URL
  10.0.0.0/8       a block of such addresses; also fd00::/8
  example.org:81   the same at one port only; also 127.0.0.1:81, [::1]:81
  *                everything

Exit status (of several URLs, that of the first that failed):
  0  all is there              5  TLS: no agreement, or not the right server
  1  anything else             6  too late: some timeout
  2  wrong command line        7  the server answered with an error (400 or more)
  3  the name has no address   8  the transfer broke: cut, malformed, too large, in a circle
  4  no connection             9  a file could not be read or written
  130  interrupted: what came is kept, and --resume goes on with it

Rates and times are written as in: tidegate serve --help";

/// What `tidegate fetch` can be told.
#[derive(Debug, Clone, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct FetchArgs {
    /// What to fetch.
    #[arg(value_name = "URL", required = true, value_parser = url)]
    pub(super) urls: Vec<Url>,

    /// Where to write it: a file, a folder (one that is there, or with a slash at its end), or "-" for stdout [default:
    /// the last part of the URL's path]
    #[arg(short, long, value_name = "FILE|FOLDER/|-")]
    pub(super) output: Option<PathBuf>,

    /// The most bytes per second of each transfer.
    #[arg(long, value_name = "RATE", value_parser = units::rate, allow_hyphen_values = true)]
    pub(super) rate: Option<u64>,

    /// The most bytes per second of all transfers together.
    #[arg(long, value_name = "RATE", value_parser = units::rate, allow_hyphen_values = true)]
    pub(super) total_rate: Option<u64>,

    /// Go on with what an earlier try left.
    #[arg(short = 'C', long)]
    pub(super) resume: bool,

    /// Send this file instead, with PUT; of what is answered only the status counts, unless -o says where to put it.
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    pub(super) upload: Option<PathBuf>,

    /// The method [default: GET, with --upload PUT]
    #[arg(short = 'X', long, value_name = "METHOD")]
    pub(super) method: Option<String>,

    /// One more field of the request; may be given several times.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    pub(super) headers: Vec<(String, String)>,

    /// Ask for a compressed body, and decompress it. Cannot be resumed.
    #[arg(long, conflicts_with = "resume")]
    pub(super) compressed: bool,

    /// One JSON object a line about each URL, on stdout (with -o -, on stderr).
    #[arg(long)]
    pub(super) json: bool,

    /// Say nothing but what went wrong.
    #[arg(short, long)]
    pub(super) quiet: bool,

    /// How many at a time.
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) parallel: u16,

    /// How many redirects are followed.
    #[arg(long, value_name = "N", default_value = "10")]
    pub(super) max_redirs: u32,

    /// How often a transfer that failed is tried again; a download goes on where it was cut, if it can.
    #[arg(long, value_name = "N", default_value = "2")]
    pub(super) retry: u32,

    /// How long connecting may take, finding the address and TLS each for themselves.
    #[arg(long, value_name = "T", default_value = "10s", value_parser = units::duration, allow_hyphen_values = true)]
    pub(super) connect_timeout: Duration,

    /// How long the server may take to begin its answer.
    #[arg(long, value_name = "T", default_value = "1m", value_parser = units::duration, allow_hyphen_values = true)]
    pub(super) first_byte_timeout: Duration,

    /// How long a transfer may stand still. Waiting for a rate does not count.
    #[arg(long, value_name = "T", default_value = "1m", value_parser = units::send_timeout, allow_hyphen_values = true)]
    pub(super) stall_timeout: Duration,

    /// How long each transfer may take in all [default: as long as it goes on]
    #[arg(long, value_name = "T", value_parser = units::duration, allow_hyphen_values = true)]
    pub(super) timeout: Option<Duration>,

    /// Believe servers that one of these authorities speaks for (PEM), instead of those the system trusts.
    #[arg(long, value_name = "FILE")]
    pub(super) cacert: Option<PathBuf>,

    /// Believe every server to be who it says. Whoever is on the way can read and change everything.
    #[arg(short = 'k', long, conflicts_with = "cacert")]
    pub(super) insecure: bool,

    /// A proxy for everything, whatever the environment says; see below. With "" there is none.
    #[arg(long, value_name = "URL")]
    pub(super) proxy: Option<String>,
}

fn url(text: &str) -> Result<Url, String> {
    // What people type.
    let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    text.parse::<Url>().map_err(|error| error.to_string())
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("good ones: \"Accept: text/html\"")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}
