//! Two windows compared: `/api/v1/diff`.
//!
//! Both graphs are whole when they are compared; `limit` only cuts what is listed, and `more` says how much.
//! That an edge is new or gone is certain only if all agents looked at the other window, all of the time:
//! see [`DiffEdge::certain`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::answer::{Coverage, Edge, Graph, StatValue, Traffic, Window};
use crate::graph::{Face, label};
use crate::params::{DiffRequest, GraphRequest, Stat};
use crate::pipeline::{self, Seen};
use crate::store::{Store, StoreError};

/// Silent agents listed: what a person reads.
const MAX_SILENT: usize = 100;

/// What differs between two windows.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Diff {
    /// The window asked about.
    pub current: DiffWindow,
    /// The window that it is compared with.
    pub base: DiffWindow,
    /// How many edges are what, also of those that are not listed.
    pub counts: DiffCounts,
    /// Edges that are new, gone or changed, those whose stat differs most first.
    pub edges: Vec<DiffEdge>,
    /// New, gone and changed edges that `limit` left out.
    pub more: u64,
}

/// One of the windows.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct DiffWindow {
    /// As it was computed.
    pub window: Window,
    /// What the agents saw of it.
    pub coverage: Coverage,
    /// All agents of both windows saw all of it: what is not in it was not there.
    pub whole: bool,
    /// Agents that reported on the other window and never on this one, at most 100: what only they see is
    /// missing here.
    pub silent_agents: Vec<String>,
    /// There are more of these than listed.
    pub more_silent_agents: bool,
}

/// Edges by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct DiffCounts {
    /// Not in the base window.
    pub new: u64,
    /// Only in the base window.
    pub gone: u64,
    /// In both, with another stat.
    pub changed: u64,
    /// In both.
    pub same: u64,
}

/// What became of an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Not in the base window.
    New,
    /// Only in the base window.
    Gone,
    /// In both, and the stat is `threshold` times what it was, or more; or less by as much.
    Changed,
}

/// An edge that differs.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct DiffEdge {
    /// What became of it.
    pub change: Change,
    /// The graph's id of it.
    pub id: String,
    /// Node id of the client.
    pub source: Arc<str>,
    /// Node id of the server.
    pub target: Arc<str>,
    /// For people.
    pub name: String,
    /// Nobody was blind where it is said not to be; of a changed edge, in neither window.
    pub certain: bool,
    /// The stat; null where the edge is not, and of times without a sample.
    pub value: Option<StatValue>,
    /// The stat in the base window.
    pub base_value: Option<StatValue>,
    /// The stat per second, unless it is a time: what is compared, as windows may differ in length.
    pub per_second: Option<f64>,
    /// The stat per second in the base window, unless it is a time.
    pub base_per_second: Option<f64>,
    /// What is compared, as a multiple of the base window's; null if either is missing or that one is 0.
    pub ratio: Option<f64>,
    /// First packet in all history that there is, milliseconds since the epoch; null if it is too long to tell.
    /// Of edges that are not new, in the two windows.
    pub first_seen: Option<i64>,
    /// Last packet in the two windows, milliseconds since the epoch.
    pub last_seen: i64,
    /// All sums; null where the edge is not.
    pub traffic: Option<Traffic>,
    /// All sums of the base window.
    pub base_traffic: Option<Traffic>,
}

/// Computes what a request asks for.
///
/// # Errors
/// If the store is away, too slow, or finds a question too large.
pub(crate) async fn diff(store: &Store, request: &DiffRequest) -> Result<Diff, StoreError> {
    let whole = |window| GraphRequest { window, limit: usize::MAX, ..request.graph.clone() };
    let (current, base) = (whole(request.graph.window), whole(request.base));
    let seen = async |request: &GraphRequest| {
        pipeline::seen(store, request, &store.plan(request.window).await?).await
    };
    let ((current, seen), (base, base_seen)) = tokio::try_join!(seen(&current), seen(&base))?;
    let mut diff = compare((current, &seen), (base, &base_seen), request);
    if diff.edges.iter().any(|edge| edge.change == Change::New) {
        let history = first_seen(store, request, diff.current.window).await?;
        for edge in diff.edges.iter_mut().filter(|edge| edge.change == Change::New) {
            // An edge that is only open has no row of its own yet.
            edge.first_seen = history.as_ref().map(|history| {
                let ends = (edge.source.clone(), edge.target.clone());
                let known = history.get(&ends).copied().unwrap_or(i64::MAX);
                known.min(edge.first_seen.unwrap_or(i64::MAX))
            });
        }
    }
    Ok(diff)
}

/// When each edge was first seen, by the ids of its ends.
async fn first_seen(
    store: &Store,
    request: &DiffRequest,
    window: Window,
) -> Result<Option<HashMap<(Arc<str>, Arc<str>), i64>>, StoreError> {
    let GraphRequest { group_by, filter, .. } = &request.graph;
    let Some(rows) = store.first_seen(*group_by, filter, window.to).await? else {
        return Ok(None);
    };
    let mut history: HashMap<(Arc<str>, Arc<str>), i64> = HashMap::new();
    for row in rows {
        let [source, target] = [&row.source, &row.target].map(|end| Face::of(*group_by, end).id());
        let first_ms = history.entry((source.into(), target.into())).or_insert(i64::MAX);
        *first_ms = (*first_ms).min(row.first_seen_ms);
    }
    Ok(Some(history))
}

/// Compares two graphs that are whole.
fn compare(
    (current, seen): (Graph, &Seen),
    (base, base_seen): (Graph, &Seen),
    request: &DiffRequest,
) -> Diff {
    let stat = request.graph.stat;
    let names: HashMap<&str, String> = current
        .nodes
        .iter()
        .chain(&base.nodes)
        .map(|node| (&*node.id, label(&node.kind, &node.namespace, &node.name)))
        .collect();
    let name = |id: &str| names.get(id).cloned().unwrap_or_default();

    let mut pairs: BTreeMap<&str, (Option<&Edge>, Option<&Edge>)> = BTreeMap::new();
    current.edges.iter().for_each(|edge| pairs.entry(&edge.id).or_default().0 = Some(edge));
    base.edges.iter().for_each(|edge| pairs.entry(&edge.id).or_default().1 = Some(edge));

    let (window, base_window) = (current.window, base.window);
    let (whole, base_whole) =
        (is_whole(&current, seen, base_seen), is_whole(&base, base_seen, seen));
    let mut counts = DiffCounts::default();
    let mut edges = Vec::new();
    for (id, (now, before)) in pairs {
        let Some(either) = now.or(before) else { continue };
        let value = now.and_then(|edge| stat.of(&edge.traffic));
        let base_value = before.and_then(|edge| stat.of(&edge.traffic));
        // Rates with a common denominator: nothing is rounded.
        let compared = weighed(stat, value, base_window);
        let base_compared = weighed(stat, base_value, window);
        let (change, count, certain) = match (now, before) {
            (Some(_), None) => (Change::New, &mut counts.new, base_whole),
            (None, _) => (Change::Gone, &mut counts.gone, whole),
            (Some(_), Some(_)) if differ(compared, base_compared, request.threshold) => {
                (Change::Changed, &mut counts.changed, whole && base_whole)
            }
            (Some(_), Some(_)) => {
                counts.same += 1;
                continue;
            }
        };
        *count += 1;
        let both = || now.into_iter().chain(before);
        let per_second = |value: Option<StatValue>, window| {
            value.filter(|_| !stat.is_time()).map(|value| value.as_f64() / seconds(window))
        };
        let ratio = match (compared, base_compared) {
            (Some(compared), Some(base)) if base > 0.0 => Some(compared / base),
            _ => None,
        };
        edges.push(DiffEdge {
            change,
            id: id.to_owned(),
            source: either.source.clone(),
            target: either.target.clone(),
            name: format!("{} → {}", name(&either.source), name(&either.target)),
            certain,
            value,
            base_value,
            per_second: per_second(value, window),
            base_per_second: per_second(base_value, base_window),
            ratio,
            first_seen: both().map(|edge| edge.first_seen).min(),
            last_seen: both().map(|edge| edge.last_seen).max().unwrap_or_default(),
            traffic: now.map(|edge| edge.traffic),
            base_traffic: before.map(|edge| edge.traffic),
        });
    }
    let size = |edge: &DiffEdge| {
        let weighed = |value, other| weighed(stat, value, other).unwrap_or_default();
        (weighed(edge.value, base_window) - weighed(edge.base_value, window)).abs()
    };
    // Stable, so that equals stay ordered by id.
    edges.sort_by(|a, b| size(b).total_cmp(&size(a)));
    let more = edges.len().saturating_sub(request.graph.limit) as u64;
    edges.truncate(request.graph.limit);
    Diff {
        current: told(current, whole, seen, base_seen),
        base: told(base, base_whole, base_seen, seen),
        counts,
        edges,
        more,
    }
}

/// What is compared: a time as it is, all else times the other window's length.
fn weighed(stat: Stat, value: Option<StatValue>, other: Window) -> Option<f64> {
    let weight = if stat.is_time() { 1.0 } else { seconds(other) };
    value.map(|value| value.as_f64() * weight)
}

/// A window's length; none is shorter than a second.
fn seconds(window: Window) -> f64 {
    (window.to - window.from) as f64 / 1_000.0
}

/// Whether a stat is `threshold` times what it was, or more; or less by as much. What has no sample says
/// nothing of a change.
fn differ(current: Option<f64>, base: Option<f64>, threshold: f64) -> bool {
    let (Some(current), Some(base)) = (current, base) else { return false };
    let (less, more) = (current.min(base), current.max(base));
    more > 0.0 && more >= less * threshold
}

/// Whether all agents of both windows saw all of one: without any, nobody looked.
fn is_whole(graph: &Graph, seen: &Seen, other: &Seen) -> bool {
    seen.is_whole
        && graph.coverage.agents > 0
        && graph.window.complete_until == graph.window.to
        && silent(seen, other).next().is_none()
}

/// Agents of another window that did not report on one.
fn silent<'a>(seen: &'a Seen, other: &'a Seen) -> impl Iterator<Item = &'a String> {
    let agents: BTreeSet<&String> = seen.agents.iter().collect();
    other.agents.iter().filter(move |agent| !agents.contains(agent))
}

fn told(graph: Graph, whole: bool, seen: &Seen, other: &Seen) -> DiffWindow {
    DiffWindow {
        window: graph.window,
        coverage: graph.coverage,
        whole,
        silent_agents: silent(seen, other).take(MAX_SILENT).cloned().collect(),
        more_silent_agents: silent(seen, other).nth(MAX_SILENT).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_by_the_threshold_either_way() {
        let differ = |current, base| differ(current, base, 2.0);
        assert!(differ(Some(2.0), Some(1.0)) && differ(Some(1.0), Some(2.0)));
        assert!(!differ(Some(1.99), Some(1.0)) && !differ(Some(0.0), Some(0.0)));
        assert!(differ(Some(0.0), Some(1.0)) && differ(Some(1.0), Some(0.0)));
        assert!(!differ(None, Some(1.0)) && !differ(Some(1.0), None));
    }
}
