//! Statements with a small answer or none, run to their end even if the client goes away: half of
//! an ALTER or of an INSERT … SELECT is worse than one that nobody waits for.

use std::sync::Arc;

use axum::response::Response;

use crate::exception::Exception;
use crate::http::{Server, Ticket, joined};
use crate::native::Blocks;
use crate::request::Options;
use crate::session::Setup;

pub(crate) async fn run(
    server: &Arc<Server>,
    options: Options,
    text: String,
    format: String,
    ticket: Ticket,
) -> Result<Response, Exception> {
    let head = server.head(ticket.query_id(), &format);
    let blocks = Blocks::wanted(options.revision, &format);
    let engine = Arc::clone(&server.engine);
    let job = server.jobs.spawn_blocking(move || {
        let ticket = ticket;
        let mut connection = Setup::of(ticket.role, &options).open(&engine)?;
        connection.query(&text, &format, &options.parameters).map_err(Exception::engine)
    });
    let outcome = joined(job.await)?;
    let head = head.summary(&outcome);
    let data = match blocks {
        Some(mut blocks) => blocks.push(&outcome.data)?,
        None => outcome.data.into(),
    };
    Ok(head.body(data.into()))
}
