//! The rounds: each question, its window ended anew each time, cold and then warm.

use std::fmt;

use anyhow::{Result, bail};
use clickhouse::Client;
use tokio_util::sync::CancellationToken;

use super::caches::Caches;
use super::events::Events;
use super::question::{Asker, FILTERS, GROUPINGS, Question, Span};
use crate::bench::ingest::store::Engine;
use crate::bench::verdict::{grouped, mebibytes, quantile};

/// What measuring takes.
#[derive(Debug)]
pub struct Rounds<'a> {
    /// The engine that is asked.
    pub engine: &'a Engine,
    /// A client of it.
    pub client: &'a Client,
    /// What is dropped before a question is asked cold.
    pub caches: &'a Caches<'a>,
    /// The query service.
    pub asker: &'a Asker,
    /// How often each question is asked.
    pub rounds: usize,
    /// How long windows are.
    pub spans: &'a [Span],
    /// Asked for when all is to end early.
    pub shutdown: &'a CancellationToken,
}

/// All that one question took.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The question.
    pub question: Question,
    /// With nothing in memory.
    pub cold: Runs,
    /// Right after, the same window.
    pub warm: Runs,
}

/// The same question, some times.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    /// From request to last byte, milliseconds; infinite where there was no graph.
    ms: Vec<f64>,
    events: Vec<Events>,
    answer_bytes: Vec<u64>,
    /// What the service adds to ClickHouse's time, milliseconds.
    own_ms: Vec<f64>,
}

impl Rounds<'_> {
    /// Asks everything, and prints what each question took as soon as it is known. `end_s` gives the
    /// windows' ends.
    ///
    /// # Errors
    /// If the service or the engine is not there any more, or if asked to end meanwhile. An answer that
    /// is not a graph is a result.
    pub fn run(&self, mut end_s: impl FnMut() -> u64) -> Result<Vec<Measured>> {
        println!("\nGraphs, {} times each\n{}", self.rounds, Measured::HEAD);
        let mut all = Vec::new();
        for group_by in GROUPINGS {
            for span in self.spans {
                for filter in FILTERS {
                    let question = Question { group_by, span: *span, filter };
                    let measured = self.measure(question, &mut end_s)?;
                    println!("{measured}");
                    all.push(measured);
                }
            }
        }
        Ok(all)
    }

    fn measure(&self, question: Question, end_s: &mut impl FnMut() -> u64) -> Result<Measured> {
        let mut measured = Measured { question, cold: Runs::default(), warm: Runs::default() };
        for _ in 0..self.rounds {
            let path = question.path(end_s());
            self.caches.drop_all()?;
            self.ask(&path, &mut measured.cold)?;
            self.ask(&path, &mut measured.warm)?;
        }
        Ok(measured)
    }

    fn ask(&self, path: &str, runs: &mut Runs) -> Result<()> {
        if self.shutdown.is_cancelled() {
            bail!("interrupted");
        }
        let (answer, events) = Events::of(self.engine, self.client, || self.asker.ask(path))?;
        if !answer.is_graph() {
            let why = String::from_utf8_lossy(&answer.body);
            eprintln!("rounds: {path} answered {} after {:.0} ms: {why}", answer.status, answer.ms);
        }
        runs.ms.push(if answer.is_graph() { answer.ms } else { f64::INFINITY });
        runs.own_ms.extend(answer.clickhouse_ms.map(|clickhouse_ms| answer.ms - clickhouse_ms));
        runs.events.push(events);
        runs.answer_bytes.push(answer.body.len() as u64);
        Ok(())
    }
}

impl Runs {
    /// How long so large a share of the answers took at most, milliseconds.
    pub fn ms(&self, share: f64) -> f64 {
        quantile(&self.ms, share)
    }

    /// The middle of something that was counted.
    fn median(figures: impl Iterator<Item = u64>) -> u64 {
        let figures: Vec<_> = figures.map(|figure| figure as f64).collect();
        quantile(&figures, 0.5) as u64
    }
}

impl Measured {
    /// The head of the table that they print as.
    const HEAD: &str = concat!(
        "                                                  cold ms                  warm ms           rows   MiB read from disk, answer, own ms, warm\n",
        "group_by  span filter                 p50     p90     max      p50     p90     max           read  by engine   cold MiB     KiB   p50   p90"
    );
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.question)?;
        for runs in [&self.cold, &self.warm] {
            for share in [0.5, 0.9, 1.0] {
                match runs.ms(share) {
                    ms if ms.is_finite() => write!(f, "{ms:8.1}")?,
                    _ => write!(f, "{:>8}", "none")?,
                }
            }
            write!(f, " ")?;
        }
        let warm = &self.warm;
        let median = |of: fn(&Events) -> u64, runs: &Runs| Runs::median(runs.events.iter().map(of));
        write!(
            f,
            "{:>14}{:>11.1}{:>11.1}{:>8}{:>6.1}{:>6.1}",
            grouped(median(|events| events.rows, warm)),
            mebibytes(median(|events| events.bytes, warm)),
            mebibytes(median(|events| events.disk_bytes, &self.cold)),
            Runs::median(warm.answer_bytes.iter().copied()) >> 10,
            quantile(&warm.own_ms, 0.5),
            quantile(&warm.own_ms, 0.9),
        )
    }
}
