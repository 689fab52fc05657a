//! A connection as it is seen at one point: in a record, or, after a restart, in the rows of some.

use std::sync::Arc;

use flowtrail_schema::{Endpoint, FlowRecord, IdKind, Reporter};

use crate::naming::ConnectionNames;
use crate::points::Point;

/// What the table's rows of one observation of a connection tell, to go on from after a restart.
#[derive(Clone, Debug)]
pub(crate) struct Restored {
    pub(crate) connection_id: u64,
    pub(crate) id_kind: IdKind,
    pub(crate) point: Arc<Point>,
    pub(crate) reporter: Reporter,
    pub(crate) client: Endpoint,
    pub(crate) server: Endpoint,
    /// Time of the first packet in these rows, microseconds since the epoch.
    pub(crate) first_seen_us: u64,
    /// Time of the last packet in these rows, microseconds since the epoch.
    pub(crate) last_seen_us: u64,
    /// The rows are of the connection's primary observation.
    pub(crate) primary: bool,
    /// The names in the latest row, if they were resolved.
    pub(crate) names: Option<Arc<ConnectionNames>>,
    /// Where the direction was inferred: the end that turned out to be the server.
    pub(crate) inferred_server: Option<Endpoint>,
}

/// What of a record, or of its rows, tells which connection it is of, and where it was seen.
#[derive(Clone, Copy)]
pub(super) struct Sighting<'a> {
    pub(super) connection_id: u64,
    pub(super) id_kind: IdKind,
    pub(super) point: &'a Arc<Point>,
    pub(super) reporter: Reporter,
    pub(super) client: Endpoint,
    pub(super) server: Endpoint,
    pub(super) first_seen_us: u64,
    pub(super) last_seen_us: u64,
}

impl<'a> Sighting<'a> {
    pub(super) fn of(record: &'a FlowRecord, point: &'a Arc<Point>) -> Self {
        Self {
            connection_id: record.connection_id,
            id_kind: record.id_kind,
            point,
            reporter: record.reporter,
            client: record.client,
            server: record.server,
            first_seen_us: record.first_seen_us,
            last_seen_us: record.last_seen_us,
        }
    }

    pub(super) fn of_restored(restored: &'a Restored) -> Self {
        Self {
            connection_id: restored.connection_id,
            id_kind: restored.id_kind,
            point: &restored.point,
            reporter: restored.reporter,
            client: restored.client,
            server: restored.server,
            first_seen_us: restored.first_seen_us,
            last_seen_us: restored.last_seen_us,
        }
    }

    /// The server's half of the id; 0 in a partial one, and where there are no halves.
    pub(super) fn server_isn(&self) -> u32 {
        match self.id_kind {
            IdKind::Complete => self.connection_id as u32,
            IdKind::Partial | IdKind::TupleHash => 0,
        }
    }
}

/// Whether two pairs of ends are the same, whichever is the client: rows have them turned round where that
/// was inferred.
pub(super) fn same_ends(one: (Endpoint, Endpoint), other: (Endpoint, Endpoint)) -> bool {
    one == other || one == (other.1, other.0)
}
