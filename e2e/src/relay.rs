//! A door into a namespace: connections to a port here are carried to a port there.
//!
//! `flowtrail up` runs inside the lab's node, where the packets are; its HTTP addresses must be open
//! to the person who started the demo.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use crate::lab::Namespace;

/// Starts carrying, until the process ends.
///
/// # Errors
/// If the port here is taken, or the namespace is gone.
pub fn open(here: SocketAddr, namespace: &Namespace, there: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(here)
        .with_context(|| format!("cannot listen on {here}: is another demo running?"))?;
    let file = File::open(namespace.path()).context("the namespace is gone")?;
    thread::Builder::new().name("relay".into()).spawn(move || {
        // Only this thread and those it starts enter the namespace; the listener stays outside.
        if let Err(error) = setns(&file, CloneFlags::CLONE_NEWNET) {
            eprintln!("relay: cannot enter the namespace: {error}");
            return;
        }
        for client in listener.incoming().flatten() {
            if let Ok(server) = TcpStream::connect(there) {
                carry_both_ways(client, server);
            }
        }
    })?;
    Ok(())
}

fn carry_both_ways(client: TcpStream, server: TcpStream) {
    let clones = (client.try_clone(), server.try_clone());
    if let (Ok(client_too), Ok(server_too)) = clones {
        thread::spawn(move || carry(client, server));
        thread::spawn(move || carry(server_too, client_too));
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                if to.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
