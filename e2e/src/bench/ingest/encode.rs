//! Ingest without Kafka and without a table: messages from memory, decoded, named, encoded and sent to a
//! `flows` that throws them away; by a helper on a core of its own.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bytes::{Buf, Bytes};
use flowtrail_ingest::{Config, Ingest, Source};
use flowtrail_schema::topic::Message;
use flowtrail_service::admin::Readiness;
use flowtrail_service::metrics::Metrics;
use flowtrail_service::store::ClickHouseArgs;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::traffic::PARTITIONS;
use crate::bench::measure::{Bench, pin_to};

/// What the helper took for all messages.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Took {
    /// Records.
    pub records: u64,
    /// User and system time, seconds.
    pub cpu_s: f64,
    /// Wall clock, seconds: waiting for the engine included.
    pub wall_s: f64,
}

/// Adds messages to a file for [`Encode`].
///
/// # Errors
/// If it cannot be written.
pub fn write(file: &mut BufWriter<File>, messages: &[Message]) -> Result<()> {
    for Message { partition, payload, records } in messages {
        for number in [*partition, *records, payload.len() as u32] {
            file.write_all(&number.to_be_bytes())?;
        }
        file.write_all(payload)?;
    }
    Ok(())
}

fn read(file: &Path) -> Result<Vec<Message>> {
    let mut bytes = Bytes::from(std::fs::read(file).context("no file of messages")?);
    let mut messages = Vec::new();
    while bytes.has_remaining() {
        let (partition, records) = (bytes.try_get_u32()?, bytes.try_get_u32()?);
        let length = bytes.try_get_u32()? as usize;
        messages.push(Message { partition, payload: bytes.split_to(length), records });
    }
    Ok(messages)
}

/// The helper: ingests a file of messages and prints what that took, as JSON.
#[derive(Clone, Debug, clap::Args)]
pub struct Encode {
    /// Messages.
    #[arg(long)]
    pub messages: PathBuf,
    /// Names.
    #[arg(long)]
    pub names: PathBuf,
    /// The engine.
    #[arg(long)]
    pub clickhouse_url: String,
    /// Its database.
    #[arg(long)]
    pub database: String,
    /// The core to run on.
    #[arg(long)]
    pub core: usize,
}

impl Encode {
    /// Runs it here.
    ///
    /// # Errors
    /// If it fails.
    pub fn run(self) -> Result<()> {
        pin_to(self.core)?;
        let messages = read(&self.messages)?;
        let config = Config { names: Some(self.names), ..Config::default() };
        let store = ClickHouseArgs {
            clickhouse_database: self.database,
            ..ClickHouseArgs::at(self.clickhouse_url)
        };
        let (sender, receiver) = mpsc::channel(messages.len().max(1));
        for message in messages {
            sender.try_send(message)?;
        }
        drop(sender);
        // Another log each time: what is delivered is not read again.
        let topic_id = format!("bench-{}", std::process::id());
        let source = Source::Channel { receiver, topic_id, partitions: PARTITIONS };
        let ingest = Ingest::new(config, source, store, &Metrics::new())?;
        let ready = Readiness::default().part("ingest");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (used, begun) = (used_s()?, Instant::now());
        let summary = runtime.block_on(ingest.run(ready, CancellationToken::new()))?;
        let took = Took {
            records: summary.records,
            cpu_s: used_s()? - used,
            wall_s: begun.elapsed().as_secs_f64(),
        };
        println!("{}", serde_json::to_string(&took)?);
        Ok(())
    }

    /// Runs it in a process of its own.
    ///
    /// # Errors
    /// If that fails.
    pub fn measure(&self, bench: &Bench) -> Result<Took> {
        let output = Command::new(&bench.myself)
            .arg("encode")
            .args(["--clickhouse-url", &self.clickhouse_url, "--database", &self.database])
            .args(["--core", &self.core.to_string()])
            .arg("--messages")
            .arg(&self.messages)
            .arg("--names")
            .arg(&self.names)
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "the helper ended with {}", output.status);
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

/// User and system time of this process so far, seconds.
fn used_s() -> Result<f64> {
    let used = getrusage(UsageWho::RUSAGE_SELF)?;
    let us = used.user_time().num_microseconds() + used.system_time().num_microseconds();
    Ok(us as f64 / 1e6)
}
