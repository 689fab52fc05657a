//! The stage of a case: two namespaces with something between them, sockets inside.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};
use socket2::{Domain, Protocol, Socket, Type};

use super::conversation::pause_ms;
use super::recording::Recording;
use super::wire::Wire;
use crate::lab::{Lab, Namespace};

/// Addresses of the two ends, for documentation (RFC 5737, RFC 3849). The client's is the lower.
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The server.
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The client's other address.
pub(super) const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The server's other address.
pub(super) const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// Interface of each end.
pub(super) const ETH0: &str = "eth0";

/// The server's port, where nothing speaks for another.
pub(super) const PORT: u16 = 80;

/// No step of a case takes longer, but for pauses.
const PATIENCE: Duration = Duration::from_secs(40);

const MACS: [&str; 2] = ["02:00:00:00:00:01", "02:00:00:00:00:02"];

/// What is between the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// A relay in user space.
    Wire,
    /// A veth pair: segmentation is left to the other end.
    Direct,
    /// Two relays, and between them a trunk whose frames carry a VLAN tag.
    Vlan(u16),
    /// A router that translates: a Service's address to the server's, the client's to its own.
    Router,
}

/// Two ends and what is between them.
pub(super) struct Stage {
    /// The relay, if there is one.
    wire: Option<Wire>,
    /// Where the client's sockets are.
    pub(super) client: Namespace,
    /// Where the server's sockets are.
    pub(super) server: Namespace,
    /// What is between them, if it is a namespace.
    pub(super) middle: Namespace,
    directory: PathBuf,
    _lab: Lab,
}

impl Stage {
    /// Sets a stage. Captures go to a directory.
    pub(super) fn set(name: &str, path: Path, directory: PathBuf) -> Result<Self> {
        let mut lab = Lab::new(&format!("flowtrail-golden-{name}"))?;
        let [client, server, middle] =
            ["client", "server", "middle"].map(|role| lab.namespace(role));
        let mut stage = Self {
            wire: None,
            client: client?,
            server: server?,
            middle: middle?,
            directory,
            _lab: lab,
        };
        match path {
            Path::Direct => stage.direct()?,
            Path::Wire => stage.wired(None)?,
            Path::Vlan(id) => stage.wired(Some(id))?,
            Path::Router => stage.routed()?,
        }
        Ok(stage)
    }

    /// The relay.
    pub(super) fn wire(&self) -> Result<&Wire> {
        self.wire.as_ref().context("this stage has no wire")
    }

    fn direct(&self) -> Result<()> {
        veth(&self.client, ETH0, &self.server, ETH0)?;
        self.address_ends()
    }

    fn wired(&mut self, vlan: Option<u16>) -> Result<()> {
        veth(&self.client, ETH0, &self.middle, "to-client")?;
        veth(&self.server, ETH0, &self.middle, "to-server")?;
        for end in [&self.client, &self.server] {
            // What the relay reads must not be larger than what it may write.
            end.ip(["link", "set", ETH0, "gso_max_segs", "1"])?;
        }
        self.address_ends()?;
        let ends = ["to-client", "to-server"];
        self.wire = Some(match vlan {
            None => Wire::connect(&self.middle, ends, None)?,
            Some(id) => {
                veth(&self.middle, "trunk0", &self.middle, "trunk1")?;
                Wire::connect(&self.middle, ["to-server", "trunk1"], Some(id))?;
                Wire::connect(&self.middle, ["to-client", "trunk0"], Some(id))?
            }
        });
        Ok(())
    }

    fn address_ends(&self) -> Result<()> {
        let ends = [(&self.client, CLIENT, CLIENT6), (&self.server, SERVER, SERVER6)];
        for (n, (namespace, ip, ip6)) in ends.into_iter().enumerate() {
            let (_, peer, peer6) = ends[1 - n];
            namespace.ip(["link", "set", ETH0, "address", MACS[n]])?;
            namespace.ip(["address", "add", &format!("{ip}/24"), "dev", ETH0])?;
            namespace.ip(["address", "add", &format!("{ip6}/64"), "dev", ETH0, "nodad"])?;
            for peer in [peer.to_string(), peer6.to_string()] {
                namespace.ip(["neigh", "add", &peer, "lladdr", MACS[1 - n], "dev", ETH0])?;
            }
        }
        Ok(())
    }

    fn routed(&self) -> Result<()> {
        let router = &self.middle;
        veth(&self.client, ETH0, router, "to-client")?;
        veth(&self.server, ETH0, router, "to-server")?;
        for (end, ip, link, gateway) in [
            (&self.client, POD, "to-client", "10.244.1.1"),
            (&self.server, BACKEND, "to-server", "172.30.1.1"),
        ] {
            router.ip(["address", "add", &format!("{gateway}/24"), "dev", link])?;
            end.ip(["address", "add", &format!("{ip}/24"), "dev", ETH0])?;
            end.ip(["route", "add", "default", "via", gateway])?;
        }
        router.sysctl("net.ipv4.ip_forward", "1")?;
        let (service, backend) = (SERVICE, SocketAddr::new(BACKEND.into(), BACKEND_PORT));
        router.nft(&format!(
            "table ip nat {{
                 chain service {{
                     type nat hook prerouting priority dstnat
                     ip daddr {service} tcp dport {PORT} dnat to {backend}
                 }}
                 chain leaving {{
                     type nat hook postrouting priority srcnat
                     oifname to-server masquerade
                 }}
             }}"
        ))
    }

    /// Starts to record what passes an interface, into `NAME.pcap`, with more options for tcpdump.
    pub(super) fn record(
        &self,
        at: (&Namespace, &str),
        name: &str,
        options: &[&str],
    ) -> Result<Recording> {
        Recording::start(at, self.directory.join(format!("{name}.pcap")), options)
    }

    /// A socket listening on the server's side.
    pub(super) fn listen(&self, address: SocketAddr) -> Result<Socket> {
        let socket = bound(&self.server, address)?;
        socket.listen(16)?;
        Ok(socket)
    }

    /// A socket on the server's side that may connect itself.
    pub(super) fn server_socket(&self, address: SocketAddr) -> Result<Socket> {
        bound(&self.server, address)
    }

    /// Sends a packet that no socket made, from the end that its source address belongs to.
    fn craft(&self, packet: PacketBuilderStep<TcpHeader>, payload: usize) -> Result<()> {
        let mut bytes = Vec::with_capacity(packet.size(payload));
        packet.write(&mut bytes, &vec![0x2e; payload])?;
        let (namespace, to) = match bytes.get(12..16) == Some(&CLIENT.octets()[..]) {
            true => (&self.client, SERVER),
            false => (&self.server, CLIENT),
        };
        namespace.inside(move || {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW)))?;
            socket.send_to(&bytes, &SocketAddr::new(to.into(), 0).into())?;
            Ok(())
        })?
    }

    /// Sends such a packet, and leaves it time to arrive before the next.
    pub(super) fn say(&self, packet: PacketBuilderStep<TcpHeader>, payload: usize) -> Result<()> {
        self.craft(packet, payload)?;
        pause_ms(10);
        Ok(())
    }

    /// Keeps the kernels out of a conversation whose packets are all crafted.
    pub(super) fn silence(&self) -> Result<()> {
        let rules = "table inet silence {
            chain arriving { type filter hook input priority 0; meta l4proto tcp drop; }
        }";
        [&self.client, &self.server].into_iter().try_for_each(|end| end.nft(rules))
    }

    /// A client's socket, not yet connected.
    pub(super) fn socket(&self, port: u16, to: SocketAddr) -> Result<Socket> {
        let any: IpAddr = match to.ip() {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        bound(&self.client, SocketAddr::new(any, port))
    }

    /// A connection from a port of the client to a listening socket: both its ends.
    pub(super) fn connect(
        &self,
        port: u16,
        to: SocketAddr,
        listener: &Socket,
    ) -> Result<(Socket, Socket)> {
        let client = self.socket(port, to)?;
        client.connect(&to.into()).with_context(|| format!("cannot connect to {to}"))?;
        let (server, _) = listener.accept()?;
        patient(&server)?;
        Ok((client, server))
    }
}

/// The client's address where there is a router: a pod's.
pub(super) const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 5);
/// The address that the pod asks: a Service's.
pub(super) const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// What the router makes of it.
pub(super) const BACKEND: Ipv4Addr = Ipv4Addr::new(172, 30, 1, 2);
/// The port that the backend listens on.
pub(super) const BACKEND_PORT: u16 = 8080;

fn veth(a: &Namespace, name: &str, b: &Namespace, peer: &str) -> Result<()> {
    a.ip(["link", "add", name, "type", "veth", "peer", "name", peer, "netns", b.name()])?;
    a.ip(["link", "set", name, "up"])?;
    b.ip(["link", "set", peer, "up"])?;
    Ok(())
}

fn bound(namespace: &Namespace, address: SocketAddr) -> Result<Socket> {
    namespace.inside(move || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        patient(&socket)?;
        socket.bind(&address.into()).with_context(|| format!("cannot bind to {address}"))?;
        Ok(socket)
    })?
}

/// IPPROTO_RAW: packets with their IP header, of any protocol (raw(7)).
const RAW: i32 = 255;

/// Lets a socket wait for so long and no longer.
fn patient(socket: &Socket) -> Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    // What is written is sent, so that the same packets come each time.
    socket.set_tcp_nodelay(true)?;
    Ok(())
}

/// A packet of a conversation that no socket has, of the client's or the server's.
pub(super) fn crafted(from_client: bool, sequence: u32) -> PacketBuilderStep<TcpHeader> {
    let (client, server) = (CLIENT.octets(), SERVER.octets());
    match from_client {
        true => PacketBuilder::ipv4(client, server, 64).tcp(40_001, PORT, sequence, 64_240),
        false => PacketBuilder::ipv4(server, client, 64).tcp(PORT, 40_001, sequence, 65_160),
    }
}
