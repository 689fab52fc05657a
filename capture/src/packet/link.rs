//! Link layers: from a captured frame to its IP packet.

use super::Skipped;

/// The link layers that can be read, whether from a socket or a file.
///
/// Numbers and layouts: the registry of link-layer header types of libpcap (LINKTYPE_…).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkType {
    /// Ethernet II or 802.3, with any number of VLAN tags and MPLS labels, or a PPPoE session.
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
    /// Every one.
    pub const ALL: [Self; 8] = [
        Self::Ethernet,
        Self::LinuxSll,
        Self::LinuxSll2,
        Self::Null,
        Self::Loop,
        Self::RawIp,
        Self::Ppp,
        Self::CiscoHdlc,
    ];

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
#[inline(always)]
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
        LinkType::RawIp => of_version(frame),
        LinkType::Ppp => ppp(frame),
        LinkType::CiscoHdlc => ether_type(frame, 2),
    }
}

/// What bridges Ethernet over IP (RFC 1701), and PPP over GRE (RFC 2637).
pub(super) const ETHERNET_BRIDGING: u16 = 0x6558;
pub(super) const PPP: u16 = 0x880b;

/// The packet behind the EtherType at an offset.
#[inline(always)]
fn ether_type(frame: &[u8], offset: usize) -> Result<(Network, &[u8]), Skipped> {
    let (kind, packet) = field(frame, offset)?;
    of_ether_type(kind, packet)
}

/// Tags and headers between Ethernet and IP that are looked behind: more than any network puts there.
const MAX_LAYERS: usize = 16;

/// What an EtherType says that follows, behind whatever else leads to another EtherType.
#[inline(always)]
pub(super) fn of_ether_type(mut kind: u16, mut packet: &[u8]) -> Result<(Network, &[u8]), Skipped> {
    for _ in 0..MAX_LAYERS {
        (kind, packet) = match kind {
            0x0800 => return Ok((Network::Ipv4, packet)),
            0x86dd => return Ok((Network::Ipv6, packet)),
            // A VLAN tag: 802.1Q, 802.1ad, and what was used before that.
            0x8100 | 0x88a8 | 0x9100 => field(packet, 2)?,
            // Cisco FabricPath: a tag of two bytes, then the frame as it came in.
            0x8903 => field(packet, 2 + 12)?,
            0x8847 | 0x8848 => return mpls(packet),
            0x8864 => return pppoe(packet),
            // The length of an 802.3 frame; Linux cooked captures have a 4 there for the same.
            ..0x0600 => match llc(packet)? {
                Llc::Snap(rest) => field(rest, 0)?,
                Llc::Ip(packet) => return Ok((Network::Ipv4, packet)),
            },
            _ => return Err(Skipped::NotIp),
        }
    }
    Err(Skipped::NotIp)
}

/// What stands behind an LLC header.
enum Llc<'a> {
    /// An EtherType and what it says.
    Snap(&'a [u8]),
    Ip(&'a [u8]),
}

/// IEEE 802.2: IP has a service access point of its own (RFC 1042 calls it obsolete), or stands behind a
/// SNAP header, which has an EtherType if its organization is that of Ethernet.
fn llc(frame: &[u8]) -> Result<Llc<'_>, Skipped> {
    const SNAP: [u8; 6] = [0xaa, 0xaa, 0x03, 0x00, 0x00, 0x00];
    match frame {
        [0x06, 0x06, 0x03, packet @ ..] => Ok(Llc::Ip(packet)),
        [0xaa, 0xaa, 0x03, 0x00, 0x00, 0x00, rest @ ..] => Ok(Llc::Snap(rest)),
        _ if SNAP.starts_with(frame) => Err(Skipped::Truncated),
        _ => Err(Skipped::NotIp),
    }
}

/// MPLS labels (RFC 3032): the last of a stack says that it is. What follows tells itself, by convention
/// (RFC 4928, 3).
fn mpls(mut labels: &[u8]) -> Result<(Network, &[u8]), Skipped> {
    const BOTTOM_OF_STACK: u8 = 0x01;
    loop {
        let (label, rest) = labels.split_first_chunk::<4>().ok_or(Skipped::Truncated)?;
        labels = rest;
        if label[2] & BOTTOM_OF_STACK != 0 {
            return of_version(labels);
        }
    }
}

/// A PPPoE session (RFC 2516, 4): version and type 1, code 0, session, length.
fn pppoe(frame: &[u8]) -> Result<(Network, &[u8]), Skipped> {
    match frame.split_first_chunk::<6>().ok_or(Skipped::Truncated)? {
        ([0x11, 0, ..], packet) => ppp_protocol(packet),
        _ => Err(Skipped::NotIp),
    }
}

/// An IP packet says its version itself.
fn of_version(packet: &[u8]) -> Result<(Network, &[u8]), Skipped> {
    match packet.first().ok_or(Skipped::Truncated)? >> 4 {
        4 => Ok((Network::Ipv4, packet)),
        6 => Ok((Network::Ipv6, packet)),
        _ => Err(Skipped::NotIp),
    }
}

/// PPP: address and control may be absent, and the protocol compressed to one byte (RFC 1661, 6.5).
fn ppp(frame: &[u8]) -> Result<(Network, &[u8]), Skipped> {
    let rest = match frame {
        // Cisco HDLC, which DLT_PPP_SERIAL may hold as well.
        [0x0f | 0x8f, 0x00, ..] => return ether_type(frame, 2),
        [0xff, 0x03, rest @ ..] => rest,
        [0xff] => return Err(Skipped::Truncated),
        _ => frame,
    };
    ppp_protocol(rest)
}

fn ppp_protocol(frame: &[u8]) -> Result<(Network, &[u8]), Skipped> {
    match frame {
        [0x21, packet @ ..] | [0x00, 0x21, packet @ ..] => Ok((Network::Ipv4, packet)),
        [0x57, packet @ ..] | [0x00, 0x57, packet @ ..] => Ok((Network::Ipv6, packet)),
        [0x02, 0x81 | 0x83, packet @ ..] => mpls(packet),
        [] | [0x00] | [0x02] => Err(Skipped::Truncated),
        _ => Err(Skipped::NotIp),
    }
}

/// The 16 bits at an offset, and what follows them.
#[inline(always)]
pub(super) fn field(bytes: &[u8], offset: usize) -> Result<(u16, &[u8]), Skipped> {
    let (value, rest) =
        bytes.get(offset..).and_then(<[u8]>::split_first_chunk).ok_or(Skipped::Truncated)?;
    Ok((u16::from_be_bytes(*value), rest))
}
