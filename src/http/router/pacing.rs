//! What the replies of a route spend through.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use tidegate_poller::budget::KeyedBudgets;
use tidegate_poller::{Budget, Limit, sys};

use crate::http::ExchangeContext;
use crate::net::ClientKey;

/// What the replies of a route spend through, besides what their connection does.
#[derive(Default)]
pub(super) struct RoutePacing {
    pub(super) limit: Option<Limit>,
    pub(super) rate_after: Option<u64>,
    pub(super) budgets: Vec<(Budget, u32)>,
    pub(super) keyed: Vec<Keyed>,
}

/// Finds the budget of an exchange's key.
type Keyed = Arc<dyn Fn(&ExchangeContext) -> Budget + Send + Sync>;

impl RoutePacing {
    /// Says so in the reply. What the handler has said of its limit goes before it.
    pub(super) fn apply(&self, context: &mut ExchangeContext) {
        if self.limit.is_none()
            && self.rate_after.is_none()
            && self.budgets.is_empty()
            && self.keyed.is_empty()
        {
            return;
        }
        let keyed: Vec<_> = self.keyed.iter().map(|budget| (budget(context), 1)).collect();
        let pacing = context.reply.pacing();
        pacing.limit = pacing.limit.take().or_else(|| self.limit.clone());
        pacing.rate_after = pacing.rate_after.or(self.rate_after);
        pacing.budgets.extend(self.budgets.iter().cloned().chain(keyed));
    }
}

pub(super) fn keyed<K: Clone + Eq + Hash + ToString + Send + 'static>(
    budgets: KeyedBudgets<K>,
    key: impl Fn(&ExchangeContext) -> K + Send + Sync + 'static,
) -> Keyed {
    Arc::new(move |context| budgets.get(&key(context), sys::now()))
}

/// The client, by its address: the key of [`Pacing::clients`](crate::net::Pacing::clients), too.
pub fn by_address(context: &ExchangeContext) -> ClientKey {
    ClientKey::of(context.peer())
}

/// The value of a field of the request. All who send none share one key.
pub fn by_header(name: &'static str) -> impl Fn(&ExchangeContext) -> String + Send + Sync + 'static {
    move |context| bounded(&String::from_utf8_lossy(context.request().header(name).unwrap_or_default()))
}

/// A parameter of the path.
pub fn by_path(name: &'static str) -> impl Fn(&ExchangeContext) -> String + Send + Sync + 'static {
    move |context| bounded(&context.path::<String>(name).unwrap_or_default())
}

/// What is kept of a key: strangers choose them, and each that is kept takes memory.
const KEY_BYTES_MAX: usize = 128;

fn bounded(key: &str) -> String {
    let end = (0..=KEY_BYTES_MAX.min(key.len())).rev().find(|&end| key.is_char_boundary(end));
    key[..end.unwrap_or(0)].to_owned()
}

impl fmt::Debug for RoutePacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoutePacing").field("budgets", &self.budgets.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_key_is_cut_between_characters() {
        assert_eq!(bounded("key"), "key");
        assert_eq!(bounded(&"k".repeat(500)).len(), KEY_BYTES_MAX);
        assert_eq!(bounded(&format!("k{}", "ü".repeat(500))).len(), KEY_BYTES_MAX - 1);
    }
}
