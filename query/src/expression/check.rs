//! What a text says → an expression: names become fields, words become values of what the field holds, and
//! conditions on rows are told from conditions on sums.

use std::net::IpAddr;

use flowtrail_schema::row::EntityKind;
use ipnet::{IpNet, Ipv6Net};

use super::fields::{Field, RowKind, Source};
use super::syntax::{self, Operator, Refusal, Syntax};
use super::{Comparison, Condition, Operand, Test, Tree, Value};
use crate::params::{MAX_LIST, check_pattern};

/// Regular expressions of one expression, at most: each is compiled here before ClickHouse is asked, which
/// takes milliseconds.
const MAX_PATTERNS: usize = 8;

/// What a tree's conditions are on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Rows,
    Sums,
    Both,
}

/// The expression's parts: on rows and on sums, all of which hold.
pub(super) fn parts(syntax: &Syntax<'_>) -> Result<(Vec<Tree>, Vec<Tree>), Refusal> {
    let (mut rows, mut sums) = (Vec::new(), Vec::new());
    let mut checker = Checker { patterns: 0 };
    checker.split(syntax, &mut rows, &mut sums)?;
    Ok((rows, sums))
}

struct Checker {
    patterns: usize,
}

impl Checker {
    fn split(
        &mut self,
        syntax: &Syntax<'_>,
        rows: &mut Vec<Tree>,
        sums: &mut Vec<Tree>,
    ) -> Result<(), Refusal> {
        if let Syntax::All(parts) = syntax {
            return parts.iter().try_for_each(|part| self.split(part, rows, sums));
        }
        match self.tree(syntax)? {
            (tree, Level::Rows) => rows.push(tree),
            (tree, _) => sums.push(tree),
        }
        Ok(())
    }

    /// A tree that is not of both levels, but for an `and`.
    fn tree(&mut self, syntax: &Syntax<'_>) -> Result<(Tree, Level), Refusal> {
        match syntax {
            Syntax::Condition(condition) => self.condition(condition),
            Syntax::Not(at, inner) => match self.tree(inner)? {
                (_, Level::Both) => Err(both_levels(*at, "not")),
                (tree, level) => Ok((Tree::Not(Box::new(tree)), level)),
            },
            Syntax::All(parts) => {
                let (trees, levels) = self.trees(parts)?;
                let one =
                    levels.iter().copied().reduce(|a, b| if a == b { a } else { Level::Both });
                Ok((Tree::all(trees), one.unwrap_or(Level::Rows)))
            }
            Syntax::Any(parts) => {
                let (trees, levels) = self.trees(parts)?;
                let first = levels.first().copied().unwrap_or(Level::Rows);
                let other = |level: &Level| *level == Level::Both || *level != first;
                match levels.iter().position(other) {
                    Some(index) => Err(both_levels(parts[index].at(), "or")),
                    None => Ok((Tree::any(trees), first)),
                }
            }
        }
    }

    fn trees(&mut self, parts: &[Syntax<'_>]) -> Result<(Vec<Tree>, Vec<Level>), Refusal> {
        let trees: Result<Vec<_>, _> = parts.iter().map(|part| self.tree(part)).collect();
        Ok(trees?.into_iter().unzip())
    }

    fn condition(&mut self, said: &syntax::Condition<'_>) -> Result<(Tree, Level), Refusal> {
        let field = Field::named(said.field).ok_or_else(|| unknown(said.at, said.field))?;
        let [first, ..] = said.operands.as_slice() else {
            return Err(Refusal { at: said.operator_at, detail: "without a value".to_owned() });
        };
        let test = match said.operator {
            Operator::In => {
                if said.operands.len() > MAX_LIST {
                    let detail = format!("takes at most {MAX_LIST} values");
                    return Err(Refusal { at: said.operator_at, detail });
                }
                let values = said.operands.iter().map(|operand| value(field, operand));
                Test::In(values.collect::<Result<_, _>>()?)
            }
            Operator::Matches => self.pattern(field, said.operator_at, first)?,
            Operator::Equal => Test::Compare(Comparison::Equal, operand(field, first)?),
            Operator::Less => ordered(field, Comparison::Less, said.operator_at, first)?,
            Operator::LessOrEqual => {
                ordered(field, Comparison::LessOrEqual, said.operator_at, first)?
            }
            Operator::Greater => ordered(field, Comparison::Greater, said.operator_at, first)?,
            Operator::GreaterOrEqual => {
                ordered(field, Comparison::GreaterOrEqual, said.operator_at, first)?
            }
        };
        let level = match field.source {
            Source::Row(_) => Level::Rows,
            Source::Sum(_) => Level::Sums,
        };
        Ok((Tree::Is(Condition { field, negated: said.negated, test }), level))
    }

    fn pattern(
        &mut self,
        field: &'static Field,
        operator_at: usize,
        operand: &syntax::Operand,
    ) -> Result<Test, Refusal> {
        if !matches!(field.source, Source::Row(row) if row.kind == RowKind::Text) {
            let detail = format!(
                "=~ and !~ are for texts, and {} is {}: it takes {}",
                field.name,
                field.holds(),
                operators(field)
            );
            return Err(Refusal { at: operator_at, detail });
        }
        let refused = |detail| Refusal { at: operand.at, detail };
        if !operand.quoted {
            return Err(refused("write the regular expression in quotes".to_owned()));
        }
        self.patterns += 1;
        if self.patterns > MAX_PATTERNS {
            return Err(refused(format!("at most {MAX_PATTERNS} regular expressions are taken")));
        }
        check_pattern(&operand.text).map_err(refused)?;
        Ok(Test::Matches(operand.text.clone()))
    }
}

fn both_levels(at: usize, word: &str) -> Refusal {
    let detail = format!(
        "`{word}` is over conditions on rows (names, kinds, ports, addresses) and on an edge's sums: which rows \
         an edge is summed of must be known before its sums are; join the two by `and`, or ask twice"
    );
    Refusal { at, detail }
}

fn unknown(at: usize, name: &str) -> Refusal {
    let shown: String = name.chars().take(60).collect();
    let detail = format!("no field is called {shown:?}; the nearest are {}", near(name));
    Refusal { at, detail }
}

fn near(name: &str) -> String {
    Field::nearest(name).join(", ")
}

/// Operators that a field takes.
fn operators(field: &Field) -> &'static str {
    match field.source {
        Source::Row(row) => match row.kind {
            RowKind::Text => "=, !=, =~, !~, in, not in",
            RowKind::EntityKind | RowKind::Address => "=, !=, in, not in",
            RowKind::Port => "=, !=, <, <=, >, >=, in, not in",
        },
        Source::Sum(_) => "=, !=, <, <=, >, >=, in, not in",
    }
}

fn ordered(
    field: &'static Field,
    comparison: Comparison,
    operator_at: usize,
    said: &syntax::Operand,
) -> Result<Test, Refusal> {
    let is_ordered = match field.source {
        Source::Row(row) => row.kind == RowKind::Port,
        Source::Sum(_) => true,
    };
    if is_ordered {
        return Ok(Test::Compare(comparison, operand(field, said)?));
    }
    let detail = format!(
        "{} is {}, without an order: it takes {}",
        field.name,
        field.holds(),
        operators(field)
    );
    Err(Refusal { at: operator_at, detail })
}

/// What a field is compared with: another that holds the like, or a value.
fn operand(field: &'static Field, said: &syntax::Operand) -> Result<Operand, Refusal> {
    if let Some(other) = Field::named(&said.text).filter(|_| !said.quoted) {
        if field.is_like(other) {
            return Ok(Operand::Field(other));
        }
        let mut detail = format!(
            "{} is {} and {} is {}: they cannot be compared",
            field.name,
            field.holds(),
            other.name,
            other.holds()
        );
        if field.holds() == "a text" {
            detail.push_str(&format!("; the text is written \"{}\"", said.text));
        }
        return Err(Refusal { at: said.at, detail });
    }
    let value = value(field, said)?;
    match &value {
        Value::Network(network) if network.prefix_len() < 128 => {
            let detail = format!("{} is a network: write {} in ({0})", said.text, field.name);
            Err(Refusal { at: said.at, detail })
        }
        _ => Ok(Operand::Value(value)),
    }
}

fn value(field: &Field, said: &syntax::Operand) -> Result<Value, Refusal> {
    let text = said.text.as_str();
    let shown: String = text.chars().take(60).collect();
    let refused = |takes: &str| {
        let detail = format!("{shown:?}: {} takes {takes}", field.name);
        Refusal { at: said.at, detail }
    };
    match field.source {
        Source::Sum(sum) => {
            let unit = sum.unit();
            let number = unit.read(text).filter(|_| !said.quoted).map(Value::Number);
            number.ok_or_else(|| match starts_number(text) {
                false if !said.quoted => refused(&format!(
                    "{}, or a field: the nearest are {}",
                    unit.takes(),
                    near(text)
                )),
                _ => refused(unit.takes()),
            })
        }
        Source::Row(row) => match row.kind {
            RowKind::Text if said.quoted => Ok(Value::Text(text.to_owned())),
            RowKind::Text => bare_text(field, said),
            RowKind::EntityKind => {
                let known = EntityKind::ALL.iter().find(|kind| kind.as_str() == text);
                known.copied().map(Value::Kind).ok_or_else(|| {
                    let words: Vec<_> = EntityKind::ALL.iter().map(|kind| kind.as_str()).collect();
                    refused(&format!("one of {}", words.join(", ")))
                })
            }
            RowKind::Port => {
                let port = text.parse().ok().filter(|port| *port > 0 && !said.quoted);
                port.map(Value::Port).ok_or_else(|| refused("a TCP port, 1 to 65535"))
            }
            RowKind::Address => network(text).map(Value::Network).map_err(|takes| refused(&takes)),
        },
    }
}

fn starts_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.')
}

/// A text without quotes: a plain word, which no field's name can be meant by.
fn bare_text(field: &Field, said: &syntax::Operand) -> Result<Value, Refusal> {
    let text = said.text.as_str();
    let detail = if Field::named(text).is_some() {
        format!("a list has values, no fields; the text is written \"{text}\"")
    } else if text.contains(['.', '_', ':', '/']) {
        format!(
            "no field is called {text:?} (the nearest are {}); if it is a text, write it in quotes",
            near(text)
        )
    } else if ["and", "or", "not", "in"].contains(&text.to_lowercase().as_str()) {
        format!("{} takes a text in quotes, or a field", field.name)
    } else {
        return Ok(Value::Text(text.to_owned()));
    };
    Err(Refusal { at: said.at, detail })
}

/// An address or a network, IPv4 mapped as in the tables.
fn network(text: &str) -> Result<Ipv6Net, String> {
    let takes =
        "an address, as in 10.1.2.3 or 2001:db8::1, or in a list also a network, as in 10.0.0.0/8";
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().map_err(|_| takes.to_owned())?,
    };
    if network != network.trunc() {
        return Err(format!("a network without bits after its prefix: use {}", network.trunc()));
    }
    match network {
        IpNet::V6(network) => Ok(network),
        IpNet::V4(network) => {
            let mapped = network.addr().to_ipv6_mapped();
            Ipv6Net::new(mapped, network.prefix_len() + 96).map_err(|_| takes.to_owned())
        }
    }
}
