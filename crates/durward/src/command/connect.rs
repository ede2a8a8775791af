//! `durward connect`: an MCP server on standard input and output that is, in truth, a gateway elsewhere.
//!
//! For clients that speak nothing but stdio, in either era. Messages pass as the bytes they are; stdout carries nothing
//! else. Judges nothing: who may do what is the gateway's to say.
//!
//! Read in this order: [`take`] (what a line of the client's leads to), [`carry`] (how it travels and what comes back),
//! [`session`] (what it takes to begin again), [`stead`] (what is asked in the client's place), [`follow`] (what the gateway
//! says unasked).

mod bridge;
mod carry;
mod credential;
mod errand;
mod failure;
mod follow;
mod gap;
mod keyring;
mod line;
mod mirror;
mod post;
mod question;
mod session;
mod speak;
mod stead;
mod stream;
mod take;
mod tell;

use super::{print::say, prompt};
use crate::cli::{ConnectCommand, Exit};
use anyhow::{Context, Result};
use bridge::Bridge;
use credential::{Credential, Source};
use egress::{Egress, Endpoint, Roots};
use failure::Failure;
use keyring::Keyring;
use std::{path::Path, sync::Arc, time::Duration};
use take::Intake;
use tell::Tell;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use vocab::Secret;

/// How long requests may still be answered after the client has ended its input. Clients that want to leave sooner send a
/// signal.
const LINGER: Duration = Duration::from_secs(5);
/// How long the gateway may take to hear that the session ends.
const FAREWELL: Duration = Duration::from_millis(500);

/// Why it ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client wants nothing more.
    Input,
    /// Somebody said so, or nobody reads any more.
    Now,
}

/// Carries messages until the client ends its input, or a signal comes.
pub(crate) async fn run(command: &ConnectCommand) -> Result<Exit> {
    if let Some(why) = command.contradiction() {
        say(&format!("durward: {why}"));
        return Ok(Exit::Usage);
    }
    if let Some(name) = command.keyring.as_ref().filter(|_| command.save || command.forget) {
        return keep(&Keyring::new(command.gateway(), name), command.save).await;
    }
    let credential = Credential::find(Source::of(command)).await?;
    // Whoever types an address means it, wherever it is. Addresses that nobody may dial stay closed.
    let roots = command.ca_file.as_deref().map(roots).transpose()?;
    let endpoint = Endpoint::new(&command.url, true, roots.as_ref())?;
    let endpoint = match &command.socket {
        Some(path) => endpoint.through(path)?,
        None => endpoint,
    };
    let egress = Egress::new(egress::Settings::default())?;
    let tell = Tell::new(&command.url, command.socket.as_deref(), credential.header().is_some());
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut lines = line::from_stdin().context("standard input cannot be read")?;
    let (voice, written) = speak::to_stdout().context("standard output cannot be written")?;

    let bridge = Arc::new(Bridge::new(egress, endpoint, credential, tell, voice.clone()));
    let mut intake = Intake::new(Arc::clone(&bridge));
    let following = tokio::spawn(follow::follow(Arc::clone(&bridge)));
    let carrying = async {
        while let Some(line) = lines.recv().await {
            intake.take(line).await;
        }
    };
    let end = tokio::select! {
        () = carrying => End::Input,
        () = voice.gone() => End::Now,
        _ = terminate.recv() => End::Now,
        _ = interrupt.recv() => End::Now,
    };

    if end == End::Input {
        let told = async {
            tokio::select! {
                () = bridge.errands.settled() => {}
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        // Whatever is not answered by then is told so.
        let _ = timeout(LINGER, told).await;
    }
    following.abort();
    close(&bridge).await;
    written.all(&voice).await;
    Ok(bridge.tell.exit())
}

/// Puts a key into the keyring, or takes it out.
async fn keep(keyring: &Keyring, save: bool) -> Result<Exit> {
    let place = keyring.place();
    if save {
        let given = prompt::secret("key or token")?;
        let key = Secret::new(credential::word(&given)?.to_owned());
        keyring.keep(&key).await?;
        say(&format!("durward: {place} is in the keyring"));
    } else {
        keyring.forget().await?;
        say(&format!("durward: {place} is no longer in the keyring; `durward agent key revoke ID` makes it useless"));
    }
    Ok(Exit::Done)
}

/// Whom to trust instead of the system's authorities.
fn roots(path: &Path) -> Result<Roots> {
    let here = || format!("`--ca-file {}`", path.display());
    Roots::from_pem(&std::fs::read(path).with_context(here)?).with_context(here)
}

/// Ends every request and the session.
async fn close(bridge: &Bridge) {
    for errand in bridge.errands.all() {
        if bridge.errands.close(&errand) {
            let what = "the client ended its input before the gateway answered".to_owned();
            let failure = Failure::Lost { what, may_have_happened: true };
            // A client that does not read any more holds up nothing.
            let _ = timeout(FAREWELL, bridge.voice.say(failure.answer(errand.id()))).await;
        }
    }
    bridge.leave(FAREWELL).await;
}
