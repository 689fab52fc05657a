//! A connection with a request's database and settings. Nothing that a request sets is seen by another: a connection is
//! closed with its request, or kept for one that sets the same if it was used for one query only. A query is one
//! statement without comments that answers with rows (see `statement`), so it sets nothing in its connection.

use crate::access::Role;
use crate::engine::Engine;
use crate::exception::Exception;
use crate::libchdb::Connection;
use crate::request::Options;

/// What is set in a connection before its statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setup {
    role: Role,
    database: Option<String>,
    settings: Vec<(String, String)>,
}

impl Setup {
    /// Of a request by such a user.
    pub(crate) fn of(role: Role, options: &Options) -> Self {
        Self { role, database: options.database.clone(), settings: options.settings.clone() }
    }

    /// Connects and applies the role's profile and limits, then what the request sets. Blocks for some milliseconds:
    /// each of up to six statements takes most of one.
    ///
    /// # Errors
    /// The engine's, for an unknown database or setting, a bad value or one beyond a limit; or if it is stopping.
    pub(crate) fn open(&self, engine: &Engine) -> Result<Connection, Exception> {
        let mut connection = engine
            .connect()
            .ok_or_else(|| Exception::new(236, "ABORTED", "The embedded engine is stopping"))?;
        let mut run = |statement: String| {
            connection.query(&statement, "Null", &[]).map(drop).map_err(Exception::engine)
        };
        if let Some(database) = &self.database {
            run(format!("USE {}", quoted(database, '`')))?;
        }
        if let Some(profile) = self.role.profile() {
            run(format!("SET profile = '{profile}'"))?;
            let limits = engine.users().limits().map(|(name, most)| format!("{name} = {most}"));
            run(format!("SET {}", limits.join(", ")))?;
        }
        // Last, because it forbids changing the others.
        let (readonly, settings): (Vec<_>, Vec<_>) =
            self.settings.iter().partition(|(name, _)| name == "readonly");
        for settings in [settings, readonly] {
            if !settings.is_empty() {
                let list: Vec<_> = settings
                    .iter()
                    .map(|(name, value)| format!("{name} = {}", quoted(value, '\'')))
                    .collect();
                run(format!("SET {}", list.join(", ")))?;
            }
        }
        if self.role == Role::Reader {
            run("SET readonly = 1".to_owned())?;
        }
        Ok(connection)
    }

    /// Keeps a connection in which a query has ended well. What it remembers of a query (results of its scalar
    /// subqueries, which may be large) it forgets with the next one, which is run here.
    pub(crate) fn keep(self, engine: &Engine, mut connection: Connection) {
        if connection.query("SELECT 1", "Null", &[]).is_ok() {
            engine.keep(self, connection);
        }
    }
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
