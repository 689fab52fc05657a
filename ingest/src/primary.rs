//! Between agents: which one of the local primaries of a connection is *the* primary, counted in edges.
//!
//! Of a connection's local primaries it is the one on the client's side, if some agent announces the
//! client's address; else the server's; else the first. The first decision stays for the connection's life.
//! An agent's own announcement does not count against it: it has one local primary of a connection, so
//! it will send no better one. The decision is a pure function of the partition's log: no clock, no chunk, no name has a part in it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use flowtrail_schema::{FlowBatch, FlowRecord, Reporter};
use prometheus_client::metrics::counter::Counter;

use crate::connections::{Connection, Point};

/// Addresses with a lease in each partition, at most: all pods of the largest cluster Kubernetes
/// supports, and then some. Beyond it leases that have run out are dropped; if none has, the new
/// address is refused and counted: its connections are counted on the server's side.
const MAX_ANNOUNCED: usize = 200_000;

/// Agents remembered for one address, at most: a pod that moves has two. An address that every node
/// has (link-local ones) needs no more: one other agent is enough to know that.
const MAX_AGENTS: usize = 4;

/// How many intervals an announcement holds, from the start of the one it was made in.
const LEASE_INTERVALS: u64 = 3;

/// The addresses whose client side some agent observes, in record time.
#[derive(Debug, Default)]
pub(crate) struct Announcements {
    leases: HashMap<IpAddr, Vec<Lease>>,
    newest_us: u64,
    /// `newest_us` when leases that have run out were last dropped: until it moves, no other has.
    swept_us: u64,
    refused: Counter,
}

/// One agent's, from its first announcement in a row until the last one runs out, microseconds since
/// the epoch.
#[derive(Clone, Debug)]
struct Lease {
    agent: Arc<str>,
    from_us: u64,
    until_us: u64,
}

impl Announcements {
    /// Counts what it must refuse in `refused`.
    pub(crate) fn new(refused: Counter) -> Self {
        Self { refused, ..Self::default() }
    }

    /// Takes in what an agent announces in a batch. A batch that reports on no interval has no time
    /// to announce for.
    pub(crate) fn renew(&mut self, batch: &FlowBatch) {
        let reported = batch.coverage.iter().map(|coverage| coverage.interval);
        let intervals = reported.chain(batch.records.iter().map(|record| record.interval));
        let Some(newest) = intervals.max_by_key(|interval| interval.start_us()) else { return };
        let from_us = newest.start_us();
        let until_us = from_us + LEASE_INTERVALS * newest.length().us();
        self.newest_us = self.newest_us.max(from_us);
        for address in &batch.announced_addresses {
            let lease = Lease { agent: Arc::clone(&batch.agent), from_us, until_us };
            self.renew_one(address.to_canonical(), lease);
        }
    }

    fn renew_one(&mut self, address: IpAddr, lease: Lease) {
        if !self.leases.contains_key(&address) && self.leases.len() >= MAX_ANNOUNCED {
            if self.swept_us < self.newest_us {
                let newest_us = self.newest_us;
                self.leases
                    .retain(|_, leases| leases.iter().any(|lease| lease.until_us > newest_us));
                self.swept_us = newest_us;
            }
            if self.leases.len() >= MAX_ANNOUNCED {
                self.refused.inc();
                return;
            }
        }
        let leases = self.leases.entry(address).or_default();
        let Some(known) = leases.iter_mut().find(|known| known.agent == lease.agent) else {
            if leases.len() >= MAX_AGENTS {
                // The one that runs out first makes room.
                leases.sort_by_key(|known| std::cmp::Reverse(known.until_us));
                leases.pop();
            }
            leases.push(lease);
            return;
        };
        if lease.from_us <= known.until_us && known.from_us <= lease.until_us {
            known.from_us = known.from_us.min(lease.from_us);
            known.until_us = known.until_us.max(lease.until_us);
        } else if lease.from_us > known.until_us {
            *known = lease;
        }
    }

    /// Whether another agent sees the client side of an address, and `agent` does not: an address
    /// that it announces itself it can be expected to see as well as any.
    fn elsewhere(&self, address: IpAddr, instant_us: u64, agent: &str) -> bool {
        let leases =
            self.leases.get(&address.to_canonical()).map(Vec::as_slice).unwrap_or_default();
        let mut holding = leases
            .iter()
            .filter(|lease| (lease.from_us..lease.until_us).contains(&instant_us))
            .peekable();
        holding.peek().is_some() && holding.all(|lease| *lease.agent != *agent)
    }
}

/// Whether a record is of its connection's primary observation, deciding that if it is open.
pub(crate) fn is_primary(
    record: &FlowRecord,
    agent: &Arc<str>,
    connection: &mut Connection,
    announced: &Announcements,
) -> bool {
    if !record.local_primary {
        return false;
    }
    if let Some(primary) = &connection.primary {
        return primary.is(&record.interface, agent);
    }
    if !is_best(record, agent, announced) {
        return false;
    }
    connection.primary =
        Some(Point { agent: Arc::clone(agent), interface: Arc::clone(&record.interface) });
    true
}

/// Whether a summary counts: it stands for many connections, so there is none to remember it by.
pub(crate) fn is_primary_summary(
    record: &FlowRecord,
    agent: &str,
    announced: &Announcements,
) -> bool {
    record.local_primary && is_best(record, agent, announced)
}

/// Whether no agent can be expected to see the connection from a better side.
fn is_best(record: &FlowRecord, agent: &str, announced: &Announcements) -> bool {
    let instant_us = record.interval.start_us();
    let client_is_seen = || announced.elsewhere(record.client.ip, instant_us, agent);
    let server_is_seen = || announced.elsewhere(record.server.ip, instant_us, agent);
    match record.reporter {
        Reporter::Client => true,
        Reporter::Server => !client_is_seen(),
        // An agent that sees an address as client sees it as server too.
        Reporter::Transit => !client_is_seen() && !server_is_seen(),
    }
}

#[cfg(test)]
mod tests;
