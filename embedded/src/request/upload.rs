//! A request's body, read piece by piece as the engine takes it, unpacked where it is compressed.

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;

use crate::compression::{BlockError, Decoder};
use crate::exception::Exception;

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
            match (self.body.next().await, &mut self.decoder) {
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
        let mut left = MAX_DISCARDED_BYTES;
        while let Some(Ok(piece)) = self.body.next().await {
            match left.checked_sub(piece.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    }
}

fn unpack(error: BlockError) -> Exception {
    let (code, name) = match error {
        BlockError::Checksum => (40, "CHECKSUM_DOESNT_MATCH"),
        BlockError::Method(_) => (89, "UNKNOWN_COMPRESSION_METHOD"),
        BlockError::Size(_) | BlockError::Data | BlockError::Cut => (271, "CANNOT_DECOMPRESS"),
    };
    Exception::new(code, name, &error.to_string())
}
