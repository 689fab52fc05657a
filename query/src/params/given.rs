//! The parameters of a URL by name, checked and typed: what each kind of value takes is said here.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::str::FromStr;

use flowtrail_schema::row::EntityKind;
use regex::RegexBuilder;

use super::GroupBy;
use crate::expression::{Expression, ExpressionError};
use crate::filter::{EdgeFilter, Filter};
use crate::http::Asked;
use crate::problem::Problem;
use crate::scope::Scope;
use crate::window::Requested;

/// Longest regular expression: more than a person types, and cheap to compile.
pub(crate) const MAX_PATTERN_LENGTH: usize = 512;
/// Largest regular expression compiled, in bytes: a tenth of the default, so that checking one takes
/// milliseconds, as no permit is needed for it.
const MAX_PATTERN_SIZE: usize = 1 << 20;
/// Most values of one list: more than a dashboard offers, and cheap to compare each row with.
pub(crate) const MAX_LIST: usize = 200;
/// Longest part of a value that is repeated in a problem.
const MAX_ECHO: usize = 60;

/// The parameters given. One without a value is as good as absent: dashboards send such.
pub(super) struct Given {
    pairs: Vec<(String, String)>,
    pub(super) scope: Scope,
}

impl Given {
    pub(super) fn new(asked: Asked, taken: &[&str]) -> Result<Self, Problem> {
        let Asked { mut pairs, scope } = asked;
        if let Some((name, _)) = pairs.iter().find(|(name, _)| !taken.contains(&name.as_str())) {
            let detail = format!("unknown parameter; there are {}", taken.join(", "));
            return Err(Problem::parameter(&echo(name), detail));
        }
        pairs.retain(|(_, value)| !value.is_empty());
        Ok(Self { pairs, scope })
    }

    pub(super) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn one(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Problem::parameter(name, "given more than once; takes one value")),
            (value, None) => Ok(value),
        }
    }

    /// A number that tells what is asked, and on whose behalf, from other questions; not of the parameters left out.
    /// All services of one build have the same.
    pub(super) fn question(&self, left_out: &[&str]) -> u64 {
        let pairs = self.pairs.iter().filter(|(name, _)| !left_out.contains(&name.as_str()));
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort();
        let mut hasher = DefaultHasher::new();
        (pairs, &self.scope).hash(&mut hasher);
        hasher.finish()
    }

    pub(super) fn list(&self, name: &str) -> Result<Vec<String>, Problem> {
        let values = self.all(name).flat_map(|value| value.split(','));
        let values: Vec<_> =
            values.map(str::trim).filter(|v| !v.is_empty()).map(str::to_owned).collect();
        if values.len() > MAX_LIST {
            return Err(Problem::parameter(name, format!("takes at most {MAX_LIST} values")));
        }
        Ok(values)
    }

    pub(super) fn instant(&self, name: &str, now_ms: i64) -> Result<Option<i64>, Problem> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        let instant = flowtrail_service::instant::parse(text, now_ms);
        instant.map(Some).map_err(|takes| Problem::parameter(name, refused(text, takes)))
    }

    pub(super) fn window(&self, now_ms: i64) -> Result<Requested, Problem> {
        let to_ms = self.instant("to", now_ms)?.unwrap_or(now_ms);
        let hour_before = to_ms.saturating_sub(3_600_000).max(0);
        let from_ms = self.instant("from", now_ms)?.unwrap_or(hour_before);
        if from_ms >= to_ms {
            return Err(Problem::parameter("from", "is not before to; swap them or widen them"));
        }
        Ok(Requested { from_ms, to_ms })
    }

    /// What all that filter take.
    pub(super) fn filter(&self) -> Result<Filter, Problem> {
        Ok(Filter {
            scope: self.scope.clone(),
            namespaces: self.list("namespace")?,
            workloads: self.list("workload")?,
            edge: self.edge()?,
            namespace_pattern: None,
            include: self.pattern("include")?,
            exclude: self.pattern("exclude")?,
            ports: self.numbers("port", "a TCP port, 1 to 65535", 1..=65_535)?,
            kinds: self.kinds()?,
            q: self.expression()?,
        })
    }

    /// The ends asked for, as node ids of the graph of the same `group_by`.
    fn edge(&self) -> Result<EdgeFilter, Problem> {
        let group_by: GroupBy = self.word("group_by", GroupBy::WORDS)?;
        let (edge, source, target) = (self.one("edge")?, self.one("source")?, self.one("target")?);
        let (source, target) = match (edge, source, target) {
            (None, source, target) => (("source", source), ("target", target)),
            (Some(edge), None, None) => {
                let (source, target) = edge.split_once('>').ok_or_else(|| {
                    let takes = "takes an edge's id of /api/v1/graph: source>target";
                    Problem::parameter("edge", refused(edge, takes))
                })?;
                (("edge", Some(source)), ("edge", Some(target)))
            }
            (Some(_), ..) => {
                let detail = "is both ends: leave out source and target";
                return Err(Problem::parameter("edge", detail));
            }
        };
        EdgeFilter::new(group_by, source.1, target.1).map_err(|(is_source, takes)| {
            let (name, id) = if is_source { source } else { target };
            Problem::parameter(name, refused(id.unwrap_or_default(), takes))
        })
    }

    pub(super) fn word<T: FromStr + Default>(
        &self,
        name: &str,
        words: &[&str],
    ) -> Result<T, Problem> {
        let Some(text) = self.one(name)? else { return Ok(T::default()) };
        let takes = || format!("takes one of {}", words.join(", "));
        text.parse().map_err(|_| Problem::parameter(name, refused(text, &takes())))
    }

    pub(super) fn numbers<T: FromStr + PartialOrd>(
        &self,
        name: &str,
        what: &str,
        range: std::ops::RangeInclusive<T>,
    ) -> Result<Vec<T>, Problem> {
        let number = |text: &String| match text.parse() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(Problem::parameter(name, refused(text, &format!("takes {what}")))),
        };
        self.list(name)?.iter().map(number).collect()
    }

    pub(super) fn kinds(&self) -> Result<Vec<EntityKind>, Problem> {
        let kind = |text: &String| {
            let known = EntityKind::ALL.iter().find(|kind| kind.as_str() == text);
            let takes = || {
                let words: Vec<_> = EntityKind::ALL.iter().map(|kind| kind.as_str()).collect();
                format!("takes any of {}", words.join(", "))
            };
            known.copied().ok_or_else(|| Problem::parameter("kind", refused(text, &takes())))
        };
        self.list("kind")?.iter().map(kind).collect()
    }

    pub(super) fn pattern(&self, name: &str) -> Result<Option<String>, Problem> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        check_pattern(text).map_err(|takes| Problem::parameter(name, takes))?;
        Ok(Some(text.to_owned()))
    }

    pub(super) fn expression(&self) -> Result<Expression, Problem> {
        let text = self.one("q")?.unwrap_or_default();
        text.parse().map_err(|error: ExpressionError| Problem::parameter("q", error.to_string()))
    }
}

/// Checks a regular expression before ClickHouse is asked.
///
/// # Errors
/// What is taken, if this is not.
pub(crate) fn check_pattern(text: &str) -> Result<(), String> {
    if text.len() > MAX_PATTERN_LENGTH {
        return Err(format!("takes a regular expression of at most {MAX_PATTERN_LENGTH} bytes"));
    }
    // ClickHouse would read no further.
    if text.contains('\0') {
        return Err("takes a regular expression without NUL".to_owned());
    }
    // ClickHouse's re2 has the same syntax but for rarities, which it reports itself.
    let checked = RegexBuilder::new(text).size_limit(MAX_PATTERN_SIZE).build();
    checked.map(|_| ()).map_err(|error| format!("takes a regular expression (RE2 syntax): {error}"))
}

pub(super) fn refused(text: &str, takes: &str) -> String {
    format!("{:?}: {takes}", echo(text))
}

pub(super) fn echo(text: &str) -> String {
    text.chars().take(MAX_ECHO).collect()
}

/// The filter of a question that has no edges: a condition on their sums is one on nothing.
pub(super) fn rows_only(filter: Filter) -> Result<Filter, Problem> {
    if filter.q.reads_sums() {
        let detail =
            "has a condition on an edge's sums; here only names, kinds, ports and addresses choose";
        return Err(Problem::parameter("q", detail));
    }
    Ok(filter)
}
