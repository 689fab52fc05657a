//! Addresses that nothing is known to own: public ones are external, all others unknown.

use std::net::IpAddr;

use flowtrail_schema::row::EntityKind;

/// External for a public address; unknown for one that only has a meaning here: loopback and
/// link-local (RFC 3927, RFC 4291), private (RFC 1918), carrier-grade NAT (RFC 6598), unique local
/// (RFC 4193), multicast, broadcast and unspecified. `address` is canonical (no mapped IPv4).
pub(super) fn kind_of(address: IpAddr) -> EntityKind {
    let local = match address {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let carrier_grade_nat = first == 100 && second & 0xc0 == 64;
            ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || ip.is_broadcast()
                || first == 0
                || carrier_grade_nat
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
        }
    };
    if local { EntityKind::Unknown } else { EntityKind::External }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_ranges_end_where_their_rfcs_say() {
        let unknown = [
            "10.0.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "100.64.0.0",
            "100.127.255.255",
            "169.254.1.1",
            "127.0.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "febf::1",
            "fc00::1",
            "fdff::1",
            "ff02::1",
        ];
        let external = [
            "8.8.8.8",
            "172.32.0.0",
            "172.15.255.255",
            "192.169.0.0",
            "100.128.0.0",
            "100.63.255.255",
            "11.0.0.0",
            "2001:4860::1",
            "fec0::1",
            "fe00::1",
        ];
        for text in unknown {
            assert_eq!(kind_of(text.parse().unwrap()), EntityKind::Unknown, "{text}");
        }
        for text in external {
            assert_eq!(kind_of(text.parse().unwrap()), EntityKind::External, "{text}");
        }
    }
}
