//! What a request asks, and on whose behalf: one argument, so that no route has the one without the other.

use axum::extract::{FromRequestParts, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;
use chrono::Utc;

use super::caching::is_settled;
use crate::answer::{Coverage, Window};
use crate::problem::Problem;
use crate::scope::Scope;

/// The parameters of a URL, and what the caller may see. Requests are made of it, and filters of these.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Names and values, in order.
    pub(crate) pairs: Vec<(String, String)>,
    /// What goes into the request's [`crate::filter::Filter`].
    pub(crate) scope: Scope,
}

impl Asked {
    /// When it is asked, and whether that matters.
    pub(crate) fn when(&self) -> When {
        When { now_ms: Utc::now().timestamp_millis(), of_instants: self.is_of_instants() }
    }

    /// Whether the window is named by instants: the same URL then always means the same.
    fn is_of_instants(&self) -> bool {
        let given = |name: &str| {
            let mut values = self.pairs.iter().filter(|(given, _)| given == name);
            values.next().is_some_and(|(_, value)| !value.is_empty())
        };
        let moves = |(_, value): &(String, String)| value.starts_with("now");
        given("from") && given("to") && !self.pairs.iter().any(moves)
    }
}

/// When something was asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct When {
    /// What `now` means, milliseconds since the epoch.
    pub(crate) now_ms: i64,
    of_instants: bool,
}

impl When {
    /// Whether the same question will have the same answer.
    pub(super) fn is_settled(self, window: &Window, coverage: &Coverage) -> bool {
        self.of_instants && is_settled(window, coverage, self.now_ms)
    }
}

#[cfg(test)]
impl Asked {
    /// By somebody who may see all.
    pub(crate) fn of_anybody(query: &[(&str, &str)]) -> Self {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self { pairs: query.iter().map(pair).collect(), scope: Scope::All }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        // The door puts it there. Where there is no door, nobody gets in.
        let Some(scope) = parts.extensions.get::<Scope>().cloned() else {
            let detail = "the service does not know who may ask this: please report it";
            return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail));
        };
        let Query(pairs) = Query::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Problem::new(StatusCode::BAD_REQUEST, rejection.body_text()))?;
        Ok(Self { pairs, scope })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[test]
    fn a_window_that_moves_is_not_of_instants() {
        let asked = |query: &[(&str, &str)]| Asked::of_anybody(query).is_of_instants();
        assert!(asked(&[("from", "1700000000000"), ("to", "2023-11-14T22:13:20Z")]));
        assert!(!asked(&[("from", "1700000000000")]));
        assert!(!asked(&[("from", "1700000000000"), ("to", "")]));
        assert!(!asked(&[("from", "now-2h"), ("to", "1700000000000")]));
        assert!(!asked(&[("from", "0"), ("to", "1"), ("base_from", "now-1h")]));
    }

    #[tokio::test]
    async fn a_route_without_a_door_answers_nobody() {
        let (mut parts, ()) = Request::new(()).into_parts();
        let problem = Asked::from_request_parts(&mut parts, &()).await.unwrap_err();
        assert_eq!(problem.status, 500);
    }
}
