//! Intervals of ownership: who held an address, a node's port or a node port, and from when to when.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use super::entities::EntityKey;

/// Owners remembered for one claim, at most: an address that Jobs reuse every minute keeps four
/// hours. Beyond it the one that ended earliest is forgotten and counted.
pub(super) const MAX_OWNERS: usize = 256;

/// How long before its start was told a pod may have used its address already: the kubelet starts
/// containers at once, and tells of the sandbox when it next looks (every second), then updates the status.
const STARTING_US: u64 = 5_000_000;

/// Something that one object at a time owns: an address, a port of a node's address (a hostNetwork
/// pod, a host port), or a port of every node (NodePort).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    address: Option<IpAddr>,
    port: Option<u16>,
}

impl Hash for Claim {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (address, family) = match self.address {
            Some(IpAddr::V4(address)) => (address.to_bits().into(), 4_u64),
            Some(IpAddr::V6(address)) => (address.to_bits(), 6),
            None => (0, 0),
        };
        state.write_u128(address);
        state.write_u64(family << 32 | self.port.map_or(1 << 16, u64::from));
    }
}

impl Claim {
    pub(super) fn address(address: IpAddr) -> Self {
        Self { address: Some(address), port: None }
    }

    pub(super) fn port(address: IpAddr, port: u16) -> Self {
        Self { address: Some(address), port: Some(port) }
    }

    pub(super) fn node_port(port: u16) -> Self {
        Self { address: None, port: Some(port) }
    }

    /// Whether it is of a whole address.
    pub(super) fn is_address(self) -> bool {
        self.port.is_none()
    }

    /// The address, unless it is a port of every node; and the port, unless it is of a whole address.
    pub(super) fn parts(self) -> (Option<IpAddr>, Option<u16>) {
        (self.address, self.port)
    }

    /// Made of [`Claim::parts`]; `None` if there are none.
    pub(super) fn from_parts(address: Option<IpAddr>, port: Option<u16>) -> Option<Self> {
        (address.is_some() || port.is_some()).then_some(Self { address, port })
    }
}

/// When an object began, and has it ended, to own what it claims.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) start_us: u64,
    /// The start is the moment itself, not the best guess at it.
    pub(super) exact: bool,
    /// From here on it may have owned already, if nobody else did; `start_us` at the latest.
    pub(super) starting_us: u64,
    /// Its phase is final: it owns nothing any more.
    pub(super) finished: bool,
    /// When that was, if the object tells.
    pub(super) finished_us: Option<u64>,
}

/// One object's hold on a claim: `[start, end)`, widest as far as known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ownership {
    pub(super) uid: Arc<str>,
    pub(super) entity: EntityKey,
    pub(super) start_us: u64,
    pub(super) exact: bool,
    pub(super) starting_us: u64,
    /// `u64::MAX` while it is held.
    pub(super) end_us: u64,
    /// From here on the object may have been gone already.
    pub(super) certain_until_us: u64,
    /// The object is gone for good: it cannot hold this again.
    pub(super) final_end: bool,
}

/// How a claim ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// The object was seen to be deleted: nothing of it comes back.
    Deleted,
    /// The object was seen to give this up, and may claim it again.
    Released,
    /// The object was found missing: it was last seen at this time, microseconds since the epoch.
    Missing(u64),
}

/// What a claim changed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Claimed {
    /// Who owned what from when to when is another than before.
    pub(super) changed: bool,
    /// Others forgotten for it.
    pub(super) forgotten: u64,
}

#[derive(Debug, Default)]
pub(super) struct Ownerships {
    by_claim: HashMap<Claim, SmallVec<[Ownership; 1]>, RandomState>,
}

impl Ownerships {
    /// Records a claim as an object makes it.
    pub(super) fn claim(
        &mut self,
        claim: Claim,
        (uid, entity): (&Arc<str>, EntityKey),
        life: Life,
        now_us: u64,
    ) -> Claimed {
        let end_us = if life.finished { life.finished_us.unwrap_or(now_us) } else { u64::MAX };
        if let Some(known) = self.get_mut(claim, uid) {
            let before = (known.start_us, known.end_us);
            if life.exact {
                let start_us = if known.exact { known.start_us } else { u64::MAX };
                known.start_us = start_us.min(life.start_us);
                known.exact = true;
            }
            known.starting_us = known.starting_us.min(life.starting_us);
            if !life.finished || known.end_us == u64::MAX {
                known.end_us = end_us;
                known.final_end = life.finished;
                known.certain_until_us = end_us;
            }
            let changed = before != (known.start_us, known.end_us);
            return Claimed { changed, forgotten: 0 };
        }
        let forgotten = self.insert(
            claim,
            Ownership {
                uid: Arc::clone(uid),
                entity,
                start_us: life.start_us,
                exact: life.exact,
                starting_us: life.starting_us,
                end_us,
                certain_until_us: end_us,
                final_end: life.finished,
            },
        );
        Claimed { changed: true, forgotten }
    }

    /// Adds an ownership that is not known yet. Returns how many others were forgotten for it.
    pub(super) fn insert(&mut self, claim: Claim, ownership: Ownership) -> u64 {
        let owners = self.by_claim.entry(claim).or_default();
        let mut forgotten = 0;
        if owners.len() >= MAX_OWNERS {
            let earliest = (0..owners.len())
                .min_by_key(|index| owners.get(*index).map(|owner| (owner.end_us, owner.start_us)));
            if let Some(index) = earliest {
                owners.swap_remove(index);
                forgotten = 1;
            }
        }
        owners.push(ownership);
        forgotten
    }

    /// Ends a claim that is held still. Returns whether it was.
    pub(super) fn end(&mut self, claim: Claim, uid: &str, end: End, now_us: u64) -> bool {
        let Some(owner) = self.get_mut(claim, uid).filter(|owner| owner.end_us == u64::MAX) else {
            return false;
        };
        owner.end_us = now_us;
        owner.final_end = matches!(end, End::Deleted);
        owner.certain_until_us = match end {
            End::Missing(last_seen_us) if owner.certain_until_us == u64::MAX => last_seen_us,
            // Of an earlier run, and not seen in this one.
            End::Missing(_) => owner.certain_until_us,
            End::Deleted | End::Released => now_us,
        }
        .min(now_us);
        true
    }

    /// All who held a claim at an instant.
    pub(super) fn at(&self, claim: Claim, instant_us: u64) -> impl Iterator<Item = &Ownership> {
        self.all(claim)
            .iter()
            .filter(move |owner| (owner.start_us..owner.end_us).contains(&instant_us))
    }

    /// All who may have held a claim at an instant that is a little before their start.
    pub(super) fn starting(
        &self,
        claim: Claim,
        instant_us: u64,
    ) -> impl Iterator<Item = &Ownership> {
        self.all(claim).iter().filter(move |owner| {
            let from_us = owner.starting_us.max(owner.start_us.saturating_sub(STARTING_US));
            (from_us..owner.start_us.min(owner.end_us)).contains(&instant_us)
        })
    }

    /// An object's hold on a claim.
    pub(super) fn get(&self, claim: Claim, uid: &str) -> Option<&Ownership> {
        self.all(claim).iter().find(|owner| *owner.uid == *uid)
    }

    fn get_mut(&mut self, claim: Claim, uid: &str) -> Option<&mut Ownership> {
        self.by_claim.get_mut(&claim)?.iter_mut().find(|owner| *owner.uid == *uid)
    }

    fn all(&self, claim: Claim) -> &[Ownership] {
        self.by_claim.get(&claim).map(SmallVec::as_slice).unwrap_or_default()
    }

    /// Forgets what an object held.
    pub(super) fn forget(&mut self, uid: &str, claims: &[Claim]) {
        for claim in claims {
            if let Some(owners) = self.by_claim.get_mut(claim) {
                owners.retain(|owner| *owner.uid != *uid);
                if owners.is_empty() {
                    self.by_claim.remove(claim);
                }
            }
        }
    }
}
