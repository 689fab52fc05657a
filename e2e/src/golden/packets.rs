//! The packets of a capture, as their headers describe them; read without the agent's code.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use flowtrail_schema::Endpoint;

use super::recording::{PACKET_HEADER_BYTES, PCAP_HEADER_BYTES};

/// Ethernet's header, and a VLAN tag.
const LINK_BYTES: usize = 14;
const TAG_BYTES: usize = 4;

/// Link types, and the header of the second (draft-ietf-opsawg-pcaplinktype).
const ETHERNET: u32 = 1;
const SLL2: u32 = 276;
const SLL2_BYTES: usize = 20;

/// One TCP packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) time_us: u64,
    pub(super) source: Endpoint,
    pub(super) destination: Endpoint,
    pub(super) sequence: u32,
    pub(super) acknowledgment: u32,
    pub(super) ip_bytes: u64,
    pub(super) payload_bytes: u64,
}

/// Reads a capture that tcpdump wrote of Ethernet or of all interfaces, in microseconds.
pub(super) fn read(path: &Path) -> Result<Vec<Packet>> {
    let file = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut packets = Vec::new();
    let link_type = file.get(20..24).and_then(|word| word.first_chunk().copied());
    let link_type = link_type.map(u32::from_le_bytes).context("shorter than a pcap header")?;
    let mut rest = file.get(PCAP_HEADER_BYTES..).context("shorter than a pcap header")?;
    while !rest.is_empty() {
        let (header, after) =
            rest.split_at_checked(PACKET_HEADER_BYTES).context("a packet broken off")?;
        let word = |n: usize| header[4 * n..].first_chunk().copied().map_or(0, u32::from_le_bytes);
        let (frame, after) =
            after.split_at_checked(word(2) as usize).context("a packet broken off")?;
        let time_us = u64::from(word(0)) * 1_000_000 + u64::from(word(1));
        let number = packets.len() + 1;
        packets.push(
            parse(link_type, frame, word(3), time_us)
                .with_context(|| format!("packet {number}"))?,
        );
        rest = after;
    }
    Ok(packets)
}

fn parse(link_type: u32, frame: &[u8], length: u32, time_us: u64) -> Result<Packet> {
    let (packet, link) = match link_type {
        ETHERNET => {
            let packet = LaxSlicedPacket::from_ethernet(frame)?;
            let link = LINK_BYTES + TAG_BYTES * packet.link_exts.len();
            (packet, link)
        }
        SLL2 => {
            let packet = frame.get(SLL2_BYTES..).context("not a whole header")?;
            (LaxSlicedPacket::from_ip(packet)?, SLL2_BYTES)
        }
        other => bail!("link type {other}: only Ethernet and SLL2 are recorded"),
    };
    let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { bail!("not TCP, or cut short") };
    let (ips, ip_bytes) = match packet.net.as_ref().context("not IP")? {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            let ips = [header.source_addr().into(), header.destination_addr().into()];
            (ips, u64::from(header.total_len()))
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            let ips = [header.source_addr().into(), header.destination_addr().into()];
            let bytes = match header.payload_length() {
                // Larger than the field can say (RFC 2675).
                0 => u64::from(length) - link as u64,
                payload => u64::from(payload) + 40,
            };
            (ips, bytes)
        }
        LaxNetSlice::Arp(_) => bail!("not IP"),
    };
    let until_payload = frame.len() - tcp.payload().len() - link;
    ensure!(until_payload as u64 <= ip_bytes, "headers are longer than the packet");
    let ports = [tcp.source_port(), tcp.destination_port()];
    let [source, destination] = [0, 1].map(|end| Endpoint { ip: ips[end], port: ports[end] });
    Ok(Packet {
        time_us,
        source,
        destination,
        sequence: tcp.sequence_number(),
        acknowledgment: tcp.acknowledgment_number(),
        ip_bytes,
        payload_bytes: ip_bytes - until_payload as u64,
    })
}
