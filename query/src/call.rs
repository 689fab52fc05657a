//! The call being answered: whether its caller takes an answer that is there already, and what its time goes
//! to. That is told as `Server-Timing` (W3C), which browsers' developer tools show and `make bench-query`
//! measures.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::shared::Origin;

tokio::task_local! {
    /// The one that the work at hand is of.
    static CALL: Arc<Call>;
}

/// One call.
#[derive(Debug, Default)]
pub(crate) struct Call {
    anew: bool,
    times: Mutex<Times>,
}

#[derive(Debug, Default)]
struct Times {
    /// Statements under way, and since when there has been one.
    statements: u32,
    since: Option<Instant>,
    /// In which at least one statement had not answered.
    clickhouse: Duration,
    /// Of waiting to be let in.
    queued: Duration,
    origin: Option<Origin>,
}

impl Call {
    /// A call that nothing was done for yet. `anew`: nothing that is kept will do.
    pub(crate) fn new(anew: bool) -> Arc<Self> {
        Arc::new(Self { anew, times: Mutex::default() })
    }

    /// Whatever is done within is of this call.
    pub(crate) async fn answer<T>(self: &Arc<Self>, work: impl Future<Output = T>) -> T {
        CALL.scope(Arc::clone(self), work).await
    }

    /// The header's value, of an answer that took so long.
    pub(crate) fn header(&self, total: Duration) -> String {
        let times = self.times();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let mut header = format!("total;dur={:.1}", ms(total));
        // Writing to a string does not fail.
        let _ = write!(header, ", clickhouse;dur={:.1}", ms(times.clickhouse));
        let _ = write!(header, ", queue;dur={:.1}", ms(times.queued));
        if times.origin == Some(Origin::Shared) {
            header.push_str(", shared");
        }
        header
    }

    fn times(&self) -> std::sync::MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the call at hand is to be answered anew.
pub(crate) fn is_anew() -> bool {
    CALL.try_with(|call| call.anew).unwrap_or_default()
}

/// A statement that has not answered, until dropped.
pub(crate) struct Statement(Option<Arc<Call>>);

impl Statement {
    pub(crate) fn sent() -> Self {
        let call = CALL.try_with(Arc::clone).ok();
        if let Some(call) = &call {
            let mut times = call.times();
            times.statements += 1;
            times.since.get_or_insert_with(Instant::now);
        }
        Self(call)
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        let Some(call) = &self.0 else { return };
        let mut times = call.times();
        times.statements -= 1;
        if times.statements == 0
            && let Some(since) = times.since.take()
        {
            times.clickhouse += since.elapsed();
        }
    }
}

/// Notes how long the request has waited to be let in.
pub(crate) fn queued(waited: Duration) {
    let _ = CALL.try_with(|call| call.times().queued += waited);
}

/// Notes where its answer came from.
pub(crate) fn origin(origin: Origin) {
    let _ = CALL.try_with(|call| call.times().origin = Some(origin));
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn statements_at_once_are_counted_once() {
        let call = Arc::new(Call::default());
        let statement = async |ms| {
            let _statement = Statement::sent();
            sleep(Duration::from_millis(ms)).await;
        };
        call.answer(async { tokio::join!(statement(20), statement(30)) }).await;
        let took = call.times().clickhouse;
        assert!((30..50).contains(&took.as_millis()), "{took:?}");
        call.answer(async { queued(Duration::from_millis(7)) }).await;
        call.answer(async { origin(Origin::Shared) }).await;
        let header = call.header(Duration::from_millis(64));
        assert!(header.starts_with("total;dur=64.0, clickhouse;dur=3"), "{header}");
        assert!(header.ends_with(", queue;dur=7.0, shared"), "{header}");
        // Elsewhere nothing is noted.
        drop(Statement::sent());
    }
}
