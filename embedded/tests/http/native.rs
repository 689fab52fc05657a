//! Native answers of a protocol's revision, from the engine's own: what clickhouse-go asks for.

use ureq::Body;
use ureq::http::{Response, StatusCode};

use crate::plain::{post, text};

/// The revision of clickhouse-go.
const REVISION: (&str, &str) = ("client_protocol_version", "54460");
const NATIVE: (&str, &str) = ("default_format", "Native");
/// As which the settings of translated answers have it.
const JSON_AS_TEXT: (&str, &str) = ("output_format_native_write_json_as_string", "1");

/// One value at least of every type that is translated.
const ALL_TYPES: &str = "SELECT number, toUInt8(1), toInt16(2), toInt32(3), toInt128(4), toUInt256(5), \
    toFloat32(1.5), 2.5, toBFloat16(1), true, toString(number), toFixedString('abc', 4), \
    toDate('2026-01-02'), toDate32('2026-01-02'), toDateTime(0, 'UTC'), toDateTime64(0, 3, 'UTC'), \
    toDecimal32(1, 2), toDecimal64(1, 2), toDecimal128(1, 3), toDecimal256(1, 4), generateUUIDv4(), \
    toIPv4('10.0.0.1'), toIPv6('::1'), toIntervalDay(3), NULL, CAST(NULL, 'Nullable(String)'), \
    CAST('x', 'Enum8(\\'x\\' = 1)'), CAST('y,(', 'Enum16(\\'y,(\\' = 300)'), range(number), \
    arrayMap(x -> toString(x), range(number)), [[], [[number]]], [NULL, 1], (1, 'a', [2]), tuple(), \
    CAST(('a', [1]), 'Tuple(x String, `y z` Array(Int64))'), map('a', [number]), map('a', map('b', 1)), \
    toLowCardinality(toString(number % 3)), [toLowCardinality('b')], CAST([], 'Array(LowCardinality(String))'), \
    CAST(NULL, 'LowCardinality(Nullable(String))'), map(toLowCardinality('k'), toLowCardinality('v')), \
    CAST((1., 2.), 'Point'), CAST([(1., 2.)], 'Ring'), CAST([[(1., 2.)]], 'Polygon'), \
    CAST('{\"a\":1}', 'JSON'), CAST(['{\"a\":1}', '{}'], 'Array(JSON)'), \
    CAST([(1, 'a')], 'Nested(a UInt8, b String)'), CAST(1, 'SimpleAggregateFunction(max, UInt64)') \
    FROM numbers(1000)";

/// How many values a row of it has.
const VALUES: usize = 49;

fn bytes(mut response: Response<Body>) -> Vec<u8> {
    let bytes = response.body_mut().with_config().limit(u64::MAX).read_to_vec().unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{}", String::from_utf8_lossy(&bytes));
    bytes
}

#[test]
fn a_block_has_what_its_revision_has() {
    let query = "SELECT 7 AS a";
    let plain = [&[1, 1, 1][..], b"a", &[5], b"UInt8", &[7]].concat();
    assert_eq!(bytes(post(&[NATIVE], query)), plain);
    assert_eq!(bytes(post(&[NATIVE, ("client_protocol_version", "0")], query)), plain);
    let info = [1, 0, 2, 0xff, 0xff, 0xff, 0xff, 0];
    let translated = [&info[..], &[1, 1, 1], b"a", &[5], b"UInt8", &[0], &[7]].concat();
    assert_eq!(bytes(post(&[NATIVE, REVISION], query)), translated);
    assert_eq!(bytes(post(&[REVISION], "SELECT 7 AS a FORMAT Native")), translated);
    assert_eq!(text(post(&[NATIVE, REVISION], "SELECT 7 FORMAT CSV")), "7\n");
    assert_eq!(bytes(post(&[NATIVE, REVISION], "SELECT 7 WHERE 0")), b"");
}

#[test]
fn every_type_passes_with_nothing_but_its_byte_added() {
    // One block. The translation reads to its end, or it fails.
    let query = format!("{ALL_TYPES} SETTINGS max_block_size = 100000, max_threads = 1");
    let plain = bytes(post(&[NATIVE, JSON_AS_TEXT], &query));
    let translated = bytes(post(&[NATIVE, REVISION], &query));
    assert_eq!(translated.len(), plain.len() + 8 + VALUES);
    // Many blocks, each with its own.
    let blocks =
        format!("SELECT * FROM ({ALL_TYPES}) SETTINGS max_block_size = 10, max_threads = 1");
    let plain = bytes(post(&[NATIVE, JSON_AS_TEXT], &blocks));
    let translated = bytes(post(&[NATIVE, REVISION], &blocks));
    let added = translated.len() - plain.len();
    assert!(added > 8 + VALUES && added.is_multiple_of(8 + VALUES), "{added}");
}

#[test]
fn what_cannot_be_translated_says_so() {
    let mut response = post(&[NATIVE, REVISION], "SELECT sumState(1)");
    assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
    assert_eq!(response.headers()["x-clickhouse-exception-code"], "48");
    let said = response.body_mut().read_to_string().unwrap();
    assert!(said.contains("AggregateFunction(sum, UInt8)") && said.contains("toString"), "{said}");
}

#[test]
fn rows_of_an_insert_are_of_the_format_s_own_revision() {
    text(post(&[], "CREATE TABLE default.native (n UInt64) ENGINE = Memory"));
    let rows = bytes(post(&[NATIVE], "SELECT number AS n FROM numbers(1000)"));
    let insert = ("query", "INSERT INTO default.native FORMAT Native");
    text(post(&[insert, NATIVE, REVISION], rows));
    assert_eq!(text(post(&[], "SELECT sum(n) FROM default.native")), "499500\n");
}
