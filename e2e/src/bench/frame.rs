//! Frames: a trace's packets as Ethernet would carry them, checksums and all.

use std::net::SocketAddr;

use anyhow::{Result, bail};
use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader, TcpOptionElement};

use super::trace::{Connection, Event, Kind};

const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const HOP_LIMIT: u8 = 64;
const WINDOW: u16 = 64_240;
/// No segment carries more than Ethernet's 1,500 bytes allow.
const MAX_PAYLOAD: usize = 1_500;

/// Makes frames. Their payload is the same noise every time.
#[derive(Debug)]
pub struct Framer {
    payload: Vec<u8>,
}

impl Default for Framer {
    fn default() -> Self {
        let mut payload = vec![0; MAX_PAYLOAD];
        fastrand::Rng::with_seed(1).fill(&mut payload);
        Self { payload }
    }
}

impl Framer {
    /// Appends the frame of one packet.
    ///
    /// # Errors
    /// If the two ends are not of one address family.
    pub fn append(
        &self,
        connection: &Connection,
        event: &Event,
        frame: &mut Vec<u8>,
    ) -> Result<()> {
        let ends = if event.from_client {
            (connection.client, connection.server)
        } else {
            (connection.server, connection.client)
        };
        let mut tcp = tcp(ends.0, ends.1, event)?;
        if connection.timestamps {
            let milliseconds = (event.time_us / 1_000) as u32;
            tcp = tcp.options(&options(event.kind, milliseconds))?;
        }
        let payload = self.payload.get(..event.payload.into()).unwrap_or(&self.payload);
        tcp.write_to_vec(frame, payload)?;
        Ok(())
    }
}

fn tcp(from: SocketAddr, to: SocketAddr, event: &Event) -> Result<PacketBuilderStep<TcpHeader>> {
    let macs = if event.from_client { (CLIENT_MAC, SERVER_MAC) } else { (SERVER_MAC, CLIENT_MAC) };
    let link = PacketBuilder::ethernet2(macs.0, macs.1);
    let ip = match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            link.ipv4(from.ip().octets(), to.ip().octets(), HOP_LIMIT)
        }
        (SocketAddr::V6(from), SocketAddr::V6(to)) => {
            link.ipv6(from.ip().octets(), to.ip().octets(), HOP_LIMIT)
        }
        _ => bail!("{from} and {to} cannot be the ends of one connection"),
    };
    let tcp = ip.tcp(from.port(), to.port(), event.sequence, WINDOW);
    let acknowledgment = event.acknowledgment;
    Ok(match event.kind {
        Kind::Syn => tcp.syn(),
        Kind::SynAck => tcp.syn().ack(acknowledgment),
        Kind::Ack => tcp.ack(acknowledgment),
        Kind::Push => tcp.psh().ack(acknowledgment),
        Kind::Fin => tcp.fin().ack(acknowledgment),
        Kind::Reset => tcp.rst().ack(acknowledgment),
    })
}

/// The options that Linux sends in such a packet.
fn options(kind: Kind, milliseconds: u32) -> Vec<TcpOptionElement> {
    use TcpOptionElement::{
        MaximumSegmentSize, Noop, SelectiveAcknowledgementPermitted, Timestamp, WindowScale,
    };
    let time = Timestamp(milliseconds, 0);
    match kind {
        Kind::Syn | Kind::SynAck => vec![
            MaximumSegmentSize(1_460),
            SelectiveAcknowledgementPermitted,
            time,
            Noop,
            WindowScale(7),
        ],
        Kind::Ack | Kind::Push | Kind::Fin => vec![Noop, Noop, time],
        Kind::Reset => Vec::new(),
    }
}
