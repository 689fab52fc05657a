//! A connection of a request's own, with the request's database and settings. It is closed with
//! the request, so nothing that a request sets is seen by another.

use crate::access::Role;
use crate::engine::Engine;
use crate::exception::Exception;
use crate::libchdb::Connection;
use crate::request::Options;

/// Connects and applies the role's profile and limits, then the options. Blocks for less than a millisecond.
///
/// # Errors
/// The engine's, for an unknown database or setting, a bad value or one beyond a limit; or if it is stopping.
pub(crate) fn open(
    engine: &Engine,
    role: Role,
    options: &Options,
) -> Result<Connection, Exception> {
    let mut connection = engine
        .connect()
        .ok_or_else(|| Exception::new(236, "ABORTED", "The embedded engine is stopping"))?;
    let mut run = |statement: String| {
        connection.query(&statement, "Null", &[]).map(drop).map_err(Exception::engine)
    };
    if let Some(database) = &options.database {
        run(format!("USE {}", quoted(database, '`')))?;
    }
    if let Some(profile) = role.profile() {
        run(format!("SET profile = '{profile}'"))?;
        let limits = engine.users().limits().map(|(name, most)| format!("{name} = {most}"));
        run(format!("SET {}", limits.join(", ")))?;
    }
    // Last, because it forbids changing the others.
    let (readonly, settings): (Vec<_>, Vec<_>) =
        options.settings.iter().partition(|(name, _)| name == "readonly");
    for settings in [settings, readonly] {
        if !settings.is_empty() {
            let list: Vec<_> = settings
                .iter()
                .map(|(name, value)| format!("{name} = {}", quoted(value, '\'')))
                .collect();
            run(format!("SET {}", list.join(", ")))?;
        }
    }
    if role == Role::Reader {
        run("SET readonly = 1".to_owned())?;
    }
    Ok(connection)
}

/// A quoted name or literal, in which only the quote and the backslash mean anything.
pub(crate) fn quoted(text: &str, quote: char) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push(quote);
    for character in text.chars() {
        if character == quote || character == '\\' {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push(quote);
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_cannot_be_left() {
        assert_eq!(quoted(r"a'b\", '\''), r"'a\'b\\'");
        assert_eq!(quoted("a`b'", '`'), r"`a\`b'`");
    }
}
