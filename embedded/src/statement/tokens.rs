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
}

/// Length of the blank that a text begins with.
fn blank(text: &[u8]) -> Option<usize> {
    text.first().filter(|byte| byte.is_ascii_whitespace() || **byte == b'\x0b').map(|_| 1)
}

/// Length of the comment that a text begins with, and of those within it.
fn comment(text: &[u8]) -> Option<usize> {
    match text {
        [b'-', b'-', ..] | [b'/', b'/', ..] | [b'#', b' ' | b'!', ..] => {
            Some(text.iter().position(|&byte| byte == b'\n').unwrap_or(text.len()))
        }
        [b'/', b'*', ..] => Some(bracketed(text)),
        _ => None,
    }
}

/// Length of `/* … */`, in which there may be others.
fn bracketed(text: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        at += match rest {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
    }
    text.len()
}

/// A text with tabs in place of its comments: the engine takes orders from some, meant for tests. (A blank after a `#`
/// would make another.)
pub(crate) fn without_comments(text: &str) -> String {
    let mut bare = text.as_bytes().to_vec();
    let (mut tokens, mut at) = (Tokens::new(text.as_bytes()), 0);
    loop {
        let token = tokens.next();
        let end = token.as_ref().map_or(bare.len(), |token| token.start);
        while at < end {
            match comment(&bare[at..end]) {
                Some(length) => {
                    bare[at..at + length].fill(b'\t');
                    at += length;
                }
                None => at += 1,
            }
        }
        let Some(token) = token else { break };
        at = token.end;
    }
    // As it is: comments are whole letters.
    String::from_utf8_lossy(&bare).into_owned()
}

impl<'text> Iterator for Tokens<'text> {
    type Item = Token<'text>;

    fn next(&mut self) -> Option<Token<'text>> {
        while let Some(length) =
            self.text.get(self.at..).and_then(|rest| blank(rest).or(comment(rest)))
        {
            self.at += length;
        }
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
