//! What conditions read: the question as CEL values, made when first read and lent after that.
//!
//! Texts are borrowed from the question, never copied. Decides nothing.

use crate::{Question, Resource, Subject};
use cel::{
    common::{
        types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt},
        value::{CowVal, Val},
    },
    context::VariableResolver,
};
use jiff::tz::TimeZone;
use serde_json::Value;
use std::{collections::HashMap, sync::OnceLock};
use vocab::{Finding, Side, Timestamp};

/// The variables that a condition may name.
pub(crate) const VARIABLES: [&str; 5] = ["args", "principal", "target", "findings", "now"];

/// The members of `principal`.
pub(crate) const PRINCIPAL: [&str; 7] = ["agent", "user", "tenant", "roles", "groups", "scopes", "environments"];

/// The members of `target`.
pub(crate) const TARGET: [&str; 5] = ["server", "name", "environment", "class", "labels"];

type Boxed<'a> = Box<dyn Val + 'a>;

/// The facts of one question, or of a subject and a resource when nobody calls yet.
pub(crate) struct Facts<'a> {
    subject: &'a Subject,
    resource: &'a Resource,
    call: Option<Call<'a>>,
    arguments: OnceLock<Boxed<'a>>,
    principal: OnceLock<Boxed<'a>>,
    target: OnceLock<Boxed<'a>>,
    findings: OnceLock<Boxed<'a>>,
    now: OnceLock<Boxed<'a>>,
}

/// What is only known when a call is made.
#[derive(Clone, Copy)]
struct Call<'a> {
    arguments: &'a Value,
    findings: &'a [Finding],
    now: Timestamp,
}

impl<'a> Facts<'a> {
    /// The facts of a call.
    pub(crate) fn of(question: &Question<'a>) -> Self {
        let call = Call { arguments: question.arguments, findings: question.findings, now: question.now };
        Self { call: Some(call), ..Self::standing(question.subject, question.resource) }
    }

    /// The facts that hold before any call.
    pub(crate) fn standing(subject: &'a Subject, resource: &'a Resource) -> Self {
        Self {
            subject,
            resource,
            call: None,
            arguments: OnceLock::new(),
            principal: OnceLock::new(),
            target: OnceLock::new(),
            findings: OnceLock::new(),
            now: OnceLock::new(),
        }
    }

    /// The arguments, when there is a call.
    pub(crate) fn arguments(&self) -> Option<&'a Value> {
        self.call.map(|call| call.arguments)
    }

    /// The length of the longest list besides those of the arguments.
    pub(crate) fn longest_list(&self) -> usize {
        let Subject { roles, groups, scopes, environments, .. } = self.subject;
        let findings = self.call.map_or(0, |call| call.findings.len());
        [roles.len(), groups.len(), scopes.len(), environments.len(), self.resource.labels.len(), findings]
            .into_iter()
            .fold(0, usize::max)
    }

    fn variable(&self, name: &str) -> Option<&(dyn Val + 'a)> {
        let value = match name {
            "args" => {
                let call = self.call?;
                self.arguments.get_or_init(|| match call.arguments {
                    // Arguments that are not there are no arguments.
                    Value::Null => map([]),
                    arguments => json(arguments),
                })
            }
            "findings" => {
                let call = self.call?;
                self.findings.get_or_init(|| list(call.findings.iter().map(finding)))
            }
            "now" => {
                let call = self.call?;
                self.now.get_or_init(|| Box::new(CelInt::from(call.now.as_seconds())))
            }
            "principal" => self.principal.get_or_init(|| principal(self.subject)),
            "target" => self.target.get_or_init(|| target(self.resource)),
            _ => return None,
        };
        Some(value.as_ref())
    }
}

/// The variables of one condition: the facts and its own readings of the clock.
pub(crate) struct Names<'f, 'a> {
    pub(crate) facts: &'f Facts<'a>,
    pub(crate) clocks: &'f [Clock],
}

impl VariableResolver for Names<'_, '_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        match variable.strip_prefix(CLOCK) {
            Some(at) => {
                let clock = self.clocks.get(at.parse::<usize>().ok()?)?;
                clock.read(self.facts.call?.now)
            }
            None => self.facts.variable(variable).map(CowVal::Borrowed),
        }
    }
}

/// What the name of a clock reading begins with; a number follows. No expression can be written to name it.
pub(crate) const CLOCK: &str = "@clock";

/// A reading of the clock on the wall of some place.
#[derive(Debug)]
pub(crate) struct Clock {
    hand: Hand,
    zone: TimeZone,
}

/// What is read from it.
#[derive(Debug, Clone, Copy)]
enum Hand {
    Hour,
    Minute,
    Weekday,
    Date,
}

impl Clock {
    /// The functions that read a clock.
    pub(crate) const FUNCTIONS: [&str; 4] = ["hour", "minute", "weekday", "date"];

    /// A reading of `function`; none if it does not read a clock.
    pub(crate) fn new(function: &str, zone: TimeZone) -> Option<Self> {
        let hand = match function {
            "hour" => Hand::Hour,
            "minute" => Hand::Minute,
            "weekday" => Hand::Weekday,
            "date" => Hand::Date,
            _ => return None,
        };
        Some(Self { hand, zone })
    }

    fn read<'b>(&self, now: Timestamp) -> Option<CowVal<'b, 'b>> {
        let here = jiff::Timestamp::from_microsecond(now.as_micros()).ok()?.to_zoned(self.zone.clone());
        Some(match self.hand {
            Hand::Hour => number(here.hour()),
            Hand::Minute => number(here.minute()),
            Hand::Weekday => number(here.weekday().to_monday_one_offset()),
            Hand::Date => CowVal::owned(CelString::from(here.date().to_string())),
        })
    }
}

fn number<'b>(value: i8) -> CowVal<'b, 'b> {
    CowVal::owned(CelInt::from(i64::from(value)))
}

fn principal(subject: &Subject) -> Boxed<'_> {
    let id = &subject.id;
    let mut members = vec![
        ("agent", text(id.agent.as_str())),
        ("tenant", text(id.tenant.as_str())),
        ("roles", texts(subject.roles.iter().map(AsRef::as_ref))),
        ("groups", texts(subject.groups.iter().map(String::as_str))),
        ("scopes", texts(subject.scopes.iter().map(String::as_str))),
        ("environments", texts(subject.environments.iter().map(AsRef::as_ref))),
    ];
    members.extend(id.user.as_ref().map(|user| ("user", text(user.as_str()))));
    map(members)
}

fn target(resource: &Resource) -> Boxed<'_> {
    let mut members = vec![
        ("server", text(resource.id.server.as_str())),
        ("name", text(&resource.id.name)),
        ("class", text(resource.class.as_str())),
        ("labels", texts(resource.labels.iter().map(String::as_str))),
    ];
    members.extend(resource.environment.as_ref().map(|name| ("environment", text(name.as_str()))));
    map(members)
}

fn finding(finding: &Finding) -> Boxed<'_> {
    let side = match finding.side {
        Side::Arguments => "arguments",
        Side::Result => "result",
    };
    map([
        ("detector", text(&finding.detector)),
        ("kind", text(&finding.kind)),
        ("pointer", text(&finding.pointer)),
        ("side", text(side)),
    ])
}

fn json(value: &Value) -> Boxed<'_> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(value) => Box::new(CelBool::from(*value)),
        Value::Number(value) => match (value.as_i64(), value.as_u64()) {
            (Some(value), _) => Box::new(CelInt::from(value)),
            (None, Some(value)) => Box::new(CelUInt::from(value)),
            (None, None) => Box::new(CelDouble::from(value.as_f64().unwrap_or(f64::NAN))),
        },
        Value::String(value) => text(value),
        Value::Array(values) => list(values.iter().map(json)),
        Value::Object(members) => map(members.iter().map(|(name, value)| (name.as_str(), json(value)))),
    }
}

fn text(text: &str) -> Boxed<'_> {
    Box::new(CelString::from(text))
}

fn texts<'a>(texts: impl Iterator<Item = &'a str>) -> Boxed<'a> {
    list(texts.map(text))
}

fn list<'a>(values: impl Iterator<Item = Boxed<'a>>) -> Boxed<'a> {
    Box::new(CelList::from(values.collect::<Vec<_>>()))
}

fn map<'a>(members: impl IntoIterator<Item = (&'a str, Boxed<'a>)>) -> Boxed<'a> {
    let members: HashMap<CelMapKey<'a>, Boxed<'a>> =
        members.into_iter().map(|(name, value)| (CelMapKey::from(name), value)).collect();
    Box::new(CelMap::from(members))
}
