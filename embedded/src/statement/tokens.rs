//! Words, quoted texts and signs of a statement, comments left out
//! (ClickHouse, `src/Parsers/Lexer.cpp`).

use std::collections::HashMap;

/// One token and where it is.
#[derive(Clone, Debug)]
pub(super) struct Token<'text> {
    pub(super) kind: Kind,
    pub(super) text: &'text [u8],
    /// Brackets open around it; those of a pair itself count as outside.
    pub(super) depth: usize,
    /// Byte offsets in the statement's text.
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A keyword, a bare name or a number.
    Word,
    /// A literal or a quoted name.
    Quoted,
    /// Any other byte.
    Sign,
}

impl Token<'_> {
    /// Whether this is a keyword, in any case, or a sign.
    pub(super) fn is(&self, text: &str) -> bool {
        self.kind != Kind::Quoted && self.text.eq_ignore_ascii_case(text.as_bytes())
    }
}

/// The tokens of a text, one by one.
pub(super) struct Tokens<'text> {
    text: &'text [u8],
    at: usize,
    depth: usize,
    /// Where each heredoc tag stands last; made when the first is met.
    last_tags: Option<HashMap<&'text [u8], usize>>,
}

impl<'text> Tokens<'text> {
    pub(super) fn new(text: &'text [u8]) -> Self {
        Self { text, at: 0, depth: 0, last_tags: None }
    }

    /// Length of `$tag$ … $tag$`, if one begins here. Its end is looked for only where there is one:
    /// a text full of unended tags takes no longer than another.
    fn heredoc(&mut self) -> Option<usize> {
        let (text, start) = (self.text, self.at);
        let tag = tag(text, start)?;
        let last = *self.last_tags.get_or_insert_with(|| tags(text, start)).get(tag)?;
        let body = start + tag.len();
        let length = text.get(body..last + tag.len()).and_then(|body| find(body, tag))?;
        Some(tag.len() + length + tag.len())
    }

    fn skip_blanks_and_comments(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            self.at += match rest {
                [byte, ..] if byte.is_ascii_whitespace() || *byte == b'\x0b' => 1,
                [b'-', b'-', ..] | [b'#', b' ' | b'!', ..] => {
                    rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len())
                }
                [b'/', b'*', body @ ..] => {
                    find(body, b"*/").map_or(rest.len(), |length| 2 + length + 2)
                }
                _ => return,
            };
        }
    }
}

impl<'text> Iterator for Tokens<'text> {
    type Item = Token<'text>;

    fn next(&mut self) -> Option<Token<'text>> {
        self.skip_blanks_and_comments();
        let start = self.at;
        let rest = &self.text[start..];
        let first = *rest.first()?;
        let (kind, length) = match first {
            b'\'' | b'"' | b'`' => (Kind::Quoted, quoted(rest, first)),
            b'$' if let Some(length) = self.heredoc() => (Kind::Quoted, length),
            byte if is_word(byte) => {
                (Kind::Word, rest.iter().take_while(|byte| is_word(**byte)).count())
            }
            _ => (Kind::Sign, 1),
        };
        if kind == Kind::Sign && b")]}".contains(&first) {
            self.depth = self.depth.saturating_sub(1);
        }
        let depth = self.depth;
        if kind == Kind::Sign && b"([{".contains(&first) {
            self.depth += 1;
        }
        self.at = start + length;
        Some(Token { kind, text: &rest[..length], depth, start, end: self.at })
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// Length of a quoted text with its quotes; a quote within is doubled or after a backslash.
fn quoted(text: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while let Some(&byte) = text.get(at) {
        at += match byte {
            b'\\' => 2,
            byte if byte == quote && text.get(at + 1) == Some(&quote) => 2,
            byte if byte == quote => return at + 1,
            _ => 1,
        };
    }
    text.len()
}

/// The `$tag$` that begins at a `$`.
fn tag(text: &[u8], start: usize) -> Option<&[u8]> {
    let inner = text[start + 1..].iter().take_while(|byte| is_word(**byte) && **byte != b'$');
    let end = start + 1 + inner.count();
    (text.get(end) == Some(&b'$')).then(|| &text[start..=end])
}

/// All tags from an offset on, each with where it begins last.
fn tags(text: &[u8], from: usize) -> HashMap<&[u8], usize> {
    let starts = (from..text.len()).filter(|&at| text[at] == b'$');
    starts.filter_map(|at| Some((tag(text, at)?, at))).collect()
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
