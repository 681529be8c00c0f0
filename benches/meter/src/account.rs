//! The kernel's accounts of a process and of the CPUs, read from `/proc`.
//!
//! CPU time of a process is summed over its threads in nanoseconds (`schedstat`). Threads that ended in between
//! are missing from that sum; the process's own total has them, in ticks of 10 ms: the greater of both counts.

use std::fs;
use std::io;
use std::path::Path;

/// What is counted at one moment. Two of them make a [`Spent`].
#[derive(Clone, Debug)]
pub struct Account {
    process_ns: u64,
    cpus: Vec<Ticks>,
}

/// What was used between two moments.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spent {
    /// CPU time of the processes, in seconds.
    pub process_seconds: f64,
    /// Share of time the server's CPU was busy, whoever kept it so, interrupts included.
    pub cpu_busy: f64,
    /// Share of time the host took the server's CPU away.
    pub cpu_steal: f64,
    /// Share of time the client's CPU was busy.
    pub client_cpu_busy: f64,
    /// Share of time the host took the client's CPU away.
    pub client_cpu_steal: f64,
}

/// Memory of processes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident, files included.
    pub rss: u64,
    /// Resident and of its own: heap and stacks.
    pub anonymous: u64,
}

impl Account {
    /// Reads the accounts of some processes and of all CPUs.
    pub fn read(pids: &[u32]) -> io::Result<Account> {
        let process_ns = pids.iter().map(|&pid| process_ns(pid)).sum::<io::Result<u64>>()?;
        let cpus = parse_cpus(&fs::read_to_string("/proc/stat")?);
        Ok(Account { process_ns, cpus })
    }

    /// What was used since `before`. Where server and client share a CPU, both shares are that CPU's.
    pub fn since(&self, before: &Account, server_cpu: usize, client_cpu: usize) -> Spent {
        let share = |cpu: usize| match (self.cpus.get(cpu), before.cpus.get(cpu)) {
            (Some(now), Some(then)) => now.shares_since(then),
            _ => (0.0, 0.0),
        };
        let (cpu_busy, cpu_steal) = share(server_cpu);
        let (client_cpu_busy, client_cpu_steal) = share(client_cpu);
        Spent {
            process_seconds: self.process_ns.saturating_sub(before.process_ns) as f64 / 1e9,
            cpu_busy,
            cpu_steal,
            client_cpu_busy,
            client_cpu_steal,
        }
    }
}

impl Memory {
    /// The sum over some processes.
    pub fn read(pids: &[u32]) -> io::Result<Memory> {
        let mut sum = Memory::default();
        for pid in pids {
            let text = read_named(&format!("/proc/{pid}/smaps_rollup"))?;
            sum.rss += kilobytes(&text, "Rss:") * 1024;
            sum.anonymous += kilobytes(&text, "Anonymous:") * 1024;
        }
        Ok(sum)
    }
}

/// A process and all that came of it.
pub fn process_tree(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        next += 1;
        for task in list(&format!("/proc/{parent}/task")) {
            let children =
                fs::read_to_string(format!("/proc/{parent}/task/{task}/children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    found
}

/// How many descriptors a process has open.
pub fn open_files(pid: u32) -> usize {
    list(&format!("/proc/{pid}/fd")).len()
}

/// The machine in a few words: CPU, kernel, congestion control.
pub fn machine() -> String {
    let one = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let cpus = one("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    format!(
        "{count} × {}, Linux {}, congestion control {}",
        model.map_or("unknown CPU", |(_, name)| name),
        one("/proc/sys/kernel/osrelease"),
        one("/proc/sys/net/ipv4/tcp_congestion_control")
    )
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    steal: u64,
    all: u64,
}

impl Ticks {
    /// Busy and stolen shares of the time since `then`.
    fn shares_since(&self, then: &Ticks) -> (f64, f64) {
        let all = (self.all - then.all).max(1) as f64;
        ((self.busy - then.busy) as f64 / all, (self.steal - then.steal) as f64 / all)
    }
}

fn process_ns(pid: u32) -> io::Result<u64> {
    let mut threads = 0;
    for task in list(&format!("/proc/{pid}/task")) {
        // A thread may end between the listing and this: its time is then in the process's total only.
        if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/task/{task}/schedstat")) {
            threads += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or_default();
        }
    }
    let stat = read_named(&format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may hold anything: what counts starts after the last one. utime and stime are the
    // 14th and 15th fields of the line, the 12th and 13th after the name.
    let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
    let ticks: u64 = after.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(threads.max(ticks * TICK_NS))
}

fn parse_cpus(stat: &str) -> Vec<Ticks> {
    let mut cpus = Vec::new();
    for line in stat.lines() {
        let mut fields = line.split_whitespace();
        let Some(nth) = fields.next().and_then(|name| name.strip_prefix("cpu")?.parse::<usize>().ok()) else {
            continue;
        };
        // user nice system idle iowait irq softirq steal; guest times are in user's already
        let n: Vec<u64> = fields.take(8).filter_map(|field| field.parse().ok()).collect();
        let [user, nice, system, idle, iowait, irq, softirq, steal] = n[..] else { continue };
        let busy = user + nice + system + irq + softirq;
        cpus.resize(cpus.len().max(nth + 1), Ticks::default());
        cpus[nth] = Ticks { busy, steal, all: busy + idle + iowait + steal };
    }
    cpus
}

fn kilobytes(text: &str, field: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}

fn list(folder: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(Path::new(folder)) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn read_named(path: &str) -> io::Result<String> {
    fs::read_to_string(path).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}

/// `USER_HZ`, which Linux has fixed at 100 for what it shows in `/proc`.
const TICK_NS: u64 = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn cpu_lines() {
        let cpus =
            parse_cpus("cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 100 5 6 7 8 0 0\ncpu1 0 0 0 9 0 0 0 0\nintr 5");
        assert_eq!(cpus[0], Ticks { busy: 19, steal: 8, all: 132 });
        assert_eq!(cpus[1], Ticks { busy: 0, steal: 0, all: 9 });
    }

    #[test]
    fn our_own_work_is_on_the_account() {
        let me = [std::process::id()];
        let before = Account::read(&me).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        // However little of the CPU others leave to us.
        while Account::read(&me).unwrap().since(&before, 0, 0).process_seconds < 0.005 {
            assert!(Instant::now() < deadline, "we worked, and it is not on the account");
        }
        let memory = Memory::read(&me).unwrap();
        assert!(memory.anonymous > 0 && memory.rss > memory.anonymous, "{memory:?}");
    }

    #[test]
    fn the_tree_has_the_child() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let tree = process_tree(std::process::id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(tree.contains(&child.id()), "{tree:?}");
    }
}
