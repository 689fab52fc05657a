//! `/api/v1/values/…`: what there is to choose from in a window, for the dropdowns of a dashboard.
//!
//! Values are those of rows that are counted in edges, and of whole minutes: in each of them every open
//! connection has a row. So a value is listed if and only if the graph of the same minutes has it.

use clickhouse::query::Query;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::answer::{Coverage, Window};
use crate::params::{Of, ValuesRequest};
use crate::planner::{Plan, Segment, Tier};
use crate::sql::{Detail, counted_within, table};
use crate::store::{Store, StoreError};
use crate::window::Requested;

/// Values to choose from, those of the most connections first.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Values {
    /// The window that was looked at: the requested one, widened to whole minutes at least.
    pub window: Window,
    /// What the agents saw of it.
    pub coverage: Coverage,
    /// By connections, most first; equals by namespace and name.
    pub values: Vec<Value>,
    /// There are more than `limit`.
    pub more: bool,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Value {
    /// What tells it from all others: `namespace/name`, or the name of what has no namespace.
    pub value: String,
    /// The same, to be shown.
    pub text: String,
    /// Its namespace; empty for what has none.
    pub namespace: String,
    /// Its name in that.
    pub name: String,
    /// Connections alive in the window with it at either end.
    pub connections: u64,
}

/// The minutes that a window touches.
fn whole_minutes(requested: Requested) -> Requested {
    let minute = |time_ms: i64| time_ms / 60_000 * 60_000;
    Requested { from_ms: minute(requested.from_ms), to_ms: minute(requested.to_ms - 1) + 60_000 }
}

/// Finds the values that a request asks for.
///
/// # Errors
/// If the store is away, too slow, or finds the question too large.
pub(crate) async fn values(store: &Store, request: &ValuesRequest) -> Result<Values, StoreError> {
    let mut plan = store.plan(whole_minutes(request.window)).await?;
    plan.bounds.resolution_s = plan.bounds.resolution_s.max(60);
    let (coverage, complete_until_s) = store.coverage(&request.scope, plan.bounds).await?;
    let rows = store.values(request, &plan).await?;
    let more = rows.len() > request.limit;
    let values = rows.into_iter().take(request.limit).map(value).collect();
    let window = plan.bounds.answer(request.window, complete_until_s);
    Ok(Values { window, coverage, values, more })
}

fn value((namespace, name, connections): (String, String, u64)) -> Value {
    let value = if namespace.is_empty() { name.clone() } else { format!("{namespace}/{name}") };
    Value { text: value.clone(), value, namespace, name, connections }
}

/// The question of a plan's rows: namespace, name and connections of each value.
pub(crate) fn sql(request: &ValuesRequest, plan: &Plan) -> String {
    let at_s = plan.bounds.from_s;
    let tiers = plan.by_tier();
    let parts = tiers.iter().map(|(tier, segments)| rows(request, *tier, segments, at_s));
    format!(
        "SELECT value.1 AS namespace, value.2 AS name, sum(connections) AS alive
        FROM ({parts})
        WHERE name != '' AND startsWith(concat(if(namespace = '', '', concat(namespace, '/')), name), {{prefix:String}})
            AND position(concat(if(namespace = '', '', concat(namespace, '/')), name), {{contains:String}}) > 0
        GROUP BY namespace, name
        ORDER BY alive DESC, namespace, name
        LIMIT {{rows:UInt64}}",
        parts = parts.collect::<Vec<_>>().join(" UNION ALL "),
    )
}

/// Binds what the caller sent.
pub(crate) fn bind(request: &ValuesRequest, query: Query) -> Query {
    // One more tells that there are more.
    let query = query.param("rows", request.limit as u64 + 1);
    let query = query.param("prefix", &request.prefix).param("contains", &request.contains);
    if request.namespaces.is_empty() {
        query
    } else {
        query.param("namespaces", &request.namespaces)
    }
}

/// A table's rows, one for each value of theirs. What was open when the window began is counted there alone.
fn rows(request: &ValuesRequest, tier: Tier, segments: &[Segment], at_s: u32) -> String {
    let (time, counted) = counted_within(tier, segments);
    let detail = match request.of {
        Of::Pods | Of::Nodes => Detail::Pods,
        Of::Namespaces | Of::Workloads | Of::Services | Of::Ports => Detail::Workloads,
    };
    format!(
        "SELECT
            arrayJoin(arrayDistinct([{found}])) AS value,
            toUInt64(opened + joined + if({time} = toDateTime({at_s}, 'UTC'), open_at_start, 0)) AS connections
        FROM {table}
        WHERE {counted}",
        found = found(request.of, !request.namespaces.is_empty()).join(", "),
        table = table(tier, detail),
    )
}

/// Namespace and name of what a row has; what is not of the namespaces asked for has no name.
fn found(of: Of, in_namespaces: bool) -> Vec<String> {
    let value = |of_end: &str, namespace: &str, name: &str| {
        let name = match in_namespaces {
            true => {
                format!("if({of_end} IN {{namespaces:Array(String)}}, toString({name}), '')")
            }
            false => format!("toString({name})"),
        };
        format!("(toString({namespace}), {name})")
    };
    let of_ends = |of_end: &dyn Fn(&str, &str) -> String| {
        ["client", "server"].map(|side| of_end(side, &format!("{side}_namespace"))).to_vec()
    };
    match of {
        Of::Namespaces => of_ends(&|_, namespace| value(namespace, "''", namespace)),
        Of::Workloads => {
            of_ends(&|side, namespace| value(namespace, namespace, &format!("{side}_workload")))
        }
        Of::Pods => of_ends(&|side, namespace| {
            value(namespace, namespace, &format!("if({side}_kind = 'pod', {side}_name, '')"))
        }),
        // Through one, or to one whose pod is not known.
        Of::Services => vec![
            value("service_namespace", "service_namespace", "service_name"),
            value(
                "server_namespace",
                "server_namespace",
                "if(server_kind = 'service', server_name, '')",
            ),
        ],
        Of::Nodes => of_ends(&|side, namespace| {
            let own = format!("if({side}_kind = 'node', {side}_name, '')");
            value(namespace, "''", &format!("if({side}_node = '', {own}, {side}_node)"))
        }),
        Of::Ports => vec![value("server_namespace", "''", "server_port")],
    }
}
