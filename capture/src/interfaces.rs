//! Interfaces: which ones are watched, and what they lead to. The choice is a pure function of what
//! the kernel says; [`watch`] follows the kernel.

mod events;
mod lives;
mod netlink;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use flowtrail_schema::{Interface, InterfaceKind};
use regex::Regex;
use tokio::time::Instant;

use lives::{EXCLUDE_AFTER, Lives};

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
    /// A veth or netkit whose peer is in another network namespace.
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
    /// Indices of all others that are known.
    pub unwanted: BTreeSet<u32>,
    /// Those of them that the kernel need not deliver packets of any more: known long enough that
    /// they will hardly be wanted yet. What is not known is not excluded.
    pub excluded: BTreeSet<u32>,
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
    /// Tells it from others that had its index and name before.
    pub life: u64,
}

impl Selection {
    fn choose(&self, facts: &Facts, lives: &Lives, now: Instant) -> Watched {
        let kind = |link: &Link| facts.kind(link);
        let (wanted, unwanted): (Vec<&Link>, Vec<&Link>) =
            facts.links.iter().partition(|link| self.wants(link, kind(link)));
        let watched = |link: &Link| {
            let interface = Arc::new(Interface { name: link.name.clone(), kind: kind(link) });
            let life = lives.number(link.index);
            (link.index, WatchedInterface { interface, loopback: link.loopback, life })
        };
        let to_pods: HashSet<u32> = facts
            .links
            .iter()
            .filter(|link| kind(link) == InterfaceKind::Pod)
            .map(|link| link.index)
            .collect();
        Watched {
            interfaces: wanted.into_iter().map(watched).collect(),
            excluded: unwanted
                .iter()
                .map(|link| link.index)
                .filter(|index| {
                    lives.since(*index).is_some_and(|since| now >= since + EXCLUDE_AFTER)
                })
                .collect(),
            unwanted: unwanted.iter().map(|link| link.index).collect(),
            node_addresses: facts
                .addresses
                .iter()
                .filter(|(index, _)| !to_pods.contains(index))
                .map(|(_, address)| *address)
                .collect(),
        }
    }

    fn wants(&self, link: &Link, kind: InterfaceKind) -> bool {
        match self {
            Self::PodsAndUplinks => kind != InterfaceKind::Other && !link.loopback,
            Self::Named(patterns) => patterns.iter().any(|pattern| pattern.is_match(&link.name)),
        }
    }

    /// When the choice changes next although the facts do not.
    fn next_exclusion(&self, facts: &Facts, lives: &Lives, now: Instant) -> Option<Instant> {
        let unwanted = facts.links.iter().filter(|link| !self.wants(link, facts.kind(link)));
        let exclusions = unwanted.filter_map(|link| Some(lives.since(link.index)? + EXCLUDE_AFTER));
        exclusions.filter(|instant| *instant > now).min()
    }
}

impl Facts {
    fn indices(&self) -> impl Iterator<Item = u32> {
        self.links.iter().map(|link| link.index)
    }

    fn kind(&self, link: &Link) -> InterfaceKind {
        // The uplink of a node that is itself a container (kind) is a veth too.
        if self.default_routes.contains(&link.index) {
            InterfaceKind::Uplink
        } else if link.leads_to_namespace {
            InterfaceKind::Pod
        } else {
            InterfaceKind::Other
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

    fn choose(selection: &Selection, facts: &Facts) -> Watched {
        selection.choose(facts, &Lives::default(), Instant::now())
    }

    fn names(watched: &Watched) -> Vec<(&str, InterfaceKind)> {
        let interfaces = watched.interfaces.values().map(|watched| &watched.interface);
        interfaces.map(|interface| (interface.name.as_str(), interface.kind)).collect()
    }

    #[test]
    fn pods_and_uplinks_without_being_asked() {
        let watched = choose(&Selection::PodsAndUplinks, &node());
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
        let watched = choose(&Selection::PodsAndUplinks, &facts);
        assert_eq!(names(&watched), [("veth1a2b", InterfaceKind::Uplink)]);
        assert!(watched.node_addresses.contains(&IpAddr::from([169, 254, 1, 1])));
    }

    #[test]
    fn names_choose_what_they_match() {
        let patterns = ["lo", "cni.*", "veth1.*"].map(crate::config::interface_pattern);
        let named = Selection::Named(patterns.into_iter().map(Result::unwrap).collect());
        assert_eq!(
            names(&choose(&named, &node())),
            [
                ("lo", InterfaceKind::Other),
                ("cni0", InterfaceKind::Other),
                ("veth1a2b", InterfaceKind::Pod)
            ]
        );
        let part = Selection::Named(vec![crate::config::interface_pattern("eth").unwrap()]);
        assert!(choose(&part, &node()).interfaces.is_empty(), "a part of a name is no match");
    }

    #[test]
    fn unwanted_interfaces_are_excluded_once_they_are_known_for_a_while() {
        let (selection, facts) = (Selection::PodsAndUplinks, node());
        let (start, mut lives) = (Instant::now(), Lives::default());
        let early = [1, 2, 3, 4];
        lives.update(&HashSet::new(), early.into_iter(), start);
        let later = start + EXCLUDE_AFTER / 2;
        lives.update(&HashSet::new(), early.into_iter().chain([5]), later);
        assert_eq!(selection.next_exclusion(&facts, &lives, later), Some(start + EXCLUDE_AFTER));
        for (now, excluded) in [
            (later, vec![]),
            (start + EXCLUDE_AFTER, vec![1, 3]),
            (later + EXCLUDE_AFTER, vec![1, 3, 5]),
        ] {
            let watched = selection.choose(&facts, &lives, now);
            assert_eq!(watched.excluded, BTreeSet::from_iter(excluded));
            assert_eq!(watched.unwanted, BTreeSet::from([1, 3, 5]));
        }
        let end = later + EXCLUDE_AFTER;
        assert_eq!(selection.next_exclusion(&facts, &lives, end), None);
        lives.update(&HashSet::from([3]), [1, 2, 3, 4, 5].into_iter(), end);
        let watched = selection.choose(&facts, &lives, end);
        assert_eq!(watched.excluded, BTreeSet::from([1, 5]), "a new bridge of the same index");
    }
}
