//! The agent: packets → flows → records → batches → output.
//!
//! ```text
//!  ring or file ─ worker: Packet → FlowTable → FlowRecord ┐
//!  ring ─────── worker: Packet → FlowTable → FlowRecord ┼═► recorder: Reports, Batcher ═► Output
//!        a thread each                                  ┘        a thread              tokio
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use flowtrail_schema::FlowBatch;
use flowtrail_schema::topic::coverage_partition;
use flowtrail_service::admin::ReadinessPart;
use flowtrail_service::metrics::Metrics;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::batcher::Batcher;
use crate::config::{Config, Identity};
use crate::error::CaptureError;
use crate::flow_table::{CUT_DELAY_US, FlowTable, FlowTableConfig, Shared};
use crate::metrics::CaptureMetrics;
use crate::output::{Output, OutputError};
use crate::packet::Parser;
use crate::recorder::{Queue, Recorder, Summary};
use crate::reports::Reports;
use crate::ring::PacketSocket;
use crate::source::{File, Live, owns_socket, wall_clock_us};
use crate::state::{StateDirectory, StateWriter};
use crate::worker::{Progress, Worker};

/// What workers tell that may wait for the recorder, with some thousand records each. The recorder never
/// waits live, so this is for bursts.
const PROGRESS: usize = 4;

/// How often a live worker tells how far it has come: metrics and reports follow it.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// Batches between the recorder and the output: with full ones 11 MB. Enough for what the recorder makes
/// between two progresses; what finds no place waits in the batcher.
const QUEUE_BATCHES: usize = 32;

/// The same of a file, which can wait.
const FILE_QUEUE_BATCHES: usize = 4;

/// After a shutdown is asked for, how long the output may take for what is left.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// Agents send an interval's batches at different times within these two seconds, so that Kafka does
/// not get all nodes' at once.
const SPREAD_MS: u32 = 2_000;

/// One agent: reads packets, writes batches.
pub struct Agent {
    config: Config,
    identity: Identity,
    output: Output,
    metrics: CaptureMetrics,
    sockets: Option<Vec<PacketSocket>>,
}

impl Agent {
    /// An agent that does nothing until it runs.
    ///
    /// # Errors
    /// If it needs the host's name and there is none.
    pub fn new(config: Config, output: Output, metrics: &Metrics) -> Result<Self, CaptureError> {
        let identity = config.identity()?;
        let metrics = CaptureMetrics::register(metrics);
        Ok(Self { config, identity, output, metrics, sockets: None })
    }

    /// Captures with sockets that are open already, see [`crate::privileges::open_and_drop`];
    /// without, it opens them when it runs.
    #[must_use]
    pub fn with_sockets(self, sockets: Option<Vec<PacketSocket>>) -> Self {
        Self { sockets, ..self }
    }

    /// Captures until the file ends or a shutdown is asked for, and publishes all of it.
    ///
    /// # Errors
    /// If packets cannot be had (see [`CaptureError`]) or the output fails. A file that breaks off is
    /// an error too, once all that could be read has been published.
    pub async fn run(
        mut self,
        ready: ReadinessPart,
        shutdown: CancellationToken,
    ) -> Result<Summary, CaptureError> {
        let source = match &self.config.read {
            Some(path) => match File::open(path, &shutdown).await? {
                Some(file) => Source::File(file),
                None => return Ok(Summary::default()),
            },
            None => Source::Live(Live::open(&self.config, self.sockets.take()).await?),
        };
        // A file can wait for its output; packets cannot.
        let known = match source {
            Source::File(_) => match self.output.connect(&shutdown).await? {
                Some(partitions) => Some(partitions),
                None => return Ok(Summary::default()),
            },
            Source::Live(_) => None,
        };
        let queue = match source {
            Source::Live(_) => QUEUE_BATCHES,
            Source::File(_) => FILE_QUEUE_BATCHES,
        };
        let (sender, batches) = mpsc::channel(queue);
        let (tell_partitions, partitions) = oneshot::channel();

        let stop = shutdown.child_token();
        let recorded = self.start(source, sender, partitions, &ready, &stop)?;
        let published = publish(&self.output, known, tell_partitions, batches, &shutdown).await;
        // If the output failed, nothing is read for it any more.
        stop.cancel();
        let recorded = recorded.finished().await;
        ready.set(false);
        match published {
            Err(OutputError::Closed) => debug!("nobody reads the output any more"),
            Err(OutputError::Undelivered { messages, seconds, .. }) => {
                let records = recorded.map_or(0, |recorded| recorded.records_undelivered);
                return Err(OutputError::Undelivered { messages, records, seconds }.into());
            }
            published => published?,
        }
        recorded
    }

    /// Starts the workers and the recorder, each on its thread.
    fn start(
        &self,
        source: Source,
        sender: mpsc::Sender<FlowBatch>,
        partitions: oneshot::Receiver<u32>,
        ready: &ReadinessPart,
        stop: &CancellationToken,
    ) -> Result<Running, CaptureError> {
        let shared = Shared::default();
        let (progress, told) = mpsc::channel(PROGRESS);
        let mut state = None;
        // A live agent's place in the spread; a file has nobody to share Kafka with.
        let (workers, queue, spread_ms) = match source {
            Source::Live(live) => {
                let workers = self.start_live(live, &shared, progress, &mut state, stop)?;
                let spread_ms = coverage_partition(&self.identity.agent, SPREAD_MS);
                (workers, Queue::Passing(sender), spread_ms)
            }
            Source::File(file) => {
                let every = Duration::from_micros(self.config.interval.us());
                let worker = self.worker(0, self.table(1, &shared), every, progress);
                let (shared, stop) = (shared.clone(), stop.clone());
                let worker = spawn("worker", move || file.read(&shared, worker, &stop))?;
                (vec![worker], Queue::Waiting(sender), 0)
            }
        };
        let recorder = Recorder::new(
            workers.len(),
            shared,
            Reports::new(self.config.interval, CUT_DELAY_US + u64::from(spread_ms) * 1_000),
            Batcher::new(self.identity.clone(), wall_clock_us(), self.config.limits),
            partitions,
            queue,
            self.metrics.clone(),
        );
        let recorder = spawn("recorder", move || recorder.run(told))?;
        ready.set(true);
        Ok(Running { workers, recorder, state })
    }

    /// Starts a worker for each socket, with the connections of before the restart.
    fn start_live(
        &self,
        live: Live,
        shared: &Shared,
        progress: mpsc::Sender<Progress>,
        state: &mut Option<Ended<()>>,
        stop: &CancellationToken,
    ) -> Result<Vec<Ended<Result<(), CaptureError>>>, CaptureError> {
        let count = live.workers();
        let table = |_| {
            let mut table = self.table(count, shared);
            if let Some(owns_socket) = owns_socket() {
                table.ask_sockets(owns_socket);
            }
            table
        };
        let mut tables: Vec<_> = (0..count).map(table).collect();
        let mut savers = Vec::new();
        if let Some(path) = &self.config.state_dir {
            let directory = StateDirectory::open(path)?;
            let now = (wall_clock_us(), self.config.interval);
            let worker_of = |ends| live.worker_of(ends);
            directory.restore(&self.identity, shared, &mut tables, worker_of, now);
            let writer;
            (writer, savers) = StateWriter::new(directory, self.identity.clone(), count);
            *state = Some(spawn("state", move || writer.run())?);
        }
        let mut savers = savers.into_iter();
        let mut workers = Vec::new();
        for (number, (reader, table)) in live.start(shared)?.into_iter().zip(tables).enumerate() {
            let mut worker = self.worker(number, table, TELL_EVERY, progress.clone());
            if let Some(saver) = savers.next() {
                worker = worker.save_with(saver);
            }
            let stop = stop.clone();
            let read = move || {
                // One that fails ends all: the agent would be blind in part.
                let failed = stop.clone().drop_guard();
                reader.read(worker, &stop).inspect(|()| drop(failed.disarm()))
            };
            workers.push(spawn("worker", read)?);
        }
        Ok(workers)
    }

    /// The table of one of so many workers.
    fn table(&self, workers: usize, shared: &Shared) -> FlowTable {
        let config = FlowTableConfig {
            interval: self.config.interval,
            idle_timeout: self.config.idle_timeout,
            max_flows: self.config.max_flows.div_ceil(workers),
        };
        FlowTable::new(config, shared.clone())
    }

    fn worker(
        &self,
        number: usize,
        table: FlowTable,
        tell_every: Duration,
        progress: mpsc::Sender<Progress>,
    ) -> Worker {
        let every_us = tell_every.as_micros() as u64;
        let packets = self.metrics.packets.clone();
        let parser = Parser { decapsulate: self.config.decapsulate };
        Worker::new(number, parser, table, self.config.interval, every_us, packets, progress)
    }
}

/// What an agent reads.
enum Source {
    Live(Live),
    File(File),
}

/// The threads of an agent, by what they end with.
struct Running {
    workers: Vec<Ended<Result<(), CaptureError>>>,
    recorder: Ended<Summary>,
    state: Option<Ended<()>>,
}

/// What a thread ends with, when it does.
type Ended<T> = oneshot::Receiver<T>;

impl Running {
    /// Waits until all have ended. What was recorded is in the summary, even if reading failed.
    async fn finished(self) -> Result<Summary, CaptureError> {
        let mut read = Ok(());
        for worker in self.workers {
            read = read.and(worker.await.unwrap_or(Err(CaptureError::Stopped)));
        }
        let recorded = self.recorder.await.map_err(|_| CaptureError::Stopped)?;
        if let Some(state) = self.state {
            state.await.map_err(|_| CaptureError::Stopped)?;
        }
        if let Err(CaptureError::BrokenFile { summary, .. }) = &mut read {
            **summary = recorded.clone();
        }
        read?;
        let Summary { packets, skipped, dropped, records, records_dropped, .. } = &recorded;
        info!(packets, ?skipped, dropped, records, records_dropped, "capture ended");
        Ok(recorded)
    }
}

/// Starts a thread. Its result comes when it ends.
fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<Ended<T>, CaptureError> {
    let (sender, result) = oneshot::channel();
    thread::Builder::new()
        .name(name.to_owned())
        // The agent may have been dropped meanwhile.
        .spawn(move || drop(sender.send(run())))
        .map_err(|source| CaptureError::Thread { source })?;
    Ok(result)
}

/// Publishes until the reading threads are done and everything has arrived; after a shutdown, for a
/// bounded time. Tells the number of partitions as soon as it is known.
async fn publish(
    output: &Output,
    known: Option<u32>,
    tell_partitions: oneshot::Sender<u32>,
    mut batches: mpsc::Receiver<FlowBatch>,
    shutdown: &CancellationToken,
) -> Result<(), OutputError> {
    // The batch that the output is taking.
    let in_hand = AtomicU64::new(0);
    let all = async {
        let partitions = match known {
            Some(partitions) => Some(partitions),
            // The bound on what is left after a shutdown is below.
            None => output.connect(&CancellationToken::new()).await?,
        };
        if let Some(partitions) = partitions {
            // The recorder may have ended.
            let _ = tell_partitions.send(partitions);
        }
        while let Some(batch) = batches.recv().await {
            in_hand.store(1, Ordering::Relaxed);
            output.publish(batch).await?;
            in_hand.store(0, Ordering::Relaxed);
        }
        output.flush().await
    };
    let expired = async {
        shutdown.cancelled().await;
        sleep(FLUSH_TIMEOUT).await;
    };
    tokio::select! {
        published = all => return published,
        () = expired => {}
    }
    let messages = output.in_flight() + in_hand.into_inner() + batches.len() as u64;
    // What waits behind them is the recorder's to say.
    Err(OutputError::Undelivered { messages, records: 0, seconds: FLUSH_TIMEOUT.as_secs() })
}
