//! The life of one connection at one interface, case by case.

use flowtrail_schema::IdKind;
use flowtrail_schema::connection_id::{from_isns, from_tuple};

use super::*;

#[test]
fn a_whole_connection_is_one_record_with_everything_in_it() {
    let mut watch = Watch::new();
    watch.see_all(1.0, whole(&mut Talk::new()));
    assert!(watch.until(10.4).is_empty(), "the interval is cut half a second after its end");
    let [record] = watch.until(10.5).try_into().unwrap();
    assert_eq!(record.interval.start_us(), us(0.0));
    assert_eq!((record.client, record.server), (end("10.0.0.1:40000"), end("10.0.0.2:80")));
    assert_eq!(record.connection_id, from_isns(CLIENT_ISN, SERVER_ISN));
    assert_eq!(record.id_kind, IdKind::Complete);
    assert!(record.handshake_seen && !record.one_sided && !record.direction_inferred);
    assert!(record.local_primary);
    assert_eq!((record.first_seen_us, record.last_seen_us), (us(1.0), us(1.007)));
    assert_eq!((record.sent.packets, record.sent.bytes, record.sent.payload_bytes), (5, 300, 100));
    assert_eq!((record.received.packets, record.received.bytes), (3, 2_120));
    assert_eq!((record.opened, record.joined, record.open_at_start), (1, 0, 0));
    assert_eq!((record.closed.fin, record.closed.total()), (1, 1));
    assert_eq!(record.syn_to_synack.sum_us, 1_000);
    assert_eq!(record.synack_to_ack.sum_us, 1_000);
    assert_eq!(record.first_response.sum_us, 1_000);
    assert_eq!((record.duration.count, record.duration.sum_us, record.age_us), (1, 7_000, 7_000));
    assert!(watch.until(200.0).is_empty(), "nothing is left");
    assert!(watch.table.is_empty());
}

#[test]
fn a_refused_attempt_never_was_open() {
    let mut watch = Watch::new();
    let mut talk = Talk::new();
    let syn = talk.send(Client, "S", 0);
    watch.see(1.0, syn);
    watch.see(1.1, talk.send(Server, "RA", 0));
    // Some systems try again all the same.
    watch.see(1.6, syn);
    watch.until(200.0);
    assert_eq!(watch.sum().life(), (1, 0, &[("refused", 1)][..]));
    assert_eq!(watch.sum().packets, [2, 1]);
    assert_eq!(watch.records[0].id_kind, IdKind::Partial);
    assert!(!watch.records[0].one_sided);
}

#[test]
fn an_unanswered_attempt_is_one_however_often_it_is_tried() {
    let mut watch = Watch::new();
    let syn = Talk::new().send(Client, "S", 0);
    for seconds in [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 63.0, 127.0] {
        watch.see(seconds, syn);
    }
    watch.until(400.0);
    assert_eq!(watch.sum().life(), (1, 0, &[("unanswered", 1)][..]));
    assert_eq!((watch.sum().packets, watch.sum().retransmitted), ([8, 0], [7, 0]));
    let closed = watch.records.iter().find(|record| record.closed.unanswered == 1).unwrap();
    assert_eq!(second(closed), 20, "10 s after the SYN of second 15");
    assert_eq!(closed.connection_id, from_isns(CLIENT_ISN, 0));
    assert!(watch.records.iter().all(|record| record.open_at_start == 0));
    assert!(watch.table.is_empty());
}

#[test]
fn another_attempt_is_told_by_its_sequence_number() {
    let mut watch = Watch::new();
    watch.see(0.0, Talk::new().send(Client, "S", 0));
    watch.see(20.0, Talk::new().with_isns(77, 0).send(Client, "S", 0));
    watch.until(400.0);
    assert_eq!(watch.sum().life(), (2, 0, &[("unanswered", 2)][..]));
}

#[test]
fn an_attempt_answered_after_all_comes_back_as_joined() {
    let mut watch = Watch::new();
    let mut talk = Talk::new();
    watch.see(0.0, talk.send(Client, "S", 0));
    watch.see(12.0, talk.send(Server, "SA", 0));
    watch.see(12.1, talk.send(Client, "A", 0));
    watch.see(12.2, talk.send(Server, "RA", 0));
    watch.until(100.0);
    assert_eq!(watch.sum().life(), (1, 1, &[("reset_by_server", 1), ("unanswered", 1)][..]));
    assert!(watch.records.iter().all(|record| record.closed.total() <= 1));
}

#[test]
fn a_reset_names_who_sent_it() {
    for (side, reason) in [(Client, "reset_by_client"), (Server, "reset_by_server")] {
        let mut watch = Watch::new();
        let mut talk = Talk::new();
        watch.see_all(1.0, open(&mut talk));
        watch.see(2.0, talk.send(side, "RA", 0));
        watch.see(2.1, talk.send(Client, "A", 10));
        watch.until(30.0);
        assert_eq!(watch.sum().life(), (1, 0, &[(reason, 1)][..]));
        assert_eq!(watch.sum().packets.iter().sum::<u64>(), 5);
    }
}

#[test]
fn a_half_closed_connection_is_open() {
    let mut watch = Watch::new();
    let mut talk = Talk::new();
    watch.see_all(1.0, open(&mut talk));
    watch.see(2.0, talk.send(Client, "FA", 0));
    watch.see(2.1, talk.send(Server, "A", 0));
    watch.see(12.0, talk.send(Server, "A", 500));
    let records = watch.until(25.0);
    assert_eq!(records.iter().map(|record| record.open_at_start).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(watch.sum().closed, []);
    watch.see(26.0, talk.send(Server, "FA", 0));
    watch.see(26.1, talk.send(Client, "A", 0));
    watch.until(40.0);
    assert_eq!(watch.sum().life(), (1, 0, &[("fin", 1)][..]));
}

#[test]
fn what_comes_late_is_absorbed() {
    let mut watch = Watch::new();
    let mut talk = Talk::new();
    let segments = whole(&mut talk);
    watch.see_all(1.0, segments.clone());
    watch.see(15.0, segments[6]);
    watch.see(50.0, segments[7]);
    watch.until(60.5);
    assert_eq!(watch.sum().life(), (1, 0, &[("fin", 1)][..]));
    assert_eq!((watch.sum().packets, watch.sum().retransmitted), ([6, 4], [0, 1]));
    assert!(watch.records.iter().all(|record| record.open_at_start == 0));
    // A minute after the close it would be something new.
    watch.see(62.0, segments[7]);
    watch.until(80.0);
    assert_eq!(watch.sum().joined, 1);
}

#[test]
fn a_closed_tuple_is_reused_at_once() {
    let mut watch = Watch::new();
    watch.see_all(1.0, whole(&mut Talk::new()));
    watch.see_all(2.0, whole(&mut Talk::new().with_isns(70_000, 80_000)));
    let records = watch.until(20.0);
    assert_eq!(watch.sum().life(), (2, 0, &[("fin", 2)][..]));
    let ids: HashSet<_> = records.iter().map(|record| record.connection_id).collect();
    assert_eq!(ids, [from_isns(CLIENT_ISN, SERVER_ISN), from_isns(70_000, 80_000)].into());
    assert!(records.iter().all(|record| record.local_primary));
}

#[test]
fn an_open_connection_gives_way_only_when_the_new_syn_is_answered() {
    let mut watch = Watch::new();
    let mut old = Talk::new();
    watch.see_all(1.0, open(&mut old));
    let mut new = Talk::new().with_isns(70_000, 80_000);
    watch.see(2.0, new.send(Client, "S", 0));
    watch.see(2.1, old.send(Client, "A", 10));
    watch.until(5.0);
    assert_eq!(watch.sum().closed, [], "anyone can send a SYN");
    watch.see(5.0, new.send(Server, "SA", 0));
    watch.see(5.1, new.send(Client, "A", 0));
    let records = watch.until(20.0);
    assert_eq!(watch.sum().life(), (2, 0, &[("superseded", 1)][..]));
    assert_eq!(watch.sum().retransmitted, [0, 0]);
    let newer = records.iter().find(|r| r.connection_id == from_isns(70_000, 80_000)).unwrap();
    assert_eq!((newer.opened, newer.syn_to_synack.sum_us), (1, 3_000_000));
}

#[test]
fn a_server_that_forgot_refuses_the_new_syn() {
    let mut watch = Watch::new();
    watch.see_all(1.0, open(&mut Talk::new()));
    let mut new = Talk::new().with_isns(70_000, 0);
    watch.see(2.0, new.send(Client, "S", 0));
    watch.see(2.1, new.send(Server, "RA", 0));
    watch.until(20.0);
    assert_eq!(watch.sum().life(), (2, 0, &[("refused", 1), ("superseded", 1)][..]));
}

#[test]
fn joined_at_the_syn_ack_all_but_the_syn_is_known() {
    let mut watch = Watch::new();
    let mut talk = Talk::new();
    watch.see_all(1.0, whole(&mut talk).into_iter().skip(1));
    let [record] = watch.until(20.0).try_into().unwrap();
    assert_eq!((record.opened, record.joined, record.closed.fin), (0, 1, 1));
    assert_eq!(record.connection_id, from_isns(CLIENT_ISN, SERVER_ISN));
    assert!(record.handshake_seen && !record.direction_inferred);
    assert_eq!(record.client, end("10.0.0.1:40000"));
    assert!(record.syn_to_synack.is_empty());
    assert_eq!(record.synack_to_ack.count, 1);
}

#[test]
fn joined_midstream_the_higher_port_is_the_client() {
    let mut watch = Watch::new();
    let mut talk = Talk::new();
    watch.see_all(1.0, whole(&mut talk).into_iter().skip(4));
    let [record] = watch.until(20.0).try_into().unwrap();
    assert_eq!((record.joined, record.closed.fin, record.id_kind), (1, 1, IdKind::TupleHash));
    assert_eq!(record.connection_id, from_tuple(record.client, record.server));
    assert!(!record.handshake_seen && record.direction_inferred);
    assert_eq!(record.client, end("10.0.0.1:40000"));
    assert!(record.first_response.is_empty(), "the first payload may have been before");
}

#[test]
fn joined_midstream_a_known_listener_is_the_server() {
    let mut watch = Watch::new();
    watch.see_all(1.0, open(&mut Talk::between("10.0.0.1:40000", "10.0.0.2:50000")));
    let mut joined = Talk::between("10.0.0.3:33000", "10.0.0.2:50000");
    watch.see(2.0, joined.send(Server, "A", 10));
    let records = watch.until(20.0);
    let record = records.iter().find(|record| record.joined == 1).unwrap();
    assert_eq!(record.client, end("10.0.0.3:33000"));
    assert!(record.direction_inferred);
}

#[test]
fn in_a_simultaneous_open_the_lower_end_is_the_client() {
    let mut watch = Watch::new();
    // The higher end's SYN comes first.
    let mut talk = Talk::between("10.0.0.9:5000", "10.0.0.1:5000");
    watch.see_all(1.0, [talk.send(Client, "S", 0), talk.send(Server, "S", 0)]);
    let mut answer = talk.send(Client, "A", 0);
    (answer.flags.syn, answer.sequence) = (true, CLIENT_ISN);
    watch.see(1.1, answer);
    watch.see(1.2, talk.send(Server, "A", 0));
    let [record] = watch.until(20.0).try_into().unwrap();
    assert_eq!(record.client, end("10.0.0.1:5000"));
    assert_eq!(record.connection_id, from_isns(SERVER_ISN, CLIENT_ISN));
    assert_eq!((record.opened, record.joined, record.closed.total()), (1, 0, 0));
    assert_eq!((record.sent.packets, record.received.packets), (2, 2));
    assert!(record.syn_to_synack.is_empty() && record.synack_to_ack.is_empty());
}

#[test]
fn one_direction_alone_still_tells_the_id() {
    let mut watch = Watch::new();
    let mut talk = Talk::new();
    watch.see(1.0, talk.send(Client, "S", 0));
    talk.send(Server, "SA", 0);
    watch.see(1.1, talk.send(Client, "A", 0));
    watch.see(1.2, talk.send(Client, "A", 70));
    watch.until(30.0);
    let record = &watch.records[0];
    assert_eq!(record.connection_id, from_isns(CLIENT_ISN, SERVER_ISN));
    assert_eq!((record.id_kind, record.one_sided), (IdKind::Complete, true));
    assert_eq!(watch.sum().life(), (1, 0, &[][..]), "never unanswered once the client has ACKed");
}

#[test]
fn an_ack_left_over_from_before_is_no_answer() {
    let mut watch = Watch::new();
    let mut talk = Talk::new();
    watch.see(1.0, talk.send(Client, "S", 0));
    let mut old = talk.send(Client, "A", 0);
    old.sequence = CLIENT_ISN.wrapping_sub(50_000);
    watch.see(1.1, old);
    watch.until(30.0);
    assert_eq!(watch.sum().life(), (1, 0, &[("unanswered", 1)][..]));
}

#[test]
fn retransmissions_and_zero_windows_are_counted() {
    let mut watch = Watch::new();
    let mut talk = Talk::new().with_isns(u32::MAX - 50, 5);
    watch.see_all(1.0, open(&mut talk));
    let data = talk.send(Client, "A", 100);
    let more = talk.send(Client, "A", 100);
    let mut full = talk.send(Server, "A", 0);
    full.window = 0;
    watch.see_all(2.0, [data, more, data, full, full, more]);
    let [record] = watch.until(20.0).try_into().unwrap();
    assert_eq!((record.sent.retransmitted_packets, record.received.retransmitted_packets), (2, 0));
    assert_eq!((record.sent.zero_window_packets, record.received.zero_window_packets), (0, 2));
}

#[test]
fn payload_in_the_syn_may_be_acknowledged_with_it() {
    let mut watch = Watch::new();
    let mut talk = Talk::new();
    watch.see_all(
        1.0,
        [talk.send(Client, "S", 10), talk.send(Server, "SA", 0), talk.send(Client, "A", 0)],
    );
    let [record] = watch.until(20.0).try_into().unwrap();
    assert_eq!(record.connection_id, from_isns(CLIENT_ISN, SERVER_ISN));
    assert_eq!((record.syn_to_synack.count, record.synack_to_ack.count), (1, 1));
}
