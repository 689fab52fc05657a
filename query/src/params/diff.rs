//! Requests for what differs between two windows.

use super::{Given, GraphRequest, MAX_LIMIT, refused};
use crate::http::Asked;
use crate::problem::Problem;
use crate::window::Requested;

/// Edges listed without `limit`: what a person reads.
pub(crate) const DEFAULT_EDGES: usize = 100;
/// How many times what it was makes a change, without `threshold`.
pub(crate) const DEFAULT_THRESHOLD: f64 = 2.0;
/// Least `threshold`: what is above 1 by less is as good as the same.
pub(crate) const MIN_THRESHOLD: f64 = 1.01;
/// Most.
pub(crate) const MAX_THRESHOLD: f64 = 1_000_000.0;

/// Which windows to compare.
#[derive(Clone, Debug)]
pub(crate) struct DiffRequest {
    /// `limit` is of edges listed.
    pub(crate) graph: GraphRequest,
    /// The window to compare with.
    pub(crate) base: Requested,
    /// An edge changed if its stat is so many times what it was, or less by as much; above 1.
    pub(crate) threshold: f64,
}

impl DiffRequest {
    /// Its parameters, beside those of the graph.
    pub(crate) const TAKEN: &[&str] = &["base", "base_from", "base_to", "threshold"];

    /// From the parameters of `/api/v1/diff`. Without any for the base window it is the one just before, as
    /// long.
    pub(crate) fn parse(asked: Asked, now_ms: i64) -> Result<Self, Problem> {
        let given = Given::new(asked, &[GraphRequest::TAKEN, Self::TAKEN].concat())?;
        let limit = given.numbers("limit", "a number of edges, 1 to 10000", 1..=MAX_LIMIT)?;
        let limit = limit.first().copied().unwrap_or(DEFAULT_EDGES);
        let graph = GraphRequest { limit, ..GraphRequest::of(&given, now_ms)? };
        let what = "how many times what it was makes a change, 1.01 to 1000000";
        let threshold = given.numbers("threshold", what, MIN_THRESHOLD..=MAX_THRESHOLD)?;
        Ok(Self {
            base: given.base(graph.window, now_ms)?,
            threshold: threshold.first().copied().unwrap_or(DEFAULT_THRESHOLD),
            graph,
        })
    }
}

impl Given {
    fn base(&self, window: Requested, now_ms: i64) -> Result<Requested, Problem> {
        let length_ms = window.to_ms - window.from_ms;
        if let Some(shift) = self.one("base")? {
            if self.one("base_from")?.or(self.one("base_to")?).is_some() {
                let detail =
                    "takes a window's distance, or base_from and base_to say which; not both";
                return Err(Problem::parameter("base", detail));
            }
            // What `now-1d` is to now.
            let shifted = shift.strip_prefix('-').and_then(|_| {
                flowtrail_service::instant::parse(&format!("now{shift}"), window.from_ms).ok()
            });
            let from_ms = shifted.ok_or_else(|| {
                let takes = "takes how long before, as -1d, -7d or -1h30m, not before 1970";
                Problem::parameter("base", refused(shift, takes))
            })?;
            return Ok(Requested { from_ms, to_ms: from_ms + length_ms });
        }
        let from_ms = self.instant("base_from", now_ms)?;
        let to_ms = self.instant("base_to", now_ms)?;
        let (from_ms, to_ms) = match (from_ms, to_ms) {
            (Some(from_ms), Some(to_ms)) => (from_ms, to_ms),
            (Some(from_ms), None) => (from_ms, from_ms.saturating_add(length_ms)),
            (None, to_ms) => {
                let to_ms = to_ms.unwrap_or(window.from_ms);
                ((to_ms - length_ms).max(0), to_ms)
            }
        };
        let to_ms = to_ms.min(flowtrail_service::instant::MAX_INSTANT_MS);
        if from_ms >= to_ms {
            let detail = "is not before base_to; swap them or widen them";
            return Err(Problem::parameter("base_from", detail));
        }
        Ok(Requested { from_ms, to_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &[(&str, &str)]) -> Result<DiffRequest, Problem> {
        let query = [&[("from", "1000000"), ("to", "1060000")], query].concat();
        DiffRequest::parse(Asked::of_anybody(&query), 2_000_000)
    }

    #[test]
    fn the_base_is_a_window_or_a_distance() {
        let base = |query: &[(&str, &str)]| {
            let base = parse(query).unwrap().base;
            (base.from_ms, base.to_ms)
        };
        assert_eq!(base(&[]), (940_000, 1_000_000));
        assert_eq!(base(&[("base", "-10m")]), (400_000, 460_000));
        assert_eq!(base(&[("base_from", "100000")]), (100_000, 160_000));
        assert_eq!(base(&[("base_to", "100000")]), (40_000, 100_000));
        assert_eq!(base(&[("base_from", "1"), ("base_to", "now")]), (1, 2_000_000));
        let request = parse(&[]).unwrap();
        assert_eq!((request.threshold, request.graph.limit), (2.0, DEFAULT_EDGES));
    }

    #[test]
    fn a_bad_base_says_what_is_taken() {
        let refused = |query: &[(&str, &str)], name: &str, says: &str| {
            let problem = parse(query).unwrap_err();
            assert_eq!(problem.parameter.as_deref(), Some(name));
            assert!(problem.detail.contains(says), "{}", problem.detail);
        };
        refused(&[("base", "1d")], "base", "-1d");
        refused(&[("base", "-1d")], "base", "1970");
        refused(&[("base", "-1m"), ("base_to", "5")], "base", "not both");
        refused(&[("base_from", "7"), ("base_to", "7")], "base_from", "not before");
        refused(&[("threshold", "1")], "threshold", "1.01");
        refused(&[("threshold", "NaN")], "threshold", "1.01");
    }
}
