//! A statement's words: as much of SQL as is needed to say where a table is named. Text in quotes is one
//! token, comments are none.

use std::ops::Range;

/// A word, number, quoted text, or a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    /// First byte in the statement.
    pub(super) start: usize,
    /// Parentheses that it is in; of one itself, those around it.
    pub(super) depth: usize,
}

impl Token<'_> {
    /// Whether it is a keyword, in whatever case.
    pub(super) fn is(&self, word: &str) -> bool {
        self.text.eq_ignore_ascii_case(word)
    }

    /// First byte after it.
    pub(super) fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// Its place in the statement.
    pub(super) fn range(&self) -> Range<usize> {
        self.start..self.end()
    }
}

/// A statement's tokens, in order.
pub(super) fn tokens(sql: &str) -> Vec<Token<'_>> {
    let (mut found, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    while let Some(first) = sql[start..].chars().next() {
        let rest = &sql[start..];
        let length = match first {
            _ if first.is_whitespace() => {
                start += first.len_utf8();
                continue;
            }
            _ if rest.starts_with("--") => {
                start += rest.find('\n').unwrap_or(rest.len());
                continue;
            }
            _ if rest.starts_with("/*") => {
                start += rest.find("*/").map_or(rest.len(), |at| at + 2);
                continue;
            }
            '\'' | '"' | '`' => quoted(rest, first),
            _ if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        if first == ')' {
            depth = depth.saturating_sub(1);
        }
        found.push(Token { text: &rest[..length], start, depth });
        if first == '(' {
            depth += 1;
        }
        start += length;
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Bytes of quoted text with its quotes; a backslash takes what follows with it. A doubled quote is two
/// texts side by side, which is as good here.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// A text with some of its ranges, in ascending order, replaced.
pub(super) fn replaced(sql: &str, edits: &[(Range<usize>, String)]) -> String {
    let (mut out, mut done) = (String::with_capacity(sql.len() + 64), 0);
    for (range, text) in edits {
        out.push_str(&sql[done..range.start]);
        out.push_str(text);
        done = range.end;
    }
    out.push_str(&sql[done..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_comments_hide_what_is_in_them() {
        let sql = "a -- FROM b\n(/* c */ 'it''s \\' d', `e f`) \u{e9}";
        let found: Vec<_> = tokens(sql).iter().map(|token| (token.text, token.depth)).collect();
        let expected = [
            ("a", 0),
            ("(", 0),
            ("'it'", 1),
            ("'s \\' d'", 1),
            (",", 1),
            ("`e f`", 1),
            (")", 0),
            ("\u{e9}", 0),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_not_closed_ends_with_the_statement() {
        for sql in ["'a", "`", "/* b", "-- c", "'\\"] {
            assert!(tokens(sql).len() <= 1, "{sql}");
        }
    }
}
