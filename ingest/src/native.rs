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

/// Rows of one table in Native format. Inserting them leaves them as they are: they can be sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    /// How many.
    pub(crate) count: usize,
    /// One block.
    pub(crate) bytes: Bytes,
}

impl Rows {
    /// Whether they are one block, as what is inserted must be.
    pub(crate) fn is_one_block(&self) -> bool {
        let mut bytes = &self.bytes[..];
        let _columns = take_varint(&mut bytes);
        take_varint(&mut bytes) == Some(self.count)
    }

    /// Sends the rows by an insert begun with [`insert_native`]; `end` is the caller's.
    ///
    /// # Errors
    /// If ClickHouse is away or refuses them.
    pub(crate) async fn send(&self, insert: &mut InsertFormatted) -> Result<()> {
        let mut rest = self.bytes.clone();
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(PIECE_BYTES));
            insert.send(piece).await?;
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

/// One column while rows are added to it.
pub(crate) trait Column {
    /// What a row has in it.
    type Value<'a>;

    /// An empty column with room for so many rows.
    fn with_capacity(rows: usize) -> Self;

    /// Adds a row's value.
    fn push(&mut self, value: Self::Value<'_>);

    /// The ClickHouse type of what [`Column::encode`] writes.
    fn sql_type() -> String;

    /// Writes the values, as the format has them after the column's name and type.
    fn encode(&self, out: &mut Vec<u8>);
}

/// Writes a column with its name and type in front.
pub(crate) fn encode_column<C: Column>(name: &str, column: &C, out: &mut Vec<u8>) {
    put_text(out, name);
    put_text(out, &C::sql_type());
    column.encode(out);
}

/// Writes the head of a block.
pub(crate) fn encode_head(columns: usize, rows: usize, out: &mut Vec<u8>) {
    put_varint(out, columns);
    put_varint(out, rows);
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

impl<T: Value> Column for Plain<T> {
    type Value<'a> = T;

    fn with_capacity(rows: usize) -> Self {
        Self { bytes: Vec::with_capacity(rows * T::WIDTH), of: std::marker::PhantomData }
    }

    fn push(&mut self, value: T) {
        value.put(&mut self.bytes);
    }

    fn sql_type() -> String {
        T::sql_type()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
    }
}

/// `DateTime('UTC')`: seconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seconds(pub(crate) u32);

/// `DateTime64(6, 'UTC')`: microseconds since the epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Micros(pub(crate) i64);

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
    Micros, 8, "DateTime64(6, 'UTC')", |value| value.0.to_le_bytes();
    Ipv6Addr, 16, "IPv6", |value| value.octets();
    InterfaceKind, 1, InterfaceKind::sql_type(), |value| value.number().to_le_bytes();
    Reporter, 1, Reporter::sql_type(), |value| value.number().to_le_bytes();
    Detail, 1, Detail::sql_type(), |value| value.number().to_le_bytes();
    IdKind, 1, IdKind::sql_type(), |value| value.number().to_le_bytes();
    EntityKind, 1, EntityKind::sql_type(), |value| value.number().to_le_bytes();
}

/// A column of `LowCardinality(String)`: each text once, and its number in every row.
#[derive(Debug)]
pub(crate) struct Words {
    numbers: Vec<u32>,
    /// The texts by number; held, so that an address in `by_address` means the same text throughout.
    /// Number 0 is the empty text.
    texts: Vec<Arc<str>>,
    by_text: HashMap<Arc<str>, u32, RandomState>,
    /// Most rows share their texts with the index of names: where a text is tells it without reading it.
    by_address: HashMap<usize, u32, RandomState>,
    /// Texts equal to one in `texts` but elsewhere, held for the same reason.
    others: Vec<Arc<str>>,
}

/// A text of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Word<'a> {
    /// One that many rows share.
    Shared(&'a Arc<str>),
    /// Any other.
    Text(&'a str),
}

/// `SharedDictionariesWithAdditionalKeys`, the only version there is.
const DICTIONARY_VERSION: u64 = 1;

/// The block brings its own keys.
const HAS_ADDITIONAL_KEYS: u64 = 1 << 9;

impl Words {
    fn number_of(&mut self, word: Word<'_>) -> u32 {
        match word {
            Word::Shared(text) if text.is_empty() => 0,
            Word::Shared(text) => {
                let address = text.as_ptr().addr();
                if let Some(number) = self.by_address.get(&address) {
                    return *number;
                }
                let number = match self.by_text.get(&**text) {
                    Some(number) => {
                        self.others.push(Arc::clone(text));
                        *number
                    }
                    None => self.add(Arc::clone(text)),
                };
                self.by_address.insert(address, number);
                number
            }
            Word::Text("") => 0,
            Word::Text(text) => match self.by_text.get(text) {
                Some(number) => *number,
                None => self.add(text.into()),
            },
        }
    }

    fn add(&mut self, text: Arc<str>) -> u32 {
        // A block has fewer rows than this has numbers.
        let number = self.texts.len() as u32;
        self.texts.push(Arc::clone(&text));
        self.by_text.insert(text, number);
        number
    }
}

impl Column for Words {
    type Value<'a> = Word<'a>;

    fn with_capacity(rows: usize) -> Self {
        Self {
            numbers: Vec::with_capacity(rows),
            texts: vec![Arc::default()],
            by_text: HashMap::default(),
            by_address: HashMap::default(),
            others: Vec::new(),
        }
    }

    fn push(&mut self, value: Word<'_>) {
        let number = self.number_of(value);
        self.numbers.push(number);
    }

    fn sql_type() -> String {
        "LowCardinality(String)".to_owned()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        // Numbers are written in the fewest bytes that hold them all: 1, 2 or 4.
        let width = match self.texts.len() {
            0..=0x100 => 0,
            0x101..=0x1_0000 => 1,
            _ => 2,
        };
        out.put_u64_le(DICTIONARY_VERSION);
        out.put_u64_le(HAS_ADDITIONAL_KEYS | width);
        out.put_u64_le(self.texts.len() as u64);
        self.texts.iter().for_each(|text| put_text(out, text));
        out.put_u64_le(self.numbers.len() as u64);
        match width {
            0 => out.extend(self.numbers.iter().map(|number| *number as u8)),
            1 => self.numbers.iter().for_each(|number| out.put_u16_le(*number as u16)),
            _ => self.numbers.iter().for_each(|number| out.put_u32_le(*number)),
        }
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
