//! The lines of a file of tokens: `NAME TOKEN NAMESPACES`.

use std::collections::HashSet;

use flowtrail_service::secret::Secret;

use crate::scope::Scope;

/// Shortest token, in characters: 128 random bits in hexadecimal. Nobody guesses these.
const MIN_TOKEN_LENGTH: usize = 32;
/// Namespaces of one token, at most: each row is compared with them.
const MAX_NAMESPACES: usize = 200;

/// Tokens and what they allow. As many as fit in a secret file: about a thousand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tokens(Vec<(Secret, Scope)>);

impl Tokens {
    /// The tokens of a file. Empty lines and such as begin with `#` do not count.
    ///
    /// # Errors
    /// The number of a line that is not as it should be, and what it takes; never what is in it.
    pub(super) fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut tokens = Vec::new();
        let (mut names, mut seen) = (HashSet::new(), HashSet::new());
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |reason: &str| (index + 1, reason.to_owned());
            let fields: Vec<_> = line.split_whitespace().collect();
            let [name, token, namespaces] = fields[..] else {
                return Err(wrong(
                    "takes NAME TOKEN NAMESPACES, separated by blanks; NAMESPACES is * for all of them, \
                     or names separated by commas",
                ));
            };
            check_token(token).map_err(|reason| wrong(&reason))?;
            if !names.insert(name) {
                return Err(wrong("the name is taken by a line above"));
            }
            if !seen.insert(token) {
                return Err(wrong("the token is that of a line above"));
            }
            let scope = scope(namespaces).map_err(|reason| wrong(&reason))?;
            tokens.push((Secret::from(token.to_owned()), scope));
        }
        Ok(Self(tokens))
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// What a token allows. All are compared, so that time does not tell which one is nearly it.
    pub(super) fn scope(&self, given: &[u8]) -> Option<Scope> {
        let mut found = None;
        for (token, scope) in &self.0 {
            if token.is(given) {
                found = Some(scope);
            }
        }
        found.cloned()
    }
}

fn check_token(token: &str) -> Result<(), String> {
    // RFC 6750's b64token: what a header can carry as it is.
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
    if !token.chars().all(fits) {
        return Err(
            "a token takes letters, digits and -._~+/=; make one with `openssl rand -hex 32`"
                .to_owned(),
        );
    }
    if token.len() < MIN_TOKEN_LENGTH {
        return Err(format!(
            "a token has at least {MIN_TOKEN_LENGTH} characters; make one with `openssl rand -hex 32`"
        ));
    }
    Ok(())
}

fn scope(text: &str) -> Result<Scope, String> {
    if text == "*" {
        return Ok(Scope::All);
    }
    let namespaces: Vec<_> = text.split(',').collect();
    // Those of Kubernetes (RFC 1123), and of compose projects: a pattern or an empty name is a mistake.
    let is_name = |name: &&str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !name.is_empty() && name.len() <= 253 && name.chars().all(fits)
    };
    if !namespaces.iter().all(is_name) {
        return Err(
            "NAMESPACES takes * alone, or names of namespaces separated by commas, without blanks"
                .to_owned(),
        );
    }
    if namespaces.len() > MAX_NAMESPACES {
        return Err(format!("a token takes at most {MAX_NAMESPACES} namespaces, or * for all"));
    }
    Ok(Scope::namespaces(&namespaces))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_line_is_a_name_a_token_and_namespaces() {
        let text =
            format!("# of the platform team\n\n  ops {TOKEN}\t*\nshop {TOKEN}x shop,shop-2\n");
        let tokens = Tokens::parse(&text).unwrap();
        assert_eq!(tokens.count(), 2);
        assert_eq!(tokens.scope(TOKEN.as_bytes()), Some(Scope::All));
        let shop = tokens.scope(format!("{TOKEN}x").as_bytes());
        assert_eq!(shop, Some(Scope::namespaces(&["shop", "shop-2"])));
        assert_eq!(tokens.scope(b""), None);
    }

    #[test]
    fn a_line_that_would_allow_too_much_or_nothing_is_an_error() {
        let many = vec!["a"; MAX_NAMESPACES + 1].join(",");
        let cases = [
            (format!("ops {TOKEN}"), "NAME TOKEN NAMESPACES"),
            (TOKEN.to_owned(), "NAME TOKEN NAMESPACES"),
            (format!("ops {TOKEN} a b"), "NAME TOKEN NAMESPACES"),
            (format!("ops {} *", &TOKEN[1..]), "at least 32"),
            (format!("ops {TOKEN}ä *"), "letters, digits"),
            (format!("ops {TOKEN} *,shop"), "* alone"),
            (format!("ops {TOKEN} shop,"), "* alone"),
            (format!("ops {TOKEN} shop.*"), "* alone"),
            (format!("ops {TOKEN} {many}"), "at most 200"),
            (format!("ops {TOKEN} *\nops {TOKEN}x *"), "name is taken"),
            (format!("ops {TOKEN} *\nshop {TOKEN} shop"), "line above"),
        ];
        for (text, says) in cases {
            let (line, reason) = Tokens::parse(&text).unwrap_err();
            assert_eq!(line, text.lines().count());
            assert!(reason.contains(says) && !reason.contains(TOKEN), "{reason}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[ a-z0-9*,#\\n\\t\\PC]{0,200}") {
            let _ = Tokens::parse(&text);
        }
    }
}
