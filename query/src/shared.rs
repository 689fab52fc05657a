//! Answers that are shared: of equal questions at the same time one is computed, and what came of it is
//! kept for a while, within caps. A dashboard asks for the nodes and the edges of one graph one after the
//! other, and many people look at the same dashboard.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use crate::call::is_anew;

/// Questions whose answers are kept at most, of each kind: some dashboards' panels, and few enough to
/// compare a new one with each of them.
const MAX_ENTRIES: usize = 256;

/// How long an answer is kept that may have another soon. Rows come every interval, of 10 s, so that within so
/// short a time there is hardly one; and the nodes and edges of a panel, asked for one after the other, must be
/// those of one graph.
pub(crate) const MOMENT: Duration = Duration::from_secs(2);

/// What came of computing an answer.
#[derive(Clone, Debug)]
pub(crate) struct Computed<V> {
    pub(crate) value: V,
    /// How long equal questions may have the same.
    pub(crate) keep: Duration,
    /// What it takes in memory, about.
    pub(crate) bytes: usize,
}

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was computed for this question.
    Computed,
    /// It was there, or computed for another question meanwhile.
    Shared,
}

/// Answers by question. Clones share them.
#[derive(Debug)]
pub(crate) struct Shared<K, V, E> {
    entries: Arc<Mutex<Vec<Entry<K, V, E>>>>,
    max_bytes: usize,
}

/// Failures are shared too, but with those alone who wait already.
type Outcome<V, E> = Arc<OnceCell<Result<V, E>>>;

#[derive(Debug)]
struct Entry<K, V, E> {
    key: K,
    outcome: Outcome<V, E>,
    /// None while it is being computed.
    kept: Option<Kept>,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    since: Instant,
    until: Instant,
    bytes: usize,
}

impl<K, V, E> Clone for Shared<K, V, E> {
    fn clone(&self) -> Self {
        Self { entries: Arc::clone(&self.entries), max_bytes: self.max_bytes }
    }
}

impl<K, V, E> Shared<K, V, E>
where
    K: Clone + PartialEq + Send + 'static,
    V: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// Without answers. Those kept take `max_bytes` at most.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { entries: Arc::default(), max_bytes }
    }

    /// The answer to a question: one that is kept or under way, unless the call is to be answered anew, else what
    /// `compute` makes of it. When the one whose question is being computed goes away, the next that waits
    /// computes it.
    ///
    /// # Errors
    /// As `compute`.
    pub(crate) async fn get(
        &self,
        key: &K,
        compute: impl Future<Output = Result<Computed<V>, E>>,
    ) -> Result<(V, Origin), E> {
        let (outcome, gone) = self.place(key, is_anew());
        drop_later(gone);
        let asked = Asked { shared: self, outcome };
        let mut computed = None;
        // In boxes, as questions are parts of others: what waits for one is small, however large that is.
        let compute = Box::pin(compute);
        let compute = Box::pin(async {
            let Computed { value, keep, bytes } = compute.await?;
            computed = Some((keep, bytes));
            Ok(value)
        });
        let value = asked.outcome.get_or_init(|| compute).await.clone()?;
        let Some((keep, bytes)) = computed else { return Ok((value, Origin::Shared)) };
        drop_later(self.keep(&asked.outcome, keep, bytes));
        Ok((value, Origin::Computed))
    }

    /// Where the answer to a question is, or will be; and what is no longer kept.
    fn place(&self, key: &K, anew: bool) -> (Outcome<V, E>, Vec<Outcome<V, E>>) {
        let now = Instant::now();
        let mut entries = self.entries();
        // One that nobody waits for is of two who went at once, each the other's last.
        let is_over = |entry: &mut Entry<K, V, E>| match entry.kept {
            Some(kept) => kept.until <= now,
            None => Arc::strong_count(&entry.outcome) == 1,
        };
        let mut gone: Vec<_> = entries.extract_if(.., is_over).map(|entry| entry.outcome).collect();
        let known = entries.iter().position(|entry| entry.key == *key);
        if let Some(entry) = known.map(|at| &mut entries[at]) {
            if anew {
                // Those that wait for the one before keep waiting for it.
                gone.push(std::mem::take(&mut entry.outcome));
                entry.kept = None;
            }
            return (Arc::clone(&entry.outcome), gone);
        }
        let outcome = Arc::default();
        entries.push(Entry { key: key.clone(), outcome: Arc::clone(&outcome), kept: None });
        (outcome, gone)
    }

    /// Keeps an answer, unless it alone is too large. The oldest make room for it: were it those that go first
    /// otherwise, what is kept long would leave no room for what is kept for a moment. Returns those that went.
    fn keep(&self, outcome: &Outcome<V, E>, keep: Duration, bytes: usize) -> Vec<Outcome<V, E>> {
        let mut entries = self.entries();
        let of_it = |entry: &&mut Entry<K, V, E>| Arc::ptr_eq(&entry.outcome, outcome);
        if bytes > self.max_bytes {
            entries.retain(|entry| !Arc::ptr_eq(&entry.outcome, outcome));
        } else if let Some(entry) = entries.iter_mut().find(of_it) {
            let since = Instant::now();
            entry.kept = Some(Kept { since, until: since + keep, bytes });
        }
        let kept = |entries: &[Entry<K, V, E>]| {
            let bytes = entries.iter().filter_map(|entry| entry.kept.map(|kept| kept.bytes));
            (bytes.clone().count(), bytes.sum::<usize>())
        };
        let mut evicted = Vec::new();
        loop {
            let (count, bytes) = kept(&entries);
            if count <= MAX_ENTRIES && bytes <= self.max_bytes {
                return evicted;
            }
            let since = |at: &usize| entries[*at].kept.map(|kept| kept.since);
            let places = (0..entries.len()).filter(|at| entries[*at].kept.is_some());
            let Some(oldest) = places.min_by_key(since) else { return evicted };
            evicted.push(entries.swap_remove(oldest).outcome);
        }
    }
}

impl<K, V, E> Shared<K, V, E> {
    fn entries(&self) -> std::sync::MutexGuard<'_, Vec<Entry<K, V, E>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A large answer takes milliseconds to take apart: not those of who asks now, nor under the lock.
fn drop_later<T: Send + 'static>(outcomes: Vec<T>) {
    if !outcomes.is_empty() {
        tokio::task::spawn_blocking(|| drop(outcomes));
    }
}

/// Somebody who waits for an answer. The last one who gives up, or is told of a failure, leaves nothing behind.
struct Asked<'a, K, V, E> {
    shared: &'a Shared<K, V, E>,
    outcome: Outcome<V, E>,
}

impl<K, V, E> Drop for Asked<'_, K, V, E> {
    fn drop(&mut self) {
        let mut entries = self.shared.entries();
        entries.retain(|entry| {
            let is_it = Arc::ptr_eq(&entry.outcome, &self.outcome);
            // The entry's and this one are left: clones are made under the lock.
            let is_last = Arc::strong_count(&self.outcome) == 2;
            let has_failed = self.outcome.get().is_some_and(Result::is_err);
            !(is_it && entry.kept.is_none() && (is_last || has_failed))
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use tokio::sync::Notify;
    use tokio::time::sleep;

    use super::*;
    use crate::call::Call;

    type Words = Shared<&'static str, usize, &'static str>;

    const LONG: Duration = Duration::from_secs(60);

    /// Computes how often it has computed.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Counting {
        async fn next(
            &self,
            keep: Duration,
            bytes: usize,
        ) -> Result<Computed<usize>, &'static str> {
            tokio::task::yield_now().await;
            Ok(Computed { value: self.0.fetch_add(1, Ordering::SeqCst) + 1, keep, bytes })
        }
    }

    #[tokio::test]
    async fn equal_questions_at_once_are_computed_once() {
        let (shared, counting) = (Words::new(10), Counting::default());
        let ask = |key| shared.get(key, counting.next(Duration::ZERO, 1));
        let answers = join_all(["a", "b", "a", "a"].iter().map(ask)).await;
        let values: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert_eq!(values.iter().filter(|(_, origin)| *origin == Origin::Computed).count(), 2);
        assert_eq!((values[0].0, values[2].0), (values[3].0, values[3].0));
        // Not kept, so computed again.
        assert_eq!(ask(&"a").await, Ok((3, Origin::Computed)));
    }

    #[tokio::test]
    async fn what_is_kept_is_given_again_unless_it_must_be_new() {
        let (shared, counting) = (Words::new(10), Counting::default());
        let ask =
            async |anew| Call::new(anew).answer(shared.get(&"a", counting.next(LONG, 1))).await;
        assert_eq!(ask(false).await, Ok((1, Origin::Computed)));
        assert_eq!(ask(false).await, Ok((1, Origin::Shared)));
        assert_eq!(ask(true).await, Ok((2, Origin::Computed)));
        assert_eq!(ask(false).await, Ok((2, Origin::Shared)));
    }

    #[tokio::test]
    async fn no_more_is_kept_than_the_caps_allow() {
        let (shared, counting) = (Words::new(10), Counting::default());
        let ask = |key: &'static str, keep, bytes| {
            let (shared, next) = (&shared, counting.next(keep, bytes));
            async move { shared.get(&key, next).await.unwrap() }
        };
        ask("soon gone", LONG, 5).await;
        ask("kept", 2 * LONG, 5).await;
        ask("new", 3 * LONG, 3).await;
        assert_eq!(ask("kept", LONG, 5).await, (2, Origin::Shared));
        assert_eq!(ask("new", LONG, 3).await, (3, Origin::Shared));
        assert_eq!(ask("soon gone", LONG, 1).await.1, Origin::Computed);
        ask("larger than all", 9 * LONG, 11).await;
        assert!(shared.entries().iter().all(|entry| entry.key != "larger than all"));

        let many = Shared::<usize, usize, ()>::new(usize::MAX);
        for key in 0..2 * MAX_ENTRIES {
            let one = async { Ok(Computed { value: key, keep: LONG, bytes: 0 }) };
            many.get(&key, one).await.unwrap();
        }
        assert_eq!(many.entries().len(), MAX_ENTRIES);
    }

    #[tokio::test]
    async fn a_failure_is_told_to_those_who_wait_and_to_nobody_later() {
        let (shared, begun) = (Words::new(10), Notify::new());
        let fails = async {
            begun.notified().await;
            Err("no")
        };
        let counting = Counting::default();
        let (first, second, ()) = tokio::join!(
            shared.get(&"a", fails),
            shared.get(&"a", counting.next(LONG, 1)),
            async { begun.notify_one() },
        );
        assert_eq!((first, second), (Err("no"), Err("no")));
        assert!(shared.entries().is_empty());
        assert_eq!(shared.get(&"a", counting.next(LONG, 1)).await, Ok((1, Origin::Computed)));
    }

    #[tokio::test]
    async fn when_who_computes_goes_away_the_next_one_does() {
        let (shared, counting) = (Words::new(10), Counting::default());
        let forever = async {
            sleep(10 * LONG).await;
            Err("never")
        };
        let mut first = Box::pin(shared.get(&"a", forever));
        let mut second = Box::pin(shared.get(&"a", counting.next(LONG, 1)));
        tokio::select! {
            biased;
            _ = &mut first => panic!("it never ends"),
            _ = &mut second => panic!("it waits for the first"),
            () = tokio::task::yield_now() => {}
        }
        drop(first);
        assert_eq!(second.await, Ok((1, Origin::Computed)));
        // And when all go, nothing is left.
        let forever = async {
            sleep(10 * LONG).await;
            Err("never")
        };
        let gone = tokio::time::timeout(Duration::from_millis(1), shared.get(&"b", forever));
        assert!(gone.await.is_err());
        assert!(shared.entries().iter().all(|entry| entry.key != "b"));
    }
}
