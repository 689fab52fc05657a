//! The filter language of `q`: text → fields, operators and values → conditions on rows, which become SQL, and
//! conditions on sums, which are computed of each edge. `docs/filters.md` is for its users.
//!
//! ```text
//! any       = all { "or" all }
//! all       = term { "and" term }
//! term      = "not" term | "(" any ")" | condition
//! condition = field ( "=" | "!=" | "<" | "<=" | ">" | ">=" ) ( value | field )
//!           | text-field ( "=~" | "!~" ) quoted
//!           | field [ "not" ] "in" "(" value { "," value } ")"
//! ```

mod check;
mod fields;
mod number;
mod print;
mod rows;
mod sums;
mod syntax;

use std::str::FromStr;

use fields::{Field, Source};
use flowtrail_schema::row::EntityKind;
use ipnet::Ipv6Net;
use number::Number;
use thiserror::Error;

/// Deepest nesting of parentheses and `not`: more than a person follows, and little of a stack.
const MAX_NESTING: usize = 32;

/// A filter as `q` says it. The default keeps everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expression {
    /// On single rows, before they are folded.
    rows: Option<Tree>,
    /// On an edge's sums, of the rows that are kept.
    sums: Option<Tree>,
}

/// Why a text is no expression.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("at character {character}: {detail}")]
pub struct ExpressionError {
    /// Where it goes wrong, counted from 1.
    pub character: usize,
    /// What is wrong, and what is possible there.
    pub detail: String,
}

/// Conditions and how they are joined. `All` and `Any` have two parts or more, none of the same sort.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tree {
    All(Vec<Tree>),
    Any(Vec<Tree>),
    Not(Box<Tree>),
    Is(Condition),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    field: &'static Field,
    negated: bool,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Compare(Comparison, Operand),
    Matches(String),
    In(Vec<Value>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operand {
    /// One that holds the like.
    Field(&'static Field),
    Value(Value),
}

/// Of what the field holds that it is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Text(String),
    Kind(EntityKind),
    Port(u16),
    /// An address is one of 128 bits; IPv4 is mapped.
    Network(Ipv6Net),
    Number(Number),
}

impl Expression {
    /// Longest that is read, in bytes: more than a person types, and short enough for a URL.
    pub const MAX_LENGTH: usize = 4_096;

    /// Whether it looks at an edge's sums.
    pub(crate) fn reads_sums(&self) -> bool {
        self.sums.is_some()
    }

    /// Whether it looks at pods, cluster nodes or addresses, which only some tables tell.
    pub(crate) fn reads_pods(&self) -> bool {
        self.rows.as_ref().is_some_and(|tree| {
            tree.any_condition(&mut |condition| {
                let reads_pods =
                    |field: &Field| matches!(field.source, Source::Row(row) if row.reads_pods);
                let other = match &condition.test {
                    Test::Compare(_, Operand::Field(other)) => reads_pods(other),
                    _ => false,
                };
                other || reads_pods(condition.field)
            })
        })
    }
}

impl FromStr for Expression {
    type Err = ExpressionError;

    /// An empty text keeps everything.
    fn from_str(text: &str) -> Result<Self, ExpressionError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let parts = syntax::read(text).and_then(|syntax| check::parts(&syntax));
        let (rows, sums) = parts.map_err(|refusal| ExpressionError {
            character: text.char_indices().take_while(|(at, _)| *at < refusal.at).count() + 1,
            detail: refusal.detail,
        })?;
        let joined = |parts: Vec<Tree>| (!parts.is_empty()).then(|| Tree::all(parts));
        Ok(Self { rows: joined(rows), sums: joined(sums) })
    }
}

impl Tree {
    /// All of some, at least one: flat.
    fn all(parts: Vec<Self>) -> Self {
        let flat = parts.into_iter().flat_map(|part| match part {
            Self::All(parts) => parts,
            part => vec![part],
        });
        Self::one_or(flat.collect(), Self::All)
    }

    /// Any of some, at least one: flat.
    fn any(parts: Vec<Self>) -> Self {
        let flat = parts.into_iter().flat_map(|part| match part {
            Self::Any(parts) => parts,
            part => vec![part],
        });
        Self::one_or(flat.collect(), Self::Any)
    }

    fn one_or(mut parts: Vec<Self>, several: fn(Vec<Self>) -> Self) -> Self {
        if parts.len() == 1 { parts.remove(0) } else { several(parts) }
    }

    fn any_condition(&self, holds: &mut impl FnMut(&Condition) -> bool) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) => {
                parts.iter().any(|part| part.any_condition(holds))
            }
            Self::Not(inner) => inner.any_condition(holds),
            Self::Is(condition) => holds(condition),
        }
    }
}

#[cfg(test)]
mod tests;
