//! Numbers and names of the Native format, read from a piece of an answer.

/// Longest name of a column and longest type, in bytes: what is waited for before a column passes.
const MAX_NAME_BYTES: u64 = 1 << 20;

/// Bytes of the longest varint of 64 bits.
const MAX_VARINT_BYTES: usize = 10;

/// What is left of a piece.
#[derive(Clone, Copy)]
pub(super) struct Input<'piece>(&'piece [u8]);

/// Why there is nothing to read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The next piece may have it.
    More,
    /// It is no answer in this format.
    Sense,
}

impl<'piece> Input<'piece> {
    pub(super) fn new(piece: &'piece [u8]) -> Self {
        Self(piece)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn rest(&self) -> &'piece [u8] {
        self.0
    }

    /// What was read since an earlier state.
    pub(super) fn since(&self, start: Self) -> &'piece [u8] {
        start.0.get(..start.0.len() - self.0.len()).unwrap_or_default()
    }

    /// Unsigned LEB128.
    pub(super) fn varint(&mut self) -> Result<u64, Missing> {
        let mut value = 0;
        for (index, byte) in self.0.iter().take(MAX_VARINT_BYTES).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.0 = &self.0[index + 1..];
                return Ok(value);
            }
        }
        Err(if self.0.len() < MAX_VARINT_BYTES { Missing::More } else { Missing::Sense })
    }

    /// Eight bytes, little-endian.
    pub(super) fn number(&mut self) -> Result<u64, Missing> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Missing::More)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*bytes))
    }

    /// A text with its length.
    pub(super) fn name(&mut self) -> Result<&'piece [u8], Missing> {
        let length = self.varint()?;
        if length > MAX_NAME_BYTES {
            return Err(Missing::Sense);
        }
        let (name, rest) = self.0.split_at_checked(length as usize).ok_or(Missing::More)?;
        self.0 = rest;
        Ok(name)
    }

    /// Passes over so many bytes, or those that are there; says how many.
    pub(super) fn up_to(&mut self, count: u64) -> u64 {
        let taken = usize::try_from(count).unwrap_or(usize::MAX).min(self.0.len());
        self.0 = &self.0[taken..];
        taken as u64
    }
}
