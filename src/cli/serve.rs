//! `tidegate serve`: puts the pieces together, says where it listens, and waits for the end.

use std::io::Write as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use tidegate_poller::file::Root;
use tidegate_poller::{PollerSettings, sys};

use crate::cli::args::{LogFormat, ServeArgs};
use crate::cli::failure::Failure;
use crate::cli::signals::{Caught, Duties, Duty};
use crate::http::{Files, Server, ServerSettings};
use crate::net::tls::ServerTls;
use crate::net::{Listeners, Pacing};
use crate::record::{AccessLog, Destination, LineFormat, Sinks};

/// How long the end waits for the access log: a pipe nobody reads must not keep the program.
const LOG_PATIENCE: Duration = Duration::from_secs(5);
/// More connections than this have to be asked for: a folder's server seldom has them, and each costs memory.
const CONNECTIONS_DEFAULT_MAX: u64 = 50_000;

/// Serves until it is told to stop.
pub(super) fn run(args: ServeArgs) -> Result<(), Failure> {
    args.idle_flags().into_iter().for_each(|message| log::warn!("{message}"));
    let max_connections = max_connections(args.max_connections)?;
    let root = Root::open(&args.root).map_err(|error| Failure::root(&args.root, &error))?;
    let pollers = args
        .pollers
        .map_or_else(|| thread::available_parallelism().map_or(1, std::num::NonZero::get), usize::from);
    let listeners = Listeners::bind(args.listen, pollers).map_err(|error| Failure::listen(&error))?;
    let tls = tls_of(&args)?;
    let caught = Caught::new(tls.is_some()).map_err(|error| Failure::other("cannot catch signals", error))?;
    let log = args.access_log.as_deref().map(|path| open_log(path, args.log_format)).transpose()?;
    if let Some(path) = args.access_log.as_deref().filter(|path| is_served(path, &args.root)) {
        log::warn!("{} lies in the folder that is served: whoever may ask may read the log", path.display());
    }

    let pacing =
        Pacing::builder().connection(args.rate).client(args.client_rate).total(args.total_rate).build();
    let settings = ServerSettings {
        max_connections,
        header_timeout: args.header_timeout,
        idle_timeout: args.idle_timeout,
        send_timeout: args.send_timeout,
        rate_after: args.rate_after,
        body_timeout: args.body_timeout,
        pacing,
        sinks: Sinks::new(log.iter().map(AccessLog::sink)),
        ..ServerSettings::default()
    };
    let config = PollerSettings {
        name: "poller".into(),
        pace_interval: args.pace_interval,
        ..PollerSettings::default()
    };
    // Files compute nothing; each thread would cost its stack.
    let mut server =
        Server::builder(Files::new(root)).compute_threads(1).settings(settings).poller_settings(config);
    if let Some(tls) = &tls {
        server = server.tls(tls);
    }
    let server = server.start(listeners).map_err(|error| Failure::other("cannot start", error))?;

    let scheme = if tls.is_some() { "https" } else { "http" };
    let duties = Duties {
        reopen: log.as_ref().map(|log| Box::new(log.reopener()) as Duty),
        reload: tls.map(|tls| Box::new(move || reload(&tls)) as Duty),
    };
    let obeying = caught
        .obey(server.pollers(), args.shutdown_timeout, duties)
        .map_err(|error| Failure::other("cannot start the signal thread", error))?;
    say_ready(&format!("listening on {scheme}://{}", server.address()));

    let ended = server.join();
    if let Some(log) = log
        && log.close(LOG_PATIENCE).is_none()
    {
        log::error!("the access log did not take its last lines within {LOG_PATIENCE:?}");
    }
    obeying.end();
    ended.map_err(|error| Failure::other("a poller failed", error))
}

/// The certificates to speak TLS with, if there are any.
fn tls_of(args: &ServeArgs) -> Result<Option<ServerTls>, Failure> {
    if args.tls_cert.is_empty() {
        return Ok(None);
    }
    if args.tls_cert.len() != args.tls_key.len() {
        return Err(Failure::tls_pairs(args.tls_cert.len(), args.tls_key.len()));
    }
    let mut tls = ServerTls::builder().alpn(["http/1.1"]);
    for (certificate, key) in args.tls_cert.iter().zip(&args.tls_key) {
        tls = tls.certificate(certificate.as_path(), key.as_path());
    }
    if let Some(authorities) = &args.tls_client_ca {
        tls = tls.require_client_certificates(authorities.as_path());
    }
    tls.build().map(Some).map_err(|error| Failure::other("cannot speak TLS", error))
}

fn reload(tls: &ServerTls) {
    match tls.reload() {
        Ok(()) => log::info!("the certificates were read anew; connections from now on get them"),
        Err(error) => log::error!("the certificates stay as they were: {error}"),
    }
}

/// Standard output is for this line and, where asked for, the access log. Nobody reading it is no reason to stop.
fn say_ready(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let said = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    if let Err(error) = said {
        log::warn!("cannot say on stdout: {line}: {error}");
    }
}

fn open_log(path: &Path, format: LogFormat) -> Result<AccessLog, Failure> {
    let destination =
        if path == Path::new("-") { Destination::Stdout } else { Destination::File(path.to_path_buf()) };
    let format = match format {
        LogFormat::Json => LineFormat::Json,
        LogFormat::Combined => LineFormat::Combined,
    };
    AccessLog::open(destination, format).map_err(|error| Failure::access_log(path, &error))
}

/// Whether a file lies below the root, under names that are served.
fn is_served(path: &Path, root: &Path) -> bool {
    let (Ok(path), Ok(root)) = (path.canonicalize(), root.canonicalize()) else { return false };
    path.strip_prefix(root).is_ok_and(|below| {
        path.is_file()
            && !below.components().any(|name| name.as_os_str().as_encoded_bytes().starts_with(b"."))
    })
}

/// Each connection takes a descriptor, and each file that is being sent one more, however many clients it goes to.
fn max_connections(asked: Option<u32>) -> Result<usize, Failure> {
    let limit = sys::raise_descriptor_limit()
        .map_err(|error| Failure::other("cannot read the limit of open descriptors", error))?;
    let fitting = limit - limit / 8;
    let chosen = match asked.map(u64::from) {
        None => fitting.min(CONNECTIONS_DEFAULT_MAX),
        Some(asked) => {
            if asked > fitting {
                log::warn!(
                    "--max-connections {asked} does not fit into the limit of {limit} open descriptors; \
                     raise it with: ulimit -n {}",
                    asked.saturating_add(asked / 4)
                );
            }
            asked
        }
    };
    Ok(usize::try_from(chosen).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_strangers_could_read_is_noticed() {
        let folder = std::env::temp_dir().join(format!("tidegate-served-{}", std::process::id()));
        let root = folder.join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::create_dir_all(root.join(".logs")).unwrap();
        for name in ["root/log", "root/sub/log", "root/.log", "root/.logs/log", "log"] {
            std::fs::write(folder.join(name), "").unwrap();
        }
        for (name, served) in [
            ("root/log", true),
            ("root/sub/../log", true),
            ("root/.log", false),
            ("root/.logs/log", false),
            ("log", false),
        ] {
            assert_eq!(is_served(&folder.join(name), &root.join("sub/..")), served, "{name}");
        }
        assert!(!is_served(Path::new("-"), Path::new(".")));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
