//! Ownership as containers come and go; and the laws of it: all that is heard is true, and what is missed
//! makes names uncertain or unknown, never wrong.

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000;

/// Seconds after some time, as microseconds since the epoch.
fn at(seconds: u64) -> u64 {
    (1_767_225_600 + seconds) * SECOND
}

fn endpoint(id: &str, network: &str, ip: &str) -> Endpoint {
    Endpoint {
        id: id.to_owned(),
        network: network.to_owned(),
        addresses: vec![ip.parse().unwrap()],
        gateways: vec!["172.18.0.1".parse().unwrap()],
    }
}

fn container(name: &str, started_us: u64, endpoints: &[Endpoint]) -> Container {
    Container {
        id: name.to_owned(),
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        workload: ("ComposeService", "web".to_owned()),
        started_us,
        running: true,
        ports: vec![80],
        endpoints: endpoints.to_vec(),
    }
}

fn bridge(id: &str) -> Bridge {
    Bridge { id: id.to_owned(), created_us: at(0), gateways: Default::default() }
}

fn event(at_us: u64, what: What) -> Event {
    Event { at_us, what }
}

fn connected(name: &str, network: &str) -> What {
    What::Connected { container: name.to_owned(), network: network.to_owned() }
}

/// An inventory and what it fed.
#[derive(Default)]
struct Fed {
    inventory: Inventory,
    index: IdentityIndex,
}

impl Fed {
    fn inspected(&mut self, container: Container, at_us: u64, what: What) {
        self.inventory.inspected(container, &event(at_us, what), &mut self.index);
    }

    fn ended(&mut self, name: &str, at_us: u64) {
        self.inventory.ended(name, at_us, &mut self.index);
    }

    fn relist(&mut self, listed: Vec<Container>, now_us: u64) {
        let listed = listed.into_iter().map(|it| Listed::Container(Box::new(it))).collect();
        let told = ("laptop".to_owned(), vec![bridge("net0"), bridge("net1")]);
        self.inventory.relist(told, listed, now_us, &mut self.index);
    }

    /// The name at an address, with a question mark if that is uncertain.
    fn name(&self, ip: &str, instant_us: u64) -> String {
        let found = self.index.lookup(ip.parse().unwrap(), 80, instant_us, "");
        format!("{}{}", found.name, if found.uncertain { "?" } else { "" })
    }
}

#[test]
fn an_address_that_goes_to_another_keeps_its_past() {
    let mut fed = Fed::default();
    fed.relist(vec![], at(0));
    let first = container("a", at(11), &[endpoint("e1", "net0", "172.18.0.2")]);
    fed.inspected(first, at(10), connected("a", "net0"));
    fed.ended("a", at(20));
    let other = container("b", at(31), &[endpoint("e2", "net0", "172.18.0.2")]);
    fed.inspected(other, at(30), connected("b", "net0"));
    fed.ended("b", at(40));
    // The first one starts again, and has its old address back.
    let again = container("a", at(51), &[endpoint("e3", "net0", "172.18.0.2")]);
    fed.inspected(again, at(50), connected("a", "net0"));
    let names = [(9, ""), (10, "a"), (19, "a"), (20, ""), (30, "b"), (40, ""), (49, ""), (50, "a")];
    for (seconds, name) in names {
        assert_eq!(fed.name("172.18.0.2", at(seconds)), name, "at {seconds}");
    }
    let identity = fed.index.lookup("172.18.0.2".parse().unwrap(), 80, at(15), "");
    assert_eq!((&*identity.namespace, &*identity.workload), ("shop", "web"));
    assert_eq!((&*identity.workload_kind, &*identity.node), ("ComposeService", "laptop"));
    assert!(fed.index.listens("172.18.0.2".parse().unwrap(), 80, at(15), ""));
}

#[test]
fn a_listed_container_has_its_addresses_since_it_was_started() {
    let mut fed = Fed::default();
    fed.relist(vec![container("a", at(10), &[endpoint("e", "net0", "172.18.0.2")])], at(100));
    assert_eq!(fed.name("172.18.0.2", at(10)), "a");
    assert_eq!(fed.name("172.18.0.2", at(8)), "a?", "it had them a little before");
    assert_eq!(fed.name("172.18.0.2", at(4)), "");
}

#[test]
fn the_gateway_of_a_bridge_is_the_host_while_there_is_the_bridge() {
    let mut fed = Fed::default();
    fed.relist(vec![], at(5));
    assert_eq!(fed.name("172.18.0.1", at(6)), "", "nobody told");
    fed.inspected(
        container("a", at(11), &[endpoint("e", "net0", "172.18.0.2")]),
        at(10),
        connected("a", "net0"),
    );
    assert_eq!(fed.name("172.18.0.1", at(6)), "laptop");
    fed.inspected(
        container("b", at(11), &[endpoint("f", "macvlan", "192.168.1.9")]),
        at(10),
        connected("b", "macvlan"),
    );
    fed.ended("a", at(20));
    assert_eq!(fed.name("172.18.0.1", at(21)), "laptop");
    fed.inventory.bridges(vec![bridge("net1")], at(30), &mut fed.index);
    assert_eq!(fed.name("172.18.0.1", at(29)), "laptop");
    assert_eq!(fed.name("172.18.0.1", at(30)), "");
}

#[test]
fn a_container_that_cannot_be_read_stays_what_it_was() {
    let mut fed = Fed::default();
    fed.relist(vec![container("a", at(1), &[endpoint("e", "net0", "172.18.0.2")])], at(10));
    let listed = vec![Listed::Id("a".to_owned()), Listed::Id("never read".to_owned())];
    fed.inventory.relist(("laptop".to_owned(), vec![]), listed, at(20), &mut fed.index);
    assert_eq!(fed.name("172.18.0.2", at(30)), "a");
    fed.ended("a", at(40));
    assert_eq!(fed.name("172.18.0.2", at(39)), "a");
    assert_eq!(fed.name("172.18.0.2", at(40)), "");
}

#[test]
fn a_renamed_container_has_its_new_name_and_its_old_start() {
    let mut fed = Fed::default();
    fed.relist(vec![], at(0));
    let mut renamed = container("a", at(11), &[endpoint("e", "net0", "172.18.0.2")]);
    fed.inspected(renamed.clone(), at(10), connected("a", "net0"));
    renamed.name = "better".to_owned();
    fed.inspected(renamed, at(20), What::Changed("a".to_owned()));
    assert_eq!(fed.name("172.18.0.2", at(10)), "better");
    assert_eq!(fed.name("172.18.0.2", at(9)), "");
}

#[test]
fn there_is_room_for_so_many() {
    let mut fed = Fed::default();
    let all = (0..MAX_CONTAINERS).map(|number| container(&format!("c{number}"), at(1), &[]));
    fed.relist(all.collect(), at(2));
    assert!(fed.inventory.has_room_for("c0"));
    assert!(!fed.inventory.has_room_for("one more"));
}

/// Something done to the engine.
#[derive(Clone, Debug)]
enum Deed {
    Start { container: usize, network: usize, address: u8 },
    Connect { container: usize, network: usize, address: u8 },
    Disconnect { container: usize, network: usize },
    Stop(usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    let (container, network, address) = (0..3_usize, 0..2_usize, 2..4_u8);
    let place = (container.clone(), network.clone(), address);
    prop_oneof![
        3 => place.clone().prop_map(|(container, network, address)| Deed::Start { container, network, address }),
        2 => place.prop_map(|(container, network, address)| Deed::Connect { container, network, address }),
        2 => (container.clone(), network).prop_map(|(container, network)| Deed::Disconnect { container, network }),
        2 => container.prop_map(Deed::Stop),
    ]
}

/// An engine, as far as it matters, and all that was ever true of it.
#[derive(Default)]
struct Model {
    running: BTreeMap<usize, Container>,
    /// Address, name, from when, and until when if it is over.
    history: Vec<(IpAddr, String, u64, Option<u64>)>,
    made: usize,
}

impl Model {
    fn attach(&mut self, container: usize, network: usize, address: u8, at_us: u64) -> bool {
        let ip: IpAddr = format!("172.{}.0.{address}", 18 + network).parse().unwrap();
        let taken = self.history.iter().any(|(other, _, _, end)| *other == ip && end.is_none());
        let Some(running) = self.running.get_mut(&container) else { return false };
        let network = format!("net{network}");
        if taken || running.endpoints.iter().any(|endpoint| endpoint.network == network) {
            return false;
        }
        self.made += 1;
        running.endpoints.push(endpoint(&format!("e{}", self.made), &network, &ip.to_string()));
        self.history.push((ip, running.name.clone(), at_us, None));
        true
    }

    fn detach(&mut self, ip: IpAddr, at_us: u64) {
        let held = self.history.iter_mut().find(|(other, _, _, end)| *other == ip && end.is_none());
        held.unwrap().3 = Some(at_us);
    }

    /// Does it, if it can be done, and returns what the engine tells of it. A container starts half a second
    /// after it was connected.
    fn perform(&mut self, deed: &Deed, at_us: u64) -> Vec<Event> {
        let told = |what| vec![event(at_us, what)];
        match *deed {
            Deed::Start { container: number, network, address } => {
                let name = format!("c{number}");
                let started_us = at_us + SECOND / 2;
                if self.running.contains_key(&number) {
                    return vec![];
                }
                self.running.insert(number, container(&name, started_us, &[]));
                if !self.attach(number, network, address, at_us) {
                    self.running.remove(&number);
                    return vec![];
                }
                vec![
                    event(at_us, connected(&name, &format!("net{network}"))),
                    event(started_us, What::Started(name)),
                ]
            }
            Deed::Connect { container, network, address } => {
                if !self.attach(container, network, address, at_us) {
                    return vec![];
                }
                told(connected(&format!("c{container}"), &format!("net{network}")))
            }
            Deed::Disconnect { container, network } => {
                let Some(running) = self.running.get_mut(&container) else { return vec![] };
                let network = format!("net{network}");
                let found = running.endpoints.iter().position(|it| it.network == network);
                let Some(index) = found else { return vec![] };
                let gone = running.endpoints.remove(index);
                self.detach(gone.addresses[0], at_us);
                told(What::Changed(format!("c{container}")))
            }
            Deed::Stop(container) => {
                let Some(running) = self.running.remove(&container) else { return vec![] };
                for endpoint in running.endpoints {
                    self.detach(endpoint.addresses[0], at_us);
                }
                vec![
                    event(at_us, What::Ended(running.name.clone())),
                    event(at_us, What::Changed(running.name)),
                ]
            }
        }
    }

    /// What the source does with an event: it asks for the container as it is now.
    fn tell(&self, fed: &mut Fed, event: &Event) {
        let name = match &event.what {
            What::Ended(name) => return fed.ended(name, event.at_us),
            What::Networks => return,
            What::Changed(name) | What::Started(name) => name,
            What::Connected { container, .. } => container,
        };
        let running = self.running.values().find(|running| running.name == *name);
        if let Some(running) = running {
            fed.inventory.inspected(running.clone(), event, &mut fed.index);
        }
    }

    fn truth(&self, ip: IpAddr, instant_us: u64) -> &str {
        let holds = |end: Option<u64>| end.is_none_or(|end| instant_us < end);
        let held = self.history.iter();
        let mut held =
            held.filter(|(at, _, start, end)| *at == ip && *start <= instant_us && holds(*end));
        held.next().map_or("", |(_, name, _, _)| name)
    }
}

const ADDRESSES: [&str; 4] = ["172.18.0.2", "172.18.0.3", "172.19.0.2", "172.19.0.3"];

proptest! {
    #[test]
    fn what_is_heard_is_true_at_every_instant(deeds in prop::collection::vec(deed(), 0..40)) {
        let (mut model, mut fed) = (Model::default(), Fed::default());
        fed.relist(vec![], at(0));
        for (number, deed) in deeds.iter().enumerate() {
            for event in model.perform(deed, at(10 + 10 * number as u64)) {
                model.tell(&mut fed, &event);
            }
        }
        for seconds in (5..20 + 10 * deeds.len() as u64).step_by(5) {
            for ip in ADDRESSES {
                prop_assert_eq!(fed.name(ip, at(seconds)), model.truth(ip.parse().unwrap(), at(seconds)), "{} at {}", ip, seconds);
            }
        }
    }

    #[test]
    fn what_is_missed_makes_no_name_wrong(
        deeds in prop::collection::vec((deed(), prop::bool::weighted(0.6)), 0..40),
        replayed in 0..6_usize,
    ) {
        let (mut model, mut fed) = (Model::default(), Fed::default());
        fed.relist(vec![], at(0));
        let mut told: Vec<Event> = Vec::new();
        let (mut listening, mut listed_us) = (true, at(0));
        let end = 10 + 10 * deeds.len() as u64;
        let relist = |model: &Model, fed: &mut Fed, told: &[Event], now_us| {
            fed.relist(model.running.values().cloned().collect(), now_us);
            // The stream begins a little before the list.
            for event in &told[told.len().saturating_sub(replayed)..] {
                model.tell(fed, event);
            }
        };
        for (number, (deed, heard)) in deeds.iter().enumerate() {
            let now = 10 + 10 * number as u64;
            if *heard && !listening {
                relist(&model, &mut fed, &told, at(now - 5));
                listed_us = at(now - 5);
            } else if listening {
                fed.inventory.seen(at(now - 5), &mut fed.index);
            }
            listening = *heard;
            // A container that nobody saw start is taken to be in its networks since it did.
            if let Deed::Connect { container, .. } = deed
                && !listening
                && model.running.get(container).is_some_and(|it| it.started_us > listed_us)
            {
                continue;
            }
            let events = model.perform(deed, at(now));
            if listening {
                events.iter().for_each(|event| model.tell(&mut fed, event));
                listed_us = at(now + 1);
            }
            told.extend(events);
        }
        relist(&model, &mut fed, &told, at(end));
        for ip in ADDRESSES {
            prop_assert_eq!(fed.name(ip, at(end + 1)), model.truth(ip.parse().unwrap(), at(end + 1)), "{} now", ip);
            for seconds in (5..end).step_by(5) {
                let (name, truth) = (fed.name(ip, at(seconds)), model.truth(ip.parse().unwrap(), at(seconds)));
                prop_assert!(name.is_empty() || name.ends_with('?') || name == truth, "{ip} at {seconds}: {name}, not {truth}");
            }
        }
    }
}
