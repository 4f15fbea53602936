//! `lowrank completions`: a script for the shell to load.

use clap::CommandFactory;
use clap_complete::Shell;
use lowrank::{Error, Result};
use lowrank_cli::stdout;

use crate::args::Args;

/// Example: `lowrank completions bash > ~/.local/share/bash-completion/completions/lowrank`
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub fn run(&self) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Args::command(), "lowrank", &mut script);
        let script = String::from_utf8(script).map_err(|error| Error::Failed(error.to_string()))?;
        stdout::print(&script)
    }
}
