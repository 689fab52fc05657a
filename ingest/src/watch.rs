//! Names from the live cluster: a list and watch of each kind through the Kubernetes API.
//!
//! `kube` appears only here and, as a trait of the object types, in `objects`. Its watcher relists
//! after 410 Gone and reconnects with backoff; a relist tells what vanished in between.

use std::fmt::Debug;
use std::time::Duration;

use flowtrail_service::telemetry::Seldom;
use futures::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, Resource};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::names::{KindLabel, Names, now_us};
use crate::objects::{
    Decoded, EndpointSlice, Job, Kind, Named, Node, Object, Pod, ReplicaSet, Service, Unreadable,
};

/// How often a watch that is in order says that it has heard of no change.
const SEEN: Duration = Duration::from_secs(5);

/// How long after its last failure a watch is in order again, though it has said nothing since: longer than
/// kube's watcher pauses (30 s) and tries to connect (30 s) before it would have failed anew.
const RECOVERED: Duration = Duration::from_secs(120);

/// The first lists of all kinds, on their way.
#[derive(Debug)]
pub struct FirstLists {
    kinds: Vec<(Kind, oneshot::Receiver<()>)>,
}

impl FirstLists {
    /// Waits until every kind was listed once, but no longer than a while: names that come later
    /// still help later records. Returns the kinds that are missing.
    pub async fn wait(self, at_most: Duration) -> Vec<&'static str> {
        let deadline = tokio::time::Instant::now() + at_most;
        let mut missing = Vec::new();
        for (kind, listed) in self.kinds {
            if !matches!(tokio::time::timeout_at(deadline, listed).await, Ok(Ok(()))) {
                missing.push(kind.as_str());
            }
        }
        missing
    }
}

/// Makes a client that tells of a server that is away: by itself kube's retries in silence for minutes, in
/// which a watch seems to be in order. The watch retries, too.
pub fn prepare(config: &mut kube::Config) {
    config.default_retry = false;
}

/// Starts watching all kinds, until the token is cancelled.
pub fn start(client: &Client, names: &Names, shutdown: &CancellationToken) -> FirstLists {
    names.come_live();
    let mut kinds = Vec::new();
    let mut begin = |kind: Kind| {
        let (listed, first) = oneshot::channel();
        kinds.push((kind, first));
        Watch {
            kind,
            names: names.clone(),
            listed: Some(listed),
            relisted: Vec::new(),
            listing: true,
            failed: None,
            undecodable_log: Seldom::default(),
            shutdown: shutdown.clone(),
        }
    };
    tokio::spawn(begin(Kind::Pod).run::<Pod>(client.clone()));
    tokio::spawn(begin(Kind::Service).run::<Service>(client.clone()));
    tokio::spawn(begin(Kind::Node).run::<Node>(client.clone()));
    tokio::spawn(begin(Kind::EndpointSlice).run::<EndpointSlice>(client.clone()));
    tokio::spawn(begin(Kind::ReplicaSet).run::<ReplicaSet>(client.clone()));
    tokio::spawn(begin(Kind::Job).run::<Job>(client.clone()));
    FirstLists { kinds }
}

/// The watch of one kind.
struct Watch {
    kind: Kind,
    names: Names,
    listed: Option<oneshot::Sender<()>>,
    /// A list that is not complete yet.
    relisted: Vec<Object>,
    listing: bool,
    /// When it last failed, if nothing has come since.
    failed: Option<Instant>,
    undecodable_log: Seldom,
    shutdown: CancellationToken,
}

impl Watch {
    async fn run<K>(mut self, client: Client)
    where
        K: Resource<DynamicType = ()> + Named + Clone + Debug + Send + 'static,
        Decoded<K>: Resource<DynamicType = (), Scope = K::Scope>,
    {
        let api: Api<Decoded<K>> = Api::all(client);
        // Lists come in pages of 500 objects.
        let mut events = Box::pin(watcher(api, Config::default()).default_backoff());
        let mut seen = interval(SEEN);
        seen.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shutdown = self.shutdown.clone();
        loop {
            let event = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                event = events.next() => event,
                _ = seen.tick() => {
                    if self.in_order() {
                        self.names.update(|index| index.seen(self.kind, now_us()));
                    }
                    continue;
                }
            };
            match event {
                Some(Ok(event)) => self.take_in(event),
                None => break,
                Some(Err(error)) => {
                    self.failed = Some(Instant::now());
                    self.names.metrics.watch_failures.get_or_create(&self.label()).inc();
                    // The backoff limits the rate of this.
                    warn!(
                        kind = self.kind.as_str(), %error,
                        "kubernetes watch failed, retrying; names may be missing \
                         (its role needs list and watch on this kind)"
                    );
                }
            }
        }
    }

    fn take_in<K: Named>(&mut self, event: Event<Decoded<K>>) {
        let now_us = now_us();
        self.listing = matches!(event, Event::Init | Event::InitApply(_));
        self.failed = None;
        match event {
            Event::Init => self.relisted.clear(),
            Event::InitApply(object) => {
                let object = self.readable(object);
                self.relisted.push(object);
            }
            Event::InitDone => {
                let objects = std::mem::take(&mut self.relisted);
                info!(
                    kind = self.kind.as_str(),
                    objects = objects.len(),
                    "kubernetes objects listed"
                );
                self.names.metrics.watch_lists.get_or_create(&self.label()).inc();
                self.names.update(|index| {
                    index.replace(self.kind, &objects, now_us);
                });
                if let Some(listed) = self.listed.take() {
                    // Nobody may be waiting any more.
                    let _ = listed.send(());
                }
            }
            Event::Apply(object) => {
                let object = self.readable(object);
                self.names.update(|index| index.apply(&object, now_us));
            }
            Event::Delete(object) => {
                let object = self.readable(object);
                self.names.update(|index| index.delete(&object, now_us));
            }
        }
    }

    /// Whether a change would be heard of at once. A connection that dies in silence shows only when kube's
    /// watcher gives it up, five minutes later at most.
    fn in_order(&self) -> bool {
        !self.listing && self.failed.is_none_or(|failed| failed.elapsed() >= RECOVERED)
    }

    /// The object, and a word about it if it cannot be decoded: it is passed on all the same.
    fn readable<K: Named>(&self, object: Decoded<K>) -> Object {
        let object = object.into();
        if let Object::Unreadable(Unreadable { metadata, error, .. }) = &object {
            self.names.metrics.undecodable.inc();
            if self.undecodable_log.is_due() {
                let (kind, namespace, name) =
                    (self.kind.as_str(), &metadata.namespace, &metadata.name);
                warn!(
                    kind,
                    namespace,
                    name,
                    error,
                    "kubernetes object skipped, it is not as its kind has it"
                );
            }
        }
        object
    }

    fn label(&self) -> KindLabel {
        self.kind.into()
    }
}

#[cfg(test)]
mod tests {
    use flowtrail_service::metrics::Metrics;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_watch_is_in_order_once_listed_and_again_some_time_after_a_failure() {
        let mut watch = Watch {
            kind: Kind::Pod,
            names: Names::new(&Metrics::new()),
            listed: None,
            relisted: Vec::new(),
            listing: true,
            failed: None,
            undecodable_log: Seldom::default(),
            shutdown: CancellationToken::new(),
        };
        assert!(!watch.in_order());
        watch.take_in::<Pod>(Event::InitDone);
        assert!(watch.in_order());
        watch.failed = Some(Instant::now());
        assert!(!watch.in_order());
        tokio::time::advance(RECOVERED).await;
        assert!(watch.in_order(), "it would have failed again");
        watch.failed = Some(Instant::now());
        watch.take_in::<Pod>(Event::Init);
        tokio::time::advance(RECOVERED).await;
        assert!(!watch.in_order(), "it lists anew");
    }
}
