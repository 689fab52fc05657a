//! What the language takes, what it refuses and where, and what becomes of it.

use proptest::prelude::*;
use proptest::sample::select;

use super::fields::{FIELDS, RowKind};
use super::number::Unit;
use super::*;
use crate::graph::Sums;
use crate::graph::tests::row;

fn read(text: &str) -> Expression {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(text: &str) -> ExpressionError {
    text.parse::<Expression>().expect_err(text)
}

#[test]
fn and_binds_tighter_than_or_and_not_tightest() {
    let same = [
        ("open > 1 or open < 5 and open = 3", "open > 1 or (open < 5 and open = 3)"),
        ("not open = 1 and open = 2", "(not open = 1) and open = 2"),
        ("open = 1 AND (open = 2 And open = 3)", "open = 1 and open = 2 and open = 3"),
        ("bytes>=10MiB", "bytes >= 10485760"),
        ("latency_p95_ms>1.5s", "latency_p95_ms > 1500"),
        ("server.name = web", "server.name = 'web'"),
        ("client.ip = '10.0.0.1'", "client.ip = ::ffff:10.0.0.1"),
    ];
    for (text, other) in same {
        assert_eq!(read(text), read(other), "{text}");
    }
    assert_eq!(read("  "), Expression::default());
}

#[test]
fn conditions_of_both_levels_are_told_apart_under_and() {
    let both = read("failed > 0 and (server.port = 80 and bytes > 1kB) and not client.kind = pod");
    let rows = "server.port = 80 and not client.kind = pod";
    assert_eq!(both.to_string(), format!("{rows} and failed > 0 and bytes > 1000"));
    assert_eq!(both.rows, read(rows).rows);
}

#[test]
fn a_refusal_says_where_and_what_is_possible() {
    let deep = format!("{}open = 1{}", "(".repeat(MAX_NESTING + 1), ")".repeat(MAX_NESTING + 1));
    let long = format!("client.name = \"{}\"", "x".repeat(Expression::MAX_LENGTH));
    let patterns = ["client.name =~ 'a'"; 9].join(" and ");
    let list = format!("server.port in ({})", vec!["80"; 201].join(","));
    let cases = [
        ("sever.port = 80", 1, "server.port"),
        ("client.namespace != sever.namespace", 21, "server.namespace"),
        ("open = 1 and lateny_p95 > 3", 14, "latency_p95_ms"),
        ("client_namespace = shop", 1, "client.namespace"),
        ("server.port == 80", 14, "a value or a field"),
        ("server.port 80", 13, "not in"),
        ("server.port = ", 15, "a value or a field, but there is the end"),
        ("server.port = 80 &&", 18, "and, or, or the end"),
        ("(open = 1", 10, "and, or, or )"),
        ("open = 1)", 9, "the end"),
        ("= 3", 1, "a field, not, or ("),
        ("not", 4, "a field"),
        ("open in 3", 9, "( and values"),
        ("open in ()", 10, "a value"),
        ("open in (1, 2", 14, ", or )"),
        ("server.port = 65536", 15, "1 to 65535"),
        ("server.port = 0", 15, "1 to 65535"),
        ("client.kind = vm", 15, "pod, service, node, external, unknown"),
        ("client.ip = 10.0.0.256", 13, "an address"),
        ("client.ip = 10.0.0.0/8", 13, "client.ip in (10.0.0.0/8)"),
        ("client.ip in (10.1.2.3/8)", 15, "use 10.0.0.0/8"),
        ("client.ip =~ '10'", 11, "=, !=, in, not in"),
        ("client.name < 'x'", 13, "without an order"),
        ("client.name =~ '('", 16, "regular expression"),
        ("client.name =~ web", 16, "in quotes"),
        ("client.name = web.shop", 15, "in quotes"),
        ("client.name = open", 15, "the text is written \"open\""),
        ("client.name = or", 15, "in quotes"),
        ("client.name = \"web", 15, "no \" ends"),
        ("bytes > 10ms", 9, "10MiB"),
        ("bytes > 0.5B", 9, "whole number of bytes"),
        ("bytes > latency_avg_ms", 9, "cannot be compared"),
        ("bytes > packet", 9, "packets"),
        ("opened > \"1\"", 10, "without unit"),
        ("direction_inferred > 2", 22, "0 to 1"),
        ("server.port = connections", 15, "cannot be compared"),
        ("open = 1 or server.port = 80", 13, "ask twice"),
        ("not (open = 1 and server.port = 80)", 1, "ask twice"),
        ("open = 1 or (open = 2 and server.port = 80)", 14, "ask twice"),
        (deep.as_str(), 33, "32 deep"),
        (long.as_str(), 4_097, "4096 bytes"),
        (patterns.as_str(), 200, "at most 8"),
        (list.as_str(), 13, "at most 200"),
    ];
    for (text, character, says) in cases {
        let error = refused(text);
        assert_eq!(error.character, character, "{text}: {error}");
        assert!(error.to_string().contains(says), "{text}: {error}");
    }
    // Characters are counted, not bytes.
    assert_eq!(refused("client.name = 'ü' and x = 1").character, 23);
}

#[test]
fn names_are_unique_and_explained() {
    let document = include_str!("../../../docs/filters.md");
    for (index, field) in FIELDS.iter().enumerate() {
        assert_eq!(FIELDS.iter().position(|other| other == field), Some(index), "{field:?}");
        assert!(document.contains(&format!("`{}`", field.name)), "{field:?} in docs/filters.md");
    }
}

#[test]
fn an_edge_is_kept_by_its_sums() {
    let keeps = |text: &str, sums: &Sums<'_>| read(text).keeps(sums);
    let sums = Sums::of(&row("web", "db", 10));
    let kept = [
        "connections = 10 and opened >= 10 and joined < 1",
        "failed > 2 and failed < 4 and closed = 13 and closed.fin != 9",
        "failed in (1, 3) and failed not in (1, 2)",
        "bytes = 30kB and sent.bytes < received.bytes and payload_bytes = 15000",
        "latency_avg_ms = 1ms and latency_p95_ms <= 1ms and latency_max_ms = 1000us",
        "duration_avg_ms = 0.05s and duration_max_ms = 80 and duration_count = 10",
        "latency_p50_ms <= latency_p95_ms and direction_inferred = 0",
        "not (failed = 0 or bytes < 1)",
    ];
    for text in kept {
        assert!(keeps(text, &sums), "{text}");
        assert!(!keeps(&format!("not ({text})"), &sums), "{text}");
    }
    // Nothing was measured: nothing holds of it.
    for text in ["< 5", "!= 5", ">= 0", "= first_response_max_ms", "not in (5)"] {
        assert!(!keeps(&format!("first_response_p95_ms {text}"), &sums), "{text}");
    }
    assert!(read("server.port = 80").keeps(&sums));
}

#[test]
fn pods_are_read_only_if_they_are_asked_for() {
    for text in ["client.workload = web", "server.port = 80 and client.kind = pod", "failed > 0"] {
        assert!(!read(text).reads_pods(), "{text}");
    }
    for text in [
        "client.name = web",
        "not (server.port = 1 or client.ip = ::1)",
        "service.name = server.node",
    ] {
        assert!(read(text).reads_pods(), "{text}");
    }
}

/// A condition on a field, of any that it takes.
fn condition(field: &'static Field) -> BoxedStrategy<String> {
    let quoted = |text: String| format!("'{}'", text.replace('\'', "''"));
    let any_text =
        prop_oneof!["x[a-z]{1,9}", "\\PC{0,9}".prop_map(quoted), ".{0,9}".prop_map(quoted)];
    let value = match field.source {
        Source::Row(row) => match row.kind {
            RowKind::Text => any_text.boxed(),
            RowKind::EntityKind => {
                select(EntityKind::ALL).prop_map(|kind| kind.to_string()).boxed()
            }
            RowKind::Port => (1..=u16::MAX).prop_map(|port| port.to_string()).boxed(),
            RowKind::Address => prop_oneof![
                any::<std::net::Ipv4Addr>().prop_map(|address| address.to_string()),
                any::<std::net::Ipv6Addr>().prop_map(|address| address.to_string()),
            ]
            .boxed(),
        },
        Source::Sum(sum) => match sum.unit() {
            Unit::Count => any::<u32>().prop_map(|number| number.to_string()).boxed(),
            Unit::Bytes => (0..9_000_u32, select(&["", "B", "kB", "MiB", "tib"][..]))
                .prop_map(|(number, unit)| format!("{number}{unit}"))
                .boxed(),
            Unit::Milliseconds => {
                (0..9_000_u32, 0..1_000_u32, select(&["", "us", "ms", "s", "h"][..]))
                    .prop_map(|(number, fraction, unit)| format!("{number}.{fraction:03}{unit}"))
                    .boxed()
            }
            Unit::Share => {
                (0..1_000_u32).prop_map(|thousandths| format!("0.{thousandths:03}")).boxed()
            }
        },
    };
    let is_ordered = match field.source {
        Source::Row(row) => row.kind == RowKind::Port,
        Source::Sum(_) => true,
    };
    let is_text = matches!(field.source, Source::Row(row) if row.kind == RowKind::Text);
    let operators =
        if is_ordered { &["=", "!=", "<", "<=", ">", ">="][..] } else { &["=", "!="][..] };
    let like: Vec<_> = FIELDS.iter().filter(|other| field.is_like(other)).collect();
    let name = field.name;
    let pattern = select(&["^a.*\\d$", "''|x", "(?i)web"][..]);
    prop_oneof![
        (select(operators), value.clone())
            .prop_map(move |(is, value)| format!("{name}{is}{value}")),
        (select(operators), select(like))
            .prop_map(move |(is, like)| format!("{name} {is} {}", like.name)),
        (select(&["in", "NOT IN"][..]), prop::collection::vec(value, 1..4))
            .prop_map(move |(is, values)| format!("{name} {is} ({})", values.join(" , "))),
        (select(&["=~", "!~"][..]), pattern).prop_map(move |(is, pattern)| match is_text {
            true => format!("{name} {is}'{pattern}'"),
            false => format!("{name} != {name}"),
        }),
    ]
    .boxed()
}

fn tree(of_rows: bool) -> impl Strategy<Value = String> {
    let fields = FIELDS.iter().filter(|field| matches!(field.source, Source::Row(_)) == of_rows);
    let leaf = select(fields.collect::<Vec<_>>()).prop_flat_map(condition);
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| format!("not ({inner})")),
            (prop::collection::vec(inner, 2..4), any::<bool>()).prop_map(|(parts, and)| {
                let parts: Vec<_> = parts.iter().map(|part| format!("({part})")).collect();
                parts.join(if and { " and\n" } else { " Or " })
            }),
        ]
    })
}

/// Words in any order.
fn soup() -> impl Strategy<Value = String> {
    let words = [
        "client.name",
        "server.port",
        "open",
        "bytes",
        "=",
        "!=",
        "<",
        ">=",
        "=~",
        "!~",
        "in",
        "not",
        "and",
        "or",
        "(",
        ")",
        ",",
        "80",
        "10MiB",
        "250ms",
        "'web'",
        "\"",
        "'",
        "10.0.0.0/8",
        "::1",
        "pod",
        " ",
        "ü",
        "1.",
    ];
    prop::collection::vec(select(words.to_vec()), 0..20).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn what_is_printed_reads_the_same((rows, sums) in (tree(true), tree(false))) {
        for text in [rows.clone(), sums.clone(), format!("({rows}) and ({sums})")] {
            let Ok(expression) = text.parse::<Expression>() else {
                // Only for its regular expressions and its length is any refused.
                prop_assert!(text.len() > Expression::MAX_LENGTH || text.matches('~').count() > 8, "{}", text);
                continue;
            };
            let printed = expression.to_string();
            prop_assert_eq!(&printed.parse::<Expression>(), &Ok(expression), "{}", printed);
        }
    }

    #[test]
    fn nothing_of_the_caller_is_in_the_statement(rows in tree(true)) {
        const WORDS: &[&str] = &[
            "AND", "OR", "NOT", "match", "IN", "arrayExists", "toUInt16", "first", "last", "Array", "String",
            "UInt16", "IPv6",
        ];
        let columns: Vec<_> = FIELDS.iter().filter_map(|field| match field.source {
            Source::Row(row) => Some(row.columns),
            Source::Sum(_) => None,
        }).flatten().collect();
        let Ok(expression) = rows.parse::<Expression>() else { return Ok(()) };
        let sql = expression.sql().unwrap();
        prop_assert!(sql.chars().all(|c| c.is_ascii_alphanumeric() || " _(){}:,<>=-".contains(c)), "{}", sql);
        for word in sql.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty()) {
            let parameter = word.strip_prefix('q').is_some_and(|number| number.parse::<usize>().is_ok());
            prop_assert!(parameter || WORDS.contains(&word) || columns.contains(&&word), "{} in {}", word, sql);
        }
    }

    #[test]
    fn any_text_is_read_or_refused_within_it(text in prop_oneof![".{0,60}", soup()]) {
        if let Err(error) = text.parse::<Expression>() {
            prop_assert!((1..=text.chars().count() + 1).contains(&error.character), "{}", error);
            prop_assert!(!error.detail.is_empty());
        }
    }
}
