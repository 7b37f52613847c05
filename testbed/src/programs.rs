//! Where the programs of a RabbitMQ are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where Debian's package has them.
const DEBIAN: &str = "/usr/lib/rabbitmq/bin";
/// Names the folder of another RabbitMQ's programs: `sbin` of a generic Unix package, or what `scripts/rabbitmq-4` makes.
const VARIABLE: &str = "HAPAX_RABBITMQ";

/// The programs of one RabbitMQ and of its Erlang.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Programs {
    /// `rabbitmq-server`
    pub server: PathBuf,
    /// `rabbitmqctl`
    pub ctl: PathBuf,
    /// the port mapper
    pub epmd: PathBuf,
    /// calls a function in a node
    pub erl_call: PathBuf,
}

impl Programs {
    /// Finds those that the environment names, or else Debian's. The error is the path of a program that is not there.
    pub fn of_environment() -> Result<Programs, String> {
        Programs::of(std::env::var_os(VARIABLE))
    }

    fn of(folder: Option<OsString>) -> Result<Programs, String> {
        let folder = folder.map_or_else(|| PathBuf::from(DEBIAN), PathBuf::from);
        let needed = |program: &str| {
            let path = folder.join(program);
            if path.exists() { Ok(path) } else { Err(path.display().to_string()) }
        };
        Ok(Programs {
            server: needed("rabbitmq-server")?,
            ctl: needed("rabbitmqctl")?,
            epmd: beside_or_in_path(&folder, "epmd"),
            erl_call: beside_or_in_path(&folder, "erl_call"),
        })
    }
}

/// Erlang's programs lie beside RabbitMQ's if both come from another system, and are found by `PATH` otherwise.
fn beside_or_in_path(folder: &Path, program: &str) -> PathBuf {
    let beside = folder.join(program);
    if beside.exists() { beside } else { PathBuf::from(program) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Leash;
    use std::fs;

    #[test]
    fn a_folder_has_all_programs_or_those_of_rabbitmq() {
        let leash = Leash::new("programs").unwrap();
        let folder = leash.folder();
        let of = || Programs::of(Some(folder.into()));
        fs::write(folder.join("rabbitmq-server"), "").unwrap();
        assert_eq!(of(), Err(folder.join("rabbitmqctl").display().to_string()));
        fs::write(folder.join("rabbitmqctl"), "").unwrap();
        let programs = of().unwrap();
        assert_eq!((programs.server, programs.epmd), (folder.join("rabbitmq-server"), "epmd".into()));
        fs::write(folder.join("epmd"), "").unwrap();
        assert_eq!(of().unwrap().epmd, folder.join("epmd"));
    }
}
