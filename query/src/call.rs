//! The call being answered: whether its caller takes an answer that is there already, and what its time goes
//! to. That is told as `Server-Timing` (W3C), which browsers' developer tools show and `make bench-query`
//! measures.
//!
//! What counts as ClickHouse's are the times in which an answer, or more of one, was waited for and had not come:
//! from when the service had nothing left to read until it looked again, being woken. What is on its way meanwhile
//! (the rest of the rows that ClickHouse is still writing) is ClickHouse's. Asking, and reading what has come, are
//! the service's.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::pin::pin;
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
    /// Waits for ClickHouse at this moment, and since when there has been one.
    waits: u32,
    since: Option<Instant>,
    /// In which there was at least one.
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

/// What comes from ClickHouse. The time that it is waited for, and no other, is noted as ClickHouse's.
pub(crate) async fn clickhouse<F: Future>(answer: F) -> F::Output {
    let mut answer = pin!(answer);
    let mut wait = None;
    poll_fn(|context| {
        wait = None;
        let polled = answer.as_mut().poll(context);
        if polled.is_pending() {
            wait = Some(Wait::begin());
        }
        polled
    })
    .await
}

/// A wait for ClickHouse, until dropped.
struct Wait(Option<Arc<Call>>);

impl Wait {
    fn begin() -> Self {
        let call = CALL.try_with(Arc::clone).ok();
        if let Some(call) = &call {
            let mut times = call.times();
            times.waits += 1;
            times.since.get_or_insert_with(Instant::now);
        }
        Self(call)
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let Some(call) = &self.0 else { return };
        let mut times = call.times();
        times.waits -= 1;
        if times.waits == 0
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
    async fn waits_at_once_are_counted_once_and_work_is_not() {
        let call = Arc::new(Call::default());
        let statement = async |ms| {
            clickhouse(async {
                std::thread::sleep(Duration::from_millis(40));
                sleep(Duration::from_millis(ms)).await;
            })
            .await;
        };
        call.answer(statement(0)).await;
        assert!(call.times().clickhouse < Duration::from_millis(20), "work is the service's");
        let call = Arc::new(Call::default());
        call.answer(async {
            tokio::join!(clickhouse(sleep(Duration::from_millis(20))), async {
                clickhouse(sleep(Duration::from_millis(30))).await;
            })
        })
        .await;
        let took = call.times().clickhouse;
        assert!((30..50).contains(&took.as_millis()), "{took:?}");
        call.answer(async { queued(Duration::from_millis(7)) }).await;
        call.answer(async { origin(Origin::Shared) }).await;
        let header = call.header(Duration::from_millis(64));
        assert!(header.starts_with("total;dur=64.0, clickhouse;dur=3"), "{header}");
        assert!(header.ends_with(", queue;dur=7.0, shared"), "{header}");
        // Elsewhere nothing is noted.
        clickhouse(tokio::task::yield_now()).await;
    }
}
