//! What the engine read, by its own counters.

use std::ops::Sub;

use anyhow::Result;
use clickhouse::{Client, Row};
use serde::Deserialize;

use crate::bench::ingest::store::Engine;

/// Sums since the engine's start (`system.events`), of all that was asked of it; or what lies between
/// two looks.
#[derive(Clone, Copy, Debug, Default, Row, Deserialize)]
pub struct Events {
    /// Rows read from tables, before any condition is looked at (SelectedRows).
    pub rows: u64,
    /// Bytes of these in the columns read, uncompressed (SelectedBytes).
    pub bytes: u64,
    /// Bytes that came from the disk and not from the page cache (OSReadBytes).
    pub disk_bytes: u64,
}

impl Events {
    /// What was read so far.
    ///
    /// # Errors
    /// If the engine does not answer.
    pub fn now(engine: &Engine, client: &Client) -> Result<Self> {
        let query = client.query(
            "SELECT sumIf(value, event = 'SelectedRows') AS rows, \
             sumIf(value, event = 'SelectedBytes') AS bytes, \
             sumIf(value, event = 'OSReadBytes') AS disk_bytes FROM system.events",
        );
        Ok(engine.block_on(query.fetch_one())?)
    }

    /// What something read that is done between two looks. A look reads a little too, which a third one
    /// before them measures.
    ///
    /// # Errors
    /// If the engine does not answer, or what is done fails.
    pub fn of<T>(
        engine: &Engine,
        client: &Client,
        done: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Self)> {
        let look = || Self::now(engine, client);
        let (first, before) = (look()?, look()?);
        let outcome = done()?;
        let read = look()? - before - (before - first);
        Ok((outcome, read))
    }
}

impl Sub for Events {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            rows: self.rows.saturating_sub(other.rows),
            bytes: self.bytes.saturating_sub(other.bytes),
            disk_bytes: self.disk_bytes.saturating_sub(other.disk_bytes),
        }
    }
}
