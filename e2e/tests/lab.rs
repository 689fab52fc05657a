//! The lab by itself: what the programs say they transferred agrees with what the kernel counted, so
//! that Flowtrail can be held against both. Needs root.

use std::time::Duration;

use flowtrail_e2e::cluster::Cluster;
use flowtrail_e2e::traffic::{Outcome, TRAFFIC};

#[test]
fn programs_and_kernel_agree() {
    let program = env!("CARGO_BIN_EXE_flowtrail-demo");
    let cluster = Cluster::new("flowtrail-lab-test").unwrap();
    let servers = cluster.start_servers(program).unwrap();
    let mut clients = cluster.start_clients(program, TRAFFIC).unwrap();
    // Longer than the dropped attempts take: two of 1.5 s.
    std::thread::sleep(Duration::from_secs(4));
    let truths: Vec<_> = clients.iter_mut().map(|client| client.stop_asking().unwrap()).collect();
    std::thread::sleep(Duration::from_millis(500));
    for (client, mut truth) in clients.iter().zip(truths) {
        client.count(&mut truth).unwrap();
        let done = truth.transferred;
        match truth.traffic.outcome {
            Outcome::Closed => assert!(done.connections > 1 && done.failed == 0, "{truth:?}"),
            Outcome::StaysOpen => assert!(done.connections == 1 && done.failed == 0, "{truth:?}"),
            Outcome::Refused => {
                // One SYN and one RST each: 60 and 40 bytes.
                assert_eq!((done.connections, done.failed), (0, 3));
                assert_eq!((truth.sent_bytes, truth.received_bytes), (180, 120));
            }
            Outcome::Unanswered => {
                assert_eq!((done.connections, done.failed, truth.received_bytes), (0, 2, 0));
            }
        }
        if done.connections > 0 {
            assert!(truth.sent_bytes > done.sent, "headers are missing: {truth:?}");
            assert!(truth.received_bytes > done.received, "headers are missing: {truth:?}");
        }
    }
    drop(clients);
    drop(servers);
}
