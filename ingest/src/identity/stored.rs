//! Ownerships as rows of the table `identities`, and back: what a start of ingest knows of the time before.
//!
//! Rows tell the names as they were looked up (ReplicaSets, Jobs and slices are not in the table), so what
//! is restored keeps its workload until its object is listed anew.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use flowtrail_schema::row::{IdentitiesSeenRow, IdentityRow};

use super::entities::EntityKey;
use super::known::KnownAs;
use super::lookup::entity_kind;
use super::ownership::{Claim, Ownership};
use super::workload::{Owner, Workload};
use super::{Entity, IdentityIndex, MAX_CLAIMS, MAX_OBJECTS};
use crate::objects::Kind;
use crate::row::{mapped, micros};

/// The kinds that claim addresses.
const CLAIMING: [Kind; 3] = [Kind::Pod, Kind::Service, Kind::Node];

/// What the table does not know yet, and what to tell the index if it could not be told.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// For the table `identities`.
    pub rows: Vec<IdentityRow>,
    /// For the table `identities_seen`, once all rows are in the table.
    pub seen: Vec<IdentitiesSeenRow>,
    uids: Vec<Arc<str>>,
}

impl IdentityIndex {
    /// Takes out what has changed since the last time: rows of about `rows` at most. Without a rest, also
    /// when each kind was last seen: what is not told by then did not happen until then.
    pub fn take_changes(&mut self, rows: usize) -> Changes {
        let mut changes = Changes::default();
        let seen = CLAIMING.map(|kind| (kind, self.last_seen_us(kind)));
        let mut uids = self.changed.iter();
        while changes.rows.len() < rows
            && let Some(uid) = uids.next()
        {
            changes.uids.push(Arc::clone(uid));
            if let Some(entity) = self.entities.get(uid) {
                changes.rows.extend(self.rows_of(uid, entity));
            }
        }
        for uid in &changes.uids {
            self.changed.remove(uid);
        }
        if self.changed.is_empty() {
            let seen = seen.into_iter().filter(|(_, seen_us)| *seen_us > 0);
            changes.seen = seen
                .map(|(kind, seen_us)| IdentitiesSeenRow {
                    kind: entity_kind(kind).number(),
                    last_seen: micros(seen_us),
                })
                .collect();
        }
        changes
    }

    /// Whether there is something to take out.
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Puts back what could not be told.
    pub fn put_back(&mut self, changes: Changes) {
        let known = changes.uids.into_iter().filter(|uid| self.entities.has(uid));
        self.changed.extend(known);
    }

    /// Marks all that is held still as changed, so that the table's retention does not take it.
    pub fn refresh(&mut self) {
        let alive = self.entities.iter().filter(|(_, entity)| !entity.vanished);
        self.changed.extend(alive.map(|(uid, _)| Arc::clone(uid)));
    }

    /// Takes in what an earlier run knew: before any object comes. What was held still is uncertain from
    /// when it was last seen on, until its object is listed.
    pub fn restore(&mut self, rows: Vec<IdentityRow>, seen: &[IdentitiesSeenRow]) {
        for row in seen {
            if let Some(kind) = kind_of(row.kind) {
                self.seen(kind, since_epoch(row.last_seen));
            }
        }
        let mut by_uid: HashMap<Arc<str>, Vec<IdentityRow>> = HashMap::new();
        for row in rows {
            by_uid.entry(row.uid.as_str().into()).or_default().push(row);
        }
        let mut vanished = Vec::new();
        for (uid, rows) in by_uid {
            if self.entities.len() >= MAX_OBJECTS {
                self.counts.refused += 1;
                continue;
            }
            if let Some(end_us) = self.restore_one(&uid, &rows) {
                vanished.push((end_us, uid));
            }
        }
        // As they vanished, so the earliest is forgotten first.
        vanished.sort();
        vanished.into_iter().for_each(|(_, uid)| self.note_vanished(uid));
        self.generation += 1;
        self.counts.objects = self.entities.len();
    }

    /// Takes in what is known of one object; if it owns nothing any more, says since when.
    fn restore_one(&mut self, uid: &Arc<str>, rows: &[IdentityRow]) -> Option<u64> {
        // Claims given up long ago may have older names.
        let newest = rows.iter().max_by_key(|row| row.last_seen)?;
        let kind = kind_of(newest.kind)?;
        let seen_us = self.last_seen_us(kind);
        let mut claims = Vec::new();
        let mut ownerships = Vec::new();
        let mut last_end_us = 0;
        for row in rows.iter().take(MAX_CLAIMS) {
            let Some(claim) = claim_of(row) else { continue };
            let ownership = ownership_of(row, uid, seen_us);
            last_end_us = last_end_us.max(ownership.end_us);
            claims.push(claim);
            ownerships.push((claim, ownership));
        }
        let workload = Workload {
            kind: newest.workload_kind.as_str().into(),
            name: newest.workload.as_str().into(),
        };
        let (namespace, name): (Arc<str>, Arc<str>) =
            (newest.namespace.as_str().into(), newest.name.as_str().into());
        if kind == Kind::Service {
            let service = (Arc::clone(&namespace), Arc::clone(&name));
            self.restore_workload(service.clone(), workload.clone());
            if last_end_us == u64::MAX {
                self.services.insert(service, Arc::clone(uid));
            }
        }
        let owned = kind == Kind::Pod && !workload.name.is_empty();
        let owner =
            owned.then(|| Owner { kind: workload.kind, name: workload.name, uid: Arc::default() });
        let entity = Entity {
            kind,
            namespace,
            name,
            node: newest.node.as_str().into(),
            owner,
            ports: newest.ports.clone(),
            claims,
            slice_of: None,
            vanished: last_end_us != u64::MAX,
            seen: false,
            known_as: KnownAs::default(),
        };
        let (entity, _) = self.entities.put(uid, entity);
        for (claim, ownership) in ownerships {
            let ownership = Ownership { entity, ..ownership };
            self.counts.ownerships_forgotten += self.ownerships.insert(claim, ownership);
        }
        (last_end_us != u64::MAX).then_some(last_end_us)
    }

    fn rows_of(&self, uid: &Arc<str>, entity: &Entity) -> Vec<IdentityRow> {
        let workload = self.workload(entity).unwrap_or_default();
        let seen_us = self.last_seen_us(entity.kind);
        let row = |claim: &Claim| {
            let owned = self.ownerships.get(*claim, uid)?;
            let (address, port) = claim.parts();
            let ended = owned.end_us != u64::MAX;
            let end_if = |holds: bool| if holds { micros(owned.end_us) } else { 0 };
            Some(IdentityRow {
                address: address.map_or(Ipv6Addr::UNSPECIFIED, mapped),
                port: port.unwrap_or(0),
                uid: uid.to_string(),
                kind: entity_kind(entity.kind).number(),
                namespace: entity.namespace.to_string(),
                name: entity.name.to_string(),
                node: entity.node.to_string(),
                workload: workload.name.to_string(),
                workload_kind: workload.kind.to_string(),
                ports: entity.ports.clone(),
                start: micros(owned.start_us),
                last_seen: micros(owned.certain_until_us.min(seen_us)),
                released: end_if(ended && !owned.final_end),
                deleted: end_if(ended && owned.final_end),
            })
        };
        entity.claims.iter().filter_map(row).collect()
    }
}

/// As the table explains its columns; its entity is not known yet.
fn ownership_of(row: &IdentityRow, uid: &Arc<str>, kind_seen_us: u64) -> Ownership {
    let start_us = since_epoch(row.start);
    let last_seen_us = since_epoch(row.last_seen);
    let (end_us, certain_until_us) = if row.deleted != 0 {
        (since_epoch(row.deleted), since_epoch(row.deleted))
    } else if row.released != 0 && row.released >= row.last_seen {
        (since_epoch(row.released), last_seen_us)
    } else {
        (u64::MAX, last_seen_us.max(kind_seen_us))
    };
    Ownership {
        uid: Arc::clone(uid),
        entity: EntityKey::default(),
        start_us,
        exact: true,
        starting_us: start_us,
        end_us,
        certain_until_us,
        final_end: row.deleted != 0,
    }
}

fn claim_of(row: &IdentityRow) -> Option<Claim> {
    let address = IpAddr::from(row.address).to_canonical();
    let address = Some(address).filter(|_| !row.address.is_unspecified());
    Claim::from_parts(address, Some(row.port).filter(|port| *port != 0))
}

fn kind_of(number: i8) -> Option<Kind> {
    CLAIMING.into_iter().find(|kind| entity_kind(*kind).number() == number)
}

/// Microseconds since the epoch, of `DateTime64(6)`.
fn since_epoch(us: i64) -> u64 {
    us.try_into().unwrap_or(0)
}
