//! `RowBinaryWithNamesAndTypes`, read where it is: for answers of thousands of rows, each of some hundred values. The
//! clickhouse crate reads such through serde, one value at a time, into values of their own, which takes more than
//! twice as long. Here rows borrow of the answer, whose names and types of columns are compared with those of the rows once.

use std::marker::PhantomData;

use thiserror::Error;

/// Types of which the values are written as those of another.
const WRITTEN_AS: [(&str, &str); 2] =
    [("LowCardinality(String)", "String"), ("SimpleAggregateFunction(max, UInt64)", "UInt64")];

/// Rows that can be read.
pub(crate) trait ReadRow<'a>: Sized {
    /// The columns in the order in which they are read: names and types.
    const COLUMNS: &'static [(&'static str, &'static str)];

    fn read(values: &mut Values<'a>) -> Result<Self, Malformed>;
}

/// An answer is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Malformed {
    /// Or a length in it is too large.
    #[error("the answer ends within a row, or before the first")]
    CutOff,
    #[error("a text is not UTF-8")]
    NotText,
    #[error("a list of {0} where another length was asked for")]
    Length(usize),
    #[error("buckets of a histogram that do not ascend, or are none")]
    Buckets,
    #[error("the columns are {told}, not {expected}")]
    Columns { told: String, expected: String },
}

/// The rows of an answer.
///
/// # Errors
/// If its columns are others than those of such rows.
pub(crate) fn parse_rows<'a, R: ReadRow<'a>>(answer: &'a [u8]) -> Result<Rows<'a, R>, Malformed> {
    let mut values = Values(answer);
    let columns = values.length()?;
    let mut texts = |_| values.text();
    let names = (0..columns).map(&mut texts).collect::<Result<Vec<_>, _>>()?;
    let types = (0..columns).map(&mut texts).collect::<Result<Vec<_>, _>>()?;
    let types = types.iter().map(|kind| {
        WRITTEN_AS.iter().fold((*kind).to_owned(), |kind, (type_, as_)| kind.replace(type_, as_))
    });
    let told: Vec<_> = names.into_iter().zip(types).collect();
    let expected = R::COLUMNS.iter().copied();
    if !told.iter().map(|(name, kind)| (*name, kind.as_str())).eq(expected) {
        let (told, expected) = (format!("{told:?}"), format!("{:?}", R::COLUMNS));
        return Err(Malformed::Columns { told, expected });
    }
    Ok(Rows { values, row: PhantomData })
}

/// The rows of an answer, until the first that is malformed.
#[derive(Debug)]
pub(crate) struct Rows<'a, R> {
    values: Values<'a>,
    row: PhantomData<R>,
}

impl<'a, R: ReadRow<'a>> Iterator for Rows<'a, R> {
    type Item = Result<R, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.values.0.is_empty() {
            return None;
        }
        let row = R::read(&mut self.values);
        if row.is_err() {
            self.values = Values(&[]);
        }
        Some(row)
    }
}

/// Values that are still to be read, one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Values<'a>(pub(super) &'a [u8]);

impl<'a> Values<'a> {
    /// The bytes of what `read` reads.
    pub(super) fn bytes_of(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<(), Malformed>,
    ) -> Result<&'a [u8], Malformed> {
        let all = self.0;
        read(self)?;
        Ok(&all[..all.len() - self.0.len()])
    }

    pub(super) fn skip(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.take(bytes).map(|_| ())
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.0.split_first_chunk().ok_or(Malformed::CutOff)?;
        self.0 = rest;
        Ok(*array)
    }

    /// An array or a map: so many of values of `N` bytes each.
    pub(super) fn list<const N: usize>(&mut self) -> Result<&'a [[u8; N]], Malformed> {
        self.short_list(usize::MAX)
    }

    /// The same, of so many at most.
    pub(super) fn short_list<const N: usize>(
        &mut self,
        most: usize,
    ) -> Result<&'a [[u8; N]], Malformed> {
        let bytes = self.short_length(most)?.checked_mul(N).ok_or(Malformed::CutOff)?;
        Ok(self.take(bytes)?.as_chunks().0)
    }

    /// An `Array(UInt64)` of so many.
    pub(super) fn numbers<const N: usize>(&mut self) -> Result<[u64; N], Malformed> {
        let list = self.list()?;
        let numbers: [_; N] = list.try_into().map_err(|_| Malformed::Length(list.len()))?;
        Ok(numbers.map(u64::from_le_bytes))
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.string()?).map_err(|_| Malformed::NotText)
    }

    /// A `String`: whatever bytes.
    pub(super) fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let bytes = self.length()?;
        self.take(bytes)
    }

    /// A length of so much at most.
    pub(super) fn short_length(&mut self, most: usize) -> Result<usize, Malformed> {
        let length = self.length()?;
        if length > most { Err(Malformed::Length(length)) } else { Ok(length) }
    }

    /// A length: LEB128, here of 35 bits at most.
    pub(super) fn length(&mut self) -> Result<usize, Malformed> {
        let mut length = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(length);
            }
        }
        Err(Malformed::CutOff)
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(Malformed::CutOff)?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What [`Values::length`] and [`Values::string`] read.
    pub(crate) fn write_length(length: usize, answer: &mut Vec<u8>) {
        let mut rest = length;
        while rest >= 0x80 {
            answer.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        answer.push(rest as u8);
    }

    pub(crate) fn write_string(string: &[u8], answer: &mut Vec<u8>) {
        write_length(string.len(), answer);
        answer.extend_from_slice(string);
    }

    #[derive(Debug, PartialEq, Eq)]
    struct Pair<'a>(&'a str, [u64; 2]);

    impl<'a> ReadRow<'a> for Pair<'a> {
        const COLUMNS: &'static [(&'static str, &'static str)] =
            &[("name", "String"), ("sums", "Array(UInt64)")];

        fn read(values: &mut Values<'a>) -> Result<Self, Malformed> {
            Ok(Self(values.text()?, values.numbers()?))
        }
    }

    fn answer(columns: &[(&str, &str)], rows: &[(String, Vec<u64>)]) -> Vec<u8> {
        let mut answer = Vec::new();
        write_length(columns.len(), &mut answer);
        columns.iter().for_each(|(name, _)| write_string(name.as_bytes(), &mut answer));
        columns.iter().for_each(|(_, kind)| write_string(kind.as_bytes(), &mut answer));
        for (name, sums) in rows {
            write_string(name.as_bytes(), &mut answer);
            write_length(sums.len(), &mut answer);
            sums.iter().for_each(|sum| answer.extend_from_slice(&sum.to_le_bytes()));
        }
        answer
    }

    fn read(answer: &[u8]) -> Result<Vec<Pair<'_>>, Malformed> {
        parse_rows(answer)?.collect()
    }

    proptest! {
        #[test]
        fn rows_are_read_as_they_were_written(
            written in prop::collection::vec((".{0,200}", prop::collection::vec(any::<u64>(), 2)), 0..10),
        ) {
            let all = answer(Pair::COLUMNS, &written);
            let expected: Vec<_> =
                written.iter().map(|(name, sums)| Pair(name, [sums[0], sums[1]])).collect();
            // Whatever is missing, nothing is made up.
            let mut ends = 0;
            for end in 0..=all.len() {
                match read(&all[..end]) {
                    Ok(rows) => {
                        prop_assert_eq!(&rows, &expected[..ends]);
                        ends += 1;
                    }
                    Err(error) => prop_assert_eq!(error, Malformed::CutOff),
                }
            }
            prop_assert_eq!(ends, written.len() + 1);
        }

        #[test]
        fn anything_is_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..50)) {
            let _ = read(&bytes);
            let _ = read(&[answer(Pair::COLUMNS, &[]), bytes].concat());
        }
    }

    #[test]
    fn other_columns_and_lengths_are_refused() {
        let low = [
            ("name", "LowCardinality(String)"),
            ("sums", "Array(SimpleAggregateFunction(max, UInt64))"),
        ];
        let row = ("a".to_owned(), vec![1, 2]);
        assert_eq!(read(&answer(&low, &[row])), Ok(vec![Pair("a", [1, 2])]));
        for other in [
            &low[..1],
            &[low[1], low[0]],
            &[low[0], ("sums", "Array(UInt32)")],
            &[low[0], ("sum", "Array(UInt64)")],
            &[low[0], low[1], low[1]],
        ] {
            assert!(
                matches!(read(&answer(other, &[])), Err(Malformed::Columns { .. })),
                "{other:?}"
            );
        }
        for length in [0, 1, 3] {
            let row = ("a".to_owned(), vec![1; length]);
            assert_eq!(read(&answer(&low, &[row])), Err(Malformed::Length(length)));
        }
        let too_long = [answer(&low, &[]), vec![0xff; 10]].concat();
        assert_eq!(read(&too_long), Err(Malformed::CutOff));
        let mut binary = answer(&low, &[]);
        write_string(&[0xff], &mut binary);
        assert_eq!(read(&binary), Err(Malformed::NotText));
        assert_eq!(read(&[]), Err(Malformed::CutOff));
    }
}
