//! The state file: what is written is read, and nothing else is.

use std::net::IpAddr;
use std::sync::Arc;

use flowtrail_schema::{FlowRecord, Interface, InterfaceKind};

use super::*;
use crate::flow_table::{FlowTableConfig, Origin};
use crate::packet::{Flags, Segment};

const NOW_US: u64 = 1_700_000_000_000_000;

fn identity(agent: &str) -> Identity {
    Identity { agent: agent.into(), node: "n".into() }
}

fn table(shared: &Shared) -> FlowTable {
    FlowTable::new(FlowTableConfig::default(), shared.clone())
}

fn segment(client: u32, syn: bool) -> Segment {
    let end = |ip: [u8; 4], port| Endpoint { ip: IpAddr::from(ip), port };
    Segment {
        source: end([10, 0, 0, 1], 10_000 + client as u16),
        destination: end([10, 0, 0, 2], 80),
        sequence: client + u32::from(!syn),
        acknowledgment: 1_001,
        flags: Flags { syn, ack: !syn, ..Flags::default() },
        window: 100,
        ip_bytes: 40,
        payload_bytes: 0,
    }
}

/// Some one-sided connections, and the records of them.
fn connect(table: &mut FlowTable, shared: &Shared, clients: u32) {
    let interface = Interface { name: "veth1".to_owned(), kind: InterfaceKind::Pod };
    let point = shared.add_point(Arc::new(interface)).unwrap();
    for client in 0..clients {
        for syn in [true, false] {
            table.packet(point, Origin::Inside, NOW_US, &segment(client, syn));
        }
    }
    while !table.finish(NOW_US, &mut Vec::new()) {}
}

/// Lets two workers with a table each write the directory's file.
fn write(directory: StateDirectory, tables: &[&FlowTable; 2], rounds: &[Round]) {
    let (writer, savers) = StateWriter::new(directory, identity("a"), 2);
    let written = std::thread::spawn(move || writer.run());
    for (mut saver, table) in savers.into_iter().zip(tables) {
        for round in rounds {
            saver.begin(*round);
            saver.step(|from, saved| table.save(from, saved));
        }
        saver.finish(|from, saved| table.save(from, saved));
    }
    written.join().unwrap();
}

/// What two tables hold after a restart, and one packet of each of some clients.
fn go_on(path: &Path, agent: &str, clients: u32) -> Vec<FlowRecord> {
    let directory = StateDirectory::open(path).unwrap();
    let shared = Shared::default();
    let mut tables = [table(&shared), table(&shared)];
    let worker_of = |ends: [Endpoint; 2]| usize::from(ends[0].port % 2);
    let now = (NOW_US, IntervalLength::default());
    directory.restore(&identity(agent), &shared, &mut tables, worker_of, now);
    let interface = Interface { name: "veth1".to_owned(), kind: InterfaceKind::Pod };
    let point = shared.add_point(Arc::new(interface)).unwrap();
    let mut records = Vec::new();
    for client in 0..clients {
        let segment = segment(client, false);
        let table = &mut tables[usize::from(segment.source.port % 2)];
        table.packet(point, Origin::Inside, NOW_US + 1, &segment);
    }
    for table in &mut tables {
        while !table.finish(NOW_US + 1, &mut records) {}
    }
    records
}

#[test]
fn connections_go_on_in_the_table_of_their_worker() {
    let directory = tempfile::tempdir().unwrap();
    let shared = Shared::default();
    let mut tables = [table(&shared), table(&shared)];
    // More than one piece.
    connect(&mut tables[0], &shared, 20_000);
    let state = StateDirectory::open(directory.path()).unwrap();
    write(state, &[&tables[0], &tables[1]], &[Round::Minute(1), Round::Minute(2)]);

    let records = go_on(directory.path(), "a", 20_000);
    assert_eq!(records.len(), 20_000);
    let anew = records.iter().filter(|record| record.joined + record.opened > 0);
    assert_eq!(anew.map(|it| it.client.port).collect::<Vec<u16>>(), Vec::<u16>::new());
    assert!(records.iter().all(|record| record.handshake_seen && record.local_primary));
    assert!(records.iter().all(|record| record.sent.packets == 1));
    assert_eq!(records.iter().map(|record| record.open_at_start).sum::<u32>(), 0);

    let others = go_on(directory.path(), "b", 3);
    assert_eq!(others.iter().map(|record| record.joined).sum::<u32>(), 3, "another agent's");
}

#[test]
fn a_damaged_file_is_of_no_use_and_no_harm() {
    let directory = tempfile::tempdir().unwrap();
    let shared = Shared::default();
    let mut tables = [table(&shared), table(&shared)];
    connect(&mut tables[0], &shared, 5);
    let state = StateDirectory::open(directory.path()).unwrap();
    write(state, &[&tables[0], &tables[1]], &[]);
    let path = directory.path().join("agent.state");
    let whole = fs::read(&path).unwrap();
    assert_eq!(go_on(directory.path(), "a", 5).iter().map(|it| it.joined).sum::<u32>(), 0);
    for position in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[position] ^= 1;
        fs::write(&path, damaged).unwrap();
        let records = go_on(directory.path(), "a", 5);
        assert_eq!(records.iter().map(|it| it.joined).sum::<u32>(), 5, "byte {position}");
        fs::write(&path, &whole[..position]).unwrap();
        let records = go_on(directory.path(), "a", 5);
        assert_eq!(records.iter().map(|it| it.joined).sum::<u32>(), 5, "{position} bytes");
    }
}

#[test]
fn a_directory_is_one_agents() {
    let directory = tempfile::tempdir().unwrap();
    let first = StateDirectory::open(directory.path()).unwrap();
    let second = StateDirectory::open(directory.path()).unwrap_err();
    assert!(second.to_string().contains("--state-dir"), "{second}");
    drop(first);
    StateDirectory::open(&directory.path().join("new/below")).unwrap();
    let file = directory.path().join("agent.lock/x");
    let error = StateDirectory::open(&file).unwrap_err();
    assert!(error.to_string().contains("cannot use the state directory"), "{error}");
}
