//! Timeouts, graphs, selections and repetitions: done, failed, late, cancelled before, meanwhile and after, and with
//! the runtime dropped under them.

mod graph;
mod nest;
mod repeat;
mod select;
#[path = "../tasks/mod.rs"]
mod tasks;
mod timeout;

use std::time::Duration;

use tidegate::runtime::Runtime;

const SHORT: Duration = Duration::from_millis(2);

fn runtime() -> Runtime {
    tasks::silence_planned_panics();
    Runtime::builder().pollers(2).compute_threads(2).build().unwrap()
}
