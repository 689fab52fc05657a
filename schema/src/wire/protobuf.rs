//! Protobuf's encoding, as much as reading takes: fields of a message, one after the other, without
//! copying. (Protocol Buffers documentation, "Encoding".)

use thiserror::Error;

/// Bytes that are no protobuf, or not this message.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Malformed {
    /// A number, a key or a field goes on past the end.
    #[error("it ends within a field")]
    Cut,
    /// A number of more than 64 bits.
    #[error("a number is too long")]
    Varint,
    /// A key with a field number of 0 or over 32 bits, an unknown wire type, or a group that does not match.
    #[error("a key is invalid")]
    Key,
    /// A known field of another type than its own.
    #[error("a field has another type")]
    WireType,
    /// A string that is not UTF-8.
    #[error("a string is not UTF-8")]
    Utf8,
    /// Groups within groups beyond [`MAX_DEPTH`].
    #[error("groups are nested too deeply")]
    Depth,
}

/// Groups within groups that are followed, at most: nobody sends any, and each takes stack.
const MAX_DEPTH: usize = 16;

/// A message's fields from front to back: each its key, then its value by its type.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The next field's number and wire type; `None` at the end.
    #[inline(always)]
    pub(super) fn key(&mut self) -> Result<Option<(u32, u8)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = u32::try_from(self.varint()?).map_err(|_| Malformed::Key)?;
        if key >> 3 == 0 { Err(Malformed::Key) } else { Ok(Some((key >> 3, (key & 7) as u8))) }
    }

    /// The value of a field of wire type 1.
    pub(super) fn fixed64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// The value of a field of wire type 2.
    #[inline(always)]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.varint()?).map_err(|_| Malformed::Cut)?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Cut)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Passes over the value of a field.
    pub(super) fn skip(&mut self, number: u32, wire_type: u8) -> Result<(), Malformed> {
        self.skip_value(number, wire_type, MAX_DEPTH)
    }

    fn skip_value(&mut self, number: u32, wire_type: u8, depth: usize) -> Result<(), Malformed> {
        match wire_type {
            0 => self.varint().map(drop),
            1 => self.array::<8>().map(drop),
            2 => self.bytes().map(drop),
            3 => self.skip_group(number, depth),
            5 => self.array::<4>().map(drop),
            _ => Err(Malformed::Key),
        }
    }

    #[cold]
    fn skip_group(&mut self, group: u32, depth: usize) -> Result<(), Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed::Depth)?;
        loop {
            let (number, wire_type) = self.key()?.ok_or(Malformed::Cut)?;
            if wire_type == 4 {
                return if number == group { Ok(()) } else { Err(Malformed::Key) };
            }
            self.skip_value(number, wire_type, depth)?;
        }
    }

    /// The value of a field of wire type 0.
    #[inline(always)]
    pub(super) fn varint(&mut self) -> Result<u64, Malformed> {
        // Most are of one byte: flags, small counts, keys.
        if let [byte @ ..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for (index, byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (index * 7);
            if *byte < 0x80 {
                // The tenth byte has room for one bit.
                if index == 9 && *byte > 1 {
                    return Err(Malformed::Varint);
                }
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { Malformed::Cut } else { Malformed::Varint })
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Malformed::Cut)?;
        self.rest = rest;
        Ok(*bytes)
    }
}
