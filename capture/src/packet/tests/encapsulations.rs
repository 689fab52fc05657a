//! What IP packets stand behind, and tunnels: each opened if asked for, and else what it is.

use super::*;

const PARSER: Parser = Parser { decapsulate: true };

fn open(frame: &[u8]) -> Result<Segment, Skipped> {
    PARSER.parse(LinkType::RawIp, frame, frame.len() as u32)
}

/// An IPv4 packet of a protocol from 192.0.2.1 to 192.0.2.2.
fn carrier_v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
    packet.extend([192, 0, 2, 1, 192, 0, 2, 2]);
    packet.extend(payload);
    let length = packet.len() as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet
}

fn carrier_v6(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
    packet.extend([9; 32]);
    packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    packet.extend(payload);
    packet
}

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0xc0, 0];
    for field in [port, 8 + payload.len() as u16, 0] {
        datagram.extend(field.to_be_bytes());
    }
    datagram.extend(payload);
    datagram
}

fn vxlan(inner: &[u8]) -> Vec<u8> {
    frame(&[8, 0, 0, 0, 0, 0, 42, 0], inner)
}

#[test]
fn ethernet_leads_to_ip_behind_llc_pppoe_and_mpls() {
    let snap = |kind: [u8; 2]| [&[0, 60, 0xaa, 0xaa, 3, 0, 0, 0][..], &kind].concat();
    let session = [0x88, 0x64, 0x11, 0, 0, 7, 0, 54];
    let prefixes = [
        ("802.3 with SNAP", snap([8, 0]), snap([0x86, 0xdd])),
        (
            "802.3 with SNAP in a VLAN",
            frame(&[0x81, 0, 0, 5], &snap([8, 0])),
            frame(&[0x81, 0, 0, 5], &snap([0x86, 0xdd])),
        ),
        ("PPPoE", frame(&session, &[0, 0x21]), frame(&session, &[0, 0x57])),
        (
            "one MPLS label and two",
            vec![0x88, 0x47, 0, 1, 1, 64],
            vec![0x88, 0x47, 0, 1, 0, 64, 0, 2, 1, 64],
        ),
        (
            "FabricPath",
            frame(&[0x89, 0x03, 0, 0x41], &ethernet(&[8, 0], &[])),
            frame(&[0x89, 0x03, 0, 0x41], &ethernet(&[0x81, 0, 0, 5, 0x86, 0xdd], &[])),
        ),
        (
            "MPLS in PPPoE, and multicast",
            frame(&session, &[0x02, 0x81, 0, 1, 1, 64]),
            vec![0x88, 0x48, 0, 1, 1, 64],
        ),
    ];
    for (name, before_v4, before_v6) in prefixes {
        for (before, packet, ip_bytes) in [(before_v4, ipv4(), 52), (before_v6, ipv6(), 72)] {
            let whole = ethernet(&before, &packet);
            let headers = whole.len() - 12;
            let parsed = parse_whole(LinkType::Ethernet, &whole);
            assert_eq!(parsed.map(|segment| segment.ip_bytes), Ok(ip_bytes), "{name}");
            for length in 0..headers {
                let cut = parse(LinkType::Ethernet, &whole[..length], whole.len() as u32);
                assert_eq!(cut, Err(Skipped::Truncated), "{name}, {length} bytes");
            }
        }
    }
    let service_access_point = ethernet(&[0, 55, 6, 6, 3], &ipv4());
    assert!(parse_whole(LinkType::Ethernet, &service_access_point).is_ok());
    let cooked = [&[0; 14][..], &[0, 4, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &ipv4()].concat();
    assert!(parse_whole(LinkType::LinuxSll, &cooked).is_ok(), "LLC in a cooked capture");
    let tagged = [&[0x81, 0][..], &[0; 18], &[0, 5, 8, 0], &ipv4()].concat();
    assert!(parse_whole(LinkType::LinuxSll2, &tagged).is_ok(), "a tag in a cooked capture");
}

#[test]
fn headers_by_the_million_are_given_up() {
    for (name, header) in [
        ("tags", &[0x81, 0, 0, 5][..]),
        ("SNAP", &[0, 60, 0xaa, 0xaa, 3, 0, 0, 0]),
        ("FabricPath", &[0x89, 0x03, 0, 0x41, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]),
    ] {
        let behind = |headers: usize| {
            let headers = frame(&header.repeat(headers), &[8, 0]);
            parse_whole(LinkType::Ethernet, &ethernet(&headers, &ipv4()))
        };
        assert_eq!(behind(15).map(|segment| segment.ip_bytes), Ok(52), "{name}");
        assert_eq!(behind(16), Err(Skipped::NotIp), "{name}");
        assert_eq!(behind(200_000), Err(Skipped::NotIp), "{name}");
    }
}

#[test]
fn what_looks_like_ip_behind_another_header_is_not_ip() {
    for (name, before) in [
        ("spanning tree", &[0, 60, 0x42, 0x42, 3][..]),
        ("another organization's SNAP", &[0, 60, 0xaa, 0xaa, 3, 0, 0, 0x0c, 8, 0]),
        ("PPPoE discovery", &[0x88, 0x63, 0x11, 0, 0, 7, 0, 54, 0, 0x21]),
        ("PPPoE of another code", &[0x88, 0x64, 0x11, 9, 0, 7, 0, 54, 0, 0x21]),
        ("LCP", &[0x88, 0x64, 0x11, 0, 0, 7, 0, 54, 0xc0, 0x21]),
        ("a pseudowire's control word", &[0x88, 0x47, 0, 1, 1, 64, 0, 0, 0, 0]),
    ] {
        let parsed = parse_whole(LinkType::Ethernet, &ethernet(before, &ipv4()));
        assert_eq!(parsed, Err(Skipped::NotIp), "{name}");
    }
}

#[test]
fn a_jumbogram_has_its_length_in_an_option() {
    let tcp = &ipv6()[40..];
    // Padding of one byte and of two, then the option: 100,000 bytes behind the fixed header.
    let hop_by_hop = [6, 1, 0, 1, 0, 0, 0xc2, 4, 0, 1, 0x86, 0xa0, 1, 2, 0, 0];
    let mut packet = [&ipv6()[..40], &hop_by_hop, tcp].concat();
    packet[4..7].fill(0);
    let segment = parse_whole(LinkType::RawIp, &packet).unwrap();
    assert_eq!((segment.ip_bytes, segment.payload_bytes), (100_040, 100_000 - 16 - 20));
    // Without it, the length on the wire is all there is.
    packet[46] = 0x1e;
    let segment = parse(LinkType::RawIp, &packet, 70_000).unwrap();
    assert_eq!((segment.ip_bytes, segment.payload_bytes), (70_000, 70_000 - 40 - 16 - 20));
}

#[test]
fn tcp_behind_an_authentication_header_is_tcp() {
    let authentication = [6, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let packet = carrier_v4(51, &frame(&authentication, &ipv4()[20..]));
    let segment = parse_whole(LinkType::RawIp, &packet).unwrap();
    assert_eq!((segment.ip_bytes, segment.payload_bytes), (76, 12));
}

/// All tunnels, around an IPv4 and an IPv6 packet; the first number is how long the tunnel's headers are.
fn tunnels() -> Vec<(&'static str, usize, u8, Vec<u8>)> {
    let (v4, v6) = (ipv4(), ipv6());
    let frame_v4 = ethernet(&[8, 0], &v4);
    let frame_v6 = ethernet(&[0x81, 0, 0, 5, 0x86, 0xdd], &v6);
    let geneve = |words: u8, kind: [u8; 2]| {
        let options = vec![7; 4 * usize::from(words)];
        [&[words, 0][..], &kind, &[0, 0, 1, 0], &options].concat()
    };
    let gre = |flags: [u8; 2], kind: [u8; 2], fields: usize| {
        [&flags[..], &kind, &vec![1; 4 * fields]].concat()
    };
    let in_udp = |port: u16, header: &[u8], inner: &[u8]| udp(port, &frame(header, inner));
    let of = |payload: Vec<u8>, inner: &[u8]| (payload.len() - inner.len(), payload);
    let made = [
        ("IPv4", 4, of(v4.clone(), &v4)),
        ("IPv6", 41, of(v6.clone(), &v6)),
        ("GRE", 47, of(frame(&gre([0, 0], [8, 0], 0), &v4), &v4)),
        ("GRE and a checksum", 47, of(frame(&gre([0x80, 0], [8, 0], 1), &v4), &v4)),
        ("GRE and all fields", 47, of(frame(&gre([0xb0, 0], [0x86, 0xdd], 3), &v6), &v6)),
        ("GRE and Ethernet", 47, of(frame(&gre([0x20, 0], [0x65, 0x58], 1), &frame_v4), &v4)),
        (
            "GRE and MPLS",
            47,
            of([&gre([0, 0], [0x88, 0x47], 0), &[0, 1, 1, 9][..], &v4].concat(), &v4),
        ),
        (
            "PPTP",
            47,
            of([&gre([0x30, 0x81], [0x88, 0x0b], 3), &[0xff, 3, 0, 0x21][..], &v4].concat(), &v4),
        ),
        ("VXLAN", 17, of(udp(4789, &vxlan(&frame_v4)), &v4)),
        ("VXLAN at the old port", 17, of(udp(8472, &vxlan(&frame_v6)), &v6)),
        ("Geneve", 17, of(in_udp(6081, &geneve(0, [0x65, 0x58]), &frame_v4), &v4)),
        ("Geneve with options", 17, of(in_udp(6081, &geneve(5, [0x86, 0xdd]), &v6), &v6)),
        ("Geneve and IPv4", 17, of(in_udp(6081, &geneve(1, [8, 0]), &v4), &v4)),
    ];
    made.into_iter()
        .map(|(name, protocol, (headers, bytes))| (name, headers, protocol, bytes))
        .collect()
}

#[test]
fn every_tunnel_is_opened_if_asked_for_and_else_is_a_tunnel() {
    for (name, headers, protocol, payload) in tunnels() {
        for (outer, outer_bytes) in
            [(carrier_v4(protocol, &payload), 20), (carrier_v6(protocol, &payload), 40)]
        {
            assert_eq!(parse_whole(LinkType::RawIp, &outer), Err(Skipped::Tunnel), "{name}");
            let inner = &payload[headers..];
            let expected = parse_whole(LinkType::RawIp, inner).unwrap();
            assert_eq!(open(&outer), Ok(expected), "{name}");
            // Up to the payload every byte is needed; from there on none.
            let needed = outer_bytes + payload.len() - 12;
            for length in outer_bytes..outer.len() {
                let cut = PARSER.parse(LinkType::RawIp, &outer[..length], outer.len() as u32);
                match length < needed {
                    // A datagram that ends before its ports is no tunnel yet.
                    true if protocol == 17 && length < outer_bytes + 4 => {
                        assert_eq!(cut, Err(Skipped::NotTcp), "{name}, {length} bytes");
                    }
                    true => assert_eq!(cut, Err(Skipped::Truncated), "{name}, {length} bytes"),
                    false => assert_eq!(cut, Ok(expected), "{name}, {length} bytes"),
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_opened_is_a_tunnel_and_what_is_inside_is_what_it_is() {
    let arp = ethernet(&[8, 6], &[0; 28]);
    for (name, protocol, payload, expected) in [
        ("GRE with source routes", 47, frame(&[0x40, 0, 8, 0], &ipv4()), Skipped::Tunnel),
        ("a later version of GRE", 47, frame(&[0, 2, 8, 0], &ipv4()), Skipped::Tunnel),
        ("GRE with something else", 47, frame(&[0, 0, 0x88, 0xbe], &ipv4()), Skipped::Tunnel),
        ("VXLAN without network", 17, udp(4789, &[0; 60]), Skipped::Tunnel),
        ("a later version of Geneve", 17, udp(6081, &[0x40; 60]), Skipped::Tunnel),
        ("ARP in VXLAN", 17, udp(4789, &vxlan(&arp)), Skipped::NotIp),
        ("UDP in IP", 4, carrier_v4(17, &udp(53, b"")), Skipped::NotTcp),
        ("another port", 17, udp(4790, &vxlan(&ethernet(&[8, 0], &ipv4()))), Skipped::NotTcp),
        ("a broken packet in IP", 4, vec![0x42; 40], Skipped::Malformed),
    ] {
        assert_eq!(open(&carrier_v4(protocol, &payload)), Err(expected), "{name}");
    }
    // The source port of a tunnel is any, that of another protocol may be a tunnel's.
    let mut answer = udp(53, &vxlan(&ethernet(&[8, 0], &ipv4())));
    answer[..2].copy_from_slice(&4789_u16.to_be_bytes());
    assert_eq!(open(&carrier_v4(17, &answer)), Err(Skipped::NotTcp));
}

#[test]
fn a_later_fragment_is_one_whatever_it_is_of() {
    for protocol in [6, 17, 47, 4] {
        let mut packet = carrier_v4(protocol, &ipv4());
        packet[7] = 1;
        assert_eq!(parse_whole(LinkType::RawIp, &packet), Err(Skipped::Fragment));
        assert_eq!(open(&packet), Err(Skipped::Fragment));
        assert_eq!(open(&carrier_v4(4, &packet)), Err(Skipped::Fragment), "inside a tunnel");
    }
}

#[test]
fn tunnels_are_opened_to_a_depth() {
    let mut packet = ipv4();
    for depth in 1..=MAX_TUNNELS {
        packet = carrier_v4(4, &packet);
        assert_eq!(open(&packet).map(|segment| segment.ip_bytes), Ok(52), "{depth} tunnels");
    }
    assert_eq!(open(&carrier_v4(4, &packet)), Err(Skipped::Tunnel));
    assert_eq!(
        open(&carrier_v6(17, &udp(4789, &vxlan(&ethernet(&[8, 0], &packet))))),
        Err(Skipped::Tunnel)
    );
}

#[test]
fn a_length_that_is_not_inside_is_what_the_tunnel_leaves() {
    let mut inner = ipv4();
    inner[2..4].fill(0);
    let mut outer = carrier_v4(17, &udp(4789, &vxlan(&ethernet(&[8, 0], &inner))));
    outer[2..4].fill(0);
    // Offloading made it larger than 64 KiB, headers and all.
    let segment = PARSER.parse(LinkType::RawIp, &outer, 90_000).unwrap();
    assert_eq!(segment.ip_bytes, 90_000 - 20 - 8 - 8 - 14);
}
