//! The window of a capture file that is in memory: it grows with what the file holds, not with what
//! the file says it holds.

use std::io::{self, Read};

use super::{MAX_BLOCK_BYTES, PcapError};

/// What the window starts with, and so what is read at once: enough that neither the system calls nor
/// the record that each leaves unfinished cost anything, and little enough for a core's own cache.
const CHUNK_BYTES: usize = 256 << 10;

pub(super) struct Buffer {
    source: Box<dyn Read + Send>,
    bytes: Vec<u8>,
    /// `bytes[start..end]` is read and not yet taken.
    start: usize,
    end: usize,
    /// Bytes taken so far.
    offset: u64,
    /// How many of them were taken last.
    last: usize,
}

impl Buffer {
    pub(super) fn new(source: Box<dyn Read + Send>) -> Self {
        Self { source, bytes: Vec::new(), start: 0, end: 0, offset: 0, last: 0 }
    }

    /// Where in the file the next byte is.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the next bytes have to be read first.
    pub(super) fn is_drained(&self) -> bool {
        self.start == self.end
    }

    /// The next bytes: `length` at least, unless the file ends before.
    #[inline]
    pub(super) fn at_least(&mut self, length: usize) -> Result<&[u8], PcapError> {
        if self.end - self.start < length {
            self.fill(length)?;
        }
        Ok(&self.bytes[self.start..self.end])
    }

    /// Reads on. What is moved to the front is less than `length`, so no more than one record.
    #[cold]
    fn fill(&mut self, length: usize) -> Result<(), PcapError> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        self.last = 0;
        while self.end < length {
            // Only what the file has filled is doubled.
            if self.end == self.bytes.len() {
                self.bytes.resize((2 * self.end).max(CHUNK_BYTES), 0);
            }
            match self.source.read(&mut self.bytes[self.end..]) {
                Ok(0) => break,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let offset = self.offset + self.end as u64;
                    return Err(PcapError::Read { offset, source });
                }
            }
        }
        Ok(())
    }

    /// Takes the next block: a header of known length and a body whose length it tells.
    #[inline]
    pub(super) fn take_block(&mut self, header: usize, body: u32) -> Result<&[u8], PcapError> {
        let offset = self.offset;
        let length = header.saturating_add(body as usize);
        if length > MAX_BLOCK_BYTES {
            let reason = "a record that is longer than any can be";
            return Err(PcapError::Damaged { offset, reason });
        }
        if self.at_least(length)?.len() < length {
            return Err(PcapError::Truncated { offset });
        }
        Ok(self.take(length))
    }

    /// Takes bytes that [`at_least`](Self::at_least) has shown.
    #[inline]
    pub(super) fn take(&mut self, length: usize) -> &[u8] {
        let taken = self.start..self.end.min(self.start + length);
        self.start = taken.end;
        self.offset += taken.len() as u64;
        self.last = taken.len();
        &self.bytes[taken]
    }

    /// A part of what was taken last; empty where it reaches beyond that.
    #[inline]
    pub(super) fn taken(&self, start: usize, length: usize) -> &[u8] {
        let last = &self.bytes[self.start - self.last..self.start];
        last.get(start..).and_then(|rest| rest.get(..length)).unwrap_or_default()
    }
}

/// The numbers that bytes start with, none if they are too few.
#[inline]
pub(super) fn numbers<const COUNT: usize>(bytes: &[u8], big_endian: bool) -> Option<[u32; COUNT]> {
    let (words, _) = bytes.as_chunks::<4>();
    let words = words.first_chunk::<COUNT>()?;
    Some(if big_endian { words.map(u32::from_be_bytes) } else { words.map(u32::from_le_bytes) })
}
