//! Makes the golden captures anew. The records beside them are of the captures that are there: after
//! this they have to be derived and reviewed again (see `capture/tests/golden/README.md`).

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use flowtrail_e2e::golden::{Case, cases, derive};
use flowtrail_e2e::program::ended;

#[derive(Parser)]
#[command(about = "Records the golden captures in network namespaces (needs root)")]
struct Arguments {
    /// Cases to make; all by default.
    cases: Vec<String>,

    /// Where to put the captures.
    #[arg(long, default_value = "capture/tests/golden", value_name = "DIRECTORY")]
    directory: PathBuf,

    /// Say which cases there are.
    #[arg(long)]
    list: bool,

    /// Derive the records from the events instead, of the captures that are there.
    #[arg(long, conflicts_with_all = ["cases", "list"])]
    derive: bool,
}

fn main() -> ExitCode {
    ended(make(&Arguments::parse()))
}

fn make(arguments: &Arguments) -> Result<()> {
    if arguments.derive {
        return derive(&arguments.directory);
    }
    if arguments.list {
        cases().for_each(|case| println!("{}", case.name));
        return Ok(());
    }
    if let Some(name) = arguments.cases.iter().find(|name| !cases().any(|case| case.name == **name))
    {
        bail!("there is no case {name}: --list names them");
    }
    let directory = std::path::absolute(&arguments.directory)?;
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let wanted = |case: &Case| {
        arguments.cases.is_empty() || arguments.cases.iter().any(|name| name == case.name)
    };
    // Each has namespaces of its own, and most of their time is waiting.
    thread::scope(|scope| {
        let making: Vec<_> = cases()
            .filter(wanted)
            .map(|case| {
                let directory = &directory;
                scope.spawn(move || {
                    let made = case.make(directory);
                    println!("{}: {}", case.name, if made.is_ok() { "made" } else { "failed" });
                    made
                })
            })
            .collect();
        let failed: Vec<_> = making
            .into_iter()
            .filter_map(|case| match case.join() {
                Ok(made) => made.err(),
                Err(_) => Some(anyhow!("a case ended early")),
            })
            .map(|error| format!("{error:#}"))
            .collect();
        match failed.is_empty() {
            true => Ok(()),
            false => bail!("{}", failed.join("\n")),
        }
    })
}
