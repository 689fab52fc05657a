//! What a statement is, and where in it the things are that a cluster's form changes.

use crate::sql::tokens::{Token, replaced, tokens};

/// A statement and its tokens.
pub(super) struct Words<'a> {
    pub(super) sql: &'a str,
    pub(super) found: Vec<Token<'a>>,
}

/// What a statement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    CreateTable,
    CreateMaterializedView,
    CreateView,
    AlterTable,
    Drop,
    Insert,
}

const HEADS: [(&[&str], Verb); 8] = [
    (&["CREATE", "TABLE"], Verb::CreateTable),
    (&["CREATE", "MATERIALIZED", "VIEW"], Verb::CreateMaterializedView),
    (&["CREATE", "VIEW"], Verb::CreateView),
    (&["CREATE", "OR", "REPLACE", "VIEW"], Verb::CreateView),
    (&["ALTER", "TABLE"], Verb::AlterTable),
    (&["DROP", "TABLE"], Verb::Drop),
    (&["DROP", "VIEW"], Verb::Drop),
    (&["INSERT", "INTO"], Verb::Insert),
];

impl<'a> Words<'a> {
    /// Of a statement, without the comment before it and what ends it.
    pub(super) fn of(statement: &'a str) -> Self {
        let start = tokens(statement).first().map_or(0, |token| token.start);
        let sql = statement[start..].trim_end().trim_end_matches(';');
        Self { sql, found: tokens(sql) }
    }

    /// What the statement does, and which token names what it does that to.
    pub(super) fn head(&self) -> Option<(Verb, usize)> {
        let begins = |at: usize, words: &[&str]| {
            words.iter().enumerate().all(|(n, w)| self.found.get(at + n).is_some_and(|t| t.is(w)))
        };
        let (words, verb) = HEADS.iter().find(|(words, _)| begins(0, words))?;
        let optional: [&[&str]; 3] = [&["IF", "NOT", "EXISTS"], &["IF", "EXISTS"], &["TABLE"]];
        let skipped = optional.iter().find(|skipped| begins(words.len(), skipped));
        Some((*verb, words.len() + skipped.map_or(0, |skipped| skipped.len())))
    }

    /// Whether a table that is made has a column.
    pub(super) fn has_column(&self, name_at: usize, column: &str) -> bool {
        let after = &self.found[name_at..];
        let list = after.iter().skip(1).take_while(|t| t.depth > 0 || t.text != ")");
        list.zip(after.iter().skip(2)).any(|(before, token)| {
            token.depth == 1 && token.text == column && ["(", ","].contains(&before.text)
        })
    }

    /// The sorting key of a table that is made, without parentheses around it.
    pub(super) fn order_by(&self) -> Option<&'a str> {
        let order = self
            .found
            .windows(2)
            .position(|w| w[0].depth == 0 && w[0].is("ORDER") && w[1].is("BY"));
        let rest = &self.found[order? + 2..];
        let ends = |token: &Token<'_>| {
            let clauses = ["TTL", "SETTINGS", "PRIMARY", "PARTITION", "SAMPLE", "COMMENT"];
            token.depth == 0 && clauses.iter().any(|clause| token.is(clause))
        };
        let key = &rest[..rest.iter().position(ends).unwrap_or(rest.len())];
        match key {
            [open, .., close] if open.text == "(" && close.text == ")" => {
                Some(&self.sql[open.end()..close.start])
            }
            [first, .., last] => Some(&self.sql[first.start..last.end()]),
            [only] => Some(only.text),
            [] => None,
        }
    }

    /// INSERT … SELECT of what is there, by one node for all.
    pub(super) fn backfill(&self, at: usize) -> Result<String, &'static str> {
        let select =
            self.found[at..].iter().find(|t| t.depth == 0 && (t.is("SELECT") || t.is("WITH")));
        let select = select.ok_or("it inserts something else than a SELECT")?;
        if self.found[at..].iter().any(|token| token.depth == 0 && token.is("SETTINGS")) {
            return Err("it has settings of its own");
        }
        // Else each shard would insert what it selects by itself, whatever the SELECT says; or the rows would
        // wait on that node's disk.
        let settings = "SETTINGS distributed_foreground_insert = 1, parallel_distributed_insert_select = 0, \
                        distributed_product_mode = 'global' ";
        Ok(replaced(self.sql, &[(select.start..select.start, settings.to_owned())]))
    }
}
