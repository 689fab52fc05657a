//! A user's name and password, from wherever clients of ClickHouse's HTTP interface put them.

use std::fmt;

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::exception::Exception;

/// What a client says of itself.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Those of the headers, ClickHouse's own or HTTP's; else those found in the URL.
    ///
    /// # Errors
    /// If HTTP's are of another scheme, or not readable.
    pub(crate) fn or_of_headers(self, headers: &HeaderMap) -> Result<Self, Exception> {
        let text =
            |name: &str| headers.get(name).and_then(|value| Some(value.to_str().ok()?.to_owned()));
        let own = Self { user: text("x-clickhouse-user"), password: text("x-clickhouse-key") };
        if own != Self::default() {
            return Ok(own);
        }
        match headers.get(header::AUTHORIZATION) {
            None => Ok(self),
            Some(value) => basic(value.as_bytes()).ok_or_else(|| {
                Exception::new(
                    516,
                    "AUTHENTICATION_FAILED",
                    "Invalid authentication: the embedded engine takes HTTP's Basic scheme, or X-ClickHouse-User and X-ClickHouse-Key",
                )
            }),
        }
    }
}

/// HTTP's Basic scheme (RFC 7617).
fn basic(value: &[u8]) -> Option<Credentials> {
    let (scheme, encoded) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (user, password) = decoded.split_once(':')?;
    scheme.eq_ignore_ascii_case("basic").then(|| Credentials {
        user: Some(user.to_owned()).filter(|user| !user.is_empty()),
        password: Some(password.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(headers: &[(&'static str, &'static str)]) -> Option<(Option<String>, Option<String>)> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect();
        let url = Credentials { user: Some("url".to_owned()), password: None };
        let found = url.or_of_headers(&headers).ok()?;
        Some((found.user, found.password))
    }

    fn named(user: &str, password: Option<&str>) -> Option<(Option<String>, Option<String>)> {
        Some((Some(user.to_owned()), password.map(str::to_owned)))
    }

    #[test]
    fn headers_come_before_the_url() {
        assert_eq!(of(&[]), named("url", None));
        let basic = ("authorization", "Basic cmVhZGVyOmE6Yg==");
        assert_eq!(of(&[basic]), named("reader", Some("a:b")));
        let own = [("x-clickhouse-user", "own"), ("x-clickhouse-key", "key"), basic];
        assert_eq!(of(&own), named("own", Some("key")));
        assert_eq!(of(&[("authorization", "Bearer x")]), None);
        assert_eq!(of(&[("authorization", "Basic !")]), None);
    }

    #[test]
    fn a_password_is_not_printed() {
        let credentials =
            Credentials { user: Some("a".to_owned()), password: Some("hunter2".to_owned()) };
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }
}
