//! The program that stands between clients, gateway and servers, and judges what they say. See `xtask/witness`.

use super::roster::{Place, Server};
use crate::{
    process::{self, program},
    world,
};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::json;
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Stdio},
};

pub(super) struct Witness {
    child: Child,
    input: ChildStdin,
    binary: PathBuf,
    addresses: Addresses,
}

/// Where it wants to be spoken to.
#[derive(Deserialize)]
struct Addresses {
    /// By those who stand between pipes.
    pipes: SocketAddr,
    /// By the client of each place.
    doors: Vec<SocketAddr>,
    /// By the gateway, in place of each server that listens.
    servers: Vec<Option<SocketAddr>>,
}

impl Witness {
    /// Starts it for these places, and these servers with where they listen.
    pub(super) fn start(
        root: &Path,
        gateway: SocketAddr,
        places: &[Place],
        servers: &[(&Server, Option<SocketAddr>)],
        is_whole: bool,
    ) -> Result<Self> {
        process::succeed(process::cargo(root).args(["build", "--quiet", "--package", "witness"]))?;
        let binary = world::target(root).join("debug/witness");
        let cell = |place: &Place| {
            let (name, client, server) = (place.words(), place.agent(), place.server.key);
            json!({"name": name, "client": client, "server": server, "is_piped": place.client.way == "stdio"})
        };
        let server =
            |(server, address): &(&Server, Option<SocketAddr>)| json!({"name": server.key, "address": address});
        let plan = json!({
            "gateway": gateway,
            "cells": places.iter().map(cell).collect::<Vec<_>>(),
            "servers": servers.iter().map(server).collect::<Vec<_>>(),
            "is_whole": is_whole,
        });
        let mut child = program(&binary).arg("watch").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut input = child.stdin.take().context("the witness has no input")?;
        writeln!(input, "{plan}")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("the witness has no output")?).read_line(&mut line)?;
        let addresses = serde_json::from_str(&line).context("the witness does not say where it listens")?;
        Ok(Self { child, input, binary, addresses })
    }

    /// Where the client of the place with this number finds its door.
    pub(super) fn door(&self, place: usize) -> Result<SocketAddr> {
        self.addresses.doors.get(place).copied().context("a place that the witness does not know")
    }

    /// Where the gateway finds the server with this number.
    pub(super) fn server(&self, number: usize) -> Option<SocketAddr> {
        self.addresses.servers.get(number).copied().flatten()
    }

    /// What the gateway starts in place of a server.
    pub(super) fn process(&self, server: &Server, words: &[String]) -> Vec<String> {
        let binary = self.binary.to_string_lossy().into_owned();
        let to = self.addresses.pipes.to_string();
        let own = ["pipe", "--to", &to, "--leg", server.key, "--"].map(str::to_owned);
        [binary].into_iter().chain(own).chain(words.iter().cloned()).collect()
    }

    /// Writes what clients start in place of `durward`; the second word says for which door.
    pub(super) fn connector(&self, folder: &Path, durward: &Path) -> Result<PathBuf> {
        let path = folder.join("connect");
        let (binary, to) = (self.binary.display(), self.addresses.pipes);
        let text =
            format!("#!/bin/sh\nexec '{binary}' pipe --to {to} --leg \"$2\" -- '{}' \"$@\"\n", durward.display());
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// Ends it. It prints what it heard, and whether all of that was valid.
    pub(super) fn judge(self) -> Result<()> {
        let Self { mut child, input, .. } = self;
        drop(input);
        if !child.wait()?.success() {
            bail!("not everything that was said is what its revision says");
        }
        Ok(())
    }
}
