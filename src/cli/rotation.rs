//! `vestibule rotate-secret`: the file form of the session's secrets.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use vestibule::config::{self, Rotation, SecretFileError};

use super::{CONFIGURATION, fail, plural, print};

#[derive(Debug, Args)]
pub(super) struct Command {
    /// The file of session.secret_file or SESSION_SECRET_FILE
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Adds the new secret after the first, which goes on sealing: for the first of two steps with several replicas
    #[arg(long, conflicts_with_all = ["promote", "retire"])]
    second: bool,
    /// Makes the second secret the first, and adds none: the other step
    #[arg(long, conflicts_with = "retire")]
    promote: bool,
    /// Drops the last secrets, and adds none: what is sealed with them is a new sign-in
    #[arg(long)]
    retire: bool,
    /// How many of the first --retire keeps
    #[arg(long, value_name = "N", requires = "retire", default_value = "2", value_parser = clap::value_parser!(u8).range(1..))]
    keep: u8,
}

pub(super) fn run(command: &Command) -> ExitCode {
    let rotation = match command {
        Command { retire: true, keep, .. } => Rotation::Keep(usize::from(*keep)),
        Command { promote: true, .. } => Rotation::Promote,
        Command { second: true, .. } => Rotation::Second,
        _ => Rotation::First,
    };
    match config::rotate(&command.file, rotation) {
        Ok(count) => {
            let count = plural(count, "secret");
            print(&format!("{} holds {count}: the first seals, all open\n", command.file.display()))
        }
        Err(error @ SecretFileError::Contents { .. }) => {
            let _ = fail(&error);
            ExitCode::from(CONFIGURATION)
        }
        Err(error) => fail(&error),
    }
}
