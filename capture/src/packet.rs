//! Packet → `Segment`: what the flow table needs to know of one captured TCP packet.
//!
//! Link layer ([`LinkType`]), then IP, then TCP. Any bytes are accepted: what is not a whole TCP
//! header comes back as [`Skipped`], never as a panic.

use std::net::IpAddr;

use etherparse::err::{ipv4, ipv6, tcp};
use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice, TcpHeaderSlice};
use flowtrail_schema::Endpoint;

mod link;
#[cfg(test)]
pub(crate) mod tests;

pub use link::LinkType;

/// One TCP segment, as the headers of its packet describe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The end that sent it.
    pub source: Endpoint,
    /// The end it is for.
    pub destination: Endpoint,
    /// Sequence number of the first payload byte (of the SYN, if that is set).
    pub sequence: u32,
    /// Next sequence number expected from the other end, if `flags.ack`.
    pub acknowledgment: u32,
    /// The flags that move a connection along.
    pub flags: Flags,
    /// Receive window, unscaled.
    pub window: u16,
    /// Length of the IP packet, IP header included (IPFIX octetDeltaCount, IE 1).
    pub ip_bytes: u32,
    /// TCP payload: at most `ip_bytes` less 40.
    pub payload_bytes: u32,
}

/// TCP flags (RFC 9293, 3.1), those that change a connection's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the RFC")]
pub struct Flags {
    pub fin: bool,
    pub syn: bool,
    pub rst: bool,
    pub ack: bool,
}

/// Why a packet is no segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Skipped {
    /// Neither IPv4 nor IPv6.
    NotIp,
    /// IP with another payload; tunnels are such.
    NotTcp,
    /// A fragment after the first: it has no TCP header.
    Fragment,
    /// The capture ends before the TCP header does.
    Truncated,
    /// Headers that contradict themselves.
    Malformed,
}

impl Skipped {
    /// The word for it in metrics and summaries.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotIp => "not_ip",
            Self::NotTcp => "not_tcp",
            Self::Fragment => "fragment",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
        }
    }
}

/// Reads the TCP segment in a captured frame.
///
/// `wire_length` is the frame's length before the capture cut it. It counts only where the IP header
/// has no length: jumbograms (RFC 2675) and segments that offloading made larger than 64 KiB.
///
/// # Errors
/// If there is no whole TCP header in the frame; see [`Skipped`].
pub fn parse(link: LinkType, frame: &[u8], wire_length: u32) -> Result<Segment, Skipped> {
    let (network, packet) = link::network_layer(link, frame)?;
    let link_bytes = (frame.len() - packet.len()) as u32;
    let wire_bytes = wire_length.saturating_sub(link_bytes);
    match network {
        link::Network::Ipv4 => parse_ipv4(packet, wire_bytes),
        link::Network::Ipv6 => parse_ipv6(packet, wire_bytes),
    }
}

fn parse_ipv4(packet: &[u8], wire_bytes: u32) -> Result<Segment, Skipped> {
    let header = Ipv4HeaderSlice::from_slice(packet).map_err(|error| match error {
        ipv4::HeaderSliceError::Len(_) => Skipped::Truncated,
        ipv4::HeaderSliceError::Content(_) => Skipped::Malformed,
    })?;
    if header.protocol() != IpNumber::TCP {
        return Err(Skipped::NotTcp);
    }
    if header.fragments_offset().value() != 0 {
        return Err(Skipped::Fragment);
    }
    let ip_bytes = match header.total_len() {
        0 => wire_bytes,
        length => length.into(),
    };
    let headers = header.slice().len();
    let ends = [header.source_addr().into(), header.destination_addr().into()];
    parse_tcp(packet, headers, ip_bytes, ends)
}

fn parse_ipv6(packet: &[u8], wire_bytes: u32) -> Result<Segment, Skipped> {
    let header = Ipv6HeaderSlice::from_slice(packet).map_err(|error| match error {
        ipv6::HeaderSliceError::Len(_) => Skipped::Truncated,
        ipv6::HeaderSliceError::Content(_) => Skipped::Malformed,
    })?;
    let fixed = header.slice().len();
    let ip_bytes = match header.payload_length() {
        0 => wire_bytes,
        length => u32::from(length) + fixed as u32,
    };
    let headers = skip_extensions(packet, fixed, header.next_header())?;
    let ends = [header.source_addr().into(), header.destination_addr().into()];
    parse_tcp(packet, headers, ip_bytes, ends)
}

/// Where the TCP header starts behind IPv6 extension headers (RFC 8200, 4). Each is 8 bytes at least,
/// so the packet's own length bounds the walk.
fn skip_extensions(packet: &[u8], start: usize, first: IpNumber) -> Result<usize, Skipped> {
    let mut offset = start;
    let mut next = first;
    while next != IpNumber::TCP {
        if !is_extension(next) {
            return Err(Skipped::NotTcp);
        }
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
    Ok(offset)
}

/// Whether a header is one that TCP may stand behind. ESP is not: what it holds is encrypted.
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

fn parse_tcp(
    packet: &[u8],
    ip_headers: usize,
    ip_bytes: u32,
    [source, destination]: [IpAddr; 2],
) -> Result<Segment, Skipped> {
    let captured = packet.get(ip_headers..).ok_or(Skipped::Truncated)?;
    let header = TcpHeaderSlice::from_slice(captured).map_err(|error| match error {
        tcp::HeaderSliceError::Len(_) => Skipped::Truncated,
        tcp::HeaderSliceError::Content(_) => Skipped::Malformed,
    })?;
    let headers = (ip_headers + header.slice().len()) as u32;
    // Also when the frame's padding completes a header that the IP packet is too short for.
    let payload_bytes = ip_bytes.checked_sub(headers).ok_or(Skipped::Malformed)?;
    Ok(Segment {
        source: Endpoint { ip: source, port: header.source_port() },
        destination: Endpoint { ip: destination, port: header.destination_port() },
        sequence: header.sequence_number(),
        acknowledgment: header.acknowledgment_number(),
        flags: Flags { fin: header.fin(), syn: header.syn(), rst: header.rst(), ack: header.ack() },
        window: header.window_size(),
        ip_bytes,
        payload_bytes,
    })
}
