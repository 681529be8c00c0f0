//! A pacer's seat at one tree of shared budgets.
//!
//! Remembers which ports of the tree are whose, which of them go hungry, and when to ask again. It must not take the
//! tree's lock itself: the [pacer](super) does, when it trades.

use std::sync::Arc;

use slab::Slab;

use crate::budget::shared::Shared;
use crate::budget::tree::SeatId;
use crate::moment::Moment;
use crate::pace::port::Port;

/// What this pacer knows of one tree.
pub(super) struct Seat {
    pub(super) shared: Arc<Shared>,
    pub(super) seat: SeatId,
    pub(super) ports: u32,
    /// A port of it is listed, or it is due.
    pub(super) concerned: bool,
    /// When to ask again for the ports whose demand is not met.
    pub(super) due: Option<Moment>,
    /// The tree's number of a port to this pacer's.
    pub(super) by_tree_id: Vec<u32>,
    /// This pacer's ports at each node.
    pub(super) by_node: Vec<Vec<u32>>,
    /// Ports whose demand the tree knows and has not met.
    pub(super) hungry: Vec<u32>,
    /// Ports that found the tree locked.
    pub(super) locked_out: Vec<u32>,
}

impl Seat {
    pub(super) fn new(shared: Arc<Shared>, seat: SeatId) -> Seat {
        let (by_tree_id, by_node) = (Vec::new(), Vec::new());
        Seat {
            shared,
            seat,
            ports: 0,
            concerned: false,
            due: None,
            by_tree_id,
            by_node,
            hungry: Vec::new(),
            locked_out: Vec::new(),
        }
    }

    pub(super) fn is_due(&self, now: Moment) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    pub(super) fn remember(&mut self, node: u32, tree_id: u32, port: u32) {
        let at = tree_id as usize;
        self.by_tree_id.resize(self.by_tree_id.len().max(at + 1), u32::MAX);
        self.by_tree_id[at] = port;
        let at = node as usize;
        self.by_node.resize(self.by_node.len().max(at + 1), Vec::new());
        self.by_node[at].push(port);
    }

    pub(super) fn forget(&mut self, node: u32, port: u32) {
        if let Some(ports) = self.by_node.get_mut(node as usize) {
            ports.retain(|other| *other != port);
            if ports.is_empty() {
                // Of the nodes there ever were, few have a port now.
                *ports = Vec::new();
            }
        }
        self.locked_out.retain(|other| *other != port);
    }
}

/// Enters a port in the list of those whose demand is not met.
pub(super) fn note_hungry(hungry: &mut Vec<u32>, ports: &mut Slab<Port>, id: u32) {
    let asked = &mut ports[id as usize].asked;
    if asked.is_none() {
        *asked = Some(hungry.len() as u32);
        hungry.push(id);
    }
}

/// Takes it out again.
pub(super) fn note_fed(hungry: &mut Vec<u32>, ports: &mut Slab<Port>, id: u32) {
    if let Some(at) = ports[id as usize].asked.take() {
        hungry.swap_remove(at as usize);
        if let Some(moved) = hungry.get(at as usize) {
            ports[*moved as usize].asked = Some(at);
        }
    }
}
