//! What the store is asked about connections.

use std::net::Ipv6Addr;

use clickhouse::query::Query;

use super::{Store, StoreError, rows};
use crate::connections::sql::{self, GapRow, ObservationRow, OwnershipRow, PageRow};
use crate::params::ConnectionsRequest;
use crate::planner::{Held, Tier, plan};
use crate::scope::Scope;
use crate::window::{Bounds, Requested};

/// Addresses bound to one statement: parameters travel in its URL, which is 64 KiB at most.
const ADDRESSES_AT_ONCE: usize = 500;

/// Nodes bound to one statement, for the same reason: a name has up to 253 bytes.
const NODES_AT_ONCE: usize = 100;

/// Rows of times, seconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    /// Where the window begins.
    pub(crate) from_s: u32,
    /// First row read: not after `from_s`.
    pub(crate) since_s: u32,
    /// First row after.
    pub(crate) until_s: u32,
}

impl Store {
    /// The window in raw rows, and where these begin if that is not where the window asked for does. Of a
    /// window that is past their retention nothing is left: it is empty, and so at its end.
    pub(crate) async fn raw_bounds(
        &self,
        requested: Requested,
    ) -> Result<(Bounds, Option<u32>), StoreError> {
        let (interval_s, held) = tokio::try_join!(self.interval_s(requested), self.held())?;
        let bounds = plan(requested, interval_s, &Held::default()).bounds;
        let whole_from_s = held.of(Tier::Raw);
        if whole_from_s <= bounds.from_s {
            return Ok((bounds, None));
        }
        let from_s = whole_from_s.min(bounds.to_s);
        Ok((Bounds { from_s, ..bounds }, Some(from_s)))
    }

    /// The connections of a page, and one more if there are more.
    pub(crate) async fn page(
        &self,
        request: &ConnectionsRequest,
        range: Range,
    ) -> Result<Vec<PageRow>, StoreError> {
        let ConnectionsRequest { filter, order, limit, after, .. } = request;
        let statement = sql::page(*order, &filter.sql(), after.is_some());
        let query = self.tables.ask(&filter.scope, &statement);
        let mut query = of_range(query, range).param("limit", limit + 1);
        if let Some(cursor) = after {
            let key = cursor.key;
            query = query
                .param("rank", cursor.rank)
                .param("folded", u8::from(key.folded))
                .param("hashed", u8::from(key.hashed))
                .param("shared", key.shared)
                .param("client_ip", key.client_ip.to_string())
                .param("client_port", key.client_port)
                .param("server_ip", key.server_ip.to_string())
                .param("server_port", key.server_port);
        }
        rows(filter.bind(query)).await
    }

    /// All observations that may be of connections with these client sequence numbers, or these hashes.
    pub(crate) async fn observations(
        &self,
        request: &ConnectionsRequest,
        range: Range,
        isns: &[u64],
        hashes: &[u64],
    ) -> Result<Vec<ObservationRow>, StoreError> {
        let ConnectionsRequest { filter, .. } = request;
        let statement = sql::observations(&filter.sql());
        let query = self.tables.ask(&filter.scope, &statement);
        let query = of_range(query, range).param("isns", isns).param("hashes", hashes);
        rows(filter.bind(query)).await
    }

    /// When the agents of some nodes, which are in rows that the caller sees, did not see all.
    pub(crate) async fn gaps(
        &self,
        nodes: &[&str],
        range: Range,
    ) -> Result<Vec<GapRow>, StoreError> {
        let mut all = Vec::new();
        for nodes in nodes.chunks(NODES_AT_ONCE) {
            let query = self.tables.ask_for_all(&sql::gaps());
            let query = of_range(query, range).param("nodes", nodes);
            all.extend(rows::<GapRow>(query).await?);
        }
        Ok(all)
    }

    /// Who held addresses, or ports of every node, within some microseconds since the epoch.
    pub(crate) async fn ownerships(
        &self,
        scope: &Scope,
        addresses: &[Ipv6Addr],
        ports: &[u16],
        (since_us, until_us): (i64, i64),
    ) -> Result<Vec<OwnershipRow>, StoreError> {
        let mut all = Vec::new();
        for addresses in addresses.chunks(ADDRESSES_AT_ONCE) {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            // As FINAL, which cannot be said of what a limited caller sees.
            let query = self.tables.ask(scope, &sql::ownerships()).with_setting("final", "1");
            let query = query.param("addresses", addresses).param("ports", ports);
            let query = query.param("since_us", since_us).param("until_us", until_us);
            all.extend(rows::<OwnershipRow>(query).await?);
        }
        Ok(all)
    }
}

fn of_range(query: Query, range: Range) -> Query {
    query.param("from", range.from_s).param("since", range.since_s).param("until", range.until_s)
}
