//! Many people looking at dashboards at once: each asks for its panels all at the same time, and again every
//! half minute, for a window that ends with the instant.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio_util::sync::CancellationToken;

use super::question::{Asker, Span};
use crate::bench::verdict::{Verdict, quantile};

/// Dashboards that are open.
const DASHBOARDS: u64 = 50;
/// How often each asks anew.
const REFRESH: Duration = Duration::from_secs(30);
/// How often each does in a run.
const REFRESHES: u64 = 4;
/// Refreshes of a dashboard that is alone, and how long after each other: as fast as answers come.
const ALONE: u64 = 20;
/// The most that 19 of 20 panels may take, milliseconds.
const GOAL_P95_MS: f64 = 1_000.0;

/// What dashboards are of: the first is the one that most people have open.
const WINDOWS: [Span; 4] = [Span::Hour, Span::SixHours, Span::FiveMinutes, Span::Day];

/// A dashboard: a window, and what it is filtered by.
#[derive(Clone, Debug)]
struct Dashboard {
    span: Span,
    filter: String,
}

impl Dashboard {
    /// Half of them are the same one; the others are of a namespace each, and of all lengths.
    fn numbered(number: u64) -> Self {
        if number.is_multiple_of(2) {
            return Self { span: WINDOWS[0], filter: String::new() };
        }
        let team = ["shop", "pay", "search", "auth", "media"][(number % 5) as usize];
        let filter = format!("&namespace={team}-{:02}", number % 25);
        Self { span: WINDOWS[(number / 2 % 4) as usize], filter }
    }

    /// Its panels, for a window that ends at an instant, milliseconds since the epoch.
    fn panels(&self, to_ms: u64) -> [String; 8] {
        let Self { span, filter } = self;
        let window = format!("from={}&to={to_ms}", to_ms - span.seconds() * 1_000);
        [
            format!("/api/v1/graph/nodes?{window}{filter}"),
            format!("/api/v1/graph/edges?{window}{filter}"),
            format!("/api/v1/graph?group_by=namespace&stat=bytes&{window}{filter}"),
            format!("/api/v1/timeseries?stat=bytes&{window}{filter}"),
            format!("/api/v1/timeseries?stat=connections&split=workload&{window}{filter}"),
            format!("/api/v1/timeseries?stat=failures&split=namespace&{window}{filter}"),
            format!("/api/v1/values/namespaces?{window}"),
            format!("/api/v1/coverage?{window}"),
        ]
    }
}

/// What became of one request.
#[derive(Clone, Copy, Debug)]
struct Panel {
    /// Which of the dashboard's.
    place: usize,
    /// From the request to its last byte, milliseconds.
    ms: f64,
    /// The HTTP status; none if there was no answer.
    status: Option<u16>,
}

/// All of a run.
#[derive(Debug)]
struct Run(Vec<Panel>);

impl Run {
    fn quantile(&self, share: f64) -> f64 {
        let ms: Vec<_> = self.0.iter().map(|panel| panel.ms).collect();
        quantile(&ms, share)
    }

    fn with_status(&self, wanted: impl Fn(Option<u16>) -> bool) -> usize {
        self.0.iter().filter(|panel| wanted(panel.status)).count()
    }

    fn print(&self, what: &str) {
        let busy = self.with_status(|status| status == Some(429));
        let failed = self.with_status(|status| !matches!(status, Some(200 | 429)));
        println!(
            "{what:<16}{:>6} panels: p50 {:.0} ms, p95 {:.0} ms, max {:.0} ms; {busy} times 429, {failed} other failures",
            self.0.len(),
            self.quantile(0.5),
            self.quantile(0.95),
            self.quantile(1.0),
        );
        for (place, path) in Dashboard::numbered(0).panels(1 << 40).iter().enumerate() {
            let of_it = self.0.iter().filter(|panel| panel.place == place).map(|panel| panel.ms);
            let of_it: Vec<_> = of_it.collect();
            let name = path.split("from=").next().unwrap_or_default().trim_end_matches(['?', '&']);
            println!(
                "    {name:<58}p50 {:6.0} ms, p95 {:6.0} ms",
                quantile(&of_it, 0.5),
                quantile(&of_it, 0.95)
            );
        }
    }
}

/// Looks at one dashboard alone and then at all, and prints what that took. `end_s` is the first second after
/// the history: windows end some seconds later, as they do where rows still arrive.
///
/// # Errors
/// If asked to end meanwhile.
pub fn run(asker: &Asker, end_s: u64, shutdown: &CancellationToken) -> Result<Vec<Verdict>> {
    println!("\nDashboards of 8 panels, asked for again every {} s", REFRESH.as_secs());
    let asker = &asker.of_dashboards();
    let started = Instant::now();
    let now_ms = || end_s * 1_000 + u64::try_from(started.elapsed().as_millis()).unwrap_or(0);
    let dashboard = Dashboard::numbered(0);
    let alone: Vec<_> =
        (0..ALONE).flat_map(|_| refresh(asker, &dashboard.panels(now_ms()))).collect();
    let alone = Run(alone);
    alone.print("one alone");
    // What that left is not theirs.
    thread::sleep(Duration::from_secs(3));

    let begun = Instant::now();
    let all = thread::scope(|scope| {
        let look = |number: u64| {
            let dashboard = Dashboard::numbered(number);
            let mut panels = Vec::new();
            for refreshed in 0..REFRESHES {
                // Evenly spread, as people open them when they do.
                let share = refreshed as f64 + number as f64 / DASHBOARDS as f64;
                let due = REFRESH.mul_f64(share);
                thread::sleep(due.saturating_sub(begun.elapsed()));
                if shutdown.is_cancelled() {
                    break;
                }
                panels.extend(refresh(asker, &dashboard.panels(now_ms())));
            }
            panels
        };
        let looking: Vec<_> =
            (0..DASHBOARDS).map(|number| scope.spawn(move || look(number))).collect();
        looking.into_iter().flat_map(|looking| looking.join().unwrap_or_default()).collect()
    });
    if shutdown.is_cancelled() {
        bail!("interrupted");
    }
    let all = Run(all);
    all.print("50 at once");
    let ratio = all.quantile(0.95) / alone.quantile(0.95);
    let failed = all.with_status(|status| status != Some(200));
    let p95 = all.quantile(0.95);
    Ok(vec![Verdict {
        goal: format!("p95 of a panel of {DASHBOARDS} dashboards < {GOAL_P95_MS:.0} ms"),
        figure: format!("{p95:.0} ms, {ratio:.1} × one alone; {failed} of {} failed", all.0.len()),
        met: p95 < GOAL_P95_MS && failed == 0,
    }])
}

/// All panels at once.
fn refresh(asker: &Asker, panels: &[String; 8]) -> Vec<Panel> {
    thread::scope(|scope| {
        let ask = |(place, path): (usize, &String)| {
            let started = Instant::now();
            let answer = asker.ask(path);
            let ms = started.elapsed().as_secs_f64() * 1e3;
            Panel { place, ms, status: answer.ok().map(|answer| answer.status) }
        };
        let asked: Vec<_> =
            panels.iter().enumerate().map(|panel| scope.spawn(move || ask(panel))).collect();
        asked.into_iter().filter_map(|asked| asked.join().ok()).collect()
    })
}
