//! What the service adds to ClickHouse's own time: from a request to its last byte, less the times in which it
//! waited for an answer of ClickHouse's or for more of one (`Server-Timing`). Asking, and reading and folding the rows
//! that have come, count as the service's, as does sending the answer.

use anyhow::{Result, bail};
use tokio_util::sync::CancellationToken;

use super::question::{Asker, FILTERS, Question, Span};
use crate::bench::verdict::{Verdict, quantile};

/// How often each graph is asked for, after two that warm up.
const TIMES: usize = 40;
/// Edges of the graph that is judged.
const EDGES: usize = 2_000;
/// The most that the service may add to 9 graphs of 10, milliseconds.
const GOAL_P90_MS: f64 = 5.0;

/// Asks for graphs of so many edges, and prints what they took. `end_s` gives the windows' ends.
///
/// # Errors
/// If the service is not there any more, or does not tell its time; or if asked to end meanwhile.
pub fn run(
    asker: &Asker,
    mut end_s: impl FnMut() -> u64,
    shutdown: &CancellationToken,
) -> Result<Verdict> {
    println!("\nThe service's own time, of {TIMES} graphs each");
    let mut judged = Vec::new();
    for (limit, span) in
        [(10, Span::Day), (500, Span::Day), (EDGES, Span::Day), (EDGES, Span::Week)]
    {
        let question = Question { group_by: "workload", span, filter: FILTERS[0] };
        let (mut own, mut all, mut edges) = (Vec::new(), Vec::new(), 0);
        for time in 0..TIMES + 2 {
            if shutdown.is_cancelled() {
                bail!("interrupted");
            }
            let path = format!("{}&limit={limit}", question.path(end_s()));
            let answer = asker.ask(&path)?;
            let Some(clickhouse_ms) = answer.clickhouse_ms.filter(|_| answer.is_graph()) else {
                bail!("{path} answered {} without Server-Timing", answer.status)
            };
            if time >= 2 {
                own.push(answer.ms - clickhouse_ms);
                all.push(answer.ms);
            } else {
                edges = answer.json()?["edges"].as_array().map_or(0, Vec::len);
            }
        }
        let of = |ms: &[f64]| [0.5, 0.9].map(|share| quantile(ms, share));
        let ([own_p50, own_p90], [p50, p90]) = (of(&own), of(&all));
        println!(
            "{span:<5}{edges:>5} edges: own p50 {own_p50:.1} ms, p90 {own_p90:.1} ms; \
             all p50 {p50:.1} ms, p90 {p90:.1} ms"
        );
        if limit == EDGES {
            judged.push((own_p90, edges));
        }
    }
    let (worst, edges) =
        judged.into_iter().max_by(|(a, _), (b, _)| a.total_cmp(b)).unwrap_or((f64::NAN, 0));
    Ok(Verdict {
        goal: format!("the service's own time for {EDGES} edges, p90 ≤ {GOAL_P90_MS:.0} ms"),
        figure: format!("{worst:.1} ms for {edges}"),
        met: worst <= GOAL_P90_MS,
    })
}
