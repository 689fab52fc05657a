//! Names from a container engine: what runs, listed and then followed by events of the Docker Engine API.
//!
//! ```text
//! engine ── containers, networks, events ──► inventory ── pods, nodes ──► identity
//!  (requests, none of which        (pure: what runs where, since when)
//!   changes anything)
//! ```
//!
//! A container's place in a network is to the index what a pod is: it owns its addresses from when it is made
//! until it is gone, and never comes back. `bollard` appears only in here.

mod address;
mod container;
mod engine;
mod inventory;

use std::convert::Infallible;
use std::time::Duration;

use flowtrail_service::telemetry::Seldom;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

pub use address::{DEFAULT_SOCKET, EngineAddress, EngineAddressError};
pub use container::NO_PROJECT;
use container::{Bridge, Event, What, is_id};
use engine::{Engine, EngineError, Inspected};
use inventory::{Inventory, Listed, MAX_BRIDGES, MAX_CONTAINERS};

use crate::names::{Names, now_us};

/// How often an engine that tells of no event says so to the index.
const SEEN: Duration = Duration::from_secs(5);

/// How often all is listed anew, though events are followed: what they did not tell, and a connection that died
/// in silence, show by then.
const RELIST_EVERY: Duration = Duration::from_secs(300);

/// Events from before the list that are told all the same: the list and the events are two requests, and
/// nothing may fall between them.
const OVERLAP_SECONDS: u64 = 10;

/// Events that wait to be taken in, at most. Then the engine waits, which keeps some more and drops them after
/// a while: the next list shows what they told.
const WAITING_EVENTS: usize = 1_024;

/// Containers of a list that are asked after at once.
const INSPECTED_AT_ONCE: usize = 8;

/// Pause after the first failure. It doubles with each, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Pauses are short again after an engine was followed this long.
const RECOVERED: Duration = Duration::from_secs(60);

/// Starts following an engine, until the token is cancelled. What is returned comes with the first list.
pub fn start(
    address: &EngineAddress,
    names: &Names,
    shutdown: &CancellationToken,
) -> oneshot::Receiver<()> {
    names.come_live();
    let (listed, first) = oneshot::channel();
    let containers = Containers {
        address: address.clone(),
        names: names.clone(),
        inventory: Inventory::default(),
        listed: Some(listed),
        unreadable_log: Seldom::default(),
    };
    tokio::spawn(containers.run(shutdown.clone()));
    first
}

/// What follows one engine.
struct Containers {
    address: EngineAddress,
    names: Names,
    inventory: Inventory,
    listed: Option<oneshot::Sender<()>>,
    unreadable_log: Seldom,
}

impl Containers {
    async fn run(mut self, shutdown: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        loop {
            let begun = Instant::now();
            let Some(Err(error)) = shutdown.run_until_cancelled(self.follow()).await else {
                return;
            };
            self.names.metrics.container_failures.inc();
            if begun.elapsed() >= RECOVERED {
                pause = FIRST_PAUSE;
            }
            // The pause limits the rate of this.
            warn!(
                address = %self.address, %error, pause_ms = pause.as_millis(),
                "containers not followed, retrying; names may be missing (is the engine running, and does \
                 whatever is before it let GET /version, /info, /events, /networks and /containers through?)"
            );
            if shutdown.run_until_cancelled(sleep(pause)).await.is_none() {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Lists all and takes in events, until that fails.
    async fn follow(&mut self) -> Result<Infallible, EngineError> {
        let engine = Engine::connect(&self.address).await?;
        let since_s = (now_us() / 1_000_000).saturating_sub(OVERLAP_SECONDS);
        let (sender, mut events) = mpsc::channel(WAITING_EVENTS);
        let passing = tokio::spawn(engine.clone().pass_events(since_s, sender));
        let _passing = AbortOnDropHandle::new(passing);
        self.list(&engine).await?;
        let mut relist = interval_at(Instant::now() + RELIST_EVERY, RELIST_EVERY);
        let mut seen = interval(SEEN);
        seen.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // Events may come faster than containers are inspected, and must not keep the list from coming.
                biased;
                _ = relist.tick() => self.list(&engine).await?,
                event = events.recv() => match event {
                    Some(event) => self.take_in(&engine, event?).await?,
                    None => return Err(EngineError::Ended),
                },
                _ = seen.tick() => {
                    let Self { names, inventory, .. } = self;
                    names.update(|index| inventory.seen(now_us(), index));
                }
            }
        }
    }

    /// Takes in all that runs.
    async fn list(&mut self, engine: &Engine) -> Result<(), EngineError> {
        let host = engine.host().await?;
        let bridges = self.bridges(engine).await?;
        let mut ids = engine.containers().await?;
        ids.retain(|id| is_id(id));
        let refused = ids.len().saturating_sub(MAX_CONTAINERS);
        ids.truncate(MAX_CONTAINERS);
        let inspected: Vec<(String, Inspected)> = stream::iter(ids)
            .map(|id| async move { engine.inspect(&id).await.map(|inspected| (id, inspected)) })
            .buffered(INSPECTED_AT_ONCE)
            .try_collect()
            .await?;
        let now_us = now_us();
        let listed: Vec<Listed> = inspected
            .into_iter()
            .map(|(id, inspected)| match inspected {
                Inspected::Container(container) => Listed::Container(container),
                Inspected::Gone => Listed::Id(id),
                Inspected::Unreadable(problem) => {
                    self.skip(&id, &problem);
                    Listed::Id(id)
                }
            })
            .collect();
        info!(address = %self.address, host, containers = listed.len(), refused, "containers listed");
        let metrics = &self.names.metrics;
        metrics.container_lists.inc();
        metrics.refused.inc_by(refused as u64);
        let Self { names, inventory, .. } = self;
        names.update(|index| inventory.relist((host, bridges), listed, now_us, index));
        if let Some(listed) = self.listed.take() {
            // Nobody may be waiting any more.
            let _ = listed.send(());
        }
        Ok(())
    }

    /// Takes in what an event tells, and what it makes worth asking.
    async fn take_in(&mut self, engine: &Engine, event: Event) -> Result<(), EngineError> {
        debug!(?event, "container event");
        let id = match &event.what {
            What::Networks => {
                let bridges = self.bridges(engine).await?;
                let Self { names, inventory, .. } = self;
                names.update(|index| inventory.bridges(bridges, event.at_us, index));
                return Ok(());
            }
            What::Ended(id) => {
                self.end(id, event.at_us);
                return Ok(());
            }
            What::Changed(id) if !self.inventory.knows(id) => return Ok(()),
            What::Changed(id) | What::Started(id) | What::Connected { container: id, .. } => id,
        };
        match engine.inspect(id).await? {
            Inspected::Container(container) => {
                if !self.inventory.has_room_for(&container.id) {
                    self.names.metrics.refused.inc();
                    return Ok(());
                }
                let Self { names, inventory, .. } = self;
                names.update(|index| inventory.inspected(*container, &event, index));
            }
            Inspected::Gone => {
                if matches!(event.what, What::Started(_)) && !self.inventory.knows(id) {
                    self.names.metrics.containers_missed.inc();
                }
                // It ended after this event, which says so itself.
            }
            Inspected::Unreadable(problem) => self.skip(id, &problem),
        }
        Ok(())
    }

    fn end(&mut self, id: &str, at_us: u64) {
        let Self { names, inventory, .. } = self;
        if inventory.knows(id) {
            names.update(|index| inventory.ended(id, at_us, index));
        }
    }

    async fn bridges(&self, engine: &Engine) -> Result<Vec<Bridge>, EngineError> {
        let (bridges, problems) = engine.bridges().await?;
        problems.iter().for_each(|problem| self.skip("network", problem));
        let refused = bridges.len().saturating_sub(MAX_BRIDGES);
        self.names.metrics.refused.inc_by(refused as u64);
        Ok(bridges)
    }

    /// Counts something that cannot be read. What was known of it stays.
    fn skip(&self, id: &str, problem: &str) {
        self.names.metrics.undecodable.inc();
        if self.unreadable_log.is_due() {
            warn!(id, problem, "container skipped, it is not as the engine's api has it");
        }
    }
}
