//! What the kernel tells of changes, condensed: that something changed, and which interfaces went.
//!
//! Always taken at once, so that neither the kernel's queue nor one here grows; if the kernel's
//! overruns all the same, that counts as a change.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::MulticastGroup;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::warn;

use super::netlink::is_default;

/// Time between tries to follow the kernel again, should its socket fail.
const RETRY_TIME: Duration = Duration::from_secs(1);

/// Interfaces remembered as gone until the next reading. More at once are noticed by their absence
/// alone, which misses only an index that is in use again by then.
const MAX_GONE: usize = 65_536;

/// The news since they were last taken.
#[derive(Debug)]
pub(super) struct Events {
    shared: Arc<Shared>,
    _taking: DropGuard,
}

#[derive(Debug, Default)]
struct Shared {
    gone: Mutex<HashSet<u32>>,
    changed: Notify,
}

impl Events {
    /// Joins the kernel's groups; what changes from now on is news.
    pub(super) fn listen() -> io::Result<Self> {
        let stream = Stream::open()?;
        let shared = Arc::new(Shared::default());
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(take(stream, Arc::clone(&shared))));
        Ok(Self { shared, _taking: stop.drop_guard() })
    }

    /// Waits until there is any.
    pub(super) async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    /// Indices of interfaces that went since the last call, also if there is another one by now.
    pub(super) fn take_gone(&self) -> HashSet<u32> {
        std::mem::take(&mut *self.shared.gone.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

type Receiver = futures::channel::mpsc::UnboundedReceiver<(
    netlink_packet_core::NetlinkMessage<RouteNetlinkMessage>,
    netlink_sys::SocketAddr,
)>;

struct Stream {
    receiver: Receiver,
    _connection: DropGuard,
}

impl Stream {
    fn open() -> io::Result<Self> {
        let (connection, _, receiver) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ])?;
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(connection));
        Ok(Self { receiver, _connection: stop.drop_guard() })
    }
}

async fn take(mut stream: Stream, shared: Arc<Shared>) {
    loop {
        while let Some((message, _)) = stream.receiver.next().await {
            shared.take(&message.payload);
        }
        warn!("netlink ended, will follow the interfaces anew");
        stream = loop {
            sleep(RETRY_TIME).await;
            match Stream::open() {
                Ok(stream) => break stream,
                Err(error) => warn!(%error, "cannot follow the interfaces, will retry"),
            }
        };
        shared.changed.notify_one();
    }
}

impl Shared {
    fn take(&self, payload: &NetlinkPayload<RouteNetlinkMessage>) {
        if let NetlinkPayload::InnerMessage(message) = payload {
            match message {
                // A bridge says so too, in its own family, when an interface merely leaves it.
                RouteNetlinkMessage::DelLink(link)
                    if link.header.interface_family == AddressFamily::Unspec =>
                {
                    let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
                    if gone.len() < MAX_GONE {
                        gone.insert(link.header.index);
                    }
                }
                // Pods bring routes of their own, a router may have a million: only default ones
                // decide.
                RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route)
                    if !is_default(route) =>
                {
                    return;
                }
                _ => {}
            }
        }
        self.changed.notify_one();
    }
}
