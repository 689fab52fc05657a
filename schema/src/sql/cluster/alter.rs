//! ALTER TABLE: what it says of rows is for the local table; what it says of columns the Distributed one has
//! to know too.

use super::{Cluster, Words, window};
use crate::sql::tokens::{Token, replaced};

/// What a command of ALTER TABLE begins with.
const ACTIONS: [&str; 12] = [
    "ADD",
    "DROP",
    "MODIFY",
    "ALTER",
    "RENAME",
    "COMMENT",
    "CLEAR",
    "MATERIALIZE",
    "REMOVE",
    "RESET",
    "UPDATE",
    "DELETE",
];

impl Cluster {
    pub(super) fn alter(&self, words: &Words<'_>, at: usize) -> Result<Vec<String>, &'static str> {
        let name = &words.found[at];
        let commands = commands(words, at + 1)?;
        let mut edits = vec![(name.range(), self.local(name))];
        edits.extend(window(&words.found));
        let mut statements = vec![replaced(words.sql, &edits)];
        let columns: Vec<_> =
            commands.iter().filter(|c| is_of_columns(c)).map(|c| text(words, c)).collect();
        if !columns.is_empty() {
            let head = format!("{}{}", &words.sql[..name.end()], self.on());
            statements.push(format!("{head} {}", columns.join(", ")));
        }
        Ok(statements)
    }
}

/// The commands, which commas divide; but commas divide settings too.
fn commands<'t, 'a>(
    words: &'t Words<'a>,
    from: usize,
) -> Result<Vec<&'t [Token<'a>]>, &'static str> {
    let found = &words.found[from..];
    let begins = |token: &Token<'_>| ACTIONS.iter().any(|action| token.is(action));
    if !found.first().is_some_and(begins) {
        return Err("it is not followed by what is to be altered");
    }
    let starts = (1..found.len()).filter(|&at| {
        found[at].depth == 0
            && found[at - 1].depth == 0
            && found[at - 1].text == ","
            && begins(&found[at])
    });
    let mut bounds: Vec<_> = [0].into_iter().chain(starts).collect();
    bounds.push(found.len() + 1);
    // Without the comma at its end.
    Ok(bounds.windows(2).map(|bound| &found[bound[0]..bound[1] - 1]).collect())
}

fn is_of_columns(command: &[Token<'_>]) -> bool {
    let [action, what, ..] = command else { return false };
    let changes = ["ADD", "DROP", "MODIFY", "ALTER", "RENAME", "COMMENT"];
    what.is("COLUMN") && changes.iter().any(|change| action.is(change))
}

fn text<'a>(words: &Words<'a>, command: &[Token<'_>]) -> &'a str {
    match command {
        [first, .., last] => &words.sql[first.start..last.end()],
        _ => "",
    }
}
