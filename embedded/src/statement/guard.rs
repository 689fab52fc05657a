//! What a statement may not say of itself. Settings in a statement's text are held to the profile's
//! constraints by the engine, but for three ways around them: `= DEFAULT`, which lifts a limit, a subquery's
//! own `readonly`, and another profile. And two functions do what read-only mode is to keep readers from.

use super::tokens::{Kind, Token, Tokens};
use crate::exception::Exception;

/// Settings that a statement's text may not have.
const FORBIDDEN_SETTINGS: [&str; 2] = ["readonly", "profile"];

/// Functions that readers may not use: one reads any file, one runs a text as a query.
const FORBIDDEN_FUNCTIONS: [&str; 2] = ["file", "eval"];

/// Checks a statement of a user whom limits hold; of a reader's, more.
///
/// # Errors
/// ClickHouse's, for what is refused.
pub(crate) fn check(text: &str, reader: bool) -> Result<(), Exception> {
    let tokens: Vec<_> = Tokens::new(text.as_bytes()).collect();
    let settings = tokens.iter().position(|token| token.is("SETTINGS"));
    if let Some(token) = tokens.iter().find(|token| is_foreign(token)) {
        let text = String::from_utf8_lossy(token.text);
        let text = format!("Only quoted texts and comments may be other than ASCII: {text}");
        return Err(Exception::syntax(&text));
    }
    let end = tokens.iter().rposition(|token| !token.is(";")).map_or(0, |last| last + 1);
    if tokens[..end].iter().any(|token| token.is(";")) {
        return Err(super::several());
    }
    if let Some(settings) = settings {
        for pair in tokens[settings..].windows(2) {
            let [first, second] = pair else { continue };
            if second.is("=") && FORBIDDEN_SETTINGS.iter().any(|name| first.may_be(name)) {
                return Err(refused("readonly and profile are not for a statement's SETTINGS"));
            }
            if first.is("=") && second.is("DEFAULT") {
                return Err(refused("A setting of a statement cannot be DEFAULT: give a value"));
            }
        }
    }
    if !reader {
        return Ok(());
    }
    if let Some(function) =
        FORBIDDEN_FUNCTIONS.iter().find(|name| tokens.iter().any(|token| token.may_be(name)))
    {
        return Err(not_for_readers(&format!("{function}, as a function's or another name")));
    }
    // Describing what is no table connects to it, or reads it.
    let describes = tokens.first().is_some_and(|first| first.is("DESCRIBE") || first.is("DESC"));
    let bracket = tokens.windows(2).find(|pair| pair[1].is("("));
    let calls = bracket
        .is_some_and(|pair| !["DESCRIBE", "DESC", "TABLE"].iter().any(|word| pair[0].is(word)));
    if describes && calls {
        return Err(not_for_readers("DESCRIBE of a table function"));
    }
    let explains = tokens.first().is_some_and(|first| first.is("EXPLAIN"));
    if explains && tokens.windows(2).any(|pair| pair[0].is("TABLE") && pair[1].is("OVERRIDE")) {
        return Err(not_for_readers("EXPLAIN TABLE OVERRIDE"));
    }
    Ok(())
}

/// Why a reader's statement is refused.
pub(crate) fn not_for_readers(what: &str) -> Exception {
    Exception::new(
        164,
        "READONLY",
        &format!("reader: Cannot execute query in readonly mode: {what}"),
    )
}

fn refused(why: &str) -> Exception {
    Exception::new(452, "SETTING_CONSTRAINT_VIOLATION", why)
}

impl Token<'_> {
    /// Whether this is a name, or one that is written with escapes and so may be any.
    fn may_be(&self, name: &str) -> bool {
        let inner = match (self.kind, self.text) {
            (Kind::Word, text) => text,
            (Kind::Quoted, [b'"' | b'`', inner @ ..]) => {
                inner.strip_suffix(b"\"").or(inner.strip_suffix(b"`")).unwrap_or(inner)
            }
            _ => return false,
        };
        inner == name.as_bytes() || (self.kind == Kind::Quoted && inner.contains(&b'\\'))
    }
}

/// Whether there is more than ASCII's letters and signs outside of quotes. Of letters beyond ASCII ClickHouse takes some
/// for blanks, quotes or signs, and none for names; a NUL it may take for the end.
fn is_foreign(token: &Token<'_>) -> bool {
    token.kind != Kind::Quoted && !token.text.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_not_lifted_by_a_statement() {
        for text in [
            "SELECT 1 SETTINGS max_execution_time = DEFAULT",
            "SELECT 1 SETTINGS max_threads = 1, max_memory_usage=default",
            "SELECT * FROM (SELECT 1 SETTINGS readonly /**/ = 0)",
            "SELECT * FROM (SELECT 1 SETTINGS `readonly` = 0)",
            r"SELECT * FROM (SELECT 1 settings `read\x6fnly` = 0)",
            "SELECT 1 SETTINGS profile = 'default'",
            "INSERT INTO t SETTINGS max_execution_time = DEFAULT",
            "SELECT 1 SETTINGS ‘ ' ’, a = DEFAULT, b = ‘ ' ’",
        ] {
            assert!(check(text, false).is_err(), "{text}");
            assert!(check(text, true).is_err(), "{text}");
        }
    }

    #[test]
    fn readers_reach_no_files_and_no_other_hosts() {
        for text in [
            "SELECT file('/etc/passwd')",
            "SELECT arrayMap(file, ['/etc/passwd'])",
            "SELECT `file`('/etc/passwd')",
            r#"SELECT "\x66ile"('/etc/passwd')"#,
            "SELECT * FROM eval('SELECT 1')",
            "SELECT \u{a0}file('/etc/passwd')",
            "SELECT 1 // '\n, file('/etc/passwd') // '",
            "SELECT 1 /* /* */ ' */, file('/etc/passwd') -- '",
            "SELECT 1 \0, file('/etc/passwd')",
            "SELECT ‘ ' ’, file('/etc/passwd'), ‘ ' ’",
            "DESCRIBE TABLE url('http://127.0.0.1/', 'TSV')",
            "DESC url('http://127.0.0.1/', 'TSV')",
            "DESCRIBE TABLE FUNCTION url((SELECT 'http://127.0.0.1/'))",
            "EXPLAIN TABLE OVERRIDE mysql('a', 'b', 'c', 'd', 'e') PARTITION BY x",
        ] {
            assert!(check(text, true).is_err(), "{text}");
        }
        assert_eq!(check("SELECT file('/etc/passwd')", false), Ok(()));
    }

    #[test]
    fn one_statement_is_one() {
        for text in ["SELECT 1; USE system", "SELECT 1 // '\n; USE system // '", "SELECT (1; USE a"]
        {
            for reader in [true, false] {
                assert!(check(text, reader).is_err(), "{text}");
            }
        }
        assert_eq!(check("SELECT 1;;", true), Ok(()));
    }

    #[test]
    fn what_queries_have_is_let_through() {
        for text in [
            "SELECT 'file', 'eval', profile, readonly FROM t WHERE profile = 'a' -- file",
            "SELECT 'it“s', a = 1 SETTINGS max_threads = 1 -- “",
            "SELECT \"a b\", `c` FROM t",
            "DESCRIBE TABLE flowtrail.flows",
            "DESCRIBE (SELECT count() FROM flows)",
            "DESCRIBE TABLE (SELECT 1)",
            "EXPLAIN SELECT 1",
        ] {
            assert_eq!(check(text, true), Ok(()), "{text}");
        }
    }
}
