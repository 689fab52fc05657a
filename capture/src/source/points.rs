//! Observation points of the interfaces that are watched, as they come and go. All workers look here.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use flowtrail_schema::InterfaceKind;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info};

use crate::flow_table::{PointId, Shared};
use crate::interfaces::{Interfaces, Watched, WatchedInterface};

/// An observation point.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) id: PointId,
    pub(super) kind: InterfaceKind,
    /// The loopback: it shows each packet twice, sent and received.
    pub(super) loopback: bool,
    watched: WatchedInterface,
    /// Since when the interface is gone; its last packets may still be in a ring.
    gone: Option<Instant>,
}

/// The interfaces there are now.
#[derive(Clone, Debug, Default)]
pub(super) struct Points {
    /// Observation points by their interface's index.
    pub(super) by_index: HashMap<u32, Point, RandomState>,
    /// Interfaces that are known and not watched.
    pub(super) unwanted: BTreeSet<u32>,
    /// Those of them whose packets the kernel need not hand over.
    pub(super) excluded: BTreeSet<u32>,
}

/// Follows the interfaces until nobody looks any more. What is gone is forgotten after `read_out`.
pub(super) async fn follow(
    mut interfaces: Interfaces,
    shared: Shared,
    points: watch::Sender<Arc<Points>>,
    read_out: Duration,
) {
    loop {
        let mut next = Points::clone(&points.borrow());
        let gone = next.by_index.values().filter_map(|point| point.gone).min();
        let forget = async {
            match gone {
                Some(gone) => sleep_until(gone + read_out).await,
                None => pending().await,
            }
        };
        tokio::select! {
            watched = interfaces.changes.recv() => match watched {
                Some(watched) => next.change(&watched, &shared),
                None => return,
            },
            () = forget => next.forget(Instant::now() - read_out, &shared),
            () = points.closed() => return,
        }
        points.send_replace(Arc::new(next));
    }
}

impl Points {
    /// Adds the points of new interfaces, and marks those of interfaces that are gone.
    pub(super) fn change(&mut self, watched: &Watched, shared: &Shared) {
        shared.set_node_addresses(watched.node_addresses.clone());
        self.unwanted.clone_from(&watched.unwanted);
        self.excluded.clone_from(&watched.excluded);
        for (index, point) in &mut self.by_index {
            if !watched.interfaces.contains_key(index) && point.gone.is_none() {
                info!(interface = point.watched.interface.name, "interface is gone");
                point.gone = Some(Instant::now());
            }
        }
        for (index, interface) in &watched.interfaces {
            if let Some(point) = self.by_index.get_mut(index)
                && point.watched == *interface
            {
                point.gone = None;
                continue;
            }
            // A new one, or an old one with another name or kind: that is another observation point.
            let added = add(interface, shared).map(|point| self.by_index.insert(*index, point));
            if let Some(Some(old)) = added {
                shared.remove_point(old.id);
            }
        }
    }

    /// Forgets the points of interfaces that were gone by then.
    fn forget(&mut self, then: Instant, shared: &Shared) {
        let is_gone = |point: &Point| point.gone.is_some_and(|gone| gone <= then);
        for (_, point) in self.by_index.extract_if(|_, point| is_gone(point)) {
            shared.remove_point(point.id);
        }
    }
}

fn add(interface: &WatchedInterface, shared: &Shared) -> Option<Point> {
    let (name, kind) = (&interface.interface.name, interface.interface.kind);
    let Some(id) = shared.add_point(interface.interface.clone()) else {
        error!(interface = name, "too many interfaces, this one is not watched");
        return None;
    };
    info!(interface = name, %kind, "watching interface");
    let watched = interface.clone();
    Some(Point { id, kind, loopback: interface.loopback, watched, gone: None })
}
