//! Packets made by etherparse's builder, byte by byte where it has none, and broken in every way.

use std::net::SocketAddr;

use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;

mod encapsulations;

/// An IPv4 packet without link layer: SYN, 12 bytes of payload.
fn ipv4() -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .tcp(40_000, 80, 0xdead_beef, 512)
        .syn()
        .write(&mut packet, b"twelve bytes")
        .unwrap();
    packet
}

/// The same as IPv6: SYN-ACK.
fn ipv6() -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv6([1; 16], [2; 16], 64)
        .tcp(40_000, 80, 7, 512)
        .syn()
        .ack(9)
        .write(&mut packet, b"twelve bytes")
        .unwrap();
    packet
}

fn frame(prefix: &[u8], packet: &[u8]) -> Vec<u8> {
    [prefix, packet].concat()
}

fn ethernet(tags_and_type: &[u8], packet: &[u8]) -> Vec<u8> {
    frame(&[&[2; 12], tags_and_type].concat(), packet)
}

fn parse(link: LinkType, frame: &[u8], wire_length: u32) -> Result<Segment, Skipped> {
    Parser::default().parse(link, frame, wire_length)
}

/// Parses a frame that was captured whole.
fn parse_whole(link: LinkType, frame: &[u8]) -> Result<Segment, Skipped> {
    parse(link, frame, frame.len() as u32)
}

fn end(text: &str) -> Endpoint {
    text.parse::<SocketAddr>().unwrap().into()
}

#[test]
fn all_fields_are_read() {
    let segment = parse_whole(LinkType::RawIp, &ipv4()).unwrap();
    let expected = Segment {
        source: end("10.0.0.1:40000"),
        destination: end("10.0.0.2:80"),
        sequence: 0xdead_beef,
        acknowledgment: 0,
        flags: Flags { syn: true, ..Flags::default() },
        window: 512,
        ip_bytes: 52,
        payload_bytes: 12,
    };
    assert_eq!(segment, expected);
    let segment = parse_whole(LinkType::RawIp, &ipv6()).unwrap();
    assert_eq!(segment.source, end("[101:101:101:101:101:101:101:101]:40000"));
    assert_eq!((segment.ip_bytes, segment.payload_bytes, segment.acknowledgment), (72, 12, 9));
}

#[test]
fn every_link_layer_leads_to_the_packet() {
    let (v4, v6) = (ipv4(), ipv6());
    let sll = |kind: [u8; 2]| frame(&[0; 14], &kind);
    let sll2 = |kind: [u8; 2]| frame(&kind, &[0; 18]);
    let frames = [
        (LinkType::Ethernet, ethernet(&[0x08, 0x00], &v4), ethernet(&[0x86, 0xdd], &v6)),
        (
            LinkType::Ethernet,
            ethernet(&[0x81, 0, 0, 5, 0x08, 0x00], &v4),
            ethernet(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x86, 0xdd], &v6),
        ),
        (
            LinkType::LinuxSll,
            frame(&sll([0x08, 0]), &v4),
            frame(&frame(&sll([0x81, 0]), &[0, 5, 0x86, 0xdd]), &v6),
        ),
        (LinkType::LinuxSll2, frame(&sll2([0x08, 0]), &v4), frame(&sll2([0x86, 0xdd]), &v6)),
        (LinkType::Null, frame(&[2, 0, 0, 0], &v4), frame(&[0, 0, 0, 30], &v6)),
        (LinkType::Loop, frame(&[0, 0, 0, 2], &v4), frame(&[0, 0, 0, 24], &v6)),
        (LinkType::RawIp, v4.clone(), v6.clone()),
        (LinkType::Ppp, frame(&[0xff, 3, 0, 0x21], &v4), frame(&[0, 0x57], &v6)),
        (LinkType::Ppp, frame(&[0x21], &v4), frame(&[0x0f, 0, 0x86, 0xdd], &v6)),
        (
            LinkType::CiscoHdlc,
            frame(&[0x0f, 0, 0x08, 0x00], &v4),
            frame(&[0x8f, 0, 0x86, 0xdd], &v6),
        ),
    ];
    for (link, v4, v6) in frames {
        assert_eq!(parse_whole(link, &v4).map(|segment| segment.ip_bytes), Ok(52), "{link:?}");
        assert_eq!(parse_whole(link, &v6).map(|segment| segment.ip_bytes), Ok(72), "{link:?}");
    }
}

#[test]
fn lengths_are_the_headers_and_not_the_captures() {
    // Padding of a short Ethernet frame is no payload.
    let padded = ethernet(&[0x08, 0x00], &frame(&ipv4(), &[0; 20]));
    assert_eq!(parse_whole(LinkType::Ethernet, &padded).unwrap().payload_bytes, 12);
    // What the capture cut off is.
    let cut = &ipv4()[..40];
    assert_eq!(parse(LinkType::RawIp, cut, 52).unwrap().payload_bytes, 12);
    // Without a length in the header it is that on the wire, less the link layer.
    for (mut packet, zeroed, headers) in [(ipv4(), 2..4, 40), (ipv6(), 4..6, 60)] {
        packet[zeroed].fill(0);
        let kind = if headers == 40 { [0x08, 0x00] } else { [0x86, 0xdd] };
        let segment = parse(LinkType::Ethernet, &ethernet(&kind, &packet), 100_014).unwrap();
        assert_eq!((segment.ip_bytes, segment.payload_bytes), (100_000, 100_000 - headers));
    }
}

#[test]
fn options_and_extensions_are_skipped() {
    let mut packet = Vec::new();
    let mut options = etherparse::Ipv4Header::new(0, 64, IpNumber::TCP, [1; 4], [2; 4]).unwrap();
    options.options = [1; 12].into();
    PacketBuilder::ip(etherparse::IpHeaders::Ipv4(options, Default::default()))
        .tcp(1, 2, 3, 4)
        .write(&mut packet, b"twelve bytes")
        .unwrap();
    let segment = parse_whole(LinkType::RawIp, &packet).unwrap();
    assert_eq!((segment.ip_bytes, segment.payload_bytes), (64, 12));

    // Hop-by-hop (8 bytes), authentication (12 bytes), first fragment, destination options (16 bytes).
    let tcp = &ipv6()[40..];
    let extensions = [
        &[51, 0, 1, 4, 0, 0, 0, 0][..],
        &[44, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[60, 0, 0, 1, 0, 0, 0, 0],
        &[6, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    let mut packet = frame(&ipv6()[..40], &frame(&extensions, tcp));
    packet[5] = (extensions.len() + tcp.len()) as u8;
    packet[6] = 0;
    let segment = parse_whole(LinkType::RawIp, &packet).unwrap();
    assert_eq!((segment.ip_bytes, segment.payload_bytes, segment.source.port), (116, 12, 40_000));
    // A later fragment has no TCP header, whatever its bytes look like.
    packet[40 + 8 + 12 + 3] |= 8;
    assert_eq!(parse_whole(LinkType::RawIp, &packet), Err(Skipped::Fragment));
}

#[test]
fn what_is_no_tcp_header_is_skipped_with_the_reason() {
    let changed = |at: usize, value: u8| {
        let mut packet = ipv4();
        packet[at] = value;
        parse_whole(LinkType::RawIp, &packet)
    };
    assert_eq!(changed(9, 17), Err(Skipped::NotTcp));
    assert_eq!(changed(9, 4), Err(Skipped::Tunnel), "IP in IP");
    assert_eq!(changed(7, 1), Err(Skipped::Fragment));
    assert_eq!(changed(6, 0x20).map(|segment| segment.payload_bytes), Ok(12), "a first fragment");
    assert_eq!(changed(0, 0x44), Err(Skipped::Malformed), "IP header shorter than it can be");
    assert_eq!(changed(3, 39), Err(Skipped::Malformed), "no room for the TCP header");
    assert_eq!(changed(32, 0x40), Err(Skipped::Malformed), "TCP header shorter than it can be");
    assert_eq!(changed(0, 0x15), Err(Skipped::NotIp));
    let arp = ethernet(&[0x08, 0x06], &[0; 28]);
    assert_eq!(parse_whole(LinkType::Ethernet, &arp), Err(Skipped::NotIp));
    assert_eq!(parse_whole(LinkType::Null, &[7, 0, 0, 0]), Err(Skipped::NotIp));
}

proptest! {
    #[test]
    fn no_bytes_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        wire_length in any::<u32>(),
        decapsulate in any::<bool>(),
    ) {
        for link in LinkType::ALL {
            let parser = Parser { decapsulate };
            if let Ok(segment) = parser.parse(link, &bytes, wire_length) {
                prop_assert!(segment.payload_bytes <= segment.ip_bytes - 40);
            }
        }
    }

    #[test]
    fn a_good_packet_with_bad_bytes_does_not_panic(
        changes in proptest::collection::vec((0_usize..90, any::<u8>()), 1..6),
        length in 0_usize..90,
    ) {
        for (kind, packet) in [([0x08, 0x00], ipv4()), ([0x86, 0xdd], ipv6())] {
            let mut bytes = ethernet(&kind, &packet);
            for (at, value) in &changes {
                if let Some(byte) = bytes.get_mut(*at) {
                    *byte = *value;
                }
            }
            bytes.truncate(length);
            if let Ok(segment) = parse(LinkType::Ethernet, &bytes, 90) {
                prop_assert!(segment.payload_bytes <= segment.ip_bytes - 40);
            }
        }
    }
}

#[test]
fn a_good_packet_cut_short_is_truncated_or_whole() {
    for (kind, packet, headers) in [([0x08, 0x00], ipv4(), 40), ([0x86, 0xdd], ipv6(), 60)] {
        let whole = ethernet(&kind, &packet);
        for length in 0..=whole.len() {
            let parsed = parse(LinkType::Ethernet, &whole[..length], whole.len() as u32);
            match length < 14 + headers {
                true => assert_eq!(parsed, Err(Skipped::Truncated), "{length} bytes"),
                false => assert_eq!(parsed.unwrap().payload_bytes, 12),
            }
        }
    }
}
