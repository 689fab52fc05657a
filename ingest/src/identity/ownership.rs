//! Intervals of ownership: who held an address, a node's port or a node port, and from when to when.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

/// Owners remembered for one claim, at most: an address that Jobs reuse every minute keeps four
/// hours. Beyond it the one that ended earliest is forgotten and counted.
pub(super) const MAX_OWNERS: usize = 256;

/// Something that one object at a time owns: an address, a port of a node's address (a hostNetwork
/// pod, a host port), or a port of every node (NodePort).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Claim {
    address: Option<IpAddr>,
    port: Option<u16>,
}

impl Claim {
    pub(super) fn address(address: IpAddr) -> Self {
        Self { address: Some(address), port: None }
    }

    pub(super) fn port(address: IpAddr, port: u16) -> Self {
        Self { address: Some(address), port: Some(port) }
    }

    /// Whether it is of a whole address.
    pub(super) fn is_address(self) -> bool {
        self.port.is_none()
    }

    pub(super) fn node_port(port: u16) -> Self {
        Self { address: None, port: Some(port) }
    }
}

/// When an object began, and has it ended, to own what it claims.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) start_us: u64,
    /// The start is the moment itself, not the best guess at it.
    pub(super) exact: bool,
    /// Its phase is final: it owns nothing any more.
    pub(super) finished: bool,
    /// When that was, if the object tells.
    pub(super) finished_us: Option<u64>,
}

/// One object's hold on a claim: `[start, end)`, widest as far as known.
#[derive(Clone, Debug)]
pub(super) struct Ownership {
    pub(super) uid: Arc<str>,
    pub(super) start_us: u64,
    end_us: u64,
    /// From here on the object may have been gone already.
    pub(super) certain_until_us: u64,
}

#[derive(Debug, Default)]
pub(super) struct Ownerships {
    by_claim: HashMap<Claim, Vec<Ownership>, RandomState>,
}

impl Ownerships {
    /// Records a claim as an object makes it. Returns how many others were forgotten for it.
    pub(super) fn claim(&mut self, claim: Claim, uid: &Arc<str>, life: Life, now_us: u64) -> u64 {
        let owners = self.by_claim.entry(claim).or_default();
        let end_us = if life.finished { life.finished_us.unwrap_or(now_us) } else { u64::MAX };
        if let Some(known) = owners.iter_mut().find(|known| known.uid == *uid) {
            if life.exact {
                known.start_us = known.start_us.min(life.start_us);
            }
            if !life.finished || known.end_us == u64::MAX {
                known.end_us = end_us;
                known.certain_until_us = end_us;
            }
            return 0;
        }
        let mut forgotten = 0;
        if owners.len() >= MAX_OWNERS {
            let earliest = (0..owners.len())
                .min_by_key(|index| owners.get(*index).map(|owner| (owner.end_us, owner.start_us)));
            if let Some(index) = earliest {
                owners.swap_remove(index);
                forgotten = 1;
            }
        }
        owners.push(Ownership {
            uid: Arc::clone(uid),
            start_us: life.start_us,
            end_us,
            certain_until_us: end_us,
        });
        forgotten
    }

    /// Ends a claim that is held still; certain only until `last_seen_us`.
    pub(super) fn end(&mut self, claim: Claim, uid: &str, last_seen_us: u64, now_us: u64) {
        let owners = self.by_claim.get_mut(&claim).map(Vec::as_mut_slice).unwrap_or_default();
        for owner in owners.iter_mut().filter(|owner| *owner.uid == *uid) {
            if owner.end_us == u64::MAX {
                owner.end_us = now_us;
                owner.certain_until_us = last_seen_us.min(now_us);
            }
        }
    }

    /// All who held a claim at an instant.
    pub(super) fn at(&self, claim: Claim, instant_us: u64) -> impl Iterator<Item = &Ownership> {
        let owners = self.by_claim.get(&claim).map(Vec::as_slice).unwrap_or_default();
        owners.iter().filter(move |owner| (owner.start_us..owner.end_us).contains(&instant_us))
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
