//! What a committed offset says beside itself, in its metadata: of which topic it is, and which chunk
//! was begun there.

use std::fmt;
use std::str::FromStr;

/// The metadata of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Id of the topic that the offset is of.
    pub(crate) topic_id: String,
    /// The chunk that begins at the offset and may be in the tables, in part or whole.
    pub(crate) pending: Option<Pending>,
}

/// A chunk whose insert was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    /// First offset after the chunk.
    pub(crate) end: u64,
    /// Hash of its messages.
    pub(crate) hash: u64,
}

/// What it begins with: another program's metadata does not.
const TAG: &str = "flowtrail/1";

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TAG} {}", self.topic_id)?;
        match self.pending {
            Some(Pending { end, hash }) => write!(f, " {end} {hash:016x}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Mark {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.split(' ');
        if words.next() != Some(TAG) {
            return Err(());
        }
        let topic_id = words.next().filter(|id| !id.is_empty()).ok_or(())?.to_owned();
        let pending = match (words.next(), words.next(), words.next()) {
            (None, ..) => None,
            (Some(end), Some(hash), None) => Some(Pending {
                end: end.parse().map_err(drop)?,
                hash: u64::from_str_radix(hash, 16).map_err(drop)?,
            }),
            _ => return Err(()),
        };
        Ok(Self { topic_id, pending })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written_and_nothing_else_is() {
        let pending = Some(Pending { end: 1_234, hash: 0xab });
        for pending in [None, pending] {
            let mark = Mark { topic_id: "dGVzdA".to_owned(), pending };
            assert_eq!(mark.to_string().parse(), Ok(mark));
        }
        let refused = ["", "flowtrail/1", "flowtrail/1 ", "flowtrail/2 a", "flowtrail/1 a 1"];
        for text in refused.into_iter().chain(["flowtrail/1 a b c", "flowtrail/1 a 1 f 2"]) {
            assert_eq!(text.parse::<Mark>(), Err(()), "{text:?}");
        }
    }
}
