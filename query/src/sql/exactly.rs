//! Numbers of which a statement answers so many each time: read into their place.

use std::fmt::{self, Formatter};

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// An `Array(UInt64)` of exactly so many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exactly<const N: usize>(pub(crate) [u64; N]);

impl<'de, const N: usize> Deserialize<'de> for Exactly<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Numbers<const N: usize>;

        impl<'de, const N: usize> Visitor<'de> for Numbers<N> {
            type Value = Exactly<N>;

            fn expecting(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
                write!(formatter, "{N} numbers")
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut sequence: A,
            ) -> Result<Self::Value, A::Error> {
                let mut numbers = [0; N];
                for (place, number) in numbers.iter_mut().enumerate() {
                    let next = sequence.next_element()?;
                    *number = next.ok_or_else(|| A::Error::invalid_length(place, &self))?;
                }
                match sequence.next_element::<u64>()? {
                    None => Ok(Exactly(numbers)),
                    Some(_) => Err(A::Error::invalid_length(N + 1, &self)),
                }
            }
        }

        deserializer.deserialize_seq(Numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_and_fewer_are_errors() {
        let of = |text: &str| serde_json::from_str::<Exactly<2>>(text).map(|exactly| exactly.0);
        assert_eq!(of("[1,2]").unwrap(), [1, 2]);
        for other in ["[]", "[1]", "[1,2,3]"] {
            assert!(of(other).is_err(), "{other}");
        }
    }
}
