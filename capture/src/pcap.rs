//! Capture files: pcap and pcapng, plain, gz or zstd, one packet at a time (`--read`).
//!
//! Memory is bounded by [`MAX_BLOCK_BYTES`] whatever the file says. A damaged file yields every
//! packet before the damage, then an error that names the byte.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use thiserror::Error;

use crate::packet::LinkType;

mod buffer;
mod section;
#[cfg(test)]
mod tests;

use buffer::{Buffer, numbers};
use section::Section;

/// The largest record or block that is read: sixteen times what libpcap captures of a packet
/// (MAXIMUM_SNAPLEN, 256 KiB), since pcapng also has blocks of names and secrets. A larger one is
/// damage, and an error.
pub const MAX_BLOCK_BYTES: usize = 4 << 20;

/// Why a capture file cannot be read, or not to its end.
#[derive(Debug, Error)]
pub enum PcapError {
    /// The file could not be opened.
    #[error("cannot open the file: check its name and permissions")]
    Open(#[source] io::Error),
    /// Reading or decompressing failed.
    #[error("cannot read on from byte {offset} of the (decompressed) capture")]
    Read {
        /// Bytes that could be read.
        offset: u64,
        /// What failed.
        source: io::Error,
    },
    /// Neither pcap nor pcapng.
    #[error("not a capture file: it is neither pcap nor pcapng, plain, gz or zstd")]
    NotACapture,
    /// The file ends inside a record.
    #[error("the capture ends inside the record that starts at byte {offset}")]
    Truncated {
        /// Start of the record.
        offset: u64,
    },
    /// A record that cannot be.
    #[error("the capture is damaged at byte {offset}: {reason}")]
    Damaged {
        /// Start of the record.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A pcap file of a link layer that is not supported.
    #[error(
        "link type {0} is not supported: Ethernet, Linux cooked, loopback, raw IP, PPP and Cisco \
         HDLC are"
    )]
    LinkType(u32),
}

/// One packet of a capture file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapturedPacket<'a> {
    /// The link layer that the packet starts with.
    pub link: LinkType,
    /// When it was captured, microseconds since the epoch: any value, in a damaged file.
    pub time_us: u64,
    /// What was captured of it.
    pub bytes: &'a [u8],
    /// How long it was on the wire, in bytes.
    pub wire_length: u32,
}

/// Reads the packets of a capture file, in its order.
pub struct PcapReader {
    buffer: Buffer,
    format: Format,
    unsupported_packets: u64,
}

enum Format {
    Pcap(Records),
    PcapNg(Section),
}

impl PcapReader {
    /// Opens a file; `-` is standard input.
    ///
    /// # Errors
    /// If it cannot be opened, or does not start like a capture file.
    pub fn open(path: &Path) -> Result<Self, PcapError> {
        if path.as_os_str() == "-" {
            return Self::new(io::stdin());
        }
        Self::new(File::open(path).map_err(PcapError::Open)?)
    }

    /// Reads from any source of bytes; it need not be buffered.
    ///
    /// # Errors
    /// If it does not start like a capture file.
    pub fn new(source: impl Read + Send + 'static) -> Result<Self, PcapError> {
        let mut buffer = Buffer::new(decompress(source)?);
        let format = if section::is_pcapng(buffer.at_least(4)?) {
            Format::PcapNg(Section::default())
        } else {
            let start = buffer.at_least(PCAP_HEADER_BYTES)?;
            let magic = Magic::of(start).ok_or(PcapError::NotACapture)?;
            let [.., number] =
                numbers::<6>(start, magic.big_endian).ok_or(PcapError::Truncated { offset: 0 })?;
            // The upper bits tell the length of a frame check sequence.
            let number = number & 0xffff;
            let link = LinkType::from_dlt(number).ok_or(PcapError::LinkType(number))?;
            buffer.take(PCAP_HEADER_BYTES);
            Format::Pcap(Records { link, magic })
        };
        Ok(Self { buffer, format, unsupported_packets: 0 })
    }

    /// The next packet, or none at the end of the file.
    ///
    /// # Errors
    /// If the file is damaged or ends too early: nothing can be read after that.
    #[inline]
    pub fn next_packet(&mut self) -> Result<Option<CapturedPacket<'_>>, PcapError> {
        match &mut self.format {
            Format::Pcap(records) => records.next_packet(&mut self.buffer),
            Format::PcapNg(section) => {
                section.next_packet(&mut self.buffer, &mut self.unsupported_packets)
            }
        }
    }

    /// Whether the next packet has to be read from the source, which may wait.
    pub fn may_wait(&self) -> bool {
        self.buffer.is_drained()
    }

    /// Packets left out so far because the pcapng interface they came from has a link layer that is
    /// not supported.
    pub fn unsupported_packets(&self) -> u64 {
        self.unsupported_packets
    }
}

const PCAP_HEADER_BYTES: usize = 24;

fn decompress(mut source: impl Read + Send + 'static) -> Result<Box<dyn Read + Send>, PcapError> {
    let failed = |source| PcapError::Read { offset: 0, source };
    let mut magic = Vec::with_capacity(4);
    source.by_ref().take(4).read_to_end(&mut magic).map_err(failed)?;
    let whole = io::Cursor::new(magic.clone()).chain(source);
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::new(whole).map_err(failed)?),
        _ => Box::new(whole),
    })
}

/// What the header of a pcap file says of its records.
struct Records {
    link: LinkType,
    magic: Magic,
}

/// What a magic number says (draft-ietf-opsawg-pcap, and libpcap for the "modified" format).
#[derive(Clone, Copy)]
struct Magic {
    big_endian: bool,
    /// 24 in the "modified" format, which has 8 more bytes that nobody needs.
    record_header_bytes: usize,
    /// Units of the fraction of a second in a microsecond.
    fractions_per_us: u32,
}

impl Magic {
    /// What the first bytes of a file say; none if it is no pcap.
    fn of(start: &[u8]) -> Option<Self> {
        [false, true].into_iter().find_map(|big_endian| {
            let (record_header_bytes, fractions_per_us) = match numbers(start, big_endian)? {
                [0xa1b2_c3d4] => (16, 1),
                [0xa1b2_3c4d] => (16, 1_000),
                [0xa1b2_cd34] => (24, 1),
                [_] => return None,
            };
            Some(Self { big_endian, record_header_bytes, fractions_per_us })
        })
    }
}

impl Records {
    #[inline]
    fn next_packet<'a>(
        &self,
        buffer: &'a mut Buffer,
    ) -> Result<Option<CapturedPacket<'a>>, PcapError> {
        let Magic { big_endian, record_header_bytes, fractions_per_us } = self.magic;
        let offset = buffer.offset();
        let start = buffer.at_least(record_header_bytes)?;
        if start.is_empty() {
            return Ok(None);
        }
        let [seconds, fraction, length, wire_length] = start
            .get(..record_header_bytes)
            .and_then(|header| numbers(header, big_endian))
            .ok_or(PcapError::Truncated { offset })?;
        let record = buffer.take_block(record_header_bytes, length)?;
        Ok(Some(CapturedPacket {
            link: self.link,
            time_us: u64::from(seconds) * 1_000_000 + u64::from(fraction / fractions_per_us),
            bytes: record.get(record_header_bytes..).unwrap_or_default(),
            wire_length,
        }))
    }
}
