//! What the table is told, and what an index knows that was restored from it.

use super::*;

proptest! {
    /// Whatever was told in pieces, and however often: a new index that knows the table answers the same.
    #[test]
    fn what_is_restored_answers_as_before(spells in spells(), rows in 1_usize..10) {
        let mut index = IdentityIndex::default();
        let mut table = Vec::new();
        for (number, (address, node, start, end)) in spells.iter().enumerate() {
            let ip = format!("10.0.0.{address}");
            let object = object::<Pod>(pod(&format!("p{number:02}"), &ip, &format!("n{node}"), *start));
            index.apply(&object, at(*start));
            if let Some(end) = end {
                index.delete(&object, at(*end));
            }
        }
        index.seen(Kind::Pod, at(60));
        let lost = index.take_changes(rows);
        index.put_back(lost);
        let seen = loop {
            let changes = index.take_changes(rows);
            table.extend(changes.rows);
            prop_assert_eq!(changes.seen.is_empty(), index.has_changes());
            if !index.has_changes() {
                break changes.seen;
            }
        };
        prop_assert_eq!(table.len(), spells.len());
        let mut restored = IdentityIndex::default();
        restored.restore(table, &seen);
        for (address, instant, node) in (0..3).flat_map(|address| {
            (0..60).flat_map(move |instant| ["n0", "n1"].map(|node| (address, instant, node)))
        }) {
            let address = ip(&format!("10.0.0.{address}"));
            prop_assert_eq!(
                restored.lookup(address, 1, at(instant), node),
                index.lookup(address, 1, at(instant), node)
            );
        }
        prop_assert_eq!(restored.counts().objects, spells.len());
        prop_assert!(!restored.has_changes(), "nothing is new to the table");
    }
}

#[test]
fn only_what_the_table_does_not_know_is_told() {
    let mut index = IdentityIndex::default();
    let told = |index: &mut IdentityIndex| -> Vec<String> {
        let mut rows = index.take_changes(usize::MAX).rows;
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        rows.iter().map(|row| format!("{} of {}", row.name, row.workload)).collect()
    };
    let web = owned_by(pod("web-a", "10.1.0.1", "n", 0), "ReplicaSet", "web-1");
    index.apply(&object::<Pod>(web.clone()), at(1));
    index.apply(&object::<Service>(service("web")), at(1));
    // Two cluster, one external and one load-balancer address, and a node port.
    let of_service = |workload: &str| vec![format!("web of {workload}"); 5];
    assert_eq!(told(&mut index), [of_service(""), vec!["web-a of web-1".to_owned()]].concat());
    // Another state of the same pod is no news; what its ReplicaSet tells is.
    let mut ready = web;
    ready["status"]["conditions"][0]["message"] = json!("ready");
    index.apply(&object::<Pod>(ready.clone()), at(2));
    assert_eq!(told(&mut index), [""; 0]);
    index.apply(&object::<ReplicaSet>(owned_by(metadata("web-1"), "Deployment", "web")), at(3));
    assert_eq!(told(&mut index), ["web-a of web"]);
    index.apply(&object::<EndpointSlice>(slice("s", "web", &["web-a"])), at(4));
    assert_eq!(told(&mut index), of_service("web"));
    index.delete(&object::<Pod>(ready), at(5));
    assert_eq!(told(&mut index), ["web-a of web"]);
    index.refresh();
    assert_eq!(told(&mut index), of_service("web"), "what is gone does not change any more");
}
