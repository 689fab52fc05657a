//! What a pattern can match. Addresses are made into texts row by row, which takes longer than all else that is done
//! with a row; few patterns are meant for them.

use regex_syntax::ast::parse::Parser;
use regex_syntax::ast::{Ast, ClassSetBinaryOp, ClassSetItem, Visitor, visit};
use regex_syntax::hir::translate::TranslatorBuilder;
use regex_syntax::hir::{Class, Hir, HirKind};

/// All that addresses are written with.
const ADDRESS: &[u8] = b"0123456789abcdef.:";

/// Whether there may be an address that a regular expression is found in. If in doubt there is.
pub(super) fn may_match_addresses(pattern: &str) -> bool {
    let Ok(syntax) = Parser::new().parse(pattern) else { return true };
    // Addresses are ASCII, as are the classes of RE2's escapes.
    let mut translator = TranslatorBuilder::new().unicode(false).utf8(false).build();
    let parsed = translator.translate(pattern, &syntax);
    !is_read_alike(&syntax) || parsed.map_or(true, |parsed| may_match(&parsed))
}

/// Whether RE2, which ClickHouse has, reads the same: within a class it takes `[` and `&&` for letters, where Rust's
/// begins another or has what is in both.
fn is_read_alike(syntax: &Ast) -> bool {
    struct Alike;

    impl Visitor for Alike {
        type Output = ();
        type Err = ();

        fn finish(self) -> Result<(), ()> {
            Ok(())
        }

        fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), ()> {
            if matches!(item, ClassSetItem::Bracketed(_)) { Err(()) } else { Ok(()) }
        }

        fn visit_class_set_binary_op_pre(&mut self, _: &ClassSetBinaryOp) -> Result<(), ()> {
            Err(())
        }
    }

    visit(syntax, Alike).is_ok()
}

fn may_match(part: &Hir) -> bool {
    match part.kind() {
        // Where a match may begin and end is not looked at.
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(literal) => literal.0.iter().all(|byte| ADDRESS.contains(byte)),
        HirKind::Class(class) => ADDRESS.iter().any(|byte| has(class, *byte)),
        HirKind::Repetition(repetition) => repetition.min == 0 || may_match(&repetition.sub),
        HirKind::Capture(capture) => may_match(&capture.sub),
        HirKind::Concat(parts) => parts.iter().all(may_match),
        HirKind::Alternation(parts) => parts.iter().any(may_match),
    }
}

/// Whether a letter of ASCII is in a class.
fn has(class: &Class, letter: u8) -> bool {
    match class {
        Class::Unicode(class) => {
            class.iter().any(|range| (range.start()..=range.end()).contains(&char::from(letter)))
        }
        Class::Bytes(class) => {
            class.iter().any(|range| (range.start()..=range.end()).contains(&letter))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    #[test]
    fn names_are_told_from_what_may_be_an_address() {
        for pattern in
            ["^cache-0", "shop", "(web|api)-[0-9]+$", "(?i)CACHE", "10_", r"\s", "^[g-z]"]
        {
            assert!(!may_match_addresses(pattern), "{pattern}");
        }
        for pattern in [
            "",
            ".*",
            "10",
            r"^10\.0\.",
            "cafe",
            "a",
            "web|::1",
            "x?1",
            r"\d",
            "(?i)FE80",
            "[^a]",
            r"\b1",
            // RE2 finds a digit, an `&` or an `a`; and, in the second, a 10.
            "[0-9&&a]",
            "web[[x]|10|]",
            r"web[\][x]|10|]",
        ] {
            assert!(may_match_addresses(pattern), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn no_address_is_missed(
            pattern in "[0-9a-fx.:|^$]{0,3}(\\[[a-f0-9x^-]{1,3}\\]|\\(1\\|x\\)|\\.|[0-9a-hx])[*+?]?[:.0-9x|$]{0,2}",
            address in any::<IpAddr>()
        ) {
            if let Ok(regex) = Regex::new(&pattern)
                && regex.is_match(&address.to_string())
            {
                prop_assert!(may_match_addresses(&pattern), "{pattern} {address}");
            }
        }
    }
}
