//! Who may have an answer computed now, and who waits: first come, first served.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::call;
use crate::problem::Problem;

/// Questions that wait at most: fifty dashboards of eight panels that are opened at once, half of which ask the
/// same. Each holds its parameters, 32 KiB at most.
const MAX_WAITING: usize = 200;

/// Longest wait: who looks at a dashboard has looked away by then, and what its answer takes comes on top.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Bounds what answers take here and in ClickHouse. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Admission {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    max_wait: Duration,
}

impl Admission {
    /// So many answers are computed at once; nobody waits longer than an answer may take.
    pub(super) fn new(at_once: u16, timeout: Duration) -> Self {
        Self {
            running: Arc::new(Semaphore::new(at_once.into())),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            max_wait: timeout.min(MAX_WAIT),
        }
    }

    /// Waits for the right to compute an answer, which is given back when dropped.
    ///
    /// # Errors
    /// 429 if too many wait already, or if it takes too long.
    pub(super) async fn enter(&self) -> Result<SemaphorePermit<'_>, Problem> {
        if let Ok(permit) = self.running.try_acquire() {
            return Ok(permit);
        }
        let Ok(_place) = self.waiting.try_acquire() else { return Err(too_many()) };
        let since = Instant::now();
        let permit = timeout(self.max_wait, self.running.acquire()).await;
        call::queued(since.elapsed());
        permit.ok().and_then(Result::ok).ok_or_else(too_many)
    }
}

fn too_many() -> Problem {
    let detail = "more answers are asked for than are computed at once, and those before this one take long; \
                  try again in a moment, or raise --max-concurrent-queries";
    Problem::new(StatusCode::TOO_MANY_REQUESTS, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_let_in_when_another_is_done_and_not_for_ever() {
        let admission = Admission::new(1, Duration::from_secs(60));
        let first = admission.enter().await.unwrap();
        assert_eq!(admission.enter().await.unwrap_err().status, 429);
        let (second, ()) = tokio::join!(admission.enter(), async {
            tokio::task::yield_now().await;
            drop(first);
        });
        assert!(second.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_wait() {
        let admission = Admission::new(0, Duration::from_secs(60));
        let waiting = futures::future::join_all((0..MAX_WAITING).map(|_| admission.enter()));
        let late = async {
            tokio::task::yield_now().await;
            tokio::time::timeout(Duration::ZERO, admission.enter()).await
        };
        let (waited, late) = tokio::join!(waiting, late);
        assert_eq!(late.unwrap().unwrap_err().status, 429);
        assert!(waited.iter().all(Result::is_err));
    }
}
