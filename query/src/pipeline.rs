//! The pipeline: request → window → plan → filter → sql → edges → graph → answer.

use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::Utc;

use crate::answer::{Coverage, Graph};
use crate::graph::{Folded, Opened};
use crate::params::{GraphRequest, GroupBy};
use crate::planner::{Plan, Tier, plan};
use crate::sql::{Answer, Kept, OpenRow, Rows};
use crate::store::{Store, StoreError};
use crate::window::{Bounds, has_settled, ms};

/// Pods and addresses come and go. In so many seconds more pairs of them talk than are folded here as fast as
/// in the store, or at all.
const MANY_PAIRS_S: u32 = 12 * 3_600;

/// Computes what a request asks for, of a window whose intervals are of `interval_s` ([`Store::interval_s`]).
///
/// Connections in `[a, c)` are those open at `a`, and those opened or joined since. At a minute
/// boundary the rows say themselves what was open; elsewhere the store is asked.
///
/// # Errors
/// If the store is away, too slow, or finds the question too large.
pub(crate) async fn graph(
    store: &Store,
    request: &GraphRequest,
    interval_s: u32,
) -> Result<Graph, StoreError> {
    let plan = plan(request.window, interval_s, &store.held().await?);
    Ok(seen(store, request, &plan).await?.0)
}

/// Who saw a window.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Agents that reported on it, by name.
    pub(crate) agents: Vec<String>,
    /// They saw all there was, until `complete_until`.
    pub(crate) is_whole: bool,
}

/// The same of a plan, and who saw it.
pub(crate) async fn seen(
    store: &Store,
    request: &GraphRequest,
    plan: &Plan,
) -> Result<(Graph, Seen), StoreError> {
    let ranked_first = matches!(request.group_by, GroupBy::Pod | GroupBy::Ip) && {
        let Bounds { from_s, to_s, .. } = plan.bounds;
        to_s - from_s >= MANY_PAIRS_S
    };
    if ranked_first {
        let kept = store.kept(request, plan).await?;
        return computed(store, request, plan, kept.as_ref()).await;
    }
    match computed(store, request, plan, None).await {
        Err(StoreError::TooLarge(error)) => match store.kept(request, plan).await? {
            Some(kept) => computed(store, request, plan, Some(&kept)).await,
            None => Err(StoreError::TooLarge(error)),
        },
        answer => answer,
    }
}

/// The graph of a plan, with the edges that are `kept` if not all are.
async fn computed(
    store: &Store,
    request: &GraphRequest,
    plan: &Plan,
    kept: Option<&Kept>,
) -> Result<(Graph, Seen), StoreError> {
    let GraphRequest { window: requested, group_by, filter, stat, limit } = request;
    let answers = Answers::default();
    // Never waited for: all of this is one task.
    let folded = Mutex::new(Folded::new(*group_by));
    let edges = async {
        let mut rows = store.edges(*group_by, filter, plan, kept, &answers.edges).await?;
        let mut folded = locked(&folded);
        rows.try_for_each(|row| folded.add_edge(row?)).map_err(StoreError::from)
    };
    let ((), reported) =
        tokio::try_join!(edges, reported(store, request, plan, kept, &folded, &answers))?;
    let mut folded = folded.into_inner().unwrap_or_else(PoisonError::into_inner);
    let Reported { coverage, seen, complete_until_s, open } = reported;
    open.into_iter().for_each(|opened| folded.add_open(opened));

    let window = plan.bounds.answer(*requested, complete_until_s);
    let (nodes, edges) = folded.graph(&filter.q, *stat, *limit, window.from);
    Ok((Graph { window, coverage, nodes, edges }, seen))
}

/// What ClickHouse answers, for as long as a graph is in the making.
#[derive(Default)]
struct Answers {
    edges: Answer,
    /// At the window's end, and at an earlier one.
    open: [OpenAnswers; 2],
}

#[derive(Default)]
struct OpenAnswers {
    at_instants: Answer,
    at_boundary: Answer,
}

/// What the agents reported, and what is open as far as they did.
struct Reported<'a> {
    coverage: Coverage,
    seen: Seen,
    complete_until_s: u32,
    open: Vec<Opened<'a>>,
}

async fn reported<'a>(
    store: &Store,
    request: &GraphRequest,
    plan: &Plan,
    kept: Option<&Kept>,
    folded: &Mutex<Folded<'a>>,
    answers: &'a Answers,
) -> Result<Reported<'a>, StoreError> {
    let (scope, bounds) = (&request.filter.scope, plan.bounds);
    // Long after a window all of it has been reported on, nearly always: what is open at its end is asked beside the
    // reports. Where rows are still catching up then, it may lack those that come meanwhile, as its edges do.
    let [at_end_answers, earlier_answers] = &answers.open;
    let is_past = has_settled(ms(bounds.to_s), Utc::now().timestamp_millis());
    let at_end = async {
        if !is_past {
            return Ok(None);
        }
        open(store, request, plan, kept, bounds.to_s, folded, at_end_answers).await.map(Some)
    };
    let at_reported = async {
        let reports = store.reports(scope, bounds).await?;
        // Beyond what has been reported nothing is known to be open.
        let end_s =
            if reports.coverage.agents > 0 { reports.complete_until_s } else { bounds.to_s };
        let earlier = async {
            if is_past && end_s == bounds.to_s {
                return Ok(None);
            }
            open(store, request, plan, kept, end_s, folded, earlier_answers).await.map(Some)
        };
        let (open, blind) = tokio::try_join!(earlier, store.blind_spots(scope, bounds, &reports))?;
        Ok((reports, open, blind))
    };
    let (at_end, (reports, at_reported, blind)) = tokio::try_join!(at_end, at_reported)?;
    let open = at_reported.or(at_end).unwrap_or_default();
    let complete_until_s = reports.complete_until_s;

    let seen = Seen { agents: reports.agents.clone(), is_whole: reports.is_whole };
    let coverage = reports.with_blind_spots(blind);
    Ok(Reported { coverage, seen, complete_until_s, open })
}

/// Asks for what is open at a window's start, where its sums do not have it, and at its end or `end_s`.
async fn open<'a>(
    store: &Store,
    request: &GraphRequest,
    plan: &Plan,
    kept: Option<&Kept>,
    end_s: u32,
    folded: &Mutex<Folded<'a>>,
    answers: &'a OpenAnswers,
) -> Result<Vec<Opened<'a>>, StoreError> {
    let GraphRequest { group_by, filter, .. } = request;
    let rows_tell_end = plan.end_tier == Tier::Raw;
    let start_s = plan.open_at_start_s();
    let mut instants: Vec<_> = start_s.into_iter().chain(rows_tell_end.then_some(end_s)).collect();
    instants.dedup();
    let opened = |rows: Rows<'a, OpenRow<'a>>, counts: &dyn Fn(u32) -> (bool, bool)| {
        let mut folded = locked(folded);
        let opened = rows.map(|row| {
            let row = row?;
            let (at_start, at_end) = counts(row.at_s);
            folded.opened(row, at_start, at_end)
        });
        opened.collect::<Result<Vec<_>, _>>().map_err(StoreError::from)
    };
    let at_instants = async {
        if instants.is_empty() {
            return Ok(Vec::new());
        }
        let answer = &answers.at_instants;
        let rows = store.open_at(*group_by, filter, &instants, kept, answer).await?;
        opened(rows, &|at_s| (start_s == Some(at_s), rows_tell_end && end_s == at_s))
    };
    let at_boundary = async {
        if rows_tell_end {
            return Ok(Vec::new());
        }
        let (end_s, tier, answer) = (plan.open_until_s(end_s), plan.end_tier, &answers.at_boundary);
        let rows = store.open_at_boundary(*group_by, filter, end_s, tier, kept, answer).await?;
        opened(rows, &|_| (false, true))
    };
    let (mut open, mut at_boundary) = tokio::try_join!(at_instants, at_boundary)?;
    open.append(&mut at_boundary);
    Ok(open)
}

/// The graph in the making, for a moment.
fn locked<'m, 'a>(folded: &'m Mutex<Folded<'a>>) -> MutexGuard<'m, Folded<'a>> {
    folded.lock().unwrap_or_else(PoisonError::into_inner)
}
