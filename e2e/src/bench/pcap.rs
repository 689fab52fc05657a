//! Capture files: a trace written as a pcap, whole or cut to a snap length.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};

use super::frame::Framer;
use super::trace::Trace;

/// Classic pcap, microseconds, this machine's byte order (draft-ietf-opsawg-pcap).
const MAGIC: u32 = 0xa1b2_c3d4;
const VERSION: [u16; 2] = [2, 4];
const LINK_TYPE_ETHERNET: u32 = 1;
/// Where file time begins: 2026-01-01T00:00:00Z, a whole minute.
const START_S: u64 = 1_767_225_600;
const BUFFER_BYTES: usize = 1 << 20;

/// What a file holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Contents {
    /// Packets.
    pub packets: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes that the packets had on the wire.
    pub wire_bytes: u64,
    /// Packets of at most 66 bytes: acknowledgments.
    pub small: u64,
    /// Packets of 1,514 bytes.
    pub full: u64,
}

/// Writes a trace to a file, and waits until it is on disk, so that writing does not go on under a
/// measurement. What was written is in the page cache.
///
/// # Errors
/// If the file cannot be written.
pub fn write(trace: &Trace, path: &Path, snap_length: u32) -> Result<Contents> {
    let doing = || format!("cannot write {}", path.display());
    let file = File::create(path).with_context(doing)?;
    let mut file = BufWriter::with_capacity(BUFFER_BYTES, file);
    let contents = write_to(trace, &mut file, snap_length).with_context(doing)?;
    let file = file.into_inner().with_context(doing)?;
    file.sync_all().with_context(doing)?;
    Ok(contents)
}

fn write_to(trace: &Trace, file: &mut impl Write, snap_length: u32) -> Result<Contents> {
    let mut header = Vec::new();
    header.extend(MAGIC.to_ne_bytes());
    header.extend(VERSION.map(u16::to_ne_bytes).as_flattened());
    header.extend([0; 8]);
    header.extend(snap_length.to_ne_bytes());
    header.extend(LINK_TYPE_ETHERNET.to_ne_bytes());
    file.write_all(&header)?;

    let framer = Framer::default();
    let mut contents = Contents { file_bytes: header.len() as u64, ..Contents::default() };
    let mut frame = Vec::new();
    for event in &trace.events {
        let connection = trace
            .connections
            .get(event.connection as usize)
            .context("a packet of no connection")?;
        frame.clear();
        framer.append(connection, event, &mut frame)?;
        let (wire, kept) = (frame.len() as u32, (frame.len() as u32).min(snap_length));
        let (seconds, micros) = (event.time_us / 1_000_000, event.time_us % 1_000_000);
        let record = [(START_S + seconds) as u32, micros as u32, kept, wire];
        file.write_all(record.map(u32::to_ne_bytes).as_flattened())?;
        file.write_all(&frame[..kept as usize])?;
        contents.packets += 1;
        contents.file_bytes += 16 + u64::from(kept);
        contents.wire_bytes += u64::from(wire);
        contents.small += u64::from(wire <= 66);
        contents.full += u64::from(wire == 1_514);
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    /// The packets of a file: what was kept, and the length on the wire.
    fn packets(mut file: &[u8]) -> Vec<(&[u8], u32)> {
        let number =
            |bytes: &[u8], at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(number(file, 0), MAGIC);
        file = &file[24..];
        let mut packets = Vec::new();
        while !file.is_empty() {
            let kept = number(file, 8) as usize;
            packets.push((&file[16..16 + kept], number(file, 12)));
            file = &file[16 + kept..];
        }
        packets
    }

    #[test]
    fn whole_packets_are_tcp_with_right_checksums() {
        let trace = Trace::everyday(5_000);
        let mut file = Vec::new();
        let contents = write_to(&trace, &mut file, 65_535).unwrap();
        assert_eq!(contents.file_bytes, file.len() as u64);
        let packets = packets(&file);
        assert_eq!(packets.len(), trace.events.len());
        for (bytes, wire) in packets {
            assert_eq!(bytes.len(), wire as usize);
            assert!(bytes.len() <= 1_514);
            let packet = SlicedPacket::from_ethernet(bytes).unwrap();
            let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("no TCP") };
            let sum = match packet.net {
                Some(NetSlice::Ipv4(ip)) => {
                    let header = ip.header();
                    assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
                    tcp.calc_checksum_ipv4(header.source(), header.destination())
                }
                Some(NetSlice::Ipv6(ip)) => {
                    tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination())
                }
                _ => panic!("no IP"),
            };
            assert_eq!(sum.unwrap(), tcp.checksum());
        }
    }

    #[test]
    fn short_packets_keep_their_length() {
        let trace = Trace::everyday(1_000);
        let (mut whole, mut short) = (Vec::new(), Vec::new());
        write_to(&trace, &mut whole, 65_535).unwrap();
        write_to(&trace, &mut short, 128).unwrap();
        let (whole, short) = (packets(&whole), packets(&short));
        assert!(whole.iter().any(|(bytes, _)| bytes.len() > 128));
        for ((bytes, wire), (kept, length)) in whole.into_iter().zip(short) {
            assert_eq!((kept, length), (&bytes[..bytes.len().min(128)], wire));
        }
    }
}
