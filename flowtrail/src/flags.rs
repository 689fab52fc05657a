//! The tables of flags in README.md and docs/configuration.md, made from what `--help` says:
//! `UPDATE_GOLDEN=1 cargo test --workspace --bin flowtrail flags`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use clap::{Arg, Command, CommandFactory};

use super::Cli;

const BEGIN: &str = "<!-- flags: made from --help, see flowtrail/src/flags.rs -->\n";
const END: &str = "<!-- end of flags -->\n";

/// Flags with the same name, variable and default are one, of several commands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flag {
    name: String,
    value: String,
    variable: String,
    default: String,
    help: String,
}

/// By heading, in the order of `--help`, the flags and the commands that have them.
#[derive(Default)]
struct Flags {
    headings: Vec<String>,
    of: BTreeMap<String, Vec<(Flag, BTreeSet<String>)>>,
}

impl Flags {
    fn all() -> Self {
        let mut flags = Self::default();
        let cli = Cli::command();
        flags.add("", &cli);
        for command in cli.get_subcommands() {
            flags.add(command.get_name(), command);
            for action in command.get_subcommands() {
                flags.add(&format!("{} {}", command.get_name(), action.get_name()), action);
            }
        }
        flags
    }

    fn add(&mut self, command: &str, arguments: &Command) {
        for argument in arguments.get_arguments() {
            let Some(flag) = flag(argument) else { continue };
            let command = if argument.is_global_set() { "all" } else { command };
            let heading = argument.get_help_heading().unwrap_or("Options").to_owned();
            let known = self.of.entry(heading.clone()).or_insert_with(|| {
                self.headings.push(heading);
                Vec::new()
            });
            match known.iter_mut().find(|(other, _)| *other == flag) {
                Some((_, commands)) => drop(commands.insert(command.to_owned())),
                None => known.push((flag, [command.to_owned()].into())),
            }
        }
    }

    /// A line for each heading: what README.md has.
    fn overview(&self) -> String {
        let mut table = "| | commands | flags |\n|---|---|---|\n".to_owned();
        for heading in &self.headings {
            let flags = &self.of[heading];
            let names: Vec<_> = flags.iter().map(|(flag, _)| format!("`{}`", flag.name)).collect();
            let commands: BTreeSet<_> = flags.iter().flat_map(|(_, commands)| commands).collect();
            let commands: Vec<_> = commands.into_iter().cloned().collect();
            let (commands, names) = (commands.join(", "), names.join(" "));
            writeln!(table, "| **{heading}** | {commands} | {names} |").unwrap();
        }
        table
    }

    /// A table for each heading.
    fn tables(&self) -> String {
        let mut tables = String::new();
        for heading in &self.headings {
            writeln!(tables, "## {heading}\n").unwrap();
            tables += "| flag | variable | default | commands | |\n|---|---|---|---|---|\n";
            for (Flag { name, value, variable, default, help }, commands) in &self.of[heading] {
                let commands: Vec<_> = commands.iter().cloned().collect();
                let default = if default.is_empty() { "" } else { &format!("`{default}`") };
                let flag = format!("{name} {value}");
                writeln!(
                    tables,
                    "| `{}` | `{variable}` | {default} | {} | {help} |",
                    flag.trim_end(),
                    commands.join(", ")
                )
                .unwrap();
            }
            tables.push('\n');
        }
        tables
    }
}

/// `None` of what has no name, and of `--help` and `--version`.
fn flag(argument: &Arg) -> Option<Flag> {
    let (long, variable) = (argument.get_long()?, argument.get_env()?);
    let value = |name: &clap::builder::Str| format!("<{name}>");
    let takes_values = argument.get_action().takes_values();
    let names = argument.get_value_names().filter(|_| takes_values).unwrap_or_default();
    let possible: Vec<_> = argument
        .get_possible_values()
        .iter()
        .filter(|_| takes_values)
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    let default: Vec<_> = argument
        .get_default_values()
        .iter()
        .filter(|_| takes_values)
        .map(|value| value.to_string_lossy())
        .collect();
    let help = argument.get_long_help().or(argument.get_help()).map(ToString::to_string);
    // A cell is a line, and a `|` ends it.
    let help = help.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    let mut help = help.replace('|', "\\|").replace('<', "&lt;");
    if !possible.is_empty() {
        write!(help, ": {}", possible.join(", ")).unwrap();
    }
    Some(Flag {
        name: format!("--{long}"),
        value: names.iter().map(value).collect::<Vec<_>>().join(" "),
        variable: variable.to_string_lossy().into_owned(),
        default: default.join(","),
        help,
    })
}

/// What is between the marks of a file is what is expected, or becomes it if that is asked for.
fn holds(path: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (found, after) = rest.split_once(END).unwrap();
    let expected = format!("\n{}\n", expected.trim_end());
    let expected = format!("{expected}\n");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
        return;
    }
    assert!(
        found == expected,
        "{} is not what --help says: UPDATE_GOLDEN=1 cargo test --workspace --bin flowtrail flags",
        path.display()
    );
}

#[test]
fn the_documents_have_the_flags() {
    let flags = Flags::all();
    holds("README.md", &flags.overview());
    holds("docs/configuration.md", &flags.tables());
}
