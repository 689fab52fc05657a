//! IP: from a packet's headers, options and extensions included, to what it carries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::IpNumber;

use super::Skipped;
use super::link::Network;

/// An IP packet that is whole, or the first fragment of one.
#[derive(Clone, Copy)]
pub(super) struct IpPacket<'a> {
    addresses: Addresses<'a>,
    /// What is carried: the first header that is no extension.
    pub(super) protocol: IpNumber,
    /// Length of the whole packet.
    pub(super) ip_bytes: u32,
    /// Length of the IP header, options and extensions included.
    pub(super) header_bytes: u32,
    /// What was captured behind the headers.
    pub(super) payload: &'a [u8],
}

/// As the headers have them: they are not copied but for a segment.
#[derive(Clone, Copy)]
enum Addresses<'a> {
    Ipv4(&'a [u8; IPV4_HEADER_BYTES]),
    Ipv6(&'a [u8; IPV6_HEADER_BYTES]),
}

/// Without options (RFC 791, 3.1).
const IPV4_HEADER_BYTES: usize = 20;

/// Without extension headers (RFC 8200, 3).
const IPV6_HEADER_BYTES: usize = 40;

impl<'a> IpPacket<'a> {
    /// Reads the headers of a packet that is `wire_bytes` long, if its headers do not know.
    ///
    /// Always inlined, as all on the way of an ordinary packet: results as large as this go through
    /// memory otherwise, which takes as long again as the parsing.
    #[inline(always)]
    pub(super) fn parse(
        network: Network,
        packet: &'a [u8],
        wire_bytes: u32,
    ) -> Result<Self, Skipped> {
        match network {
            Network::Ipv4 => Self::parse_ipv4(packet, wire_bytes),
            Network::Ipv6 => Self::parse_ipv6(packet, wire_bytes),
        }
    }

    #[inline(always)]
    fn parse_ipv4(packet: &'a [u8], wire_bytes: u32) -> Result<Self, Skipped> {
        let header: &[u8; IPV4_HEADER_BYTES] = packet.first_chunk().ok_or(Skipped::Truncated)?;
        let mut headers = usize::from(header[0] & 0x0f) * 4;
        if header[0] >> 4 != 4 || headers < IPV4_HEADER_BYTES {
            return Err(Skipped::Malformed);
        }
        // The upper bits of the fragment offset's field are flags.
        if u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0 {
            return Err(Skipped::Fragment);
        }
        let mut protocol = IpNumber(header[9]);
        if protocol == IpNumber::AUTHENTICATION_HEADER {
            (protocol, headers) = skip_extensions(packet, headers, protocol)?;
        }
        let ip_bytes = match u16::from_be_bytes([header[2], header[3]]) {
            0 => wire_bytes,
            length => length.into(),
        };
        Ok(Self {
            addresses: Addresses::Ipv4(header),
            protocol,
            ip_bytes,
            header_bytes: headers as u32,
            payload: packet.get(headers..).unwrap_or_default(),
        })
    }

    #[inline(always)]
    fn parse_ipv6(packet: &'a [u8], wire_bytes: u32) -> Result<Self, Skipped> {
        let header: &[u8; IPV6_HEADER_BYTES] = packet.first_chunk().ok_or(Skipped::Truncated)?;
        if header[0] >> 4 != 6 {
            return Err(Skipped::Malformed);
        }
        let next = IpNumber(header[6]);
        let (protocol, headers) = skip_extensions(packet, IPV6_HEADER_BYTES, next)?;
        let ip_bytes = match u16::from_be_bytes([header[4], header[5]]) {
            0 => jumbo_payload_bytes(next, &packet[IPV6_HEADER_BYTES..])
                .map_or(wire_bytes, |length| length.saturating_add(IPV6_HEADER_BYTES as u32)),
            length => u32::from(length) + IPV6_HEADER_BYTES as u32,
        };
        Ok(Self {
            addresses: Addresses::Ipv6(header),
            protocol,
            ip_bytes,
            header_bytes: headers as u32,
            payload: packet.get(headers..).unwrap_or_default(),
        })
    }

    /// Source and destination.
    #[inline]
    pub(super) fn addresses(&self) -> [IpAddr; 2] {
        match self.addresses {
            Addresses::Ipv4(header) => {
                let [.., a, b, c, d, e, f, g, h] = *header;
                [[a, b, c, d], [e, f, g, h]].map(|address| Ipv4Addr::from(address).into())
            }
            Addresses::Ipv6(header) => {
                let (addresses, _) = header[8..].as_chunks::<16>();
                [addresses[0], addresses[1]].map(|address| Ipv6Addr::from(address).into())
            }
        }
    }
}

/// What stands behind extension headers (RFC 8200, 4), and where. Each is 8 bytes at least, so the
/// packet's own length bounds the walk.
#[inline(always)]
fn skip_extensions(
    packet: &[u8],
    start: usize,
    first: IpNumber,
) -> Result<(IpNumber, usize), Skipped> {
    let mut offset = start;
    let mut next = first;
    while is_extension(next) {
        let header: &[u8; 8] =
            packet.get(offset..).and_then(<[u8]>::first_chunk).ok_or(Skipped::Truncated)?;
        offset += match next {
            // The fragment offset is the upper 13 bits (RFC 8200, 4.5).
            IpNumber::IPV6_FRAGMENTATION_HEADER
                if u16::from_be_bytes([header[2], header[3]]) >> 3 != 0 =>
            {
                return Err(Skipped::Fragment);
            }
            IpNumber::IPV6_FRAGMENTATION_HEADER => 8,
            // In 4-byte units, less 2 (RFC 4302, 2.2).
            IpNumber::AUTHENTICATION_HEADER => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        next = IpNumber(header[0]);
    }
    Ok((next, offset))
}

/// Whether a header is one that TCP may stand behind. ESP is not: what it holds is encrypted.
#[inline]
fn is_extension(number: IpNumber) -> bool {
    matches!(
        number,
        IpNumber::IPV6_HEADER_HOP_BY_HOP
            | IpNumber::IPV6_ROUTE_HEADER
            | IpNumber::IPV6_FRAGMENTATION_HEADER
            | IpNumber::IPV6_DESTINATION_OPTIONS
            | IpNumber::AUTHENTICATION_HEADER
            | IpNumber::MOBILITY_HEADER
            | IpNumber::HIP
            | IpNumber::SHIM6
    )
}

/// The length that a jumbogram has in a hop-by-hop option, the fixed header not included (RFC 2675, 2).
#[cold]
fn jumbo_payload_bytes(next: IpNumber, extensions: &[u8]) -> Option<u32> {
    const PAD_ONE: u8 = 0;
    const JUMBO_PAYLOAD: u8 = 0xc2;
    if next != IpNumber::IPV6_HEADER_HOP_BY_HOP {
        return None;
    }
    let length = (usize::from(*extensions.get(1)?) + 1) * 8;
    let mut options = extensions.get(2..length)?;
    loop {
        options = match options {
            [PAD_ONE, rest @ ..] => rest,
            [JUMBO_PAYLOAD, 4, a, b, c, d, ..] => {
                return Some(u32::from_be_bytes([*a, *b, *c, *d]));
            }
            [_, length, rest @ ..] => rest.get(usize::from(*length)..)?,
            _ => return None,
        }
    }
}
