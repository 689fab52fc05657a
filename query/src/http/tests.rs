//! What callers are told when there is no answer.

use std::net::{Ipv4Addr, SocketAddr};

use flowtrail_service::metrics::Metrics;
use flowtrail_service::store::ClickHouseArgs;
use tokio::net::TcpListener;

use super::*;
use crate::sql::Malformed;
use crate::store::Limits;

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// The problem that a request for a comparison of graphs meets, and whether it says when to come again.
async fn problem(store: SocketAddr, timeout: Duration, at_once: u16) -> (Problem, bool) {
    let store = ClickHouseArgs::at(format!("http://{store}"));
    let metrics = QueryMetrics::new(&Metrics::new());
    let limits = Limits { time: timeout, memory_bytes: 1 << 30, rows_read: 1 };
    let app = App::new(Store::new(&store, limits), metrics, timeout, at_once);
    let router = router(app, Access::Open, Router::new());
    let (listener, address) = listener().await;
    tokio::spawn(async move { axum::serve(listener, router).await });
    let ask = move || {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let mut response =
            agent.get(format!("http://{address}/api/v1/diff?base=-1d")).call().unwrap();
        let body = response.body_mut().read_to_string().unwrap();
        (serde_json::from_str(&body).unwrap(), response.headers().contains_key("retry-after"))
    };
    tokio::task::spawn_blocking(ask).await.unwrap()
}

#[tokio::test]
async fn a_store_that_hangs_up_is_503() {
    let (store, address) = listener().await;
    tokio::spawn(async move { while store.accept().await.is_ok() {} });
    let (problem, retry) = problem(address, Duration::from_secs(30), 1).await;
    assert_eq!((problem.status, retry), (503, true));
    assert!(problem.detail.contains("cannot reach ClickHouse"), "{}", problem.detail);
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_504() {
    // The kernel takes the connection; nobody reads it.
    let (_store, address) = listener().await;
    let (problem, _) = problem(address, Duration::from_millis(50), 1).await;
    assert_eq!(problem.status, 504);
    assert!(problem.detail.contains("--query-timeout"), "{}", problem.detail);
}

#[tokio::test]
async fn more_than_allowed_at_once_is_429() {
    let (_store, address) = listener().await;
    let (problem, retry) = problem(address, Duration::from_millis(50), 0).await;
    assert_eq!((problem.status, retry), (429, true));
    assert!(problem.detail.contains("--max-concurrent-queries"), "{}", problem.detail);
}

#[test]
fn what_the_store_says_stays_in_the_log() {
    let says = |text: &str| {
        let error = clickhouse::error::Error::BadResponse(text.to_owned());
        store_problem(&StoreError::from(error))
    };
    let cases = [
        ("Code: 158. DB::Exception: Limit for rows exceeded", 422),
        ("Code: 159. DB::Exception: Timeout exceeded", 504),
        ("Code: 202. DB::Exception: Too many simultaneous queries", 503),
        ("Code: 241. DB::Exception: Memory limit exceeded", 422),
        ("Code: 396. DB::Exception: Limit for result exceeded", 422),
        ("Code: 427. DB::Exception: cannot compile re2", 400),
        ("Code: 47. DB::Exception: Unknown identifier", 500),
        ("502 Bad Gateway", 503),
    ];
    for (text, status) in cases {
        let problem = says(text);
        assert_eq!(problem.status, status, "{text}");
        assert!(!problem.detail.contains("Exception"), "{}", problem.detail);
    }
    let (told, expected) = ("hidden".to_owned(), "hidden".to_owned());
    let malformed = store_problem(&Malformed::Columns { told, expected }.into());
    assert_eq!(malformed.status, 500);
    assert!(malformed.detail.contains("cannot be read") && !malformed.detail.contains("hidden"));
}

/// A service without a store, with routes of its own, asked as raw HTTP.
async fn served(access: Access) -> SocketAddr {
    let store = ClickHouseArgs::at("http://127.0.0.1:1".to_owned());
    let limits = Limits { time: Duration::from_secs(1), memory_bytes: 1 << 30, rows_read: 1 };
    let metrics = QueryMetrics::new(&Metrics::new());
    let app = App::new(Store::new(&store, limits), metrics, limits.time, 1);
    let routes = routes()
        .route("/panic", get(async || -> &'static str { panic!("a secret of the stack") }))
        .route(
            "/number/{number}",
            get(async |axum::extract::Path(number): axum::extract::Path<u8>| number.to_string()),
        )
        .route("/large", get(async || Json(vec!["same"; 10_000])));
    let operations = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/metrics", get(async || "metrics\n"));
    let router = behind_the_door(routes, app, access, operations);
    let (listener, address) = listener().await;
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

struct Response {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Response {
    fn problem(&self) -> Problem {
        assert!(self.head.contains("content-type: application/problem+json"), "{}", self.head);
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, self.status);
        problem
    }
}

async fn ask(address: SocketAddr, method: &str, path: &str, headers: &str) -> Response {
    ask_as("x", address, method, path, headers).await
}

/// As [`ask`], with a name that the service is called by.
async fn ask_as(
    host: &str,
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
) -> Response {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Response { status, head, body: answer[end + 4..].to_vec() }
}

#[tokio::test]
async fn every_error_is_a_problem() {
    let address = served(Access::Open).await;
    let panicked = ask(address, "GET", "/panic", "").await;
    assert_eq!(panicked.status, 500);
    assert!(panicked.problem().detail.contains("defect"), "{}", panicked.problem().detail);
    assert!(!panicked.problem().detail.contains("secret"));
    // It goes on after one.
    assert_eq!(ask(address, "GET", "/number/7", "").await.body, b"7");

    let rejected = ask(address, "GET", "/number/x", "").await;
    assert_eq!(rejected.status, 400);
    assert!(
        rejected.problem().detail.contains("/number/x") || !rejected.problem().detail.is_empty()
    );
    assert_eq!(ask(address, "GET", "/nowhere", "").await.problem().status, 404);
    for method in ["POST", "OPTIONS", "DELETE"] {
        let refused = ask(address, method, "/api/v1/graph", "").await;
        assert_eq!(refused.problem().status, 405);
        assert!(refused.head.contains("allow: get,head"), "{}", refused.head);
    }
    let long = format!("/api/v1/graph?include={}", "x".repeat(40_000));
    assert_eq!(ask(address, "GET", &long, "").await.problem().status, 414);
    let head = ask(address, "HEAD", "/api/v1/graph?group_by=x", "").await;
    assert_eq!((head.status, head.body.len()), (400, 0));
}

#[tokio::test]
async fn large_answers_are_compressed_as_asked() {
    let address = served(Access::Open).await;
    let plain = ask(address, "GET", "/large", "").await;
    for coding in ["gzip", "br", "zstd"] {
        let header = format!("accept-encoding: {coding}\r\n");
        let compressed = ask(address, "GET", "/large", &header).await;
        let said = format!("content-encoding: {coding}");
        assert!(compressed.head.contains(&said), "{}", compressed.head);
        assert!(compressed.head.contains("vary: accept-encoding"), "{}", compressed.head);
        assert!(compressed.body.len() < plain.body.len() / 10);
    }
}

#[tokio::test]
async fn a_page_whose_name_leads_here_does_not_get_in() {
    let address = served(Access::Local(["flow.example".to_owned()].into())).await;
    let refused = ask(address, "GET", "/openapi.json", "").await.problem();
    assert_eq!(refused.status, 421);
    assert!(refused.detail.contains("--allowed-host"), "{}", refused.detail);
    for host in ["localhost:8480", "127.0.0.1:1", "[::1]:8480", "Flow.Example:80"] {
        let answer = ask_as(host, address, "GET", "/openapi.json", "").await;
        assert_eq!(answer.status, 200, "{host}");
        assert!(answer.head.contains("server-timing: total;dur="), "{}", answer.head);
    }
}

#[tokio::test]
async fn a_page_of_another_site_cannot_make_it_work() {
    let address = served(Access::Local(Arc::default())).await;
    let status = async |mode: &str| {
        let headers = format!("sec-fetch-site: cross-site\r\nsec-fetch-mode: {mode}\r\n");
        ask_as("localhost", address, "GET", "/openapi.json", &headers).await.status
    };
    assert_eq!((status("no-cors").await, status("navigate").await), (403, 200));
}

#[tokio::test]
async fn nobody_passes_the_door_without_a_token() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    let (all, shop) = ("a".repeat(32), "b".repeat(32));
    std::fs::write(&path, format!("all {all} *\nshop {shop} shop\n")).unwrap();
    let address = served(Access::of_file(path).unwrap()).await;
    let bearer = |token: &str| format!("authorization: Bearer {token}\r\n");
    let status = async |path: &str, headers: &str| ask(address, "GET", path, headers).await.status;
    let private = [
        "/api/v1/graph",
        "/nodegraph/api/health",
        "/nodegraph/api/graph/fields",
        "/nodegraph/api/graph/data",
        "/metrics",
        "/nowhere",
        "//healthz",
        "/healthz/",
        "/HEALTHZ",
    ];
    for path in private {
        let refused = ask(address, "GET", path, "").await;
        assert_eq!(refused.problem().status, 401, "{path}");
        assert!(refused.head.contains("www-authenticate: bearer"), "{}", refused.head);
        assert!(refused.head.contains("www-authenticate: basic"), "{}", refused.head);
        assert_eq!(status(path, &bearer(&"c".repeat(32))).await, 401, "{path}");
        assert_ne!(status(path, &bearer(&all)).await, 401, "{path}");
    }
    assert_eq!(status("/healthz", "").await, 200);
    assert_eq!(status("/nodegraph/api/health", &bearer(&shop)).await, 200);
    assert_eq!(status("/metrics", &bearer(&shop)).await, 403);
    assert_eq!(status("/metrics", &bearer(&all)).await, 200);
}
