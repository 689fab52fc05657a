//! The request of `/api/v1/values/…`.

use std::str::FromStr;

use super::{Given, MAX_LIMIT};
use crate::http::Asked;
use crate::problem::Problem;
use crate::scope::Scope;
use crate::window::Requested;

/// Longest text that is searched for, in bytes: a namespace and a name.
pub(crate) const MAX_SEARCH: usize = 512;
/// Values answered without `limit`: more than a dropdown shows without being searched.
pub(crate) const DEFAULT_VALUES: usize = 1_000;

words! {
    /// What there are values of.
    Of {
        #[default]
        Namespaces = "namespaces",
        /// As `namespace/name`.
        Workloads = "workloads",
        /// As `namespace/name`.
        Pods = "pods",
        /// As `namespace/name`.
        Services = "services",
        /// Nodes of the cluster.
        Nodes = "nodes",
        /// Server ports, as the clients used them.
        Ports = "ports",
    }
}

/// Which values are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ValuesRequest {
    pub(crate) of: Of,
    pub(crate) scope: Scope,
    pub(crate) window: Requested,
    /// Of ends in these namespaces; empty is any.
    pub(crate) namespaces: Vec<String>,
    /// What values begin with.
    pub(crate) prefix: String,
    /// What values have somewhere in them.
    pub(crate) contains: String,
    pub(crate) limit: usize,
}

impl ValuesRequest {
    /// Its parameters.
    pub(crate) const TAKEN: &[&str] = &["from", "to", "namespace", "prefix", "contains", "limit"];

    /// From the last part of the path and the parameters. `now_ms` is the instant that `now` means.
    pub(crate) fn parse(of: &str, asked: Asked, now_ms: i64) -> Result<Self, Problem> {
        let of = Of::from_str(of).map_err(|()| {
            let detail =
                format!("there are values of {}: ask for one of these", Of::WORDS.join(", "));
            Problem::new(axum::http::StatusCode::NOT_FOUND, detail)
        })?;
        let given = Given::new(asked, Self::TAKEN)?;
        let search = |name| {
            let text = given.one(name)?.unwrap_or_default();
            if text.len() > MAX_SEARCH {
                return Err(Problem::parameter(name, format!("takes at most {MAX_SEARCH} bytes")));
            }
            Ok(text.to_owned())
        };
        Ok(Self {
            of,
            scope: given.scope.clone(),
            window: given.window(now_ms)?,
            namespaces: given.list("namespace")?,
            prefix: search("prefix")?,
            contains: search("contains")?,
            limit: given
                .numbers("limit", "a number of values, 1 to 10000", 1..=MAX_LIMIT)?
                .first()
                .copied()
                .unwrap_or(DEFAULT_VALUES),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_values_are_refused_with_what_is_taken() {
        let parse = |of, name: &str, value: &str| {
            ValuesRequest::parse(of, Asked::of_anybody(&[(name, value)]), 7_200_000).unwrap_err()
        };
        let problem = parse("pod", "limit", "1");
        assert_eq!(problem.status, 404);
        assert!(problem.detail.contains("namespaces, workloads, pods, services, nodes, ports"));
        let long = "x".repeat(MAX_SEARCH + 1);
        for (name, value) in
            [("limit", "10001"), ("prefix", &long), ("contains", &long), ("q", "x")]
        {
            let problem = parse("pods", name, value);
            assert_eq!((problem.status, problem.parameter.as_deref()), (400, Some(name)));
        }
    }
}
