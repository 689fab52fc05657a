//! `flowtrail up`: everything in one process on this machine.
//!
//! ```text
//! capture ── channel ── ingest ── embedded ClickHouse ── query
//! ```
//!
//! They end in that order: each finishes what the one before it has handed over.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::Args;
use flowtrail_capture::privileges::{Keep, open_and_drop};
use flowtrail_capture::ring::PacketSocket;
use flowtrail_capture::{Agent, CaptureError, Output, Summary};
use flowtrail_embedded::{Engine, Login};
use flowtrail_ingest::{Ingest, Source};
use flowtrail_query::Query;
use flowtrail_schema::sql::{Form, Retention};
use flowtrail_service::net::listen;
use flowtrail_service::store::{ClickHouseArgs, RetentionArgs};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Started;

/// Batches between capture and ingest. Each is at most about 100 KiB; a slower store makes capture's
/// own bounded queue grow, where it is counted.
const CHANNEL_BATCHES: usize = 64;
/// Partitions of the in-process topic: one ingest reads them all.
const PARTITIONS: u32 = 1;

#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    capture: flowtrail_capture::Config,
    #[command(flatten)]
    ingest: flowtrail_ingest::Config,
    #[command(flatten)]
    engine: flowtrail_embedded::Config,
    #[command(flatten)]
    access: flowtrail_embedded::Access,
    #[command(flatten)]
    query: flowtrail_query::Config,
    #[command(flatten)]
    retention: RetentionArgs,
}

impl Arguments {
    /// Opens the packet sockets, and gives up every privilege but to files: under sudo the engine,
    /// the data and the names are most often in the home of another user.
    pub(crate) fn open_sockets(&self) -> Result<Option<Vec<PacketSocket>>, CaptureError> {
        open_and_drop(&self.capture, Keep::FileAccess)
    }
}

pub(crate) async fn run(
    arguments: Arguments,
    sockets: Option<Vec<PacketSocket>>,
    check: bool,
) -> anyhow::Result<()> {
    let Started { metrics, readiness, shutdown } = Started::new()?;
    let Arguments { mut capture, ingest, engine, access, query, retention } = arguments;
    let retention = retention.retention()?;
    if capture.read.is_some() && retention != Retention::default() {
        bail!("with --read rows are kept for ever: leave --retain-… away");
    }
    if query.query_timeout > access.clickhouse_max_execution_time {
        bail!(
            "--query-timeout is {:?}, above --clickhouse-max-execution-time, {:?}: lower the one or raise the other",
            query.query_timeout,
            access.clickhouse_max_execution_time,
        );
    }
    if query.query_max_memory_mib > access.clickhouse_max_memory_mib {
        bail!(
            "--query-max-memory-mib is {}, above --clickhouse-max-memory-mib, {}: lower the one or raise the other",
            query.query_max_memory_mib,
            access.clickhouse_max_memory_mib,
        );
    }
    if capture.read.is_none() {
        // Beside the rows, which a restart does not lose either.
        let directory = engine.data_folder()?.join("agent");
        capture.state_dir.get_or_insert(directory);
    }
    let file = capture.read.clone();
    let (sender, receiver) = mpsc::channel(CHANNEL_BATCHES);
    let output = Output::Channel { sender, partitions: PARTITIONS };
    let agent = Agent::new(capture, output, &metrics)?.with_sockets(sockets);
    if check {
        let store = ClickHouseArgs::at(format!("http://{}", engine.clickhouse_listen));
        let source = Source::Channel { receiver, topic_id: run_id(), partitions: PARTITIONS };
        Ingest::new(ingest, source, store.clone(), &metrics)?;
        Query::new(query, store, metrics, readiness)?;
        engine.library()?;
        return super::configuration_is_valid();
    }

    let listener = listen(engine.clickhouse_listen, "--clickhouse-listen").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let engine = Engine::open_for(&engine, &access)?;
    let store = store_of(engine.service_login(), &url);
    // What answers people gets no further than people do.
    let read_only = store_of(engine.reader_login(), &url);
    let engine_shutdown = CancellationToken::new();
    let served = flowtrail_embedded::serve(engine, listener, &metrics, engine_shutdown.clone());
    let served = tokio::spawn(served);

    let services = async {
        store.apply(&Form { cluster: None, retention }).await?;
        if file.is_some() {
            // A capture may be older than any retention.
            store.keep_forever().await?;
        }
        let source = Source::Channel { receiver, topic_id: run_id(), partitions: PARTITIONS };
        let ingest = Ingest::new(ingest, source, store.clone(), &metrics)?;
        let (capture_ready, ingest_ready) = (readiness.part("capture"), readiness.part("ingest"));
        let query = Query::new(query, read_only, metrics, readiness)?;
        let listener = query.listen().await?;
        let address = listener.local_addr()?;

        let query_shutdown = CancellationToken::new();
        let query = tokio::spawn(query.run(listener, query_shutdown.clone()));
        // Ingest ends when the agent has: what was captured is inserted before anything stops.
        let done = ingest_ready.clone();
        let ingest = tokio::spawn(ingest.run(ingest_ready, CancellationToken::new()));
        let captured = agent.run(capture_ready.clone(), shutdown.clone()).await;
        ingest.await.context("ingest broke off")??;
        let ended = match file {
            Some(file) => {
                // They are done, which is no reason to wait for them.
                [capture_ready, done].iter().for_each(|part| part.set(true));
                serve_file(captured, &file, address, &shutdown).await
            }
            None => captured.map(|_| ()).map_err(Into::into),
        };
        query_shutdown.cancel();
        query.await.context("query broke off")??;
        ended
    };
    let ended = services.await;
    engine_shutdown.cancel();
    served.await.context("the engine broke off")?;
    ended
}

/// The embedded engine, as one of its users.
pub(super) fn store_of(login: &Login, url: &str) -> ClickHouseArgs {
    ClickHouseArgs {
        clickhouse_user: Some(login.user.to_owned()),
        clickhouse_password: login.password.clone(),
        ..ClickHouseArgs::at(url.to_owned())
    }
}

/// Says what was read, and keeps answering until a shutdown is asked for.
async fn serve_file(
    captured: Result<Summary, CaptureError>,
    file: &Path,
    address: SocketAddr,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let (summary, ended) = match captured {
        Ok(summary) => (summary, Ok(())),
        Err(error) => {
            // A file's readable part is as good as a whole file; the error is said now and at the end.
            let CaptureError::BrokenFile { summary, .. } = &error else { return Err(error.into()) };
            let summary = Summary::clone(summary);
            let error = anyhow::Error::from(error);
            warn!("{error:#}");
            (summary, Err(error))
        }
    };
    say_where(&summary, file, address)?;
    shutdown.cancelled().await;
    ended
}

/// Tells the window that holds all of a file.
fn say_where(summary: &Summary, file: &Path, address: SocketAddr) -> anyhow::Result<()> {
    let Some((first, last)) = summary.first_packet_us.zip(summary.last_packet_us) else {
        warn!(file = %file.display(), "no packets");
        return Ok(());
    };
    // A window's end is not part of it.
    let (from, to) = (first / 1_000, last / 1_000 + 1);
    super::print(&format!(
        "{}: {} packets, {} flow records\nhttp://{address}/api/v1/graph?from={from}&to={to}\n\
         flowtrail graph --url http://{address} --from {from} --to {to}",
        file.display(),
        summary.packets,
        summary.records,
    ))
}

/// Tells this run's messages from those of other runs on the same store.
fn run_id() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("up-{}", now.as_micros())
}
