//! The agent: packets → flows → records → batches → output.
//!
//! ```text
//!  Source (ring or file)      its own thread          tokio
//!    └ Packet → FlowTable → FlowRecord → Batcher ══ queue ══ Output (Kafka, json, …)
//! ```

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
use crate::flow_table::{CUT_DELAY_US, FlowTable, FlowTableConfig};
use crate::metrics::CaptureMetrics;
use crate::output::{Output, OutputError};
use crate::recorder::{Queue, Recorder, Summary};
use crate::reports::Reports;
use crate::ring::PacketSocket;
use crate::source::{File, Live, Source, wall_clock_us};

/// Batches between the capture thread and the output: with full ones about 40 MB. At least two
/// intervals' worth of small ones fit, however many partitions there are.
const QUEUE_BATCHES: usize = 128;

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
        let Some(partitions) = self.output.connect(&shutdown).await? else {
            return Ok(Summary::default());
        };
        let (sender, batches) = mpsc::channel(QUEUE_BATCHES.max(2 * partitions as usize));
        let recorder = self.recorder(&source, sender, partitions);

        let stop = shutdown.child_token();
        let read = spawn(source, recorder, ready.clone(), stop.clone())?;
        let published = publish(&self.output, batches, &shutdown).await;
        // If the output failed, nothing is read for it any more.
        stop.cancel();
        let read = read.await.map_err(|_| CaptureError::Stopped)?;
        ready.set(false);
        match published {
            Err(OutputError::Closed) => debug!("nobody reads the output any more"),
            published => published?,
        }
        read
    }

    fn recorder(
        &self,
        source: &Source,
        sender: mpsc::Sender<FlowBatch>,
        partitions: u32,
    ) -> Recorder {
        let interval = self.config.interval;
        let table = FlowTable::new(FlowTableConfig {
            interval,
            idle_timeout: self.config.idle_timeout,
            max_flows: self.config.max_flows,
        });
        // A live agent's place in the spread; a file has nobody to share Kafka with.
        let (queue, spread_ms) = match source {
            Source::Live(_) => {
                (Queue::Dropping(sender), coverage_partition(&self.identity.agent, SPREAD_MS))
            }
            Source::File(_) => (Queue::Waiting(sender), 0),
        };
        Recorder::new(
            table,
            Reports::new(interval, CUT_DELAY_US + u64::from(spread_ms) * 1_000),
            Batcher::new(self.identity.clone(), wall_clock_us(), partitions),
            queue,
            self.metrics.clone(),
        )
    }
}

/// Starts the reading thread. Its result comes when it ends.
fn spawn(
    source: Source,
    recorder: Recorder,
    ready: ReadinessPart,
    stop: CancellationToken,
) -> Result<oneshot::Receiver<Result<Summary, CaptureError>>, CaptureError> {
    let (sender, result) = oneshot::channel();
    std::thread::Builder::new()
        .name("capture".to_owned())
        .spawn(move || {
            let read = source.read(recorder, &ready, &stop);
            if let Ok(summary) = &read {
                let Summary { packets, skipped, dropped, records, records_dropped, .. } = summary;
                info!(packets, ?skipped, dropped, records, records_dropped, "capture ended");
            }
            // The agent may have been dropped meanwhile.
            let _ = sender.send(read);
        })
        .map_err(|source| CaptureError::Thread { source })?;
    Ok(result)
}

/// Publishes until the reading thread is done and everything has arrived; after a shutdown, for a
/// bounded time.
async fn publish(
    output: &Output,
    mut batches: mpsc::Receiver<FlowBatch>,
    shutdown: &CancellationToken,
) -> Result<(), OutputError> {
    let all = async {
        while let Some(batch) = batches.recv().await {
            output.publish(batch).await?;
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
    let messages = output.in_flight() + batches.len() as u64;
    Err(OutputError::Undelivered { messages, seconds: FLUSH_TIMEOUT.as_secs() })
}
