//! What an address was. Order: pod with its own address; Service; the node's pods and NodePort Services
//! that the port tells; Node; a configured CIDR; external (public) or unknown (private). Services may share
//! an address, also with nodes (an external or load-balancer IP): there each has its own ports only.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use flowtrail_schema::row::EntityKind;

use super::ownership::{Claim, Ownership};
use super::{Entity, Identity, IdentityIndex, address};
use crate::objects::Kind;

/// The moment and the place that a claim's owner is looked for.
#[derive(Clone, Copy)]
struct Sight<'a> {
    port: u16,
    instant_us: u64,
    node: &'a str,
}

impl IdentityIndex {
    /// What `address` was at `instant_us`; `port` tells apart what shares a node's address. Where
    /// two pods claim the address, one on `observing_node` wins.
    pub fn lookup(
        &self,
        address: IpAddr,
        port: u16,
        instant_us: u64,
        observing_node: &str,
    ) -> Arc<Identity> {
        let address = address.to_canonical();
        let sight = Sight { port, instant_us, node: observing_node };
        let owner = |claim| self.owner_of(claim, sight);
        let found = owner(Claim::address(address))
            .filter(|(entity, _)| entity.kind != Kind::Node)
            .or_else(|| owner(Claim::port(address, port)))
            .or_else(|| {
                let node = owner(Claim::address(address))?;
                owner(Claim::node_port(port)).or(Some(node))
            })
            .or_else(|| self.starting(Claim::address(address), sight));
        match found {
            Some((entity, uncertain)) => self.identity(entity, uncertain),
            None => match self.cidr_names.name_of(address) {
                Some(network) => Arc::clone(network),
                None => self.nobody.of(address::kind_of(address)),
            },
        }
    }

    /// Whether `port` at `address` was a known Service or container port at `instant_us`.
    pub fn listens(
        &self,
        address: IpAddr,
        port: u16,
        instant_us: u64,
        observing_node: &str,
    ) -> bool {
        let address = address.to_canonical();
        let sight = Sight { port, instant_us, node: observing_node };
        let owner = |claim| self.owner_of(claim, sight);
        owner(Claim::address(address)).is_some_and(|(entity, _)| {
            entity.ports.contains(&port)
                || entity.kind == Kind::Node && owner(Claim::node_port(port)).is_some()
        }) || owner(Claim::port(address, port)).is_some()
    }

    /// Whether an address that only has a meaning here had no known owner at `instant_us`: news of one
    /// may be on its way.
    pub fn may_become_known(&self, address: IpAddr, instant_us: u64) -> bool {
        let address = address.to_canonical();
        address::kind_of(address) == EntityKind::Unknown
            && !address.is_loopback()
            && !address.is_multicast()
            && self.lookup(address, 0, instant_us, "").kind == EntityKind::Unknown
    }

    /// The owner of a claim, and whether that is uncertain: those that this run has seen before those of
    /// earlier ones (which may have been of another cluster); pods before Services before nodes, but a
    /// Service without the port last, as others may share its address; then one on the observing node;
    /// then the later start; then, to be the same every time, the uid.
    fn owner_of(&self, claim: Claim, sight: Sight<'_>) -> Option<(&Entity, bool)> {
        let owners = self.ownerships.at(claim, sight.instant_us);
        let (ownership, entity) = self.best(owners, |ownership, entity| {
            let here = entity.kind == Kind::Pod && *entity.node == *sight.node;
            let elsewhere = entity.kind == Kind::Service
                && claim.is_address()
                && !entity.ports.contains(&sight.port);
            (entity.seen, Reverse((elsewhere, entity.kind)), here, ownership.start_us)
        })?;
        Some((entity, sight.instant_us >= ownership.certain_until_us))
    }

    /// The pod that was about to own an address nobody had, if it told so a little late.
    fn starting(&self, claim: Claim, sight: Sight<'_>) -> Option<(&Entity, bool)> {
        let owners = self.ownerships.starting(claim, sight.instant_us);
        let (_, entity) = self.best(owners, |ownership, entity| {
            (*entity.node == *sight.node, Reverse(ownership.start_us))
        })?;
        Some((entity, true))
    }

    fn best<'a, O: Ord>(
        &'a self,
        owners: impl Iterator<Item = &'a Ownership>,
        order: impl Fn(&Ownership, &Entity) -> O,
    ) -> Option<(&'a Ownership, &'a Entity)> {
        let mut owners =
            owners.filter_map(|ownership| Some((ownership, self.entities.at(ownership.entity)?)));
        let first = owners.next()?;
        // Most often there are no others.
        let ordered = |(ownership, entity): (&'a Ownership, &Entity)| {
            (order(ownership, entity), &ownership.uid)
        };
        Some(owners.fold(
            first,
            |best, other| {
                if ordered(other) >= ordered(best) { other } else { best }
            },
        ))
    }
}

/// The kind of entity that a claiming object is.
pub(super) fn entity_kind(kind: Kind) -> EntityKind {
    match kind {
        Kind::Pod => EntityKind::Pod,
        Kind::Service => EntityKind::Service,
        _ => EntityKind::Node,
    }
}
