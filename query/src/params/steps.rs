//! Requests for answers in steps of time.

use super::Given;
use crate::problem::Problem;
use crate::window::Requested;

/// Most points of a series: more than a panel has pixels.
const MAX_POINTS: u32 = 1_000;
/// Steps of coverage without `points`: what a status panel shows of each agent.
const DEFAULT_COVERAGE_POINTS: u32 = 60;

/// What coverage to tell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CoverageRequest {
    pub(crate) window: Requested,
    /// Most steps, 2 to [`MAX_POINTS`].
    pub(crate) points: u32,
}

impl CoverageRequest {
    /// From the parameters of `/api/v1/coverage`.
    pub(crate) fn parse(pairs: Vec<(String, String)>, now_ms: i64) -> Result<Self, Problem> {
        let given = Given::new(pairs, &["from", "to", "points"])?;
        Ok(Self { window: given.window(now_ms)?, points: points(&given, DEFAULT_COVERAGE_POINTS)? })
    }
}

fn points(given: &Given, default: u32) -> Result<u32, Problem> {
    let points = given.numbers("points", "a number of points, 2 to 1000", 2..=MAX_POINTS)?;
    Ok(points.first().copied().unwrap_or(default))
}
