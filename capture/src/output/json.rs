//! Records as JSON on standard output, one a line.

use std::io::{self, Write, stdout};

use flowtrail_schema::{FlowBatch, FlowRecord};
use serde::Serialize;

use super::OutputError;

#[derive(Serialize)]
struct Line<'a> {
    agent: &'a str,
    node: &'a str,
    #[serde(flatten)]
    record: &'a FlowRecord,
}

/// Prints a batch's records, on a thread that may wait for the pipe's reader.
pub(super) async fn print(batch: FlowBatch) -> Result<(), OutputError> {
    let written = tokio::task::spawn_blocking(move || {
        let mut lines = Vec::new();
        write_lines(&batch, &mut lines)?;
        let mut stdout = stdout().lock();
        stdout.write_all(&lines)?;
        stdout.flush()
    })
    .await
    .unwrap_or_else(|error| Err(io::Error::other(error)));
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => OutputError::Closed,
        _ => OutputError::Write(error),
    })
}

fn write_lines(batch: &FlowBatch, to: &mut Vec<u8>) -> io::Result<()> {
    for record in &batch.records {
        let line = Line { agent: &batch.agent, node: &batch.node, record };
        serde_json::to_writer(&mut *to, &line)?;
        to.push(b'\n');
    }
    Ok(())
}
