//! pcapng: blocks of a section, whose interfaces say what its packets are
//! (draft-ietf-opsawg-pcapng).

use std::num::NonZeroU64;

use pcap_parser::{Block, InterfaceDescriptionBlock, parse_block_be, parse_block_le};

use super::buffer::{Buffer, numbers};
use super::{CapturedPacket, PcapError};
use crate::packet::LinkType;

/// Interfaces that one section may declare; more is damage. A capture on "any" of a large node has
/// some hundreds.
const MAX_INTERFACES: usize = 65_536;

/// Block type and length.
const BLOCK_HEADER_BYTES: usize = 8;

/// Types of the blocks that hold packets. Of the obsolete one, the interface is the first 16 bits of what
/// is 32 in an enhanced packet block; all else is the same.
const ENHANCED_PACKET: u32 = 6;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;

/// What such blocks hold beside the packet.
const ENHANCED_PACKET_BYTES: usize = 32;
const SIMPLE_PACKET_BYTES: usize = 16;

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
    /// The same of a microsecond, if that is a whole number of them: it nearly always is, and the
    /// division is much cheaper.
    units_per_us: Option<NonZeroU64>,
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

/// Why a block is damage.
type Reason = &'static str;

const CONTRADICTION: Reason = "a block that contradicts itself";

impl Section {
    #[inline]
    pub(super) fn next_packet<'a>(
        &mut self,
        buffer: &'a mut Buffer,
        unsupported_packets: &mut u64,
    ) -> Result<Option<CapturedPacket<'a>>, PcapError> {
        loop {
            let offset = buffer.offset();
            let damaged = |reason| PcapError::Damaged { offset, reason };
            let Some([kind, length]) = self.next_block(buffer)? else { return Ok(None) };
            let body = length.checked_sub(BLOCK_HEADER_BYTES as u32 + 4);
            let body = body.ok_or(damaged("a block that is shorter than its own header"))?;
            let block = buffer.take_block(BLOCK_HEADER_BYTES + 4, body)?;
            let found = match kind {
                ENHANCED_PACKET | OBSOLETE_PACKET => self.enhanced_packet(block),
                SIMPLE_PACKET => self.simple_packet(block),
                _ => self.learn(block).map(|()| None),
            };
            match found.map_err(damaged)? {
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

    /// Type and length of the next block, all included. A section header also tells the byte order.
    #[inline]
    fn next_block(&mut self, buffer: &mut Buffer) -> Result<Option<[u32; 2]>, PcapError> {
        let offset = buffer.offset();
        let start = buffer.at_least(BLOCK_HEADER_BYTES + 4)?;
        if start.is_empty() {
            return Ok(None);
        }
        let (header, after) =
            start.split_at_checked(BLOCK_HEADER_BYTES).ok_or(PcapError::Truncated { offset })?;
        if is_pcapng(header) {
            let [magic] = numbers(after, true).ok_or(PcapError::Truncated { offset })?;
            self.big_endian = magic == BYTE_ORDER_MAGIC;
        }
        Ok(numbers(header, self.big_endian))
    }

    /// The packet in an enhanced packet block. Its options say nothing that is needed.
    #[inline]
    fn enhanced_packet(&mut self, block: &[u8]) -> Result<Option<Found>, Reason> {
        let [kind, block_length, interface, time_upper, time_lower, length, wire_length] =
            numbers(block, self.big_endian).ok_or(CONTRADICTION)?;
        let padded = u64::from(length).next_multiple_of(4);
        let has_room = ENHANCED_PACKET_BYTES as u64 + padded <= block.len() as u64;
        if !has_room || self.length_at_end(block) != Some(block_length) {
            return Err(CONTRADICTION);
        }
        let interface = match (kind, self.big_endian) {
            (OBSOLETE_PACKET, true) => interface >> 16,
            (OBSOLETE_PACKET, false) => interface & 0xffff,
            _ => interface,
        };
        let interface = self
            .interfaces
            .get(interface as usize)
            .ok_or("a packet of an interface that was not declared")?;
        self.last_time_us = interface.time_us(u64::from(time_upper) << 32 | u64::from(time_lower));
        let length = length as usize;
        Ok(Some(Found { link: interface.link, wire_length, start: 28, length }))
    }

    /// The packet in a simple packet block: how much was captured follows from the interface.
    fn simple_packet(&mut self, block: &[u8]) -> Result<Option<Found>, Reason> {
        let [_, block_length, wire_length] =
            numbers(block, self.big_endian).ok_or(CONTRADICTION)?;
        let room = block.len().checked_sub(SIMPLE_PACKET_BYTES).ok_or(CONTRADICTION)?;
        if self.length_at_end(block) != Some(block_length) {
            return Err(CONTRADICTION);
        }
        let interface =
            self.interfaces.first().ok_or("a packet before any interface was declared")?;
        let length = room.min(wire_length as usize).min(interface.snap_length as usize);
        Ok(Some(Found { link: interface.link, wire_length, start: 12, length }))
    }

    /// A block ends with its length once more.
    #[inline]
    fn length_at_end(&self, block: &[u8]) -> Option<u32> {
        let end: &[u8; 4] = block.last_chunk()?;
        numbers(end, self.big_endian).map(|[length]| length)
    }

    /// Learns from a block without a packet.
    fn learn(&mut self, block: &[u8]) -> Result<(), Reason> {
        let parse = if self.big_endian { parse_block_be } else { parse_block_le };
        // The block is whole: a parser that asks for more has met a length that cannot be.
        let (_, block) = parse(block).map_err(|_| CONTRADICTION)?;
        match block {
            Block::SectionHeader(_) => {
                *self = Self { big_endian: self.big_endian, ..Self::default() };
            }
            Block::InterfaceDescription(interface) => {
                if self.interfaces.len() >= MAX_INTERFACES {
                    return Err("more interfaces than any machine has");
                }
                self.interfaces.push(CapturedInterface::new(&interface, self.big_endian)?);
            }
            _ => {}
        }
        Ok(())
    }
}

impl CapturedInterface {
    fn new(interface: &InterfaceDescriptionBlock<'_>, big_endian: bool) -> Result<Self, Reason> {
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
            units_per_us: whole_units_per_us(units_per_second),
            offset_seconds,
            snap_length: if interface.snaplen == 0 { u32::MAX } else { interface.snaplen },
        })
    }

    /// A time of this interface in microseconds since the epoch.
    fn time_us(&self, units: u64) -> u64 {
        let since_offset = match self.units_per_us {
            Some(units_per_us) => i128::from(units / units_per_us),
            None => {
                let seconds = u128::from(units) / self.units_per_second;
                let rest = u128::from(units) % self.units_per_second;
                // The rest is less than 2^64, and so its product with a million less than 2^84.
                seconds as i128 * 1_000_000 + (rest * 1_000_000 / self.units_per_second) as i128
            }
        };
        let time_us = since_offset + i128::from(self.offset_seconds) * 1_000_000;
        time_us.clamp(0, u64::MAX.into()) as u64
    }
}

fn whole_units_per_us(units_per_second: u128) -> Option<NonZeroU64> {
    if !units_per_second.is_multiple_of(1_000_000) {
        return None;
    }
    u64::try_from(units_per_second / 1_000_000).ok().and_then(NonZeroU64::new)
}
