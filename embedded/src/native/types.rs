//! ClickHouse's types, as far as the layout of their values goes.

use std::sync::Arc;

use crate::exception::Exception;

/// Deepest nesting of types: ClickHouse's own parser stops sooner.
const MAX_DEPTH: usize = 100;

/// How a type's values are laid out in a column.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// So many bytes each.
    Fixed(u64),
    /// A length and bytes.
    Text,
    Nullable(Arc<Type>),
    Array(Arc<Type>),
    /// The elements' columns, one after the other; never without elements.
    Tuple(Vec<Arc<Type>>),
    /// Keys and indexes.
    LowCardinality(Arc<Type>),
    /// As text, with a version before all.
    Json,
}

impl Type {
    /// Reads a type's name.
    ///
    /// # Errors
    /// If its layout is not known here.
    pub(super) fn parse(name: &[u8]) -> Result<Self, Exception> {
        let unknown = || {
            Exception::not_implemented(&format!(
                "The embedded engine cannot give the type {} to a client that asks for client_protocol_version: cast it, with toString for example",
                String::from_utf8_lossy(name)
            ))
        };
        let name = std::str::from_utf8(name).map_err(|_| unknown())?;
        parse(name, MAX_DEPTH).ok_or_else(unknown)
    }
}

fn parse(name: &str, depth: usize) -> Option<Type> {
    let depth = depth.checked_sub(1)?;
    let name = name.trim();
    let (family, arguments) = match name.split_once('(') {
        Some((family, rest)) => (family, split(rest.strip_suffix(')')?)),
        None => (name, Vec::new()),
    };
    let nested = |at: usize| parse(arguments.get(at)?, depth).map(Arc::new);
    let point = || Type::Tuple(vec![Arc::new(Type::Fixed(8)), Arc::new(Type::Fixed(8))]);
    let array_of = |inner: Type| Type::Array(Arc::new(inner));
    Some(match family {
        "Nothing" | "Bool" | "Int8" | "UInt8" | "Enum8" => Type::Fixed(1),
        "Int16" | "UInt16" | "Enum16" | "Date" | "BFloat16" => Type::Fixed(2),
        "Int32" | "UInt32" | "Float32" | "Date32" | "DateTime" | "IPv4" | "Time" => Type::Fixed(4),
        "Int64" | "UInt64" | "Float64" | "DateTime64" | "Time64" => Type::Fixed(8),
        "Int128" | "UInt128" | "UUID" | "IPv6" => Type::Fixed(16),
        "Int256" | "UInt256" => Type::Fixed(32),
        family if family.starts_with("Interval") && arguments.is_empty() => Type::Fixed(8),
        "Decimal" => Type::Fixed(match arguments.first()?.parse::<u8>().ok()? {
            1..=9 => 4,
            10..=18 => 8,
            19..=38 => 16,
            39..=76 => 32,
            _ => return None,
        }),
        "FixedString" => Type::Fixed(arguments.first()?.parse().ok()?),
        "String" => Type::Text,
        "JSON" => Type::Json,
        "Nullable" => Type::Nullable(nested(0)?),
        "Array" => Type::Array(nested(0)?),
        "SimpleAggregateFunction" => parse(arguments.last()?, depth)?,
        // A null is one of the keys.
        "LowCardinality" => Type::LowCardinality(match parse(arguments.first()?, depth)? {
            Type::Nullable(inner) => inner,
            inner => Arc::new(inner),
        }),
        // A byte for each row stands for a value without elements.
        "Tuple" if arguments.is_empty() => Type::Fixed(1),
        "Tuple" => Type::Tuple(elements(&arguments, depth)?),
        "Map" => array_of(Type::Tuple(vec![nested(0)?, nested(1)?])),
        "Nested" => array_of(Type::Tuple(elements(&arguments, depth)?)),
        "Point" => point(),
        "Ring" | "LineString" => array_of(point()),
        "Polygon" | "MultiLineString" => array_of(array_of(point())),
        "MultiPolygon" => array_of(array_of(array_of(point()))),
        _ => return None,
    })
}

/// The types of a tuple's elements, which may have names: bare words, or quoted.
fn elements(arguments: &[&str], depth: usize) -> Option<Vec<Arc<Type>>> {
    let element = |argument: &&str| {
        let argument = argument.trim();
        let name = match argument.strip_prefix('`') {
            Some(quoted) => 1 + quoted_length(quoted, b'`')?,
            None => {
                let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
                argument.bytes().take_while(|byte| word(*byte)).count()
            }
        };
        // A type of two words there is not: what stands before a blank is a name.
        let of = argument.get(name..)?.strip_prefix(' ').unwrap_or(argument);
        parse(of, depth).map(Arc::new)
    };
    arguments.iter().map(element).collect()
}

/// The arguments of a type, without those of their own.
fn split(arguments: &str) -> Vec<&str> {
    let bytes = arguments.as_bytes();
    let (mut parts, mut start, mut depth, mut at) = (Vec::new(), 0, 0_usize, 0);
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b'\'' | b'`' | b'"' => {
                let rest = arguments.get(at..).unwrap_or_default();
                at += quoted_length(rest, byte).unwrap_or(rest.len());
            }
            b',' if depth == 0 => {
                parts.extend(arguments.get(start..at - 1));
                start = at;
            }
            _ => {}
        }
    }
    parts.extend(arguments.get(start..).filter(|last| !last.trim().is_empty()));
    parts
}

/// Length of a quoted text after its first quote, the last quote included.
fn quoted_length(text: &str, quote: u8) -> Option<usize> {
    let mut escaped = false;
    let end = text.bytes().position(|byte| {
        let ends = byte == quote && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    Some(end? + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Type {
        Type::parse(name.as_bytes()).unwrap()
    }

    fn array(inner: Type) -> Type {
        Type::Array(Arc::new(inner))
    }

    fn tuple(elements: impl IntoIterator<Item = Type>) -> Type {
        Type::Tuple(elements.into_iter().map(Arc::new).collect())
    }

    #[test]
    fn names_are_layouts() {
        for (name, layout) in [
            ("UInt64", Type::Fixed(8)),
            ("Decimal(10, 3)", Type::Fixed(8)),
            ("DateTime64(3, 'Europe/Berlin')", Type::Fixed(8)),
            (r"Enum8('a, (' = 1, 'it\'s' = 2)", Type::Fixed(1)),
            ("IntervalSecond", Type::Fixed(8)),
            ("FixedString(7)", Type::Fixed(7)),
            ("Tuple()", Type::Fixed(1)),
            ("Array(Array(String))", array(array(Type::Text))),
            ("LowCardinality(Nullable(String))", Type::LowCardinality(Arc::new(Type::Text))),
            ("SimpleAggregateFunction(sum, UInt64)", Type::Fixed(8)),
            ("Map(String, Array(Int8))", array(tuple([Type::Text, array(Type::Fixed(1))]))),
            ("Tuple(a Int8, `b, c` Tuple(Date, String), UUID)", {
                tuple([Type::Fixed(1), tuple([Type::Fixed(2), Type::Text]), Type::Fixed(16)])
            }),
            ("Tuple(Nullable Int8)", tuple([Type::Fixed(1)])),
            ("Nested(x UInt16, y Enum8('a' = 1))", array(tuple([Type::Fixed(2), Type::Fixed(1)]))),
            ("Ring", array(tuple([Type::Fixed(8), Type::Fixed(8)]))),
            ("JSON(max_dynamic_paths=10)", Type::Json),
        ] {
            assert_eq!(of(name), layout, "{name}");
        }
    }

    #[test]
    fn other_types_are_refused_by_name() {
        let deep = format!("{}Int8{}", "Array(".repeat(200), ")".repeat(200));
        for name in ["AggregateFunction(sum, UInt8)", "Dynamic", "Array(Variant(Int8))", "", &deep]
        {
            let error = Type::parse(name.as_bytes()).unwrap_err();
            assert!(error.code == 48 && error.message.contains(name), "{}", error.message);
        }
    }
}
