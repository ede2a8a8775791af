//! The stage where people will be asked. Today policy that asks does not load, so what is decided is granted.

use crate::{
    pipeline::Decided,
    stop::{Stage, Stop},
    trail::{Facts, Noted},
};

/// A decided call that nobody has to be asked about any more.
#[must_use]
pub(crate) struct Granted {
    pub(crate) decided: Box<Decided>,
    _made: (),
}

impl Noted for Granted {
    const STAGE: Stage = Stage::Settle;

    fn note(&self, _: &mut Facts) {}
}

/// Grants what policy allows. `ask` is refused when policy is loaded, and an obligation nobody fulfils is refused here.
#[expect(clippy::unnecessary_wraps, reason = "a stage can say no; this one will when people are asked")]
pub(crate) fn settle(decided: Box<Decided>) -> Result<Granted, Stop> {
    match decided.permit.obligations() {
        [] => Ok(Granted { decided, _made: () }),
        [obligation, ..] => match *obligation {},
    }
}
