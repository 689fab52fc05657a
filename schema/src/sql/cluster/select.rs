//! The SELECT of a materialized view: it sees what is inserted into a shard, so it names local tables.

use std::ops::Range;

use super::{Known, Words};
use crate::sql::tokens::Token;

/// What may follow a table's name and is not another name for it.
const CLAUSES: [&str; 16] = [
    "WHERE", "PREWHERE", "GROUP", "ORDER", "ARRAY", "LEFT", "SAMPLE", "FINAL", "LIMIT", "HAVING",
    "SETTINGS", "UNION", "WINDOW", "QUALIFY", "OFFSET", "WITH",
];

/// The edits that make each table after FROM, from a token on, the local one under its old name.
pub(super) fn locals(
    words: &Words<'_>,
    from: usize,
    known: &Known<'_>,
) -> Result<Vec<(Range<usize>, String)>, &'static str> {
    let found = &words.found[from..];
    // Of the other table a shard would see only its own rows.
    if found.iter().any(|token| token.is("JOIN")) {
        return Err("a view that joins would see only a shard of what it joins");
    }
    let mut edits = Vec::new();
    for at in 0..found.len() {
        let name = match &found[at..] {
            [from, name, ..] if from.is("FROM") && name.text != "(" => name,
            [verb, within, first, ..]
                if verb.is("IN")
                    && (known.tables.contains(within.text)
                        || within.text == "(" && first.is("SELECT")) =>
            {
                return Err("a view that looks into another table would see only a shard of it");
            }
            _ => continue,
        };
        if found.get(at + 2).is_some_and(|token| token.text == ".") {
            return Err("it names a database");
        }
        if !known.tables.contains(name.text) {
            return Err("it selects from a table that no step makes");
        }
        let local = format!("{}_local", name.text);
        let renamed = found.get(at + 2).is_some_and(is_other_name);
        let text = if renamed { local } else { format!("{local} AS {}", name.text) };
        edits.push((name.range(), text));
    }
    if edits.is_empty() {
        return Err("it selects from no table");
    }
    Ok(edits)
}

fn is_other_name(token: &Token<'_>) -> bool {
    let is_word = token.text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '`');
    is_word && !CLAUSES.iter().any(|clause| token.is(clause))
}
