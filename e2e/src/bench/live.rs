//! Live: a veth pair, a generator on one core as fast as it can go, the agent or tcpdump on the other.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use afpacket::sync::RawPacketStream;
use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::measure::CORE;
use super::{Bench, Goals, traffic};
use crate::lab::Lab;

/// How often each reader gets the traffic.
const TURNS: usize = 3;

/// How long a reader may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a reader says of the packets.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    packets: u64,
    dropped: u64,
}

pub(super) fn run(bench: &Bench, goals: &mut Goals) -> Result<()> {
    let mut lab = Lab::new("flowtrail-bench")?;
    let reader = lab.namespace("reader")?;
    let sender = lab.namespace("sender")?;
    let peer = sender.name();
    reader.ip(["link", "add", "veth0", "type", "veth", "peer", "name", "eth0", "netns", peer])?;
    for (namespace, interface) in [(&reader, "veth0"), (&sender, "eth0")] {
        // Without addresses nothing answers.
        namespace.sysctl(&format!("net.ipv6.conf.{interface}.disable_ipv6"), "1")?;
        namespace.ip(["link", "set", interface, "up"])?;
    }
    let frames = traffic::frames(500, 20);
    println!(
        "\nlive over veth: {} packets of 500 connections as fast as one core sends, the reader on the other, in turn",
        bench.live_packets
    );
    println!("  {:<22}{:>12}{:>12}{:>14}{:>14}", "", "seen", "dropped", "packets/s", "dropped, %");
    let mut lost = [0.0; 3];
    let names = ["flowtrail", "tcpdump", "tcpdump -B 32768"];
    for _ in 0..TURNS {
        for (name, lost) in names.into_iter().zip(&mut lost) {
            eprintln!("{name} …");
            let report = bench.directory.join("reader.log");
            let mut child = start(bench, name, reader.name(), &report)?;
            let sent = send(&frames, &sender.path(), bench.live_packets);
            // What is in the ring or buffer still has to be read.
            sleep(Duration::from_millis(500));
            let seen = stop(&mut child, name, &report);
            let (rate, seen) = (sent?, seen?);
            let share = seen.dropped as f64 * 100.0 / bench.live_packets as f64;
            println!(
                "  {name:<22}{:>12}{:>12}{rate:>14.0}{share:>14.3}",
                seen.packets, seen.dropped
            );
            let all = seen.packets + seen.dropped;
            ensure!(
                all.abs_diff(bench.live_packets) <= bench.live_packets / 1_000,
                "{name} saw and dropped {all} of {} packets",
                bench.live_packets
            );
            *lost += share / TURNS as f64;
        }
    }
    goals.add(
        lost[0] <= lost[1],
        format!("live: {:.3} % dropped, tcpdump {:.3} %, with a buffer of our size {:.3} % (goal: no more than tcpdump)", lost[0], lost[1], lost[2]),
    );
    Ok(())
}

fn start(bench: &Bench, name: &str, namespace: &str, report: &Path) -> Result<Child> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, "taskset", "-c", CORE]);
    match name {
        "flowtrail" => {
            command.arg(&bench.flowtrail);
            command.args(["capture", "--interface", "veth0", "--output", "null"]);
        }
        _ => {
            command.args(["tcpdump", "-Z", "root", "-i", "veth0", "-s", "256", "-w", "/dev/null"]);
            if name.ends_with("32768") {
                command.args(["-B", "32768"]);
            }
            command.arg("tcp");
        }
    }
    let log = File::create(report)?;
    let child = command.stdout(Stdio::null()).stderr(log).spawn()?;
    let ready = if name == "flowtrail" { "watching interface" } else { "listening on" };
    let begun = Instant::now();
    while !read(report)?.contains(ready) {
        ensure!(begun.elapsed() < PATIENCE, "{name} does not start: {}", read(report)?);
        sleep(Duration::from_millis(20));
    }
    // The socket is open by then, or within moments.
    sleep(Duration::from_millis(300));
    Ok(child)
}

fn stop(child: &mut Child, name: &str, report: &Path) -> Result<Seen> {
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT)?;
    ensure!(child.wait()?.success(), "{name} failed: {}", read(report)?);
    let text = read(report)?;
    let number = |before: &str, after: &str| -> Result<u64> {
        let found = match before.is_empty() {
            true => text.lines().find_map(|line| line.strip_suffix(after)),
            false => text
                .rsplit_once(before)
                .and_then(|(_, rest)| rest.split(|letter: char| !letter.is_ascii_digit()).next()),
        };
        let found = found.with_context(|| format!("{name} does not tell its packets: {text}"))?;
        found.trim().parse().with_context(|| found.to_owned())
    };
    Ok(match name {
        "flowtrail" => {
            Seen { packets: number(" packets=", "")?, dropped: number(" dropped=", "")? }
        }
        _ => Seen {
            packets: number("", " packets captured")?,
            dropped: number("", " packets dropped by kernel")?,
        },
    })
}

/// Sends frames round and round, and says how many a second.
fn send(frames: &[Vec<u8>], namespace: &str, packets: u64) -> Result<f64> {
    let namespace = File::open(namespace)?;
    let sending = || -> Result<f64> {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        let mut other = CpuSet::new();
        other.set(0)?;
        sched_setaffinity(Pid::from_raw(0), &other)?;
        let mut socket = RawPacketStream::new()?;
        socket.bind("eth0")?;
        let begun = Instant::now();
        let mut sent = 0;
        for frame in frames.iter().cycle().take(packets as usize) {
            // The queue of a veth is short: what found no room was not sent.
            while let Err(error) = socket.write_all(frame) {
                if error.raw_os_error() != Some(nix::errno::Errno::ENOBUFS as i32) {
                    bail!(error);
                }
            }
            sent += 1;
        }
        Ok(f64::from(sent) / begun.elapsed().as_secs_f64())
    };
    std::thread::scope(|scope| match scope.spawn(sending).join() {
        Ok(rate) => rate,
        Err(_) => bail!("the generator broke off"),
    })
}

fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}
