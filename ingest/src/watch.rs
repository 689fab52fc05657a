//! Names from the live cluster: a list and watch of each kind through the Kubernetes API.
//!
//! `kube` appears only here and, as a trait of the object types, in `objects`. Its watcher relists
//! after 410 Gone and reconnects with backoff; a relist tells what vanished in between.

use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::names::{KindLabel, Names, now_us};
use crate::objects::{EndpointSlice, Job, Kind, Node, Object, Pod, ReplicaSet, Service};

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

/// Starts watching all kinds, until the token is cancelled.
pub fn start(client: &Client, names: &Names, shutdown: &CancellationToken) -> FirstLists {
    let mut kinds = Vec::new();
    let mut begin = |kind: Kind| {
        let (listed, first) = oneshot::channel();
        kinds.push((kind, first));
        Watch {
            kind,
            names: names.clone(),
            listed: Some(listed),
            relisted: Vec::new(),
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
    shutdown: CancellationToken,
}

impl Watch {
    async fn run<K>(mut self, client: Client)
    where
        K: Resource<DynamicType = ()> + Into<Object> + Clone + Debug,
        K: DeserializeOwned + Send + 'static,
    {
        let api: Api<K> = Api::all(client);
        let mut events = Box::pin(watcher(api, Config::default()).default_backoff());
        let shutdown = self.shutdown.clone();
        while let Some(Some(event)) = shutdown.run_until_cancelled(events.next()).await {
            match event {
                Ok(event) => self.take_in(event),
                Err(error) => {
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

    fn take_in<K: Into<Object>>(&mut self, event: Event<K>) {
        let now_us = now_us();
        match event {
            Event::Init => self.relisted.clear(),
            Event::InitApply(object) => self.relisted.push(object.into()),
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
                let object = object.into();
                self.names.update(|index| index.apply(&object, now_us));
            }
            Event::Delete(object) => {
                let object = object.into();
                self.names.update(|index| index.delete(&object, now_us));
            }
        }
    }

    fn label(&self) -> KindLabel {
        self.kind.into()
    }
}
