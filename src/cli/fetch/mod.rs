//! `tidegate fetch`: downloads and uploads, as fast as allowed, and says how each went.

mod args;
mod outcome;
mod place;
mod progress;
mod report;
mod transfer;

use std::collections::VecDeque;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use tidegate_poller::Budget;

pub(super) use args::FetchArgs;

use super::failure::Failure;
use crate::http::client::{Client, ClientSettings, Proxies, Url};
use crate::net::Spending;
use crate::net::tls::{ClientTls, Pem};
use crate::runtime::Runtime;
use crate::task::future;
use outcome::{Failed, Kind, Outcome};
use place::{Place, places};
use progress::{Bar, DRAWN_EVERY, Progress};
use transfer::{Common, Target, Transfer};

/// How long what is being written has to get to its file when the program is interrupted.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// Connections to one server are bounded by `--parallel`; this only keeps the client from adding a bound of its own.
const CONNECTIONS_MAX: usize = 256;

/// What the main thread waits for.
enum Event {
    /// A transfer is over.
    Ended,
    /// A worker has nothing more to do.
    Left,
    /// INT or TERM came.
    Interrupted,
}

/// Tells that its worker is gone, however that came.
struct Leaving(mpsc::Sender<Event>);

impl Drop for Leaving {
    fn drop(&mut self) {
        let _ = self.0.send(Event::Left);
    }
}

type Queue = Arc<Mutex<VecDeque<(usize, Transfer)>>>;
type Outcomes = Arc<Mutex<Vec<(usize, Outcome)>>>;

/// Fetches, and says how it went.
pub(super) fn run(args: FetchArgs) -> Result<ExitCode, Failure> {
    let to_stdout = args.output.as_deref() == Some(Path::new("-"));
    if to_stdout && args.urls.len() > 1 || args.upload.is_some() && args.urls.len() > 1 {
        return Err(Failure::usage("several URLs go neither to stdout nor with --upload: name one"));
    }
    let places = match (&args.output, &args.upload) {
        _ if to_stdout => Vec::new(),
        (None, Some(_)) => Vec::new(),
        (output, _) => places(&args.urls, output.as_deref()).map_err(|message| Failure::usage(&message))?,
    };
    if let Some(folder) =
        args.output.as_deref().filter(|path| path.as_os_str().as_encoded_bytes().ends_with(b"/"))
    {
        std::fs::create_dir_all(folder)
            .map_err(|error| Failure::other(&folder.display().to_string(), error))?;
    }
    let runtime =
        Runtime::builder().pollers(1).build().map_err(|error| Failure::other("cannot start", error))?;
    let client = Client::new(&runtime.handle(), settings(&args)?);
    let (urls, json, quiet) = (args.urls.clone(), args.json, args.quiet);
    let workers = usize::from(args.parallel).min(urls.len());
    let common = Arc::new(Common { args, client, runtime: runtime.handle(), progress: Progress::default() });
    let transfer = |(index, url): (usize, &Url)| {
        let target = match places.get(index) {
            Some(place) if place.is_straight() => Target::Straight(place.whole.clone()),
            Some(place) => Target::File(place.clone()),
            None if to_stdout => Target::Stdout,
            None => Target::Dropped,
        };
        (index, Transfer::new(common.clone(), url.clone(), target))
    };
    let queue: Queue = Arc::new(Mutex::new(urls.iter().enumerate().map(transfer).collect()));
    let outcomes = Outcomes::default();
    let (tell, told) = mpsc::channel();
    catch_interrupts(tell.clone()).map_err(|error| Failure::other("cannot catch signals", error))?;
    for _ in 0..workers {
        runtime.spawn(future(work(queue.clone(), outcomes.clone(), tell.clone()))).detach();
    }
    drop(tell);
    let mut said = Said { json, quiet, to_stdout, count: 0 };
    let bar = Bar::new(urls.len(), quiet || json);
    let all = watch((urls.len(), workers), bar, &common.progress, &outcomes, &mut said, &told);
    if !all {
        // What is being written goes to its file; nothing more is taken in.
        let _ = runtime.shutdown(STOP_PATIENCE);
    }
    let mut outcomes = std::mem::take(&mut *outcomes.lock().unwrap_or_else(PoisonError::into_inner));
    outcomes.sort_by_key(|(index, _)| *index);
    if !all {
        say_what_is_left(&outcomes, &urls, &places);
        return Ok(ExitCode::from(Kind::Interrupted.exit_status()));
    }
    let first = outcomes.iter().find_map(|(_, outcome)| outcome.failure.as_ref());
    Ok(first.map_or(ExitCode::SUCCESS, |failed| ExitCode::from(failed.kind.exit_status())))
}

fn settings(args: &FetchArgs) -> Result<ClientSettings, Failure> {
    let defaults = ClientSettings::default();
    let proxies = match args.proxy.as_deref() {
        Some("") => Proxies::none(),
        Some(url) => Proxies::all(url).map_err(|error| Failure::usage(&format!("--proxy: {error}")))?,
        None => defaults.proxies.clone(),
    };
    let budget = |name| args.total_rate.map(|rate| Budget::builder(name).rate(rate).build());
    let tls = match (&args.cacert, args.insecure) {
        (None, false) => None,
        (Some(path), _) => Some(ClientTls::builder().authorities(Pem::file(path))),
        (None, true) => Some(ClientTls::builder().danger_accept_any_certificate()),
    };
    let tls = tls.map(|tls| tls.alpn(["http/1.1"]).build()).transpose();
    Ok(ClientSettings {
        tls: tls.map_err(|error| Failure::other("TLS", error))?,
        tls_timeout: args.connect_timeout,
        max_connections: CONNECTIONS_MAX,
        dns_timeout: args.connect_timeout,
        connect_timeout: args.connect_timeout,
        first_byte_timeout: args.first_byte_timeout,
        next_byte_timeout: args.stall_timeout,
        max_redirects: args.max_redirs,
        max_retries: args.retry,
        proxies,
        spending: Spending {
            ingress_budget: budget("all downloads"),
            egress_budget: budget("all uploads"),
            ..Spending::default()
        },
        ..defaults
    })
}

/// Runs transfers until none is left.
async fn work(queue: Queue, outcomes: Outcomes, tell: mpsc::Sender<Event>) {
    let tell = Leaving(tell);
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    while let Some((index, transfer)) = next() {
        let outcome = transfer.run().await;
        outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((index, outcome));
        let _ = tell.0.send(Event::Ended);
    }
}

/// Draws, and says what became of each transfer as it ends, until all have. False: interrupted.
fn watch(
    (transfers, mut workers): (usize, usize),
    mut bar: Option<Bar>,
    progress: &Progress,
    outcomes: &Outcomes,
    said: &mut Said,
    told: &mpsc::Receiver<Event>,
) -> bool {
    let mut drawn = Instant::now();
    while said.count < transfers && workers > 0 {
        // Without a bar there is nothing to do before something happens.
        let event = match &bar {
            Some(_) => told.recv_timeout(DRAWN_EVERY.saturating_sub(drawn.elapsed())),
            None => told.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
        };
        if let (Some(bar), Ok(_)) = (&mut bar, &event) {
            bar.clear();
        }
        match event {
            Ok(Event::Ended) => {
                let outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                outcomes[said.count..].iter().for_each(|(_, outcome)| said.say(outcome));
            }
            Ok(Event::Left) => workers -= 1,
            Ok(Event::Interrupted) | Err(mpsc::RecvTimeoutError::Disconnected) => return false,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        if let Some(bar) = &mut bar {
            drawn = Instant::now();
            bar.draw(progress, drawn);
        }
    }
    if let Some(bar) = &mut bar {
        bar.clear();
    }
    // Less only where a worker failed.
    said.count == transfers
}

/// Says what became of transfers.
struct Said {
    json: bool,
    quiet: bool,
    to_stdout: bool,
    count: usize,
}

impl Said {
    fn say(&mut self, outcome: &Outcome) {
        self.count += 1;
        if self.json {
            let line = report::json(outcome);
            let written = match self.to_stdout {
                true => writeln!(std::io::stderr().lock(), "{line}"),
                false => writeln!(std::io::stdout().lock(), "{line}"),
            };
            if let Err(error) = written {
                log::warn!("a report could not be written: {error}");
            }
            return;
        }
        match &outcome.failure {
            Some(Failed { message, .. }) if self.quiet => eprintln!("tidegate: {}: {message}", outcome.url),
            None if self.quiet => {}
            // Where nobody listens there is nobody to tell that.
            _ => drop(write!(std::io::stderr().lock(), "{}", report::text(outcome))),
        }
    }
}

fn say_what_is_left(outcomes: &[(usize, Outcome)], urls: &[Url], places: &[Place]) {
    for (index, url) in urls.iter().enumerate() {
        if outcomes.iter().any(|(over, outcome)| *over == index && outcome.failure.is_none()) {
            continue;
        }
        let left = places.get(index).filter(|place| !place.is_straight()).map(|place| {
            place.abandon_if_empty();
            (place.left(url), place.part())
        });
        let kept = match left {
            Some((Some(left), part)) => {
                format!(": {} bytes are kept in {}: go on with --resume", left.bytes, part.display())
            }
            Some((None, _)) => ": nothing is kept".to_owned(),
            None => String::new(),
        };
        // Where nobody listens there is nobody to tell that.
        let _ = writeln!(std::io::stderr().lock(), "tidegate: interrupted: {url}{kept}");
    }
}

/// INT and TERM are told here; a second one ends the program at once.
fn catch_interrupts(tell: mpsc::Sender<Event>) -> std::io::Result<()> {
    // Where files may not grow any further, a write is to fail and not the program.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("tidegate-signals".into()).spawn(move || {
        for (count, _) in signals.forever().enumerate() {
            let _ = tell.send(Event::Interrupted);
            if count > 0 {
                std::process::exit(i32::from(Kind::Interrupted.exit_status()));
            }
        }
    })?;
    Ok(())
}
