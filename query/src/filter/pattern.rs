//! What a pattern can match. Addresses are made into texts row by row, which takes longer than all else that is done
//! with a row; few patterns are meant for them.

use regex_syntax::hir::{Class, Hir, HirKind};

/// All that addresses are written with.
const ADDRESS: &str = "0123456789abcdef.:";

/// What Rust's classes of characters understand and RE2's, which ClickHouse has, take as it is.
const RUST_ONLY: [&str; 3] = ["&&", "--", "~~"];

/// Whether there may be an address that a regular expression is found in. If in doubt there is.
pub(super) fn may_match_addresses(pattern: &str) -> bool {
    if RUST_ONLY.iter().any(|operator| pattern.contains(operator)) {
        return true;
    }
    regex_syntax::parse(pattern).map_or(true, |parsed| may_match(&parsed))
}

fn may_match(part: &Hir) -> bool {
    match part.kind() {
        // Where a match may begin and end is not looked at.
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(literal) => literal.0.iter().all(|byte| ADDRESS.as_bytes().contains(byte)),
        HirKind::Class(class) => ADDRESS.chars().any(|letter| has(class, letter)),
        HirKind::Repetition(repetition) => repetition.min == 0 || may_match(&repetition.sub),
        HirKind::Capture(capture) => may_match(&capture.sub),
        HirKind::Concat(parts) => parts.iter().all(may_match),
        HirKind::Alternation(parts) => parts.iter().any(may_match),
    }
}

/// Whether a letter of ASCII is in a class.
fn has(class: &Class, letter: char) -> bool {
    match class {
        Class::Unicode(class) => {
            class.iter().any(|range| (range.start()..=range.end()).contains(&letter))
        }
        Class::Bytes(class) => {
            let letter = letter as u8;
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
            // As RE2 has it a digit, an `&` or an `a`.
            "[0-9&&a]",
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
