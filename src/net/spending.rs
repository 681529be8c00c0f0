//! What the connections of a client or a server spend through, both ways.

use tidegate_poller::{Budget, Direction, Io, Limit};

use crate::net::Pacing;

/// What each new connection spends through. The default limits nothing.
#[derive(Clone, Debug, Default)]
pub struct Spending {
    /// Outwards: as a server's connections are paced.
    pub pacing: Pacing,
    /// Outwards: each connection's own rate. It takes the place of the one in `pacing`.
    pub egress_limit: Option<Limit>,
    /// Inwards: each connection's own rate.
    pub ingress_limit: Option<Limit>,
    /// Outwards: a rate that all connections share, with whoever else has a handle to the budget.
    pub egress_budget: Option<Budget>,
    /// Inwards: the same.
    pub ingress_budget: Option<Budget>,
}

impl Spending {
    pub(crate) fn join(&self, io: &mut Io<'_>) {
        self.pacing.join(io);
        for (direction, limit, budget) in [
            (Direction::Egress, &self.egress_limit, &self.egress_budget),
            (Direction::Ingress, &self.ingress_limit, &self.ingress_budget),
        ] {
            if limit.is_some() {
                io.set_limit(direction, limit.as_ref());
            }
            if let Some(budget) = budget {
                io.spend_through(direction, budget, 1);
            }
        }
    }
}
