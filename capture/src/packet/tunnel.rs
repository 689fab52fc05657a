//! Tunnels: packets in packets. What is known of them is how to find the inner one.

use etherparse::IpNumber;

use super::{LinkType, Skipped};

/// Tunnels in tunnels that are opened: an overlay in an overlay, and two more.
pub(super) const MAX_DEPTH: u8 = 4;

/// The kinds that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// IPv4 or IPv6 in IP (RFC 2003, RFC 4213, RFC 2473).
    Ip,
    /// RFC 2784 and RFC 2890.
    Gre,
    /// RFC 7348.
    Vxlan,
    /// RFC 8926.
    Geneve,
}

/// UDP ports: VXLAN's own and the one that Linux had before, and Geneve's.
const VXLAN_PORTS: [u16; 2] = [4789, 8472];
const GENEVE_PORT: u16 = 6081;

/// EtherType of a bridged Ethernet frame in GRE and Geneve.
const TRANSPARENT_ETHERNET: u16 = 0x6558;

/// What tunnel the payload of an IP packet is. A fragment after the first has no UDP header to tell.
pub(super) fn of(protocol: IpNumber, payload: &[u8], is_first_fragment: bool) -> Option<Kind> {
    match protocol {
        IpNumber::IPV4 | IpNumber::IPV6 => Some(Kind::Ip),
        IpNumber::GRE => Some(Kind::Gre),
        IpNumber::UDP if is_first_fragment => match half(payload, 2)? {
            GENEVE_PORT => Some(Kind::Geneve),
            port if VXLAN_PORTS.contains(&port) => Some(Kind::Vxlan),
            _ => None,
        },
        _ => None,
    }
}

/// The packet in a tunnel, and what it begins with.
pub(super) fn inner(kind: Kind, payload: &[u8]) -> Result<(LinkType, &[u8]), Skipped> {
    const UDP: usize = 8;
    let (carried, offset) = match kind {
        Kind::Ip => return Ok((LinkType::RawIp, payload)),
        Kind::Gre => {
            let flags = half(payload, 0).ok_or(Skipped::Truncated)?;
            // Another version (PPTP) or source routes, which nobody uses any more.
            if flags & 0x4007 != 0 {
                return Err(Skipped::NotIp);
            }
            let optional = (flags & 0xb000).count_ones() as usize * 4;
            (half(payload, 2), 4 + optional)
        }
        Kind::Vxlan => (Some(TRANSPARENT_ETHERNET), UDP + 8),
        Kind::Geneve => {
            let options = payload.get(UDP).ok_or(Skipped::Truncated)? & 0x3f;
            (half(payload, UDP + 2), UDP + 8 + usize::from(options) * 4)
        }
    };
    let inner = payload.get(offset..).ok_or(Skipped::Truncated)?;
    match carried.ok_or(Skipped::Truncated)? {
        0x0800 | 0x86dd => Ok((LinkType::RawIp, inner)),
        TRANSPARENT_ETHERNET => Ok((LinkType::Ethernet, inner)),
        _ => Err(Skipped::NotIp),
    }
}

/// The 16 bits at an offset.
fn half(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}
