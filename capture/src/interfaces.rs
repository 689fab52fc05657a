//! Interfaces: which ones are watched, and what they lead to. The choice is a pure function of what
//! the kernel says; [`watch`] follows the kernel.

mod netlink;

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use flowtrail_schema::{Interface, InterfaceKind};
use regex::Regex;

pub use netlink::{InterfaceError, Interfaces, watch};

/// What the kernel says about links, routes and addresses of this network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    links: Vec<Link>,
    /// Indices of the links that a default route leads out of, IPv4 or IPv6.
    default_routes: HashSet<u32>,
    /// Addresses with the index of their link.
    addresses: Vec<(u32, IpAddr)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Link {
    index: u32,
    name: String,
    loopback: bool,
    /// A veth whose peer is in another network namespace.
    leads_to_namespace: bool,
}

/// Which interfaces to watch.
#[derive(Clone, Debug)]
pub enum Selection {
    /// Those that lead to pods, and the uplinks.
    PodsAndUplinks,
    /// Those whose name one of the patterns matches; the patterns are anchored.
    Named(Vec<Regex>),
}

/// The interfaces to watch now, and the node's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// By kernel index.
    pub interfaces: BTreeMap<u32, WatchedInterface>,
    /// Addresses on the node's own interfaces: all but those that lead to pods.
    pub node_addresses: HashSet<IpAddr>,
}

/// One interface to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedInterface {
    /// Its name and kind.
    pub interface: Arc<Interface>,
    /// The loopback: it shows each packet twice, sent and received.
    pub loopback: bool,
}

impl Selection {
    fn choose(&self, facts: &Facts) -> Watched {
        let kind = |link: &Link| {
            // The uplink of a node that is itself a container (kind) is a veth too.
            if facts.default_routes.contains(&link.index) {
                InterfaceKind::Uplink
            } else if link.leads_to_namespace {
                InterfaceKind::Pod
            } else {
                InterfaceKind::Other
            }
        };
        let wanted = |link: &&Link| match self {
            Self::PodsAndUplinks => kind(link) != InterfaceKind::Other && !link.loopback,
            Self::Named(patterns) => patterns.iter().any(|pattern| pattern.is_match(&link.name)),
        };
        let watched = |link: &Link| {
            let interface = Arc::new(Interface { name: link.name.clone(), kind: kind(link) });
            (link.index, WatchedInterface { interface, loopback: link.loopback })
        };
        let to_pods: HashSet<u32> = facts
            .links
            .iter()
            .filter(|link| kind(link) == InterfaceKind::Pod)
            .map(|link| link.index)
            .collect();
        Watched {
            interfaces: facts.links.iter().filter(wanted).map(watched).collect(),
            node_addresses: facts
                .addresses
                .iter()
                .filter(|(index, _)| !to_pods.contains(index))
                .map(|(_, address)| *address)
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, leads_to_namespace: bool) -> Link {
        Link { index, name: name.to_owned(), loopback: name == "lo", leads_to_namespace }
    }

    fn node() -> Facts {
        Facts {
            links: vec![
                link(1, "lo", false),
                link(2, "eth0", false),
                link(3, "cni0", false),
                link(4, "veth1a2b", true),
                link(5, "vethpair", false),
            ],
            default_routes: HashSet::from([2]),
            addresses: vec![
                (1, [127, 0, 0, 1].into()),
                (2, [192, 0, 2, 1].into()),
                (3, [10, 244, 0, 1].into()),
                (4, [169, 254, 1, 1].into()),
            ],
        }
    }

    fn names(watched: &Watched) -> Vec<(&str, InterfaceKind)> {
        let interfaces = watched.interfaces.values().map(|watched| &watched.interface);
        interfaces.map(|interface| (interface.name.as_str(), interface.kind)).collect()
    }

    #[test]
    fn pods_and_uplinks_without_being_asked() {
        let watched = Selection::PodsAndUplinks.choose(&node());
        assert_eq!(
            names(&watched),
            [("eth0", InterfaceKind::Uplink), ("veth1a2b", InterfaceKind::Pod)]
        );
        let own: [IpAddr; 3] =
            [[127, 0, 0, 1].into(), [192, 0, 2, 1].into(), [10, 244, 0, 1].into()];
        assert_eq!(watched.node_addresses, HashSet::from(own));
    }

    #[test]
    fn the_uplink_of_a_containerised_node_is_no_pod() {
        let mut facts = node();
        facts.default_routes = HashSet::from([4]);
        let watched = Selection::PodsAndUplinks.choose(&facts);
        assert_eq!(names(&watched), [("veth1a2b", InterfaceKind::Uplink)]);
        assert!(watched.node_addresses.contains(&IpAddr::from([169, 254, 1, 1])));
    }

    #[test]
    fn names_choose_what_they_match() {
        let patterns = ["lo", "cni.*", "veth1.*"].map(crate::config::interface_pattern);
        let named = Selection::Named(patterns.into_iter().map(Result::unwrap).collect());
        assert_eq!(
            names(&named.choose(&node())),
            [
                ("lo", InterfaceKind::Other),
                ("cni0", InterfaceKind::Other),
                ("veth1a2b", InterfaceKind::Pod)
            ]
        );
        let part = Selection::Named(vec![crate::config::interface_pattern("eth").unwrap()]);
        assert!(part.choose(&node()).interfaces.is_empty(), "a part of a name is no match");
    }
}
