//! Between agents: which one of the local primaries of a connection is *the* primary, counted in edges.
//!
//! Of a connection's local primaries it is the one on the client's side, if some agent announces the
//! client's address; else the server's; else the first. The first decision stays for the connection's life.
//! An agent's own announcement does not count against it: it has one local primary of a connection, so
//! it will send no better one. The decision is a pure function of the partition's log: no clock, no chunk,
//! no name has a part in it.
//!
//! Summaries have no connection to remember a decision by: for them the announcements alone decide. Where
//! one side of a connection is in a summary and the other is not (one agent folded more than the
//! other in the same outage), what was decided for the connection before it may count both or neither.

use std::sync::Arc;

use flowtrail_schema::{Detail, FlowRecord, Reporter};

use crate::connections::Connection;
use crate::points::Point;

pub(crate) use announcements::Announcements;

mod announcements;

/// Whether a record is of its connection's primary observation, deciding that if it is open.
pub(crate) fn is_primary(
    record: &FlowRecord,
    point: &Arc<Point>,
    connection: &mut Connection,
    announced: &Announcements,
) -> bool {
    if !record.local_primary {
        return false;
    }
    if let Some(primary) = &connection.primary {
        return primary.is(point);
    }
    if !is_best(record, &point.agent, announced) {
        return false;
    }
    connection.primary = Some(Arc::clone(point));
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
    let folded = record.detail != Detail::Flow;
    let client_is_seen = || announced.elsewhere(record.client.ip, record.interval, folded, agent);
    let server_is_seen = || announced.elsewhere(record.server.ip, record.interval, folded, agent);
    match record.reporter {
        Reporter::Client => true,
        Reporter::Server => !client_is_seen(),
        // An agent that sees an address as client sees it as server too.
        Reporter::Transit => !client_is_seen() && !server_is_seen(),
    }
}

#[cfg(test)]
mod tests;
