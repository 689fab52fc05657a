//! The wire between two namespaces: a relay of frames in user space that can lose, delay and repeat
//! any of them, since the kernel at hand has no such queueing discipline.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{Read, Write};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use afpacket::sync::RawPacketStream;
use anyhow::{Context, Result};
use etherparse::{NetSlice, SlicedPacket, TcpHeader, TcpSlice, TransportSlice};

use crate::lab::Namespace;

/// Larger than any frame: offloading makes packets of 64 KiB.
const FRAME_BYTES: usize = 70_000;

/// How long the delivering thread sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(3_600);

/// A frame on the wire, as a policy sees it.
#[derive(Debug)]
pub(super) struct Frame {
    /// Which way it goes: from the first interface to the second.
    pub(super) to_server: bool,
    /// Its number in its direction, the first being 1.
    pub(super) number: u32,
    /// Its TCP header.
    pub(super) tcp: TcpHeader,
    /// Bytes of payload.
    pub(super) payload: usize,
}

/// When to deliver a frame: never, after a while, or several times.
pub(super) type Deliveries = Vec<Duration>;

/// Decides on each frame.
pub(super) type Policy = Box<dyn FnMut(&Frame) -> Deliveries + Send>;

/// A relay between two interfaces of a namespace. It ends when they are deleted.
#[derive(Clone)]
pub(super) struct Wire {
    policy: Arc<Mutex<Policy>>,
}

/// A frame with its hour; the earliest is the greatest, as a heap wants it.
type Due = Reverse<(Instant, u64, bool, Vec<u8>)>;

/// At once, as if the wire were a wire.
pub(super) fn at_once() -> Deliveries {
    vec![Duration::ZERO]
}

/// Never.
pub(super) fn lost() -> Deliveries {
    Vec::new()
}

/// After some milliseconds.
pub(super) fn after_ms(milliseconds: u64) -> Deliveries {
    vec![Duration::from_millis(milliseconds)]
}

impl Wire {
    /// Connects two interfaces, delivering everything at once. With a VLAN's id, what leaves at the
    /// second interface is tagged; the kernel takes tags off what comes in.
    pub(super) fn connect(
        namespace: &Namespace,
        ends: [&str; 2],
        vlan: Option<u16>,
    ) -> Result<Self> {
        let open = |name: &str| -> Result<Arc<RawPacketStream>> {
            let name = name.to_owned();
            namespace.inside(move || {
                let mut socket = RawPacketStream::new()?;
                socket.bind(&name).with_context(|| format!("cannot bind to {name}"))?;
                Ok(Arc::new(socket))
            })?
        };
        let ends = [open(ends[0])?, open(ends[1])?];
        let policy: Arc<Mutex<Policy>> = Arc::new(Mutex::new(Box::new(|_| at_once())));
        let (sender, due) = mpsc::channel();
        for (end, to_server) in [(ends[0].clone(), true), (ends[1].clone(), false)] {
            let (policy, sender) = (policy.clone(), sender.clone());
            thread::spawn(move || receive(&end, to_server, &policy, &sender));
        }
        thread::spawn(move || deliver(&due, &ends, vlan));
        Ok(Self { policy })
    }

    /// Loses some of what comes from now on; the rest passes at once.
    pub(super) fn lose(&self, which: impl Fn(&Frame) -> bool + Send + 'static) {
        self.set(move |frame| if which(frame) { lost() } else { at_once() });
    }

    /// Decides anew on what comes from now on.
    pub(super) fn set(&self, policy: impl FnMut(&Frame) -> Deliveries + Send + 'static) {
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(policy);
    }
}

/// Reads frames and decides on them, until the interface is gone.
fn receive(
    end: &RawPacketStream,
    to_server: bool,
    policy: &Mutex<Policy>,
    sender: &Sender<(Instant, bool, Vec<u8>)>,
) {
    let mut reader = end;
    let mut buffer = vec![0; FRAME_BYTES];
    let mut number = 0;
    while let Ok(length) = reader.read(&mut buffer) {
        let mut frame = buffer[..length].to_vec();
        let Some((tcp, payload)) = complete_checksum(&mut frame) else { continue };
        number += 1;
        let seen = Frame { to_server, number, tcp, payload };
        let deliveries = (policy.lock().unwrap_or_else(PoisonError::into_inner))(&seen);
        let now = Instant::now();
        for delay in deliveries {
            if sender.send((now + delay, to_server, frame.clone())).is_err() {
                return;
            }
        }
    }
}

/// Writes frames when they are due, until nobody reads any more.
fn deliver(
    frames: &Receiver<(Instant, bool, Vec<u8>)>,
    ends: &[Arc<RawPacketStream>; 2],
    vlan: Option<u16>,
) {
    let mut waiting: BinaryHeap<Due> = BinaryHeap::new();
    let mut count = 0;
    loop {
        let wait = waiting
            .peek()
            .map_or(IDLE, |Reverse((due, ..))| due.saturating_duration_since(Instant::now()));
        match frames.recv_timeout(wait) {
            Ok((due, to_server, frame)) => {
                count += 1;
                waiting.push(Reverse((due, count, to_server, frame)));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        while waiting.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            let Some(Reverse((_, _, to_server, mut frame))) = waiting.pop() else { break };
            let mut end = &*ends[usize::from(to_server)];
            if let (true, Some(vlan)) = (to_server, vlan) {
                let tag = [0x81, 0x00, (vlan >> 8) as u8, vlan as u8];
                frame.splice(12..12, tag);
            }
            // The interface may be gone, at the end.
            let _ = end.write(&frame);
        }
    }
}

/// Computes the TCP checksum that the sender has left to its network card; of a TCP packet, its header
/// and the bytes of its payload.
fn complete_checksum(frame: &mut [u8]) -> Option<(TcpHeader, usize)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { return None };
    let (header, payload) = (tcp.to_header(), tcp.payload().len());
    let checksum = checksum(packet.net.as_ref()?, tcp)?;
    let at = frame.len() - tcp.slice().len() + 16;
    drop(packet);
    frame.get_mut(at..at + 2)?.copy_from_slice(&checksum.to_be_bytes());
    Some((header, payload))
}

fn checksum(network: &NetSlice<'_>, tcp: &TcpSlice<'_>) -> Option<u16> {
    match network {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            tcp.calc_checksum_ipv4(header.source(), header.destination()).ok()
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            tcp.calc_checksum_ipv6(header.source(), header.destination()).ok()
        }
        NetSlice::Arp(_) => None,
    }
}
