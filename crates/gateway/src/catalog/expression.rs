//! The patterns of a schema, and how much text they may be held against.
//!
//! They run on an engine that never goes back, yet one whose automaton is large takes as long for each byte. So each has a
//! size, and what one validation may spend is bounded: text times size.

use jsonschema::{Keyword, PatternOptions, ValidationError, Validator};
use serde_json::{Map, Value};
use std::{cell::Cell, collections::HashMap, sync::Arc};

/// The sizes that a pattern can have, in KiB.
const SIZES: [u64; 7] = [1, 4, 16, 64, 256, 1_024, 4_096];
/// All patterns of a schema together, in KiB.
const TOTAL: u64 = 8_192;
/// Bytes of text, times KiB of pattern, for one look at arguments.
pub(super) const BUDGET: u64 = 16 << 20;

thread_local! {
    /// What is left of the budget of the validation that runs.
    static LEFT: Cell<u64> = const { Cell::new(BUDGET) };
}

/// The patterns of one schema.
#[derive(Default)]
pub(super) struct Expressions {
    known: HashMap<Box<str>, (Arc<Validator>, u64)>,
    total: u64,
}

impl Expressions {
    /// Takes up a pattern and says its size. What is no pattern at all is left to the compiler, which refuses the schema.
    pub(super) fn add(&mut self, pattern: &str) -> Result<u64, String> {
        if let Some((_, size)) = self.known.get(pattern) {
            return Ok(*size);
        }
        let schema = Value::Object(Map::from_iter([("pattern".to_owned(), Value::from(pattern))]));
        let fits = |size: &u64| {
            let limit = usize::try_from(size << 10).ok()?;
            let options =
                jsonschema::options().with_pattern_options(PatternOptions::regex().size_limit(limit)).offline();
            Some((Arc::new(options.build(&schema).ok()?), *size))
        };
        let Some((validator, size)) = SIZES.iter().find_map(fits) else {
            let begin: String = pattern.chars().take(64).collect();
            return Err(format!("its pattern {begin:?} is none of the linear engine, or larger than 4 MiB compiled"));
        };
        self.total += size;
        if self.total > TOTAL {
            return Err("its patterns are larger than 8 MiB compiled".to_owned());
        }
        self.known.insert(pattern.into(), (validator, size));
        Ok(size)
    }

    /// The pattern for the validator of the whole schema.
    pub(super) fn keyword<'s>(&self, pattern: &'s Value) -> Result<Box<dyn for<'v> Keyword<'v>>, ValidationError<'s>> {
        let known = pattern.as_str().and_then(|pattern| self.known.get(pattern));
        let (validator, size) = known.ok_or_else(|| ValidationError::custom("this is not a pattern"))?;
        Ok(Box::new(Expression { validator: Arc::clone(validator), size: *size }))
    }
}

/// A pattern that takes of the budget what it costs.
struct Expression {
    validator: Arc<Validator>,
    size: u64,
}

impl Expression {
    fn pays(&self, value: &Value) -> bool {
        let cost = value.as_str().map_or(0, |text| (text.len() as u64).saturating_mul(self.size));
        LEFT.with(|left| {
            let enough = cost <= left.get();
            left.set(if enough { left.get() - cost } else { 0 });
            enough
        })
    }
}

impl<'v> Keyword<'v> for Expression {
    fn validate(&self, value: &'v Value) -> Result<(), ValidationError<'v>> {
        // This sentence is for nobody: a validation that ran out is not believed.
        if self.pays(value) { self.validator.validate(value) } else { Err(ValidationError::custom("too much text")) }
    }

    fn is_valid(&self, value: &'v Value) -> bool {
        self.pays(value) && self.validator.is_valid(value)
    }
}

/// Runs a validation with a budget of its own. `None` if it ran out: then nothing that it said is worth anything.
pub(super) fn spending<T>(work: impl FnOnce() -> T) -> Option<T> {
    LEFT.with(|left| left.set(BUDGET));
    let said = work();
    LEFT.with(|left| left.get() > 0).then_some(said)
}
