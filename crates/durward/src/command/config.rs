//! `durward config` and `durward completions`

use super::{office, print};
use crate::{
    cli::{Cli, ConfigCommand, Exit, Shared},
    config,
};
use anyhow::{Result, bail};
use clap::CommandFactory as _;
use std::path::absolute;

pub(crate) fn run(shared: &Shared, command: &ConfigCommand) -> Result<Exit> {
    match command {
        ConfigCommand::Schema => print::json(&config::schema::schema())?,
        ConfigCommand::Show => {
            let Some(file) = config::find(shared.config.as_deref()) else {
                bail!("there is no {}; `durward init` writes one to start from", config::USUAL_FILE);
            };
            // Its paths are shown from the root, which is where they lie wherever the file is read from.
            let mut loaded = office::loaded(config::load(&absolute(file)?))?;
            if let Some(data) = &shared.data {
                loaded.settings.data = absolute(data)?;
            }
            print::data(&print::escaped(&config::show::text(&loaded.settings)?))?;
        }
    }
    Ok(Exit::Done)
}

pub(crate) fn completions(shell: clap_complete::Shell) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "durward", &mut script);
    print::data(&String::from_utf8(script)?)?;
    Ok(Exit::Done)
}
