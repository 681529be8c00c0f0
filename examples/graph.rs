//! Builds a program that does not exist, in the order of what needs what.
//!
//! ```text
//! cargo run --example graph
//! ```

mod help;

use std::time::{Duration, Instant};

use tidegate::runtime::Runtime;
use tidegate::task::{Error, Graph, NodeId, sleep};

fn main() -> Result<(), Error> {
    if help::is_asked(include_str!("graph.rs")) {
        return Ok(());
    }
    let runtime = Runtime::new()?;
    let mut build = Build::new();

    let config = build.step("write config.h", 20);
    let parser = build.step("compile parser.c", 40);
    let engine = build.step("compile engine.c", 60);
    let manual = build.step("typeset the manual", 50);
    let link = build.step("link", 20);
    let test = build.step("test", 30);
    let pack = build.step("pack", 10);
    build.graph.chain([config, parser, link, test, pack]);
    build.graph.chain([config, engine, link]);
    build.graph.edge(manual, pack);

    let (started, alone) = (Instant::now(), build.alone);
    runtime.run(build.graph.build()?)??;
    let took = started.elapsed().as_millis();
    println!("{} ms of work in {took} ms", alone.as_millis());

    // Nodes that wait for each other are found before anything runs.
    let mut build = Build::new();
    let (egg, hen) = (build.step("egg", 1), build.step("hen", 1));
    build.graph.chain([egg, hen, egg]);
    if let Err(cycle) = build.graph.build() {
        println!("refused: {cycle}");
    }

    // A node that fails stops the graph: what has not begun is dropped.
    let mut build = Build::new();
    let compile = build.graph.add(sleep(Duration::from_millis(1)), |()| Err("a semicolon is missing".into()));
    let link = build.step("link", 1);
    build.graph.edge(compile, link);
    if let Err(error) = runtime.run(build.graph.build()?)? {
        println!("stopped: {error}");
    }
    Ok(())
}

/// A graph whose nodes say when they are done.
struct Build {
    graph: Graph,
    started: Instant,
    /// How long all steps would take one after another.
    alone: Duration,
}

impl Build {
    fn new() -> Build {
        Build { graph: Graph::new(), started: Instant::now(), alone: Duration::ZERO }
    }

    /// A timer stands for the work; any task will do.
    fn step(&mut self, name: &'static str, millis: u64) -> NodeId {
        let (time, started) = (Duration::from_millis(millis), self.started);
        self.alone += time;
        self.graph.add(sleep(time), move |()| {
            println!("{:>3} ms: {name}", started.elapsed().as_millis());
            Ok(())
        })
    }
}
