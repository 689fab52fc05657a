//! Which ring of a group a packet goes to: the kernel takes the value of this program modulo their
//! number (PACKET_FANOUT_CBPF, Documentation/networking/packet_mmap.rst).
//!
//! All packets of one TCP connection at one interface get one value, either direction, first
//! fragments too. The kernel's own hash would not do: it leaves the ports of fragments out.

use std::net::IpAddr;

use flowtrail_schema::Endpoint;
use libc::sock_filter;

use super::filter::{FRAGMENT_OFFSET_BITS, IPV4, IPV4_FRAGMENT, IPV4_PROTOCOL, IPV6, TAGS, TCP};
use super::program::{Code, LINK_HEADER, LINK_TYPE, NETWORK_HEADER, PROTOCOL, Place, Width};

/// Offsets of the addresses, the destination's right behind the source's.
const IPV4_ADDRESSES: u32 = 12;
const IPV6_ADDRESSES: u32 = 8;
const IPV6_ADDRESS_WORDS: u32 = 8;

/// Any odd number with well mixed bits: 2^32 divided by the golden ratio.
const PORTS_FACTOR: u32 = 0x9e37_79b1;

/// Slots of the program's memory.
const SOURCE_PORT: u32 = 0;
const PORTS: u32 = 1;

/// The program. At this point the kernel's data begin at the link header of sent and at the network
/// header of received packets, so all loads are relative to a header.
pub(super) fn program() -> Vec<sock_filter> {
    let mut code = Code::default();
    let result = code.end_with_a();
    let mixed = mix(&mut code, result);
    let constant = code.end(0);
    // A tag that the kernel took out of the frame is not in the way. One that is still there has the
    // network header before or behind it, depending on the direction; the link header is reliable.
    let ethernet = {
        let two_tags = ip_behind_tags(&mut code, 20, mixed, constant);
        let one_tag = {
            let tagged = code.if_one_of(&TAGS, two_tags, constant);
            ip_behind_tags(&mut code, 16, mixed, tagged)
        };
        let tagged = code.if_one_of(&TAGS, one_tag, constant);
        ip_behind_tags(&mut code, 12, mixed, tagged)
    };
    let no_link_header = {
        let ip = ip_at(&mut code, NETWORK_HEADER, mixed, constant);
        code.load(Width::Word, PROTOCOL, ip)
    };
    let link_types = [libc::ARPHRD_ETHER.into(), libc::ARPHRD_LOOPBACK.into()];
    let link_type = code.if_one_of(&link_types, ethernet, no_link_header);
    let first = code.load(Width::Word, LINK_TYPE, link_type);
    code.program(first)
}

/// The ring of so many that gets the packets of a TCP connection between two ends of one family: what
/// the program and the kernel come to.
pub fn worker_of(one: Endpoint, other: Endpoint, workers: usize) -> usize {
    let value = match (one.ip, other.ip) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let ports = (u32::from(one.port) + u32::from(other.port)).wrapping_mul(PORTS_FACTOR);
            (u32::from(a) ^ u32::from(b)).wrapping_add(ports)
        }
        (a, b) => [a, b].into_iter().fold(0, |value, ip| match ip {
            IpAddr::V4(ip) => value ^ u32::from(ip),
            IpAddr::V6(ip) => {
                let number = u128::from(ip);
                [0, 32, 64, 96].into_iter().fold(value, |it, shift| it ^ (number >> shift) as u32)
            }
        }),
    };
    let value = (value ^ (value >> 16)).wrapping_mul(0x85eb_ca6b);
    let value = (value ^ (value >> 13)).wrapping_mul(0xc2b2_ae35);
    (value ^ (value >> 16)) as usize % workers.max(1)
}

/// The IP packet behind the EtherType at an offset of an Ethernet frame; else another place.
fn ip_behind_tags(code: &mut Code, ether_type: u32, mixed: Place, other: Place) -> Place {
    let start = LINK_HEADER.wrapping_add(ether_type);
    let ip = ip_at(code, start.wrapping_add(2), mixed, other);
    code.load(Width::Half, start, ip)
}

/// For an EtherType in A, the IP packet at the offset; else another place.
fn ip_at(code: &mut Code, offset: u32, mixed: Place, other: Place) -> Place {
    let (ipv4, ipv6) = (ipv4_at(code, offset, mixed), ipv6_at(code, offset, mixed));
    let other = code.if_equal(IPV6, ipv6, other);
    code.if_equal(IPV4, ipv4, other)
}

/// TCP: addresses and ports. Tunnels, and fragments after the first, which have no ports: addresses.
fn ipv4_at(code: &mut Code, offset: u32, mixed: Place) -> Place {
    let at = |field: u32| offset.wrapping_add(field);
    let addresses = {
        let sum = code.add_x(mixed);
        let ports = code.recall_x(PORTS, sum);
        let both = code.xor_x(ports);
        let destination = code.load(Width::Word, at(IPV4_ADDRESSES + 4), both);
        let source = code.copy_to_x(destination);
        code.load(Width::Word, at(IPV4_ADDRESSES), source)
    };
    let addresses = code.keep(PORTS, addresses);
    let no_ports = code.set(0, addresses);
    let ports = {
        // A sum, because it is the same in both directions.
        let spread = code.multiply(PORTS_FACTOR, addresses);
        let sum = code.add_x(spread);
        let source = code.recall_x(SOURCE_PORT, sum);
        let destination = code.load_at_x(Width::Half, at(2), source);
        let source = code.keep(SOURCE_PORT, destination);
        let source = code.load_at_x(Width::Half, at(0), source);
        code.load_ipv4_header_length(offset, source)
    };
    let fragment = code.if_any_bit(FRAGMENT_OFFSET_BITS, no_ports, ports);
    let fragment = code.load(Width::Half, at(IPV4_FRAGMENT), fragment);
    let protocol = code.if_equal(TCP, fragment, no_ports);
    code.load(Width::Byte, at(IPV4_PROTOCOL), protocol)
}

/// Addresses only: any packet of a connection may have extension headers before its ports (of a
/// fragment, or of a jumbogram that segmentation offload made), and any may have none.
fn ipv6_at(code: &mut Code, offset: u32, mixed: Place) -> Place {
    let word = |number: u32| offset.wrapping_add(IPV6_ADDRESSES + number * 4);
    let rest = (1..IPV6_ADDRESS_WORDS).rev().fold(mixed, |then, number| {
        let both = code.xor_x(then);
        let next = code.load(Width::Word, word(number), both);
        code.copy_to_x(next)
    });
    code.load(Width::Word, word(0), rest)
}

/// Lets every bit of A decide over every other (the finalizer of MurmurHash3, 32 bits): addresses and
/// ports of a cluster differ in few bits, and the kernel only looks at the remainder.
fn mix(code: &mut Code, then: Place) -> Place {
    let then = xor_shifted(code, 16, then);
    let then = code.multiply(0xc2b2_ae35, then);
    let then = xor_shifted(code, 13, then);
    let then = code.multiply(0x85eb_ca6b, then);
    xor_shifted(code, 16, then)
}

/// A = A ^ (A >> bits).
fn xor_shifted(code: &mut Code, bits: u32, then: Place) -> Place {
    let both = code.xor_x(then);
    let shifted = code.shift_right(bits, both);
    code.copy_to_x(shifted)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use etherparse::PacketBuilder;

    use super::super::program::tests::{Packet, run};
    use super::*;

    type End = (IpAddr, u16);

    fn ip_packet(from: End, to: End, options: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        match (from.0, to.0) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = etherparse::Ipv4Header::new(
                    0,
                    64,
                    etherparse::IpNumber::TCP,
                    source.octets(),
                    destination.octets(),
                )
                .unwrap();
                header.options = options.try_into().unwrap();
                let headers = etherparse::IpHeaders::Ipv4(header, Default::default());
                let tcp = PacketBuilder::ip(headers).tcp(from.1, to.1, 7, 100);
                tcp.write(&mut bytes, b"payload").unwrap();
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let ip = PacketBuilder::ipv6(source.octets(), destination.octets(), 64);
                ip.tcp(from.1, to.1, 7, 100).write(&mut bytes, b"payload").unwrap();
            }
            _ => unreachable!("one family"),
        }
        bytes
    }

    /// As the kernel hands it over: sent (data at the link header, which has the tags; the network
    /// header behind them) or received (data and network header behind the link header's first tag,
    /// which is taken out).
    fn packet(link_type: u16, tags: &[u16], ip: &[u8], outgoing: bool) -> Packet {
        let version = if ip[0] >> 4 == 4 { 0x0800_u16 } else { 0x86dd };
        let kept = if outgoing { tags } else { tags.get(1..).unwrap_or_default() };
        let mut bytes = Vec::new();
        let ethernet = link_type != libc::ARPHRD_NONE;
        if ethernet {
            bytes.extend([0; 12]);
            for tag in kept {
                bytes.extend(tag.to_be_bytes());
                bytes.extend([0x40, 7]);
            }
            bytes.extend(version.to_be_bytes());
        }
        let network = match outgoing {
            _ if !ethernet => 0,
            true => bytes.len(),
            false => 14,
        };
        bytes.extend(ip);
        Packet {
            bytes,
            network,
            protocol: kept.first().copied().unwrap_or(version).into(),
            link_type: link_type.into(),
            packet_type: if outgoing { 4 } else { 0 },
            interface: 3,
            data: if outgoing { 0 } else { network },
        }
    }

    fn value(packet: &Packet) -> u32 {
        run(&program(), packet)
    }

    fn ends(address: u8, port: u16) -> [[End; 2]; 2] {
        let v4 = |last| IpAddr::from(Ipv4Addr::new(10, 1, 0, last));
        let v6 = |last: u8| IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()));
        [[(v4(1), port), (v4(address), 80)], [(v6(1), port), (v6(address), 80)]]
    }

    #[test]
    fn both_directions_have_one_value_however_they_are_tagged() {
        for [client, server] in (2..20).flat_map(|last| ends(last, 40_000 + u16::from(last))) {
            let requests = ip_packet(client, server, &[]);
            let expected = value(&packet(libc::ARPHRD_ETHER, &[], &requests, true));
            assert_ne!(expected, 0);
            for options in [&[][..], &[1; 4], &[1; 40]] {
                for ip in [ip_packet(client, server, options), ip_packet(server, client, options)] {
                    for tags in [&[][..], &[0x8100], &[0x88a8, 0x8100], &[0x9100, 0x8100]] {
                        for outgoing in [false, true] {
                            let packet = packet(libc::ARPHRD_ETHER, tags, &ip, outgoing);
                            assert_eq!(value(&packet), expected, "{tags:x?} {outgoing}");
                        }
                    }
                    let bare = packet(libc::ARPHRD_NONE, &[], &ip, false);
                    assert_eq!(value(&bare), expected, "no link header");
                }
            }
        }
    }

    #[test]
    fn the_agent_comes_to_the_same_as_the_kernel() {
        for [client, server] in (2..200).flat_map(|last| ends(last, 30_000 + 7 * u16::from(last))) {
            let packet = packet(libc::ARPHRD_ETHER, &[], &ip_packet(client, server, &[]), true);
            let [client, server] = [client, server].map(|(ip, port)| Endpoint { ip, port });
            for workers in 1..=4 {
                let expected = value(&packet) as usize % workers;
                assert_eq!(worker_of(client, server, workers), expected);
                assert_eq!(worker_of(server, client, workers), expected);
            }
        }
    }

    #[test]
    fn a_first_fragment_goes_with_its_connection_and_all_others_together() {
        let [[client, server], _] = ends(9, 40_000);
        let whole = ip_packet(client, server, &[]);
        let fragment = |flags_and_offset: [u8; 2], [from, to]: [End; 2]| {
            let mut bytes = ip_packet(from, to, &[]);
            bytes[6..8].copy_from_slice(&flags_and_offset);
            value(&packet(libc::ARPHRD_ETHER, &[], &bytes, false))
        };
        let expected = value(&packet(libc::ARPHRD_ETHER, &[], &whole, false));
        assert_eq!(fragment([0x20, 0], [client, server]), expected, "first");
        assert_eq!(fragment([0x40, 0], [client, server]), expected, "not to be fragmented");
        let others = fragment([0x20, 5], [client, server]);
        assert_eq!(fragment([0, 200], [server, client]), others, "they have no ports");
        let mut tunnel = whole;
        tunnel[9] = 47;
        assert_eq!(value(&packet(libc::ARPHRD_ETHER, &[], &tunnel, true)), others, "a tunnel");
    }

    #[test]
    fn ipv6_with_extension_headers_goes_with_its_connection() {
        let [_, [client, server]] = ends(9, 40_000);
        let plain = ip_packet(client, server, &[]);
        let mut extended = plain.clone();
        extended[6] = 0;
        extended.splice(40..40, [6, 0, 1, 4, 0, 0, 0, 0]);
        let value = |ip: &[u8]| value(&packet(libc::ARPHRD_ETHER, &[], ip, false));
        assert_eq!(value(&plain), value(&extended));
    }

    #[test]
    fn what_is_not_ip_or_too_short_has_the_value_0() {
        let [[client, server], _] = ends(9, 40_000);
        let ip = ip_packet(client, server, &[]);
        let whole = packet(libc::ARPHRD_ETHER, &[], &ip, false);
        let mut arp = whole.clone();
        arp.bytes[12..14].copy_from_slice(&[8, 6]);
        assert_eq!(value(&arp), 0);
        for length in 0..14 + 24 {
            let short = Packet { bytes: whole.bytes[..length].to_vec(), ..whole.clone() };
            assert_eq!(value(&short), 0, "{length} bytes");
        }
    }

    /// What a cluster looks like: few addresses, ports from a range or one after the other.
    #[test]
    fn connections_spread_over_the_rings() {
        for rings in [2, 3, 4, 7, 8, 16] {
            for step in [1, 2, 64] {
                let mut counts = vec![0_u32; rings];
                for number in 0..1_600_u16 {
                    let [[client, server], _] =
                        ends((number % 5 + 2) as u8, 32_768 + number / 5 * step);
                    let ip = ip_packet(client, server, &[]);
                    let value = value(&packet(libc::ARPHRD_ETHER, &[], &ip, true));
                    counts[value as usize % rings] += 1;
                }
                let fair = 1_600 / rings as u32;
                assert!(
                    counts.iter().all(|count| *count > fair / 2 && *count < fair * 3 / 2),
                    "{counts:?}"
                );
            }
        }
    }
}
