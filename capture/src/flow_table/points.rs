//! Observation points: the interfaces that packets come from, and whose addresses are behind them.

use std::net::IpAddr;
use std::sync::Arc;

use flowtrail_schema::{Interface, InterfaceKind};

/// Addresses announced for one interface at most: a pod has one for each address family, a node some
/// more. One that has others besides is a router, and what is behind it is not its own.
const MAX_ADDRESSES: usize = 16;

/// An observation point of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PointId(pub(super) u16);

#[derive(Debug)]
struct Point {
    interface: Arc<Interface>,
    /// Flows that were seen here and are not forgotten: until then the place is not given to another.
    flows: usize,
    removed: bool,
    /// Addresses that were the client of a connection, on the side that the interface leads to.
    addresses: Vec<IpAddr>,
}

#[derive(Debug, Default)]
pub(super) struct Points {
    points: Vec<Option<Point>>,
}

impl Points {
    /// An interface that comes back, as an uplink whose link was down, is the point that it was. None
    /// if there are more than a number of 16 bits can tell apart.
    pub(super) fn add(&mut self, interface: Arc<Interface>) -> Option<PointId> {
        let is_back = |point: &Point| point.removed && point.interface == interface;
        let back = self.points.iter().position(|point| point.as_ref().is_some_and(is_back));
        let free = || self.points.iter().position(Option::is_none);
        let place = back.or_else(free).unwrap_or(self.points.len());
        let id = PointId(u16::try_from(place).ok()?);
        if place == self.points.len() {
            self.points.push(None);
        }
        let new = Point { interface, flows: 0, removed: false, addresses: Vec::new() };
        let point = self.points[place].get_or_insert(new);
        point.removed = false;
        point.addresses.clear();
        Some(id)
    }

    pub(super) fn remove(&mut self, id: PointId) {
        if let Some(point) = self.get_mut(id) {
            point.removed = true;
            self.reuse(id);
        }
    }

    /// Whether packets may come from a point.
    pub(super) fn is_watched(&self, id: PointId) -> bool {
        self.get(id).is_some_and(|point| !point.removed)
    }

    pub(super) fn interface(&self, id: PointId) -> Option<&Arc<Interface>> {
        self.get(id).map(|point| &point.interface)
    }

    pub(super) fn kind(&self, id: PointId) -> Option<InterfaceKind> {
        self.get(id).map(|point| point.interface.kind)
    }

    /// Points there are, watched or not.
    pub(super) fn ids(&self) -> impl Iterator<Item = PointId> {
        (0..self.points.len()).map(|id| PointId(id as u16))
    }

    pub(super) fn hold(&mut self, id: PointId) {
        if let Some(point) = self.get_mut(id) {
            point.flows += 1;
        }
    }

    pub(super) fn release(&mut self, id: PointId) {
        if let Some(point) = self.get_mut(id) {
            point.flows -= 1;
            self.reuse(id);
        }
    }

    fn reuse(&mut self, id: PointId) {
        if let Some(place) = self.points.get_mut(id.0 as usize) {
            place.take_if(|point| point.removed && point.flows == 0);
        }
    }

    /// Learns that a client is behind a point. False if the point has too many already.
    pub(super) fn announce(&mut self, id: PointId, address: IpAddr) -> bool {
        let Some(point) = self.get_mut(id) else { return true };
        let known = point.addresses.contains(&address);
        let room = point.addresses.len() < MAX_ADDRESSES;
        if !known && room {
            point.addresses.push(address);
        }
        known || room
    }

    /// Forgets the addresses that are not to be kept.
    pub(super) fn retain_addresses(&mut self, mut keep: impl FnMut(&Interface, &IpAddr) -> bool) {
        for Point { interface, addresses, .. } in self.points.iter_mut().flatten() {
            addresses.retain(|address| keep(interface, address));
        }
    }

    /// All addresses announced, each once, in order.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        let watched = self.points.iter().flatten().filter(|point| !point.removed);
        let mut addresses: Vec<_> = watched.flat_map(|point| point.addresses.clone()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    fn get(&self, id: PointId) -> Option<&Point> {
        self.points.get(id.0 as usize)?.as_ref()
    }

    fn get_mut(&mut self, id: PointId) -> Option<&mut Point> {
        self.points.get_mut(id.0 as usize)?.as_mut()
    }
}
