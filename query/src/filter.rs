//! The filter: which rows count. It looks at single rows, so windows add up under it (but for what `q` says
//! of sums). Its SQL is text of ours; what the caller sent travels as bound parameters.

mod edge;
mod pattern;

use clickhouse::query::Query;
use flowtrail_schema::row::EntityKind;

pub(crate) use edge::EdgeFilter;
use pattern::may_match_addresses;

use crate::expression::Expression;
use crate::scope::Scope;

/// Which rows count. An empty list and `None` keep all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// What the caller may see: [`crate::scope::Tables`] keeps to it, the condition need not.
    pub(crate) scope: Scope,
    /// Either end is in one of these namespaces.
    pub(crate) namespaces: Vec<String>,
    /// Either end's workload is one of these, as `/api/v1/values/workloads` has them: `namespace/name`.
    pub(crate) workloads: Vec<String>,
    /// The ends are those of an edge, or one is a node.
    pub(crate) edge: EdgeFilter,
    /// Either end's namespace matches.
    pub(crate) namespace_pattern: Option<String>,
    /// Either end's name or address matches.
    pub(crate) include: Option<String>,
    /// Neither end's name or address matches: wins over `include`.
    pub(crate) exclude: Option<String>,
    /// The server's port, as the client used it or as the server has it, is one of these.
    pub(crate) ports: Vec<u16>,
    /// Either end is of one of these kinds.
    pub(crate) kinds: Vec<EntityKind>,
    /// What `q` says: its conditions on rows are part of [`Filter::sql`], those on sums [`crate::graph`] computes.
    pub(crate) q: Expression,
}

impl Filter {
    /// Whether it looks at pods or addresses.
    pub(crate) fn reads_pods(&self) -> bool {
        self.include.is_some()
            || self.exclude.is_some()
            || self.edge.reads_pods()
            || self.q.reads_pods()
    }

    /// A condition on a row of `flows` or of a rollup, naming the parameters that [`Filter::bind`] gives.
    pub(crate) fn sql(&self) -> String {
        let namespaces = "(client_namespace IN {namespaces:Array(String)} \
                          OR server_namespace IN {namespaces:Array(String)})";
        let workloads = format!(
            "({} IN {{workloads:Array(String)}} OR {} IN {{workloads:Array(String)}})",
            workload("client"),
            workload("server"),
        );
        let namespace_pattern = "(match(client_namespace, {namespace_pattern:String}) \
                                 OR match(server_namespace, {namespace_pattern:String}))";
        let ports = "(server_port IN {ports:Array(UInt16)} \
                     OR server_real_port IN {ports:Array(UInt16)})";
        let kinds = "(toInt8(client_kind) IN {kinds:Array(Int8)} \
                     OR toInt8(server_kind) IN {kinds:Array(Int8)})";
        let conditions = [
            (!self.namespaces.is_empty()).then(|| namespaces.to_owned()),
            (!self.workloads.is_empty()).then_some(workloads),
            self.edge.sql(),
            self.namespace_pattern.as_ref().map(|_| namespace_pattern.to_owned()),
            (!self.ports.is_empty()).then(|| ports.to_owned()),
            (!self.kinds.is_empty()).then(|| kinds.to_owned()),
            self.include.as_ref().map(|include| either_end_matches("{include:String}", include)),
            self.exclude
                .as_ref()
                .map(|exclude| format!("NOT {}", either_end_matches("{exclude:String}", exclude))),
            self.q.sql(),
        ];
        let conditions: Vec<_> = conditions.into_iter().flatten().collect();
        if conditions.is_empty() { "true".to_owned() } else { conditions.join(" AND ") }
    }

    /// Binds what the caller sent.
    pub(crate) fn bind(&self, mut query: Query) -> Query {
        if !self.namespaces.is_empty() {
            query = query.param("namespaces", &self.namespaces);
        }
        if !self.workloads.is_empty() {
            query = query.param("workloads", &self.workloads);
        }
        if !self.ports.is_empty() {
            query = query.param("ports", &self.ports);
        }
        if !self.kinds.is_empty() {
            let numbers: Vec<i8> = self.kinds.iter().map(|kind| kind.number()).collect();
            query = query.param("kinds", numbers);
        }
        let patterns = [
            ("namespace_pattern", &self.namespace_pattern),
            ("include", &self.include),
            ("exclude", &self.exclude),
        ];
        for (name, pattern) in patterns {
            if let Some(pattern) = pattern {
                query = query.param(name, pattern);
            }
        }
        self.q.bind(self.edge.bind(query))
    }
}

/// An end's workload, as values are written.
fn workload(side: &str) -> String {
    format!("concat(if({side}_namespace = '', '', concat({side}_namespace, '/')), {side}_workload)")
}

/// An end's names are its own, its workload's and, for the server, the Service's; its addresses are
/// those seen and those behind NAT. `bound` is the parameter that has the pattern.
fn either_end_matches(bound: &str, pattern: &str) -> String {
    const NAMES: &[&str] =
        &["client_name", "client_workload", "server_name", "server_workload", "service_name"];
    const ADDRESSES: &[&str] = &["client_ip", "client_real_ip", "server_ip", "server_real_ip"];
    let names = NAMES.iter().map(|name| (*name).to_owned());
    let addresses = if may_match_addresses(pattern) { ADDRESSES } else { &[] };
    let texts = names.chain(addresses.iter().map(|address| address_text(address)));
    let matches: Vec<_> = texts.map(|text| format!("match({text}, {bound})")).collect();
    format!("({})", matches.join(" OR "))
}

/// An address as people write it: mapped IPv4 without the prefix.
fn address_text(column: &str) -> String {
    format!(r"replaceRegexpOne(toString({column}), '^::ffff:([0-9]+[.])', '\\1')")
}
