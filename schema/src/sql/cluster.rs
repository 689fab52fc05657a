//! The schema of a cluster, derived from the one statement that each step is: a table `t` becomes the
//! replicated table `t_local` on every node, which holds a shard's rows, and over it the Distributed table
//! `t`, which is read and written in its place. Views work within a shard, from one `_local` to another.

use std::collections::BTreeSet;

use thiserror::Error;

use super::SCHEMA_MIGRATIONS;
use super::tokens::{Token, replaced};

mod alter;
mod select;
mod words;

use words::{Verb, Words};

/// How long a repeated token is told: as long as Kafka, by default, keeps the messages of a chunk that could
/// be done again. ClickHouse's own default is an hour, less than an outage may last. As for one server, 10,000
/// blocks of a table are remembered at most.
const DEDUPLICATION_WINDOW_S: u32 = 7 * 86_400;

/// Where rows of a chunk go: all to one shard, so that its insert is done or not, never half. A partition is a
/// hash of the connection's id, so that a connection is on one shard too.
const CHUNKED: &str = "partition";

/// A cluster to lay the schema out for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    name: String,
    database: String,
}

/// A statement that has no form for a cluster yet: it is to be written otherwise, or this module to be taught.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no form for a cluster of `{statement}`: {reason}")]
pub struct UnknownForm {
    statement: String,
    reason: &'static str,
}

/// What tables there are, in all steps.
#[derive(Debug, Default)]
struct Known<'a> {
    tables: BTreeSet<&'a str>,
    views: BTreeSet<&'a str>,
    /// Tables that materialized views write to.
    fed: BTreeSet<&'a str>,
}

impl Cluster {
    /// A cluster of that name in ClickHouse's configuration, and a database on it.
    ///
    /// # Errors
    /// If the name is none: it is letters, digits, `_`, `-` and `.`.
    pub fn new(name: &str, database: &str) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if name.is_empty() || !name.chars().all(fits) {
            return Err("a cluster's name is made of letters, digits, _, - and .".to_owned());
        }
        Ok(Self { name: name.to_owned(), database: database.to_owned() })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes the database.
    pub fn create_database(&self) -> String {
        format!("CREATE DATABASE IF NOT EXISTS `{}`{}", self.database, self.on())
    }

    /// Makes the table where applied steps are recorded: one copy of it, of which every node has a replica.
    pub fn schema_migrations(&self) -> String {
        let name = "schema_migrations";
        let made = SCHEMA_MIGRATIONS.replacen(name, &format!("{name}{}", self.on()), 1);
        // Names of replicas are unique within a shard.
        let engine = format!(
            "ReplicatedMergeTree('/clickhouse/tables/{}/all/{{database}}/{{table}}', '{{shard}}-{{replica}}')",
            self.name
        );
        made.replacen("MergeTree", &engine, 1)
    }

    /// What statements are on this cluster, each by itself, of the tables that all of `made_by` make.
    ///
    /// # Errors
    /// If a statement has a form that this does not know.
    pub fn forms<'a>(
        &self,
        statements: &[String],
        made_by: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<Vec<String>>, UnknownForm> {
        let known = Known::of(made_by);
        let form = |statement: &String| {
            let words = Words::of(statement);
            self.form(&words, &known).map_err(|reason| UnknownForm {
                statement: words.sql.lines().next().unwrap_or_default().to_owned(),
                reason,
            })
        };
        statements.iter().map(form).collect()
    }

    fn form(&self, words: &Words<'_>, known: &Known<'_>) -> Result<Vec<String>, &'static str> {
        let (verb, at) = words.head().ok_or("it is none of the statements that are known")?;
        let name = words.found.get(at).ok_or("it ends before a name")?;
        let is_view = known.views.contains(name.text);
        if !is_view && !known.tables.contains(name.text) {
            return Err("it is of a table that no step makes");
        }
        match verb {
            Verb::CreateTable => self.table(words, at, known),
            Verb::CreateMaterializedView => self.materialized_view(words, at, known),
            Verb::CreateView => Ok(vec![self.on_cluster(words, name)]),
            Verb::AlterTable if is_view => {
                let locals = select::locals(words, at + 1, known)?;
                let on = (name.end()..name.end(), self.on());
                let edits: Vec<_> = [on].into_iter().chain(locals).collect();
                Ok(vec![replaced(words.sql, &edits)])
            }
            Verb::AlterTable => self.alter(words, at),
            Verb::Drop if is_view => Ok(vec![self.on_cluster(words, name)]),
            Verb::Drop => {
                let local = replaced(words.sql, &[(name.range(), self.local(name))]);
                // Else a table made anew would find its predecessor's replicas.
                let sync = if words.found.iter().any(|t| t.is("SYNC")) { "" } else { " SYNC" };
                Ok(vec![self.on_cluster(words, name), local + sync])
            }
            Verb::Insert => words.backfill(at).map(|statement| vec![statement]),
        }
    }

    /// The replicated table and the Distributed one.
    fn table(
        &self,
        words: &Words<'_>,
        at: usize,
        known: &Known<'_>,
    ) -> Result<Vec<String>, &'static str> {
        let found = &words.found;
        let name = &found[at];
        if found.get(at + 1).is_none_or(|token| token.text != "(") {
            return Err("its columns do not follow its name");
        }
        let outer = |word: &str| found.iter().position(|t| t.depth == 0 && t.is(word));
        let engine = 2 + outer("ENGINE").ok_or("it has no engine")?;
        let Some(engine_name) = found.get(engine).filter(|t| t.text.ends_with("MergeTree")) else {
            return Err("its engine is not of the MergeTree family");
        };
        if engine_name.text.starts_with("Replicated") {
            return Err("it is replicated by itself");
        }
        let arguments = found.get(engine + 1).filter(|token| token.text == "(");
        let path = format!(
            "'/clickhouse/tables/{}/{{shard}}/{{database}}/{{table}}', '{{replica}}'",
            self.name
        );
        let engine_edit = match arguments {
            Some(open) if found.get(engine + 2).is_some_and(|token| token.text == ")") => {
                (engine_name.start..open.end(), format!("Replicated{}({path}", engine_name.text))
            }
            Some(open) => {
                (engine_name.start..open.end(), format!("Replicated{}({path}, ", engine_name.text))
            }
            None => (engine_name.range(), format!("Replicated{}({path})", engine_name.text)),
        };
        let mut edits = vec![(name.range(), self.local(name)), engine_edit];
        edits.extend(window(found));
        let key = if words.has_column(at, CHUNKED) {
            CHUNKED.to_owned()
        } else if known.fed.contains(name.text) {
            // Its rows are where those are that they sum, so no key says where one is.
            "rand()".to_owned()
        } else {
            // Rows that merge are on one shard, so that FINAL finds them together.
            format!("cityHash64({})", words.order_by().ok_or("it has no key")?)
        };
        let up_to_name = &words.sql[..name.end()];
        let distributed = format!(
            "{up_to_name}{on} AS {name}_local\nENGINE = Distributed('{cluster}', '{database}', '{name}_local', {key})",
            on = self.on(),
            name = name.text,
            cluster = self.name,
            database = escaped(&self.database),
        );
        Ok(vec![replaced(words.sql, &edits), distributed])
    }

    fn materialized_view(
        &self,
        words: &Words<'_>,
        at: usize,
        known: &Known<'_>,
    ) -> Result<Vec<String>, &'static str> {
        let [name, to, target, rest @ ..] = &words.found[at..] else { return Err("it ends early") };
        if !to.is("TO") || !rest.first().is_some_and(|token| token.is("AS")) {
            return Err("it is not written as TO a table AS SELECT");
        }
        if !known.tables.contains(target.text) {
            return Err("it writes to a table that no step makes");
        }
        let mut edits = vec![
            (name.end()..name.end(), self.on()),
            (target.range(), format!("{}_local", target.text)),
        ];
        edits.extend(select::locals(words, at + 3, known)?);
        Ok(vec![replaced(words.sql, &edits)])
    }

    /// A statement as it is, for every node.
    fn on_cluster(&self, words: &Words<'_>, name: &Token<'_>) -> String {
        replaced(words.sql, &[(name.end()..name.end(), self.on())])
    }

    fn on(&self) -> String {
        format!(" ON CLUSTER `{}`", self.name)
    }

    fn local(&self, name: &Token<'_>) -> String {
        format!("{}_local{}", name.text, self.on())
    }
}

impl<'a> Known<'a> {
    fn of(statements: impl IntoIterator<Item = &'a str>) -> Self {
        let mut known = Self::default();
        for statement in statements {
            let words = Words::of(statement);
            let Some((verb, at)) = words.head() else { continue };
            let Some(name) = words.found.get(at) else { continue };
            match verb {
                Verb::CreateTable => known.tables.insert(name.text),
                Verb::CreateView => known.views.insert(name.text),
                Verb::CreateMaterializedView => {
                    known.fed.extend(words.found.get(at + 2).map(|target| target.text));
                    known.views.insert(name.text)
                }
                Verb::AlterTable | Verb::Drop | Verb::Insert => false,
            };
        }
        known
    }
}

/// Settings that say how long tokens are remembered, for replicated tables.
fn window<'t>(
    found: &'t [Token<'_>],
) -> impl Iterator<Item = (std::ops::Range<usize>, String)> + 't {
    found.windows(3).filter(|window| window[0].is("non_replicated_deduplication_window")).map(
        |window| {
            let blocks = window[2].text;
            let text = format!(
                "replicated_deduplication_window = {blocks}, \
                 replicated_deduplication_window_seconds = {DEDUPLICATION_WINDOW_S}"
            );
            (window[0].start..window[2].end(), text)
        },
    )
}

/// What goes between quotes.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}

#[cfg(test)]
mod tests;
