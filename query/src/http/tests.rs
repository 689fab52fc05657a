//! What callers are told when there is no answer.

use std::net::{Ipv4Addr, SocketAddr};

use flowtrail_service::metrics::Metrics;
use flowtrail_service::store::ClickHouseArgs;
use tokio::net::TcpListener;

use super::*;

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// The problem that a request for a graph meets, and whether it says when to come again.
async fn problem(store: SocketAddr, timeout: Duration, at_once: u16) -> (Problem, bool) {
    let store = ClickHouseArgs::at(format!("http://{store}"));
    let metrics = QueryMetrics::new(&Metrics::new());
    let app = App::new(Store::new(&store, timeout), metrics, timeout, at_once);
    let (listener, address) = listener().await;
    tokio::spawn(async move { axum::serve(listener, router(app)).await });
    let ask = move || {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let mut response = agent.get(format!("http://{address}/api/v1/graph")).call().unwrap();
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
    let (problem, retry) = problem(address, Duration::from_secs(30), 0).await;
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
}
