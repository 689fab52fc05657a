//! What the kernel says of links, routes and addresses, by rtnetlink (rtnetlink(7)).
//!
//! An event only says that something changed: everything is then read anew. So an event that was
//! lost, or came while reading, cannot leave a wrong picture behind.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{error, warn};

use super::{Facts, Link, Selection, Watched};

/// Events within this time are answered by one reading: a pod's start makes a dozen, and the next
/// pod's packets are later than this.
const SETTLE_TIME: Duration = Duration::from_millis(5);

/// After a failed reading, the time until the next.
const RETRY_TIME: Duration = Duration::from_secs(1);

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

/// Changes that may wait for the reader, which takes them ten times a second. Past that, netlink's
/// events wait, and are then answered by one reading.
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
    let (connection, handle, mut events) = rtnetlink::new_multicast_connection(&[
        MulticastGroup::Link,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ])?;
    let stop = CancellationToken::new();
    tokio::spawn(stop.clone().run_until_cancelled_owned(connection));
    // The groups are joined, so what changes after this reading is an event.
    let first = selection.choose(&read(&handle).await?);
    let (sender, changes) = mpsc::channel(CHANGES);
    let mut last = first.clone();
    let stopped = stop.clone();
    let follow = async move {
        while events.next().await.is_some() {
            sleep(SETTLE_TIME).await;
            while events.try_recv().is_ok() {}
            let watched = selection.choose(&read_until_read(&handle).await);
            if watched != last && sender.send(watched.clone()).await.is_err() {
                return;
            }
            last = watched;
        }
        if !stopped.is_cancelled() {
            error!(
                "netlink ended: interfaces that come or go from now on are not noticed, restart"
            );
        }
    };
    tokio::spawn(stop.clone().run_until_cancelled_owned(follow));
    Ok(Interfaces { first, changes, _following: stop.drop_guard() })
}

async fn read_until_read(handle: &Handle) -> Facts {
    loop {
        match read(handle).await {
            Ok(facts) => return facts,
            Err(error) => warn!(%error, "cannot read the network interfaces, will retry"),
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
    let is_veth = message.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Veth)),
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
        leads_to_namespace: is_veth && has_namespace,
    })
}

fn is_default(route: &RouteMessage) -> bool {
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
