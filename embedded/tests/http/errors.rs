//! What goes wrong, and what it says.

use std::io::{Read, Write};
use std::net::TcpStream;

use flowtrail_embedded::{Config, Engine, EngineError};
use ureq::http::StatusCode;

use crate::common::{config, shared};
use crate::plain::{get, head, post, text};

#[test]
fn errors_have_clickhouses_codes_and_statuses() {
    for (parameters, body, code, status) in [
        (&[][..], "SELECT * FROM nothing", "60", StatusCode::NOT_FOUND),
        (&[], "SELECT nothing", "47", StatusCode::NOT_FOUND),
        (&[], "SELEC 1", "62", StatusCode::BAD_REQUEST),
        (&[], "", "62", StatusCode::BAD_REQUEST),
        (&[], "SELECT 1; SELECT 2", "62", StatusCode::BAD_REQUEST),
        (&[], "SELECT 1 INTO OUTFILE '/tmp/never'", "36", StatusCode::BAD_REQUEST),
        (&[], "SELECT 1 FORMAT Nothing", "73", StatusCode::NOT_FOUND),
        (&[], "SELECT throwIf(1)", "395", StatusCode::INTERNAL_SERVER_ERROR),
        (&[], "INSERT INTO nothing FORMAT TSV\n1", "60", StatusCode::NOT_FOUND),
        (&[("database", "nothing")], "SELECT 1", "81", StatusCode::NOT_FOUND),
        (&[("nothing", "1")], "SELECT 1", "115", StatusCode::NOT_FOUND),
        (&[("a' = 1 --", "1")], "SELECT 1", "115", StatusCode::NOT_FOUND),
        (&[("max_threads", "many")], "SELECT 1", "27", StatusCode::BAD_REQUEST),
        (&[("user", "nobody")], "SELECT 1", "516", StatusCode::FORBIDDEN),
        (&[("client_protocol_version", "new")], "SELECT 1", "36", StatusCode::BAD_REQUEST),
        (&[("profile", "default")], "SELECT 1", "452", StatusCode::INTERNAL_SERVER_ERROR),
        (&[("session_id", "a")], "SELECT 1", "48", StatusCode::NOT_IMPLEMENTED),
        (
            &[("readonly", "1")],
            "CREATE TABLE default.no (a Int8) ENGINE = Memory",
            "164",
            StatusCode::INTERNAL_SERVER_ERROR,
        ),
    ] {
        let mut response = post(parameters, body);
        let text = response.body_mut().read_to_string().unwrap();
        assert_eq!(response.status(), status, "{body}: {text}");
        assert_eq!(response.headers()["x-clickhouse-exception-code"], code, "{body}: {text}");
        assert!(text.starts_with(&format!("Code: {code}. DB::Exception: ")), "{body}: {text}");
    }
}

#[test]
fn a_get_changes_nothing() {
    for query in
        ["CREATE TABLE default.no (a Int8) ENGINE = Memory", "INSERT INTO default.no VALUES (1)"]
    {
        let response = get(&[("query", query)]);
        assert_ne!(response.status(), StatusCode::OK);
    }
    let create = ("query", "CREATE TABLE default.no (a Int8) ENGINE = Memory");
    for readonly in ["0", "00", "false"] {
        assert_ne!(get(&[("readonly", readonly), create]).status(), StatusCode::OK, "{readonly}");
    }
    let twice = [("readonly", "1"), ("readonly", "0"), create];
    assert_ne!(get(&twice).status(), StatusCode::OK);
    assert_ne!(head(&[create]).status(), StatusCode::OK);
    assert_eq!(head(&[]).status(), StatusCode::OK);
    assert_eq!(text(post(&[], "EXISTS TABLE default.no")), "0\n");
}

#[test]
fn a_name_that_leads_to_this_machine_is_refused() {
    let address = shared().url.strip_prefix("http://").unwrap();
    let status = |host: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        let request =
            format!("GET /?query=SELECT+1 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    for host in ["127.0.0.1", "127.0.0.1:8123", "[::1]:8123", "localhost", "LocalHost:8123"] {
        assert_eq!(status(host), "200", "{host}");
    }
    for host in ["rebound.example:8123", "127.0.0.1.example", "localhost.example", ""] {
        assert_eq!(status(host), "403", "{host}");
    }
}

#[test]
fn a_statement_has_a_longest_length() {
    let mut response = post(&[], format!("SELECT '{}'", "x".repeat(9 << 20)));
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(response.body_mut().read_to_string().unwrap().contains("QUERY_IS_TOO_LARGE"));
}

#[test]
fn a_page_of_another_site_is_refused() {
    let response =
        ureq::Agent::from(ureq::Agent::config_builder().http_status_as_error(false).build())
            .post(&shared().url)
            .header("Sec-Fetch-Site", "cross-site")
            .send("SELECT 1")
            .unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
}

#[test]
fn a_folder_is_one_process_s() {
    let used = shared().config.clone();
    let data = used.data.clone().unwrap();
    let error = Engine::open(&used).err().unwrap();
    assert!(matches!(error, EngineError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(data.to_str().unwrap()), "{error}");
    // Another folder, but the same process.
    let error = Engine::open(&config("second")).err().unwrap();
    assert!(matches!(error, EngineError::OncePerProcess), "{error}");
}

#[test]
fn a_missing_or_wrong_library_says_what_to_do() {
    let missing = Config { engine: Some("/nowhere/libchdb.so".into()), ..config("missing") };
    let error = Engine::open(&missing).err().unwrap().to_string();
    assert!(error.contains("/nowhere/libchdb.so") && error.contains("make engine"), "{error}");
    let wrong = Config { engine: Some("/etc/hostname".into()), ..config("wrong") };
    let error = Engine::open(&wrong).err().unwrap().to_string();
    assert!(error.contains("/etc/hostname") && error.contains("make engine"), "{error}");
}
