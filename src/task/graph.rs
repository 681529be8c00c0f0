//! Tasks along the edges of a graph.
//!
//! A [`Graph`] is drawn, then built into a [`GraphTask`], which has no cycle. Each node is one box, made when it is
//! added: it holds the task, then what came of it. Which nodes wait for how many others is under one lock, which is never
//! held while anything is started, called or dropped.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use super::Task;
use super::child::start_child;
use super::continuation::{Continuation, Receiver};
use super::outcome::{Error, SeriesError};
use super::token::Token;
use crate::runtime::RuntimeHandle;
use crate::runtime::work::{self, Receive};
use crate::sync::{Mutex, MutexGuard};

/// Tasks, and which of them come before which.
///
/// A node is a task of any kind, and what to do with what comes of it. It starts as soon as all nodes with an edge to it
/// are done, their callbacks included; all that can run at the same time does, so callbacks of nodes with no path between them may
/// run at the same time, on different threads. What nodes hand to each other goes through what their callbacks share.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use tidegate::runtime::Runtime;
/// use tidegate::task::{Graph, go};
///
/// let runtime = Runtime::new()?;
/// let words = Arc::new(Mutex::new(Vec::new()));
/// let mut graph = Graph::new();
/// let mut say = |word| {
///     let words = words.clone();
///     graph.add(go(move || word), move |word| {
///         words.lock().unwrap().push(word);
///         Ok(())
///     })
/// };
/// let (left, right) = (say("left"), say("right"));
/// let (first, last) = (say("first"), say("last"));
/// graph.chain([first, left, last]).chain([first, right, last]);
/// runtime.run(graph.build()?)??;
/// let words = words.lock().unwrap();
/// assert_eq!((words[0], words[3]), ("first", "last"));
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
pub struct Graph {
    /// Tells its nodes from those of others.
    id: u64,
    nodes: Vec<Box<dyn Node>>,
    edges: Vec<(u32, u32)>,
}

/// A node of a [`Graph`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    graph: u64,
    index: u32,
}

/// Nodes that wait for each other: each for the one before it, and the first for the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cycle {
    /// The nodes on it, in the order of the edges.
    pub nodes: Vec<NodeId>,
}

/// A graph without a cycle: a task, whose output says whether all nodes went well.
///
/// The first error stops it: nodes that have not started are dropped, those that run are cancelled, and when they are over,
/// it is done. So it is when it is cancelled.
#[must_use = "a task does nothing until it is started"]
pub struct GraphTask {
    id: u64,
    nodes: Vec<Option<Box<dyn Node>>>,
    after: Vec<Vec<u32>>,
    waiting: Vec<u32>,
}

/// A node of a graph went wrong.
#[derive(Debug)]
pub struct GraphError {
    /// The first node that did.
    pub node: NodeId,
    /// What happened: its callback failed, it or its task panicked, or its task was dropped before it was done.
    pub error: SeriesError,
}

/// Graphs are told apart only so that a node of another one is found out.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Graph {
    /// No nodes yet.
    pub fn new() -> Graph {
        Graph { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), nodes: Vec::new(), edges: Vec::new() }
    }

    /// Adds a node: a task, and what to do with what comes of it. An error stops the graph.
    pub fn add<T: Task>(
        &mut self,
        task: T,
        callback: impl FnOnce(T::Output) -> Result<(), Error> + Send + 'static,
    ) -> NodeId {
        let index = u32::try_from(self.nodes.len()).expect("memory ends before 4,294,967,296 nodes");
        self.nodes.push(Box::new(TaskNode { state: NodeState::Task(task), callback }));
        NodeId { graph: self.id, index }
    }

    /// Has `to` start only when `from` is done. Said more than once, it is as good as said once.
    ///
    /// # Panics
    ///
    /// If one of them is a node of another graph.
    pub fn edge(&mut self, from: NodeId, to: NodeId) -> &mut Graph {
        assert!(from.graph == self.id && to.graph == self.id, "a node of another graph");
        self.edges.push((from.index, to.index));
        self
    }

    /// Adds an edge from each of these nodes to the next.
    ///
    /// # Panics
    ///
    /// If one of them is a node of another graph.
    pub fn chain(&mut self, nodes: impl IntoIterator<Item = NodeId>) -> &mut Graph {
        let mut nodes = nodes.into_iter();
        if let Some(mut from) = nodes.next() {
            for to in nodes {
                self.edge(from, to);
                from = to;
            }
        }
        self
    }

    /// How many nodes it has.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it has none; then it is done at once.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Makes a task of it, unless some nodes wait for each other. An edge from a node to itself is such a cycle.
    pub fn build(mut self) -> Result<GraphTask, Cycle> {
        self.edges.sort_unstable();
        self.edges.dedup();
        let mut after = vec![Vec::new(); self.nodes.len()];
        let mut waiting = vec![0; self.nodes.len()];
        for &(from, to) in &self.edges {
            after[from as usize].push(to);
            waiting[to as usize] += 1;
        }
        match find_cycle(&self.edges, &after, waiting.clone()) {
            Some(nodes) => Err(Cycle {
                nodes: nodes.into_iter().map(|index| NodeId { graph: self.id, index }).collect(),
            }),
            None => Ok(GraphTask {
                id: self.id,
                nodes: self.nodes.into_iter().map(Some).collect(),
                after,
                waiting,
            }),
        }
    }
}

/// Takes nodes that wait for nothing away until none is left, or only those on cycles and behind them.
fn find_cycle(edges: &[(u32, u32)], after: &[Vec<u32>], mut waiting: Vec<u32>) -> Option<Vec<u32>> {
    let mut free: VecDeque<u32> =
        (0..).zip(&waiting).filter(|(_, n)| **n == 0).map(|(index, _)| index).collect();
    while let Some(node) = free.pop_front() {
        for &next in &after[node as usize] {
            waiting[next as usize] -= 1;
            if waiting[next as usize] == 0 {
                free.push_back(next);
            }
        }
    }
    // Each of those that are left waits for another of them: going back along such edges ends in a circle.
    let mut before = vec![None; waiting.len()];
    for &(from, to) in edges {
        if waiting[from as usize] > 0 {
            before[to as usize] = Some(from);
        }
    }
    let mut node = (0..).zip(&waiting).find(|(_, n)| **n > 0)?.0;
    let mut seen = vec![false; waiting.len()];
    while !std::mem::replace(&mut seen[node as usize], true) {
        node = before[node as usize]?;
    }
    let first = node;
    let mut cycle = vec![first];
    loop {
        node = before[node as usize]?;
        if node == first {
            break;
        }
        cycle.push(node);
    }
    cycle.reverse();
    Some(cycle)
}

impl Default for Graph {
    fn default() -> Graph {
        Graph::new()
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph").field("nodes", &self.nodes.len()).field("edges", &self.edges).finish()
    }
}

impl fmt::Debug for GraphTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphTask").field("nodes", &self.nodes.len()).finish_non_exhaustive()
    }
}

impl NodeId {
    /// Its place among the nodes of its graph, in the order in which they were added, from zero.
    pub fn index(&self) -> usize {
        self.index as usize
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.index)
    }
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nodes of a graph wait for each other: ")?;
        for node in &self.nodes {
            write!(f, "{} → ", node.index)?;
        }
        self.nodes.first().map_or(Ok(()), |first| write!(f, "{}", first.index))
    }
}

impl std::error::Error for Cycle {}

impl fmt::Display for GraphError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} of a graph: ", self.node.index)?;
        match &self.error {
            SeriesError::Failed(error) => error.fmt(f),
            SeriesError::Cancelled => f.write_str("it was cancelled"),
            SeriesError::Panicked => f.write_str("its task or its callback panicked"),
            SeriesError::Aborted => f.write_str("its task was dropped before it was done"),
        }
    }
}

impl std::error::Error for GraphError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl Task for GraphTask {
    type Output = Result<(), GraphError>;

    fn dispatch(self, mut done: Continuation<Self::Output>) {
        let cancellation = done.cancellation();
        let count = self.nodes.len();
        let free: Vec<u32> =
            (0..).zip(&self.waiting).filter(|(_, n)| **n == 0).map(|(index, _)| index).collect();
        let live = Arc::new(Live {
            id: self.id,
            runtime: done.runtime().clone(),
            tokens: (0..count).map(|_| Arc::default()).collect(),
            after: self.after,
            state: Mutex::new(State {
                nodes: self.nodes,
                waiting: self.waiting,
                // One for this function, so that the graph is not over before all have started that can.
                running: 1,
                left: count,
                failed: None,
                done: Some(done),
            }),
        });
        if cancellation.is_possible() {
            let reached = Arc::downgrade(&live);
            cancellation.on_cancel(move || {
                if let Some(live) = reached.upgrade() {
                    live.cancel();
                }
            });
        }
        for index in free {
            let node = {
                let mut state = live.lock();
                let node = state.nodes.get_mut(index as usize).and_then(Option::take);
                state.running += usize::from(node.is_some());
                node
            };
            live.start(index, node);
        }
        live.leave();
    }
}

/// A graph that runs.
struct Live {
    id: u64,
    runtime: RuntimeHandle,
    /// One for each node.
    tokens: Box<[Arc<Token>]>,
    /// Which nodes come after each.
    after: Vec<Vec<u32>>,
    state: Mutex<State>,
}

struct State {
    /// Those that have not started; empty once the graph was stopped.
    nodes: Vec<Option<Box<dyn Node>>>,
    /// For how many others each of them still waits.
    waiting: Vec<u32>,
    /// Those that have started and are not over.
    running: usize,
    /// Those that are not done.
    left: usize,
    failed: Option<GraphError>,
    done: Option<Continuation<Result<(), GraphError>>>,
}

impl Live {
    fn start(self: &Arc<Live>, index: u32, node: Option<Box<dyn Node>>) {
        if let Some(node) = node {
            node.start(Ticket { live: self.clone(), index, over: false });
        }
    }

    /// A node is over.
    fn over(self: &Arc<Live>, index: u32, outcome: Result<(), SeriesError>) {
        match outcome {
            Ok(()) => {
                for (index, node) in self.next(index) {
                    self.start(index, Some(node));
                }
            }
            Err(error) => {
                let late = {
                    let mut state = self.lock();
                    match &state.failed {
                        Some(_) => Some(error),
                        None => {
                            state.failed = Some(GraphError { node: NodeId { graph: self.id, index }, error });
                            None
                        }
                    }
                };
                if late.is_none() {
                    self.stop();
                }
            }
        }
        self.leave();
    }

    /// Those that may start now that a node is done.
    fn next(&self, index: u32) -> Vec<(u32, Box<dyn Node>)> {
        let mut state = self.lock();
        let state = &mut *state;
        state.left -= 1;
        let mut next = Vec::new();
        for &index in &self.after[index as usize] {
            let waiting = &mut state.waiting[index as usize];
            *waiting -= 1;
            if *waiting == 0
                && let Some(node) = state.nodes.get_mut(index as usize).and_then(Option::take)
            {
                next.push((index, node));
            }
        }
        state.running += next.len();
        next
    }

    /// Stops it from outside. It is over only when what has not started is dropped.
    fn cancel(&self) {
        let mut state = self.lock();
        if state.running > 0 {
            state.running += 1;
            drop(state);
            self.stop();
            self.leave();
        }
    }

    /// Drops what has not started, and cancels what runs.
    fn stop(&self) {
        let dropped = std::mem::take(&mut self.lock().nodes);
        // One by one: a panic of one is no reason for the graph not to end.
        dropped.into_iter().for_each(|node| work::contain(|| drop(node)));
        for token in &self.tokens {
            token.cancel();
        }
    }

    /// One less runs. After the last one, the graph is over.
    fn leave(&self) {
        let mut state = self.lock();
        state.running -= 1;
        if state.running > 0 {
            return;
        }
        let (done, failed, left) = (state.done.take(), state.failed.take(), state.left);
        drop(state);
        let Some(done) = done else { return };
        match failed {
            _ if done.is_cancelled() => drop(done),
            Some(error) => done.complete(Err(error)),
            None => {
                debug_assert_eq!(left, 0, "what is neither done nor failed was cancelled");
                done.complete(Ok(()));
            }
        }
    }

    /// Nothing is started, called or dropped under the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by a node that runs. Dropped with it, it stops the graph.
struct Ticket {
    live: Arc<Live>,
    index: u32,
    over: bool,
}

impl Ticket {
    fn over(mut self, outcome: Result<(), SeriesError>) {
        self.over = true;
        self.live.over(self.index, outcome);
    }
}

impl Drop for Ticket {
    /// Others are not cancelled from here: this may be an unwinding stack, or somebody's lock may be held.
    fn drop(&mut self) {
        if !self.over {
            let panicked = std::thread::panicking();
            let error = if panicked { SeriesError::Panicked } else { SeriesError::Aborted };
            work::ready(Box::new(Lost { live: self.live.clone(), index: self.index, error }));
        }
    }
}

/// A node that will not be done.
struct Lost {
    live: Arc<Live>,
    index: u32,
    error: SeriesError,
}

impl Receive<()> for Lost {
    fn receive(self: Box<Self>, (): ()) {
        let Lost { live, index, error } = *self;
        live.over(index, Err(error));
    }
}

/// A node that waits.
trait Node: Send {
    fn start(self: Box<Self>, ticket: Ticket);
}

/// A task and its callback. While the task runs, this is what receives its result.
struct TaskNode<T, F> {
    /// Dropped first: what it holds is gone before the graph goes on.
    callback: F,
    state: NodeState<T>,
}

enum NodeState<T> {
    Task(T),
    Running(Ticket),
}

impl<T, F> Node for TaskNode<T, F>
where
    T: Task,
    F: FnOnce(T::Output) -> Result<(), Error> + Send + 'static,
{
    fn start(mut self: Box<Self>, ticket: Ticket) {
        if let NodeState::Task(task) = std::mem::replace(&mut self.state, NodeState::Running(ticket)) {
            start_child(task, Continuation::new(self));
        }
    }
}

impl<T, F> TaskNode<T, F> {
    fn ticket(&self) -> &Ticket {
        match &self.state {
            NodeState::Running(ticket) => ticket,
            NodeState::Task(_) => unreachable!("a node that runs has a ticket"),
        }
    }
}

impl<T, F> Receiver<T::Output> for TaskNode<T, F>
where
    T: Task,
    F: FnOnce(T::Output) -> Result<(), Error> + Send + 'static,
{
    fn runtime(&self) -> &RuntimeHandle {
        &self.ticket().live.runtime
    }

    fn token(&self) -> Option<&Arc<Token>> {
        let ticket = self.ticket();
        ticket.live.tokens.get(ticket.index as usize)
    }
}

impl<T, F> Receive<T::Output> for TaskNode<T, F>
where
    T: Task,
    F: FnOnce(T::Output) -> Result<(), Error> + Send + 'static,
{
    fn receive(self: Box<Self>, output: T::Output) {
        let TaskNode { state, callback } = *self;
        let NodeState::Running(ticket) = state else { return };
        let cancelled = ticket.live.tokens[ticket.index as usize].is_cancelled();
        let outcome = match cancelled {
            true => {
                drop((callback, output));
                Err(SeriesError::Cancelled)
            }
            false => callback(output).map_err(SeriesError::Failed),
        };
        ticket.over(outcome);
    }
}
