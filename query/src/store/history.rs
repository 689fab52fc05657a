//! Questions about what there was when: agents' reports, stats in steps, first times.

use tracing::warn;

use super::{Store, StoreError, rows, whole_hours};
use crate::answer::Coverage;
use crate::call::clickhouse;
use crate::filter::Filter;
use crate::params::{GroupBy, SeriesRequest};
use crate::planner::{Plan, Tier};
use crate::reports::{MAX_BLIND_SPOTS, Reports};
use crate::scope::Scope;
use crate::shared::{Computed, MOMENT};
use crate::sql::{
    self, AgentStepRow, BlindRow, Detail, FirstSeenRow, Places, ReportSource, SeriesRow, StepRow,
    TotalRow,
};
use crate::window::{Bounds, Steps};

impl Store {
    /// The agents' coverage of a window with its blind spots, and until when all live agents have reported,
    /// seconds since the epoch.
    pub(crate) async fn coverage(
        &self,
        scope: &Scope,
        bounds: Bounds,
    ) -> Result<(Coverage, u32), StoreError> {
        let reports = self.reports(scope, bounds).await?;
        let blind = self.blind_spots(scope, bounds, &reports).await?;
        let complete_until_s = reports.complete_until_s;
        Ok((reports.with_blind_spots(blind), complete_until_s))
    }

    /// When agents that reported on a window were blind. Nothing is asked where their counts say that they
    /// were not; `None` is too many to tell, which does not keep an answer back.
    pub(crate) async fn blind_spots(
        &self,
        scope: &Scope,
        bounds: Bounds,
        reports: &Reports,
    ) -> Result<Option<Vec<BlindRow>>, StoreError> {
        if reports.is_whole {
            return Ok(Some(Vec::new()));
        }
        // Later nothing is missing yet.
        let due_s = reports.complete_until_s;
        let (first_hour, end_hour) = whole_hours(bounds);
        let query = self.tables.ask(scope, sql::BLIND_SPOTS);
        let query = query.param("from", bounds.from_s).param("due", due_s);
        let query = query.param("fringe_end", first_hour.min(due_s));
        let query = query.param("fringe_start", end_hour);
        let query = query.param("first_hour", first_hour).param("end_hour", end_hour);
        let query = query.param("interval", bounds.interval_s);
        // One more tells that there are more.
        let query = query.param("listed", MAX_BLIND_SPOTS as u32 + 1);
        let blind_spots = async {
            let value = match rows::<BlindRow>(query).await {
                Err(StoreError::TooLarge(error) | StoreError::ReadsTooMuch(error)) => {
                    warn!(%error, "too many blind spots to list");
                    None
                }
                answer => Some(answer?),
            };
            let bytes = value.iter().flatten().map(BlindRow::bytes).sum();
            Ok(Computed { value, keep: MOMENT, bytes })
        };
        Ok(self.blind_spots.get(&(bounds, due_s, scope.clone()), blind_spots).await?.0)
    }

    /// Since when there are reports, and reports by the hour, seconds since the epoch; 0 without any.
    pub(crate) async fn earliest_reports(&self) -> Result<(u32, u32), StoreError> {
        let query = self.tables.ask_for_all(sql::EARLIEST_REPORTS);
        Ok(clickhouse(query.fetch_one()).await?)
    }

    /// Each agent's reports on each step that it reported on, in order of time.
    pub(crate) async fn agent_steps(
        &self,
        scope: &Scope,
        source: ReportSource,
        steps: Steps,
    ) -> Result<Vec<AgentStepRow>, StoreError> {
        rows(self.tables.ask(scope, &sql::agent_steps(source, steps))).await
    }

    /// How many reports there are on each step with any.
    pub(crate) async fn reported_steps(
        &self,
        source: ReportSource,
        steps: Steps,
    ) -> Result<Vec<StepRow>, StoreError> {
        rows(self.tables.ask_for_all(&sql::reported_steps(source, steps))).await
    }

    /// A stat in the whole window, by what series are told by.
    pub(crate) async fn totals(
        &self,
        request: &SeriesRequest,
        plan: &Plan,
    ) -> Result<Vec<TotalRow>, StoreError> {
        let filter = &request.graph.filter;
        let query = self.tables.ask(&filter.scope, &sql::totals(request, plan));
        rows(filter.bind(query)).await
    }

    /// A stat in steps, of rows of one table.
    pub(crate) async fn series(
        &self,
        request: &SeriesRequest,
        tier: Tier,
        steps: Steps,
        places: &Places,
    ) -> Result<Vec<SeriesRow>, StoreError> {
        let filter = &request.graph.filter;
        let query = self.tables.ask(&filter.scope, &sql::series(request, tier, steps, places));
        rows(filter.bind(query)).await
    }

    /// When pairs of ends were first seen in all history before a time, in milliseconds since the epoch;
    /// `None` if these are too many to tell, which does not keep an answer back.
    pub(crate) async fn first_seen(
        &self,
        group_by: GroupBy,
        filter: &Filter,
        to_ms: i64,
    ) -> Result<Option<Vec<FirstSeenRow>>, StoreError> {
        let to_s = u32::try_from(to_ms / 1_000).unwrap_or(u32::MAX);
        let tier = self.held().await?.of_all_history();
        let detail = Detail::of(group_by, filter);
        let statement = sql::first_seen(group_by, tier, detail, &filter.sql(), to_s);
        let query = filter.bind(self.tables.ask(&filter.scope, &statement));
        match rows(query).await {
            Err(StoreError::TooLarge(error) | StoreError::ReadsTooMuch(error)) => {
                warn!(%error, "too many edges to tell when each was first seen");
                Ok(None)
            }
            answer => answer.map(Some),
        }
    }
}
