//! Tunnels: from an IP packet that carries another network's traffic to the IP packet inside.

use etherparse::IpNumber;

use super::Skipped;
use super::ip::IpPacket;
use super::link::{self, LinkType, Network, field};

const GRE: IpNumber = IpNumber(47);
const UDP_HEADER_BYTES: usize = 8;

/// What a packet is carried in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tunnel {
    /// IP in IP (RFC 2003) and what carries IPv4 over IPv6 (RFC 2473).
    Ipv4,
    /// 6in4 (RFC 4213) and IPv6 in IPv6 (RFC 2473).
    Ipv6,
    /// RFC 2784 and 2890; PPTP's variant, RFC 2637.
    Gre,
    /// RFC 7348.
    Vxlan,
    /// RFC 8926.
    Geneve,
}

impl Tunnel {
    /// The tunnel that a packet is of, if it is one.
    pub(super) fn of(packet: &IpPacket<'_>) -> Option<Self> {
        match packet.protocol {
            IpNumber::IPV4 => Some(Self::Ipv4),
            IpNumber::IPV6 => Some(Self::Ipv6),
            GRE => Some(Self::Gre),
            // Source ports spread the load; only the destination's says what it is.
            IpNumber::UDP => match field(packet.payload, 2).ok()?.0 {
                // 8472 is what Linux chose before there was a number, and Flannel and Cilium still use.
                4789 | 8472 => Some(Self::Vxlan),
                6081 => Some(Self::Geneve),
                _ => None,
            },
            _ => None,
        }
    }

    /// The IP packet inside, from what the packet outside carries.
    pub(super) fn open(self, payload: &[u8]) -> Result<(Network, &[u8]), Skipped> {
        match self {
            Self::Ipv4 => Ok((Network::Ipv4, payload)),
            Self::Ipv6 => Ok((Network::Ipv6, payload)),
            Self::Gre => gre(payload),
            Self::Vxlan => vxlan(behind(payload, UDP_HEADER_BYTES)?),
            Self::Geneve => geneve(behind(payload, UDP_HEADER_BYTES)?),
        }
    }
}

fn gre(header: &[u8]) -> Result<(Network, &[u8]), Skipped> {
    const CHECKSUM: u16 = 0x8000;
    const ROUTING: u16 = 0x4000;
    const KEY: u16 = 0x2000;
    const SEQUENCE: u16 = 0x1000;
    const ACKNOWLEDGMENT: u16 = 0x0080;
    const VERSION: u16 = 0x0007;
    const PPTP: u16 = 1;

    let (flags, _) = field(header, 0)?;
    // Source routes were given up with RFC 1701, and no other version is known.
    if flags & ROUTING != 0 || flags & VERSION > PPTP {
        return Err(Skipped::Tunnel);
    }
    let optional = if flags & VERSION == PPTP {
        [KEY, SEQUENCE, ACKNOWLEDGMENT]
    } else {
        [CHECKSUM, KEY, SEQUENCE]
    };
    let fields = optional.iter().filter(|field| flags & **field != 0).count();
    let (protocol, _) = field(header, 2)?;
    carried(protocol, behind(header, 4 + 4 * fields)?)
}

fn vxlan(header: &[u8]) -> Result<(Network, &[u8]), Skipped> {
    const VALID_NETWORK_IDENTIFIER: u8 = 0x08;
    if header.first().ok_or(Skipped::Truncated)? & VALID_NETWORK_IDENTIFIER == 0 {
        return Err(Skipped::Tunnel);
    }
    carried(link::ETHERNET_BRIDGING, behind(header, 8)?)
}

fn geneve(header: &[u8]) -> Result<(Network, &[u8]), Skipped> {
    let version_and_options = *header.first().ok_or(Skipped::Truncated)?;
    if version_and_options >> 6 != 0 {
        return Err(Skipped::Tunnel);
    }
    let (protocol, _) = field(header, 2)?;
    // The length of the options is in units of 4 bytes.
    carried(protocol, behind(header, 8 + 4 * usize::from(version_and_options & 0x3f))?)
}

/// What an EtherType says of a tunnel's content. What is no IP is left unopened.
fn carried(protocol: u16, content: &[u8]) -> Result<(Network, &[u8]), Skipped> {
    match protocol {
        link::ETHERNET_BRIDGING => link::network_layer(LinkType::Ethernet, content),
        link::PPP => link::network_layer(LinkType::Ppp, content),
        _ => match link::of_ether_type(protocol, content) {
            Err(Skipped::NotIp) => Err(Skipped::Tunnel),
            opened => opened,
        },
    }
}

fn behind(bytes: &[u8], length: usize) -> Result<&[u8], Skipped> {
    bytes.get(length..).ok_or(Skipped::Truncated)
}
