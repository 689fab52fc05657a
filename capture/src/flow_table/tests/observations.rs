//! One connection at several interfaces: joined by its id, counted once.

use flowtrail_schema::{IdKind, Reporter};

use super::*;

/// Two pods and an uplink on one node.
struct Node {
    watch: Watch,
    client_pod: PointId,
    server_pod: PointId,
    uplink: PointId,
}

impl Node {
    fn new() -> Self {
        let watch = Watch::new();
        watch.shared.set_node_addresses(node_addresses(&["192.168.0.1"]));
        Self {
            client_pod: add_point(&watch.shared, "veth1", InterfaceKind::Pod),
            server_pod: add_point(&watch.shared, "veth2", InterfaceKind::Pod),
            uplink: add_point(&watch.shared, "eth0", InterfaceKind::Uplink),
            watch,
        }
    }

    fn see(&mut self, seconds: f64, point: PointId, origin: Origin, segment: Segment) {
        self.watch.table.packet(point, origin, us(seconds), &segment);
    }
}

/// The client's pod is inside of its interface, so what the client sends comes from inside.
fn origin(talk: &Talk, inside: Side, segment: &Segment) -> Origin {
    match segment.source == talk.ends[inside as usize] {
        true => Origin::Inside,
        false => Origin::Outside,
    }
}

fn of(records: &[FlowRecord], interface: &str) -> Vec<FlowRecord> {
    records.iter().filter(|record| record.interface.name == interface).cloned().collect()
}

#[test]
fn a_connection_through_a_service_has_one_id_and_one_primary() {
    let mut node = Node::new();
    let mut talk = Talk::between("10.244.0.5:40000", "10.96.0.10:80");
    for (n, segment) in whole(&mut talk).into_iter().enumerate() {
        let seconds = 1.0 + n as f64;
        let backend = translated(segment, "10.96.0.10:80", "10.244.0.6:8080");
        let backend = translated(backend, "10.244.0.5:40000", "10.244.0.1:61000");
        let at_client = origin(&talk, Client, &segment);
        let at_server = if at_client == Origin::Inside { Origin::Outside } else { Origin::Inside };
        // The server's interface sees the answers first.
        let (client_pod, server_pod) = (node.client_pod, node.server_pod);
        node.see(seconds + 1e-6, server_pod, at_server, backend);
        node.see(seconds + 2e-6, client_pod, at_client, segment);
    }
    let records = node.watch.until(60.0);
    let [client] = of(&records, "veth1").try_into().unwrap();
    let [server] = of(&records, "veth2").try_into().unwrap();
    assert_eq!(client.connection_id, server.connection_id);
    assert_eq!((client.reporter, client.local_primary), (Reporter::Client, true));
    assert_eq!((server.reporter, server.local_primary), (Reporter::Server, false));
    assert_eq!(client.sent.bytes, server.sent.bytes);
    assert_eq!(
        node.watch.shared.announced_addresses(),
        ["10.244.0.5".parse::<std::net::IpAddr>().unwrap()]
    );
}

#[test]
fn a_masqueraded_connection_is_the_pods_and_not_the_nodes() {
    let mut node = Node::new();
    let mut talk = Talk::between("10.244.0.5:40000", "93.184.216.34:443");
    let mut own = Talk::between("192.168.0.1:50000", "93.184.216.34:443").with_isns(7, 8);
    for segment in open(&mut talk) {
        let outside = translated(segment, "10.244.0.5:40000", "192.168.0.1:61000");
        let side = origin(&talk, Client, &segment);
        let (client_pod, uplink) = (node.client_pod, node.uplink);
        node.see(1.0, client_pod, side, segment);
        node.see(1.1, uplink, side, outside);
    }
    for segment in open(&mut own) {
        let side = origin(&own, Client, &segment);
        let uplink = node.uplink;
        node.see(2.0, uplink, side, segment);
    }
    let records = node.watch.until(20.0);
    let seen: Vec<_> = of(&records, "eth0")
        .iter()
        .map(|record| (record.client.port, record.reporter, record.local_primary))
        .collect();
    assert!(seen.contains(&(61000, Reporter::Transit, false)), "{seen:?}");
    assert!(seen.contains(&(50000, Reporter::Client, true)), "{seen:?}");
    assert!(of(&records, "veth1")[0].local_primary);
    assert_eq!(node.watch.shared.announced_addresses().len(), 2);
    node.watch.shared.set_node_addresses(HashSet::new());
    node.watch.shared.remove_point(node.client_pod);
    assert!(node.watch.shared.announced_addresses().is_empty());
}

#[test]
fn an_unanswered_attempt_at_two_interfaces_is_one() {
    let mut node = Node::new();
    let mut talk = Talk::between("10.244.0.5:40000", "10.244.0.6:8080");
    let syn = talk.send(Client, "S", 0);
    let (client_pod, server_pod) = (node.client_pod, node.server_pod);
    node.see(1.0, server_pod, Origin::Outside, syn);
    node.see(1.0, client_pod, Origin::Inside, syn);
    let records = node.watch.until(60.0);
    let primaries: Vec<_> = records.iter().filter(|record| record.local_primary).collect();
    assert!(primaries.iter().all(|record| record.reporter == Reporter::Client));
    assert_eq!(Sum::of(primaries).life(), (1, 0, &[("unanswered", 1)][..]));
}

#[test]
fn a_connection_joined_midstream_at_two_interfaces_is_one() {
    let mut node = Node::new();
    let mut talk = Talk::between("10.244.0.5:40000", "10.244.0.6:8080");
    let segments = whole(&mut talk).into_iter().skip(3);
    for segment in segments {
        let (client_pod, server_pod) = (node.client_pod, node.server_pod);
        node.see(1.0, server_pod, Origin::Unknown, segment);
        node.see(1.0, client_pod, origin(&talk, Client, &segment), segment);
    }
    let records = node.watch.until(60.0);
    assert_eq!(records.len(), 2);
    assert_eq!(Sum::of(records.iter().filter(|record| record.local_primary)).joined, 1);
    assert!(of(&records, "veth1")[0].local_primary);
}

#[test]
fn the_choice_holds_when_the_primary_is_gone() {
    let mut node = Node::new();
    let mut talk = Talk::between("10.244.0.5:40000", "10.244.0.6:8080");
    let (client_pod, server_pod) = (node.client_pod, node.server_pod);
    for segment in open(&mut talk) {
        node.see(1.0, server_pod, Origin::Unknown, segment);
        node.see(1.0, client_pod, origin(&talk, Client, &segment), segment);
    }
    node.watch.until(11.0);
    node.watch.shared.remove_point(client_pod);
    for n in 1..200 {
        let segment = talk.send(Client, "A", 10);
        node.see(20.0 * f64::from(n), server_pod, Origin::Unknown, segment);
    }
    node.watch.until(4_000.0);
    let primaries: HashSet<_> = node
        .watch
        .records
        .iter()
        .filter(|record| record.local_primary)
        .map(|record| record.interface.name.clone())
        .collect();
    assert_eq!(primaries, ["veth1".to_owned()].into());
    node.see(4_000.0, client_pod, Origin::Unknown, talk.send(Client, "A", 10));
    assert_eq!(node.watch.table.stats().unknown_point, 1);
}

#[test]
fn the_choice_made_for_a_partial_id_holds_for_the_complete_one() {
    let mut node = Node::new();
    let mut talk = Talk::between("10.244.0.5:40000", "10.244.0.6:8080");
    let (client_pod, server_pod) = (node.client_pod, node.server_pod);
    let segments = open(&mut talk);
    node.see(1.0, server_pod, Origin::Unknown, segments[0]);
    node.watch.until(11.0);
    // The better observation comes too late, and has the complete id first.
    node.see(12.0, client_pod, Origin::Outside, segments[1]);
    node.see(12.1, server_pod, Origin::Unknown, segments[1]);
    let records = node.watch.until(60.0);
    assert!(of(&records, "veth1").iter().all(|record| !record.local_primary));
    assert!(of(&records, "veth2").iter().all(|record| record.local_primary));
}

#[test]
fn an_observation_of_both_directions_is_better_than_one_of_one() {
    let mut node = Node::new();
    let mut talk = Talk::between("10.244.0.5:40000", "10.244.0.6:8080");
    let (client_pod, server_pod) = (node.client_pod, node.server_pod);
    for segment in open(&mut talk) {
        if origin(&talk, Client, &segment) == Origin::Inside {
            node.see(1.0, client_pod, Origin::Inside, segment);
        }
        node.see(1.0, server_pod, Origin::Unknown, segment);
    }
    let records = node.watch.until(20.0);
    let [client] = of(&records, "veth1").try_into().unwrap();
    let [server] = of(&records, "veth2").try_into().unwrap();
    assert!(client.one_sided && !client.local_primary);
    assert!(!server.one_sided && server.local_primary);
    assert_eq!(client.connection_id, server.connection_id);
}

#[test]
fn an_id_in_use_on_the_same_interface_is_another_connection() {
    let mut watch = Watch::new();
    watch.see_all(1.0, open(&mut Talk::new()));
    watch.see_all(2.0, open(&mut Talk::between("10.0.0.3:40000", "10.0.0.2:80")));
    let records = watch.until(20.0);
    let kinds: Vec<_> = records.iter().map(|record| (record.client.ip, record.id_kind)).collect();
    assert!(kinds.contains(&("10.0.0.1".parse().unwrap(), IdKind::Complete)));
    assert!(kinds.contains(&("10.0.0.3".parse().unwrap(), IdKind::TupleHash)));
    assert!(records.iter().all(|record| record.local_primary));
    assert!(watch.shared.refusals().0 >= 1);
}

/// From outside to a NodePort here, and on to a pod of another node: in and out of the same uplink.
#[test]
fn a_connection_that_is_sent_back_where_it_came_from_is_one() {
    let mut node = Node::new();
    let mut talk = Talk::between("203.0.113.10:40000", "192.168.0.1:30080");
    for (n, segment) in whole(&mut talk).into_iter().enumerate() {
        let seconds = 1.0 + n as f64;
        let onward = translated(segment, "192.168.0.1:30080", "10.244.9.6:8080");
        let onward = translated(onward, "203.0.113.10:40000", "192.168.0.1:61000");
        let uplink = node.uplink;
        // The node is inside of its uplink, and the server of what comes in.
        let (there, back) = match origin(&talk, Server, &segment) {
            Origin::Outside => (Origin::Outside, Origin::Inside),
            origin => (origin, Origin::Outside),
        };
        node.see(seconds, uplink, there, segment);
        node.see(seconds + 1e-6, uplink, back, onward);
    }
    let records = node.watch.until(60.0);
    let [one, other]: [FlowRecord; 2] = of(&records, "eth0").try_into().unwrap();
    let (way_in, way_out) = if one.server.port == 30080 { (one, other) } else { (other, one) };
    assert_eq!((way_in.id_kind, way_out.id_kind), (IdKind::Complete, IdKind::Complete));
    assert_eq!(way_in.connection_id, way_out.connection_id);
    assert_eq!((way_in.local_primary, way_out.local_primary), (true, false));
    assert_eq!((way_in.reporter, way_out.reporter), (Reporter::Transit, Reporter::Transit));
    assert_eq!(node.watch.shared.refusals().0, 0);
    // The other node sees the node's address as the client: that side is seen here.
    let own: std::net::IpAddr = "192.168.0.1".parse().unwrap();
    assert_eq!(node.watch.shared.announced_addresses(), [own]);
}

#[test]
fn a_pod_that_calls_its_own_service_has_one_connection() {
    let mut node = Node::new();
    let mut talk = Talk::between("10.244.0.5:40000", "10.96.0.10:80");
    for segment in open(&mut talk) {
        let back = translated(segment, "10.96.0.10:80", "10.244.0.5:8080");
        let back = translated(back, "10.244.0.5:40000", "10.244.0.1:61000");
        let there = origin(&talk, Client, &segment);
        let opposite = if there == Origin::Inside { Origin::Outside } else { Origin::Inside };
        let pod = node.client_pod;
        node.see(1.0, pod, there, segment);
        node.see(1.1, pod, opposite, back);
    }
    let records = node.watch.until(20.0);
    assert!(records.iter().all(|record| record.id_kind == IdKind::Complete));
    let primaries: Vec<_> = records.iter().filter(|record| record.local_primary).collect();
    assert!(primaries.iter().all(|record| record.reporter == Reporter::Client));
    assert_eq!(Sum::of(primaries).life().0, 1);
}

#[test]
fn a_place_is_given_to_another_interface_only_when_its_flows_are_gone() {
    let mut watch = Watch::new();
    let pod = add_point(&watch.shared, "veth1", InterfaceKind::Pod);
    let syn = Talk::new().send(Client, "S", 0);
    watch.table.packet(pod, Origin::Inside, us(1.0), &syn);
    watch.shared.remove_point(pod);
    assert_ne!(add_point(&watch.shared, "veth2", InterfaceKind::Pod), pod);
    watch.until(400.0);
    assert!(watch.records.iter().all(|record| record.interface.name == "veth1"));
    assert_eq!(add_point(&watch.shared, "veth3", InterfaceKind::Pod), pod);
}

/// A scanner, or whoever wants not to be counted, gives all its connections one sequence number.
#[test]
fn a_partial_id_is_not_taken_for_another_connections_on_its_interface() {
    for together in [true, false] {
        let mut node = Node::new();
        let (client_pod, server_pod) = (node.client_pod, node.server_pod);
        let mut dropped = Talk::between("10.244.0.5:40000", "198.51.100.1:81");
        node.see(1.0, client_pod, Origin::Inside, dropped.send(Client, "S", 0));
        if !together {
            node.watch.until(11.0);
        }
        let mut talk = Talk::between("10.244.0.5:40001", "10.244.0.6:80");
        for (n, segment) in whole(&mut talk).into_iter().enumerate() {
            let seconds = if together { 2.0 } else { 12.0 } + n as f64;
            let at_client = origin(&talk, Client, &segment);
            let at_server = origin(&talk, Server, &segment);
            let delay = if at_client == Origin::Inside { 1e-3 } else { -1e-3 };
            let mut seen =
                [(seconds, client_pod, at_client), (seconds + delay, server_pod, at_server)];
            seen.sort_by(|a, b| a.0.total_cmp(&b.0));
            for (seconds, point, origin) in seen {
                node.see(seconds, point, origin, segment);
            }
        }
        node.watch.until(400.0);
        let primaries: Vec<_> =
            node.watch.records.iter().filter(|record| record.local_primary).cloned().collect();
        let sum = Sum::of(&primaries);
        assert_eq!(sum.life(), (2, 0, &[("fin", 1), ("unanswered", 1)][..]), "{together}");
        assert_eq!(sum.packets, [6, 3]);
        assert!(primaries.iter().all(|record| record.interface.name == "veth1"));
    }
}

#[test]
fn an_interface_that_comes_back_goes_on_with_its_connections() {
    let mut watch = Watch::new();
    let mut talk = Talk::new();
    let uplink = add_point(&watch.shared, "eth0", InterfaceKind::Uplink);
    for segment in open(&mut talk) {
        watch.table.packet(uplink, Origin::Unknown, us(1.0), &segment);
    }
    watch.until(15.0);
    watch.shared.remove_point(uplink);
    let uplink = add_point(&watch.shared, "eth0", InterfaceKind::Uplink);
    watch.table.packet(uplink, Origin::Unknown, us(21.0), &talk.send(Client, "A", 10));
    watch.table.packet(uplink, Origin::Unknown, us(22.0), &talk.send(Client, "R", 0));
    watch.until(100.0);
    assert_eq!(watch.sum().life(), (1, 0, &[("reset_by_client", 1)][..]));
    assert_eq!(watch.sum().packets, [4, 1]);
}

/// Joined midstream, a masqueraded pod's connection has a tuple of its own on the uplink: only that the
/// node has no such socket tells it from the node's.
#[test]
fn a_connection_with_the_nodes_address_but_not_its_socket_is_not_the_nodes() {
    for (owned, reporter) in
        [(Some(true), Reporter::Client), (Some(false), Reporter::Transit), (None, Reporter::Client)]
    {
        let mut node = Node::new();
        let ends = [end("192.168.0.1:50000"), end("93.184.216.34:443")];
        node.watch.table.ask_sockets(Box::new(move |local, remote| {
            assert_eq!([local, remote], ends);
            owned
        }));
        let mut talk = Talk::between("192.168.0.1:50000", "93.184.216.34:443");
        let uplink = node.uplink;
        for segment in whole(&mut talk).into_iter().skip(3) {
            let side = origin(&talk, Client, &segment);
            node.see(1.0, uplink, side, segment);
        }
        let records = node.watch.until(20.0);
        assert!(!records.is_empty() && records.iter().all(|it| it.reporter == reporter));
        // Of a handshake that was seen it is not asked: the pod's interface tells.
        let mut another = Talk::between("192.168.0.1:50001", "93.184.216.35:443").with_isns(7, 8);
        let syn = another.send(Client, "S", 0);
        node.see(21.0, uplink, Origin::Inside, syn);
        let [record] = node.watch.until(31.0).try_into().unwrap();
        assert_eq!(record.reporter, Reporter::Client);
    }
}
