//! Who may do what, and how much of it, on a real engine.

// Helpers of tests, where a panic is the failing assertion.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use flowtrail_embedded::{Access, Config, Engine, Login, serve};
use flowtrail_service::metrics::Metrics;
use flowtrail_service::secret::Secret;
use tokio_util::sync::CancellationToken;

/// The limits of this engine: 1 GiB and two seconds.
const MAX_MEMORY: &str = "1073741824";
const MAX_SECONDS: &str = "2";

struct Shared {
    address: SocketAddr,
    service: Login,
    metrics: Metrics,
}

fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let data = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("embedded <access> & 'quotes'");
        let _ = std::fs::remove_dir_all(&data);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let config = Config { engine: None, data: Some(data), clickhouse_listen: address };
        let access = Access {
            clickhouse_max_memory_mib: 1024,
            clickhouse_max_execution_time: Duration::from_secs(2),
            clickhouse_reader_password_file: Some(Secret::from("secret".to_owned())),
            ..Access::default()
        };
        let engine = Engine::open_for(&config, &access).unwrap_or_else(|error| panic!("{error}"));
        let (service, metrics) = (engine.service_login().clone(), Metrics::new());
        let served = metrics.clone();
        std::thread::spawn(move || {
            tokio::runtime::Runtime::new().unwrap().block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                serve(engine, listener, &served, CancellationToken::new()).await;
            });
        });
        Shared { address, service, metrics }
    })
}

/// Asks as a user with settings in the URL: the exception's code, 0 without one, and the text.
fn ask(user: &str, password: &str, settings: &str, statement: &str) -> (u32, String) {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let mut response = agent
        .post(format!("http://{}/?{settings}", shared().address))
        .header("X-ClickHouse-User", user)
        .header("X-ClickHouse-Key", password)
        .send(statement)
        .unwrap();
    let code = response.headers().get("x-clickhouse-exception-code");
    let code = code.map_or(0, |code| code.to_str().unwrap().parse().unwrap());
    (code, response.body_mut().read_to_string().unwrap())
}

fn client(settings: &str, statement: &str) -> (u32, String) {
    ask("default", "", settings, statement)
}

fn reader(settings: &str, statement: &str) -> (u32, String) {
    ask("reader", "secret", settings, statement)
}

fn metric(name: &str) -> u64 {
    let text = shared().metrics.encode();
    let name = format!("flowtrail_embedded_{name} ");
    text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
}

const LIMITS: &str = "SELECT getSetting('max_memory_usage'), getSetting('max_execution_time')";

#[test]
fn a_client_may_ask_for_less_but_not_for_more() {
    for ask in [client, reader] {
        assert_eq!(ask("", LIMITS), (0, format!("{MAX_MEMORY}\t{MAX_SECONDS}\n")));
        let less = "max_memory_usage=1000&max_execution_time=1";
        assert_eq!(ask(less, LIMITS), (0, "1000\t1\n".to_owned()));
        for more in ["max_memory_usage=1073741825", "max_execution_time=3", "max_execution_time=0"]
        {
            assert_eq!(ask(more, LIMITS).0, 452, "{more}");
        }
        for statement in [
            "SELECT 1 SETTINGS max_execution_time = DEFAULT",
            "SELECT 1 SETTINGS profile = 'default'",
            "SELECT * FROM (SELECT 1 SETTINGS readonly = 0)",
        ] {
            assert_eq!(ask("", statement).0, 452, "{statement}");
        }
        assert_eq!(ask("profile=default", "SELECT 1").0, 452);
    }
    assert_eq!(client("", "SELECT 1 SETTINGS max_execution_time = 3").0, 452);
    assert_eq!(client("", "SELECT 1 SETTINGS max_execution_time = 1"), (0, "1\n".to_owned()));
    assert_eq!(client("", "INSERT INTO t SETTINGS max_memory_usage = DEFAULT VALUES (1)").0, 452);
}

#[test]
fn a_statement_ends_at_its_limits() {
    let before = metric("requests_limited_total");
    let started = Instant::now();
    let (code, said) = client("", "SELECT count() FROM numbers(1000000000000)");
    assert!(code == 159 && started.elapsed() >= Duration::from_secs(2), "{said}");
    // A subquery's own settings do not lift it.
    let nested = "SELECT * FROM (SELECT count() FROM numbers(1000000000000) SETTINGS max_execution_time = 0)";
    assert_eq!(client("", nested).0, 159);
    let large = "SELECT uniqExact(number) FROM numbers(100000000)";
    assert_eq!(client("max_memory_usage=20000000", large).0, 241);
    assert!(metric("requests_limited_total") >= before + 3);
}

#[test]
fn services_have_no_limits_and_a_password_of_their_own() {
    let Login { user, password } = &shared().service;
    let password = password.as_ref().unwrap().expose();
    let (code, said) = ask(user, password, "max_execution_time=240", LIMITS);
    assert_eq!((code, said.as_str()), (0, "0\t240\n"));
    assert_eq!(ask(user, "", "", "SELECT 1").0, 516);
}

#[test]
fn a_reader_reads_tables() {
    assert_eq!(client("", "CREATE TABLE default.read (a Int8) ENGINE = Memory").0, 0);
    assert_eq!(client("", "INSERT INTO default.read VALUES (1), (2)").0, 0);
    let sum = reader("max_threads=1&param_x=1", "SELECT sum(a), {x:UInt8} FROM default.read");
    assert_eq!(sum, (0, "3\t1\n".to_owned()));
    for statement in [
        "SHOW TABLES FROM default LIKE 'read'",
        "DESCRIBE TABLE default.read",
        "EXISTS TABLE default.read",
        "EXPLAIN SELECT 1",
        "WITH 1 AS x SELECT x FROM numbers(1)",
        "SELECT count() FROM system.tables",
    ] {
        let (code, said) = reader("", statement);
        assert_eq!(code, 0, "{statement}: {said}");
    }
}

#[test]
fn a_reader_changes_nothing_and_sees_no_files() {
    for statement in [
        "CREATE TABLE default.no (a Int8) ENGINE = Memory",
        "CREATE TEMPORARY TABLE no (a Int8)",
        "INSERT INTO default.no VALUES (1)",
        "INSERT INTO FUNCTION file('/tmp/no', 'TSV') SELECT 1",
        "DROP DATABASE default",
        "KILL QUERY WHERE 1",
        "SYSTEM FLUSH LOGS",
        "SET max_threads = 1",
        "SELECT * FROM file('/etc/hostname', 'LineAsString')",
        "SELECT file('/etc/hostname')",
        "SELECT * FROM `/etc/hostname`",
        "SELECT * FROM url('http://127.0.0.1:1/', 'TSV', 'a String')",
        "DESCRIBE TABLE url('http://127.0.0.1:1/', 'TSV')",
        "SELECT * FROM remote('127.0.0.1:1', system.one)",
        "SELECT * FROM executable('ls', 'TSV', 'a String')",
        "SELECT * FROM eval('SELECT 1')",
        "SELECT 1 SETTINGS max_threads = 1",
    ] {
        for settings in ["", "readonly=0", "readonly=2"] {
            let (code, said) = reader(settings, statement);
            assert_eq!(code, 164, "{settings} {statement}: {said}");
        }
    }
    assert_ne!(reader("", "SELECT * FROM file('/etc/hostname') SETTINGS readonly = DEFAULT").0, 0);
    assert_ne!(reader("", "SELECT 1 INTO OUTFILE '/tmp/no'").0, 0);
}

#[test]
fn passwords_are_asked_for_wherever_they_are_given() {
    assert_eq!(ask("reader", "wrong", "", "SELECT 1").0, 516);
    assert_eq!(ask("nobody", "", "", "SELECT 1").0, 516);
    // As curl -u reader:secret, or in the URL; the user is then the reader.
    let create = "CREATE TABLE default.no (a Int8) ENGINE = Memory";
    for (path, header) in [
        ("/?user=reader&password=secret", ""),
        ("/", "Authorization: Basic cmVhZGVyOnNlY3JldA==\r\n"),
    ] {
        let answer = raw(path, header, create.len(), create);
        assert!(answer.contains("x-clickhouse-exception-code: 164"), "{answer}");
    }
    assert!(raw("/?user=reader", "", 8, "SELECT 1").starts_with("HTTP/1.1 403 "));
}

/// Sends a request whose body may be shorter than it says, and reads the answer to its end.
fn raw(path: &str, header: &str, length: usize, body: &str) -> String {
    let mut stream = TcpStream::connect(shared().address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}Content-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_query_whose_answer_is_not_read_ends() {
    let mut stream = TcpStream::connect(shared().address).unwrap();
    let query = "SELECT number FROM numbers(1000000000001)";
    let length = query.len();
    write!(
        stream,
        "POST /?max_execution_time=1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{query}"
    )
    .unwrap();
    let mut begun = [0; 12];
    stream.read_exact(&mut begun).unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200");
    let count = "SELECT count() FROM system.processes WHERE startsWith(query, 'SELECT number FROM numbers(1000000000001)')";
    let started = Instant::now();
    while client("", count) != (0, "0\n".to_owned()) {
        assert!(started.elapsed() < Duration::from_secs(25), "it runs on");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_insert_that_stalls_ends_and_leaves_nothing() {
    assert_eq!(client("", "CREATE TABLE default.stalled (a Int64) ENGINE = Memory").0, 0);
    let path = "/?max_execution_time=1&query=INSERT%20INTO%20default.stalled%20FORMAT%20TSV";
    let started = Instant::now();
    let answer = raw(path, "", 1_000_000, "1\n2\n3\n");
    assert!(answer.contains("Code: 159."), "{answer}");
    // Long before the 30 s after which a silent client is given up.
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(client("", "SELECT count() FROM default.stalled"), (0, "0\n".to_owned()));
    assert!(metric("requests_cancelled_total") >= 1);
}
