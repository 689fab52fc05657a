//! The stage of a case: two namespaces with something between them, sockets inside, and tcpdump.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use etherparse::{PacketBuilderStep, TcpHeader};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::{Domain, Protocol, Socket, Type};

use super::wire::Wire;
use crate::lab::{Lab, Namespace};

/// Addresses of the two ends, for documentation (RFC 5737, RFC 3849). The client's is the lower.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The server.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The client's other address.
pub const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The server's other address.
pub const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// Interface of each end.
pub const ETH0: &str = "eth0";

/// The server's port, where nothing speaks for another.
pub const PORT: u16 = 80;

/// Headers of a pcap file, and of each packet in it (draft-ietf-opsawg-pcap). tcpdump writes them in
/// the machine's order, which is little-endian where this runs.
const PCAP_HEADER_BYTES: usize = 24;
const PACKET_HEADER_BYTES: usize = 16;

/// No step of a case takes longer, but for pauses.
const PATIENCE: Duration = Duration::from_secs(40);

/// What the kernel still has of packets when a case is over.
const SETTLE: Duration = Duration::from_millis(300);

const MACS: [&str; 2] = ["02:00:00:00:00:01", "02:00:00:00:00:02"];

/// What is between the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
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
pub struct Stage {
    /// The relay, if there is one.
    wire: Option<Wire>,
    /// Where the client's sockets are.
    pub client: Namespace,
    /// Where the server's sockets are.
    pub server: Namespace,
    /// What is between them, if it is a namespace.
    pub middle: Namespace,
    directory: PathBuf,
    _lab: Lab,
}

impl Stage {
    /// Sets a stage. Captures go to a directory.
    ///
    /// # Errors
    /// Without root, or if the kernel refuses.
    pub fn set(name: &str, path: Path, directory: PathBuf) -> Result<Self> {
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
    ///
    /// # Errors
    /// If the stage has none.
    pub fn wire(&self) -> Result<&Wire> {
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

    /// Starts to record what passes an interface, into `NAME.pcap`, at most so many bytes a packet.
    ///
    /// # Errors
    /// If there is no tcpdump.
    pub fn record(
        &self,
        at: (&Namespace, &str),
        name: &str,
        options: &[&str],
    ) -> Result<Recording> {
        let (namespace, interface) = at;
        let path = self.directory.join(format!("{name}.pcap"));
        let mut child = namespace
            .command("tcpdump")
            .args(["-i", interface, "-n", "-p", "-U", "--immediate-mode", "-Z", "root", "-w"])
            .arg(&path)
            .args(options)
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run tcpdump: apt-get install tcpdump")?;
        let mut said = String::new();
        let mut stderr = BufReader::new(child.stderr.take().context("tcpdump has no stderr")?);
        while !said.contains("listening on") {
            if stderr.read_line(&mut said)? == 0 {
                bail!("tcpdump ended: {said}");
            }
        }
        thread::spawn(move || stderr.read_to_string(&mut said));
        Ok(Recording { child, path })
    }

    /// A socket listening on the server's side.
    ///
    /// # Errors
    /// If the address is in use.
    pub fn listen(&self, address: SocketAddr) -> Result<Socket> {
        let socket = bound(&self.server, address)?;
        socket.listen(16)?;
        Ok(socket)
    }

    /// A socket on the server's side that may connect itself.
    ///
    /// # Errors
    /// If the address is in use.
    pub fn server_socket(&self, address: SocketAddr) -> Result<Socket> {
        bound(&self.server, address)
    }

    /// Sends a packet that no socket made, from the end that its source address belongs to.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn craft(&self, packet: PacketBuilderStep<TcpHeader>, payload: usize) -> Result<()> {
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

    /// Keeps the kernels out of a conversation whose packets are all crafted.
    ///
    /// # Errors
    /// If there is no nft.
    pub fn silence(&self) -> Result<()> {
        let rules = "table inet silence {
            chain arriving { type filter hook input priority 0; meta l4proto tcp drop; }
        }";
        [&self.client, &self.server].into_iter().try_for_each(|end| end.nft(rules))
    }

    /// A client's socket, not yet connected.
    ///
    /// # Errors
    /// If the port is in use.
    pub fn socket(&self, port: u16, to: SocketAddr) -> Result<Socket> {
        let any: IpAddr = match to.ip() {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        bound(&self.client, SocketAddr::new(any, port))
    }

    /// A connection from a port of the client to a listening socket: both its ends.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn connect(
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
pub const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 5);
/// The address that the pod asks: a Service's.
pub const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// What the router makes of it.
pub const BACKEND: Ipv4Addr = Ipv4Addr::new(172, 30, 1, 2);
/// The port that the backend listens on.
pub const BACKEND_PORT: u16 = 8080;

/// A tcpdump that runs. Dropping it ends it.
pub struct Recording {
    child: Child,
    path: PathBuf,
}

impl Recording {
    /// Ends it, with all that has passed by now in its file.
    ///
    /// # Errors
    /// If tcpdump has failed.
    pub fn stop(mut self) -> Result<()> {
        thread::sleep(SETTLE);
        self.interrupt();
        let status = self.child.wait()?;
        if !status.success() {
            bail!("tcpdump failed: {status}");
        }
        Ok(())
    }

    /// Ends it, and dates what has passed since an instant later than it was.
    ///
    /// # Errors
    /// If tcpdump has failed, or the file cannot be rewritten.
    pub fn stop_and_postpone(self, since: SystemTime, by: Duration) -> Result<()> {
        let path = self.path.clone();
        self.stop()?;
        let since_s = since.duration_since(UNIX_EPOCH)?.as_secs_f64();
        let mut bytes = std::fs::read(&path)?;
        let mut at = PCAP_HEADER_BYTES;
        while let Some(header) = bytes.get_mut(at..at + PACKET_HEADER_BYTES) {
            let word = |n: usize| -> u32 {
                header[4 * n..].first_chunk().copied().map_or(0, u32::from_le_bytes)
            };
            let (seconds, microseconds, captured) = (word(0), word(1), word(2));
            if f64::from(seconds) + f64::from(microseconds) / 1e6 >= since_s {
                let later = seconds + by.as_secs() as u32;
                header[..4].copy_from_slice(&later.to_le_bytes());
            }
            at += PACKET_HEADER_BYTES + captured as usize;
        }
        std::fs::write(&path, bytes)?;
        Ok(())
    }

    fn interrupt(&self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // It has ended by itself, at worst.
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.interrupt();
        let _ = self.child.wait();
    }
}

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

/// Sends so many bytes from one end of a connection to the other.
///
/// # Errors
/// If they do not arrive.
pub fn send(mut from: &Socket, mut to: &Socket, bytes: usize) -> Result<()> {
    let payload = vec![0x2e; bytes];
    thread::scope(|scope| {
        let sending = scope.spawn(move || from.write_all(&payload));
        let received = to.read_exact(&mut vec![0; bytes]);
        match sending.join() {
            Ok(sent) => sent.context("cannot send")?,
            Err(_) => bail!("the sending thread ended early"),
        }
        received.context("cannot receive")
    })
}

/// A request and a response.
///
/// # Errors
/// If they do not arrive.
pub fn exchange(client: &Socket, server: &Socket, request: usize, response: usize) -> Result<()> {
    send(client, server, request)?;
    pause_ms(5);
    send(server, client, response)
}

/// Closes both ends, one after the other.
///
/// # Errors
/// If the other end does not see the first close.
pub fn close(first: Socket, second: Socket) -> Result<()> {
    first.shutdown(Shutdown::Write)?;
    see_end(&second)?;
    pause_ms(5);
    second.shutdown(Shutdown::Write)?;
    see_end(&first)?;
    // A pause for the last acknowledgment.
    pause_ms(50);
    Ok(())
}

/// Waits until the other end has closed.
///
/// # Errors
/// If it sends something instead.
pub fn see_end(mut socket: &Socket) -> Result<()> {
    match socket.read(&mut [0; 1])? {
        0 => Ok(()),
        _ => bail!("there was more to read"),
    }
}

/// Ends a connection with a RST.
///
/// # Errors
/// If the kernel refuses.
pub fn reset(socket: Socket) -> Result<()> {
    socket.set_linger(Some(Duration::ZERO))?;
    drop(socket);
    pause_ms(50);
    Ok(())
}

/// Lets time pass.
pub fn pause_ms(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

/// Lets time pass until it is so many milliseconds after a multiple of `every_s` seconds of the wall
/// clock, since that is what intervals are aligned to.
pub fn until_ms(every_s: u64, offset_ms: u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let every = every_s * 1_000;
    let past = now.as_millis() as u64 % every;
    pause_ms((offset_ms + every - past) % every);
}
