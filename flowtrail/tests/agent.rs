//! The agent as a process: it holds no privilege once it has its packet sockets, and reads what came
//! before it is told to stop. Needs root, for the network namespaces.

#![allow(clippy::unwrap_used, reason = "tests: helpers too")]

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{JoinHandle, spawn, yield_now};
use std::time::{Duration, Instant};

use afpacket::sync::RawPacketStream;
use etherparse::PacketBuilder;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

struct Namespace(String);

impl Namespace {
    fn new(role: &str) -> Self {
        let name = format!("flowtrail-{}-{role}", std::process::id());
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        Self(name)
    }

    fn spawn<T: Send + 'static>(
        &self,
        inside: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let namespace = File::open(format!("/run/netns/{}", self.0)).unwrap();
        spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            inside()
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        yield_now();
    }
}

/// Whether the agent's admin port says that it is ready.
fn is_ready(admin: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(admin) else { return false };
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 200")
}

/// The status of each thread of a process.
fn threads(process: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok()).collect()
}

fn assert_unprivileged(process: u32, bounded: bool) {
    let threads = threads(process);
    assert!(threads.len() > 2, "the runtime's and the capture threads: {}", threads.len());
    for status in threads {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
        };
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(field(set), 0, "{set} of a thread:\n{status}");
        }
        assert!(!bounded || field("CapBnd") == 0, "CapBnd of a thread:\n{status}");
        assert_eq!(field("NoNewPrivs"), 1, "{status}");
    }
}

/// An agent in a namespace, started by a prefix command; it sees packets by then.
fn start(node: &Namespace, prefix: &[&str], program: &Path) -> Child {
    let admin = SocketAddr::from(([127, 0, 0, 1], 9_464));
    let agent = Command::new("ip")
        .args(["netns", "exec", &node.0])
        .args(prefix)
        .arg(program)
        .args(["capture", "--output", "json", "--interval", "1s"])
        .args(["--admin-listen", &admin.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let asked = node.spawn(move || wait_until("the agent is ready", || is_ready(admin)));
    asked.join().unwrap();
    agent
}

/// An agent started by a prefix command captures a pod that comes later from its first SYN on.
fn captures_a_new_pod_without_privileges(role: &str, prefix: &[&str], bounded: bool) {
    let (node, pod) = (Namespace::new(role), Namespace::new(&format!("{role}-pod")));
    let directory = tempfile::tempdir().unwrap();
    // Where another user may run it.
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let program = directory.path().join("flowtrail");
    fs::copy(env!("CARGO_BIN_EXE_flowtrail"), &program).unwrap();
    let agent = start(&node, prefix, &program);
    assert_unprivileged(agent.id(), bounded);

    ip(&format!("-n {} link add vethnew type veth peer name eth0 netns {}", node.0, pod.0));
    for (namespace, device, last) in [(&node, "vethnew", 1), (&pod, "eth0", 2)] {
        ip(&format!("-n {} addr add 10.9.1.{last}/24 dev {device}", namespace.0));
        ip(&format!("-n {} link set {device} up", namespace.0));
    }
    let server = (Ipv4Addr::new(10, 9, 1, 1), 9_000);
    let listener = node.spawn(move || TcpListener::bind(server).unwrap()).join().unwrap();
    let sent = pod.spawn(move || TcpStream::connect(server).unwrap().write_all(b"hello").unwrap());
    let mut received = String::new();
    listener.accept().unwrap().0.read_to_string(&mut received).unwrap();
    sent.join().unwrap();
    assert_unprivileged(agent.id(), bounded);

    kill(Pid::from_raw(agent.id().cast_signed()), Signal::SIGTERM).unwrap();
    let output = agent.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let records: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let opened: u64 = records.iter().map(|record| record["opened"].as_u64().unwrap()).sum();
    assert_eq!(opened, 1, "{records:?}");
    assert!(records.iter().all(|record| record["server"]["port"] == 9_000), "{records:?}");
}

#[test]
fn root_gives_up_what_it_has() {
    captures_a_new_pod_without_privileges("root", &[], true);
}

#[test]
fn a_user_needs_no_more_than_to_open_the_sockets() {
    let user = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=+net_raw",
        "--ambient-caps=+net_raw",
        "--bounding-set=-all,+net_raw",
    ];
    captures_a_new_pod_without_privileges("user", &user, false);
}

/// A stalled agent is told to stop while its ring is full of what it could not read yet: more than it
/// reads in the time that the kernel may hold a block back.
#[test]
fn what_came_before_the_stop_is_read_however_much_it_is() {
    const FRAMES: u64 = 150_000;
    let (node, pod) = (Namespace::new("stop"), Namespace::new("stop-pod"));
    ip(&format!("-n {} link add veth0 type veth peer name eth0 netns {}", node.0, pod.0));
    for (namespace, device) in [(&node, "veth0"), (&pod, "eth0")] {
        ip(&format!("-n {} link set {device} up", namespace.0));
    }
    let agent = start(&node, &[], Path::new(env!("CARGO_BIN_EXE_flowtrail")));

    let process = Pid::from_raw(agent.id().cast_signed());
    kill(process, Signal::SIGSTOP).unwrap();
    let sent = pod.spawn(|| {
        let mut socket = RawPacketStream::new().unwrap();
        socket.bind("eth0").unwrap();
        // Of many connections, for that is work.
        for port in (1_000..51_000).cycle().take(FRAMES as usize) {
            let mut frame = vec![0x02; 12];
            frame.extend([0x08, 0x00]);
            let ack = PacketBuilder::ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64);
            ack.tcp(port, 80, 7, 1_000).ack(1).write(&mut frame, b"").unwrap();
            socket.write_all(&frame).unwrap();
        }
    });
    sent.join().unwrap();
    kill(process, Signal::SIGTERM).unwrap();
    kill(process, Signal::SIGCONT).unwrap();
    let output = agent.wait_with_output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{log}");
    let counted: u64 = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .map(|record: Value| record["sent"]["packets"].as_u64().unwrap())
        .sum();
    let dropped = log.rsplit_once(" dropped=").unwrap().1.split(' ').next().unwrap();
    assert_eq!(counted + dropped.parse::<u64>().unwrap(), FRAMES, "{log}");
    assert!(counted > FRAMES / 2, "{log}");
}
