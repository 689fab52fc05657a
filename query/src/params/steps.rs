//! Requests for answers in steps of time.

use std::str::FromStr;

use super::{Given, GraphRequest, rows_only};
use crate::http::Asked;
use crate::problem::Problem;
use crate::scope::Scope;
use crate::window::Requested;

/// Most points of a series: more than a panel has pixels.
pub(crate) const MAX_POINTS: u32 = 1_000;
/// Steps of coverage without `points`: what a status panel shows of each agent.
pub(crate) const DEFAULT_COVERAGE_POINTS: u32 = 60;

/// Points of a series without `points`: a few minutes each of a day.
pub(crate) const DEFAULT_POINTS: u32 = 300;
/// Series without `limit`: as many as colours are told apart.
pub(crate) const DEFAULT_SERIES: usize = 10;
/// Most series: with the most points an answer of about 10 MB.
pub(crate) const MAX_SERIES: usize = 50;

words! {
    /// What a series is of.
    Split {
        /// All of it is one series.
        #[default]
        None = "none",
        /// An edge of the graph.
        Edge = "edge",
        /// A node of the graph by namespace.
        Namespace = "namespace",
        /// A node of the graph by workload.
        Workload = "workload",
    }
}

words! {
    /// By which of its sides a connection belongs to a namespace or workload: by one, so that series add up.
    SplitSide {
        #[default]
        Client = "client",
        Server = "server",
    }
}

/// What series to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeriesRequest {
    /// `limit` is of series.
    pub(crate) graph: GraphRequest,
    pub(crate) split: Split,
    pub(crate) side: SplitSide,
    /// Most points of a series, 2 to [`MAX_POINTS`].
    pub(crate) points: u32,
}

impl SeriesRequest {
    /// Its parameters, beside those of the graph.
    pub(crate) const TAKEN: &[&str] = &["split", "side", "points"];

    /// From the parameters of `/api/v1/timeseries`.
    pub(crate) fn parse(asked: Asked, now_ms: i64) -> Result<Self, Problem> {
        let given = Given::new(asked, &[GraphRequest::TAKEN, Self::TAKEN].concat())?;
        let limit = given.numbers("limit", "a number of series, 1 to 50", 1..=MAX_SERIES)?;
        let limit = limit.first().copied().unwrap_or(DEFAULT_SERIES);
        let graph = GraphRequest::of(&given, now_ms)?;
        Ok(Self {
            graph: GraphRequest { limit, filter: rows_only(graph.filter)?, ..graph },
            split: given.word("split", Split::WORDS)?,
            side: given.word("side", SplitSide::WORDS)?,
            points: points(&given, DEFAULT_POINTS)?,
        })
    }
}

/// What coverage to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CoverageRequest {
    pub(crate) scope: Scope,
    pub(crate) window: Requested,
    /// Most steps, 2 to [`MAX_POINTS`].
    pub(crate) points: u32,
}

impl CoverageRequest {
    /// Its parameters.
    pub(crate) const TAKEN: &[&str] = &["from", "to", "points"];

    /// From the parameters of `/api/v1/coverage`.
    pub(crate) fn parse(asked: Asked, now_ms: i64) -> Result<Self, Problem> {
        let given = Given::new(asked, Self::TAKEN)?;
        Ok(Self {
            scope: given.scope.clone(),
            window: given.window(now_ms)?,
            points: points(&given, DEFAULT_COVERAGE_POINTS)?,
        })
    }
}

fn points(given: &Given, default: u32) -> Result<u32, Problem> {
    let points = given.numbers("points", "a number of points, 2 to 1000", 2..=MAX_POINTS)?;
    Ok(points.first().copied().unwrap_or(default))
}
