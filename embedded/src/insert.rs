//! Rows in: the body's pieces go through a short queue to the engine's insert stream. While the
//! engine is behind the queue is full and the client waits.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::access::Role;
use crate::engine::Engine;
use crate::exception::Exception;
use crate::http::{Server, Ticket, joined};
use crate::libchdb::Outcome;
use crate::request::{Options, Upload};
use crate::session::Setup;

/// Pieces of a body between the socket and the engine: one in the engine's hands, one to follow.
/// When it is full the socket is not read.
const QUEUE_PIECES: usize = 2;

/// What the engine's side is told.
enum Piece {
    Rows(Bytes),
    /// All rows were sent. A queue that closes without this is a client that went away.
    End,
}

/// An INSERT's statement and where its rows come from.
pub(crate) struct Insert {
    pub(crate) head: String,
    pub(crate) format: String,
    pub(crate) first: Bytes,
    pub(crate) rest: Option<Upload>,
}

pub(crate) async fn run(
    server: &Arc<Server>,
    options: Options,
    insert: Insert,
    ticket: Ticket,
) -> Result<Response, Exception> {
    let Insert { head, format, first, mut rest } = insert;
    let answer = server.head(ticket.query_id(), &format);
    let (pieces, queue) = mpsc::channel(QUEUE_PIECES);
    // A client that sends a little now and then must not keep its place for ever.
    let most = server.engine.users().max_execution_time;
    let deadline = (ticket.role != Role::Service).then(|| options.time_limit(most));
    let engine = Arc::clone(&server.engine);
    let cancelled = server.metrics.cancelled.clone();
    let job = server.jobs.spawn_blocking(move || {
        let ticket = ticket;
        let done = write(&engine, ticket.role, &options, &head, &format, queue)?;
        done.ok_or_else(|| {
            cancelled.inc();
            Exception::new(394, "QUERY_WAS_CANCELLED", "The client went away within its data")
        })
    });
    let fed = match deadline {
        Some(deadline) => timeout(deadline, feed(first, rest.as_mut(), &pieces))
            .await
            .unwrap_or_else(|_| Err(too_long(deadline))),
        None => feed(first, rest.as_mut(), &pieces).await,
    };
    drop(pieces);
    let written = joined(job.await);
    if let Some(rest) = rest
        && (fed.is_err() || written.is_err())
    {
        rest.discard().await;
    }
    // What the engine says of the data comes before what broke off because of it.
    let outcome = match (fed, written) {
        (Err(exception), Ok(_) | Err(Exception { code: 394, .. })) => return Err(exception),
        (_, written) => written?,
    };
    Ok(answer.summary(&outcome).body(Bytes::new().into()))
}

fn too_long(deadline: Duration) -> Exception {
    let text = format!("Timeout exceeded: rows were still to come after {deadline:?}");
    Exception::new(159, "TIMEOUT_EXCEEDED", &text)
}

/// Sends the rows on until they end, or the engine wants no more.
async fn feed(
    first: Bytes,
    rest: Option<&mut Upload>,
    pieces: &mpsc::Sender<Piece>,
) -> Result<(), Exception> {
    if !first.is_empty() && pieces.send(Piece::Rows(first)).await.is_err() {
        return Ok(());
    }
    if let Some(upload) = rest {
        while let Some(rows) = upload.next().await? {
            if pieces.send(Piece::Rows(rows)).await.is_err() {
                return Ok(());
            }
        }
    }
    // If the engine's side ended, its error is the answer.
    let _ = pieces.send(Piece::End).await;
    Ok(())
}

/// The blocking side. `None` if the client went away: the insert is then cancelled.
fn write(
    engine: &Engine,
    role: Role,
    options: &Options,
    head: &str,
    format: &str,
    mut queue: mpsc::Receiver<Piece>,
) -> Result<Option<Outcome>, Exception> {
    let mut connection = Setup::of(role, options).open(engine)?;
    let mut stream =
        connection.insert(head, format, &options.parameters).map_err(Exception::engine)?;
    loop {
        match queue.blocking_recv() {
            Some(Piece::Rows(rows)) => stream.append(&rows).map_err(Exception::engine)?,
            Some(Piece::End) => return stream.finish().map(Some).map_err(Exception::engine),
            None => return Ok(None),
        }
    }
}
