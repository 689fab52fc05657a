//! `connection_id`: one number for one TCP connection, the same at every observation point.
//!
//! DNAT, SNAT and overlays keep the two initial sequence numbers, so they identify a connection on
//! both sides of a translation; and they can be looked up in Wireshark.

use std::net::IpAddr;

use crate::record::{Endpoint, IdKind};

/// The id of a connection whose handshake was seen. `server_isn` is 0 until the SYN-ACK is.
pub fn from_isns(client_isn: u32, server_isn: u32) -> u64 {
    u64::from(client_isn) << 32 | u64::from(server_isn)
}

/// The client's initial sequence number in a complete or partial id.
pub fn client_isn(connection_id: u64) -> u32 {
    (connection_id >> 32) as u32
}

/// The id of a connection joined midstream: a hash of its two ends, whichever comes first.
pub fn from_tuple(a: Endpoint, b: Endpoint) -> u64 {
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    let mut hash = FNV_OFFSET;
    for end in [low, high] {
        hash = match end.ip {
            IpAddr::V4(ip) => fnv1a(hash, &ip.octets()),
            IpAddr::V6(ip) => fnv1a(hash, &ip.octets()),
        };
        hash = fnv1a(hash, &end.port.to_be_bytes());
    }
    mix(hash)
}

/// The value that chooses the partition: the client's half of an id, so that a partial id and the
/// complete one it becomes go the same way; all of a tuple hash.
pub(crate) fn partition_hash(connection_id: u64, kind: IdKind) -> u64 {
    match kind {
        IdKind::Complete | IdKind::Partial => mix(u64::from(client_isn(connection_id))),
        IdKind::TupleHash => mix(connection_id),
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a, 64 bits: fixed for ever, since agents of different versions must agree.
pub(crate) fn fnv1a(seed: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}

/// The hash of a name (an agent's), for choices that every process must make alike.
pub(crate) fn name_hash(name: &str) -> u64 {
    mix(fnv1a(FNV_OFFSET, name.as_bytes()))
}

/// SplitMix64's finaliser: spreads every input bit over the output.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(text: &str) -> Endpoint {
        text.parse::<std::net::SocketAddr>().unwrap().into()
    }

    #[test]
    fn halves_are_the_sequence_numbers() {
        let id = from_isns(0xdead_beef, 0x0000_0001);
        assert_eq!(id, 0xdead_beef_0000_0001);
        assert_eq!(client_isn(id), 0xdead_beef);
    }

    #[test]
    fn a_tuple_hash_is_the_same_from_both_ends_and_pinned() {
        let (a, b) = (end("10.0.0.1:40000"), end("[2001:db8::1]:443"));
        assert_eq!(from_tuple(a, b), from_tuple(b, a));
        assert_ne!(from_tuple(a, b), from_tuple(end("10.0.0.1:40001"), b));
        assert_eq!(from_tuple(end("10.0.0.1:40000"), end("10.0.0.2:80")), 0x81b6_90d2_b833_9e88);
    }

    #[test]
    fn partial_and_complete_ids_go_to_one_partition() {
        let partial = partition_hash(from_isns(7, 0), IdKind::Partial);
        assert_eq!(partial, partition_hash(from_isns(7, 9), IdKind::Complete));
    }
}
