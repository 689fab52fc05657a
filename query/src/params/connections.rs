//! The parameters of `/api/v1/connections`.

use super::{Given, Order, refused, rows_only};
use crate::connections::Cursor;
use crate::filter::Filter;
use crate::http::Asked;
use crate::problem::Problem;
use crate::window::Requested;

/// Connections on a page without `limit`: what a person reads.
pub(crate) const DEFAULT_PAGE: usize = 50;
/// Largest page: with all evidence an answer of about 5 MB.
pub(crate) const MAX_PAGE: usize = 500;

/// Which connections to list.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionsRequest {
    /// The cursor's window, if there is one: `now` moves, pages do not.
    pub(crate) window: Requested,
    pub(crate) filter: Filter,
    pub(crate) order: Order,
    pub(crate) limit: usize,
    /// Tells it from other questions, but for its window and which page it is.
    pub(crate) question: u64,
    /// After which one the page begins.
    pub(crate) after: Option<Cursor>,
}

/// What may differ between the pages of an answer: [`Cursor`] brings the window and the order.
const OF_A_PAGE: &[&str] = &["cursor", "limit", "order", "from", "to"];

impl ConnectionsRequest {
    /// Its parameters.
    pub(crate) const TAKEN: &[&str] = &[
        "from",
        "to",
        "group_by",
        "namespace",
        "workload",
        "include",
        "exclude",
        "port",
        "kind",
        "q",
        "edge",
        "source",
        "target",
        "order",
        "limit",
        "cursor",
    ];

    /// From the parameters of a URL. `now_ms` is the instant that `now` means.
    pub(crate) fn parse(asked: Asked, now_ms: i64) -> Result<Self, Problem> {
        let given = Given::new(asked, Self::TAKEN)?;
        let after = match given.one("cursor")? {
            None => None,
            Some(text) => Some(text.parse::<Cursor>().map_err(|()| {
                let takes = "takes the `next` of an answer";
                Problem::parameter("cursor", refused(text, takes))
            })?),
        };
        let question = given.question(OF_A_PAGE);
        if let Some(cursor) = &after {
            given.check_is_of(cursor, question, now_ms)?;
        }
        // Checked in any case.
        let window = given.window(now_ms)?;
        let order = given.word("order", Order::WORDS)?;
        if let (Some(cursor), Some(_)) = (&after, given.one("order")?)
            && cursor.order != order
        {
            return Err(Problem::parameter("order", "is not the one that the cursor is of"));
        }
        Ok(Self {
            window: after.as_ref().map_or(window, |cursor| cursor.window),
            filter: rows_only(given.filter()?)?,
            order: after.as_ref().map_or(order, |cursor| cursor.order),
            limit: given
                .numbers("limit", "a number of connections, 1 to 500", 1..=MAX_PAGE)?
                .first()
                .copied()
                .unwrap_or(DEFAULT_PAGE),
            question,
            after,
        })
    }
}

impl Given {
    /// Refuses a cursor of another answer. A window that moves is the cursor's: pages do not move.
    fn check_is_of(&self, cursor: &Cursor, question: u64, now_ms: i64) -> Result<(), Problem> {
        let other = |what: &str| {
            let detail = format!(
                "is of an answer to other {what}: leave it out for the first page, or give the parameters that it \
                 was answered to"
            );
            Err(Problem::parameter("cursor", detail))
        };
        if cursor.question != question {
            return other("filters, or to another caller");
        }
        for (name, told) in [("from", cursor.window.from_ms), ("to", cursor.window.to_ms)] {
            let stands = self.one(name)?.is_some_and(|text| !text.starts_with("now"));
            if stands && self.instant(name, now_ms)? != Some(told) {
                return other("bounds of the window");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::Scope;

    const NOW_MS: i64 = 1_700_000_000_000;

    fn parse(query: &[(&str, &str)]) -> Result<ConnectionsRequest, Problem> {
        ConnectionsRequest::parse(Asked::of_anybody(query), NOW_MS)
    }

    #[test]
    fn nothing_given_is_the_newest_of_the_last_hour() {
        let request = parse(&[("edge", ""), ("cursor", "")]).unwrap();
        assert_eq!(request.window, Requested { from_ms: NOW_MS - 3_600_000, to_ms: NOW_MS });
        assert_eq!((request.order, request.limit), (Order::Newest, DEFAULT_PAGE));
        assert_eq!(request.filter, Filter { scope: Scope::All, ..Filter::default() });
    }

    #[test]
    fn a_bad_value_names_the_parameter_and_what_it_takes() {
        let cases = [
            ("limit", "501", "1 to 500"),
            ("order", "biggest", "newest, longest, bytes, retransmits"),
            ("cursor", "1.2.3", "`next` of an answer"),
            ("edge", "workload:shop/Deployment/web", "source>target"),
            ("edge", "workload:shop/Deployment/web>other", "raise its limit"),
            ("source", "web", "node id"),
            ("target", "ip:10.0.0.1", "group_by"),
            ("stat", "bytes", "unknown parameter"),
            ("q", "server.port = 80 and failed > 0", "an edge's sums"),
        ];
        for (name, value, says) in cases {
            let problem = parse(&[(name, value)]).unwrap_err();
            assert_eq!((problem.status, problem.parameter.as_deref()), (400, Some(name)));
            assert!(problem.detail.contains(says), "{}", problem.detail);
        }
        let both = parse(&[("edge", "ip:::1>ip:::2"), ("source", "ip:::1")]).unwrap_err();
        assert!(both.detail.contains("leave out"), "{}", both.detail);
    }

    #[test]
    fn a_cursor_brings_its_window_and_order() {
        let window = Requested { from_ms: 1_000, to_ms: 2_000 };
        let question = parse(&[]).unwrap().question;
        let cursor = Cursor { question, window, order: Order::Bytes, ..Cursor::default() };
        let request = parse(&[("cursor", &cursor.to_string()), ("from", "now-5m")]).unwrap();
        assert_eq!((request.window, request.order), (window, Order::Bytes));
        assert_eq!(request.after, Some(cursor.clone()));
        let other = parse(&[("cursor", &cursor.to_string()), ("order", "longest")]).unwrap_err();
        assert_eq!(other.parameter.as_deref(), Some("order"));
    }

    #[test]
    fn a_cursor_is_of_one_question() {
        let filter = [("namespace", "shop"), ("port", "80"), ("from", "1000"), ("to", "2000")];
        let question = parse(&filter).unwrap().question;
        let window = Requested { from_ms: 1_000, to_ms: 2_000 };
        let cursor = Cursor { question, window, ..Cursor::default() }.to_string();
        let page =
            |pairs: &[(&str, &str)]| parse(&[pairs, &[("cursor", cursor.as_str())]].concat());
        // In another order, of another length, and of a window that moves.
        let same = [("port", "80"), ("namespace", "shop"), ("limit", "7"), ("from", "now-1h")];
        assert_eq!(page(&filter).unwrap().window, page(&same).unwrap().window);
        let others: &[&[(&str, &str)]] = &[
            &[],
            &[("namespace", "shop")],
            &[("namespace", "80"), ("port", "1")],
            &[("namespace", "shop"), ("port", "80"), ("include", "web")],
            &[("namespace", "shop"), ("port", "80"), ("from", "1001")],
            &[("namespace", "shop"), ("port", "80"), ("to", "1970-01-01T00:00:03Z")],
        ];
        for other in others {
            let problem = page(other).unwrap_err();
            assert_eq!(problem.parameter.as_deref(), Some("cursor"), "{other:?}");
            assert!(problem.detail.contains("leave it out for the first page"));
        }
        // Who may see less has another answer.
        let limited = Asked {
            pairs: vec![("cursor".to_owned(), cursor.clone())],
            scope: crate::scope::Scope::namespaces(&["shop"]),
        };
        assert!(ConnectionsRequest::parse(limited, NOW_MS).is_err());
    }
}
