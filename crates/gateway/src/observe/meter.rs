//! Instruments and what they have counted so far. Every label that anybody outside can choose is bounded.
//!
//! Knows nothing of calls. Holds no lock and reads no clock.

use foldhash::quality::RandomState;
use std::{
    collections::{HashMap, HashSet},
    hash::BuildHasher,
};

/// What stands for everything beyond the bound of a label.
pub const OTHER: &str = "other";
/// The longest label value that is taken as it is.
const LONGEST: usize = 128;

/// One metric: its name, what it says, and what it is divided by. Names and labels are written as OpenTelemetry
/// writes them; their Prometheus form follows from that.
#[derive(Debug)]
pub struct Instrument {
    /// `durward.calls`.
    pub name: &'static str,
    /// `s`, `By`, or nothing for plain counts.
    pub unit: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// The labels, in the order of their values.
    pub labels: &'static [&'static str],
    /// What it says, in one sentence.
    pub help: &'static str,
}

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// What is now.
    Gauge,
    /// A distribution over buckets with these upper bounds.
    Histogram(&'static [f64]),
}

/// The value of one series.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Of a counter.
    Count(u64),
    /// Of a gauge.
    Level(f64),
    /// Of a histogram: observations per bucket, the last one beyond all bounds, and their sum.
    Spread {
        /// Observations per bucket, not cumulated.
        counts: Vec<u64>,
        /// The sum of what was observed.
        sum: f64,
    },
}

/// One series: the values of the labels, in the order of the instrument's, and the value. An empty label is absent.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Label values.
    pub labels: Box<[Box<str>]>,
    /// The value.
    pub value: Value,
}

/// A metric with all its series.
#[derive(Debug, Clone)]
pub struct Family {
    /// The metric.
    pub instrument: &'static Instrument,
    /// Its series.
    pub series: Vec<Series>,
}

impl Family {
    /// A metric that is read off, not counted.
    pub fn read<const N: usize>(
        instrument: &'static Instrument,
        values: impl IntoIterator<Item = ([&'static str; N], u64)>,
    ) -> Self {
        let series = values.into_iter().map(|(labels, value)| Series {
            labels: labels.iter().map(|label| Box::from(*label)).collect(),
            value: match instrument.kind {
                Kind::Counter => Value::Count(value),
                Kind::Gauge | Kind::Histogram(_) => Value::Level(level(value)),
            },
        });
        Self { instrument, series: series.collect() }
    }

    /// In an order that does not change from one reading to the next.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.series.sort_by(|one, other| one.labels.cmp(&other.labels));
        self
    }
}

/// A count as a level. Exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "levels are not read to the last digit")]
pub const fn level(count: u64) -> f64 {
    count as f64
}

/// Counts one metric.
#[derive(Debug)]
pub struct Counted {
    instrument: &'static Instrument,
    hasher: RandomState,
    /// Where in `series` those with a hash are.
    places: HashMap<u64, usize, RandomState>,
    series: Vec<Series>,
    /// The place that was counted last: calls that are alike often follow each other.
    last: usize,
}

impl Counted {
    /// Nothing counted yet.
    pub fn new(instrument: &'static Instrument) -> Self {
        Self { instrument, hasher: RandomState::default(), places: HashMap::default(), series: Vec::new(), last: 0 }
    }

    /// Counts one more.
    pub fn count(&mut self, labels: &[&str]) {
        if let Some(Value::Count(count)) = self.at(labels) {
            *count += 1;
        }
    }

    /// Observes a duration.
    pub fn observe(&mut self, labels: &[&str], seconds: f64) {
        let kind = self.instrument.kind;
        if let Some(value) = self.at(labels) {
            value.observe(kind, seconds);
        }
    }

    /// What was counted so far.
    pub fn family(&self) -> Family {
        Family { instrument: self.instrument, series: self.series.clone() }.sorted()
    }

    /// The value of a series, begun where it is new. Looking one up allocates nothing.
    fn at(&mut self, labels: &[&str]) -> Option<&mut Value> {
        if !self.is_at(self.last, labels) {
            self.last = self.find(labels);
        }
        self.series.get_mut(self.last).map(|series| &mut series.value)
    }

    fn is_at(&self, place: usize, labels: &[&str]) -> bool {
        self.series.get(place).is_some_and(|series| same(&series.labels, labels))
    }

    fn find(&mut self, labels: &[&str]) -> usize {
        let mut hash = self.hasher.hash_one(labels);
        while let Some(&place) = self.places.get(&hash) {
            if self.is_at(place, labels) {
                return place;
            }
            // Two label sets with one hash live side by side.
            hash = hash.wrapping_add(1);
        }
        let place = self.series.len();
        self.places.insert(hash, place);
        let labels = labels.iter().map(|label| Box::from(*label)).collect();
        self.series.push(Series { labels, value: zero(self.instrument.kind) });
        place
    }
}

/// Counts one metric with one label whose values are known: nothing is looked up.
#[derive(Debug)]
pub struct Fixed<const N: usize> {
    instrument: &'static Instrument,
    series: [(&'static str, Value); N],
}

impl<const N: usize> Fixed<N> {
    /// Nothing counted yet, for each of these values.
    pub fn new(instrument: &'static Instrument, values: [&'static str; N]) -> Self {
        Self { instrument, series: values.map(|value| (value, zero(instrument.kind))) }
    }

    /// Observes a duration in the series of the value at `place`.
    pub fn observe(&mut self, place: usize, seconds: f64) {
        if let Some((_, value)) = self.series.get_mut(place) {
            value.observe(self.instrument.kind, seconds);
        }
    }

    /// What was counted so far. A series of nothing is left out.
    pub fn family(&self) -> Family {
        let begun = self.series.iter().filter(|(_, value)| *value != zero(self.instrument.kind));
        let series = begun.map(|(label, value)| Series { labels: [Box::from(*label)].into(), value: value.clone() });
        Family { instrument: self.instrument, series: series.collect() }.sorted()
    }
}

impl Value {
    /// Adds a duration to a spread of this kind.
    fn observe(&mut self, kind: Kind, seconds: f64) {
        if let (Self::Spread { counts, sum }, Kind::Histogram(bounds)) = (self, kind) {
            let bucket = bounds.partition_point(|bound| *bound < seconds);
            if let Some(count) = counts.get_mut(bucket) {
                *count += 1;
            }
            *sum += seconds;
        }
    }
}

fn same(known: &[Box<str>], labels: &[&str]) -> bool {
    known.len() == labels.len() && known.iter().zip(labels).all(|(known, label)| **known == **label)
}

fn zero(kind: Kind) -> Value {
    match kind {
        Kind::Counter => Value::Count(0),
        Kind::Gauge => Value::Level(0.0),
        Kind::Histogram(bounds) => Value::Spread { counts: vec![0; bounds.len() + 1], sum: 0.0 },
    }
}

/// The values that a label may have: the first ones that come, up to a bound.
#[derive(Debug)]
pub struct Names {
    most: usize,
    hasher: RandomState,
    known: HashSet<u64, RandomState>,
}

impl Names {
    /// A label with at most `most` values, and [`OTHER`].
    pub fn new(most: usize) -> Self {
        Self { most, hasher: RandomState::default(), known: HashSet::default() }
    }

    /// The value, or [`OTHER`] beyond the bound. `within` names what it belongs to: the same name on two servers is two.
    pub fn bound<'a>(&mut self, within: &str, value: &'a str) -> &'a str {
        if value.is_empty() {
            return value;
        }
        let key = self.hasher.hash_one((within, value));
        let room = self.known.len() < self.most && value.len() <= LONGEST;
        if self.known.contains(&key) || (room && self.known.insert(key)) { value } else { OTHER }
    }
}
