//! The sender of the live benchmark: prebuilt frames as fast as one core can hand them to the kernel.

use std::io::{IoSlice, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Instant;

use afpacket::sync::RawPacketStream;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, sendmmsg};
use tokio_util::sync::CancellationToken;

use super::frame::Framer;
use super::trace::{Connection, Event, Kind};

/// Connections that talk, each in both directions.
pub const CONNECTIONS: u16 = 400;
/// Payload of each frame: what remote calls are made of.
const PAYLOAD: u16 = 100;
/// Where the sequence number is: after Ethernet, IPv4 and the two ports.
const SEQUENCE_OFFSET: usize = 14 + 20 + 4;
/// Frames of one system call.
const BATCH: usize = 64;

/// A frame that is sent again and again, each time with the sequence number that is next. (Its
/// checksum is that of the first time: no reader looks at it.)
struct Template {
    frame: Vec<u8>,
    sequence: u32,
}

impl Template {
    fn advance(&mut self) {
        if let Some(bytes) = self.frame.get_mut(SEQUENCE_OFFSET..SEQUENCE_OFFSET + 4) {
            bytes.copy_from_slice(&self.sequence.to_be_bytes());
        }
        self.sequence = self.sequence.wrapping_add(PAYLOAD.into());
    }
}

/// Sends: handshakes, then data from both ends of all connections in turn. Returns how many packets
/// the kernel took, and in how many seconds.
pub fn send(interface: &str, packets: u64, shutdown: &CancellationToken) -> Result<(u64, f64)> {
    let (handshakes, mut data) = frames()?;
    let mut socket = RawPacketStream::new()?;
    socket.bind(interface)?;
    let started = Instant::now();
    let mut sent = 0;
    for frame in &handshakes {
        socket.write_all(frame)?;
        sent += 1;
    }
    let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
    while sent < packets {
        for templates in data.chunks_mut(BATCH) {
            if shutdown.is_cancelled() {
                bail!("interrupted");
            }
            templates.iter_mut().for_each(Template::advance);
            sent += send_batch(&socket, templates, &mut headers)?;
        }
    }
    Ok((sent, started.elapsed().as_secs_f64()))
}

/// Sends all of a batch. Returns how many that is.
fn send_batch(
    socket: &RawPacketStream,
    templates: &[Template],
    headers: &mut MultiHeaders<()>,
) -> Result<u64> {
    let mut left = templates;
    while !left.is_empty() {
        let slices: Vec<_> = left.iter().map(|template| [IoSlice::new(&template.frame)]).collect();
        let to = [None; BATCH];
        let sent = sendmmsg(socket.as_raw_fd(), headers, &slices, to, [], MsgFlags::empty());
        match sent {
            Ok(sent) => left = left.get(sent.count()..).unwrap_or_default(),
            // The other end's queue is full: the first of these was not sent.
            Err(Errno::ENOBUFS | Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot send"),
        }
    }
    Ok(templates.len() as u64)
}

/// The frames of the handshakes, and one of data for each end of each connection.
fn frames() -> Result<(Vec<Vec<u8>>, Vec<Template>)> {
    let framer = Framer::default();
    let (mut handshakes, mut data) = (Vec::new(), Vec::new());
    for number in 0..CONNECTIONS {
        let [high, low] = number.to_be_bytes();
        let connection = Connection {
            client: SocketAddr::from(([10, 64, high, low], 40_000)),
            server: SocketAddr::from(([10, 96, 0, 1], 443)),
            timestamps: true,
        };
        let (client_isn, server_isn) = (u32::from(number) << 8, u32::from(number) << 16);
        let make = |kind, from_client, payload| -> Result<(Vec<u8>, u32)> {
            let (own, other) =
                if from_client { (client_isn, server_isn) } else { (server_isn, client_isn) };
            let sequence = own + u32::from(!matches!(kind, Kind::Syn | Kind::SynAck));
            let event = Event {
                time_us: 0,
                connection: 0,
                sequence,
                acknowledgment: other + 1,
                payload,
                from_client,
                kind,
            };
            let mut frame = Vec::new();
            framer.append(&connection, &event, &mut frame)?;
            Ok((frame, sequence))
        };
        for (kind, from_client) in [(Kind::Syn, true), (Kind::SynAck, false), (Kind::Ack, true)] {
            handshakes.push(make(kind, from_client, 0)?.0);
        }
        for from_client in [true, false] {
            let (frame, sequence) = make(Kind::Push, from_client, PAYLOAD)?;
            data.push(Template { frame, sequence });
        }
    }
    Ok((handshakes, data))
}
