//! What rows of pairs of ends begin with, read where it is.

use std::net::Ipv6Addr;

use super::binary::{Malformed, Values};
use super::ends::{End, MAX_LISTED};
use super::listed::Listed;

/// An [`End`] where it was read: the same bytes for the same end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EncodedEnd<'a>(&'a [u8]);

impl<'a> EncodedEnd<'a> {
    fn read(values: &mut Values<'a>) -> Result<Self, Malformed> {
        let bytes = values.bytes_of(|values| {
            values.skip(size_of::<i8>())?;
            for _ in 0..TEXTS {
                values.string()?;
            }
            values.skip(size_of::<Ipv6Addr>())
        })?;
        Ok(Self(bytes))
    }

    pub(crate) fn end(self) -> Result<End<&'a str>, Malformed> {
        let mut values = Values(self.0);
        let [kind] = values.array()?;
        let mut texts = [""; TEXTS];
        for text in &mut texts {
            *text = values.text()?;
        }
        let [namespace, workload_kind, workload, name, node, of, service] = texts;
        let address = values.array()?.into();
        let kind = i8::from_le_bytes([kind]);
        Ok((kind, namespace, workload_kind, workload, name, node, of, service, address))
    }
}

/// The texts of an [`End`].
const TEXTS: usize = 7;

/// What rows of pairs of ends begin with.
#[derive(Clone, Debug)]
pub(crate) struct Pair<'a> {
    pub(crate) source: EncodedEnd<'a>,
    pub(crate) target: EncodedEnd<'a>,
    pub(crate) labels: Labels<'a>,
}

impl<'a> Pair<'a> {
    pub(super) fn read(values: &mut Values<'a>) -> Result<Self, Malformed> {
        Ok(Self {
            source: EncodedEnd::read(values)?,
            target: EncodedEnd::read(values)?,
            labels: Labels::read(values)?,
        })
    }
}

/// What is listed of a pair of ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Labels<'a> {
    pub(crate) server_ports: Listed<[u16; 8]>,
    pub(crate) services: Listed<[&'a str; 1]>,
    pub(crate) client_addresses: Listed<[Ipv6Addr; 1]>,
    pub(crate) server_addresses: Listed<[Ipv6Addr; 1]>,
}

impl<'a> Labels<'a> {
    fn read(values: &mut Values<'a>) -> Result<Self, Malformed> {
        const MOST: usize = MAX_LISTED + 1;
        let ports = values.short_list(MOST)?.iter();
        let server_ports = ports.map(|port| u16::from_le_bytes(*port)).collect();
        let services =
            (0..values.short_length(MOST)?).map(|_| values.text()).collect::<Result<_, _>>()?;
        let mut addresses =
            || Ok(values.short_list(MOST)?.iter().map(|octets| (*octets).into()).collect());
        let (client_addresses, server_addresses) = (addresses()?, addresses()?);
        Ok(Self { server_ports, services, client_addresses, server_addresses })
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.server_ports.add(&other.server_ports);
        self.services.add(&other.services);
        self.client_addresses.add(&other.client_addresses);
        self.server_addresses.add(&other.server_addresses);
    }
}

/// The columns of a [`Pair`], and others.
macro_rules! pair_columns {
    ($($column:expr),+) => {
        &[
            ("source", $crate::sql::pairs::END_TYPE),
            ("target", $crate::sql::pairs::END_TYPE),
            ("server_ports", "Array(UInt16)"),
            ("services", "Array(String)"),
            ("client_addresses", "Array(IPv6)"),
            ("server_addresses", "Array(IPv6)"),
            $($column),+
        ]
    };
}
pub(super) use pair_columns;

/// See [`pair_columns`].
pub(super) const END_TYPE: &str =
    "Tuple(Int8, String, String, String, String, String, String, String, IPv6)";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::histogram::Histogram;
    use crate::sql::binary::ReadRow;
    use crate::sql::binary::tests::{write_length, write_string};
    use crate::sql::{EdgeRow, OpenRow, SUMMED};

    impl EncodedEnd<'static> {
        /// As ClickHouse writes it; never freed.
        pub(crate) fn of(end: &End<&str>) -> Self {
            let (kind, namespace, workload_kind, workload, name, node, of, service, address) = end;
            let mut bytes = kind.to_le_bytes().to_vec();
            for text in [namespace, workload_kind, workload, name, node, of, service] {
                write_string(text.as_bytes(), &mut bytes);
            }
            bytes.extend_from_slice(&address.octets());
            Self(bytes.leak())
        }
    }

    #[test]
    fn an_end_is_read_as_it_was_written() {
        let long = "x".repeat(300);
        for name in ["", "web-1", &long] {
            let address = "2001:db8::7".parse().unwrap();
            let end = (-3, "shop", "Deployment", "web", name, "n1", "of", "service", address);
            let encoded = EncodedEnd::of(&end);
            assert_eq!(encoded.end(), Ok(end));
            let mut values = Values(encoded.0);
            assert_eq!(EncodedEnd::read(&mut values), Ok(encoded));
            assert!(values.0.is_empty());
            for bytes in 0..encoded.0.len() {
                let mut cut = Values(&encoded.0[..bytes]);
                assert_eq!(EncodedEnd::read(&mut cut), Err(Malformed::CutOff), "{bytes}");
            }
        }
    }
    #[test]
    fn a_name_that_is_not_utf8_is_malformed() {
        let mut bytes = vec![1];
        (0..TEXTS).for_each(|_| write_string(&[0xff], &mut bytes));
        bytes.extend_from_slice(&Ipv6Addr::LOCALHOST.octets());
        let end = EncodedEnd::read(&mut Values(&bytes)).unwrap();
        assert_eq!(end.end(), Err(Malformed::NotText));
    }

    /// What a row of an edge or of open connections begins with, with so many Services, and the rest.
    fn row(services: usize, rest: &[u8]) -> Vec<u8> {
        let mut row = Vec::new();
        for end in [b"web", b"api"] {
            row.push(1);
            (0..TEXTS).for_each(|_| write_string(end, &mut row));
            row.extend_from_slice(&[0; 16]);
        }
        row.extend_from_slice(&[1, 187, 1]);
        write_length(services, &mut row);
        (0..services).for_each(|_| write_string(b"shop/web", &mut row));
        for address in [1, 2] {
            row.push(1);
            row.extend_from_slice(&[address; 16]);
        }
        row.extend_from_slice(rest);
        row
    }

    /// What follows in the row of an edge: numbers from 1 on, and buckets of latencies.
    fn sums(buckets: &[[u8; 10]]) -> Vec<u8> {
        let mut numbers = (1_u64..).map(u64::to_le_bytes);
        let mut rest: Vec<_> = numbers.by_ref().take(2).flatten().collect();
        for length in [SUMMED.len(), 3] {
            write_length(length, &mut rest);
            rest.extend(numbers.by_ref().take(length).flatten());
        }
        write_length(buckets.len(), &mut rest);
        rest.extend(buckets.iter().flatten());
        rest.push(0);
        rest
    }

    #[test]
    fn a_row_is_read_to_its_end_and_not_beyond() {
        let one = [7, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        let written = row(2, &sums(&[one]));
        let mut values = Values(&written);
        let read = EdgeRow::read(&mut values).unwrap();
        assert!(values.0.is_empty());
        assert_eq!(
            (read.pair.source.end().unwrap().1, read.pair.target.end().unwrap().1),
            ("web", "api")
        );
        assert_eq!(read.pair.labels.server_ports.told(), [443]);
        assert_eq!(read.pair.labels.services.told(), ["shop/web"]);
        assert_eq!(read.pair.labels.client_addresses.told(), [Ipv6Addr::from([1; 16])]);
        assert_eq!(read.pair.labels.server_addresses.told(), [Ipv6Addr::from([2; 16])]);
        assert_eq!((read.first_seen_ms, read.last_seen_ms), (1, 2));
        assert_eq!((read.sums[0], read.sums[SUMMED.len() - 1]), (3, 30));
        assert_eq!(read.largest, [31, 32, 33]);
        let has_samples = |buckets| Histogram::Read(buckets).quantiles_us([0.5]).is_some();
        assert!(has_samples(read.latency_buckets) && !has_samples(read.first_response_buckets));
        for end in 0..written.len() {
            let cut = EdgeRow::read(&mut Values(&written[..end])).map(|_| ());
            assert_eq!(cut, Err(Malformed::CutOff), "{end}");
        }
        let edge = |written: &[u8]| EdgeRow::read(&mut Values(written)).map(|_| ());
        assert_eq!(edge(&row(2, &sums(&[one, one]))), Err(Malformed::Buckets));
        let many = MAX_LISTED + 2;
        assert_eq!(edge(&row(many, &sums(&[]))), Err(Malformed::Length(many)));
        assert_eq!(edge(&row(many - 1, &sums(&[]))), Ok(()));

        let numbers = [5_u32.to_le_bytes().to_vec(), 6_u64.to_le_bytes().to_vec(), vec![7; 8]];
        let written = row(0, &numbers.concat());
        let mut values = Values(&written);
        let read = OpenRow::read(&mut values).unwrap();
        assert!(values.0.is_empty());
        let told = (read.at_s, read.connections, read.inferred);
        assert_eq!(told, (5, 6, u64::from_le_bytes([7; 8])));
    }

    proptest! {
        #[test]
        fn whatever_bytes_are_rows_or_malformed(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
            byte: u8,
        ) {
            let mut changed = row(1, &sums(&[[7, 0, 1, 0, 0, 0, 0, 0, 0, 0]]));
            *at.get_mut(&mut changed) = byte;
            for bytes in [bytes.as_slice(), &changed, &[changed.as_slice(), &bytes].concat()] {
                if let Ok(row) = EdgeRow::read(&mut Values(bytes)) {
                    let _ = (row.pair.source.end(), row.pair.target.end());
                    let first_response = Histogram::Read(row.first_response_buckets);
                    Histogram::Read(row.latency_buckets).merge(&first_response);
                }
                let _ = OpenRow::read(&mut Values(bytes));
            }
        }
    }
}
