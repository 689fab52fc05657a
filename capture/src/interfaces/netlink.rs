//! What the kernel says of links, routes and addresses, by rtnetlink (rtnetlink(7)).
//!
//! An event only says that something changed: everything is then read anew. So an event that was
//! lost, or came while reading, cannot leave a wrong picture behind.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures::TryStreamExt;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::warn;

use super::events::Events;
use super::lives::Lives;
use super::{Facts, Link, Selection, Watched};

/// Events within this time are answered by one reading: a pod's start makes a dozen. Until then its
/// packets wait in the ring. Where readings take longer, with thousands of interfaces, so does this:
/// following takes half of a core at most.
const SETTLE_TIME: Duration = Duration::from_millis(5);

/// After a failed reading, the time until the next.
const RETRY_TIME: Duration = Duration::from_secs(1);

/// How long the kernel may take to tell everything: a million routes take it a second or two.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the interfaces are not known.
#[derive(Debug, Error)]
pub enum InterfaceError {
    /// No netlink socket.
    #[error("cannot open a netlink socket")]
    Open(#[from] io::Error),
    /// The kernel refuses to say.
    #[error("cannot read the network interfaces")]
    Read(#[from] rtnetlink::Error),
}

/// Changes that may wait for the reader, which takes them ten times a second. Past that, what changes
/// meanwhile becomes one.
const CHANGES: usize = 64;

/// The interfaces to watch, as they are now and as they become.
#[derive(Debug)]
pub struct Interfaces {
    /// As they were first.
    pub first: Watched,
    /// Every change since, so that also an interface that was there but shortly is known.
    pub changes: mpsc::Receiver<Watched>,
    _following: DropGuard,
}

/// Reads the interfaces, and follows them until the result is dropped.
///
/// # Errors
/// If the kernel does not tell. Once it has, later failures are logged and retried.
pub async fn watch(selection: Selection) -> Result<Interfaces, InterfaceError> {
    // Events have a socket of their own: if they overrun it, no answer is lost. It is there first, so
    // what changes after the reading is an event.
    let events = Events::listen()?;
    let (handle, _connection) = connect()?;
    let facts = read(&handle).await?;
    let mut lives = Lives::default();
    lives.update(&HashSet::new(), facts.indices(), Instant::now());
    let first = selection.choose(&facts, &lives, Instant::now());
    let follower = Follower { events, selection, facts, lives };
    let (sender, changes) = mpsc::channel(CHANGES);
    let stop = CancellationToken::new();
    let follow = follower.follow(first.clone(), sender);
    tokio::spawn(stop.clone().run_until_cancelled_owned(follow));
    Ok(Interfaces { first, changes, _following: stop.drop_guard() })
}

/// What the kernel said last, and what that means.
struct Follower {
    events: Events,
    selection: Selection,
    facts: Facts,
    lives: Lives,
}

impl Follower {
    async fn follow(mut self, mut last: Watched, sender: mpsc::Sender<Watched>) {
        let mut settle_time = SETTLE_TIME;
        loop {
            let exclusion = self.selection.next_exclusion(&self.facts, &self.lives, Instant::now());
            tokio::select! {
                () = self.events.changed() => {
                    sleep(settle_time).await;
                    let start = Instant::now();
                    // Before the reading: an index that went and is in use is in use again.
                    let gone = self.events.take_gone();
                    self.facts = read_until_read().await;
                    self.lives.update(&gone, self.facts.indices(), start);
                    settle_time = start.elapsed().max(SETTLE_TIME);
                }
                () = sleep_until_any(exclusion) => {}
            }
            let watched = self.selection.choose(&self.facts, &self.lives, Instant::now());
            if watched != last && sender.send(watched.clone()).await.is_err() {
                return;
            }
            last = watched;
        }
    }
}

async fn sleep_until_any(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// A socket to ask with, for as long as the guard lives.
fn connect() -> io::Result<(Handle, DropGuard)> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let stop = CancellationToken::new();
    tokio::spawn(stop.clone().run_until_cancelled_owned(connection));
    Ok((handle, stop.drop_guard()))
}

async fn read_until_read() -> Facts {
    let attempt = async || -> Result<Facts, InterfaceError> {
        let (handle, _connection) = connect()?;
        Ok(read(&handle).await?)
    };
    loop {
        match timeout(READ_TIMEOUT, attempt()).await {
            Ok(Ok(facts)) => return facts,
            Ok(Err(error)) => warn!(%error, "cannot follow the network interfaces, will retry"),
            Err(_) => warn!("the kernel does not tell the network interfaces, will retry"),
        }
        sleep(RETRY_TIME).await;
    }
}

async fn read(handle: &Handle) -> Result<Facts, rtnetlink::Error> {
    let mut facts = Facts::default();
    let mut links = handle.link().get().execute();
    while let Some(message) = links.try_next().await? {
        facts.links.extend(link(&message));
    }
    for family in [
        RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    ] {
        let mut routes = handle.route().get(family).execute();
        while let Some(route) = routes.try_next().await? {
            if is_default(&route) {
                facts.default_routes.extend(ways_out(&route));
            }
        }
    }
    let mut addresses = handle.address().get().execute();
    while let Some(message) = addresses.try_next().await? {
        let index = message.header.index;
        facts.addresses.extend(address(&message.attributes).map(|address| (index, address)));
    }
    Ok(facts)
}

fn link(message: &LinkMessage) -> Option<Link> {
    let name = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })?;
    // Netkit is what newer Cilium uses in veth's place.
    let is_pair = message.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos
            .iter()
            .any(|info| matches!(info, LinkInfo::Kind(InfoKind::Veth | InfoKind::Netkit))),
        _ => false,
    });
    // The kernel adds the peer's namespace only if it is another one.
    let has_namespace = message
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, LinkAttribute::LinkNetNsId(_)));
    Some(Link {
        index: message.header.index,
        name,
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        leads_to_namespace: is_pair && has_namespace,
    })
}

/// Of whatever table: with policy routing (a cloud's second interface, a VPN) uplinks have their own.
pub(super) fn is_default(route: &RouteMessage) -> bool {
    route.header.destination_prefix_length == 0 && route.header.kind == RouteType::Unicast
}

fn ways_out(route: &RouteMessage) -> impl Iterator<Item = u32> {
    route.attributes.iter().flat_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => vec![*index],
        RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
        _ => Vec::new(),
    })
}

/// The node's end: `IFA_ADDRESS` is the other end's on a point-to-point link with `IFA_LOCAL`.
fn address(attributes: &[AddressAttribute]) -> Option<IpAddr> {
    let local = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}
