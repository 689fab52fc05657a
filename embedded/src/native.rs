//! Answers in Native format as clients of a protocol revision read them (`client_protocol_version`, which
//! clickhouse-go sends, and with it Grafana's data source): libchdb writes the format's revision 0, and here
//! each block gets the BlockInfo, and each column the byte, that later revisions have. All else passes as it
//! comes, piece by piece: nothing is held but a number or a name that a piece ends within.
//! (ClickHouse, `src/Formats/NativeWriter.cpp`, and `src/DataTypes/Serializations` for each type.)

mod input;
mod types;

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::exception::Exception;
use input::{Input, Missing};
use types::Type;

/// First revision whose columns say, in a byte, whether their serialization is a custom one.
const CUSTOM_SERIALIZATION: u64 = 54_454;

/// Field 1, no overflow row; field 2, bucket -1; no more fields.
const BLOCK_INFO: [u8; 8] = [1, 0, 2, 0xff, 0xff, 0xff, 0xff, 0];

/// In the head of a low-cardinality column's data: the width of its indexes, and whether keys follow.
const INDEX_WIDTH: u64 = 0xff;
const HAS_KEYS: u64 = 1 << 9;

/// The format that has revisions.
const NATIVE: &str = "Native";

/// Settings that a translated answer is asked with, so that its layout is one that is known here: JSON as
/// text, types by their names.
pub(crate) const SETTINGS: [(&str, &str); 2] = [
    ("output_format_native_write_json_as_string", "1"),
    ("output_format_native_encode_types_in_binary_format", "0"),
];

/// The version of a JSON column that is written as text.
const JSON_AS_TEXT: u64 = 1;

/// Reads blocks of revision 0 and gives them as of another.
pub(crate) struct Blocks {
    revision: u64,
    /// What the last piece ended within.
    rest: BytesMut,
    /// What is still to come of this block, the next at the end; empty between blocks.
    steps: Vec<Step>,
}

/// A part of a block.
#[derive(Debug)]
enum Step {
    Block,
    /// Columns that are left, each of so many rows.
    Columns(u64, u64),
    /// What comes before a column's data.
    Prefix(Arc<Type>),
    /// So many values.
    Data(Arc<Type>, u64),
    Bytes(u64),
    /// Texts, each with its length.
    Texts(u64),
    /// An array column's last offset, which is the number of its elements.
    LastOffset(Arc<Type>),
    JsonVersion,
    /// What a low-cardinality column's data begins with, then its keys and indexes.
    LowCardinality(Arc<Type>),
    Keys(Arc<Type>),
    Indexes(u64),
}

impl Blocks {
    /// For a client of a revision that asks for a format; `None` if that needs no translation.
    pub(crate) fn wanted(revision: u64, format: &str) -> Option<Self> {
        (revision > 0 && format == NATIVE).then(|| Self {
            revision,
            rest: BytesMut::new(),
            steps: Vec::new(),
        })
    }

    /// Translates a piece, cut anywhere; what that gives may be empty.
    ///
    /// # Errors
    /// If a column's type has a layout that is not known here: the error names it.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<Bytes, Exception> {
        self.rest.extend_from_slice(piece);
        let bytes = self.rest.split().freeze();
        let mut output = BytesMut::with_capacity(bytes.len() + bytes.len() / 8 + 64);
        let mut input = Input::new(&bytes);
        while !(input.is_empty() && self.steps.is_empty()) {
            let step = self.steps.pop().unwrap_or(Step::Block);
            let (mut ahead, reached) = (input, output.len());
            match self.take(&step, &mut ahead, &mut output) {
                Ok(()) => input = ahead,
                Err(Stop::Missing) => {
                    output.truncate(reached);
                    self.steps.push(step);
                    break;
                }
                Err(Stop::Failed(exception)) => return Err(exception),
            }
        }
        self.rest.extend_from_slice(input.rest());
        Ok(output.freeze())
    }

    /// Checks that the answer ended with a block.
    pub(crate) fn finish(&self) -> Result<(), Exception> {
        if self.rest.is_empty() && self.steps.is_empty() {
            return Ok(());
        }
        Err(unreadable("it ends within a block"))
    }

    /// Takes one step; if too little is there, nothing is changed but the arguments.
    fn take(&mut self, step: &Step, input: &mut Input, output: &mut BytesMut) -> Result<(), Stop> {
        let start = *input;
        match step {
            Step::Block => {
                let (columns, rows) = (input.varint()?, input.varint()?);
                output.put_slice(&BLOCK_INFO);
                output.put_slice(input.since(start));
                self.columns(columns, rows);
                return Ok(());
            }
            Step::Columns(left, rows) => {
                input.name()?;
                let parsed = Type::parse(input.name()?)?;
                output.put_slice(input.since(start));
                if self.revision >= CUSTOM_SERIALIZATION {
                    output.put_u8(0);
                }
                self.columns(left - 1, *rows);
                if *rows > 0 {
                    let parsed = Arc::new(parsed);
                    self.steps.push(Step::Data(Arc::clone(&parsed), *rows));
                    self.steps.push(Step::Prefix(parsed));
                }
                return Ok(());
            }
            Step::Prefix(of) => self.prefix(of),
            Step::Data(of, rows) => self.data(of, *rows)?,
            Step::Bytes(0) => {}
            Step::Bytes(_) if input.is_empty() => return Err(Stop::Missing),
            Step::Bytes(count) => {
                let left = count - input.up_to(*count);
                if left > 0 {
                    self.steps.push(Step::Bytes(left));
                }
            }
            Step::Texts(count) => {
                let length = input.varint()?;
                if *count > 1 {
                    self.steps.push(Step::Texts(count - 1));
                }
                self.steps.push(Step::Bytes(length));
            }
            Step::LastOffset(of) => {
                let elements = input.number()?;
                self.steps.push(Step::Data(Arc::clone(of), elements));
            }
            Step::JsonVersion => {
                let version = input.number()?;
                if version != JSON_AS_TEXT {
                    return Err(unreadable(&format!("JSON in its layout {version}")).into());
                }
            }
            Step::LowCardinality(keys) => {
                let head = input.number()?;
                let width = 1 << (head & INDEX_WIDTH).min(3);
                self.steps.push(Step::Indexes(width));
                if head & HAS_KEYS != 0 {
                    self.steps.push(Step::Keys(Arc::clone(keys)));
                }
            }
            Step::Keys(of) => {
                let keys = input.number()?;
                self.steps.push(Step::Data(Arc::clone(of), keys));
            }
            Step::Indexes(width) => {
                let bytes = input.number()?.checked_mul(*width);
                self.steps.push(Step::Bytes(bytes.ok_or_else(too_long)?));
            }
        }
        output.put_slice(input.since(start));
        Ok(())
    }

    fn columns(&mut self, left: u64, rows: u64) {
        if left > 0 {
            self.steps.push(Step::Columns(left, rows));
        }
    }

    /// Once a column, in the order of its types.
    fn prefix(&mut self, of: &Type) {
        match of {
            Type::Fixed(_) | Type::Text => {}
            // The version of the keys.
            Type::LowCardinality(_) => self.steps.push(Step::Bytes(8)),
            Type::Json => self.steps.push(Step::JsonVersion),
            Type::Nullable(inner) | Type::Array(inner) => {
                self.steps.push(Step::Prefix(Arc::clone(inner)));
            }
            Type::Tuple(elements) => {
                self.steps.extend(elements.iter().rev().cloned().map(Step::Prefix));
            }
        }
    }

    fn data(&mut self, of: &Type, rows: u64) -> Result<(), Exception> {
        // Arrays that are all empty have nothing.
        if rows == 0 {
            return Ok(());
        }
        match of {
            Type::Fixed(bytes) => {
                self.steps.push(Step::Bytes(rows.checked_mul(*bytes).ok_or_else(too_long)?));
            }
            Type::Text | Type::Json => self.steps.push(Step::Texts(rows)),
            Type::Nullable(inner) => {
                self.steps.push(Step::Data(Arc::clone(inner), rows));
                self.steps.push(Step::Bytes(rows));
            }
            Type::Array(inner) => {
                self.steps.push(Step::LastOffset(Arc::clone(inner)));
                self.steps.push(Step::Bytes((rows - 1).checked_mul(8).ok_or_else(too_long)?));
            }
            Type::Tuple(elements) => {
                let data = |element: &Arc<Type>| Step::Data(Arc::clone(element), rows);
                self.steps.extend(elements.iter().rev().map(data));
            }
            Type::LowCardinality(keys) => self.steps.push(Step::LowCardinality(Arc::clone(keys))),
        }
        Ok(())
    }
}

/// Why a step is not taken.
enum Stop {
    /// Too little is there.
    Missing,
    Failed(Exception),
}

impl From<Missing> for Stop {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::More => Self::Missing,
            Missing::Sense => Self::Failed(unreadable("a number or name in it is too long")),
        }
    }
}

impl From<Exception> for Stop {
    fn from(exception: Exception) -> Self {
        Self::Failed(exception)
    }
}

fn too_long() -> Exception {
    unreadable("a column in it is too long")
}

fn unreadable(what: &str) -> Exception {
    Exception::not_implemented(&format!(
        "The answer cannot be translated to client_protocol_version: {what}; ask without it, or for another format"
    ))
}

#[cfg(test)]
mod tests;
