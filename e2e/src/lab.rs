//! The lab: network namespaces as nodes, pods and the outside, wired like a small cluster.
//!
//! ```text
//!  pod ── veth ── bridge ─┐ node-a              node-b ┌─ bridge ── veth ── pod
//!  pod ── veth ──────────┘   eth0 ── fabric (router) ── eth0 └─────── veth ── pod
//!                                      └── outside host
//! ```
//!
//! Everything lives inside namespaces that the lab made, so dropping it leaves nothing behind: no
//! rule, no route and no interface of the machine itself is touched.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

/// Interface of every pod and every node's way out, as in a real cluster.
const ETH0: &str = "eth0";
const BRIDGE: &str = "cni0";

/// A set of namespaces with a common prefix. Dropping it deletes them.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    namespaces: Vec<Namespace>,
}

/// One network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    name: String,
}

/// A node: a namespace with a bridge for its pods and an uplink to the fabric.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where the node's own processes run.
    pub namespace: Namespace,
    /// Its name in the cluster.
    pub name: String,
    /// Its address on the fabric.
    pub ip: Ipv4Addr,
    /// The network of its pods.
    pub pods: String,
    /// The gateway of its pods: the bridge's address.
    gateway: Ipv4Addr,
}

/// A pod: a namespace with one interface, behind its node's bridge.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Where the pod's processes run.
    pub namespace: Namespace,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its interface's name on the node.
    pub host_interface: String,
}

impl Lab {
    /// An empty lab. What an earlier one of the same prefix left behind (it was killed) is deleted.
    ///
    /// # Errors
    /// Without root, or without the `ip` command.
    pub fn new(prefix: &str) -> Result<Self> {
        if !is_root() {
            bail!("network namespaces need root: run this as root, or with sudo");
        }
        let lab = Self { prefix: prefix.to_owned(), namespaces: Vec::new() };
        for line in run(["ip", "netns", "list"])?.lines() {
            let name = line.split_whitespace().next().unwrap_or_default();
            if name.starts_with(&format!("{prefix}-")) {
                run(["ip", "netns", "delete", name])?;
            }
        }
        Ok(lab)
    }

    /// Makes a namespace with its loopback up.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn namespace(&mut self, name: &str) -> Result<Namespace> {
        let namespace = Namespace { name: format!("{}-{name}", self.prefix) };
        run(["ip", "netns", "add", &namespace.name])?;
        self.namespaces.push(namespace.clone());
        namespace.ip(["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Makes the fabric: the router between nodes and the outside.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn fabric(&mut self) -> Result<Namespace> {
        let fabric = self.namespace("fabric")?;
        fabric.sysctl("net.ipv4.ip_forward", "1")?;
        Ok(fabric)
    }

    /// Makes a node on the fabric, with pods out of `10.244.<number>.0/24`.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn node(&mut self, fabric: &Namespace, name: &str, number: u8) -> Result<Node> {
        let namespace = self.namespace(name)?;
        let (router, ip) = (Ipv4Addr::new(172, 30, number, 1), Ipv4Addr::new(172, 30, number, 2));
        connect(fabric, name, router, &namespace, ip, 24)?;
        let gateway = Ipv4Addr::new(10, 244, number, 1);
        namespace.sysctl("net.ipv4.ip_forward", "1")?;
        namespace.sysctl("net.ipv4.conf.all.send_redirects", "0")?;
        namespace.sysctl("net.ipv4.conf.default.send_redirects", "0")?;
        namespace.ip(["link", "add", BRIDGE, "type", "bridge"])?;
        namespace.ip(["address", "add", &format!("{gateway}/24"), "dev", BRIDGE])?;
        namespace.ip(["link", "set", BRIDGE, "up"])?;
        let pods = format!("10.244.{number}.0/24");
        fabric.ip(["route", "add", &pods, "via", &ip.to_string()])?;
        Ok(Node { namespace, name: name.to_owned(), ip, pods, gateway })
    }

    /// Makes a host beyond the cluster.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn outside(&mut self, fabric: &Namespace, name: &str, ip: Ipv4Addr) -> Result<Namespace> {
        let namespace = self.namespace(name)?;
        let [a, b, c, _] = ip.octets();
        connect(fabric, name, Ipv4Addr::new(a, b, c, 1), &namespace, ip, 24)?;
        Ok(namespace)
    }

    /// Makes a pod on a node. All its traffic passes the node's own IP stack (its address is a /32),
    /// so that a Service's translation is undone also between pods of one node.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn pod(&mut self, node: &Node, name: &str, host_number: u8) -> Result<Pod> {
        let namespace = self.namespace(name)?;
        let [a, b, c, _] = node.gateway.octets();
        let ip = Ipv4Addr::new(a, b, c, host_number);
        let host_interface = format!("veth{c}x{host_number}");
        node.namespace.ip([
            "link",
            "add",
            &host_interface,
            "type",
            "veth",
            "peer",
            "name",
            ETH0,
            "netns",
            &namespace.name,
        ])?;
        node.namespace.ip(["link", "set", &host_interface, "master", BRIDGE, "up"])?;
        // A pod may be behind the Service that it calls.
        let hairpin = ["type", "bridge_slave", "hairpin", "on"];
        node.namespace.ip(["link", "set", &host_interface].into_iter().chain(hairpin))?;
        namespace.ip(["address", "add", &format!("{ip}/32"), "dev", ETH0])?;
        namespace.ip(["link", "set", ETH0, "up"])?;
        let gateway = node.gateway.to_string();
        namespace.ip(["route", "add", "default", "via", &gateway, "dev", ETH0, "onlink"])?;
        Ok(Pod { namespace, ip, host_interface })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in self.namespaces.iter().rev() {
            // Best effort: what is left is deleted by the next lab of this prefix.
            if let Err(error) = run(["ip", "netns", "delete", &namespace.name]) {
                eprintln!("cannot delete a namespace: {error:#}");
            }
        }
    }
}

impl Namespace {
    /// Its name for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file, to be entered by.
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// A command that will run inside, without standard input.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program).stdin(Stdio::null());
        command
    }

    /// Runs `ip` inside.
    ///
    /// # Errors
    /// If it fails; with what it printed.
    pub fn ip<'a>(&'a self, arguments: impl IntoIterator<Item = &'a str>) -> Result<String> {
        run(["ip", "-netns", &self.name].into_iter().chain(arguments))
    }

    /// Runs a closure on a thread inside, and waits for it. Sockets made there stay inside.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub fn inside<T: Send + 'static>(&self, run: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let file = std::fs::File::open(self.path())
            .with_context(|| format!("cannot open {}", self.path()))?;
        let thread =
            std::thread::spawn(move || setns(file, CloneFlags::CLONE_NEWNET).map(|()| run()));
        match thread.join() {
            Ok(entered) => entered.context("cannot enter a namespace"),
            Err(_) => bail!("a thread in the namespace {} ended early", self.name),
        }
    }

    /// Loads an nftables ruleset inside.
    ///
    /// # Errors
    /// If `nft` refuses it; with what it printed.
    pub fn nft(&self, ruleset: &str) -> Result<()> {
        let mut child = self
            .command("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run nft: apt-get install nftables")?;
        if let Some(mut stdin) = child.stdin.take() {
            std::io::Write::write_all(&mut stdin, ruleset.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("nft refused the rules: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Sets a kernel parameter inside.
    ///
    /// # Errors
    /// If there is none of that name, or it refuses the value.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let setting = format!("{name}={value}");
        let output = self.command("sysctl").args(["-q", "-w", &setting]).output()?;
        if !output.status.success() {
            bail!("sysctl {setting}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}

/// Runs a command to its end and returns what it printed.
///
/// # Errors
/// If it cannot be started or fails; with its words and what it printed.
pub fn run<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<String> {
    let words: Vec<_> = words.into_iter().collect();
    let [program, arguments @ ..] = words.as_slice() else { bail!("no command") };
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}: is it installed?"))?;
    if !output.status.success() {
        let printed = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {}", words.join(" "), printed.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A veth pair between the fabric and a namespace whose default route it becomes.
fn connect(
    fabric: &Namespace,
    name: &str,
    router: Ipv4Addr,
    namespace: &Namespace,
    ip: Ipv4Addr,
    prefix: u8,
) -> Result<()> {
    let link = format!("to-{name}");
    fabric.ip([
        "link",
        "add",
        &link,
        "type",
        "veth",
        "peer",
        "name",
        ETH0,
        "netns",
        &namespace.name,
    ])?;
    fabric.ip(["address", "add", &format!("{router}/{prefix}"), "dev", &link])?;
    fabric.ip(["link", "set", &link, "up"])?;
    namespace.ip(["address", "add", &format!("{ip}/{prefix}"), "dev", ETH0])?;
    namespace.ip(["link", "set", ETH0, "up"])?;
    namespace.ip(["route", "add", "default", "via", &router.to_string()])?;
    Ok(())
}
