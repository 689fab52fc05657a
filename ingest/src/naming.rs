//! Names for a record's two ends: from the identity index, and from what other observations of the
//! connection show behind NAT.
//!
//! The client's side of a connection shows the Service it called, the server's side the pod that
//! answered (or, masqueraded, the true client is on the client's side). Names are those of the
//! connection's first packets and stay for its life; only what was unknown may become known.

use std::borrow::Cow;
use std::sync::Arc;

use flowtrail_schema::row::EntityKind;
use flowtrail_schema::{Endpoint, FlowRecord, IdKind, Reporter};
use smallvec::SmallVec;

use crate::connections::{Connection, Observation};
use crate::identity::{Identity, IdentityIndex};

/// The names of a connection's ends.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConnectionNames {
    pub(crate) client: End,
    pub(crate) server: End,
    /// The Service that the client called.
    pub(crate) service: Option<Arc<Identity>>,
}

/// One end, behind all NAT that some observation sees through.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct End {
    /// The end itself; as the record shows it, if no observation shows better.
    pub(crate) real: Endpoint,
    pub(crate) identity: Arc<Identity>,
}

/// The record with its direction turned round, if that was inferred and only the other end listens.
/// The first finding stays with the connection, so that all its rows have one direction.
pub(crate) fn directed<'a>(
    record: &'a FlowRecord,
    node: &str,
    connection: Option<&mut Connection>,
    index: &IdentityIndex,
) -> Cow<'a, FlowRecord> {
    if !record.direction_inferred {
        return Cow::Borrowed(record);
    }
    let listens = |end: Endpoint| index.listens(end.ip, end.port, record.first_seen_us, node);
    let known = connection.as_ref().and_then(|connection| connection.inferred_server);
    let server = known.unwrap_or_else(|| {
        if listens(record.client) && !listens(record.server) {
            record.client
        } else {
            record.server
        }
    });
    if let Some(connection) = connection {
        connection.inferred_server = Some(server);
    }
    if server == record.client { Cow::Owned(turned_round(record)) } else { Cow::Borrowed(record) }
}

/// Client and server change places, and all that is told of one is told of the other.
fn turned_round(record: &FlowRecord) -> FlowRecord {
    let mut turned = record.clone();
    std::mem::swap(&mut turned.client, &mut turned.server);
    std::mem::swap(&mut turned.sent, &mut turned.received);
    std::mem::swap(&mut turned.closed.reset_by_client, &mut turned.closed.reset_by_server);
    turned.reporter = match record.reporter {
        Reporter::Client => Reporter::Server,
        Reporter::Server => Reporter::Client,
        Reporter::Transit => Reporter::Transit,
    };
    turned
}

/// The names for a record (already [`directed`]).
pub(crate) fn named(
    record: &FlowRecord,
    node: &str,
    connection: Option<&mut Connection>,
    index: &IdentityIndex,
) -> Arc<ConnectionNames> {
    let own =
        Sight { node, reporter: record.reporter, client: record.client, server: record.server };
    // A partial id is no proof that two observations are of one connection, and its life is short.
    let proven = |connection: &&mut Connection| {
        record.id_kind == IdKind::TupleHash || connection.is_complete()
    };
    let Some(connection) = connection.filter(proven) else {
        return Arc::new(resolve(&own, &[], record.first_seen_us, index));
    };
    let with = ResolvedWith {
        observations: connection.observations.len(),
        index: Some((index.generation(), connection.first_seen_us())),
    };
    if let Some(names) = connection.names.as_ref()
        && connection.resolved_with.is_some_and(|resolved| resolved.covers(with))
    {
        return Arc::clone(names);
    }
    let others = connection.observations.iter().filter(|_| record.id_kind != IdKind::TupleHash);
    let others: SmallVec<[Sight<'_>; 2]> =
        others.map(Sight::of).filter(|other| *other != own).collect();
    let resolved = resolve(&own, &others, connection.first_seen_us(), index);
    let names = match &connection.names {
        Some(known) if **known == resolved => Arc::clone(known),
        Some(known) => Arc::new(known.improved(&resolved)),
        None => Arc::new(resolved),
    };
    let servers = others.iter().map(|other| other.server).chain([own.server]);
    let index = with.index.filter(|_| !names.is_settled(servers));
    connection.resolved_with = Some(ResolvedWith { index, ..with });
    connection.names = Some(Arc::clone(&names));
    names
}

/// What a connection's names were resolved with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResolvedWith {
    observations: usize,
    /// The state of the index, and the instant that it was asked for; `None` if nothing but another
    /// observation could add to the names.
    index: Option<(u64, u64)>,
}

impl ResolvedWith {
    /// Whether names that are resolved with this are the same as with the other.
    fn covers(self, other: Self) -> bool {
        self.observations == other.observations && (self.index.is_none() || self == other)
    }
}

/// A connection's ends as one observation shows them.
#[derive(PartialEq)]
struct Sight<'a> {
    node: &'a str,
    reporter: Reporter,
    client: Endpoint,
    server: Endpoint,
}

impl<'a> Sight<'a> {
    fn of(observation: &'a Observation) -> Self {
        Self {
            node: &observation.point.node,
            reporter: observation.reporter,
            client: observation.client,
            server: observation.server,
        }
    }
}

fn resolve(
    own: &Sight<'_>,
    others: &[Sight<'_>],
    instant_us: u64,
    index: &IdentityIndex,
) -> ConnectionNames {
    let end = |sight: &Sight<'_>, endpoint: Endpoint| End {
        real: endpoint,
        identity: index.lookup(endpoint.ip, endpoint.port, instant_us, sight.node),
    };
    let (client, mut server) = (end(own, own.client), end(own, own.server));
    let called_service = |called: &End| {
        (called.identity.kind == EntityKind::Service).then(|| Arc::clone(&called.identity))
    };
    let mut service = called_service(&server);
    let mut best_client = (own.reporter == Reporter::Client, client);
    let mut near_server = own.reporter == Reporter::Server;
    for other in others {
        let near = other.reporter == Reporter::Client;
        let seen = end(other, other.client);
        if (client_rank(&seen), near) > (client_rank(&best_client.1), best_client.0) {
            best_client = (near, seen);
        }
        let near = other.reporter == Reporter::Server;
        let seen = end(other, other.server);
        service = service.or_else(|| called_service(&seen));
        if (server_rank(&seen), near) > (server_rank(&server), near_server) {
            (near_server, server) = (near, seen);
        }
    }
    ConnectionNames { client: best_client.1, server, service }
}

/// How much an identity says about who is behind a client's address. A node may stand for
/// whoever it masquerades, also for someone outside.
fn client_rank(end: &End) -> u8 {
    match end.identity.kind {
        EntityKind::Unknown => 0,
        EntityKind::Node | EntityKind::Service => 1,
        EntityKind::External => 2,
        EntityKind::Pod => 3,
    }
}

/// How much an identity says about who is behind a server's address: a Service stands for its
/// endpoints, an outside address perhaps for a load balancer.
fn server_rank(end: &End) -> u8 {
    match end.identity.kind {
        EntityKind::Unknown => 0,
        EntityKind::External => 1,
        EntityKind::Service => 2,
        EntityKind::Node => 3,
        EntityKind::Pod => 4,
    }
}

impl ConnectionNames {
    /// Whether nothing but another observation could add to these names: both ends are pods, and any
    /// other server that was called is a Service known by name.
    fn is_settled(&self, mut servers: impl Iterator<Item = Endpoint>) -> bool {
        let Self { client, server, service } = self;
        client.identity.kind == EntityKind::Pod
            && server.identity.kind == EntityKind::Pod
            && (service.is_some() || servers.all(|called| called == server.real))
    }

    /// These names, with what was unknown (also: who is behind NAT) taken from newer ones.
    pub(crate) fn improved(&self, newer: &Self) -> Self {
        let better = |known: &End, newer: &End, rank: fn(&End) -> u8| {
            if rank(newer) > rank(known) { newer.clone() } else { known.clone() }
        };
        Self {
            client: better(&self.client, &newer.client, client_rank),
            server: better(&self.server, &newer.server, server_rank),
            service: self.service.as_ref().or(newer.service.as_ref()).cloned(),
        }
    }
}

#[cfg(test)]
mod tests;
