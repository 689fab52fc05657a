//! Conditions on rows → SQL with bound parameters `q0`, `q1`, …: its text is columns and operators of ours.

use clickhouse::query::Query;

use super::fields::{Field, Row, RowKind, Source};
use super::{Comparison, Condition, Expression, Operand, Test, Tree, Value};

impl Expression {
    /// The condition on a row of `flows` or of a rollup, naming the parameters that [`Self::bind`] gives.
    pub(crate) fn sql(&self) -> Option<String> {
        self.rows.as_ref().map(|tree| Statement::of(tree).0)
    }

    /// Binds what the caller sent.
    pub(crate) fn bind(&self, query: Query) -> Query {
        let bound = self.rows.as_ref().map(|tree| Statement::of(tree).1).unwrap_or_default();
        bound.into_iter().enumerate().fold(query, |query, (number, value)| {
            let name = format!("q{number}");
            match value {
                Bound::Text(text) => query.param(&name, text),
                Bound::Texts(texts) => query.param(&name, texts),
                Bound::Number(number) => query.param(&name, number),
                Bound::Numbers(numbers) => query.param(&name, numbers),
            }
        })
    }
}

/// A parameter's value.
enum Bound {
    Text(String),
    /// Also addresses.
    Texts(Vec<String>),
    /// A kind or a port.
    Number(u16),
    Numbers(Vec<u16>),
}

/// A statement's parameters, while its text is written.
#[derive(Default)]
struct Statement {
    bound: Vec<Bound>,
}

impl Statement {
    fn of(tree: &Tree) -> (String, Vec<Bound>) {
        let mut statement = Self::default();
        (statement.tree(tree), statement.bound)
    }

    fn tree(&mut self, tree: &Tree) -> String {
        let mut joined = |parts: &[Tree], by: &str| {
            let parts: Vec<_> = parts.iter().map(|part| self.tree(part)).collect();
            format!("({})", parts.join(by))
        };
        match tree {
            Tree::All(parts) => joined(parts, " AND "),
            Tree::Any(parts) => joined(parts, " OR "),
            Tree::Not(inner) => format!("NOT {}", self.tree(inner)),
            Tree::Is(condition) => self.condition(condition),
        }
    }

    /// Of two columns that tell one thing either may do.
    fn condition(&mut self, condition: &Condition) -> String {
        let Some(row) = row(condition.field) else { return "false".to_owned() };
        let tests = match &condition.test {
            Test::Compare(comparison, operand) => self.compare(row, *comparison, operand),
            Test::Matches(pattern) => {
                let pattern = self.bind(Bound::Text(pattern.clone()), "String");
                row.columns.iter().map(|column| format!("match({column}, {pattern})")).collect()
            }
            Test::In(values) => {
                let one_of = self.one_of(row.kind, values);
                row.columns.iter().map(|column| one_of(&value_of(row.kind, column))).collect()
            }
        };
        let not = if condition.negated { "NOT " } else { "" };
        format!("{not}({})", tests.join(" OR "))
    }

    fn compare(&mut self, row: Row, comparison: Comparison, operand: &Operand) -> Vec<String> {
        let operator = match comparison {
            Comparison::Equal => "=",
            Comparison::Less => "<",
            Comparison::LessOrEqual => "<=",
            Comparison::Greater => ">",
            Comparison::GreaterOrEqual => ">=",
        };
        let others: Vec<String> = match operand {
            Operand::Field(other) => {
                let columns = self::row(other).map_or(&[] as &[_], |other| other.columns);
                columns.iter().map(|column| value_of(row.kind, column)).collect()
            }
            Operand::Value(value) => vec![self.value(value)],
        };
        let each = |column: &&str| {
            let column = value_of(row.kind, column);
            let test = move |other: &String| format!("{column} {operator} {other}");
            others.iter().map(test).collect::<Vec<_>>()
        };
        row.columns.iter().flat_map(each).collect()
    }

    fn value(&mut self, value: &Value) -> String {
        match value {
            Value::Text(text) => self.bind(Bound::Text(text.clone()), "String"),
            Value::Network(network) => self.bind(Bound::Text(network.addr().to_string()), "IPv6"),
            Value::Kind(_) | Value::Port(_) | Value::Number(_) => {
                self.bind(Bound::Number(number(value)), "UInt16")
            }
        }
    }

    /// Whether a column's value is among some of its kind.
    fn one_of(&mut self, kind: RowKind, values: &[Value]) -> Box<dyn Fn(&str) -> String> {
        if kind == RowKind::Address {
            let networks = values.iter().filter_map(|value| match value {
                Value::Network(network) => Some(network),
                _ => None,
            });
            let (first, last) = networks
                .map(|network| (network.network().to_string(), network.broadcast().to_string()))
                .unzip();
            let first = self.bind(Bound::Texts(first), "Array(IPv6)");
            let last = self.bind(Bound::Texts(last), "Array(IPv6)");
            return Box::new(move |column| {
                format!(
                    "arrayExists((first, last) -> {column} >= first AND {column} <= last, {first}, {last})"
                )
            });
        }
        let list = if kind == RowKind::Text {
            let texts = values.iter().filter_map(|value| match value {
                Value::Text(text) => Some(text.clone()),
                _ => None,
            });
            self.bind(Bound::Texts(texts.collect()), "Array(String)")
        } else {
            self.bind(Bound::Numbers(values.iter().map(number).collect()), "Array(UInt16)")
        };
        Box::new(move |column| format!("{column} IN {list}"))
    }

    /// Names a parameter.
    fn bind(&mut self, value: Bound, of_type: &str) -> String {
        let name = format!("{{q{}:{of_type}}}", self.bound.len());
        self.bound.push(value);
        name
    }
}

/// A column as what is compared. Enums are compared by their numbers.
fn value_of(kind: RowKind, column: &str) -> String {
    match kind {
        RowKind::EntityKind => format!("toUInt16({column})"),
        RowKind::Text | RowKind::Port | RowKind::Address => column.to_owned(),
    }
}

/// A kind's or a port's number.
fn number(value: &Value) -> u16 {
    match value {
        Value::Port(port) => *port,
        Value::Kind(kind) => kind.number().unsigned_abs().into(),
        Value::Text(_) | Value::Network(_) | Value::Number(_) => 0,
    }
}

fn row(field: &Field) -> Option<Row> {
    match field.source {
        Source::Row(row) => Some(row),
        Source::Sum(_) => None,
    }
}
