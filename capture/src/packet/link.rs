//! Link layers: from a captured frame to its IP packet.

use super::Skipped;

/// The link layers that can be read, whether from a socket or a file.
///
/// Numbers and layouts: the registry of link-layer header types of libpcap (LINKTYPE_…).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkType {
    /// Ethernet, with any number of VLAN tags; PPPoE, MPLS labels and LLC/SNAP are looked behind.
    Ethernet,
    /// Linux "cooked" capture, version 1.
    LinuxSll,
    /// Linux "cooked" capture, version 2.
    LinuxSll2,
    /// BSD loopback: an address family in the byte order of the machine that captured.
    Null,
    /// OpenBSD loopback: the family in network byte order.
    Loop,
    /// No link layer: an IPv4 or IPv6 packet.
    RawIp,
    /// PPP, with or without HDLC-like framing (RFC 1662).
    Ppp,
    /// Cisco HDLC (RFC 1547, 4.3.1).
    CiscoHdlc,
}

/// What follows the link layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    Ipv4,
    Ipv6,
}

impl LinkType {
    /// The link type of a number in a pcap or pcapng file.
    pub fn from_dlt(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Null,
            1 => Self::Ethernet,
            9 | 50 => Self::Ppp,
            // 12 and 14 are DLT_RAW of BSDs; 228 and 229 name the version, which the packet tells too.
            12 | 14 | 101 | 228 | 229 => Self::RawIp,
            104 => Self::CiscoHdlc,
            108 => Self::Loop,
            113 => Self::LinuxSll,
            276 => Self::LinuxSll2,
            _ => return None,
        })
    }
}

/// Finds the IP packet of a frame.
pub(super) fn network_layer(link: LinkType, frame: &[u8]) -> Result<(Network, &[u8]), Skipped> {
    match link {
        LinkType::Ethernet => ether_type(frame, 12),
        LinkType::LinuxSll => ether_type(frame, 14),
        LinkType::LinuxSll2 => {
            let (protocol, _) = field(frame, 0)?;
            of_ether_type(protocol, frame.get(20..).ok_or(Skipped::Truncated)?)
        }
        LinkType::Null | LinkType::Loop => {
            let (family, packet) = frame.split_first_chunk().ok_or(Skipped::Truncated)?;
            // Which byte order a file has is not worth knowing: all families are below 256.
            match u32::from_le_bytes(*family).min(u32::from_be_bytes(*family)) {
                2 => Ok((Network::Ipv4, packet)),
                // AF_INET6 of Linux, NetBSD and OpenBSD, FreeBSD, macOS.
                10 | 24 | 28 | 30 => Ok((Network::Ipv6, packet)),
                _ => Err(Skipped::NotIp),
            }
        }
        LinkType::RawIp => match frame.first().ok_or(Skipped::Truncated)? >> 4 {
            4 => Ok((Network::Ipv4, frame)),
            6 => Ok((Network::Ipv6, frame)),
            _ => Err(Skipped::NotIp),
        },
        LinkType::Ppp => ppp(frame),
        LinkType::CiscoHdlc => ether_type(frame, 2),
    }
}

/// The EtherType at an offset, and what follows it.
fn ether_type(frame: &[u8], offset: usize) -> Result<(Network, &[u8]), Skipped> {
    let (kind, rest) = field(frame, offset)?;
    of_ether_type(kind, rest)
}

/// Tags and headers between Ethernet and IP that are looked behind: more than any network puts there.
const MAX_LAYERS: usize = 16;

/// What an EtherType says, behind any VLAN tags (802.1Q, 802.1ad, and the 0x9100 before that) and other
/// headers of the link layer.
fn of_ether_type(mut kind: u16, mut packet: &[u8]) -> Result<(Network, &[u8]), Skipped> {
    for _ in 0..MAX_LAYERS {
        (kind, packet) = match (kind, packet) {
            (0x0800, _) => return Ok((Network::Ipv4, packet)),
            (0x86dd, _) => return Ok((Network::Ipv6, packet)),
            (0x8100 | 0x88a8 | 0x9100, _) => field(packet, 2)?,
            // PPPoE in session (RFC 2516): six bytes, then PPP's protocol.
            (0x8864, _) => return ppp_protocol(packet.get(6..).ok_or(Skipped::Truncated)?),
            (0x8847 | 0x8848, _) => return mpls(packet),
            // Cisco FabricPath: a tag of two bytes, then the frame as it came in.
            (0x8903, _) => field(packet, 2 + 12)?,
            // A length (IEEE 802.3): what follows is LLC; with a SNAP header that has an EtherType.
            (0..0x0600, [0xaa, 0xaa, 0x03, 0, 0, 0, rest @ ..]) => field(rest, 0)?,
            _ => return Err(Skipped::NotIp),
        };
    }
    Err(Skipped::NotIp)
}

/// MPLS: labels of four bytes until the one that says it is the last (RFC 3032). Nothing says what
/// follows; IP tells itself.
fn mpls(packet: &[u8]) -> Result<(Network, &[u8]), Skipped> {
    let mut labels = packet.chunks_exact(4);
    let last = labels.position(|label| label[2] & 1 == 1).ok_or(Skipped::Truncated)?;
    network_layer(LinkType::RawIp, &packet[(last + 1) * 4..])
}

/// PPP: address and control may be absent.
fn ppp(frame: &[u8]) -> Result<(Network, &[u8]), Skipped> {
    match frame {
        // Cisco HDLC, which DLT_PPP_SERIAL may hold as well.
        [0x0f | 0x8f, 0x00, ..] => ether_type(frame, 2),
        [0xff, 0x03, rest @ ..] => ppp_protocol(rest),
        _ => ppp_protocol(frame),
    }
}

/// PPP's protocol, which may be compressed to one byte (RFC 1661, 6.5).
fn ppp_protocol(rest: &[u8]) -> Result<(Network, &[u8]), Skipped> {
    match rest {
        [0x21, packet @ ..] | [0x00, 0x21, packet @ ..] => Ok((Network::Ipv4, packet)),
        [0x57, packet @ ..] | [0x00, 0x57, packet @ ..] => Ok((Network::Ipv6, packet)),
        [] | [0x00] => Err(Skipped::Truncated),
        _ => Err(Skipped::NotIp),
    }
}

/// The 16 bits at an offset, and what follows them.
fn field(bytes: &[u8], offset: usize) -> Result<(u16, &[u8]), Skipped> {
    let (value, rest) =
        bytes.get(offset..).and_then(<[u8]>::split_first_chunk).ok_or(Skipped::Truncated)?;
    Ok((u16::from_be_bytes(*value), rest))
}
