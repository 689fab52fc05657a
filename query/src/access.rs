//! Who may see what: bearer tokens from a file, which is reread when it changes. Without one everybody sees
//! everything, which only this machine may.

mod tokens;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flowtrail_service::net::{host_name, names_this_machine};
use flowtrail_service::secret;
use thiserror::Error;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::scope::Scope;
use tokens::Tokens;

/// How often the file is looked at: a token that is taken out of it opens nothing this much later.
const POLL: Duration = Duration::from_secs(2);

/// A file of tokens that cannot be used. No variant repeats what is in it.
#[derive(Debug, Error)]
pub enum TokenFileError {
    /// It is not there, not readable, or too large to be one.
    #[error("--token-file {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is in the way.
        reason: String,
    },
    /// A line is not `NAME TOKEN NAMESPACES`.
    #[error("--token-file {}, line {line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong, and what a line takes.
        reason: String,
    },
    /// There is not one token in it: nobody could ask anything.
    #[error("--token-file {} has no token: write lines NAME TOKEN NAMESPACES into it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// The door. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) enum Access {
    /// Everybody sees everything.
    Open,
    /// Everybody on this machine does, who call it as such or by one of these names.
    Local(Arc<[String]>),
    /// Only who has a token, and what it allows.
    Tokens(TokenFile),
}

/// Tokens that follow a file.
#[derive(Clone, Debug)]
pub(crate) struct TokenFile {
    path: PathBuf,
    tokens: Arc<RwLock<Arc<Tokens>>>,
}

impl Access {
    /// Reads a file of tokens.
    ///
    /// # Errors
    /// If it cannot be read, a line is not as it should be, or there is none.
    pub(crate) fn of_file(path: PathBuf) -> Result<Self, TokenFileError> {
        let tokens = Arc::new(RwLock::new(Arc::new(read(&path)?)));
        Ok(Self::Tokens(TokenFile { path, tokens }))
    }

    /// Whether it asks for tokens.
    pub(crate) fn asks(&self) -> bool {
        matches!(self, Self::Tokens(_))
    }

    /// Whether this service is who a caller asks, as the Host header says: on loopback and without tokens that
    /// keeps pages of other sites out.
    pub(crate) fn is_asked(&self, headers: &HeaderMap) -> bool {
        let (Self::Local(names), Some(host)) = (self, headers.get(header::HOST)) else {
            return true;
        };
        let host = host.to_str().unwrap_or_default();
        let is_allowed = |name: &String| name.eq_ignore_ascii_case(host_name(host));
        names_this_machine(host) || names.iter().any(is_allowed)
    }

    /// Whether a page of another site asks unseen, for an image say: it cannot read what comes of it, but make this
    /// service work. A link that somebody follows is another thing.
    pub(crate) fn is_abused(&self, headers: &HeaderMap) -> bool {
        let says = |name, what| headers.get(name).is_some_and(|value| value == what);
        matches!(self, Self::Local(_))
            && says("sec-fetch-site", "cross-site")
            && !says("sec-fetch-mode", "navigate")
    }

    /// What a caller may see; nothing at all without a token that is known.
    pub(crate) fn scope(&self, headers: &HeaderMap) -> Option<Scope> {
        match self {
            Self::Open | Self::Local(_) => Some(Scope::All),
            Self::Tokens(file) => {
                let given = given(headers)?;
                let tokens =
                    Arc::clone(&file.tokens.read().unwrap_or_else(PoisonError::into_inner));
                tokens.scope(&given)
            }
        }
    }

    /// Rereads the file whenever it changes, until the token is cancelled. One that is no longer good leaves
    /// the last good tokens in place.
    pub(crate) async fn follow(self, shutdown: CancellationToken) {
        let Self::Tokens(file) = self else { return };
        let mut poll = interval(POLL);
        // What was last said of it: the same is not said again.
        let mut said = String::new();
        while shutdown.run_until_cancelled(poll.tick()).await.is_some() {
            match read(&file.path) {
                Ok(tokens) => {
                    said.clear();
                    file.replace(tokens);
                }
                Err(failure) if failure.to_string() == said => {}
                Err(failure) => {
                    said = failure.to_string();
                    error!(error = said, "tokens not read, the last good ones stay");
                }
            }
        }
    }
}

impl TokenFile {
    fn replace(&self, tokens: Tokens) {
        let mut current = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        if **current != tokens {
            info!(path = %self.path.display(), tokens = tokens.count(), "tokens read");
            *current = Arc::new(tokens);
        }
    }
}

fn read(path: &Path) -> Result<Tokens, TokenFileError> {
    let text = secret::read(&path.to_string_lossy())
        .map_err(|reason| TokenFileError::Unreadable { path: path.to_owned(), reason })?;
    let tokens = Tokens::parse(&text).map_err(|(line, reason)| TokenFileError::Line {
        path: path.to_owned(),
        line,
        reason,
    })?;
    if tokens.count() == 0 {
        return Err(TokenFileError::Empty { path: path.to_owned() });
    }
    Ok(tokens)
}

/// Warns of a file that every user of the machine can read. It is no error: so are the files of a Kubernetes
/// Secret, in a container that has one user.
pub(crate) fn warn_if_world_readable(path: &Path) {
    let mode = path.metadata().map(|metadata| metadata.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o004 != 0) {
        warn!(path = %path.display(), "every user of this machine can read the tokens: chmod o-r");
    }
}

/// The token of a request: a bearer's (RFC 6750), or the password of HTTP's Basic scheme (RFC 7617), whatever
/// the user, for clients that know no other.
fn given(headers: &HeaderMap) -> Option<Vec<u8>> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, credentials) = value.to_str().ok()?.split_once(' ')?;
    let credentials = credentials.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        Some(credentials.as_bytes().to_owned())
    } else if scheme.eq_ignore_ascii_case("basic") {
        let decoded = BASE64_STANDARD.decode(credentials).ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        Some(decoded[colon + 1..].to_owned())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use axum::http::HeaderValue;

    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    const OTHER: &str = "ffffffffffffffff0123456789abcdef";

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        fs::write(&path, text).unwrap();
        (directory, path)
    }

    fn headers(values: &[&str]) -> HeaderMap {
        let pair = |value: &&str| (header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        values.iter().map(pair).collect()
    }

    #[test]
    fn a_token_is_taken_as_a_bearers_or_as_a_password() {
        let (_directory, path) = file(&format!("grafana {TOKEN} *\nshop {OTHER} shop\n"));
        let access = Access::of_file(path).unwrap();
        let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
        let known = [
            format!("Bearer {TOKEN}"),
            format!("bearer  {TOKEN} "),
            basic(&format!("anyone:{TOKEN}")),
            basic(&format!(":{TOKEN}")),
        ];
        for value in &known {
            assert_eq!(access.scope(&headers(&[value])), Some(Scope::All), "{value}");
        }
        let shop = access.scope(&headers(&[&format!("Bearer {OTHER}")]));
        assert_eq!(shop, Some(Scope::namespaces(&["shop"])));
        let unknown = [
            "Bearer",
            "Bearer ",
            &format!("Bearer {}", &TOKEN[1..]),
            &format!("Bearer {TOKEN}0"),
            &format!("Digest {TOKEN}"),
            TOKEN,
            "Basic !",
            &basic(TOKEN),
            &basic(&format!("{TOKEN}:")),
            &basic(&format!("user:x:{TOKEN}")),
        ];
        for value in unknown {
            assert_eq!(access.scope(&headers(&[value])), None, "{value}");
        }
        assert_eq!(access.scope(&HeaderMap::new()), None);
        // Which of two is meant, a proxy and we could see differently.
        assert_eq!(access.scope(&headers(&[&known[0], &known[0]])), None);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_without_what_is_in_it() {
        let (_directory, path) = file(&format!("# nobody yet\n\ngrafana {TOKEN}\n"));
        let error = Access::of_file(path).unwrap_err().to_string();
        assert!(error.contains("line 3") && !error.contains(TOKEN), "{error}");
        let (_directory, path) = file("# nobody yet\n");
        assert!(matches!(Access::of_file(path), Err(TokenFileError::Empty { .. })));
        let missing = Access::of_file("/nowhere/tokens".into()).unwrap_err().to_string();
        assert!(missing.contains("/nowhere/tokens"), "{missing}");
    }

    #[tokio::test]
    async fn a_changed_file_counts_and_a_broken_one_does_not() {
        let (_directory, path) = file(&format!("grafana {TOKEN} *\n"));
        let access = Access::of_file(path.clone()).unwrap();
        let Access::Tokens(tokens) = &access else { unreachable!() };
        let known = |token| access.scope(&headers(&[&format!("Bearer {token}")])).is_some();
        let reread = || read(&path).map(|read| tokens.replace(read));
        fs::write(&path, format!("grafana {OTHER} *\n")).unwrap();
        reread().unwrap();
        assert!(known(OTHER) && !known(TOKEN));
        fs::write(&path, "grafana").unwrap();
        assert!(reread().is_err());
        assert!(known(OTHER));
    }
}
