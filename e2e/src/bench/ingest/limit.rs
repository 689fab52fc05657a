//! The limit: how fast the engine alone takes the same rows, from a file of Native blocks. Nothing can
//! be in the table sooner.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use clickhouse::{Client, Compression};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::store::Engine;

/// Read and sent at once.
const PIECE_BYTES: usize = 1 << 20;

/// Writes the rows that a run brought into `flows`, in about the order in which they came, as blocks
/// of the size that ingest makes. Returns the file's size in bytes.
///
/// # Errors
/// If the engine refuses, or the file cannot be written.
pub fn write(engine: &Engine, client: &Client, file: &Path, block_rows: u64) -> Result<u64> {
    let query = "SELECT * FROM flows ORDER BY partition, chunk_start, agent, connection_id \
         SETTINGS max_block_size = ?, max_threads = 1";
    engine.block_on(async {
        let mut bytes = client.query(query).bind(block_rows).fetch_bytes("Native")?;
        let mut out = tokio::fs::File::create(file).await?;
        let mut size = 0;
        while let Some(piece) = bytes.next().await? {
            size += piece.len() as u64;
            out.write_all(&piece).await?;
        }
        out.flush().await?;
        Ok(size)
    })
}

/// Inserts the file. Returns the time from the first byte sent to all rows there.
///
/// # Errors
/// If the engine refuses, or the file cannot be read.
pub fn insert(engine: &Engine, client: &Client, file: &Path) -> Result<Duration> {
    // As it lies there: packing and unpacking it would be no work of the engine's own.
    let client = client.clone().with_compression(Compression::None);
    engine.block_on(async {
        let mut source = tokio::fs::File::open(file).await.context("no file of rows")?;
        let begun = Instant::now();
        let mut insert = client
            .insert_formatted_with("INSERT INTO flows FORMAT Native")
            .with_setting("optimize_on_insert", "0");
        loop {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            (&mut source).take(PIECE_BYTES as u64).read_to_end(&mut piece).await?;
            if piece.is_empty() {
                break;
            }
            insert.send(Bytes::from(piece)).await?;
        }
        insert.end().await?;
        Ok(begun.elapsed())
    })
}
