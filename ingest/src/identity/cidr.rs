//! Names for networks that Kubernetes does not know: an office, a data centre, a provider.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use flowtrail_schema::row::EntityKind;
use ipnet::{IpNet, Ipv4Net};
use thiserror::Error;

use super::Identity;

/// Networks that may be named, at most: more would be a table of routes, not a list that people write.
pub const MAX_CIDR_NAMES: usize = 1_000;

/// Longest name, in bytes: that of a Kubernetes object.
const MAX_NAME_BYTES: usize = 253;

/// A name and the network that it is for: `name=10.0.0.0/8`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CidrName {
    name: Arc<str>,
    network: IpNet,
}

/// Why names of networks cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CidrNamesError {
    /// More than [`MAX_CIDR_NAMES`].
    #[error("--cidr-names has {0} networks: use {MAX_CIDR_NAMES} at most")]
    TooMany(usize),
    /// One network has two names.
    #[error("--cidr-names has two names for {network}, {first} and {second}: leave one out")]
    Twice {
        /// The network.
        network: IpNet,
        /// Its name.
        first: Arc<str>,
        /// Its other name.
        second: Arc<str>,
    },
}

impl FromStr for CidrName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, network) =
            text.split_once('=').ok_or("use NAME=CIDR, as in office=10.0.0.0/8")?;
        let (name, network) = (name.trim(), network.trim());
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(format!("a name has 1 to {MAX_NAME_BYTES} bytes: use NAME=CIDR"));
        }
        let parsed = network.parse::<IpNet>().map_err(|_| match network.parse::<IpAddr>() {
            Ok(address) => {
                format!("{network} is no network: for one address use {}", IpNet::from(address))
            }
            Err(_) => format!(
                "{network} is no network: use ADDRESS/BITS, as in 10.0.0.0/8 or 2001:db8::/32"
            ),
        })?;
        if parsed != parsed.trunc() {
            return Err(format!("{network} has bits after its prefix: use {}", parsed.trunc()));
        }
        Ok(Self { name: name.into(), network: unmapped(parsed) })
    }
}

/// IPv4 networks that are written as IPv6 (`::ffff:10.0.0.0/104`) are IPv4: so are the addresses.
fn unmapped(network: IpNet) -> IpNet {
    let v4 = match network {
        IpNet::V6(v6) => {
            let address = v6.addr().to_ipv4_mapped();
            let bits = v6.prefix_len().checked_sub(96);
            address.zip(bits).and_then(|(address, bits)| Ipv4Net::new(address, bits).ok())
        }
        IpNet::V4(v4) => Some(v4),
    };
    v4.map_or(network, IpNet::V4)
}

/// Names by network: the longest prefix wins.
#[derive(Clone, Debug, Default)]
pub struct CidrNames {
    by_length: BTreeMap<Reverse<u8>, HashMap<IpNet, Arc<Identity>>>,
}

impl CidrNames {
    /// A table of names.
    ///
    /// # Errors
    /// If there are too many, or two for one network.
    pub fn new(names: &[CidrName]) -> Result<Self, CidrNamesError> {
        if names.len() > MAX_CIDR_NAMES {
            return Err(CidrNamesError::TooMany(names.len()));
        }
        let mut table = Self::default();
        for CidrName { name, network } in names {
            let of_length = table.by_length.entry(Reverse(network.prefix_len())).or_default();
            let named = || Identity::named(EntityKind::External, Arc::clone(name)).into();
            let first = of_length.entry(*network).or_insert_with(named);
            if first.name != *name {
                let (first, second) = (Arc::clone(&first.name), Arc::clone(name));
                return Err(CidrNamesError::Twice { network: *network, first, second });
            }
        }
        Ok(table)
    }

    /// The smallest network that holds an address (no mapped IPv4), by its name.
    pub(super) fn name_of(&self, address: IpAddr) -> Option<&Arc<Identity>> {
        self.by_length.iter().find_map(|(Reverse(bits), networks)| {
            let network = IpNet::new(address, *bits).ok()?.trunc();
            networks.get(&network)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(texts: &[&str]) -> Result<CidrNames, CidrNamesError> {
        CidrNames::new(&texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn the_longest_prefix_wins_in_both_families() {
        let named = names(&[
            "all=10.0.0.0/8",
            "office=10.1.0.0/16",
            "office=192.168.0.0/16",
            "printer=10.1.2.3/32",
            "lab=2001:db8::/32",
            "rack=2001:db8:1::/48",
            "mapped=::ffff:172.16.0.0/108",
            "world=::/0",
        ]);
        let named = named.unwrap();
        let name =
            |ip: &str| named.name_of(ip.parse().unwrap()).map(|named| named.name.to_string());
        let is = |name: &str| Some(name.to_owned());
        assert_eq!(name("10.200.0.1"), is("all"));
        assert_eq!(name("10.1.255.255"), is("office"));
        assert_eq!(name("192.168.7.7"), is("office"));
        assert_eq!(name("10.1.2.3"), is("printer"));
        assert_eq!(name("172.31.0.1"), is("mapped"));
        assert_eq!(name("11.0.0.0"), None, "::/0 is of IPv6");
        assert_eq!(name("2001:db8:2::1"), is("lab"));
        assert_eq!(name("2001:db8:1::1"), is("rack"));
        assert_eq!(name("2001:db9::1"), is("world"));
    }

    #[test]
    fn errors_say_what_to_write() {
        let says = |text: &str, word: &str| {
            let error = text.parse::<CidrName>().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        };
        says("10.0.0.0/8", "NAME=CIDR");
        says("=10.0.0.0/8", "NAME=CIDR");
        says(&format!("{}=10.0.0.0/8", "n".repeat(254)), "253");
        says("office=10.0.0.1", "10.0.0.1/32");
        says("office=fd00::1", "fd00::1/128");
        says("office=10.0.0.1/8", "10.0.0.0/8");
        says("office=10.0.0.0/33", "ADDRESS/BITS");
        says("office=", "ADDRESS/BITS");
    }

    #[test]
    fn two_names_for_one_network_are_refused_and_so_are_too_many() {
        assert!(names(&["a=10.0.0.0/8", "a=10.0.0.0/8"]).is_ok());
        let error = names(&["a=10.0.0.0/8", "b=10.0.0.0/8"]).unwrap_err().to_string();
        assert!(error.contains("10.0.0.0/8, a and b"), "{error}");
        let many = vec!["a=10.0.0.0/8"; MAX_CIDR_NAMES + 1];
        assert_eq!(names(&many).unwrap_err(), CidrNamesError::TooMany(1_001));
    }
}
