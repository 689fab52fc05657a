//! A stat over time: `/api/v1/timeseries`.
//!
//! The window is cut into the shortest steps that keep the number of points and that one table's rows, still
//! held for all of it, make up. Series are the graph's edges, its nodes at one end, or all in one; what
//! `limit` leaves out is the series `other`, so that points add up to what the graph says of the window. The
//! largest are found first, so that no more than they and their points is asked of ClickHouse.

use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::answer::{Coverage, StatValue, Window};
use crate::graph::{Face, Measure};
use crate::params::{SeriesRequest, Split, SplitSide, Stat};
use crate::planner::{Tier, plan};
use crate::reports::share;
use crate::sql::{Places, ReportSource, SeriesRow, StatSums, StepRow, TotalRow};
use crate::store::{Store, StoreError};
use crate::window::{Steps, ms};

/// `connections` counts those open at a step's start, which rows tell at the start of a minute.
const SHORTEST_OF_CONNECTIONS_S: u32 = 60;

/// Pairs of ends that series are made of, at most: their keys take 150 kB of a statement, which ClickHouse
/// reads 256 KiB of. A series is made of one, or of a few that have had several owners; what is beyond is
/// among the others.
const MAX_KEYS: usize = 4_000;

/// The shortest step that coverage of hours is enough for.
const HOUR_S: u32 = 3_600;

/// A stat over time.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct TimeSeries {
    /// The window, widened to whole steps.
    pub window: Window,
    /// What the agents saw of it.
    pub coverage: Coverage,
    /// Seconds of a step.
    pub step_s: u32,
    /// Ordered by the stat over the whole window, largest first; `other` last.
    pub series: Vec<Series>,
    /// A point of each series in each step, in order of time.
    pub points: Vec<Point>,
}

/// What a series is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, JsonSchema, Serialize, Deserialize)]
pub struct Series {
    /// Id of the graph's edge or node; `all` without a split, `other` of what `limit` left out.
    pub id: String,
    /// For people.
    pub name: String,
}

/// A series in a step.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Point {
    /// Start of the step, milliseconds since the epoch.
    pub time: i64,
    /// Id of the series.
    pub series: String,
    /// Name of the series.
    pub name: String,
    /// The stat in the step; null where nothing was counted and nobody looked, and, of times, without a sample.
    pub value: Option<StatValue>,
    /// The value per second, of what adds up over time.
    pub per_second: Option<f64>,
    /// Share (0 to 1) of the reports due on the step, of all agents that reported in the window, that there
    /// are: below 1, some agent saw nothing in some of it.
    pub coverage: f64,
}

/// Computes what a request asks for.
///
/// # Errors
/// If the store is away, too slow, or finds the question too large.
pub(crate) async fn timeseries(
    store: &Store,
    request: &SeriesRequest,
) -> Result<TimeSeries, StoreError> {
    let (requested, scope) = (request.graph.window, &request.graph.filter.scope);
    let (interval_s, held) = store.grain(requested).await?;
    let shortest_s = match request.graph.stat {
        Stat::Connections => interval_s.max(SHORTEST_OF_CONNECTIONS_S),
        _ => interval_s,
    };
    let tier = |steps: &Steps| held.coarsest_of(steps.from_s, steps.step_s, interval_s);
    let steps = Steps::choose(requested, shortest_s, request.points, |steps| tier(steps).is_some());
    // Nothing is older than what weeks have.
    let tier = tier(&steps).unwrap_or(Tier::Week);

    let bounds = steps.bounds(interval_s);
    let source = match steps.step_s.is_multiple_of(HOUR_S) {
        true => ReportSource::Hours,
        false => ReportSource::Reports,
    };
    let reports = async {
        let reports = store.reports(scope, bounds).await?;
        let blind = store.blind_spots(scope, bounds, &reports).await?;
        Ok((reports, blind))
    };
    let told = async {
        let totals = match request.split {
            Split::None => Vec::new(),
            _ => store.totals(request, &plan(steps.requested(), interval_s, &held)).await?,
        };
        let (series, places) = ranked(request, totals);
        let rows = store.series(request, tier, steps, &places).await?;
        Ok((series, rows))
    };
    let ((series, rows), (reports, blind), reported) =
        tokio::try_join!(told, reports, store.reported_steps(source, steps),)?;
    let looked = Looked::of(&reported, steps, reports.coverage.agents, reports.due_s, interval_s);
    let series = filled(series, rows, steps);
    let points = points(request.graph.stat, &series, steps, &looked);
    let series = series.into_iter().map(|(series, _)| series).collect();
    let window = bounds.answer(requested, reports.complete_until_s);
    let coverage = reports.with_blind_spots(blind);
    Ok(TimeSeries { window, coverage, step_s: steps.step_s, series, points })
}

/// How many reports there are on each step, and how many are due.
struct Looked(Vec<(u64, u64)>);

impl Looked {
    fn of(rows: &[StepRow], steps: Steps, agents: u64, due_s: u32, interval_s: u32) -> Self {
        let due = steps.starts().map(|start_s| {
            let end_s = start_s.saturating_add(steps.step_s).min(due_s);
            (0, agents * u64::from(end_s.saturating_sub(start_s) / interval_s))
        });
        let mut looked: Vec<_> = due.collect();
        for row in rows {
            if let Some((reported, _)) = steps.place(row.at_s).and_then(|at| looked.get_mut(at)) {
                *reported += row.reported;
            }
        }
        Self(looked)
    }
}

/// One step of one series.
#[derive(Clone, Debug, Default)]
struct Sample {
    total: u64,
    times: Measure<'static>,
}

impl Sample {
    fn of((total, count, largest, histogram): StatSums) -> Self {
        Self { total, times: Measure::new(total, count, largest, histogram) }
    }

    fn merge(&mut self, other: &Self) {
        self.total += other.total;
        self.times.merge(&other.times);
    }

    fn value(&self, stat: Stat) -> Option<StatValue> {
        match stat {
            Stat::Duration => self.times.avg_ms().map(StatValue::Milliseconds),
            Stat::Latency => self.times.quantile_ms(0.95).map(StatValue::Milliseconds),
            _ => Some(StatValue::Count(self.total)),
        }
    }
}

/// The steps of a series that have rows, by place.
type Samples = BTreeMap<usize, Sample>;

/// A point of each series in each step.
fn points(
    stat: Stat,
    series: &[(Series, Samples)],
    steps: Steps,
    Looked(looked): &Looked,
) -> Vec<Point> {
    let adds_up = stat != Stat::Connections && !stat.is_time();
    let point = |start_s: u32,
                 (reported, expected): (u64, u64),
                 series: &Series,
                 sample: Option<&Sample>| {
        let value = match sample {
            Some(sample) => sample.value(stat),
            None if reported == 0 => None,
            None => Sample::default().value(stat),
        };
        let per_second = match value {
            Some(StatValue::Count(count)) if adds_up => {
                Some(count as f64 / f64::from(steps.step_s))
            }
            _ => None,
        };
        Point {
            time: ms(start_s),
            series: series.id.clone(),
            name: series.name.clone(),
            value,
            per_second,
            coverage: share(reported, expected),
        }
    };
    let of_step = |((place, start_s), looked): ((usize, u32), &(u64, u64))| {
        let samples = series.iter().map(move |(series, samples)| (series, samples.get(&place)));
        let points = samples.map(|(series, sample)| point(start_s, *looked, series, sample));
        points.collect::<Vec<_>>()
    };
    steps.starts().enumerate().zip(looked).flat_map(of_step).collect()
}

/// The series, largest first, and which rows are of which.
fn ranked(request: &SeriesRequest, rows: Vec<TotalRow>) -> (Vec<Series>, Places) {
    if request.split == Split::None {
        return (vec![Series::named("all", "all")], Places::default());
    }
    let mut folded: HashMap<Series, (Sample, Vec<String>)> = HashMap::new();
    for row in rows {
        let (total, keys) = folded.entry(Series::of(request, &row)).or_default();
        total.merge(&Sample::of(row.sums));
        keys.push(row.key);
    }
    let rank = |total: &Sample| total.value(request.graph.stat).map_or(0.0, StatValue::as_f64);
    let mut ranked: Vec<_> =
        folded.into_iter().map(|(series, (total, keys))| (rank(&total), series, keys)).collect();
    ranked.sort_by(|(a, one, _), (b, another, _)| b.total_cmp(a).then(one.id.cmp(&another.id)));
    let mut named = 0;
    let fits = |(_, _, keys): &(f64, Series, Vec<String>)| {
        named += keys.len();
        named <= MAX_KEYS
    };
    let (mut kept, mut places) = (Vec::new(), Places::default());
    for (_, series, keys) in ranked.into_iter().take(request.graph.limit).take_while(fits) {
        places.keys.extend(keys.into_iter().map(|key| (key, places.others)));
        places.others += 1;
        kept.push(series);
    }
    (kept, places)
}

/// The series with their steps; those of all other rows, if there are any, as one.
fn filled(series: Vec<Series>, rows: Vec<SeriesRow>, steps: Steps) -> Vec<(Series, Samples)> {
    let mut filled: Vec<_> = series.into_iter().map(|series| (series, Samples::new())).collect();
    // In order of their places, so that what is left out is last.
    let mut rows = rows;
    rows.sort_unstable_by_key(|row| row.place);
    for row in rows {
        let place = row.place as usize;
        if place >= filled.len() {
            filled.push((Series::named("other", "other"), Samples::new()));
        }
        let last = filled.len() - 1;
        let samples = &mut filled[place.min(last)].1;
        for (start_s, sums) in row.steps {
            if let Some(place) = steps.place(start_s) {
                samples.insert(place, Sample::of(sums));
            }
        }
    }
    filled
}

impl Series {
    fn named(id: &str, name: &str) -> Self {
        Self { id: id.to_owned(), name: name.to_owned() }
    }

    fn of(request: &SeriesRequest, row: &TotalRow) -> Self {
        let face = |end| Face::of(request.group_by(), end);
        let of_node = |face: Face| Self { id: face.id(), name: face.label() };
        match (request.split, request.side) {
            (Split::None, _) => Self::named("all", "all"),
            (Split::Edge, _) => {
                let (source, target) = (face(&row.source), face(&row.target));
                Self {
                    id: format!("{}>{}", source.id(), target.id()),
                    name: format!("{} → {}", source.label(), target.label()),
                }
            }
            (_, SplitSide::Client) => of_node(face(&row.source)),
            (_, SplitSide::Server) => of_node(face(&row.target)),
        }
    }
}
