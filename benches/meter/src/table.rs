//! Runs the cases of the table: contestants in turn, several times over, and prints what came of it.

mod drawings;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use crate::account::Account;
use crate::cases::{self, Bench, Case, Load, Ours, Peer};
use crate::report::{self, Group, Verdict};
use crate::servers::{self, Server};
use crate::{account, sys};

/// What to run and where to put it.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// The cases to run, by name or a part of it; all by default
    #[arg(value_name = "CASE")]
    pub cases: Vec<String>,
    /// List the cases and stop
    #[arg(long)]
    pub list: bool,
    /// Short windows and one run of each: shows that everything works; the figures mean little
    #[arg(long)]
    pub quick: bool,
    /// How often each contestant is run
    #[arg(long, value_name = "N")]
    pub repeats: Option<usize>,
    /// Run only contestants with this in their name: `nginx`, `tidegate`
    #[arg(long, value_name = "NAME")]
    pub only: Option<String>,
    /// A further argument for `tidegate serve`, for trying things out; may be given several times
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub serve_arg: Vec<String>,
    /// Write all samples to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the tables to this file as well
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Write plots of single downloads to this folder
    #[arg(long, value_name = "DIR")]
    pub plots: Option<PathBuf>,
    /// Given by cargo; without meaning
    #[arg(long, hide = true)]
    pub bench: bool,
}

/// Cases that belong together, and the bench that runs them.
#[derive(Clone, Copy, Debug)]
pub struct Suite {
    /// The bench.
    pub name: &'static str,
    /// Its cases.
    pub cases: &'static [Case],
}

/// `tidegate serve`.
pub const SERVE: Suite = Suite { name: "end_to_end", cases: cases::SERVE };
/// The HTTP server.
pub const HTTP: Suite = Suite { name: "http", cases: cases::HTTP };

/// Where the programs are.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    /// `tidegate`.
    pub tidegate: PathBuf,
    /// The example `hello`.
    pub hello: PathBuf,
    /// The hello server on hyper.
    pub hyper: PathBuf,
}

/// Runs the table. `data` is a folder for the files that are served, kept for the next time.
pub fn run(suite: &Suite, options: &Options, programs: &Programs, data: &Path) -> ExitCode {
    if let Some(error) = servers::become_it_if_told() {
        eprintln!("server: {error}");
        return ExitCode::FAILURE;
    }
    let selected: Vec<&Case> = suite.cases.iter().filter(|case| options.selects(suite, case)).collect();
    if options.list {
        for case in &selected {
            println!("{:14} {}", case.name, case.title);
        }
        return ExitCode::SUCCESS;
    }
    match run_selected(suite, options, &selected, programs, data) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("meter: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Options {
    fn selects(&self, suite: &Suite, case: &Case) -> bool {
        // A whole name means that case alone: `1x1MB` is also a part of `1x1MB-something`.
        let by_name = |name: &String| suite.cases.iter().any(|case| case.name == name);
        self.cases.is_empty()
            || self
                .cases
                .iter()
                .any(|name| case.name == name || (!by_name(name) && case.name.contains(name.as_str())))
    }

    fn contestants(&self, case: &Case, programs: &Programs) -> Vec<(String, Server)> {
        let mut all = Vec::new();
        for (label, arguments) in case.variants {
            let arguments = arguments.iter().map(|&argument| argument.to_owned());
            all.push(((*label).to_owned(), self.ours(case.ours, arguments, programs)));
        }
        all.extend(case.peers.iter().map(|&peer| match peer {
            Peer::Bare(ms) => (format!("bare loop, {ms} ms"), bare(case, ms)),
            Peer::Raw => ("raw epoll".to_owned(), Server::Raw),
            Peer::Nginx => ("nginx".to_owned(), Server::Nginx),
            Peer::Hyper => {
                let (program, arguments) = (programs.hyper.clone(), Vec::new());
                ("hyper".to_owned(), Server::Program { name: "hyper", program, arguments })
            }
        }));
        all.retain(|(label, _)| self.only.as_ref().is_none_or(|only| label.contains(only.as_str())));
        all
    }

    fn ours(&self, ours: Ours, arguments: impl Iterator<Item = String>, programs: &Programs) -> Server {
        match ours {
            Ours::Serve => Server::Tidegate {
                program: programs.tidegate.clone(),
                arguments: arguments.chain(self.serve_arg.iter().cloned()).collect(),
            },
            Ours::Hello => Server::Program {
                name: "hello",
                program: programs.hello.clone(),
                arguments: ["--pollers", "1", "--listen", "127.0.0.1:0"]
                    .map(str::to_owned)
                    .into_iter()
                    .chain(arguments)
                    .collect(),
            },
        }
    }

    fn repeats(&self) -> usize {
        self.repeats.unwrap_or(if self.quick { 1 } else { 3 })
    }
}

/// How busy the busier of the two CPUs is while we do nothing.
fn busy_with_others(bench: &Bench) -> io::Result<f64> {
    let before = Account::read(&[])?;
    std::thread::sleep(LOOK_FOR_OTHERS);
    let spent = Account::read(&[])?.since(&before, bench.server_cpu, bench.client_cpu);
    Ok(spent.cpu_busy.max(spent.client_cpu_busy))
}

fn bare(case: &Case, ms: u64) -> Server {
    let connections = match case.load {
        Load::Paced { connections, .. } => connections,
        _ => 1,
    };
    Server::Bare { connections, interval: Duration::from_millis(ms) }
}

/// True when every run of every case worked, reached or not.
fn run_selected(
    suite: &Suite,
    options: &Options,
    selected: &[&Case],
    programs: &Programs,
    data: &Path,
) -> io::Result<bool> {
    if selected.is_empty() {
        return Err(io::Error::other(format!(
            "no such case: {}; --list shows them",
            options.cases.join(", ")
        )));
    }
    sys::catch_stop()?;
    sys::raise_open_files();
    let cpus = sys::allowed_cpus();
    let (server_cpu, client_cpu) = (cpus[0], *cpus.last().unwrap_or(&cpus[0]));
    fs::create_dir_all(data)?;
    // The servers read paths from where they are, not from where we are.
    let data = data.canonicalize()?;
    eprintln!("preparing {}", data.display());
    let bench = Bench { data, server_cpu, client_cpu, quick: options.quick };
    bench.prepare(selected)?;

    let others = busy_with_others(&bench)?;
    if others > OTHERS_MAX {
        eprintln!(
            "something else runs here, and takes {:.0} % of a CPU: the figures mean little",
            others * 100.0
        );
    }
    let mut report = head(suite, options, &bench, programs, others);
    println!("{report}");
    let mut all_worked = true;
    let mut verdicts = Vec::new();
    let mut results = Vec::new();
    let mut drawn = Vec::new();
    for case in selected {
        let (groups, worked) = run_case(options, &bench, case, programs)?;
        all_worked &= worked;
        if groups.is_empty() {
            continue;
        }
        let table = report::table(case, &groups);
        println!("{table}");
        report += &format!("{table}\n");
        verdicts.extend(report::verdicts(case, &groups));
        results.push(report::json(case, &groups));
        drawn.push((*case, groups));
    }
    if let Some(folder) = &options.plots {
        drawings::draw(folder, &drawn)?;
    }
    let reached = reached(&verdicts);
    println!("{reached}");
    report += &reached;
    write(options.markdown.as_deref(), &report)?;
    let all = json!({ "machine": account::machine(), "quick": options.quick, "cases": results });
    write(options.json.as_deref(), &format!("{all:#}\n"))?;
    Ok(all_worked)
}

fn run_case(
    options: &Options,
    bench: &Bench,
    case: &Case,
    programs: &Programs,
) -> io::Result<(Vec<Group>, bool)> {
    let contestants = options.contestants(case, programs);
    // By contestant first: the rows of one stay together even if its first run fails.
    let mut samples: BTreeMap<usize, Vec<cases::Sample>> = BTreeMap::new();
    let mut worked = true;
    for repeat in 1..=options.repeats() {
        for (nth, (label, server)) in contestants.iter().enumerate() {
            eprint!("{}: {label}, run {repeat} of {} …", case.name, options.repeats());
            let start = Instant::now();
            match case.run(bench, server, label) {
                Ok(new) => {
                    eprintln!(" {:.0} s{}", start.elapsed().as_secs_f64(), hint(&new));
                    samples.entry(nth).or_default().extend(new);
                }
                Err(error) if sys::stop_asked() => return Err(error),
                Err(error) => {
                    eprintln!(" FAILED: {error}");
                    worked = false;
                }
            }
        }
    }
    Ok((report::groups(samples.into_values().flatten().collect()), worked))
}

/// A few figures beside the progress.
fn hint(samples: &[cases::Sample]) -> String {
    let mut out = String::new();
    for sample in samples {
        out += if samples.len() > 1 { "\n   " } else { "," };
        for name in HINTS {
            if let Some(&value) = sample.figures.get(name).filter(|&&value| value > 0.0) {
                out += &format!(" {name} {}", report::number(value));
            }
        }
    }
    out
}

fn head(suite: &Suite, options: &Options, bench: &Bench, programs: &Programs, others: f64) -> String {
    let version = |server: Server| server.version().unwrap_or_else(|error| error.to_string());
    let ours = version(Server::Tidegate { program: programs.tidegate.clone(), arguments: Vec::new() });
    let quick = if options.quick { " Quick run: the figures mean little." } else { "" };
    format!(
        "{}, its busier CPU {:.0} % busy before the start. Server on CPU {}, client on CPU {}. {ours} beside {}. Contestants in turn, {} runs of each: medians \
         (least-most); bursts, gaps and the client's stall: the best run.{quick}\n\n\
         Made by `cargo bench --bench {}`.\n",
        account::machine(),
        others * 100.0,
        bench.server_cpu,
        bench.client_cpu,
        version(Server::Nginx),
        options.repeats(),
        suite.name
    )
}

fn reached(verdicts: &[Verdict]) -> String {
    let missed = verdicts.iter().filter(|verdict| verdict.met == Some(false)).count();
    let met = verdicts.iter().filter(|verdict| verdict.met == Some(true)).count();
    format!(
        "### Reached: {met} of {}, missed: {missed}\n\n{}",
        verdicts.len(),
        report::verdict_table(verdicts)
    )
}

fn write(path: Option<&Path>, text: &str) -> io::Result<()> {
    match path {
        Some(path) => {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(path, text)
        }
        None => Ok(()),
    }
}

/// A machine that does nothing else is busy with less.
const OTHERS_MAX: f64 = 0.1;
/// Counted in ticks of 10 ms.
const LOOK_FOR_OTHERS: Duration = Duration::from_millis(500);
const HINTS: [&str; 11] = [
    "requests_per_cpu_s",
    "p99_ms",
    "ratio_p50",
    "burst_100ms_p99",
    "gap_max_ms",
    "kept_p99_ms",
    "fresh_p99_ms",
    "mb_per_s",
    "anon_per_connection",
    "cpu_us_per_read",
    "cpu_s_per_gb",
];
