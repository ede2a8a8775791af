//! Whether calls and their intents match.

use super::What;
use crate::{
    record::{Effect, Outline},
    tree::items,
};
use std::collections::HashMap;
use vocab::CallId;

/// Which intents exist, which are cited, which are open.
#[derive(Default)]
pub(super) struct Calls {
    pub(super) open: HashMap<CallId, u64>,
    intents: Bits,
}

impl Calls {
    /// Takes in what the record at `index` opens or closes.
    pub(super) fn follow(&mut self, index: u64, outline: &Outline) -> Result<(), (What, String)> {
        match outline.effect() {
            Effect::Opens(call) => {
                self.intents.set(index);
                self.open.insert(call, index);
            }
            Effect::Closes(call) => match (self.open.remove(&call), outline.record.intent) {
                (Some(opened), Some(cited)) if opened != cited => {
                    return Err((
                        What::MissingIntent,
                        format!("the call cites record {cited}, but its intent is {opened}"),
                    ));
                }
                (None, Some(cited)) if self.open.values().any(|opened| *opened == cited) => {
                    let explanation = format!("the call cites record {cited}, the intent of another call");
                    return Err((What::MissingIntent, explanation));
                }
                (None, Some(cited)) if self.intents.has(cited) => {
                    return Err((What::CitedTwice, format!("the intent at record {cited} was closed before")));
                }
                (None, Some(cited)) => {
                    return Err((What::MissingIntent, format!("the call cites record {cited}, which is no intent")));
                }
                (Some(_), _) | (None, None) => {}
            },
            Effect::None => {}
        }
        Ok(())
    }
}

/// A set of indexes: one bit each, so that millions of records fit.
#[derive(Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn set(&mut self, index: u64) {
        let word = items(index / 64);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= 1 << (index % 64);
        }
    }

    fn has(&self, index: u64) -> bool {
        self.0.get(items(index / 64)).is_some_and(|word| word & 1 << (index % 64) != 0)
    }
}
