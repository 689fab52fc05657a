//! Connections and their evidence: request → page of connections → all their rows → what agents and Kubernetes
//! did then → answer. Only raw rows know connections.
//!
//! **Which connections.** Those with primary rows in the window that the filter keeps, and those open at its start:
//! the ones that the graph counts. So the counters of an edge's connections add up to the edge's.
//!
//! **What is one connection.** Primary rows: the tuple, and the client's initial sequence number (the id
//! changes once, when the server's number becomes known). Other observations: `join` finds them as ingest
//! does, by the id.

mod answer;
mod compare;
mod comparison;
mod cursor;
mod evidence;
mod join;
pub(crate) mod sql;

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

pub use answer::{Connection, Connections, End, Latencies, Observation, Ownership, Start, State};
pub use comparison::{
    Comparison, Difference, Direction, Disagreement, GapKind, Obstacle, Side, Verdict,
};
pub(crate) use cursor::Cursor;
use cursor::Key;
use evidence::Evidence;
use join::{Joined, OVERLAP_S, Seen};
use sql::PageRow;

use crate::params::ConnectionsRequest;
use crate::scope::Scope;
use crate::store::{Range, Store, StoreError};
use crate::window::{Bounds, minute_before, ms, starts_minute};

/// Computes what a request asks for.
///
/// # Errors
/// If the store is away, too slow, or finds the question too large.
pub(crate) async fn connections(
    store: &Store,
    request: &ConnectionsRequest,
) -> Result<Connections, StoreError> {
    let (bounds, retained_from_s) = store.raw_bounds(request.window).await?;
    let ((coverage, complete_until_s), (joined, evidence, next)) = tokio::try_join!(
        store.coverage(&request.filter.scope, bounds),
        page(store, request, bounds)
    )?;
    let end_s = if coverage.agents > 0 { complete_until_s } else { bounds.to_s };
    Ok(Connections {
        window: bounds.answer(request.window, complete_until_s),
        retained_from: retained_from_s.map(ms),
        coverage,
        connections: joined.iter().map(|joined| evidence.connection(joined, end_s)).collect(),
        next,
    })
}

/// The connections of a page with all that is known of them, and the cursor of the next.
async fn page(
    store: &Store,
    request: &ConnectionsRequest,
    bounds: Bounds,
) -> Result<(Vec<Joined>, Evidence, Option<String>), StoreError> {
    // Nothing is kept of a window that is past its retention.
    if bounds.from_s >= bounds.to_s {
        return Ok((Vec::new(), Evidence::default(), None));
    }
    let mut page = store.page(request, range(bounds)).await?;
    let more = page.len() > request.limit;
    page.truncate(request.limit);
    let next = page.last().filter(|_| more).map(|last| {
        let ConnectionsRequest { question, window, order, .. } = *request;
        Cursor { question, window, order, rank: last.rank, key: last.key.into() }.to_string()
    });
    let joined = observed(store, request, bounds, &page).await?;
    let evidence = evidence(store, &request.filter.scope, bounds, &joined).await?;
    Ok((joined, evidence, next))
}

/// The rows of a window. A connection that was open at its start may have none in it, if it has no
/// start of a minute: then the minute's rows before it tell of it, as `sql::open_at` has it.
fn range(bounds: Bounds) -> Range {
    let since_s =
        if starts_minute(bounds.from_s) { bounds.from_s } else { minute_before(bounds.from_s) };
    Range { from_s: bounds.from_s, since_s, until_s: bounds.to_s }
}

/// The connections of a page with all their observations.
async fn observed(
    store: &Store,
    request: &ConnectionsRequest,
    bounds: Bounds,
    page: &[PageRow],
) -> Result<Vec<Joined>, StoreError> {
    let Some(first_s) = page.iter().map(|row| row.first_s).min() else { return Ok(Vec::new()) };
    let last_s = page.iter().map(|row| row.end_s).max().unwrap_or(first_s);
    // What another side saw overlaps in time, or it is not of the connection.
    let Range { from_s, since_s, until_s } = range(bounds);
    let range = Range {
        from_s,
        since_s: first_s.saturating_sub(OVERLAP_S).max(since_s),
        until_s: last_s.saturating_add(OVERLAP_S).min(until_s),
    };
    let keys: Vec<Key> = page.iter().map(|row| row.key.into()).collect();
    let shared = |hashed: bool| -> Vec<u64> {
        let keys = keys.iter().filter(|key| key.hashed == hashed).map(|key| key.shared);
        keys.collect::<BTreeSet<_>>().into_iter().collect()
    };
    let rows = store.observations(request, range, &shared(false), &shared(true)).await?;
    Ok(join::join(&keys, rows))
}

/// When it matters whether agents saw all: while connections lived, which is to the end for those that have none.
fn watched(bounds: Bounds, joined: &[Joined]) -> Range {
    let all = range(bounds);
    let seen = || joined.iter().flat_map(|joined| &joined.observations);
    let since_s = seen().map(|seen| seen.row.intervals_s.0).min().unwrap_or(all.since_s);
    let last_s = seen().map(|seen| seen.row.intervals_s.2).max();
    let until_s = last_s.filter(|_| seen().all(Seen::has_ended)).unwrap_or(all.until_s);
    Range { since_s, until_s: until_s.min(all.until_s), ..all }
}

/// What agents and Kubernetes did meanwhile.
async fn evidence(
    store: &Store,
    scope: &Scope,
    bounds: Bounds,
    joined: &[Joined],
) -> Result<Evidence, StoreError> {
    if joined.is_empty() {
        return Ok(Evidence::default());
    }
    let nodes: BTreeSet<&str> = joined.iter().flat_map(Joined::nodes).collect();
    let nodes: Vec<&str> = nodes.into_iter().collect();
    let addresses: BTreeSet<_> = joined.iter().flat_map(Joined::addresses).collect();
    // For a port of every node (NodePort).
    let addresses: Vec<_> = addresses.into_iter().chain([Ipv6Addr::UNSPECIFIED]).collect();
    let ports: BTreeSet<u16> = joined.iter().flat_map(Joined::server_ports).collect();
    let ports: Vec<u16> = ports.into_iter().collect();
    let lives = joined.iter().map(Joined::life_us);
    let life = lives.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or_default();
    let watched = watched(bounds, joined);
    let (gaps, ownerships) = tokio::try_join!(
        store.gaps(&nodes, watched),
        store.ownerships(scope, &addresses, &ports, life),
    )?;
    Ok(Evidence::new(bounds, (watched.since_s, watched.until_s), gaps, ownerships))
}
