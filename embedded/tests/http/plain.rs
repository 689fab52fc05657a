//! Plain HTTP, as curl and Grafana speak it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use ureq::Body;
use ureq::http::{Response, StatusCode};

use crate::common::shared;

/// Waits until a metric has at least a value; it must within a minute.
pub(crate) async fn wait_for(metric: &str, at_least: u64) {
    for _ in 0..6_000 {
        let text = shared().metrics.encode();
        let value = text.lines().find_map(|line| line.strip_prefix(metric)?.trim().parse().ok());
        if value.unwrap_or(0) >= at_least {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{metric} did not reach {at_least}");
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

fn url(parameters: &[(&str, &str)]) -> String {
    let encoded = |text: &str| -> String { text.bytes().map(|b| format!("%{b:02X}")).collect() };
    let pairs: Vec<_> = parameters
        .iter()
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
        .collect();
    format!("{}/?{}", shared().url, pairs.join("&"))
}

pub(crate) fn post(parameters: &[(&str, &str)], body: impl AsRef<[u8]>) -> Response<Body> {
    agent().post(url(parameters)).send(body.as_ref()).unwrap()
}

pub(crate) fn get(parameters: &[(&str, &str)]) -> Response<Body> {
    agent().get(url(parameters)).call().unwrap()
}

pub(crate) fn head(parameters: &[(&str, &str)]) -> Response<Body> {
    agent().head(url(parameters)).call().unwrap()
}

pub(crate) fn text(mut response: Response<Body>) -> String {
    let text = response.body_mut().read_to_string().unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{text}");
    text
}

#[test]
fn a_ping_is_answered() {
    let response = agent().get(format!("{}/ping", shared().url)).call().unwrap();
    assert_eq!(text(response), "Ok.\n");
    assert_eq!(text(get(&[])), "Ok.\n");
}

#[test]
fn a_query_may_be_in_the_url_the_body_or_both() {
    assert_eq!(text(get(&[("query", "SELECT 1 + 1")])), "2\n");
    assert_eq!(text(post(&[], "SELECT 1 + 1 -- two")), "2\n");
    assert_eq!(text(post(&[("query", "SELECT 1")], "+ 1")), "2\n");
    assert_eq!(
        text(post(&[], "SHOW DATABASES LIKE 'default' FORMAT JSONEachRow")),
        "{\"name\":\"default\"}\n"
    );
    assert_eq!(text(post(&[("database", "system")], "EXISTS TABLE one;")), "1\n");
    assert_eq!(text(post(&[("readonly", "1"), ("max_threads", "2")], "SELECT 1")), "1\n");
}

#[test]
fn answers_have_their_format_and_its_type() {
    let response = get(&[("query", "SELECT 1 AS a, 'b' AS c"), ("default_format", "CSVWithNames")]);
    assert_eq!(response.headers()["content-type"], "text/csv; charset=UTF-8");
    assert_eq!(response.headers()["x-clickhouse-format"], "CSVWithNames");
    assert_eq!(text(response), "\"a\",\"c\"\n1,\"b\"\n");
    let response = agent()
        .post(url(&[]))
        .header("X-ClickHouse-User", "default")
        .header("X-ClickHouse-Key", "")
        .header("X-ClickHouse-Database", "system")
        .header("X-ClickHouse-Format", "JSONEachRow")
        .send("SELECT currentDatabase() AS d")
        .unwrap();
    assert_eq!(text(response), "{\"d\":\"system\"}\n");
}

#[test]
fn a_document_is_whole_however_long() {
    // Many blocks, in one JSON document.
    let answer = text(post(&[], "SELECT number FROM numbers(300000) FORMAT JSONCompact"));
    let document: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(document["data"].as_array().unwrap().len(), 300_000);
    assert_eq!(document["rows"], 300_000);
}

#[test]
fn parameters_are_bound_in_urls_and_forms() {
    let query = ("query", "SELECT {a: UInt8} + 1, {b: String}");
    assert_eq!(text(get(&[query, ("param_a", "41"), ("param_b", "x' OR 1")])), "42\tx\\' OR 1\n");
    let form = "--x\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nSELECT {a: String}\r\n\
                --x\r\nContent-Disposition: form-data; name=\"param_a\"\r\n\r\nhello\r\n--x--\r\n";
    let response =
        agent().post(url(&[])).content_type("multipart/form-data; boundary=x").send(form).unwrap();
    assert_eq!(text(response), "hello\n");
}

/// Connections are used again by requests that want them alike, and only after a query: each of these rounds
/// but the first finds what the one before has left.
#[tokio::test]
async fn nothing_of_a_request_is_seen_by_the_next() {
    let limited = [("max_threads", "3")];
    let set = |name: &str| format!("SELECT getSetting('{name}') FORMAT TSV");
    for _ in 0..3 {
        let bound = post(&[("max_threads", "3"), ("param_n", "5")], "SELECT {n:UInt8} FORMAT TSV");
        assert_eq!(text(bound), "5\n");
        let unbound = post(&limited, "SELECT {n:UInt8}");
        assert_eq!(unbound.headers()["x-clickhouse-exception-code"], "456");
        let own = format!("{} SETTINGS max_threads = 2", set("max_threads"));
        assert_eq!(text(post(&limited, own)), "2\n");
        assert_eq!(text(post(&limited, set("max_threads"))), "3\n");
        assert_eq!(post(&limited, "SET max_threads = 4, max_block_size = 7").status(), 200);
        assert_eq!(post(&limited, "CREATE TEMPORARY TABLE passing (a Int8)").status(), 200);
        assert_eq!(text(post(&limited, set("max_threads"))), "3\n");
        assert_ne!(text(post(&limited, set("max_block_size"))), "7\n");
        let gone = post(&limited, "SELECT * FROM passing");
        assert_eq!(gone.headers()["x-clickhouse-exception-code"], "60");
        assert_ne!(text(post(&[], set("max_threads"))), "3\n");
        assert_eq!(text(post(&[("database", "system")], "SELECT currentDatabase()")), "system\n");
        assert_eq!(text(post(&[], "SELECT currentDatabase()")), "default\n");
        // What the engine takes for a comment is one here too: no statement hides behind it, and no order to the
        // engine's client, to whom a failure would be as it should.
        for (hidden, code) in [
            ("SELECT 1 // '\n; USE system; SELECT 1 // '", "62"),
            ("SELECT 1 /* /* */ ' */; USE system; SELECT 1 -- '", "62"),
            ("SELECT\u{a0}1; USE system", "62"),
            ("SELECT * FROM gone /* { serverError 60 } */", "60"),
        ] {
            let refused = post(&limited, hidden);
            assert_eq!(refused.headers()["x-clickhouse-exception-code"], code, "{hidden}");
        }
        assert_eq!(text(post(&limited, "SELECT currentDatabase()")), "default\n");
    }
    wait_for("flowtrail_embedded_connections_reused_total", 10).await;
}

#[test]
fn rows_may_follow_their_insert_in_the_url_or_the_body() {
    text(post(
        &[],
        "CREATE TABLE default.plain (a UInt64, b String) ENGINE = MergeTree ORDER BY a",
    ));
    let into = |query| post(&[("query", query), ("database", "default")], "1\tone\n2\ttwo\n");
    let response = into("INSERT INTO plain FORMAT TSV");
    assert!(
        response.headers()["x-clickhouse-summary"]
            .to_str()
            .unwrap()
            .contains("\"written_rows\":\"2\"")
    );
    text(response);
    text(post(
        &[],
        "INSERT INTO default.plain (a, b) FORMAT JSONEachRow\n{\"a\":3,\"b\":\"three\"}\n",
    ));
    text(post(&[], "INSERT INTO default.plain VALUES (4, 'four;')"));
    text(post(&[("query", "INSERT INTO default.plain VALUES")], "(5, 'five')"));
    text(post(&[], "INSERT INTO default.plain SELECT 6, 'six'"));
    let many: String = (7..200_000).map(|a| format!("{a},x\n")).collect();
    text(post(
        &[],
        format!("INSERT INTO default.plain SETTINGS max_insert_threads = 1 FORMAT CSV\n{many}"),
    ));
    assert_eq!(
        text(post(&[], "SELECT count(), sum(a), groupArraySorted(3)(b) FROM default.plain")),
        "199999\t19999900000\t['five','four;','one']\n"
    );
}

#[test]
fn compressed_blocks_are_taken_and_given() {
    text(post(&[], "CREATE TABLE default.packed (a UInt64) ENGINE = Memory"));
    let packed =
        read_all(post(&[("compress", "1")], "SELECT number FROM numbers(100000) FORMAT RowBinary"));
    assert!(packed.len() < 800_000);
    text(post(
        &[("query", "INSERT INTO default.packed FORMAT RowBinary"), ("decompress", "1")],
        &packed,
    ));
    assert_eq!(
        text(post(&[], "SELECT count(), sum(a) FROM default.packed")),
        "100000\t4999950000\n"
    );
    let mut damaged = packed;
    damaged[100] ^= 1;
    let response = post(
        &[("query", "INSERT INTO default.packed FORMAT RowBinary"), ("decompress", "1")],
        &damaged,
    );
    assert_eq!(response.headers()["x-clickhouse-exception-code"], "40");
    assert_eq!(text(post(&[], "SELECT count() FROM default.packed")), "100000\n");
}

fn read_all(mut response: Response<Body>) -> Vec<u8> {
    response.body_mut().read_to_vec().unwrap()
}

#[tokio::test]
async fn a_query_ends_when_its_client_goes_away() {
    // One that computes without writing, one that is stuck writing.
    for (index, query) in
        ["SELECT count() FROM numbers(1000000000000)", "SELECT number FROM numbers(1000000000000)"]
            .into_iter()
            .enumerate()
    {
        let address = shared().url.strip_prefix("http://").unwrap();
        let mut connection = TcpStream::connect(address).unwrap();
        let length = query.len();
        write!(connection, "POST /?query_id=gone{index} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{query}")
            .unwrap();
        running(query, true).await;
        if index == 1 {
            let mut some = [0; 1000];
            connection.read_exact(&mut some).unwrap();
        }
        drop(connection);
        running(query, false).await;
    }
}

/// Waits until a query is running, or is not.
async fn running(query: &str, wanted: bool) {
    let count =
        format!("SELECT count() > 0 FROM system.processes WHERE startsWith(query, '{query}')");
    for _ in 0..6_000 {
        let answer = tokio::task::spawn_blocking({
            let count = count.clone();
            move || text(post(&[], count))
        });
        if answer.await.unwrap() == if wanted { "1\n" } else { "0\n" } {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{query} running is never {wanted}");
}
