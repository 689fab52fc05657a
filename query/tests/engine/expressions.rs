//! What `q` keeps is what a straightforward evaluation keeps: of each raw row by itself, then of the sums of
//! those that are kept.

mod plain;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv6Addr;

use flowtrail_query::Edge;
use flowtrail_schema::row::{EntityKind, FlowRow};
use plain::{Totals, edge_id};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use regex::Regex;

use crate::common::served;
use crate::tiers::{DAY_S, DAY0, DAYS, any_row, begin_at};

/// A name that would be noticed wherever it is not bound.
const ODD: &str = "it's \"a\\b\"\t\n% ü {q0:String}";

/// A tree of conditions, as text and as what it says of a `T`.
struct Asked<T> {
    text: String,
    holds: Box<dyn Fn(&T) -> bool>,
}

impl<T> fmt::Debug for Asked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn asked<T>(text: String, holds: impl Fn(&T) -> bool + 'static) -> Asked<T> {
    Asked { text, holds: Box::new(holds) }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

type TextOf = (&'static str, fn(&FlowRow) -> &str);

const TEXTS: &[TextOf] = &[
    ("client.namespace", |row| &row.client_namespace),
    ("client.workload", |row| &row.client_workload),
    ("client.workload_kind", |row| &row.client_workload_kind),
    ("client.name", |row| &row.client_name),
    ("client.node", |row| &row.client_node),
    ("server.namespace", |row| &row.server_namespace),
    ("server.workload", |row| &row.server_workload),
    ("server.name", |row| &row.server_name),
    ("server.node", |row| &row.server_node),
    ("service.namespace", |row| &row.service_namespace),
    ("service.name", |row| &row.service_name),
];

type AddressesOf = (&'static str, fn(&FlowRow) -> Vec<Ipv6Addr>);

const ADDRESSES: &[AddressesOf] = &[
    ("client.ip", |row| vec![row.client_ip, row.client_real_ip]),
    ("client.real_ip", |row| vec![row.client_real_ip]),
    ("server.ip", |row| vec![row.server_ip, row.server_real_ip]),
    ("server.real_ip", |row| vec![row.server_real_ip]),
];

/// Networks of the rows' addresses, as their first and last address.
const NETWORKS: &[(&str, &str, &str)] = &[
    ("10.0.0.0/8", "::ffff:10.0.0.0", "::ffff:10.255.255.255"),
    ("10.1.0.0/31", "::ffff:10.1.0.0", "::ffff:10.1.0.1"),
    ("10.4.0.2", "::ffff:10.4.0.2", "::ffff:10.4.0.2"),
    ("10.0.0.200/32", "::ffff:10.0.0.200", "::ffff:10.0.0.200"),
    ("2001:db8::/32", "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("8000::/1", "8000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
];

fn is(comparison: &str, ordering: std::cmp::Ordering) -> bool {
    match comparison {
        "=" => ordering.is_eq(),
        "<" => ordering.is_lt(),
        "<=" => ordering.is_le(),
        ">" => ordering.is_gt(),
        ">=" => ordering.is_ge(),
        _ => unreachable!(),
    }
}

const COMPARISONS: &[&str] = &["=", "<", "<=", ">", ">="];

fn of_row() -> impl Strategy<Value = Asked<FlowRow>> {
    let names = select(vec!["", "shop", "app1", "Deployment", "pod2", "n1", "service3", "db", ODD]);
    let text = (select(TEXTS), prop::collection::vec(names, 1..3), any::<[bool; 2]>()).prop_map(
        |((field, of), names, [negated, single])| {
            if single {
                let name = names[0];
                let text = format!("{field} {} {}", if negated { "!=" } else { "=" }, quoted(name));
                return asked(text, move |row| (of(row) == name) != negated);
            }
            let list: Vec<_> = names.iter().map(|name| quoted(name)).collect();
            let text =
                format!("{field} {}in ({})", if negated { "not " } else { "" }, list.join(", "));
            asked(text, move |row| names.contains(&of(row)) != negated)
        },
    );
    let pair = (select(TEXTS), select(TEXTS), any::<bool>()).prop_map(
        |((a, of_a), (b, of_b), negated)| {
            let text = format!("{a} {} {b}", if negated { "!=" } else { "=" });
            asked(text, move |row| (of_a(row) == of_b(row)) != negated)
        },
    );
    let patterns = select(&["^$", "[12]$", "(?i)^SH", "it's \"a\\\\b", "\\tc?\\n"][..]);
    let pattern =
        (select(TEXTS), patterns, any::<bool>()).prop_map(|((field, of), pattern, negated)| {
            let text = format!("{field} {} {}", if negated { "!~" } else { "=~" }, quoted(pattern));
            let pattern = Regex::new(pattern).unwrap();
            asked(text, move |row| pattern.is_match(of(row)) != negated)
        });
    let kind = (any::<bool>(), select(EntityKind::ALL), any::<bool>()).prop_map(
        |(client, kind, negated)| {
            let side = if client { "client" } else { "server" };
            let text = format!("{side}.kind {} {kind}", if negated { "!=" } else { "=" });
            let of = move |row: &FlowRow| if client { row.client_kind } else { row.server_kind };
            asked(text, move |row| (of(row) == kind.number()) != negated)
        },
    );
    let port = (any::<bool>(), select(COMPARISONS), select(&[80, 81, 82, 5_432][..])).prop_map(
        |(either, comparison, port)| {
            let text =
                format!("server.{} {comparison} {port}", if either { "port" } else { "real_port" });
            asked(text, move |row: &FlowRow| {
                is(comparison, row.server_real_port.cmp(&port))
                    || either && is(comparison, row.server_port.cmp(&port))
            })
        },
    );
    let networks = prop::collection::vec(select(NETWORKS), 1..3);
    let address = (select(ADDRESSES), networks, any::<bool>()).prop_map(
        |((field, of), networks, negated)| {
            let list: Vec<_> = networks.iter().map(|(network, ..)| *network).collect();
            let text =
                format!("{field} {}in ({})", if negated { "not " } else { "" }, list.join(","));
            let ranges: Vec<(Ipv6Addr, Ipv6Addr)> = networks
                .iter()
                .map(|(_, first, last)| (first.parse().unwrap(), last.parse().unwrap()))
                .collect();
            asked(text, move |row| {
                let within =
                    |ip: &Ipv6Addr| ranges.iter().any(|(first, last)| first <= ip && ip <= last);
                of(row).iter().any(within) != negated
            })
        },
    );
    prop_oneof![text, pair, pattern, kind, port, address]
}

type AmountOf = (&'static str, fn(&Totals) -> Option<f64>);

const AMOUNTS: &[AmountOf] = &[
    ("connections", |of| Some(of.connections as f64)),
    ("opened", |of| Some(of.opened as f64)),
    ("failed", |of| Some(of.refused as f64)),
    ("closed", |of| Some(of.refused as f64)),
    ("received.packets", |of| Some(of.received_packets as f64)),
    ("retransmits", |of| Some(of.retransmits as f64)),
    ("duration_count", |of| Some(of.duration.1 as f64)),
    ("latency_count", |of| Some(of.latencies.len() as f64)),
];

fn of_sums() -> impl Strategy<Value = Asked<Totals>> {
    let amount = (select(AMOUNTS), select(COMPARISONS), prop_oneof![0..4_u64, 0..100_000_u64])
        .prop_map(|((field, of), comparison, number)| {
            let text = format!("{field}{comparison}{number}");
            asked(text, move |totals| {
                of(totals).is_some_and(|is_now| is(comparison, is_now.total_cmp(&(number as f64))))
            })
        });
    let pair = (select(AMOUNTS), select(AMOUNTS), any::<bool>()).prop_map(
        |((a, of_a), (b, of_b), negated)| {
            let text = format!("{a} {} {b}", if negated { "!=" } else { "=" });
            asked(text, move |totals| (of_a(totals) == of_b(totals)) != negated)
        },
    );
    let bytes = (select(COMPARISONS), 0..1_000_u64).prop_map(|(comparison, kilobytes)| {
        asked(format!("bytes {comparison} {kilobytes}kB"), move |totals: &Totals| {
            is(comparison, (totals.sent_bytes + totals.received_bytes).cmp(&(kilobytes * 1_000)))
        })
    });
    let times: &[AmountOf] = &[
        ("latency_p95_ms", Totals::latency_p95_ms),
        ("latency_max_ms", |of| of.latencies.iter().max().map(|us| *us as f64 / 1_000.0)),
        ("duration_avg_ms", |of| {
            (of.duration.1 > 0).then(|| of.duration.0 as f64 / of.duration.1 as f64 / 1_000.0)
        }),
        ("duration_max_ms", |of| (of.duration.1 > 0).then(|| of.duration.2 as f64 / 1_000.0)),
        ("direction_inferred", |of| Some(of.inferred as f64 / of.connections.max(1) as f64)),
    ];
    let time = (select(times), select(COMPARISONS), 0..1_000_u32).prop_map(
        |((field, of), comparison, number)| {
            // Milliseconds, or thousandths.
            let (text, number) = match field {
                "direction_inferred" => (format!("0.{number:03}"), f64::from(number) / 1_000.0),
                _ => (format!("{number}ms"), f64::from(number)),
            };
            asked(format!("{field} {comparison} {text}"), move |totals| {
                of(totals).is_some_and(|is_now| is(comparison, is_now.total_cmp(&number)))
            })
        },
    );
    prop_oneof![amount, pair, bytes, time]
}

fn tree<T: 'static>(
    leaf: impl Strategy<Value = Asked<T>> + 'static,
) -> impl Strategy<Value = Asked<T>> {
    leaf.prop_recursive(2, 6, 3, |inner| {
        let negated = inner
            .clone()
            .prop_map(|Asked { text, holds }| asked(format!("not ({text})"), move |it| !holds(it)));
        let parts = prop::collection::vec(inner, 2..4);
        let joined = (parts, any::<bool>()).prop_map(|(parts, and)| {
            let texts: Vec<_> = parts.iter().map(|part| format!("({})", part.text)).collect();
            asked(texts.join(if and { " and " } else { " or " }), move |it| {
                let mut each = parts.iter().map(|part| (part.holds)(it));
                if and { each.all(|holds| holds) } else { each.any(|holds| holds) }
            })
        });
        prop_oneof![negated, joined]
    })
}

/// What is compared of an edge, by its id.
type Kept = BTreeMap<String, [u64; 5]>;

fn answered(edges: Vec<Edge>) -> Kept {
    let numbers = |edge: Edge| {
        let of = edge.traffic;
        let numbers =
            [of.connections, of.failed, of.sent.bytes, of.received.packets, of.retransmits];
        (edge.id, numbers)
    };
    edges.into_iter().map(numbers).collect()
}

fn evaluated<'a>(
    rows: impl Iterator<Item = &'a FlowRow>,
    from: u32,
    group_by: &str,
    sums: Option<&Asked<Totals>>,
) -> Kept {
    let mut edges: BTreeMap<String, Totals> = BTreeMap::new();
    for row in rows {
        edges.entry(edge_id(group_by, row)).or_default().add(row, from);
    }
    let kept = edges.into_iter().filter(|(_, of)| sums.is_none_or(|sums| (sums.holds)(of)));
    kept.map(|(id, of)| {
        (id, [of.connections, of.refused, of.sent_bytes, of.received_packets, of.retransmits])
    })
    .collect()
}

#[test]
fn what_is_kept_is_what_a_plain_evaluation_keeps() {
    let served = served("expressions");
    // From a minute on: there the rows say what is open.
    let window = (0..DAYS * 1_440, 1..DAYS * 8_640, prop::bool::weighted(0.8));
    let levels = (prop::option::weighted(0.8, tree(of_row())), prop::option::of(tree(of_sums())));
    let question = (window, levels, select(&["namespace", "workload", "pod", "ip"][..]));
    let strategy = (prop::collection::vec(any_row(), 40..100), prop::collection::vec(question, 10));
    let (case, kept) = (Cell::new(0), Cell::new((0, 0)));
    let config = Config { failure_persistence: None, ..Config::with_cases(12) };
    let result = TestRunner::new(config).run(&strategy, |(mut rows, questions)| {
        // Days of its own, so that all cases share the tables.
        let start = DAY0 + case.get() * DAYS * DAY_S;
        case.set(case.get() + 1);
        begin_at(&mut rows, start);
        for row in &mut rows {
            if row.server_port == 82 && !row.service_name.is_empty() {
                ODD.clone_into(&mut row.service_name);
            }
        }
        served.insert("flows", &rows);
        for ((minute, length, whole), (of_rows, of_sums), group_by) in questions {
            let from = start + minute * 60;
            let end = start + DAYS * DAY_S;
            let to = if whole { end } else { (from + length * 10).min(end) };
            let texts = [of_rows.as_ref().map(|it| &it.text), of_sums.as_ref().map(|it| &it.text)];
            let texts: Vec<_> =
                texts.into_iter().flatten().map(|text| format!("({text})")).collect();
            let q = texts.join(" and ");
            let counted =
                rows.iter().filter(|row| row.primary && (from..to).contains(&row.interval_start));
            let all = counted.clone().count();
            let counted = counted.filter(|row| of_rows.as_ref().is_none_or(|it| (it.holds)(row)));
            let (some, edges) =
                (counted.clone().count(), evaluated(counted, from, group_by, of_sums.as_ref()));
            if some > 0 && some < all && !edges.is_empty() {
                kept.set((kept.get().0 + 1, kept.get().1));
            }
            kept.set((kept.get().0, kept.get().1 + 1));
            let graph = served.graph(from, to, &[("group_by", group_by), ("q", &q)]);
            prop_assert_eq!(
                answered(graph.edges),
                edges,
                "[{}, {}) by {}: {}",
                from,
                to,
                group_by,
                q
            );
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    // Most would be of no use if they kept all or nothing.
    let (telling, asked) = kept.get();
    println!("{telling} of {asked} questions tell anything");
    assert!(telling * 6 > asked, "{telling} of {asked} questions tell anything");
}
