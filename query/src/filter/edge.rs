//! The ends of an edge, from node ids as [`crate::graph`] makes them, as conditions on rows: the inverse of
//! `Face::of`. Ids join names by `/` and drop what is empty, so one may be of several kinds of rows: all are
//! taken.

use std::net::{IpAddr, Ipv6Addr};

use clickhouse::query::Query;
use flowtrail_schema::row::EntityKind;

use crate::params::GroupBy;

/// Conditions on a row's ends. Without any, all rows are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EdgeFilter {
    /// Pods, cluster nodes or addresses tell the ends.
    reads_pods: bool,
    source: Option<EndFilter>,
    target: Option<EndFilter>,
}

/// A row is kept if one of the lists holds for an end.
type EndFilter = Vec<Vec<Equals>>;

/// A column, without its side, and what it equals.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Equals {
    Text(&'static str, String),
    Kind(EntityKind),
    RealAddress(Ipv6Addr),
    Service(&'static str, String),
}

/// What is said of an id that no graph has.
const TAKES: &str = "takes a node id of /api/v1/graph with the same group_by";
const FOLDED: &str = "is what the graph's limit left out: raise its limit to see the nodes";

impl EdgeFilter {
    /// From the node ids of either end, or of one.
    ///
    /// # Errors
    /// If one is not an id; says whether it is the source's, and what that takes.
    pub(crate) fn new(
        group_by: GroupBy,
        source: Option<&str>,
        target: Option<&str>,
    ) -> Result<Self, (bool, &'static str)> {
        let end = |id: Option<&str>, is_source: bool| match id {
            None => Ok(None),
            Some("other") => Err((is_source, FOLDED)),
            Some(id) => alternatives(group_by, id, !is_source).map(Some).ok_or((is_source, TAKES)),
        };
        let (source, target) = (end(source, true)?, end(target, false)?);
        let finer = matches!(group_by, GroupBy::Pod | GroupBy::Node | GroupBy::Ip);
        let reads_pods = finer && (source.is_some() || target.is_some());
        Ok(Self { reads_pods, source, target })
    }

    /// Whether it looks at pods, cluster nodes or addresses, which only some tables tell.
    pub(super) fn reads_pods(&self) -> bool {
        self.reads_pods
    }

    /// A condition on a row, naming the parameters that [`EdgeFilter::bind`] gives.
    pub(super) fn sql(&self) -> Option<String> {
        let mut conditions = Vec::new();
        for (side, end) in self.ends() {
            let mut number = 0;
            let alternatives = end.iter().map(|alternative| {
                let equal = alternative.iter().map(|equals| {
                    number += 1;
                    equals.sql(side, number)
                });
                equal.collect::<Vec<_>>().join(" AND ")
            });
            conditions.push(format!("({})", alternatives.collect::<Vec<_>>().join(" OR ")));
        }
        (!conditions.is_empty()).then(|| conditions.join(" AND "))
    }

    /// Binds what the caller sent.
    pub(super) fn bind(&self, mut query: Query) -> Query {
        for (side, end) in self.ends() {
            for (index, equals) in end.iter().flatten().enumerate() {
                let name = format!("{side}_{}", index + 1);
                query = match equals {
                    Equals::Text(_, text) | Equals::Service(_, text) => query.param(&name, text),
                    Equals::Kind(kind) => query.param(&name, kind.number()),
                    Equals::RealAddress(address) => query.param(&name, address.to_string()),
                };
            }
        }
        query
    }

    fn ends(&self) -> impl Iterator<Item = (&'static str, &EndFilter)> {
        [("client", &self.source), ("server", &self.target)]
            .into_iter()
            .filter_map(|(side, end)| Some((side, end.as_ref()?)))
    }
}

impl Equals {
    fn sql(&self, side: &str, number: usize) -> String {
        let parameter = format!("{side}_{number}");
        match self {
            Self::Text(column, _) => format!("{side}_{column} = {{{parameter}:String}}"),
            Self::Service(column, _) => format!("service_{column} = {{{parameter}:String}}"),
            Self::Kind(_) => format!("toInt8({side}_kind) = {{{parameter}:Int8}}"),
            Self::RealAddress(_) => format!("{side}_real_ip = {{{parameter}:IPv6}}"),
        }
    }
}

fn text(column: &'static str, value: &str) -> Equals {
    Equals::Text(column, value.to_owned())
}

/// What rows are folded into the node of an id. Each branch is one of `Face::of`.
fn alternatives(group_by: GroupBy, id: &str, is_target: bool) -> Option<EndFilter> {
    let by_service = group_by == GroupBy::Service && is_target;
    let Some((kind, escaped)) = id.split_once(':') else {
        let equal = vec![Equals::Kind(kind_of(id)?), text("namespace", "")];
        return Some(vec![folded(group_by, by_service, equal)]);
    };
    let name = escaped.replace("%3E", ">").replace("%25", "%");
    let mut found = match (group_by, kind) {
        (_, "namespace") => {
            return Some(vec![folded(group_by, by_service, vec![text("namespace", &name)])]);
        }
        (GroupBy::Ip, "ip") => vec![vec![Equals::RealAddress(address(&name)?)]],
        (GroupBy::Workload | GroupBy::Service, "workload") => workloads(&name),
        (GroupBy::Pod, "workload") => workloads(&name)
            .into_iter()
            .map(|equal| [equal, vec![text("name", "")]].concat())
            .collect(),
        (GroupBy::Ip | GroupBy::Namespace, _) => return None,
        (_, kind) => named(group_by, kind_of(kind)?, &name),
    };
    if by_service {
        for alternative in &mut found {
            alternative.push(Equals::Service("name", String::new()));
        }
        if kind == "service" {
            let service = |namespace: &str, name: &str| {
                let equals = |column, value: &str| Equals::Service(column, value.to_owned());
                vec![equals("namespace", namespace), equals("name", name)]
            };
            found.extend(split(&name).into_iter().map(|(first, rest)| service(first, rest)));
        }
    }
    if group_by == GroupBy::Node && kind == "node" {
        found.push(vec![text("node", &name)]);
    }
    Some(found)
}

/// What is folded into its namespace or kind: all of it, or what a caller may not see more of.
fn folded(group_by: GroupBy, by_service: bool, mut equal: Vec<Equals>) -> Vec<Equals> {
    if group_by == GroupBy::Namespace {
        return equal;
    }
    equal.push(Equals::RealAddress(Ipv6Addr::UNSPECIFIED));
    if group_by != GroupBy::Ip {
        let owner = if group_by == GroupBy::Node { "node" } else { "workload" };
        equal.extend([text(owner, ""), text("name", "")]);
    }
    if by_service {
        equal.push(Equals::Service("name", String::new()));
    }
    equal
}

/// `namespace/kind/name`, each of which but the last may be missing.
fn workloads(name: &str) -> EndFilter {
    let workload = |namespace: &str, kind: &str, name: &str| {
        vec![text("namespace", namespace), text("workload_kind", kind), text("workload", name)]
    };
    match *name.split('/').collect::<Vec<_>>() {
        [namespace, kind, name] => vec![workload(namespace, kind, name)],
        [first, name] => vec![workload(first, "", name), workload("", first, name)],
        _ => vec![workload("", "", name)],
    }
}

/// Things with a name of their own, and nameless ones by their address.
fn named(group_by: GroupBy, kind: EntityKind, name: &str) -> EndFilter {
    let folded = match group_by {
        GroupBy::Workload | GroupBy::Service => Some("workload"),
        GroupBy::Node => Some("node"),
        _ => None,
    };
    let mut found = Vec::new();
    for (namespace, rest) in split(name) {
        let end = || {
            let mut equal = vec![Equals::Kind(kind), text("namespace", namespace)];
            equal.extend(folded.map(|column| text(column, "")));
            equal
        };
        found.push([end(), vec![text("name", rest)]].concat());
        if let Some(address) = address(rest) {
            let mut nameless = vec![text("name", ""), Equals::RealAddress(address)];
            // With a workload it is that.
            nameless.extend((group_by == GroupBy::Pod).then(|| text("workload", "")));
            found.push([end(), nameless].concat());
        }
    }
    found
}

/// What `namespace/name` or, without a namespace, `name` may be of: namespaces have no `/`.
fn split(name: &str) -> Vec<(&str, &str)> {
    [Some(("", name)), name.split_once('/')].into_iter().flatten().collect()
}

fn kind_of(word: &str) -> Option<EntityKind> {
    EntityKind::ALL.iter().find(|kind| kind.as_str() == word).copied()
}

/// An address as columns have it: IPv4 mapped.
fn address(text: &str) -> Option<Ipv6Addr> {
    match text.parse().ok()? {
        IpAddr::V4(address) => Some(address.to_ipv6_mapped()),
        // Which stands for none.
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => None,
        IpAddr::V6(address) => Some(address),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::graph::Face;
    use crate::sql::End;

    fn sql(group_by: GroupBy, source: Option<&str>, target: Option<&str>) -> String {
        EdgeFilter::new(group_by, source, target).unwrap().sql().unwrap()
    }

    #[test]
    fn an_id_is_equal_columns_and_its_words_are_bound() {
        assert_eq!(EdgeFilter::default().sql(), None);
        let workload = sql(GroupBy::Workload, Some("workload:shop/Deployment/web"), None);
        assert_eq!(
            workload,
            "(client_namespace = {client_1:String} AND client_workload_kind = {client_2:String} \
             AND client_workload = {client_3:String})"
        );
        let address = sql(GroupBy::Ip, None, Some("ip:10.0.0.1"));
        assert_eq!(address, "(server_real_ip = {server_1:IPv6})");
        let outside = sql(GroupBy::Pod, None, Some("external:2001:db8::7"));
        assert!(
            outside
                .contains("server_name = {server_6:String} AND server_real_ip = {server_7:IPv6}"),
            "{outside}"
        );
        let bare = sql(GroupBy::Namespace, Some("node"), None);
        assert!(bare.contains("toInt8(client_kind) = {client_1:Int8}"), "{bare}");
    }

    #[test]
    fn a_service_is_called_or_is_the_server_itself() {
        let service = sql(GroupBy::Service, None, Some("service:shop/db"));
        assert!(service.contains("service_namespace = {"), "{service}");
        assert!(service.contains("server_workload = {"), "{service}");
        let client = sql(GroupBy::Service, Some("service:shop/db"), None);
        assert!(!client.contains("service_namespace"), "{client}");
    }

    #[test]
    fn what_no_graph_has_is_refused() {
        for (group_by, id) in [
            (GroupBy::Ip, "ip:shop"),
            (GroupBy::Ip, "pod:shop/web"),
            (GroupBy::Workload, "vm:shop/web"),
            (GroupBy::Workload, "pods"),
            (GroupBy::Namespace, "pod:shop/web"),
            (GroupBy::Node, "workload:shop/Deployment/web"),
            (GroupBy::Ip, "ip:::"),
        ] {
            let refused = EdgeFilter::new(group_by, None, Some(id));
            assert_eq!(refused, Err((false, TAKES)), "{id}");
        }
        let other = EdgeFilter::new(GroupBy::Workload, Some("other"), None);
        assert_eq!(other, Err((true, FOLDED)));
    }

    fn is(value: &'static [&'static str]) -> impl Strategy<Value = String> {
        prop::sample::select(value).prop_map(str::to_owned)
    }

    /// An end as any row may have it.
    fn end() -> impl Strategy<Value = End> {
        let names = ["", "n", "a/n", "x>y%3E", "10.0.0.7"].as_slice();
        let addresses = prop::sample::select(["::ffff:10.0.0.7", "2001:db8::7", "::"].as_slice());
        (
            (1..=5_i8, is(&["", "a", "b"]), is(&["", "K"]), is(&["", "w", "n"])),
            (
                prop::sample::select(names),
                is(&["", "n"]),
                is(&["", "a"]),
                is(&["", "n", "s"]),
                addresses,
            ),
        )
            .prop_map(
                |(
                    (kind, namespace, workload_kind, workload),
                    (name, node, of, service, address),
                )| {
                    let address = address.parse().unwrap();
                    (
                        kind,
                        namespace,
                        workload_kind,
                        workload,
                        name.to_owned(),
                        node,
                        of,
                        service,
                        address,
                    )
                },
            )
    }

    fn holds(equals: &Equals, end: &End) -> bool {
        match equals {
            Equals::Kind(kind) => kind.number() == end.0,
            Equals::RealAddress(address) => *address == end.8,
            Equals::Service("namespace", value) => *value == end.6,
            Equals::Service(_, value) => *value == end.7,
            Equals::Text(column, value) => {
                let columns = [
                    ("namespace", &end.1),
                    ("workload_kind", &end.2),
                    ("workload", &end.3),
                    ("name", &end.4),
                    ("node", &end.5),
                ];
                columns.iter().any(|(name, has)| name == column && *has == value)
            }
        }
    }

    proptest! {
        #[test]
        fn the_rows_of_an_id_are_those_folded_into_its_node(
            one in end(), other in end(), is_target: bool,
            group_by in prop::sample::select([
                GroupBy::Namespace, GroupBy::Workload, GroupBy::Pod, GroupBy::Service, GroupBy::Node, GroupBy::Ip,
            ].as_slice()),
        ) {
            let id = |end: &End| {
                let mut end = end.clone();
                // A client was reached through none.
                if !is_target {
                    (end.6, end.7) = Default::default();
                }
                Face::of(group_by, &end).id()
            };
            let rows = alternatives(group_by, &id(&one), is_target).unwrap();
            let kept = |end: &End| rows.iter().any(|all| all.iter().all(|equals| holds(equals, end)));
            prop_assert!(kept(&one));
            prop_assert_eq!(kept(&other), id(&other) == id(&one), "{}", id(&one));
        }
    }
}
