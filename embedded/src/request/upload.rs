//! A request's body, read piece by piece as the engine takes it, unpacked where it is compressed.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::time::timeout;

use crate::compression::{BlockError, Decoder};
use crate::exception::Exception;

/// How long a client that is sending may be silent: as long as ClickHouse waits for one
/// (`http_receive_timeout`). Then it is refused, so that it does not keep its place.
pub(crate) const RECEIVE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a body is read on after an error.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// How much of a body is read to its end after an error, in bytes, so that the client, still
/// sending, gets to see the answer.
const MAX_DISCARDED_BYTES: usize = 64 << 20;

/// A body that is still arriving.
pub(crate) struct Upload {
    body: BodyDataStream,
    decoder: Option<Decoder>,
    done: bool,
}

impl Upload {
    pub(crate) fn new(body: Body, compressed: bool) -> Self {
        Self {
            body: body.into_data_stream(),
            decoder: compressed.then(Decoder::default),
            done: false,
        }
    }

    /// Whether the end was seen.
    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// If the client went away, or what it sends cannot be unpacked.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Exception> {
        loop {
            if let Some(decoder) = &mut self.decoder
                && let Some(block) = decoder.next().map_err(unpack)?
            {
                return Ok(Some(block));
            }
            if self.done {
                return Ok(None);
            }
            let Ok(piece) = timeout(RECEIVE_TIMEOUT, self.body.next()).await else {
                self.done = true;
                return Err(stalled());
            };
            match (piece, &mut self.decoder) {
                (Some(Ok(piece)), Some(decoder)) => decoder.push(&piece),
                (Some(Ok(piece)), None) => return Ok(Some(piece)),
                (Some(Err(error)), _) => {
                    self.done = true;
                    let text = format!("The request's body broke off: {error}");
                    return Err(Exception::new(210, "NETWORK_ERROR", &text));
                }
                (None, decoder) => {
                    self.done = true;
                    if let Some(decoder) = decoder {
                        decoder.finish().map_err(unpack)?;
                    }
                }
            }
        }
    }

    /// Reads into `text` until it is longer than `limit` bytes or the body ends.
    ///
    /// # Errors
    /// As [`Upload::next`].
    pub(crate) async fn fill(
        &mut self,
        text: &mut BytesMut,
        limit: usize,
    ) -> Result<(), Exception> {
        while text.len() <= limit {
            match self.next().await? {
                Some(piece) => text.extend_from_slice(&piece),
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Reads the rest and throws it away, up to a bound.
    pub(crate) async fn discard(mut self) {
        let discard = async {
            let mut left = MAX_DISCARDED_BYTES;
            while let Some(Ok(piece)) = self.body.next().await {
                match left.checked_sub(piece.len()) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
        };
        // What a client that waits itself has sent by then is all that it will.
        let _ = timeout(DISCARD_TIMEOUT, discard).await;
    }
}

/// Why a client that sends nothing is refused.
pub(crate) fn stalled() -> Exception {
    let waited = RECEIVE_TIMEOUT.as_secs();
    let text =
        format!("Timeout exceeded while receiving data from client. Waited for {waited} seconds");
    Exception::new(209, "SOCKET_TIMEOUT", &text)
}

fn unpack(error: BlockError) -> Exception {
    let (code, name) = match error {
        BlockError::Checksum => (40, "CHECKSUM_DOESNT_MATCH"),
        BlockError::Method(_) => (89, "UNKNOWN_COMPRESSION_METHOD"),
        BlockError::Size(_) | BlockError::Data | BlockError::Cut => (271, "CANNOT_DECOMPRESS"),
    };
    Exception::new(code, name, &error.to_string())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures::stream;
    use tokio::time::Instant;

    use super::*;

    /// A body of one piece, after which its client is silent but connected.
    fn silent() -> Upload {
        let piece = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"1"))]);
        Upload::new(Body::from_stream(piece.chain(stream::pending())), false)
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_given_up() {
        let (mut upload, started) = (silent(), Instant::now());
        assert_eq!(upload.next().await, Ok(Some(Bytes::from_static(b"1"))));
        assert_eq!(upload.next().await, Err(stalled()));
        assert_eq!(started.elapsed(), RECEIVE_TIMEOUT);
        assert_eq!(upload.next().await, Ok(None));
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_does_not_wait_for_a_silent_client() {
        let started = Instant::now();
        silent().discard().await;
        assert_eq!(started.elapsed(), DISCARD_TIMEOUT);
    }
}
