//! The kernel's packet filter: which packets reach the ring, and how much of each.
//!
//! TCP over IPv4 and IPv6, also in VLAN tags, cut to its headers; on request tunnels that may hold
//! it. Interfaces are *excluded*, not chosen: one that is not known yet passes, so a new pod's first
//! packet is in the ring however late the news of its interface comes.

use libc::sock_filter;

use super::program::{
    Code, INTERFACE_INDEX, LINK_TYPE, MAX_INSTRUCTIONS, NETWORK_HEADER, PACKET_TYPE, PROTOCOL,
    Place, Width,
};

/// Bytes kept of a frame: the tallest headers in use (Ethernet and two tags 22, IPv6 40, TCP 60) and
/// as much again for IPv6 extension headers. Of the payload no more is copied, and none of it is read.
const SNAP_LENGTH: u32 = 256;

/// Bytes kept of a tunnel's packet: as much, and the headers outside it (Ethernet and two tags 22,
/// IPv6 40, UDP 8, the tunnel's own 8 and a few options, Ethernet 14).
const TUNNEL_SNAP_LENGTH: u32 = 384;

/// Interfaces excluded at most: their tests fit a program several times over, and the program and
/// its successor fit the memory that a socket may use for such (net.core.optmem_max was 20 KiB).
pub const MAX_EXCLUDED: usize = 500;

/// Indices compared one by one at the end of the search.
const LEAF: usize = 8;

const ARPHRD_ETHER: u32 = libc::ARPHRD_ETHER as u32;
const ARPHRD_LOOPBACK: u32 = libc::ARPHRD_LOOPBACK as u32;
const OUTGOING: u32 = libc::PACKET_OUTGOING as u32;
pub(super) const IPV4: u32 = libc::ETH_P_IP as u32;
pub(super) const IPV6: u32 = libc::ETH_P_IPV6 as u32;
/// IEEE 802.1Q, 802.1ad, and what was used before that.
pub(super) const TAGS: [u32; 3] = [libc::ETH_P_8021Q as u32, libc::ETH_P_8021AD as u32, 0x9100];
pub(super) const TCP: u32 = libc::IPPROTO_TCP as u32;
const UDP: u32 = libc::IPPROTO_UDP as u32;

/// IP in IP, IPv6 in IP, and GRE, over either version.
const IP_TUNNELS: [u32; 3] =
    [libc::IPPROTO_IPIP as u32, libc::IPPROTO_IPV6 as u32, libc::IPPROTO_GRE as u32];

/// Destination ports: VXLAN (RFC 7348), as Linux had it before, and Geneve (RFC 8926).
const UDP_TUNNELS: [u32; 3] = [4_789, 8_472, 6_081];

/// Headers that TCP or a tunnel may stand behind; what does is for the parser to see.
const IPV6_EXTENSIONS: [u32; 5] = [
    libc::IPPROTO_HOPOPTS as u32,
    libc::IPPROTO_ROUTING as u32,
    libc::IPPROTO_FRAGMENT as u32,
    libc::IPPROTO_AH as u32,
    libc::IPPROTO_DSTOPTS as u32,
];

/// Offsets in an IPv4 and an IPv6 header.
pub(super) const IPV4_PROTOCOL: u32 = 9;
pub(super) const IPV4_FRAGMENT: u32 = 6;
pub(super) const FRAGMENT_OFFSET_BITS: u32 = 0x1fff;
const IPV6_NEXT_HEADER: u32 = 6;
const IPV6_HEADER_LENGTH: u32 = 40;
const UDP_DESTINATION: u32 = 2;

/// What the kernel lets through to a ring.
#[derive(Clone, Debug)]
pub struct Filter {
    program: Vec<sock_filter>,
    decapsulate: bool,
    /// The interfaces were too many to exclude: packets of all pass.
    pub passes_all_interfaces: bool,
}

impl Filter {
    /// Lets through TCP of all interfaces but those excluded (kernel indices, in any order), and if
    /// `decapsulate` also the tunnels that may hold TCP: VXLAN, Geneve, GRE, IP in IP.
    ///
    /// Above [`MAX_EXCLUDED`] none is excluded: the reader then sees, and ignores, packets of all.
    pub fn new(excluded: impl IntoIterator<Item = u32>, decapsulate: bool) -> Self {
        let mut excluded: Vec<u32> = excluded.into_iter().collect();
        excluded.sort_unstable();
        excluded.dedup();
        let passes_all_interfaces = excluded.len() > MAX_EXCLUDED;
        if passes_all_interfaces {
            excluded.clear();
        }
        let mut code = Code::default();
        let drop = code.end(0);
        let packet = wanted_packet(&mut code, decapsulate, drop);
        let interface = unless_excluded(&mut code, &excluded, packet);
        let first = code.load(Width::Word, INTERFACE_INDEX, interface);
        let program = code.program(first);
        debug_assert!(program.len() <= MAX_INSTRUCTIONS);
        Self { program, decapsulate, passes_all_interfaces }
    }

    /// Lets nothing through.
    pub(super) fn nothing() -> Self {
        let mut code = Code::default();
        let drop = code.end(0);
        Self { program: code.program(drop), decapsulate: false, passes_all_interfaces: false }
    }

    /// The same with no interface excluded.
    pub(super) fn of_all_interfaces(&self) -> Self {
        Self { passes_all_interfaces: true, ..Self::new([], self.decapsulate) }
    }

    pub(super) fn program(&self) -> &[sock_filter] {
        &self.program
    }
}

/// A search tree over interface indices, in A: drops those that are in it.
fn unless_excluded(code: &mut Code, sorted: &[u32], pass: Place) -> Place {
    if sorted.len() <= LEAF {
        // Every leaf has its own end, so that its jumps are short.
        return match sorted {
            [] => pass,
            _ => {
                let drop = code.end(0);
                code.if_one_of(sorted, drop, pass)
            }
        };
    }
    let (low, high) = sorted.split_at(sorted.len() / 2);
    let upper = unless_excluded(code, high, pass);
    let lower = unless_excluded(code, low, pass);
    code.if_at_least(high[0], upper, lower)
}

/// Frames with an Ethernet header are read from their start, as tcpdump does. Others (tunnels, PPP)
/// are read from where the kernel says the IP header is.
fn wanted_packet(code: &mut Code, decapsulate: bool, drop: Place) -> Place {
    let accept = Accept {
        tcp: code.end(SNAP_LENGTH),
        tunnel: decapsulate.then(|| code.end(TUNNEL_SNAP_LENGTH)),
        drop,
    };
    let no_link_header = {
        let ip = accept.ip(code, NETWORK_HEADER, drop);
        code.load(Width::Word, PROTOCOL, ip)
    };
    let ethernet = {
        // A third tag is left to the parser.
        let anything = accept.tunnel.unwrap_or(accept.tcp);
        let two_tags = {
            let tagged = code.if_one_of(&TAGS, anything, drop);
            let ip = accept.ip(code, 22, tagged);
            code.load(Width::Half, 20, ip)
        };
        let one_tag = {
            let tagged = code.if_one_of(&TAGS, two_tags, drop);
            let ip = accept.ip(code, 18, tagged);
            code.load(Width::Half, 16, ip)
        };
        let tagged = code.if_one_of(&TAGS, one_tag, drop);
        let ip = accept.ip(code, 14, tagged);
        code.load(Width::Half, 12, ip)
    };
    let loopback = {
        // The loopback shows each packet twice; the one it sends is the same it receives.
        let outgoing = code.if_equal(OUTGOING, drop, ethernet);
        code.load(Width::Word, PACKET_TYPE, outgoing)
    };
    let other = code.if_equal(ARPHRD_LOOPBACK, loopback, no_link_header);
    let link_type = code.if_equal(ARPHRD_ETHER, ethernet, other);
    code.load(Width::Word, LINK_TYPE, link_type)
}

/// Where the program ends.
struct Accept {
    tcp: Place,
    tunnel: Option<Place>,
    drop: Place,
}

impl Accept {
    /// For an EtherType in A, the IP packet at the offset; else another place.
    fn ip(&self, code: &mut Code, offset: u32, other: Place) -> Place {
        let (ipv4, ipv6) = (self.ipv4(code, offset), self.ipv6(code, offset));
        let other = code.if_equal(IPV6, ipv6, other);
        code.if_equal(IPV4, ipv4, other)
    }

    /// Fragments after the first pass too if they are TCP's, to be counted.
    fn ipv4(&self, code: &mut Code, offset: u32) -> Place {
        let other = match self.tunnel {
            None => self.drop,
            Some(tunnel) => {
                let port = code.if_one_of(&UDP_TUNNELS, tunnel, self.drop);
                let port = code.load_at_x(Width::Half, offset.wrapping_add(UDP_DESTINATION), port);
                let port = code.load_ipv4_header_length(offset, port);
                let whole = code.if_any_bit(FRAGMENT_OFFSET_BITS, self.drop, port);
                let udp = code.load(Width::Half, offset.wrapping_add(IPV4_FRAGMENT), whole);
                let udp = code.if_equal(UDP, udp, self.drop);
                code.if_one_of(&IP_TUNNELS, tunnel, udp)
            }
        };
        let protocol = code.if_equal(TCP, self.tcp, other);
        code.load(Width::Byte, offset.wrapping_add(IPV4_PROTOCOL), protocol)
    }

    fn ipv6(&self, code: &mut Code, offset: u32) -> Place {
        let other = match self.tunnel {
            None => code.if_one_of(&IPV6_EXTENSIONS, self.tcp, self.drop),
            Some(tunnel) => {
                let port = code.if_one_of(&UDP_TUNNELS, tunnel, self.drop);
                let port_offset = offset.wrapping_add(IPV6_HEADER_LENGTH + UDP_DESTINATION);
                let udp = code.load(Width::Half, port_offset, port);
                let udp = code.if_equal(UDP, udp, self.drop);
                let other = code.if_one_of(&IPV6_EXTENSIONS, tunnel, udp);
                code.if_one_of(&IP_TUNNELS, tunnel, other)
            }
        };
        let protocol = code.if_equal(TCP, self.tcp, other);
        code.load(Width::Byte, offset.wrapping_add(IPV6_NEXT_HEADER), protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::super::program::tests::{Packet, run};
    use super::*;

    fn frame(tags: &[u16], ethertype: u16, protocol: u8, port: u16) -> Packet {
        let mut bytes = vec![0; 12];
        for tag in tags {
            bytes.extend(tag.to_be_bytes());
            bytes.extend([0, 7]);
        }
        bytes.extend(ethertype.to_be_bytes());
        let network = bytes.len();
        let mut header = vec![0; if ethertype == 0x86dd { 40 } else { 24 }];
        header[0] = if ethertype == 0x86dd { 0x60 } else { 0x46 };
        header[if ethertype == 0x86dd { 6 } else { 9 }] = protocol;
        bytes.extend(header);
        bytes.extend([0, 99]);
        bytes.extend(port.to_be_bytes());
        bytes.extend([0; 20]);
        Packet {
            bytes,
            network,
            protocol: ethertype.into(),
            link_type: ARPHRD_ETHER,
            packet_type: 0,
            interface: 7,
            data: 0,
        }
    }

    /// How much of it is kept, without and with decapsulation.
    fn kept(packet: &Packet) -> [u32; 2] {
        [false, true].map(|decapsulate| run(Filter::new([], decapsulate).program(), packet))
    }

    #[test]
    fn tcp_passes_and_the_rest_does_not() {
        for tags in [&[][..], &[0x8100], &[0x88a8], &[0x9100], &[0x88a8, 0x8100]] {
            for link_type in [ARPHRD_ETHER, ARPHRD_LOOPBACK, libc::ARPHRD_NONE.into()] {
                let kept = |ethertype, protocol, port| {
                    let packet = Packet { link_type, ..frame(tags, ethertype, protocol, port) };
                    kept(&packet)
                };
                let what = format!("{tags:x?} {link_type}");
                assert_eq!(kept(0x0800, 6, 80), [256, 256], "IPv4 {what}");
                assert_eq!(kept(0x86dd, 6, 80), [256, 256], "IPv6 {what}");
                assert_eq!(kept(0x86dd, 44, 80), [256, 384], "IPv6 fragment {what}");
                assert_eq!(kept(0x0806, 6, 80), [0, 0], "ARP {what}");
                assert_eq!(kept(0x86dd, 58, 80), [0, 0], "ICMPv6 {what}");
                for ethertype in [0x0800, 0x86dd] {
                    assert_eq!(kept(ethertype, 17, 53), [0, 0], "UDP {what}");
                    for port in [4_789, 8_472, 6_081] {
                        assert_eq!(kept(ethertype, 17, port), [0, 384], "UDP {port} {what}");
                    }
                    for protocol in [4, 41, 47] {
                        assert_eq!(kept(ethertype, protocol, 0), [0, 384], "{protocol} {what}");
                    }
                }
            }
        }
        assert_eq!(kept(&frame(&[0x88a8, 0x8100, 0x8100], 0x0800, 17, 1)), [256, 384]);
        assert_eq!(kept(&Packet { bytes: vec![0; 13], ..frame(&[], 0x0800, 6, 80) }), [0, 0]);
    }

    #[test]
    fn fragments_after_the_first_pass_if_they_are_tcps() {
        for (protocol, expected) in [(6, [256, 256]), (17, [0, 0])] {
            let mut packet = frame(&[], 0x0800, protocol, 4_789);
            packet.bytes[14 + 7] = 1;
            assert_eq!(kept(&packet), expected, "protocol {protocol}");
        }
    }

    #[test]
    fn what_the_loopback_sends_is_left_to_what_it_receives() {
        let packet = Packet {
            link_type: ARPHRD_LOOPBACK,
            packet_type: OUTGOING,
            ..frame(&[], 0x0800, 6, 80)
        };
        assert_eq!(kept(&packet), [0, 0]);
        assert_eq!(kept(&Packet { link_type: ARPHRD_ETHER, ..packet }), [256, 256]);
    }

    #[test]
    fn excluded_interfaces_are_found_and_no_others() {
        for count in [0, 1, 7, 8, 9, 64, 257, MAX_EXCLUDED] {
            let excluded = (0..count as u32).map(|number| number * 3 + 2).rev();
            for decapsulate in [false, true] {
                let filter = Filter::new(excluded.clone(), decapsulate);
                assert!(!filter.passes_all_interfaces);
                assert!(filter.program.len() <= 1_300, "{}", filter.program.len());
                for interface in 0..count as u32 * 3 + 4 {
                    let packet = Packet { interface, ..frame(&[], 0x0800, 6, 80) };
                    let is_excluded = interface % 3 == 2 && interface / 3 < count as u32;
                    let kept = run(filter.program(), &packet);
                    assert_eq!(kept == 0, is_excluded, "{interface} of {count}");
                }
            }
        }
    }

    #[test]
    fn too_many_interfaces_all_pass() {
        let filter = Filter::new(1..=MAX_EXCLUDED as u32 + 1, false);
        assert!(filter.passes_all_interfaces);
        assert_eq!(run(filter.program(), &frame(&[], 0x0800, 6, 80)), 256);
        let twice = Filter::new((1..=MAX_EXCLUDED as u32).chain(1..=9), false);
        assert!(!twice.passes_all_interfaces, "an index given twice counts once");
    }

    #[test]
    fn nothing_passes_the_filter_of_a_ring_that_is_not_started() {
        assert_eq!(run(Filter::nothing().program(), &frame(&[], 0x0800, 6, 80)), 0);
    }
}
