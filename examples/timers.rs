//! Timers: one after another, side by side, cancelled, and ticks that do not drift.
//!
//! ```text
//! cargo run --example timers
//! ```

mod help;

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use tidegate::runtime::Runtime;
use tidegate::task::{Error, Parallel, Series, Ticks, sleep};

fn main() -> Result<(), Error> {
    if help::is_asked(include_str!("timers.rs")) {
        return Ok(());
    }
    let runtime = Runtime::new()?;
    let ms = Duration::from_millis;
    let started = Instant::now();
    let tell = move |what: &str| println!("{:>4} ms: {what}", started.elapsed().as_millis());

    let steps = Series::new(())
        .then(sleep(ms(30)), move |(), _| {
            tell("one timer");
            Ok(())
        })
        .then(sleep(ms(30)), move |(), _| {
            tell("and another after it");
            Ok(())
        });
    runtime.run(steps)?.into_result()?;

    let timers: Parallel<_> = (0..10_000).map(|n| sleep(ms(n % 50))).collect();
    let count = runtime.run(timers)?.len();
    tell(&format!("{count} timers side by side"));

    let long = Series::new("its context").then(sleep(Duration::from_secs(3_600)), |(), _| Ok(()));
    let long = runtime.start(long.finally(move |outcome, _| {
        if let Err(error) = outcome {
            tell(&format!("an hour is over early: {error}"));
        }
    }));
    long.cancel();
    tell(&format!("and gave back {:?}", long.wait()?.context));

    // The third one takes longer than an interval. The next ticks are at their moments all the same.
    let ticks = Ticks::every(ms(20)).for_each(move |tick| {
        tell(&format!("tick {}, {} missed before it", tick.number, tick.missed));
        if tick.number == 3 {
            std::thread::sleep(ms(50));
        }
        if tick.number < 8 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    let ticks = runtime.run(ticks)?.into_result()?;
    println!("{} ticks, {} missed", ticks.asked(), ticks.missed());
    Ok(())
}
