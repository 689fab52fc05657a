//! Cases of names, each a file in `cases/`: what the cluster tells and when, and what addresses were when.
//!
//! A file's `history` is a list of steps at their times: `apply` or `delete` an object, `list` one kind as
//! a whole, or `restart`: a new index that knows what the table knows. Its `names` are lookups after all of
//! that, each with the answer: kind, name, top owner, and `uncertain` if it is.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use flowtrail_ingest::identity::IdentityIndex;
use flowtrail_ingest::objects::{Kind, Object};
use flowtrail_schema::row::{EntityKind, IdentitiesSeenRow, IdentityRow};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde_json::Value;

macro_rules! cases {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            run(include_str!(concat!("cases/", stringify!($name), ".yaml")));
        }
    )*};
}

cases! {
    an_address_passes_to_a_new_pod_while_records_lag
    a_finished_job_frees_its_address
    a_pod_restarts_in_place
    host_network_pods_are_told_apart_by_port
    node_ports_and_load_balancers
    headless_and_external_name_services
    dual_stack
    endpoints_of_two_owners
    objects_without_owner
    a_record_older_than_the_oldest_event
    an_hour_of_backlog
    a_gap_in_the_watch
    a_pods_first_seconds
    what_this_run_sees_comes_first
    an_unreadable_object_stays_what_it_was
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    history: Vec<Step>,
    names: Vec<Lookup>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    at: Time,
    apply: Option<Value>,
    delete: Option<Value>,
    list: Option<List>,
    #[serde(default)]
    restart: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    kind: String,
    items: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lookup {
    at: Time,
    address: IpAddr,
    #[serde(default)]
    port: u16,
    #[serde(default)]
    seen_on: String,
    is: String,
    /// Whether something listens there.
    listens: Option<bool>,
}

fn run(text: &str) {
    let case: Case = serde_saphyr::from_str(text).unwrap();
    let (mut index, mut table) = (IdentityIndex::default(), Table::default());
    for step in case.history {
        let now_us = micros(&step.at);
        if let Some(value) = step.apply {
            index.apply(&object(&value), now_us);
        }
        if let Some(value) = step.delete {
            index.delete(&object(&value), now_us);
        }
        if let Some(list) = step.list {
            let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == list.kind).unwrap();
            let items: Vec<Object> = list.items.iter().map(object).collect();
            index.replace(kind, &items, now_us);
        }
        table.take_in(&mut index);
        if step.restart {
            index = IdentityIndex::default();
            index.restore(table.rows.values().cloned().collect(), &table.seen);
        }
    }
    for (number, lookup) in case.names.iter().enumerate() {
        let Lookup { at, address, port, seen_on, is, listens } = lookup;
        let identity = index.lookup(*address, *port, micros(at), seen_on);
        let mut found = identity.kind.as_str().to_owned();
        if identity.kind != EntityKind::Unknown && identity.kind != EntityKind::External {
            let scope = match &*identity.namespace {
                "" => String::new(),
                namespace => format!("{namespace}/"),
            };
            found += &format!(" {scope}{}", identity.name);
        }
        if !identity.workload.is_empty() {
            found += &format!(" of {}/{}", identity.workload_kind, identity.workload);
        }
        if identity.uncertain {
            found += " uncertain";
        }
        assert_eq!(&found, is, "lookup {number}: {address} port {port} at {at:?} on {seen_on:?}");
        if let Some(listens) = listens {
            let found = index.listens(*address, *port, micros(at), seen_on);
            assert_eq!(found, *listens, "lookup {number}: whether {address}:{port} listens");
        }
    }
}

fn object(value: &Value) -> Object {
    Object::from_json(&value.to_string()).unwrap().unwrap()
}

fn micros(time: &Time) -> u64 {
    time.0.as_microsecond().try_into().unwrap()
}

/// The table `identities`, as its columns say that rows merge.
#[derive(Default)]
struct Table {
    rows: HashMap<(Ipv6Addr, u16, String), IdentityRow>,
    seen: Vec<IdentitiesSeenRow>,
}

impl Table {
    fn take_in(&mut self, index: &mut IdentityIndex) {
        let changes = index.take_changes(usize::MAX);
        self.seen = changes.seen;
        for row in changes.rows {
            let key = (row.address, row.port, row.uid.clone());
            let merged = match self.rows.get(&key) {
                None => row,
                Some(known) => IdentityRow {
                    start: row.start.min(known.start),
                    last_seen: row.last_seen.max(known.last_seen),
                    released: row.released.max(known.released),
                    deleted: row.deleted.max(known.deleted),
                    ..row
                },
            };
            self.rows.insert(key, merged);
        }
    }
}
