//! Rows out: the engine writes the answer into a pipe as it computes it, in whatever format, and
//! the pipe is the answer's body. So a slow client slows the engine down, and no answer is held.
//!
//! The pipe is named in an output clause, `INTO OUTFILE '/proc/self/fd/N'`. (libchdb's streaming
//! calls give each block as a document of its own, with its own header, which is no answer in
//! formats that have one.)

use std::io::PipeWriter;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::stream;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::access::Role;
use crate::compression;
use crate::exception::Exception;
use crate::http::{Server, Ticket, joined, random};
use crate::native::Blocks;
use crate::request::Options;
use crate::session::Setup;

/// How much is read from the pipe at once, in bytes: what a pipe holds.
const READ_BYTES: usize = 64 << 10;

/// How often a query is asked to end until it has: it may not have begun when first asked.
const KILL_EVERY: Duration = Duration::from_millis(100);

/// How long a client may leave a piece of its answer unread: as long as ClickHouse waits for one
/// (`http_send_timeout`). Then its query is killed, so that it does not keep its place.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client has to read the text of an error in the middle of its answer.
const LATE_ERROR_GRACE: Duration = Duration::from_secs(1);

/// Tells the statements of this process apart in `system.processes`.
static NEXT_MARK: AtomicU64 = AtomicU64::new(1);

pub(crate) async fn run(
    server: &Arc<Server>,
    options: Options,
    (head, tail): (String, String),
    format: String,
    ticket: Ticket,
) -> Result<Response, Exception> {
    let answer = server.head(ticket.query_id(), &format);
    let compress = options.compress;
    let most = server.engine.users().max_execution_time;
    let patience =
        (ticket.role != Role::Service).then(|| options.time_limit(most).min(SEND_TIMEOUT));
    let output = Output::start(server, options, (&head, &tail), format, ticket)?;
    let mut output = Pieces::of(output, patience);
    // Until there is a byte to send, an error still decides the status.
    let first = output.next().await?;
    let tag = format!("{:016x}", random());
    let answer = answer.exception_tag(&tag);
    let pack = move |bytes: Bytes| if compress { compression::encode(&bytes) } else { bytes };
    let metrics = server.metrics.clone();
    let next = move |state: State| {
        let (tag, metrics) = (tag.clone(), metrics.clone());
        async move {
            match state {
                State::First(None, _) | State::Broken(None) => None,
                State::First(Some(bytes), output) => Some((Ok(bytes), State::Rest(output))),
                State::Rest(mut output) => match output.next().await {
                    Ok(Some(bytes)) => Some((Ok(bytes), State::Rest(output))),
                    Ok(None) => None,
                    Err(exception) => {
                        metrics.failed(&exception);
                        Some((Ok(late(&exception, &tag)), State::Broken(Some(exception))))
                    }
                },
                State::Broken(Some(exception)) => {
                    // The text is let out first; then the connection is cut, which tells clients
                    // that know nothing of the text that the answer is not whole.
                    sleep(LATE_ERROR_GRACE).await;
                    Some((Err(exception.message), State::Broken(None)))
                }
            }
        }
    };
    let bytes = stream::unfold(State::First(first, output), next);
    let bytes = futures::StreamExt::map(bytes, move |piece| piece.map(pack));
    Ok(answer.body(Body::from_stream(bytes)))
}

/// Where an answer's body is.
enum State {
    First(Option<Bytes>, Pieces),
    Rest(Pieces),
    Broken(Option<Exception>),
}

/// The text at the end of an answer that went wrong after it had begun
/// (ClickHouse, `src/Server/HTTP/WriteBufferFromHTTPServerResponse.cpp`).
fn late(exception: &Exception, tag: &str) -> Bytes {
    let message = format!("{}\n", exception.message);
    let length = message.len();
    let text =
        format!("\r\n__exception__\r\n{tag}\r\n{message}{length} {tag}\r\n__exception__\r\n");
    text.into()
}

/// The pieces of an answer, which a task of its own hands over: it sees that nobody takes them.
/// Dropped before the end, the query is killed.
struct Pieces(mpsc::Receiver<Result<Option<Bytes>, Exception>>);

impl Pieces {
    fn of(mut output: Output, patience: Option<Duration>) -> Self {
        let (pieces, receiver) = mpsc::channel(1);
        let jobs = output.server.jobs.clone();
        jobs.spawn(async move {
            loop {
                let piece = tokio::select! {
                    piece = output.next() => piece,
                    () = pieces.closed() => return,
                };
                let more = matches!(piece, Ok(Some(_)));
                let sent = match patience {
                    Some(patience) => timeout(patience, pieces.send(piece)).await.is_ok(),
                    None => pieces.send(piece).await.is_ok(),
                };
                if !(more && sent) {
                    return;
                }
            }
        });
        Self(receiver)
    }

    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Exception> {
        self.0.recv().await.unwrap_or_else(|| {
            let text = "Timeout exceeded: the client did not read its answer in time";
            Err(Exception::new(209, "SOCKET_TIMEOUT", text))
        })
    }
}

/// A query under way. Dropped before its end, the query is killed.
struct Output {
    server: Arc<Server>,
    mark: u64,
    /// For clients that read Native of a later revision than the engine writes.
    blocks: Option<Blocks>,
    /// The reading end and the query's outcome; none after the end.
    running: Option<(Receiver, JoinHandle<Result<(), Exception>>)>,
}

impl Output {
    fn start(
        server: &Arc<Server>,
        options: Options,
        (head, tail): (&str, &str),
        format: String,
        ticket: Ticket,
    ) -> Result<Self, Exception> {
        let no_pipe = |error: std::io::Error| {
            Exception::new(76, "CANNOT_OPEN_FILE", &format!("Cannot make a pipe: {error}"))
        };
        let (reader, writer) = std::io::pipe().map_err(no_pipe)?;
        let reader = Receiver::from_owned_fd(reader.into()).map_err(no_pipe)?;
        let blocks = Blocks::wanted(options.revision, &format);
        let mark = NEXT_MARK.fetch_add(1, Ordering::Relaxed);
        let text = format!("{head}\n{} {tail}\n{}", output_clause(&writer), comment(mark));
        let (engine, reused) = (Arc::clone(&server.engine), server.metrics.reused.clone());
        let jobs = server.jobs.clone();
        let job = server.jobs.spawn_blocking(move || {
            let ticket = ticket;
            let setup = Setup::of(ticket.role, &options);
            let mut connection = match engine.idle(&setup) {
                Some(connection) => {
                    reused.inc();
                    connection
                }
                None => setup.open(&engine)?,
            };
            let outcome = connection.query(&text, &format, &options.parameters);
            // The reader sees the end only now, when the outcome is known.
            drop(writer);
            outcome.map_err(Exception::engine)?;
            // The answer does not wait for that.
            jobs.spawn_blocking(move || setup.keep(&engine, connection));
            Ok(())
        });
        Ok(Self { server: Arc::clone(server), mark, blocks, running: Some((reader, job)) })
    }

    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Exception> {
        loop {
            let Some((reader, _)) = &mut self.running else { return Ok(None) };
            let mut bytes = BytesMut::with_capacity(READ_BYTES);
            match (reader.read_buf(&mut bytes).await, &mut self.blocks) {
                (Ok(1..), None) => return Ok(Some(bytes.freeze())),
                (Ok(1..), Some(blocks)) => {
                    let translated = blocks.push(&bytes)?;
                    if !translated.is_empty() {
                        return Ok(Some(translated));
                    }
                    continue;
                }
                (Ok(0), _) => {}
                (Err(error), _) => warn!(%error, "cannot read a query's pipe"),
            }
            let Some((_, job)) = self.running.take() else { return Ok(None) };
            joined(job.await)?;
            return self.blocks.as_ref().map_or(Ok(()), Blocks::finish).map(|()| None);
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // Outside of the runtime only while the process ends.
        if let Some((reader, _)) = self.running.take()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            self.server.metrics.cancelled.inc();
            self.server.jobs.spawn(kill(Arc::clone(&self.server), self.mark, reader));
        }
    }
}

/// Kills a query until its pipe is closed, and keeps the pipe empty meanwhile: a query that waits
/// in a write does not see that it is killed.
async fn kill(server: Arc<Server>, mark: u64, mut reader: Receiver) {
    debug!(mark, "client went away, killing its query");
    // The text is put together by the engine, so that this statement does not match itself.
    let statement = format!(
        "KILL QUERY WHERE position(query, concat('{}', '{}')) > 0 ASYNC",
        &comment(mark)[..COMMENT_START.len()],
        &comment(mark)[COMMENT_START.len()..],
    );
    let mut discarded = vec![0; READ_BYTES];
    loop {
        let (engine, statement) = (Arc::clone(&server.engine), statement.clone());
        let killed = server.jobs.spawn_blocking(move || {
            engine.connect().map(|mut connection| connection.query(&statement, "Null", &[]))
        });
        if let Ok(Some(Err(error))) = killed.await {
            warn!(error, "cannot kill a query");
        }
        let drain = async { while let Ok(1..) = reader.read(&mut discarded).await {} };
        if timeout(KILL_EVERY, drain).await.is_ok() {
            return;
        }
    }
}

const COMMENT_START: &str = "/* flowtrail request ";

fn comment(mark: u64) -> String {
    format!("{COMMENT_START}{mark} */")
}

fn output_clause(writer: &PipeWriter) -> String {
    format!("INTO OUTFILE '/proc/self/fd/{}' APPEND COMPRESSION 'none'", writer.as_raw_fd())
}
