//! An expression as text that reads the same.

use std::fmt::{self, Display, Formatter};

use super::{Comparison, Condition, Expression, Operand, Test, Tree, Value};

impl Display for Expression {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = [&self.rows, &self.sums].into_iter().flatten().collect();
        joined(f, &parts, " and ", |f, part| part.within_all(f))
    }
}

impl Tree {
    fn within_all(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if matches!(self, Self::Any(_)) { write!(f, "({self})") } else { write!(f, "{self}") }
    }
}

impl Display for Tree {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(parts) => joined(f, parts, " and ", |f, part| part.within_all(f)),
            Self::Any(parts) => joined(f, parts, " or ", |f, part| part.fmt(f)),
            Self::Not(inner) => match **inner {
                Self::All(_) | Self::Any(_) => write!(f, "not ({inner})"),
                _ => write!(f, "not {inner}"),
            },
            Self::Is(condition) => condition.fmt(f),
        }
    }
}

impl Display for Condition {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.field.name)?;
        match &self.test {
            Test::Compare(comparison, operand) => {
                let operator = match comparison {
                    Comparison::Equal if self.negated => "!=",
                    Comparison::Equal => "=",
                    Comparison::Less => "<",
                    Comparison::LessOrEqual => "<=",
                    Comparison::Greater => ">",
                    Comparison::GreaterOrEqual => ">=",
                };
                write!(f, " {operator} ")?;
                match operand {
                    Operand::Field(field) => f.write_str(field.name),
                    Operand::Value(value) => value.fmt(f),
                }
            }
            Test::Matches(pattern) => {
                f.write_str(if self.negated { " !~ " } else { " =~ " })?;
                quoted(f, pattern)
            }
            Test::In(values) => {
                f.write_str(if self.negated { " not in (" } else { " in (" })?;
                joined(f, values, ", ", |f, value| value.fmt(f))?;
                f.write_str(")")
            }
        }
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => quoted(f, text),
            Self::Kind(kind) => f.write_str(kind.as_str()),
            Self::Port(port) => port.fmt(f),
            Self::Network(network) => network.fmt(f),
            Self::Number(number) => number.fmt(f),
        }
    }
}

fn quoted(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    write!(f, "\"{}\"", text.replace('"', "\"\""))
}

fn joined<T>(
    f: &mut Formatter<'_>,
    parts: &[T],
    by: &str,
    one: impl Fn(&mut Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(by)?;
        }
        one(f, part)?;
    }
    Ok(())
}
