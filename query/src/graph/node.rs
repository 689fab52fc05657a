//! What a node is: the one place that says how ends are folded.

use flowtrail_schema::row::EntityKind;

use crate::params::GroupBy;
use crate::sql::{End, borrowed};

/// In the place of an end's kind: it is of an edge that the store has left out.
const OTHER: i8 = 0;

/// A node's identity, without its traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Face {
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) workload: String,
    pub(crate) workload_kind: String,
}

impl Face {
    /// The node that an end is folded into: see the rule at [`crate::graph`].
    pub(crate) fn of<T: AsRef<str>>(group_by: GroupBy, end: &End<T>) -> Self {
        let (number, namespace, workload_kind, workload, name, node, of, service, address) =
            borrowed(end);
        if number == OTHER {
            return Self::other();
        }
        // An Enum8 column holds no other number.
        let kind = EntityKind::from_number(i32::from(number)).unwrap_or(EntityKind::Unknown);
        // Only what a caller may not see has none, where an address is asked for.
        let hidden = address.is_unspecified();
        let address = || address.to_canonical().to_string();
        match group_by {
            GroupBy::Ip if hidden => Self::folded(kind, namespace),
            GroupBy::Ip => Self::named("ip", "", &address()),
            GroupBy::Namespace => Self::folded(kind, namespace),
            GroupBy::Service if !service.is_empty() => Self::named("service", of, service),
            GroupBy::Node if !node.is_empty() => Self::named("node", "", node),
            GroupBy::Workload | GroupBy::Service if !workload.is_empty() => {
                Self::named("workload", namespace, workload).owned_by(workload_kind, workload)
            }
            // What has a workload has a name, though not for every caller.
            GroupBy::Pod if name.is_empty() && !workload.is_empty() => {
                Self::named("workload", namespace, workload).owned_by(workload_kind, workload)
            }
            _ if name.is_empty() && hidden => Self::folded(kind, namespace),
            _ if name.is_empty() => Self::named(kind.as_str(), namespace, &address()),
            _ => Self::named(kind.as_str(), namespace, name).owned_by(workload_kind, workload),
        }
    }

    /// What `limit` left out.
    pub(crate) fn other() -> Self {
        Self::named("other", "", "")
    }

    /// All of a namespace, or of what has none.
    fn folded(kind: EntityKind, namespace: &str) -> Self {
        match namespace {
            "" => Self::named(kind.as_str(), "", ""),
            namespace => Self::named("namespace", "", namespace),
        }
    }

    fn named(kind: &str, namespace: &str, name: &str) -> Self {
        let face = |text: &str| text.to_owned();
        Self { kind: face(kind), namespace: face(namespace), name: face(name), ..Self::default() }
    }

    fn owned_by(self, kind: &str, workload: &str) -> Self {
        Self { workload: workload.to_owned(), workload_kind: kind.to_owned(), ..self }
    }

    /// For people: `namespace/name`, or what there is of it.
    pub(crate) fn label(&self) -> String {
        label(&self.kind, &self.namespace, &self.name)
    }

    /// `kind:namespace/name`, a workload with its kind before the name; the bare kind of a node
    /// that stands for all of them. No two nodes have the same, and none holds a `>`.
    pub(crate) fn id(&self) -> String {
        if self.name.is_empty() {
            return self.kind.clone();
        }
        let owner = if self.kind == "workload" { self.workload_kind.as_str() } else { "" };
        let parts = [self.namespace.as_str(), owner, self.name.as_str()];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        // Names are the user's, and edge ids put a `>` between two node ids.
        let name = parts.join("/").replace('%', "%25").replace('>', "%3E");
        format!("{}:{name}", self.kind)
    }
}

/// A node for people: `namespace/name`, or what there is of it.
pub(crate) fn label(kind: &str, namespace: &str, name: &str) -> String {
    match (namespace, name) {
        (_, "") => kind.to_owned(),
        ("", name) => name.to_owned(),
        (namespace, name) => format!("{namespace}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    struct Case {
        kind: EntityKind,
        namespace: &'static str,
        workload: &'static str,
        name: &'static str,
        node: &'static str,
        service: &'static str,
    }

    fn end(case: &Case) -> End {
        let address: Ipv6Addr = "::ffff:192.0.2.7".parse().unwrap();
        let text = |text: &str| text.to_owned();
        let kind = if case.workload.is_empty() { "" } else { "Deployment" };
        let service_namespace = if case.service.is_empty() { "" } else { case.namespace };
        (
            case.kind.number(),
            text(case.namespace),
            text(kind),
            text(case.workload),
            text(case.name),
            text(case.node),
            text(service_namespace),
            text(case.service),
            address,
        )
    }

    #[test]
    fn named_things_by_name_and_the_rest_by_address() {
        use EntityKind::{External, Node, Pod, Service, Unknown};
        let case = |kind, namespace, workload, name, node, service| Case {
            kind,
            namespace,
            workload,
            name,
            node,
            service,
        };
        let pod = case(Pod, "shop", "web", "web-1", "n1", "front");
        let bare = case(Service, "shop", "", "ext", "", "");
        let node = case(Node, "", "", "n1", "n1", "");
        let external = case(External, "", "", "", "", "");
        let unknown = case(Unknown, "", "", "", "", "");
        let named = case(External, "", "", "office > 2", "", "");
        let expected = [
            (
                &pod,
                [
                    "namespace:shop",
                    "workload:shop/Deployment/web",
                    "pod:shop/web-1",
                    "service:shop/front",
                    "node:n1",
                    "ip:192.0.2.7",
                ],
            ),
            (
                &bare,
                [
                    "namespace:shop",
                    "service:shop/ext",
                    "service:shop/ext",
                    "service:shop/ext",
                    "service:shop/ext",
                    "ip:192.0.2.7",
                ],
            ),
            (&node, ["node", "node:n1", "node:n1", "node:n1", "node:n1", "ip:192.0.2.7"]),
            (
                &external,
                [
                    "external",
                    "external:192.0.2.7",
                    "external:192.0.2.7",
                    "external:192.0.2.7",
                    "external:192.0.2.7",
                    "ip:192.0.2.7",
                ],
            ),
            (
                &unknown,
                [
                    "unknown",
                    "unknown:192.0.2.7",
                    "unknown:192.0.2.7",
                    "unknown:192.0.2.7",
                    "unknown:192.0.2.7",
                    "ip:192.0.2.7",
                ],
            ),
            (
                &named,
                [
                    "external",
                    "external:office %3E 2",
                    "external:office %3E 2",
                    "external:office %3E 2",
                    "external:office %3E 2",
                    "ip:192.0.2.7",
                ],
            ),
        ];
        let groupings = [
            GroupBy::Namespace,
            GroupBy::Workload,
            GroupBy::Pod,
            GroupBy::Service,
            GroupBy::Node,
            GroupBy::Ip,
        ];
        for (case, ids) in expected {
            for (group_by, id) in groupings.into_iter().zip(ids) {
                assert_eq!(Face::of(group_by, &end(case)).id(), id, "{group_by:?}");
            }
        }
    }
}
