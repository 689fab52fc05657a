//! Blocks of ClickHouse's Native format: whole columns, so that the engine copies what it would otherwise
//! parse value by value. (ClickHouse, `src/Formats/NativeReader.cpp` and
//! `src/DataTypes/Serializations/SerializationLowCardinality.cpp`, at client revision 0, as over HTTP.)
//!
//! The `clickhouse` crate's own block builder writes no LowCardinality, and so a String for each row.

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use clickhouse::Client;
use clickhouse::error::Result;
use clickhouse::insert_formatted::InsertFormatted;
use clickhouse::query::Query;
use flowtrail_schema::row::EntityKind;
use flowtrail_schema::{Detail, IdKind, InterfaceKind, Reporter};
use foldhash::fast::RandomState;

/// Bytes sent as one piece of an insert, and compressed as one block: as much as ClickHouse's own
/// clients do (`max_compress_block_size`).
const PIECE_BYTES: usize = 1 << 20;

/// Columns of at least so many bytes are sent as they lie; smaller ones are put together.
const OWN_PIECE_BYTES: usize = 16 << 10;

/// Rows of one table in Native format. Inserting them leaves them as they are: they can be sent again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    /// How many.
    pub(crate) count: usize,
    /// One block, in pieces.
    pub(crate) pieces: Vec<Bytes>,
}

impl Rows {
    /// Whether they are one block, as what is inserted must be.
    pub(crate) fn is_one_block(&self) -> bool {
        let mut bytes = self.pieces.first().map_or(&[][..], |first| first);
        let _columns = take_varint(&mut bytes);
        take_varint(&mut bytes) == Some(self.count)
    }

    /// Sends the rows by an insert begun with [`insert_native`]; `end` is the caller's.
    ///
    /// # Errors
    /// If ClickHouse is away or refuses them.
    pub(crate) async fn send(&self, insert: &mut InsertFormatted) -> Result<()> {
        for piece in &self.pieces {
            let mut rest = piece.clone();
            while !rest.is_empty() {
                let piece = rest.split_to(rest.len().min(PIECE_BYTES));
                insert.send(piece).await?;
            }
        }
        Ok(())
    }
}

/// Reads rows as they are to be inserted again, by a SELECT of all of a table's columns.
///
/// # Errors
/// If ClickHouse is away or refuses the query.
pub(crate) async fn read_native(select: Query) -> Result<Bytes> {
    select.fetch_bytes("Native")?.collect().await
}

/// Begins an insert of Native blocks. Settings and timeouts are the caller's; nothing is sent yet.
pub(crate) fn insert_native(client: &Client, table: &str) -> InsertFormatted {
    client.insert_formatted_with(format!("INSERT INTO `{table}` FORMAT Native"))
}

/// A block while columns are added to it.
#[derive(Debug)]
pub(crate) struct Block {
    rows: usize,
    pieces: Vec<Bytes>,
    last: Vec<u8>,
}

impl Block {
    /// A block that will have so many columns and rows.
    pub(crate) fn new(columns: usize, rows: usize) -> Self {
        let mut last = Vec::new();
        put_varint(&mut last, columns);
        put_varint(&mut last, rows);
        Self { rows, pieces: Vec::new(), last }
    }

    /// Adds a column of values.
    pub(crate) fn plain<T: Value>(&mut self, name: &str, column: Plain<T>) {
        self.head(name, &T::sql_type());
        if column.bytes.len() < OWN_PIECE_BYTES {
            self.last.extend_from_slice(&column.bytes);
        } else {
            self.pieces.push(std::mem::take(&mut self.last).into());
            self.pieces.push(column.bytes.into());
        }
    }

    /// Adds a column of texts: one for each number, and the rows' numbers.
    pub(crate) fn words<'a>(
        &mut self,
        name: &str,
        texts: impl Iterator<Item = &'a str>,
        numbers: &[u32],
    ) {
        self.head(name, WORD_TYPE);
        put_words(&mut self.last, texts, numbers);
    }

    /// The rows.
    pub(crate) fn finish(mut self) -> Rows {
        self.pieces.push(self.last.into());
        Rows { count: self.rows, pieces: self.pieces }
    }

    fn head(&mut self, name: &str, sql_type: &str) {
        put_text(&mut self.last, name);
        put_text(&mut self.last, sql_type);
    }
}

/// A column of values of one width, little-endian.
#[derive(Debug)]
pub(crate) struct Plain<T> {
    bytes: Vec<u8>,
    of: std::marker::PhantomData<T>,
}

/// A value of fixed width.
pub(crate) trait Value {
    /// Its bytes in a column.
    const WIDTH: usize;

    /// Its ClickHouse type.
    fn sql_type() -> String;

    /// Adds its bytes.
    fn put(self, out: &mut Vec<u8>);
}

impl<T: Value> Plain<T> {
    /// An empty column with room for so many rows.
    pub(crate) fn with_capacity(rows: usize) -> Self {
        Self { bytes: Vec::with_capacity(rows * T::WIDTH), of: std::marker::PhantomData }
    }

    /// Adds a row's value.
    #[inline]
    pub(crate) fn push(&mut self, value: T) {
        value.put(&mut self.bytes);
    }

    /// The ClickHouse type of it.
    #[cfg(test)]
    pub(crate) fn sql_type() -> String {
        T::sql_type()
    }
}

/// `DateTime('UTC')`: seconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seconds(pub(crate) u32);

macro_rules! values {
    ($($rust:ty, $width:literal, $sql:expr, |$value:ident| $bytes:expr;)+) => {$(
        impl Value for $rust {
            const WIDTH: usize = $width;

            fn sql_type() -> String {
                $sql.into()
            }

            fn put(self, out: &mut Vec<u8>) {
                let $value = self;
                out.extend_from_slice(&$bytes);
            }
        }
    )+};
}

values! {
    bool, 1, "Bool", |value| [u8::from(value)];
    u8, 1, "UInt8", |value| [value];
    u16, 2, "UInt16", |value| value.to_le_bytes();
    u32, 4, "UInt32", |value| value.to_le_bytes();
    u64, 8, "UInt64", |value| value.to_le_bytes();
    Seconds, 4, "DateTime('UTC')", |value| value.0.to_le_bytes();
    i64, 8, "Int64", |value| value.to_le_bytes();
    Ipv6Addr, 16, "IPv6", |value| value.octets();
    InterfaceKind, 1, InterfaceKind::sql_type(), |value| value.number().to_le_bytes();
    Reporter, 1, Reporter::sql_type(), |value| value.number().to_le_bytes();
    Detail, 1, Detail::sql_type(), |value| value.number().to_le_bytes();
    IdKind, 1, IdKind::sql_type(), |value| value.number().to_le_bytes();
    EntityKind, 1, EntityKind::sql_type(), |value| value.number().to_le_bytes();
}

/// What the rows of a block have in common, numbered in the order in which it first comes: names are looked
/// up by number, so that a text which thousands of rows have is read once.
#[derive(Debug)]
pub(crate) struct Numbered<T: ?Sized> {
    /// Each row's.
    rows: Vec<u32>,
    /// By number; held, so that an address in `by_address` means the same throughout.
    all: Vec<Arc<T>>,
    by_address: HashMap<usize, u32, RandomState>,
    /// The last row's address and number: the next is often the same.
    last: Option<(usize, u32)>,
}

impl<T: ?Sized> Numbered<T> {
    /// Without rows yet, and with room for so many.
    pub(crate) fn with_capacity(rows: usize) -> Self {
        Self {
            rows: Vec::with_capacity(rows),
            all: Vec::new(),
            by_address: HashMap::default(),
            last: None,
        }
    }

    /// Adds a row's.
    #[inline]
    pub(crate) fn push(&mut self, value: &Arc<T>) {
        let Self { rows, all, by_address, last } = self;
        let address = Arc::as_ptr(value).addr();
        let number = match *last {
            Some((there, number)) if there == address => number,
            _ => *by_address.entry(address).or_insert_with(|| {
                all.push(Arc::clone(value));
                // A block has fewer rows than this has numbers.
                all.len() as u32 - 1
            }),
        };
        *last = Some((address, number));
        rows.push(number);
    }

    /// Adds a column with a text of each row's.
    pub(crate) fn words(&self, name: &str, text: impl Fn(&T) -> &str, block: &mut Block) {
        block.words(name, self.all.iter().map(|value| text(value)), &self.rows);
    }
}

/// The ClickHouse type of a column of words: each text once, and its place in every row.
pub(crate) const WORD_TYPE: &str = "LowCardinality(String)";

/// `SharedDictionariesWithAdditionalKeys`, the only version there is.
const DICTIONARY_VERSION: u64 = 1;

/// The block brings its own keys.
const HAS_ADDITIONAL_KEYS: u64 = 1 << 9;

/// Writes words, the first of which is the empty text, as the format wants it.
fn put_words<'a>(out: &mut Vec<u8>, texts: impl Iterator<Item = &'a str>, numbers: &[u32]) {
    let mut words = vec![""];
    let mut by_text = HashMap::<&str, u32, RandomState>::from_iter([("", 0)]);
    let by_number: Vec<u32> = texts
        .map(|text| {
            *by_text.entry(text).or_insert_with(|| {
                words.push(text);
                words.len() as u32 - 1
            })
        })
        .collect();
    // Places are written in the fewest bytes that hold them all: 1, 2 or 4.
    let width = match words.len() {
        0..=0x100 => 0,
        0x101..=0x1_0000 => 1,
        _ => 2,
    };
    out.put_u64_le(DICTIONARY_VERSION);
    out.put_u64_le(HAS_ADDITIONAL_KEYS | width);
    out.put_u64_le(words.len() as u64);
    words.iter().for_each(|word| put_text(out, word));
    out.put_u64_le(numbers.len() as u64);
    let places =
        numbers.iter().map(|number| by_number.get(*number as usize).copied().unwrap_or_default());
    out.reserve(numbers.len() << width);
    match width {
        0 => out.extend(places.map(|place| place as u8)),
        1 => places.for_each(|place| out.put_u16_le(place as u16)),
        _ => places.for_each(|place| out.put_u32_le(place)),
    }
}

/// LEB128, as the format has all lengths outside of dictionaries.
fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The reverse of [`put_varint`]; `None` if there is none.
fn take_varint(bytes: &mut &[u8]) -> Option<usize> {
    let mut value = 0_usize;
    for shift in (0..usize::BITS).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= usize::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len());
    out.extend_from_slice(text.as_bytes());
}
