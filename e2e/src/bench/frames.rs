//! Frames and capture files, made by hand: no checksums, for nobody here reads them.

use std::fs::File;
use std::io::{BufWriter, Result, Write};
use std::path::Path;

/// TCP flags (RFC 9293, 3.1).
pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const ACK: u8 = 16;

/// One end of a connection; the address is in 10.0.0.0/8, or in fd00::/8 with the same number.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) host: u32,
    pub(super) port: u16,
}

/// A TCP segment between two ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) from: End,
    pub(super) to: End,
    pub(super) is_ipv6: bool,
    pub(super) sequence: u32,
    pub(super) acknowledgment: u32,
    pub(super) flags: u8,
    pub(super) payload: u16,
}

impl Segment {
    /// The headers, Ethernet to TCP.
    pub(super) fn headers(&self, to: &mut Vec<u8>) {
        to.clear();
        to.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        let tcp = 20 + self.payload;
        if self.is_ipv6 {
            to.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            to.extend(tcp.to_be_bytes());
            to.extend([6, 64]);
            for end in [self.from, self.to] {
                to.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                to.extend(end.host.to_be_bytes());
            }
        } else {
            to.extend([0x08, 0x00, 0x45, 0]);
            to.extend((20 + tcp).to_be_bytes());
            to.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
            for end in [self.from, self.to] {
                to.extend((10 << 24 | end.host & 0xff_ffff).to_be_bytes());
            }
        }
        to.extend(self.from.port.to_be_bytes());
        to.extend(self.to.port.to_be_bytes());
        to.extend(self.sequence.to_be_bytes());
        to.extend(self.acknowledgment.to_be_bytes());
        to.extend([0x50, self.flags, 0x10, 0, 0, 0, 0, 0]);
    }
}

/// A pcap file with microseconds, link type Ethernet.
pub(super) struct Pcap {
    file: BufWriter<File>,
    snap: usize,
    headers: Vec<u8>,
    pub(super) packets: u64,
}

const ZEROS: [u8; 2048] = [0; 2048];

impl Pcap {
    pub(super) fn create(path: &Path, snap: usize) -> Result<Self> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, snap as u32, 1] {
            file.write_all(&word.to_le_bytes())?;
        }
        Ok(Self { file, snap, headers: Vec::new(), packets: 0 })
    }

    pub(super) fn write(&mut self, time_us: u64, segment: &Segment) -> Result<()> {
        segment.headers(&mut self.headers);
        let length = self.headers.len() + usize::from(segment.payload);
        let captured = length.min(self.snap);
        for word in [time_us / 1_000_000, time_us % 1_000_000, captured as u64, length as u64] {
            self.file.write_all(&(word as u32).to_le_bytes())?;
        }
        let headers = self.headers.len().min(captured);
        self.file.write_all(&self.headers[..headers])?;
        self.file.write_all(&ZEROS[..captured - headers])?;
        self.packets += 1;
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<u64> {
        self.file.flush()?;
        Ok(self.packets)
    }
}
