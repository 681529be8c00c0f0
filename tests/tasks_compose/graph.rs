//! Tasks along edges.

use std::sync::{Arc, Mutex, mpsc};

use tidegate::task::{BoxTask, Graph, NodeId, SeriesError, TaskExt as _, WaitError, go, sleep};

use crate::runtime;
use crate::tasks::{AS_PLANNED, Census, Drops, LONG, Panics, Ready, Waits, receive, wait};

type Log = Arc<Mutex<Vec<u32>>>;

fn logs(log: &Log, n: u32) -> impl FnOnce(()) -> Result<(), tidegate::task::Error> + Send + 'static {
    let log = log.clone();
    move |()| {
        log.lock().unwrap().push(n);
        Ok(())
    }
}

#[test]
fn nodes_run_after_those_before_them() {
    let runtime = runtime();
    let log = Log::default();
    let mut graph = Graph::new();
    let n: Vec<NodeId> = (0..5).map(|n| graph.add(go(|| ()), logs(&log, n))).collect();
    // Twice is as good as once.
    graph.chain([n[4], n[1], n[3]]).chain([n[4], n[2], n[3]]).edge(n[3], n[0]).edge(n[3], n[0]);
    wait(runtime.spawn(graph.build().unwrap())).unwrap().unwrap();
    let log = log.lock().unwrap();
    assert_eq!((log[0], log[3], log[4]), (4, 3, 0));
    assert_eq!(log[1] + log[2], 3);
}

#[test]
fn what_can_run_at_the_same_time_does() {
    let runtime = runtime();
    let mut graph = Graph::new();
    let (tell, waits) = mpsc::channel();
    let middle: Vec<_> = (0..10).map(|_| graph.add(Waits(tell.clone()), |()| Ok(()))).collect();
    let (first, last) = (graph.add(Ready(()), Ok), graph.add(Ready(()), Ok));
    for node in middle {
        graph.chain([first, node, last]);
    }
    let handle = runtime.spawn(graph.build().unwrap());
    let places: Vec<_> = (0..10).map(|_| receive(&waits)).collect();
    for place in places {
        place.complete(()).unwrap();
    }
    wait(handle).unwrap().unwrap();
}

#[test]
fn cycles_are_refused_and_named() {
    let mut graph = Graph::new();
    let n: Vec<NodeId> = (0..6).map(|_| graph.add(Ready(()), Ok)).collect();
    graph.chain([n[0], n[1], n[2], n[3], n[4]]).edge(n[3], n[1]).edge(n[2], n[5]);
    let cycle = graph.build().unwrap_err();
    assert_eq!(cycle.nodes.len(), 3);
    let start = cycle.nodes.iter().position(|node| *node == n[1]).unwrap();
    let mut nodes = cycle.nodes.clone();
    nodes.rotate_left(start);
    assert_eq!(nodes, [n[1], n[2], n[3]]);
    assert!(cycle.to_string().starts_with("nodes of a graph wait for each other: "), "{cycle}");

    let mut graph = Graph::new();
    let node = graph.add(Ready(()), Ok);
    graph.edge(node, node);
    assert_eq!(graph.build().unwrap_err().nodes, [node]);
}

#[test]
#[should_panic(expected = "a node of another graph")]
fn a_node_of_another_graph_is_refused() {
    let (mut one, mut other) = (Graph::new(), Graph::new());
    let (a, b) = (one.add(Ready(()), Ok), other.add(Ready(()), Ok));
    one.edge(a, b);
}

#[test]
fn an_empty_graph_is_done_at_once() {
    assert!(Graph::new().is_empty());
    runtime().run(Graph::new().build().unwrap()).unwrap().unwrap();
}

#[test]
fn the_first_error_stops_the_graph() {
    let runtime = runtime();
    let census = Census::default();
    let mut graph = Graph::new();
    let (task, waits) = Waits::<()>::new();
    let life = census.life();
    graph.add(task, move |()| {
        drop(life);
        panic!("it is cancelled")
    });
    let (fails, waits_to_fail) = Waits::<()>::new();
    let failing = graph.add(fails, |()| Err("it went wrong".into()));
    let life = census.life();
    let behind = graph.add(Ready(()), move |()| {
        drop(life);
        panic!("it does not start")
    });
    graph.edge(failing, behind);
    let handle = runtime.spawn(graph.build().unwrap());
    let place = receive(&waits);
    receive(&waits_to_fail).complete(()).unwrap();
    let failed = wait(handle).unwrap().unwrap_err();
    assert_eq!(failed.node, failing);
    assert_eq!(failed.to_string(), "node 1 of a graph: it went wrong");
    assert!(!place.is_waiting());
    assert_eq!(census.alive(), 0);
}

#[test]
fn panics_and_drops_of_nodes_are_told_apart() {
    let runtime = runtime();
    let alone = |task: BoxTask<u32>, panics: bool| {
        let mut graph = Graph::new();
        graph.add(task, move |_| {
            assert!(!panics, "{AS_PLANNED}");
            Ok(())
        });
        wait(runtime.spawn(graph.build().unwrap())).unwrap().map_err(|failed| failed.error)
    };
    assert!(matches!(alone(Drops.boxed(), false), Err(SeriesError::Aborted)));
    assert!(matches!(alone(Panics.boxed(), false), Err(SeriesError::Panicked)));
    assert!(matches!(alone(Ready(1).boxed(), true), Err(SeriesError::Panicked)));
    assert!(matches!(alone(go(|| panic!("{AS_PLANNED}")).boxed(), true), Err(SeriesError::Panicked)));
    assert!(alone(Ready(1).boxed(), false).is_ok());
}

#[test]
fn cancelling_a_graph_cancels_what_runs_and_drops_the_rest() {
    let runtime = runtime();
    let census = Census::default();
    let mut graph = Graph::new();
    let (tell, waits) = mpsc::channel();
    for _ in 0..4 {
        let (one, other) = (census.life(), census.life());
        let node = graph.add(Waits::<()>(tell.clone()), move |()| {
            drop(one);
            Ok(())
        });
        let behind = graph.add(Ready(()), move |()| {
            drop(other);
            Ok(())
        });
        graph.edge(node, behind);
    }
    let handle = runtime.spawn(graph.build().unwrap());
    let places: Vec<_> = (0..4).map(|_| receive(&waits)).collect();
    handle.cancel();
    assert!(places.iter().all(|place| !place.is_waiting()));
    assert!(matches!(wait(handle), Err(WaitError::Dropped)));
    assert_eq!(census.alive(), 0);
}

#[test]
fn a_runtime_that_is_dropped_drops_a_graph() {
    let dropped = runtime();
    let mut graph = Graph::new();
    let (tell, waits) = mpsc::channel();
    let a = graph.add(Waits::<()>(tell.clone()), Ok);
    let b = graph.add(Waits::<()>(tell), Ok);
    let c = graph.add(sleep(LONG), Ok);
    graph.edge(a, b).edge(c, b);
    let handle = dropped.spawn(graph.build().unwrap());
    let _place = receive(&waits);
    drop(dropped);
    let ended = wait(handle);
    assert!(matches!(ended, Err(WaitError::Dropped)), "{ended:?}");
}
