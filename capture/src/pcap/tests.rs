//! Capture files made byte by byte, in every format, and broken.

use std::io::Write as _;

use proptest::prelude::*;

use super::*;

/// A file as it was put together, and where each packet's record starts.
#[derive(Clone, Default)]
struct Made {
    bytes: Vec<u8>,
    records: Vec<usize>,
}

/// What a packet was read as.
type Read = (LinkType, u64, Vec<u8>, u32);

fn read(bytes: &[u8]) -> (Vec<Read>, Option<PcapError>) {
    let mut packets = Vec::new();
    let mut reader = match PcapReader::new(io::Cursor::new(bytes.to_vec())) {
        Ok(reader) => reader,
        Err(error) => return (packets, Some(error)),
    };
    loop {
        match reader.next_packet() {
            Ok(Some(packet)) => packets.push((
                packet.link,
                packet.time_us,
                packet.bytes.to_vec(),
                packet.wire_length,
            )),
            Ok(None) => return (packets, None),
            Err(error) => return (packets, Some(error)),
        }
    }
}

fn number(value: u32, big_endian: bool) -> [u8; 4] {
    if big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
}

/// Three packets of 4, 5 and 0 bytes, 1, 2 and 3 seconds and 7 microseconds after the epoch.
fn pcap(big_endian: bool, nanoseconds: bool) -> Made {
    let magic = if nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
    let mut made = Made::default();
    made.bytes.extend(number(magic, big_endian));
    let version = [2_u16, 4].map(|v| if big_endian { v.to_be_bytes() } else { v.to_le_bytes() });
    made.bytes.extend(version.concat());
    for field in [0, 0, 65_535, 1] {
        made.bytes.extend(number(field, big_endian));
    }
    for (seconds, data) in [(1, &b"abcd"[..]), (2, b"efghi"), (3, b"")] {
        made.records.push(made.bytes.len());
        let fraction = if nanoseconds { 7_999 } else { 7 };
        for field in [seconds, fraction, data.len() as u32, 100] {
            made.bytes.extend(number(field, big_endian));
        }
        made.bytes.extend(data);
    }
    made
}

fn expected() -> Vec<Read> {
    [(1, "abcd"), (2, "efghi"), (3, "")]
        .map(|(s, data)| (LinkType::Ethernet, s * 1_000_000 + 7, data.as_bytes().to_vec(), 100))
        .to_vec()
}

/// A pcapng block.
fn block(kind: u32, body: &[u8], big_endian: bool) -> Vec<u8> {
    let padding = vec![0; body.len().next_multiple_of(4) - body.len()];
    let length = number((12 + body.len() + padding.len()) as u32, big_endian);
    [&number(kind, big_endian), &length, body, &padding, &length].concat()
}

fn section_header(big_endian: bool) -> Vec<u8> {
    let version = if big_endian { [0, 1, 0, 0] } else { [1, 0, 0, 0] };
    let body = [&number(0x1a2b_3c4d, big_endian)[..], &version, &[0xff; 8]].concat();
    block(0x0a0d_0d0a, &body, big_endian)
}

/// An interface of a link type, with the options if_tsresol and if_tsoffset.
fn interface(link: u16, resolution: u8, offset: i64, big_endian: bool) -> Vec<u8> {
    let (link, codes, offset) = if big_endian {
        (link.to_be_bytes(), [[0, 9, 0, 1], [0, 14, 0, 8]], offset.to_be_bytes())
    } else {
        (link.to_le_bytes(), [[9, 0, 1, 0], [14, 0, 8, 0]], offset.to_le_bytes())
    };
    let body = [&link[..], &[0; 6], &codes[0], &[resolution, 0, 0, 0], &codes[1], &offset, &[0; 4]];
    block(1, &body.concat(), big_endian)
}

fn packet(interface: u32, time: u64, data: &[u8], big_endian: bool) -> Vec<u8> {
    let fields = [interface, (time >> 32) as u32, time as u32, data.len() as u32, 100];
    let mut body: Vec<u8> = fields.iter().flat_map(|field| number(*field, big_endian)).collect();
    body.extend(data);
    block(6, &body, big_endian)
}

/// Two sections of different byte order; interfaces of nanoseconds, 2^-10 seconds and an offset.
fn pcapng() -> Made {
    let mut made = Made::default();
    let mut add = |bytes: Vec<u8>, is_packet: bool| {
        if is_packet {
            made.records.push(made.bytes.len());
        }
        made.bytes.extend(bytes);
    };
    add(section_header(false), false);
    add(interface(1, 9, 0, false), false);
    add(packet(0, 1_000_007_999, b"abcd", false), true);
    add(block(0x0bad, b"an unknown block", false), false);
    add(section_header(true), false);
    add(interface(147, 6, 0, true), false);
    add(interface(101, 0x80 | 10, 60, true), false);
    add(packet(1, 3 * 1_024 + 512, b"efghi", true), true);
    add(packet(0, 0, b"of a link type that is not supported", true), true);
    made
}

fn expected_pcapng() -> Vec<Read> {
    vec![
        (LinkType::Ethernet, 1_000_007, b"abcd".to_vec(), 100),
        (LinkType::RawIp, 63_500_000, b"efghi".to_vec(), 100),
    ]
}

#[test]
fn pcap_of_both_byte_orders_and_resolutions() {
    for (big_endian, nanoseconds) in [(false, false), (false, true), (true, false), (true, true)] {
        let (packets, error) = read(&pcap(big_endian, nanoseconds).bytes);
        assert!(error.is_none(), "{error:?}");
        assert_eq!(packets, expected());
    }
}

#[test]
fn pcapng_with_sections_interfaces_and_unknown_blocks() {
    let (packets, error) = read(&pcapng().bytes);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(packets, expected_pcapng());
    let mut reader = PcapReader::new(io::Cursor::new(pcapng().bytes)).unwrap();
    while reader.next_packet().unwrap().is_some() {}
    assert_eq!(reader.unsupported_packets(), 1);
}

#[test]
fn a_simple_packet_has_the_time_of_the_one_before() {
    let simple = block(3, &[&[5, 0, 0, 0][..], b"abcde"].concat(), false);
    let file =
        [section_header(false), interface(1, 6, 0, false), packet(0, 42, b"x", false), simple]
            .concat();
    let (packets, error) = read(&file);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(packets[1], (LinkType::Ethernet, 42, b"abcde".to_vec(), 5));
}

#[test]
fn an_obsolete_packet_block_has_a_short_interface_and_a_count_of_drops() {
    for big_endian in [false, true] {
        let word: u32 = if big_endian { 1 << 16 | 9 } else { 9 << 16 | 1 };
        let mut old = packet(word, 1_024, b"abcd", big_endian);
        old[..4].copy_from_slice(&number(2, big_endian));
        let interfaces =
            [interface(147, 6, 0, big_endian), interface(101, 0x80 | 10, 0, big_endian)];
        let file = [section_header(big_endian), interfaces.concat(), old].concat();
        let (packets, error) = read(&file);
        assert!(error.is_none(), "{error:?}");
        assert_eq!(packets, [(LinkType::RawIp, 1_000_000, b"abcd".to_vec(), 100)]);
    }
}

#[test]
fn every_time_resolution_is_the_exact_microsecond() {
    let units: u64 = 1_234_567_890_123_456_789;
    for resolution in (0..=38).chain((0..=126).map(|exponent| 0x80 | exponent)) {
        let base: u128 = if resolution & 0x80 == 0 { 10 } else { 2 };
        let per_second = base.pow(u32::from(resolution & 0x7f));
        let expected = u128::from(units) * 1_000_000 / per_second;
        let expected = expected.min(u64::MAX.into()) as u64;
        let file = [section_header(false), interface(1, resolution, 0, false)].concat();
        let (packets, error) = read(&[file, packet(0, units, b"x", false)].concat());
        assert!(error.is_none(), "{resolution:#x}: {error:?}");
        assert_eq!(packets[0].1, expected, "{resolution:#x}");
    }
}

#[test]
fn a_record_longer_than_the_window_and_one_across_its_end_are_whole() {
    let mut file = pcap(false, false).bytes[..24].to_vec();
    let lengths = [200_000, 100_000, 3_000_000, 7, MAX_BLOCK_BYTES - 16, 262_144 - 16, 1];
    for (number, length) in lengths.into_iter().enumerate() {
        for field in [1, 0, length as u32, length as u32] {
            file.extend(u32::to_le_bytes(field));
        }
        file.extend(vec![number as u8; length]);
    }
    let (packets, error) = read(&file);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(packets.len(), lengths.len());
    for (number, (packet, length)) in packets.iter().zip(lengths).enumerate() {
        assert_eq!(packet.2.len(), length);
        assert!(packet.2.iter().all(|byte| *byte == number as u8), "packet {number}");
    }
}

#[test]
fn the_modified_format_has_longer_record_headers_in_either_byte_order() {
    for big_endian in [false, true] {
        let plain = pcap(big_endian, false);
        let mut file = plain.bytes[..24].to_vec();
        file[..4].copy_from_slice(&number(0xa1b2_cd34, big_endian));
        for (index, start) in plain.records.iter().enumerate() {
            let end = plain.records.get(index + 1).copied().unwrap_or(plain.bytes.len());
            file.extend(&plain.bytes[*start..start + 16]);
            file.extend([0xee; 8]);
            file.extend(&plain.bytes[start + 16..end]);
        }
        let (packets, error) = read(&file);
        assert!(error.is_none(), "{error:?}");
        assert_eq!(packets, expected());
    }
}

#[test]
fn compressed_files_are_read_as_such() {
    let plain = pcap(false, false).bytes;
    let (first, second) = plain.split_at(50);
    // Two members, as a file that was appended to.
    let gz = [first, second].map(|part| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap()
    });
    let zstd = [first, second].map(|part| zstd::encode_all(part, 1).unwrap());
    for (compressed, damage) in [(gz.concat(), 20), (zstd.concat(), 8)] {
        let (packets, error) = read(&compressed);
        assert!(error.is_none(), "{error:?}");
        assert_eq!(packets, expected());
        // Cut off within the second member: what the first holds is read, and the rest is an error.
        let (packets, error) = read(&compressed[..compressed.len() - damage]);
        assert_eq!(packets, expected()[..packets.len()]);
        assert!(!packets.is_empty());
        assert!(matches!(error, Some(PcapError::Read { offset: 50.., .. })), "{error:?}");
    }
}

#[test]
fn a_truncated_file_yields_what_is_whole_and_names_the_byte() {
    for made in [pcap(false, false), pcapng()] {
        let (whole, _) = read(&made.bytes);
        for length in 0..made.bytes.len() {
            let (packets, error) = read(&made.bytes[..length]);
            assert_eq!(packets, whole[..packets.len()], "{length} bytes");
            match error {
                Some(PcapError::Truncated { offset }) => {
                    assert!(offset < length as u64, "{length} bytes: {offset}");
                }
                Some(PcapError::NotACapture) => assert!(length < 4, "{length} bytes"),
                Some(error) => panic!("{length} bytes: {error}"),
                None => {}
            }
        }
    }
    let made = pcap(false, false);
    let (packets, error) = read(&made.bytes[..made.records[1] + 18]);
    assert_eq!(packets.len(), 1);
    let expected = format!("ends inside the record that starts at byte {}", made.records[1]);
    assert!(error.unwrap().to_string().contains(&expected));
}

#[test]
fn a_damaged_record_is_an_error_that_names_the_byte() {
    let mut made = pcap(false, false);
    made.bytes[made.records[1] + 11] = 0x7f;
    let (packets, error) = read(&made.bytes);
    assert_eq!(packets, expected()[..1]);
    let error = error.unwrap().to_string();
    assert!(error.contains(&format!("damaged at byte {}", made.records[1])), "{error}");

    let mut made = pcapng();
    // A captured length that reaches beyond its block.
    made.bytes[made.records[0] + 20] = 0xff;
    let (packets, error) = read(&made.bytes);
    assert!(packets.is_empty());
    let error = error.unwrap().to_string();
    assert!(error.contains(&format!("damaged at byte {}", made.records[0])), "{error}");
}

#[test]
fn what_is_no_capture_says_so() {
    assert!(matches!(read(b"").1, Some(PcapError::NotACapture)));
    assert!(matches!(read(b"hello, this is a text file").1, Some(PcapError::NotACapture)));
    let mut wifi = pcap(false, false).bytes;
    wifi[20] = 105;
    assert!(matches!(read(&wifi).1, Some(PcapError::LinkType(105))));
    let missing = PcapReader::open(Path::new("/nonexistent/file.pcap")).err().unwrap();
    assert!(missing.to_string().contains("check its name"), "{missing}");
}

proptest! {
    #[test]
    fn no_file_panics(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        ng in any::<bool>(),
        length in any::<prop::sample::Index>(),
    ) {
        let mut bytes = if ng { pcapng().bytes } else { pcap(false, false).bytes };
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(length.index(bytes.len()) + 1);
        let (packets, _) = read(&bytes);
        prop_assert!(packets.len() <= 3);
    }
}
