//! What a statement's text asks of the engine: rows back, rows in, or neither. The engine parses
//! the statement itself; this only finds the clauses that an HTTP interface has to know.

pub(crate) mod guard;
mod tokens;

use crate::exception::Exception;
pub(crate) use tokens::without_comments;
use tokens::{Kind, Token, Tokens};

/// A statement, by how it is run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Statement<'text> {
    /// Answers with rows. Its text is head and tail; an output clause goes between.
    Query {
        /// All before the FORMAT clause.
        head: &'text str,
        /// The FORMAT clause and what follows, or nothing.
        tail: &'text str,
        /// Of the FORMAT clause.
        format: Option<&'text str>,
    },
    /// Takes rows that follow the statement's text.
    Insert {
        /// All before the FORMAT clause or VALUES.
        head: &'text str,
        /// Of the FORMAT clause, or `Values`.
        format: Option<&'text str>,
        /// Where the rows begin in the text.
        data: usize,
    },
    /// Anything else: run to its end, with a small answer or none.
    Command(&'text str),
}

/// First words of statements that answer with rows and take an output clause.
const QUERIES: [&str; 10] =
    ["SELECT", "WITH", "FROM", "(", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS", "CHECK"];

/// Words after which `format` is a name and not the clause.
const BEFORE_NAMES: [&str; 20] = [
    "SELECT", "DISTINCT", "AS", "BY", "WHERE", "PREWHERE", "HAVING", "QUALIFY", "ON", "USING",
    "AND", "OR", "NOT", "IN", "LIKE", "ILIKE", "BETWEEN", "FROM", "JOIN", "EXCEPT",
];

impl<'text> Statement<'text> {
    /// Reads as much of the text as is the statement: rows after an INSERT may be any bytes.
    ///
    /// # Errors
    /// If there is no statement, there are several, one that reads or writes a file beside the
    /// interface (INTO OUTFILE, FROM INFILE), or one that is not UTF-8.
    pub(crate) fn parse(text: &'text [u8]) -> Result<Self, Exception> {
        let mut tokens = Tokens::new(text).peekable();
        match tokens.peek() {
            None => Err(Exception::syntax("Empty query")),
            Some(first) if first.is("INSERT") => insert(text, tokens),
            Some(first) => {
                let answers = QUERIES.iter().any(|word| first.is(word));
                other(text, answers, &tokens.filter(|token| token.depth == 0).collect::<Vec<_>>())
            }
        }
    }
}

fn insert<'text>(
    text: &'text [u8],
    mut tokens: impl Iterator<Item = Token<'text>>,
) -> Result<Statement<'text>, Exception> {
    let mut previous: Option<Token<'text>> = None;
    while let Some(token) = tokens.next() {
        let after = |word: &str| previous.as_ref().is_some_and(|previous| previous.is(word));
        let name = [".", "INTO", "TABLE", "FUNCTION"].iter().any(|word| after(word));
        if token.depth == 1 && after("(") && (token.is("SELECT") || token.is("WITH")) {
            return command(text);
        }
        if token.depth == 0 && !name {
            if token.is("SELECT") || token.is("WITH") {
                return command(text);
            }
            if token.is("INFILE") && after("FROM") {
                return Err(Exception::file("FROM INFILE"));
            }
            if token.is("VALUES") {
                let head = utf8(&text[..token.start])?;
                return Ok(Statement::Insert { head, format: Some("Values"), data: token.end });
            }
            if token.is("FORMAT")
                && let Some(format) = tokens.next()
            {
                return Ok(Statement::Insert {
                    head: utf8(&text[..token.start])?,
                    format: Some(utf8(format.text)?),
                    data: after_format(text, format.end),
                });
            }
            if token.is(";") {
                return Ok(Statement::Insert {
                    head: utf8(&text[..token.start])?,
                    format: None,
                    data: token.end,
                });
            }
        }
        previous = Some(token);
    }
    Ok(Statement::Insert { head: utf8(text)?, format: None, data: text.len() })
}

/// Data begins after blanks and one line end (ClickHouse, `src/Parsers/ParserInsertQuery.cpp`).
fn after_format(text: &[u8], format_end: usize) -> usize {
    let blanks = text[format_end..].iter().take_while(|byte| b" \t\x0c".contains(byte)).count();
    let rest = &text[format_end + blanks..];
    let line_end = [&b"\r\n"[..], b"\n"].into_iter().find(|end| rest.starts_with(end));
    format_end + blanks + line_end.map_or(0, |end| end.len())
}

fn command(text: &[u8]) -> Result<Statement<'_>, Exception> {
    let tokens: Vec<_> = Tokens::new(text).filter(|token| token.depth == 0).collect();
    other(text, false, &tokens)
}

/// A statement without rows of its own: `tokens` are those outside of brackets.
fn other<'text>(
    text: &'text [u8],
    answers: bool,
    tokens: &[Token<'text>],
) -> Result<Statement<'text>, Exception> {
    let semicolon = tokens.iter().position(|token| token.is(";"));
    let (tokens, rest) = tokens.split_at(semicolon.unwrap_or(tokens.len()));
    if rest.iter().any(|token| !token.is(";")) {
        return Err(several());
    }
    let two = |first, second| {
        tokens.windows(2).any(|pair| matches!(pair, [a, b] if a.is(first) && b.is(second)))
    };
    if two("INTO", "OUTFILE") {
        return Err(Exception::file("INTO OUTFILE"));
    }
    let text = utf8(&text[..tokens.last().map_or(0, |token| token.end)])?;
    if !answers || two("INSERT", "INTO") {
        return Ok(Statement::Command(text));
    }
    let format = (1..tokens.len()).find(|&at| is_format(&tokens[at - 1], &tokens[at..]));
    // SELECT's own SETTINGS may stand anywhere before; other statements' follow the output clause.
    let selects = QUERIES[..4].iter().any(|word| tokens.iter().take(1).any(|first| first.is(word)));
    let settings = tokens.iter().position(|token| !selects && token.is("SETTINGS"));
    let cut = match (format, settings) {
        (Some(format), Some(settings)) => Some(format.min(settings)),
        (format, settings) => format.or(settings),
    };
    let (head, tail) = text.split_at(cut.map_or(text.len(), |cut| tokens[cut].start));
    let format = format.map(|at| utf8(tokens[at + 1].text)).transpose()?;
    Ok(Statement::Query { head, tail, format })
}

/// Why a text with more than one statement is refused.
fn several() -> Exception {
    Exception::syntax("Multi-statements are not allowed: send one at a time")
}

/// Whether the tokens begin with a FORMAT clause: near the end, and not where a name stands.
fn is_format(previous: &Token<'_>, tokens: &[Token<'_>]) -> bool {
    let [keyword, format, rest @ ..] = tokens else { return false };
    keyword.is("FORMAT")
        && format.kind == Kind::Word
        && rest.first().is_none_or(|next| next.is("SETTINGS") || next.is("INTO"))
        && match previous.kind {
            Kind::Word => !BEFORE_NAMES.iter().any(|word| previous.is(word)),
            Kind::Quoted => true,
            Kind::Sign => [")", "]", "}", "*"].iter().any(|sign| previous.is(sign)),
        }
}

fn utf8(text: &[u8]) -> Result<&str, Exception> {
    std::str::from_utf8(text).map_err(|_| Exception::syntax("The statement is not valid UTF-8"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn query<'a>(head: &'a str, tail: &'a str, format: Option<&'a str>) -> Statement<'a> {
        Statement::Query { head, tail, format }
    }

    fn parsed(text: &str) -> Statement<'_> {
        Statement::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn queries_are_cut_before_their_format() {
        for (text, head, tail, format) in [
            ("SELECT 1", "SELECT 1", "", None),
            ("select 1 format JSON;", "select 1 ", "format JSON", Some("JSON")),
            (
                "SELECT 1 FORMAT CSV SETTINGS a = 1",
                "SELECT 1 ",
                "FORMAT CSV SETTINGS a = 1",
                Some("CSV"),
            ),
            ("SELECT * FORMAT CSV", "SELECT * ", "FORMAT CSV", Some("CSV")),
            ("SELECT {a:Int8} FORMAT CSV", "SELECT {a:Int8} ", "FORMAT CSV", Some("CSV")),
            (
                "SELECT 1 GROUP BY table FORMAT CSV",
                "SELECT 1 GROUP BY table ",
                "FORMAT CSV",
                Some("CSV"),
            ),
            (
                "DESCRIBE TABLE format FORMAT CSV",
                "DESCRIBE TABLE format ",
                "FORMAT CSV",
                Some("CSV"),
            ),
            ("SELECT 'FORMAT CSV' -- FORMAT CSV", "SELECT 'FORMAT CSV'", "", None),
            ("SELECT format FROM t", "SELECT format FROM t", "", None),
            (
                "SELECT a FROM t ORDER BY format DESC",
                "SELECT a FROM t ORDER BY format DESC",
                "",
                None,
            ),
            ("SELECT (SELECT 1 FORMAT CSV)", "SELECT (SELECT 1 FORMAT CSV)", "", None),
            (
                "(SELECT 1) UNION ALL (SELECT 2) FORMAT TSV",
                "(SELECT 1) UNION ALL (SELECT 2) ",
                "FORMAT TSV",
                Some("TSV"),
            ),
            ("/* a */ DESCRIBE t SETTINGS a = 1", "/* a */ DESCRIBE t ", "SETTINGS a = 1", None),
            (
                "SELECT 1 SETTINGS a = 1 UNION ALL SELECT 2",
                "SELECT 1 SETTINGS a = 1 UNION ALL SELECT 2",
                "",
                None,
            ),
            ("SELECT $x$ ; FORMAT CSV $x$", "SELECT $x$ ; FORMAT CSV $x$", "", None),
        ] {
            assert_eq!(parsed(text), query(head, tail, format), "{text}");
        }
    }

    #[test]
    fn inserts_are_cut_where_their_rows_begin() {
        for (text, head, format, data) in [
            ("INSERT INTO t(a, b) FORMAT RowBinary", "INSERT INTO t(a, b) ", Some("RowBinary"), ""),
            ("INSERT INTO t FORMAT TSV \r\n1\n", "INSERT INTO t ", Some("TSV"), "1\n"),
            (
                "INSERT INTO t SETTINGS a='FORMAT b' FORMAT TSV\n\n",
                "INSERT INTO t SETTINGS a='FORMAT b' ",
                Some("TSV"),
                "\n",
            ),
            ("insert into t values (1, 'a;b')", "insert into t ", Some("Values"), " (1, 'a;b')"),
            ("INSERT INTO d.values FORMAT CSV\n1", "INSERT INTO d.values ", Some("CSV"), "1"),
            (
                "INSERT INTO TABLE format FORMAT CSV\n1",
                "INSERT INTO TABLE format ",
                Some("CSV"),
                "1",
            ),
            ("INSERT INTO t (a)", "INSERT INTO t (a)", None, ""),
        ] {
            let Statement::Insert { head: h, format: f, data: d } = parsed(text) else {
                panic!("{text} is no insert")
            };
            assert_eq!((h, f, &text[d..]), (head, format, data), "{text}");
        }
    }

    #[test]
    fn rows_after_an_insert_may_be_any_bytes() {
        let text = b"INSERT INTO t FORMAT RowBinary\n\xff\xfe';(";
        let Statement::Insert { data, .. } = Statement::parse(text).unwrap() else { panic!() };
        assert_eq!(&text[data..], b"\xff\xfe';(");
    }

    #[test]
    fn commands_are_what_neither_answers_nor_takes_rows() {
        for text in [
            "CREATE TABLE t (a Int8) ENGINE = Memory",
            "INSERT INTO t SELECT 1",
            "INSERT INTO t (SELECT 1)",
            "INSERT INTO t (a) WITH 1 AS x SELECT x",
            "WITH 1 AS x INSERT INTO t SELECT x",
            "SET a = 1",
        ] {
            assert_eq!(parsed(text), Statement::Command(text), "{text}");
        }
    }

    #[test]
    fn a_heredoc_ends_at_its_own_tag() {
        for (text, format) in [
            ("SELECT $a$ $b$ $a$ FORMAT CSV", Some("CSV")),
            ("SELECT $$ FORMAT TSV $$ FORMAT CSV", Some("CSV")),
            ("SELECT $a$ $a$, $a$ FORMAT TSV $a$", None),
            ("SELECT $a$ FORMAT CSV", Some("CSV")),
        ] {
            let Statement::Query { format: found, .. } = parsed(text) else { panic!("{text}") };
            assert_eq!(found, format, "{text}");
        }
    }

    #[test]
    fn tags_without_an_end_cost_no_more_than_other_words() {
        let tags: String = (0..100_000).map(|n| format!("$t{n}$ ")).collect();
        let started = std::time::Instant::now();
        let _ = Statement::parse(format!("SELECT {tags}").as_bytes());
        // Searched for one by one they take minutes.
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }

    #[test]
    fn what_is_refused_says_why() {
        for (text, why) in [
            ("  -- nothing\n", "Empty query"),
            ("SELECT 1; SELECT 2", "Multi-statements"),
            ("DROP TABLE a; DROP TABLE b", "Multi-statements"),
            ("SELECT 1 INTO OUTFILE '/tmp/x'", "INTO OUTFILE"),
            ("INSERT INTO t FROM INFILE '/tmp/x' FORMAT CSV", "FROM INFILE"),
        ] {
            let error = Statement::parse(text.as_bytes()).unwrap_err();
            assert!(error.message.contains(why), "{text}: {}", error.message);
        }
        assert!(Statement::parse(b"SELECT '\xff'").is_err());
    }

    #[test]
    fn comments_are_left_out_and_nothing_else() {
        for (text, bare) in [
            ("SELECT 1 -- { echo }\n, 2", "SELECT 1            \n, 2"),
            ("SELECT '/* a */', `--` // '\n, 2", "SELECT '/* a */', `--`     \n, 2"),
            ("SELECT 1/* /* é */ ; */+ 1", "SELECT 1                + 1"),
            ("SELECT $a$ -- $a$ # b", "SELECT $a$ -- $a$    "),
            ("SELECT 1 /* unended", "SELECT 1           "),
        ] {
            assert_eq!(without_comments(text).replace('\t', " "), bare, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_without_comments_has_the_same_tokens(text in "[a/*# \n'\"$é;-]{0,30}") {
            let bare = without_comments(&text);
            prop_assert_eq!(bare.len(), text.len());
            let tokens = |text: &str| -> Vec<_> {
                let tokens = Tokens::new(text.as_bytes());
                tokens.map(|token| (token.start, token.text.to_vec())).collect()
            };
            prop_assert_eq!(tokens(&bare), tokens(&text));
        }

        #[test]
        fn any_bytes_are_an_error_or_a_statement(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Statement::parse(&text);
        }

        #[test]
        fn a_query_is_its_head_and_tail(text in "SELECT [a-z '\"()\\[\\];*/,.-]{0,40}( FORMAT [A-Z]{1,5})?") {
            if let Ok(Statement::Query { head, tail, .. }) = Statement::parse(text.as_bytes()) {
                let whole = format!("{head}{tail}");
                prop_assert!(text.starts_with(&whole), "{whole:?} of {text:?}");
            }
        }
    }
}
