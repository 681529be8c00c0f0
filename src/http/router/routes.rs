//! Describing routes.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tidegate_poller::budget::KeyedBudgets;
use tidegate_poller::{Budget, Limit};

use super::answer::{Answer, GoesOn};
use super::pacing::{self, RoutePacing};
use super::table::{RouteError, Table};
use super::{After, Before, ErrorPage, GroupEntry, HttpError, Inner, RouteEntry};
use crate::http::body::Intake;
use crate::http::{Exchange, ExchangeContext, Files, Handler, Method, Reply};

/// Routes with a common prefix, and what is done for all of them.
///
/// Paths are those of the crate `matchit`: `/users/{id}` has a parameter, `/files/{*rest}` takes all that follows, which
/// is something. A fixed part goes before a parameter, and that before the rest.
pub struct Routes<'a> {
    plan: &'a mut Plan,
    prefix: String,
    group: usize,
}

/// One route, or those of a folder, to say more of it.
pub struct Route<'a> {
    entries: &'a mut [RouteEntry],
}

/// What a route takes that says nothing of it.
const BODY_MAX: u64 = 1024 * 1024;

/// Adding routes. A handler is a closure that gives back an [`Answer`]: what is said by `()` is what it has set in the
/// context, or its tasks will. A route added twice, or a path that is none, is what [`Router::build`](super::Router::build) returns.
impl Routes<'_> {
    /// GET; HEAD, too, unless that has a route of its own.
    pub fn get<A: Answer>(
        &mut self,
        path: &str,
        handler: impl Fn(&mut Exchange) -> A + Send + Sync + 'static,
    ) -> Route<'_> {
        self.route(Method::GET, path, handler)
    }

    /// POST.
    pub fn post<A: Answer>(
        &mut self,
        path: &str,
        handler: impl Fn(&mut Exchange) -> A + Send + Sync + 'static,
    ) -> Route<'_> {
        self.route(Method::POST, path, handler)
    }

    /// PUT.
    pub fn put<A: Answer>(
        &mut self,
        path: &str,
        handler: impl Fn(&mut Exchange) -> A + Send + Sync + 'static,
    ) -> Route<'_> {
        self.route(Method::PUT, path, handler)
    }

    /// PATCH.
    pub fn patch<A: Answer>(
        &mut self,
        path: &str,
        handler: impl Fn(&mut Exchange) -> A + Send + Sync + 'static,
    ) -> Route<'_> {
        self.route(Method::PATCH, path, handler)
    }

    /// DELETE.
    pub fn delete<A: Answer>(
        &mut self,
        path: &str,
        handler: impl Fn(&mut Exchange) -> A + Send + Sync + 'static,
    ) -> Route<'_> {
        self.route(Method::DELETE, path, handler)
    }

    /// Any one method.
    pub fn route<A: Answer>(
        &mut self,
        method: Method,
        path: &str,
        handler: impl Fn(&mut Exchange) -> A + Send + Sync + 'static,
    ) -> Route<'_> {
        self.add(Some(method), path, move |exchange| handler(exchange).answer(&mut exchange.context))
    }

    /// Every method that has no route of its own.
    pub fn any<A: Answer>(
        &mut self,
        path: &str,
        handler: impl Fn(&mut Exchange) -> A + Send + Sync + 'static,
    ) -> Route<'_> {
        self.add(None, path, move |exchange| handler(exchange).answer(&mut exchange.context))
    }

    /// The files below a folder: its [`Root`](tidegate_poller::file::Root), or a [`Files`] with settings of its own. What is
    /// said of the route holds for each of them.
    pub fn files(&mut self, path: &str, files: impl Into<Files>) -> Route<'_> {
        let first = self.plan.routes.len();
        let path = path.trim_end_matches('/');
        let whole = format!("{}{path}", self.prefix);
        if whole.contains('{') {
            let why = "files stand below a path without parameters";
            self.plan.error.get_or_insert(RouteError::new(whole, why));
            return Route { entries: &mut [] };
        }
        let files = Arc::new(files.into().below(&whole).straight_only());
        for end in ["", "/", "/{*file}"] {
            // The folder itself, where it is all there is.
            if whole.is_empty() && end.is_empty() {
                continue;
            }
            let files = files.clone();
            let route =
                self.add(Some(Method::GET), &format!("{path}{end}"), move |exchange| files.handle(exchange));
            route.each(|entry| (entry.intake, entry.makes_pages) = (Files::wants(), true));
        }
        Route { entries: &mut self.plan.routes[first..] }
    }

    /// A group of routes below a prefix, with what is done for them besides what is done for all in this one. The path `""`
    /// in it is the prefix itself.
    pub fn group(&mut self, prefix: &str, describe: impl FnOnce(&mut Routes<'_>)) {
        let prefix = format!("{}{}", self.prefix, prefix.trim_end_matches('/'));
        let group = self.plan.groups.len();
        self.plan.groups.push(Group { parent: Some(self.group), ..Group::default() });
        self.plan.table.add_group(&prefix, group);
        describe(&mut Routes { plan: self.plan, prefix, group });
    }

    fn add(
        &mut self,
        method: Option<Method>,
        path: &str,
        handler: impl Fn(&mut Exchange) + Send + Sync + 'static,
    ) -> Route<'_> {
        let route = self.plan.routes.len();
        let pattern = format!("{}{path}", self.prefix);
        if let Err(error) = self.plan.table.add(method, &pattern, self.group, route) {
            self.plan.error.get_or_insert(error);
        }
        self.plan.routes.push(RouteEntry {
            handler: Box::new(handler),
            intake: Intake::Whole { max_bytes: BODY_MAX },
            pacing: RoutePacing::default(),
            time: None,
            makes_pages: false,
        });
        Route { entries: &mut self.plan.routes[route..] }
    }
}

/// What is done for all routes of the group, and of the groups in it, wherever between the routes it stands.
impl Routes<'_> {
    /// Runs before the handlers, and before what is not found here. It may answer in their place, or add tasks, which are
    /// done before it goes on. The outermost group's run first, and within a group the first one said.
    ///
    /// It has no body that the route takes whole: that is for the handler, and is read (and asked for, where the client waits
    /// for that) when nothing has turned the client away. Only bodies up to 16 KiB are read before.
    pub fn before<G: GoesOn>(&mut self, before: impl Fn(&mut Exchange) -> G + Send + Sync + 'static) {
        let before: Before = Arc::new(move |exchange| before(exchange).goes_on());
        self.plan.groups[self.group].own.before.push(before);
    }

    /// Runs when the reply is there, whatever it is and whoever made it, on the poller's thread, and may change it. The
    /// innermost group's run first, and within a group the first one said.
    pub fn after(&mut self, after: impl Fn(&mut ExchangeContext) + Send + Sync + 'static) {
        let after: After = Arc::new(after);
        self.plan.groups[self.group].own.after.push(after);
    }

    /// Makes the page of an error; by default that is [`HttpError::page`]. The error's own fields are added to it, and its
    /// status, where the page says 200.
    pub fn errors(&mut self, page: impl Fn(&ExchangeContext, &HttpError) -> Reply + Send + Sync + 'static) {
        let page: ErrorPage = Arc::new(page);
        self.plan.groups[self.group].own.errors = Some(page);
    }
}

/// What it wants of a request's body. Said nothing, it is all of it, up to 1 MiB.
impl Route<'_> {
    /// All of the body, before the handler is called; more than so many bytes are 413. Read when what runs
    /// [before](Routes::before) the handler has let the client in.
    pub fn whole(self, max_bytes: u64) -> Self {
        self.intake(Intake::Whole { max_bytes })
    }

    /// The handler reads the body while it arrives; more than so many bytes are cut.
    pub fn stream(self, max_bytes: u64) -> Self {
        self.intake(Intake::Stream { max_bytes })
    }

    /// Nothing of the body, which is read and thrown away; more than so many bytes are 413.
    pub fn discard(self, max_bytes: u64) -> Self {
        self.intake(Intake::Discard { max_bytes })
    }

    fn intake(self, intake: Intake) -> Self {
        self.each(|entry| entry.intake = intake)
    }

    fn each(self, mut set: impl FnMut(&mut RouteEntry)) -> Self {
        self.entries.iter_mut().for_each(&mut set);
        self
    }
}

/// What its replies spend through, and how long they may take to be made.
impl Route<'_> {
    /// Gives each reply this limit, in place of its connection's, unless the handler gives it one.
    pub fn limit(self, limit: &Limit) -> Self {
        self.each(|entry| entry.pacing.limit = Some(limit.clone()))
    }

    /// Exempts the first bytes of each reply from its connection's limit, or the route's, in place of the server's
    /// `rate_after`. Budgets are charged with them all the same.
    pub fn rate_after(self, bytes: u64) -> Self {
        self.each(|entry| entry.pacing.rate_after = Some(bytes))
    }

    /// Has all replies share a budget, besides what their connections spend through.
    pub fn budget(self, budget: &Budget) -> Self {
        self.budget_weighted(budget, 1)
    }

    /// The same, with a weight among those who share the budget.
    pub fn budget_weighted(self, budget: &Budget, weight: u32) -> Self {
        self.each(|entry| entry.pacing.budgets.push((budget.clone(), weight)))
    }

    /// Has the replies with one key share a budget. Keys: [`by_address`](super::by_address),
    /// [`by_header`](super::by_header), [`by_path`](super::by_path), or what you make of the exchange; keep them short,
    /// they are memory.
    pub fn budget_by<K: Clone + Eq + Hash + ToString + Send + 'static>(
        self,
        budgets: &KeyedBudgets<K>,
        key: impl Fn(&ExchangeContext) -> K + Send + Sync + 'static,
    ) -> Self {
        let keyed = pacing::keyed(budgets.clone(), key);
        self.each(|entry| entry.pacing.keyed.push(keyed.clone()))
    }

    /// Answers 503 where it takes longer; see [`ExchangeContext::set_timeout`]. The time runs from when the first of what
    /// is called for the exchange is: a body of more than 16 KiB comes within it, where something runs before the handler.
    pub fn timeout(self, time: Duration) -> Self {
        self.each(|entry| entry.time = Some(time))
    }
}

/// What has been described so far.
pub(super) struct Plan {
    table: Table,
    routes: Vec<RouteEntry>,
    groups: Vec<Group>,
    error: Option<RouteError>,
}

#[derive(Default)]
struct Group {
    parent: Option<usize>,
    own: GroupEntry,
}

pub(super) fn build(describe: impl FnOnce(&mut Routes<'_>)) -> Result<Inner, RouteError> {
    let mut plan =
        Plan { table: Table::default(), routes: Vec::new(), groups: vec![Group::default()], error: None };
    describe(&mut Routes { plan: &mut plan, prefix: String::new(), group: 0 });
    let Plan { table, routes, groups, error } = plan;
    match error {
        Some(error) => Err(error),
        None => Ok(Inner { table, routes, groups: with_inherited(groups) }),
    }
}

/// Each group with what it has from those around it, which stand before it.
fn with_inherited(groups: Vec<Group>) -> Vec<GroupEntry> {
    let mut complete: Vec<GroupEntry> = Vec::with_capacity(groups.len());
    for Group { parent, own } in groups {
        let entry = match parent.map(|parent| &complete[parent]) {
            None => own,
            Some(outer) => GroupEntry {
                before: [&outer.before[..], &own.before].concat(),
                after: [&own.after[..], &outer.after].concat(),
                errors: own.errors.or_else(|| outer.errors.clone()),
            },
        };
        complete.push(entry);
    }
    complete
}

impl fmt::Debug for Routes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl fmt::Debug for Route<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route").field("routes", &self.entries.len()).finish_non_exhaustive()
    }
}
