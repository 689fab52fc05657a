//! What the flow tables of all workers share: observation points, and which observations are of one
//! connection. Taken when a connection begins, moves on or ends, and for records; not for packets.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flowtrail_schema::{Interface, InterfaceKind, Reporter};

use super::flow::Flow;
use super::key::End;
use super::listeners::Listeners;
use super::observations::{Facts, Observations};
use super::points::{PointId, Points};

/// What flow tables share. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<Common>>);

#[derive(Debug, Default)]
pub(super) struct Common {
    pub(super) observations: Observations,
    pub(super) points: Points,
    pub(super) listeners: Listeners,
    pub(super) node_addresses: HashSet<IpAddr>,
    pub(super) id_conflicts: u64,
    pub(super) addresses_refused: u64,
}

impl Shared {
    /// Adds an observation point; none if there are too many at once (65,535).
    pub fn add_point(&self, interface: Arc<Interface>) -> Option<PointId> {
        self.lock().points.add(interface)
    }

    /// Removes an observation point. Its connections are not closed by that; they idle out. What other
    /// points still see of those it was the primary observation of counts in no edge: the choice is for
    /// life, and packets that never got here were not the connection's.
    pub fn remove_point(&self, point: PointId) {
        self.lock().points.remove(point);
    }

    /// Sets the node's own addresses, which tell what of an uplink's connections is the node's.
    pub fn set_node_addresses(&self, addresses: HashSet<IpAddr>) {
        let Common { node_addresses, points, .. } = &mut *self.lock();
        *node_addresses = addresses;
        points.retain_addresses(|interface, address| {
            interface.kind != InterfaceKind::Uplink || node_addresses.contains(address)
        });
    }

    /// Observation points that are watched.
    pub fn watched(&self) -> u32 {
        let points = &self.lock().points;
        points.ids().filter(|id| points.is_watched(*id)).count() as u32
    }

    /// The addresses whose client side this agent observes, in order.
    pub fn announced_addresses(&self) -> Vec<IpAddr> {
        self.lock().points.addresses()
    }

    /// Connections whose id was in use by another tuple on the same interface, and client addresses not
    /// announced because their interface has too many.
    pub fn refusals(&self) -> (u64, u64) {
        let common = self.lock();
        (common.id_conflicts, common.addresses_refused)
    }

    /// A worker that panicked leaves nothing behind that another could not go on with.
    pub(super) fn lock(&self) -> MutexGuard<'_, Common> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Common {
    /// What is known of a flow that the choice depends on.
    pub(super) fn facts(&self, flow: &Flow) -> Facts {
        let identity = &flow.identity;
        let leads_to = match identity.inside {
            Some(end) if end == identity.client => Reporter::Client,
            Some(_) => Reporter::Server,
            None => Reporter::Transit,
        };
        let is_uplink = self.points.kind(flow.key.point) == Some(InterfaceKind::Uplink);
        let own = match self.own_end(flow) {
            Some(end) if is_uplink && !flow.is_others_socket => match end == identity.client {
                true => Reporter::Client,
                false => Reporter::Server,
            },
            _ => Reporter::Transit,
        };
        Facts { leads_to, own, one_sided: flow.one_sided() }
    }

    /// The end whose address is the node's: the client, if both are.
    pub(super) fn own_end(&self, flow: &Flow) -> Option<End> {
        let is_own = |end: End| self.node_addresses.contains(&flow.key.endpoint(end).ip);
        let client = flow.identity.client;
        [client, client.other()].into_iter().find(|end| is_own(*end))
    }
}
