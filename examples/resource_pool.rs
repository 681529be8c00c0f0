//! A few connections, shared by many tasks: first come, first served, and nobody has to wait for ever.
//!
//! The connections are made up; each call through one takes 20 ms.
//!
//! ```text
//! cargo run --example resource_pool
//! ```

mod help;

use std::time::{Duration, Instant};

use tidegate::runtime::Runtime;
use tidegate::task::{Error, Parallel, Pool, Pooled, Series, sleep};

/// What is scarce.
#[derive(Debug)]
struct Connection {
    name: &'static str,
    calls: u32,
}

/// What belongs to one job.
struct Job {
    number: u32,
    connection: Option<Pooled<Connection>>,
}

const CALL: Duration = Duration::from_millis(20);

fn main() -> Result<(), Error> {
    if help::is_asked(include_str!("resource_pool.rs")) {
        return Ok(());
    }
    let runtime = Runtime::new()?;
    let names = ["left", "right"];
    let connections = Pool::new(names.map(|name| Connection { name, calls: 0 }));
    let started = Instant::now();
    let tell = move |what: String| println!("{:>3} ms: {what}", started.elapsed().as_millis());

    let jobs: Parallel<_> = (1..=6).map(|number| job(number, &connections, tell)).collect();
    println!("six jobs, {} connections", connections.available());
    for ended in runtime.run(jobs)? {
        let job = ended?.into_result()?;
        assert!(job.connection.is_none(), "job {} has given it back", job.number);
    }

    // Two jobs that hold what there is, and one that will not wait for longer than 30 ms.
    let held = [runtime.run(connections.get())?, runtime.run(connections.get())?];
    let impatient =
        Series::new(()).then(connections.get_within(Duration::from_millis(30)), |connection, _| {
            match connection {
                Ok(connection) => println!("within 30 ms: {}", connection.name),
                // `?` would end the series here, with `late` for its error.
                Err(late) => println!("within 30 ms: {late}"),
            }
            Ok(())
        });
    runtime.run(impatient)?.into_result()?;

    // One is broken: it is taken out for good, and a new one put in its place. The other goes back.
    let [broken, healthy] = held;
    drop(healthy);
    println!("replaced: {:?}", Pooled::into_inner(broken));
    connections.add(Connection { name: "new", calls: 0 });
    println!("{} to be had", connections.available());
    Ok(())
}

/// Gets a connection, calls through it, and gives it back before it does anything else.
fn job(
    number: u32,
    connections: &Pool<Connection>,
    tell: impl Fn(String) + Copy + Send + 'static,
) -> Series<Job> {
    Series::new(Job { number, connection: None })
        .then(connections.get(), move |connection, job| {
            tell(format!("job {number} has {}", connection.name));
            job.context.connection = Some(connection);
            Ok(())
        })
        .then(sleep(CALL), |(), job| {
            if let Some(mut connection) = job.context.connection.take() {
                connection.calls += 1;
            }
            Ok(())
        })
        .then(sleep(CALL), |(), _| Ok(()))
}
