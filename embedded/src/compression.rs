//! ClickHouse's own compressed blocks, as in request bodies with `decompress=1` and answers with
//! `compress=1`: a CityHash128 of what follows (16 bytes), the method (1), the size with this
//! 9-byte header (4), the size unpacked (4), the data.
//! (ClickHouse, `src/Compression/CompressionInfo.h` and `CompressedReadBufferBase.cpp`.)

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Largest block accepted, packed or unpacked, in bytes. Clients send about 1 MiB; ClickHouse's own
/// limit is 1 GiB, which one request should not make this process hold.
pub(crate) const MAX_BLOCK_BYTES: usize = 64 << 20;

const CHECKSUM_BYTES: usize = 16;
const HEADER_BYTES: usize = 9;
const METHOD_NONE: u8 = 0x02;
const METHOD_LZ4: u8 = 0x82;

/// Why a compressed body cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum BlockError {
    #[error("the checksum of a compressed block does not match: the body was damaged on its way")]
    Checksum,
    #[error("compression method 0x{0:02x} is not supported: use LZ4 or none")]
    Method(u8),
    #[error("a compressed block of {0} bytes is not between {HEADER_BYTES} and {MAX_BLOCK_BYTES}")]
    Size(usize),
    #[error("a compressed block cannot be unpacked")]
    Data,
    #[error("the body ends within a compressed block")]
    Cut,
}

/// Puts blocks together from pieces of a body and unpacks them.
#[derive(Default)]
pub(crate) struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Adds a piece of the body.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole block, unpacked; `None` until more is pushed.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, BlockError> {
        let Some((checksum, rest)) = self.buffer.split_first_chunk::<CHECKSUM_BYTES>() else {
            return Ok(None);
        };
        let Some((header, _)) = rest.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [method, sizes @ ..] = header;
        let mut sizes = sizes.as_slice();
        let (packed, unpacked) = (sizes.get_u32_le() as usize, sizes.get_u32_le() as usize);
        if !(HEADER_BYTES..=MAX_BLOCK_BYTES).contains(&packed) {
            return Err(BlockError::Size(packed));
        }
        if unpacked > MAX_BLOCK_BYTES {
            return Err(BlockError::Size(unpacked));
        }
        let Some(block) = rest.get(..packed) else { return Ok(None) };
        if self::checksum(block) != *checksum {
            return Err(BlockError::Checksum);
        }
        let (_, data) = block.split_at(HEADER_BYTES);
        let data = match *method {
            METHOD_NONE if data.len() == unpacked => Bytes::copy_from_slice(data),
            METHOD_NONE => return Err(BlockError::Data),
            METHOD_LZ4 => match lz4_flex::block::decompress(data, unpacked) {
                Ok(data) if data.len() == unpacked => data.into(),
                _ => return Err(BlockError::Data),
            },
            method => return Err(BlockError::Method(method)),
        };
        self.buffer.advance(CHECKSUM_BYTES + packed);
        Ok(Some(data))
    }

    /// Checks that the body ended with a block.
    pub(crate) fn finish(&self) -> Result<(), BlockError> {
        if self.buffer.is_empty() { Ok(()) } else { Err(BlockError::Cut) }
    }
}

/// One LZ4 block of `data`, which is to be no longer than [`MAX_BLOCK_BYTES`].
pub(crate) fn encode(data: &[u8]) -> Bytes {
    let packed = lz4_flex::block::compress(data);
    let mut block = BytesMut::with_capacity(CHECKSUM_BYTES + HEADER_BYTES + packed.len());
    block.put_bytes(0, CHECKSUM_BYTES);
    block.put_u8(METHOD_LZ4);
    block.put_u32_le((HEADER_BYTES + packed.len()) as u32);
    block.put_u32_le(data.len() as u32);
    block.put_slice(&packed);
    let (head, rest) = block.split_at_mut(CHECKSUM_BYTES);
    head.copy_from_slice(&checksum(rest));
    block.freeze()
}

/// CityHash 1.0.2's 128 bits, low half first, each half little-endian.
fn checksum(block: &[u8]) -> [u8; CHECKSUM_BYTES] {
    cityhash_rs::cityhash_102_128(block).rotate_right(64).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(body: &[u8], piece: usize) -> Result<Vec<u8>, BlockError> {
        let (mut decoder, mut data) = (Decoder::default(), Vec::new());
        for piece in body.chunks(piece) {
            decoder.push(piece);
            while let Some(block) = decoder.next()? {
                data.extend_from_slice(&block);
            }
        }
        decoder.finish()?;
        Ok(data)
    }

    proptest! {
        #[test]
        fn blocks_come_back_however_they_are_cut(
            blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..5),
            piece in 1_usize..400,
        ) {
            let body: Vec<u8> = blocks.iter().flat_map(|block| encode(block)).collect();
            prop_assert_eq!(decode(&body, piece), Ok(blocks.concat()));
        }

        #[test]
        fn any_bytes_are_an_error_or_data(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&body, 7);
        }

        #[test]
        fn a_changed_byte_is_noticed(at in 0_usize..60, change in 1_u8..) {
            let mut body = encode(&[7; 1000]).to_vec();
            let at = at % body.len();
            body[at] ^= change;
            prop_assert!(decode(&body, 1000).is_err());
        }
    }

    #[test]
    fn a_cut_body_is_an_error() {
        let body = encode(b"abc");
        assert_eq!(decode(&body[..body.len() - 1], 10), Err(BlockError::Cut));
    }

    #[test]
    fn sizes_are_bounded_before_anything_is_reserved() {
        let mut body = encode(b"abc").to_vec();
        body[21..25].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(&body, 100), Err(BlockError::Size(u32::MAX as usize)));
    }
}
