//! Text → what it says, by position: words, operators and parentheses. Fields and values are words here.

use winnow::ascii::{Caseless, multispace0};
use winnow::combinator::{alt, delimited, not, opt, peek, separated};
use winnow::error::{ErrMode, ParserError};
use winnow::prelude::*;
use winnow::stream::{LocatingSlice, Location, Stateful};
use winnow::token::{literal, one_of, take_while};

use super::{Expression, MAX_NESTING};

/// What is wrong, and at which byte.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) at: usize,
    pub(super) detail: String,
}

/// What a text says. Conjunctions have two parts or more.
#[derive(Debug)]
pub(super) enum Syntax<'a> {
    Any(Vec<Syntax<'a>>),
    All(Vec<Syntax<'a>>),
    Not(usize, Box<Syntax<'a>>),
    Condition(Condition<'a>),
}

/// A field and what is asked of it.
#[derive(Debug)]
pub(super) struct Condition<'a> {
    pub(super) at: usize,
    pub(super) field: &'a str,
    pub(super) operator_at: usize,
    pub(super) negated: bool,
    pub(super) operator: Operator,
    /// One but after `in`.
    pub(super) operands: Vec<Operand>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Matches,
    In,
}

/// A value or a field: which it is depends on the field before it.
#[derive(Debug)]
pub(super) struct Operand {
    pub(super) at: usize,
    pub(super) quoted: bool,
    pub(super) text: String,
}

/// The text, and how deep in parentheses and `not` it is.
type Input<'a> = Stateful<LocatingSlice<&'a str>, usize>;

type Parsed<T> = ModalResult<T, Refusal>;

impl ParserError<Input<'_>> for Refusal {
    type Inner = Self;

    fn from_input(input: &Input<'_>) -> Self {
        Self { at: input.current_token_start(), detail: String::new() }
    }

    fn into_inner(self) -> Result<Self, Self> {
        Ok(self)
    }
}

impl Syntax<'_> {
    /// Where it begins.
    pub(super) fn at(&self) -> usize {
        match self {
            Self::Any(parts) | Self::All(parts) => parts.first().map_or(0, Self::at),
            Self::Not(at, _) => *at,
            Self::Condition(condition) => condition.at,
        }
    }
}

/// Reads a text.
pub(super) fn read(text: &str) -> Result<Syntax<'_>, Refusal> {
    if text.len() > Expression::MAX_LENGTH {
        let detail = format!("an expression has at most {} bytes", Expression::MAX_LENGTH);
        return Err(Refusal { at: Expression::MAX_LENGTH, detail });
    }
    let mut input = Stateful { input: LocatingSlice::new(text), state: 0 };
    // Nothing is incomplete: all of the text is there.
    whole(&mut input)
        .map_err(|error| error.into_inner().unwrap_or_else(|_| Refusal::from_input(&input)))
}

fn whole<'a>(input: &mut Input<'a>) -> Parsed<Syntax<'a>> {
    let syntax = any(input)?;
    multispace0.parse_next(input)?;
    if input.is_empty() { Ok(syntax) } else { expected(input, "and, or, or the end") }
}

fn any<'a>(input: &mut Input<'a>) -> Parsed<Syntax<'a>> {
    let parts = separated(1.., all, keyword("or")).parse_next(input)?;
    Ok(one_or(parts, Syntax::Any))
}

fn all<'a>(input: &mut Input<'a>) -> Parsed<Syntax<'a>> {
    let parts = separated(1.., term, keyword("and")).parse_next(input)?;
    Ok(one_or(parts, Syntax::All))
}

fn one_or<'a>(
    mut parts: Vec<Syntax<'a>>,
    several: fn(Vec<Syntax<'a>>) -> Syntax<'a>,
) -> Syntax<'a> {
    match (parts.pop(), parts.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            parts.extend(last);
            several(parts)
        }
    }
}

fn term<'a>(input: &mut Input<'a>) -> Parsed<Syntax<'a>> {
    multispace0.parse_next(input)?;
    let at = input.current_token_start();
    if opt(keyword("not")).parse_next(input)?.is_some() {
        return Ok(Syntax::Not(at, Box::new(deeper(input, at, term)?)));
    }
    if opt('(').parse_next(input)?.is_none() {
        return condition(input).map(Syntax::Condition);
    }
    let inner = deeper(input, at, any)?;
    if opt((multispace0, ')')).parse_next(input)?.is_none() {
        return expected(input, "and, or, or )");
    }
    Ok(inner)
}

fn deeper<'a>(
    input: &mut Input<'a>,
    at: usize,
    inner: fn(&mut Input<'a>) -> Parsed<Syntax<'a>>,
) -> Parsed<Syntax<'a>> {
    input.state += 1;
    if input.state > MAX_NESTING {
        let detail = format!("nested more than {MAX_NESTING} deep");
        return Err(ErrMode::Cut(Refusal { at, detail }));
    }
    let inner = inner(input)?;
    input.state -= 1;
    Ok(inner)
}

fn condition<'a>(input: &mut Input<'a>) -> Parsed<Condition<'a>> {
    let at = input.current_token_start();
    let Some(field) = opt(word).parse_next(input)? else {
        return expected(input, "a field, not, or (");
    };
    multispace0.parse_next(input)?;
    let operator_at = input.current_token_start();
    let Some((negated, operator)) = opt(operator).parse_next(input)? else {
        return expected(input, "=, !=, <, <=, >, >=, =~, !~, in, or not in");
    };
    let operands = if operator == Operator::In {
        if opt((multispace0, '(')).parse_next(input)?.is_none() {
            return expected(input, "( and values, as in (80, 443)");
        }
        let operands = separated(1.., operand, (multispace0, ',')).parse_next(input)?;
        if opt((multispace0, ')')).parse_next(input)?.is_none() {
            return expected(input, ", or )");
        }
        operands
    } else {
        vec![operand(input)?]
    };
    Ok(Condition { at, field, operator_at, negated, operator, operands })
}

fn operator(input: &mut Input<'_>) -> Parsed<(bool, Operator)> {
    let symbol = alt((
        "!=".value((true, Operator::Equal)),
        "!~".value((true, Operator::Matches)),
        "=~".value((false, Operator::Matches)),
        "=".value((false, Operator::Equal)),
        "<=".value((false, Operator::LessOrEqual)),
        "<".value((false, Operator::Less)),
        ">=".value((false, Operator::GreaterOrEqual)),
        ">".value((false, Operator::Greater)),
    ));
    let within = (opt(keyword("not")), keyword("in"));
    alt((symbol, within.map(|(not, ())| (not.is_some(), Operator::In)))).parse_next(input)
}

fn operand(input: &mut Input<'_>) -> Parsed<Operand> {
    multispace0.parse_next(input)?;
    let at = input.current_token_start();
    let quote = opt(one_of(['"', '\''])).parse_next(input)?;
    let text = match quote {
        Some(quote) => quoted(input, at, quote)?,
        None => match opt(word).parse_next(input)? {
            Some(word) => word.to_owned(),
            None => return expected(input, "a value or a field"),
        },
    };
    Ok(Operand { at, quoted: quote.is_some(), text })
}

/// The rest of a text after its first quote. Two quotes stand for one, so that regular expressions keep
/// their backslashes.
fn quoted(input: &mut Input<'_>, at: usize, quote: char) -> Parsed<String> {
    let mut text = String::new();
    loop {
        text.push_str(take_while(0.., |c| c != quote).parse_next(input)?);
        if opt(quote).parse_next(input)?.is_none() {
            let detail = format!("no {quote} ends this text");
            return Err(ErrMode::Cut(Refusal { at, detail }));
        }
        if opt(quote).parse_next(input)?.is_none() {
            return Ok(text);
        }
        text.push(quote);
    }
}

/// A field's name, or a value without quotes.
fn word<'a>(input: &mut Input<'a>) -> Parsed<&'a str> {
    take_while(1.., is_of_word).parse_next(input)
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | ':' | '/')
}

/// A word of the language, in any case.
fn keyword<'a>(word: &'static str) -> impl Parser<Input<'a>, (), ErrMode<Refusal>> {
    let ends = peek(not(one_of(is_of_word)));
    delimited(multispace0, literal(Caseless(word)), ends).void()
}

fn expected<T>(input: &mut Input<'_>, what: &str) -> Parsed<T> {
    const SHOWN: usize = 20;
    multispace0.parse_next(input)?;
    let at = input.current_token_start();
    let found: String = input.chars().take(SHOWN).collect();
    let found = if found.is_empty() { "the end".to_owned() } else { format!("{found:?}") };
    Err(ErrMode::Cut(Refusal { at, detail: format!("expected {what}, but there is {found}") }))
}
