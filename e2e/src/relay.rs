//! A door between namespaces: connections to a port in one are carried to a port in another.
//!
//! `flowtrail up` runs inside the lab's node, where the packets are; its HTTP addresses must be open
//! to the person who started the demo. And agents inside nodes must reach a broker outside.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::lab::Namespace;

/// An address in a namespace; in the process's own without one.
pub type Place<'a> = (Option<&'a Namespace>, SocketAddr);

/// Starts carrying, until the process ends.
///
/// # Errors
/// If the port to listen on is taken, or a namespace is gone.
pub fn open(listen: Place<'_>, connect: Place<'_>) -> Result<()> {
    let (namespace, address) = listen;
    // A socket belongs to the namespace of the thread that makes it.
    let listener = spawn_in(namespace, move || TcpListener::bind(address))?
        .join()
        .map_err(|_| anyhow!("the relay broke off"))??
        .with_context(|| format!("cannot listen on {address}: is another demo running?"))?;
    let (namespace, address) = connect;
    spawn_in(namespace, move || {
        for client in listener.incoming().flatten() {
            if let Ok(server) = TcpStream::connect(address) {
                carry_both_ways(client, server);
            }
        }
    })?;
    Ok(())
}

/// Runs something on a thread of its own inside a namespace. Threads it starts are inside too.
fn spawn_in<T: Send + 'static>(
    namespace: Option<&Namespace>,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<thread::JoinHandle<Result<T>>> {
    let file = namespace.map(|namespace| File::open(namespace.path())).transpose()?;
    let thread = thread::Builder::new().name("relay".into());
    Ok(thread.spawn(move || {
        if let Some(file) = file {
            setns(&file, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
        }
        Ok(run())
    })?)
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
