//! What `group_by` needs of each end. A part of a statement that reads a table folds its rows' ends into
//! key columns ([`columns`]); the statement groups by these and answers them as tuples ([`answered`]).

use std::net::Ipv6Addr;

use crate::params::GroupBy;

/// Ports, Services and addresses listed of one edge or node: what a person reads. One more is
/// fetched, to tell that there are more.
pub(crate) const MAX_LISTED: usize = 64;

/// What `group_by` needs of an end: kind, namespace, workload kind, workload, name, node, Service's
/// namespace, Service, address. What it does not need is empty.
pub(crate) type End<T = String> = (i8, T, T, T, T, T, T, T, Ipv6Addr);

/// An end whose texts are elsewhere.
pub(crate) fn borrowed<T: AsRef<str>>(end: &End<T>) -> End<&str> {
    let (kind, namespace, workload_kind, workload, name, node, of, service, address) = end;
    let [namespace, workload_kind, workload, name, node, of, service] =
        [namespace, workload_kind, workload, name, node, of, service].map(AsRef::as_ref);
    (*kind, namespace, workload_kind, workload, name, node, of, service, *address)
}

/// The parts of an [`End`], in its order.
const PARTS: [&str; 9] = [
    "kind",
    "namespace",
    "workload_kind",
    "workload",
    "name",
    "node",
    "service_namespace",
    "service",
    "address",
];

/// An end as edges call it, and what the columns begin with of which it is made.
pub(super) type Side = (&'static str, &'static str);

/// The two ends.
pub(super) const SIDES: [Side; 2] = [("source", "client"), ("target", "server")];

/// An address that stands for none.
pub(super) const NO_ADDRESS: &str = "toIPv6('::')";

/// Columns of a part of a statement: the keys of both ends, and what labels are made of.
pub(super) fn columns(group_by: GroupBy) -> String {
    let of_side = |(end, side): Side| {
        let listed = listed_address(side, group_by);
        let keys = key_columns(&[(end, side)], group_by).into_iter();
        keys.chain([format!("{listed} AS {end}_listed")])
    };
    let mut columns: Vec<_> = SIDES.into_iter().flat_map(of_side).collect();
    columns.push("server_port, service_namespace, service_name".to_owned());
    columns.join(", ")
}

/// Columns with the numbers of both nodes.
pub(super) fn number_columns(group_by: GroupBy) -> String {
    SIDES.map(|(end, side)| format!("{} AS {end}_number", node_number(side, group_by))).join(", ")
}

/// The names of the key columns.
pub(super) fn grouping(group_by: GroupBy) -> String {
    key_names(&SIDES, group_by).join(", ")
}

/// The names of the key columns of some sides.
pub(super) fn key_names(sides: &[Side], group_by: GroupBy) -> Vec<String> {
    let of_side = |(end, side): &Side| {
        let keys = keys(side, group_by).into_iter();
        keys.map(|(part, _)| format!("{end}_{part}")).collect::<Vec<_>>()
    };
    sides.iter().flat_map(of_side).collect()
}

/// The key columns of some sides, without what labels are made of.
pub(super) fn key_columns(sides: &[Side], group_by: GroupBy) -> Vec<String> {
    let of_side = |(end, side): &Side| {
        let keys = keys(side, group_by).into_iter();
        keys.map(|(part, column)| format!("{column} AS {end}_{part}")).collect::<Vec<_>>()
    };
    sides.iter().flat_map(of_side).collect()
}

/// What the key columns of some sides are made of.
pub(super) fn key_expressions(sides: &[Side], group_by: GroupBy) -> Vec<String> {
    let of_side = |(_, side): &Side| keys(side, group_by).into_iter().map(|(_, column)| column);
    sides.iter().flat_map(of_side).collect()
}

/// Both ends as [`End`], those that are not among some sides empty.
pub(super) fn answered_ends(sides: &[Side], group_by: GroupBy) -> [String; 2] {
    SIDES.map(|(end, side)| {
        let grouped = sides.contains(&(end, side));
        let keys = if grouped { keys(side, group_by) } else { Vec::new() };
        let part = |part: &str| {
            let column = || format!("{end}_{part}");
            match (part, keys.iter().any(|(key, _)| *key == part)) {
                ("kind", true) => format!("toInt8({})", column()),
                ("kind", false) => "toInt8(0)".to_owned(),
                ("address", true) => column(),
                ("address", false) => NO_ADDRESS.to_owned(),
                (_, true) => format!("toString({})", column()),
                (_, false) => "''".to_owned(),
            }
        };
        format!("({}) AS {end}", PARTS.map(part).join(", "))
    })
}

/// What a statement answers of each group: its ends as [`End`], and its labels.
pub(super) fn answered(group_by: GroupBy) -> String {
    let ends = answered_ends(&SIDES, group_by);
    let listed = |values: &str, alias: &str| {
        format!("arraySlice(arraySort({values}), 1, {}) AS {alias}", MAX_LISTED + 1)
    };
    let addresses = |end: &str| {
        let column = format!("{end}_listed");
        format!("groupUniqArrayIf({column}, {column} != {NO_ADDRESS})")
    };
    let labels = [
        listed("groupUniqArray(server_port)", "server_ports"),
        listed(
            "groupUniqArrayIf(concat(service_namespace, '/', service_name), service_name != '')",
            "services",
        ),
        listed(&addresses("source"), "client_addresses"),
        listed(&addresses("target"), "server_addresses"),
    ];
    ends.into_iter().chain(labels).collect::<Vec<_>>().join(",\n            ")
}

/// The parts of an end that rows are grouped by, and the column of each.
fn keys(side: &str, group_by: GroupBy) -> Vec<(&'static str, String)> {
    let whole = |name: &'static str| (name, format!("{side}_{name}"));
    let where_empty =
        |other: &str, name: &str| ("name", format!("if({side}_{other} = '', {side}_{name}, '')"));
    let address = |when: &str| {
        let condition: Vec<_> = when.split(' ').map(|name| format!("{side}_{name} = ''")).collect();
        let condition = condition.join(" AND ");
        ("address", format!("if({condition}, {side}_real_ip, {NO_ADDRESS})"))
    };
    let mut keys = vec![whole("kind")];
    match group_by {
        GroupBy::Namespace => keys.push(whole("namespace")),
        GroupBy::Workload | GroupBy::Service => keys.extend([
            whole("namespace"),
            whole("workload_kind"),
            whole("workload"),
            where_empty("workload", "name"),
            address("workload name"),
        ]),
        GroupBy::Pod => keys.extend([
            whole("namespace"),
            whole("workload_kind"),
            whole("workload"),
            whole("name"),
            address("name"),
        ]),
        GroupBy::Node => keys.extend([
            whole("namespace"),
            where_empty("node", "name"),
            whole("node"),
            address("node name"),
        ]),
        // A hidden address is folded into its namespace.
        GroupBy::Ip => keys.extend([
            ("namespace", format!("if({side}_real_ip = {NO_ADDRESS}, {side}_namespace, '')")),
            ("address", format!("{side}_real_ip")),
        ]),
    }
    if group_by == GroupBy::Service && side == "server" {
        let column = |name: &str| name.to_owned();
        keys.push(("service_namespace", column("service_namespace")));
        keys.push(("service", column("service_name")));
    }
    keys
}

/// A number for the node that an end is folded into, by the rule at [`crate::graph`]: the same for two ends
/// if [`crate::graph::Face`] gives them the same id (but for a name that is written like an address, and that address).
///
/// Each text is hashed alone: ClickHouse then hashes those of a dictionary once, not for each row. The sum of
/// these may be the same for others, by chance or by choice of names: who asks must not rely on the opposite.
fn node_number(side: &str, group_by: GroupBy) -> String {
    // Of a kind, and of texts: multiplied with odd numbers, so that none stands for another in another place.
    let number = |kind: &str, texts: [&str; 3]| {
        let texts = texts.iter().zip([
            0x9e37_79b9_7f4a_7c15_u64,
            0xc2b2_ae3d_27d4_eb4f,
            0x1656_67b1_9e37_79f9,
        ]);
        let hashed = texts
            .filter(|(text, _)| **text != NONE)
            .map(|(text, factor)| format!(" + sipHash64({text}) * {factor}"));
        format!("toUInt64({kind}){}", hashed.collect::<String>()).replace('@', side)
    };
    const NONE: &str = "";
    const EMPTY: &str = "''";
    let kind = "toInt8(@_kind)";
    let when = |column: &str, number: String| format!("{side}_{column} != '', {number}");
    let through_service = || {
        format!("service_name != '', {}", number("2", ["service_namespace", "service_name", NONE]))
    };
    // As a node that is told by its name, which has an empty namespace.
    let on_node = || when("node", number("3", [EMPTY, "@_node", NONE]));
    let of_workload =
        || when("workload", number("6", ["@_namespace", "@_workload_kind", "@_workload"]));
    let named = || when("name", number(kind, ["@_namespace", "@_name", NONE]));
    let has_address = format!("{side}_real_ip != {NO_ADDRESS}");
    let addressed =
        || format!("{has_address}, {}", number(kind, ["@_namespace", "@_real_ip", NONE]));
    let alone = || format!("{has_address}, {}", number("7", [NONE, "@_real_ip", NONE]));
    let mut cases = match group_by {
        GroupBy::Namespace => vec![],
        GroupBy::Service if side == "server" => {
            vec![through_service(), of_workload(), named(), addressed()]
        }
        GroupBy::Workload | GroupBy::Service => vec![of_workload(), named(), addressed()],
        GroupBy::Pod => vec![named(), of_workload(), addressed()],
        GroupBy::Node => vec![on_node(), named(), addressed()],
        GroupBy::Ip => vec![alone()],
    };
    cases.push(when("namespace", number("8", ["@_namespace", NONE, NONE])));
    cases.push(number(kind, [NONE, NONE, NONE]));
    format!("multiIf({})", cases.join(", "))
}

/// The address that is listed of an end. A workload's pods come and go: no table of workloads has theirs.
fn listed_address(side: &str, group_by: GroupBy) -> String {
    match group_by {
        GroupBy::Pod | GroupBy::Ip => format!("{side}_real_ip"),
        _ => format!("if({side}_workload = '', {side}_real_ip, {NO_ADDRESS})"),
    }
}
