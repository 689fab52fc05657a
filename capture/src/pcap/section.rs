//! pcapng: blocks of a section, whose interfaces say what its packets are
//! (draft-ietf-opsawg-pcapng).

use pcap_parser::traits::PcapNGPacketBlock as _;
use pcap_parser::{Block, InterfaceDescriptionBlock, parse_block_be, parse_block_le};

use super::buffer::{Buffer, u32_at_start};
use super::{CapturedPacket, PcapError};
use crate::packet::LinkType;

/// Interfaces that one section may declare; more is damage. A capture on "any" of a large node has
/// some hundreds.
const MAX_INTERFACES: usize = 65_536;

/// Block type and length.
const BLOCK_HEADER_BYTES: usize = 8;

/// Type of the block that starts a section: the same in both byte orders.
const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// What follows a section header's length, in the byte order of its section.
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;

/// What the current section of a file has declared so far.
#[derive(Default)]
pub(super) struct Section {
    big_endian: bool,
    interfaces: Vec<CapturedInterface>,
    /// Simple packet blocks carry no time: they get that of the packet before them.
    last_time_us: u64,
}

struct CapturedInterface {
    link: Option<LinkType>,
    units_per_second: u128,
    offset_seconds: i64,
    /// What is captured of a packet at most; 0 is no limit.
    snap_length: u32,
}

/// Whether bytes start like pcapng.
pub(super) fn is_pcapng(start: &[u8]) -> bool {
    start.starts_with(&SECTION_HEADER)
}

/// A packet in a block.
struct Found {
    link: Option<LinkType>,
    wire_length: u32,
    /// Where in the block the captured bytes start.
    start: usize,
    length: usize,
}

impl Section {
    pub(super) fn next_packet<'a>(
        &mut self,
        buffer: &'a mut Buffer,
        unsupported_packets: &mut u64,
    ) -> Result<Option<CapturedPacket<'a>>, PcapError> {
        loop {
            let offset = buffer.offset();
            let damaged = |reason| PcapError::Damaged { offset, reason };
            let Some(length) = self.next_block_length(buffer)? else { return Ok(None) };
            let body = length.checked_sub(BLOCK_HEADER_BYTES as u32 + 4);
            let body = body.ok_or(damaged("a block that is shorter than its own header"))?;
            let block = buffer.take_block(BLOCK_HEADER_BYTES + 4, body)?;
            let parse = if self.big_endian { parse_block_be } else { parse_block_le };
            // The block is whole: a parser that asks for more has met a length that cannot be.
            let (_, parsed) =
                parse(block).map_err(|_| damaged("a block that contradicts itself"))?;
            match self.read(&parsed).map_err(damaged)? {
                Some(Found { link: Some(link), wire_length, start, length }) => {
                    let bytes = buffer.taken(start, length);
                    let time_us = self.last_time_us;
                    return Ok(Some(CapturedPacket { link, time_us, bytes, wire_length }));
                }
                Some(Found { link: None, .. }) => *unsupported_packets += 1,
                None => {}
            }
        }
    }

    /// Length of the next block, all included. A section header also tells the byte order.
    fn next_block_length(&mut self, buffer: &mut Buffer) -> Result<Option<u32>, PcapError> {
        let offset = buffer.offset();
        let start = buffer.at_least(BLOCK_HEADER_BYTES + 4)?;
        if start.is_empty() {
            return Ok(None);
        }
        let (header, magic) =
            start.split_at_checked(BLOCK_HEADER_BYTES).ok_or(PcapError::Truncated { offset })?;
        if is_pcapng(header) {
            let magic = u32_at_start(magic, true).ok_or(PcapError::Truncated { offset })?;
            self.big_endian = magic == BYTE_ORDER_MAGIC;
        }
        Ok(u32_at_start(&header[4..], self.big_endian))
    }

    /// Learns from a block, or finds the packet in it.
    fn read(&mut self, block: &Block<'_>) -> Result<Option<Found>, &'static str> {
        match block {
            Block::SectionHeader(_) => {
                *self = Self { big_endian: self.big_endian, ..Self::default() };
                Ok(None)
            }
            Block::InterfaceDescription(interface) => {
                if self.interfaces.len() >= MAX_INTERFACES {
                    return Err("more interfaces than any machine has");
                }
                self.interfaces.push(CapturedInterface::new(interface, self.big_endian)?);
                Ok(None)
            }
            Block::EnhancedPacket(packet) => {
                let interface = self
                    .interfaces
                    .get(packet.if_id as usize)
                    .ok_or("a packet of an interface that was not declared")?;
                let units = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                self.last_time_us = interface.time_us(units);
                Ok(Some(Found {
                    link: interface.link,
                    wire_length: packet.origlen,
                    start: 28,
                    length: packet.packet_data().len(),
                }))
            }
            Block::SimplePacket(packet) => {
                let interface =
                    self.interfaces.first().ok_or("a packet before any interface was declared")?;
                let length = packet.data.len().min(packet.origlen as usize);
                Ok(Some(Found {
                    link: interface.link,
                    wire_length: packet.origlen,
                    start: 12,
                    length: length.min(interface.snap_length as usize),
                }))
            }
            _ => Ok(None),
        }
    }
}

impl CapturedInterface {
    fn new(
        interface: &InterfaceDescriptionBlock<'_>,
        big_endian: bool,
    ) -> Result<Self, &'static str> {
        // if_tsresol: a power of 10, or with the upper bit set of 2.
        let exponent = u32::from(interface.if_tsresol & 0x7f);
        let base: u128 = if interface.if_tsresol & 0x80 == 0 { 10 } else { 2 };
        let units_per_second =
            base.checked_pow(exponent).ok_or("a time resolution that is too fine")?;
        // The parser reads this option as little-endian whatever the section is.
        let offset_seconds = match big_endian {
            true => interface.if_tsoffset.swap_bytes(),
            false => interface.if_tsoffset,
        };
        Ok(Self {
            link: LinkType::from_dlt(interface.linktype.0 as u32 & 0xffff),
            units_per_second,
            offset_seconds,
            snap_length: if interface.snaplen == 0 { u32::MAX } else { interface.snaplen },
        })
    }

    /// A time of this interface in microseconds since the epoch.
    fn time_us(&self, units: u64) -> u64 {
        let seconds = u128::from(units) / self.units_per_second;
        let rest = u128::from(units) % self.units_per_second;
        // The rest is less than 2^64, and so its product with a million less than 2^84.
        let time_us = seconds as u64 as i128 * 1_000_000
            + (rest * 1_000_000 / self.units_per_second) as i128
            + i128::from(self.offset_seconds) * 1_000_000;
        time_us.clamp(0, u64::MAX.into()) as u64
    }
}
