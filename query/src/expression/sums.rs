//! Conditions on an edge's sums, computed.

use std::cmp::Ordering;

use super::fields::{Field, Source, Sum};
use super::{Comparison, Condition, Expression, Operand, Test, Tree, Value};
use crate::graph::Sums;

/// A value of an edge. What is compared is of one unit, so both are whole or neither is.
#[derive(Clone, Copy)]
enum Amount {
    Whole(u64),
    Real(f64),
}

impl Expression {
    /// Whether an edge is kept, by its sums.
    pub(crate) fn keeps(&self, sums: &Sums<'_>) -> bool {
        self.sums.as_ref().is_none_or(|tree| tree.holds(sums))
    }
}

impl Tree {
    fn holds(&self, sums: &Sums<'_>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(sums)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(sums)),
            Self::Not(inner) => !inner.holds(sums),
            Self::Is(condition) => condition.holds(sums),
        }
    }
}

impl Condition {
    /// Nothing holds of what was not measured: an average or quantile without a sample.
    fn holds(&self, sums: &Sums<'_>) -> bool {
        let Some(amount) = amount(self.field, sums) else { return false };
        let holds = match &self.test {
            Test::Compare(comparison, Operand::Field(other)) => {
                let Some(other) = self::amount(other, sums) else { return false };
                comparison.holds(amount.compare(other))
            }
            Test::Compare(comparison, Operand::Value(value)) => {
                comparison.holds(amount.compare_value(value))
            }
            Test::In(values) => {
                values.iter().any(|value| amount.compare_value(value) == Some(Ordering::Equal))
            }
            Test::Matches(_) => false,
        };
        holds != self.negated
    }
}

fn amount(field: &Field, sums: &Sums<'_>) -> Option<Amount> {
    match field.source {
        Source::Sum(Sum::Whole(_, of)) => Some(Amount::Whole(of(sums))),
        Source::Sum(Sum::Real(_, of)) => of(sums).map(Amount::Real),
        Source::Row(_) => None,
    }
}

impl Amount {
    fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => Some(a.cmp(&b)),
            (Self::Real(a), Self::Real(b)) => a.partial_cmp(&b),
            _ => None,
        }
    }

    fn compare_value(self, value: &Value) -> Option<Ordering> {
        let Value::Number(number) = value else { return None };
        self.compare(match self {
            Self::Whole(_) => Self::Whole(number.smallest),
            Self::Real(_) => Self::Real(number.real()),
        })
    }
}

impl Comparison {
    fn holds(self, ordering: Option<Ordering>) -> bool {
        ordering.is_some_and(|ordering| match self {
            Self::Equal => ordering.is_eq(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        })
    }
}
