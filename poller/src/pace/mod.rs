//! Pass-through stand-in while the real pacer is being built.
#![allow(missing_docs)]
use crate::budget::{Budget, Limit};
use crate::moment::Moment;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    Now(u64),
    Until(Moment),
    Turn,
    Never,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowId(u32);
#[derive(Default)]
pub struct Pacer;
impl Pacer {
    pub fn join(&mut self, _owner: usize) -> FlowId {
        FlowId(0)
    }
    pub fn set_limit(&mut self, _flow: FlowId, _limit: Option<&Limit>, _now: Moment) {}
    pub fn spend_through(&mut self, _flow: FlowId, _budget: &Budget, _weight: u32, _now: Moment) {}
    pub fn part(&mut self, _flow: FlowId, _now: Moment) {}
    pub fn free_bytes(&mut self, _flow: FlowId, _n: u64) {}
    pub fn allow(&mut self, _flow: FlowId, wanted: u64, _now: Moment) -> Allowance {
        Allowance::Now(wanted)
    }
    pub fn charge(&mut self, _flow: FlowId, _n: u64, _now: Moment) {}
    pub fn rest(&mut self, _flow: FlowId, _now: Moment) {}
    pub fn settle(&mut self, _now: Moment) {}
    pub fn next_turn(&mut self) -> Option<usize> {
        None
    }
    pub fn deadline(&self) -> Option<Moment> {
        None
    }
    pub fn take_changed(&mut self) -> bool {
        false
    }
}
