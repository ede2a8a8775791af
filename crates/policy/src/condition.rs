//! Conditions in CEL: compiled once, evaluated with a bounded cost.
//!
//! Values are compared exactly as the server will see them once JSON is read: `\u0066` is `f`, `5.0` is `5`, but `Users`
//! is not `users` and `a%20b` is not `a b`. Whoever wants to ignore case or surrounding space says `lower()` or `trim()`;
//! better than denying what is bad is to allow what is good.
//!
//! A condition that cannot be evaluated is a failure of its own, never a `false`: [`crate::permit`] turns it into a no.

use crate::{
    fact::{Clock, Facts, Names},
    scan::{self, Scanned},
};
use cel::{
    Context, Env, ExecutionError, Value,
    common::{
        ast::{Expr, operators},
        types::{CelString, STRING_TYPE},
        value::CowVal,
    },
    parser::Expression,
};
use std::sync::{Arc, LazyLock};

/// The longest condition, in bytes.
pub(crate) const LONGEST: usize = 4096;

/// The most elements that a list or map may have where a condition goes through one.
const MOST_ELEMENTS: usize = 10_000;

/// The most work (elements times bytes) where going through one list reads the arguments again for each element.
const MOST_WORK: usize = 10_000_000;

/// A condition, ready to be asked.
#[derive(Debug)]
pub(crate) struct Condition {
    text: Arc<str>,
    expression: Expression,
    clocks: Vec<Clock>,
    scanned: Scanned,
}

/// What a condition says about a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Yes.
    Met,
    /// No.
    Unmet,
    /// Nobody can tell, and why. The text holds nothing from the arguments.
    Fails(Arc<str>),
}

/// What a condition could say about the calls a subject may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prospect {
    /// Yes to each.
    Always,
    /// No to each.
    Never,
    /// It depends on the call.
    Maybe,
    /// It fails for each.
    Fails,
}

/// Why a text is no condition, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConditionFault {
    pub(crate) cause: String,
    pub(crate) fix: String,
}

impl Condition {
    /// Compiles `text`, or says everything that is wrong with it.
    pub(crate) fn compile(text: &str) -> Result<Self, Vec<ConditionFault>> {
        let fault = |cause: String, fix: &str| vec![ConditionFault { cause, fix: fix.to_owned() }];
        if text.len() > LONGEST {
            let cause = format!("the condition is {} bytes long; at most {LONGEST} are allowed", text.len());
            return Err(fault(cause, "split the rule, or say it with `roles`, `labels` and `target`"));
        }
        let mut expression = ENVIRONMENT.parser().parse(text).map_err(|errors| {
            let said: Vec<String> = errors
                .errors
                .iter()
                .map(|error| format!("line {}, column {}: {}", error.pos.0, error.pos.1, error.msg))
                .collect();
            fault(format!("the condition is not CEL: {}", said.join("; ")), "see the guide to conditions")
        })?;
        let (scanned, clocks) = scan::scan(&mut expression)?;
        Ok(Self { text: Arc::from(text), expression, clocks, scanned })
    }

    /// What it reads.
    pub(crate) const fn scanned(&self) -> &Scanned {
        &self.scanned
    }

    /// What it says about a call.
    pub(crate) fn evaluate(&self, facts: &Facts<'_>) -> Outcome {
        if let Some(why) = self.too_much(facts) {
            return Outcome::Fails(Arc::from(why));
        }
        let names = Names { facts, clocks: &self.clocks };
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        context.set_variable_resolver(&names);
        match truth(&self.expression, &context) {
            Ok(true) => Outcome::Met,
            Ok(false) => Outcome::Unmet,
            Err(why) => Outcome::Fails(self.explain(&why)),
        }
    }

    /// What it could say about the calls of a subject, with only the standing facts known.
    pub(crate) fn prospect(&self, facts: &Facts<'_>) -> Prospect {
        let names = Names { facts, clocks: &self.clocks };
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        context.set_variable_resolver(&names);
        foresee(&self.expression, &context)
    }

    /// What it says if it names no variable at all.
    pub(crate) fn constant(&self) -> Prospect {
        foresee(&self.expression, &Context::with_env(Arc::clone(&ENVIRONMENT)))
    }

    /// Whether it reads what is only known when a call is made.
    pub(crate) fn reads_call(&self) -> bool {
        scan::needs_call(&self.expression)
    }

    /// Whether it reads the time.
    pub(crate) fn reads_clock(&self) -> bool {
        !self.clocks.is_empty() || self.scanned.reads.contains("now")
    }

    /// SECURITY: cel has no budget of its own; the sender of the arguments must not choose how long we think.
    fn too_much(&self, facts: &Facts<'_>) -> Option<&'static str> {
        if !self.scanned.loops {
            return None;
        }
        let mut size = Size::default();
        if let Some(arguments) = facts.arguments() {
            size.add(arguments);
        }
        let longest = size.longest.max(facts.longest_list());
        if longest > MOST_ELEMENTS {
            return Some("a list is too long for a condition that goes through one");
        }
        let again = size.bytes.saturating_add(facts.longest_list());
        if self.scanned.loop_reads_call && longest.saturating_mul(again) > MOST_WORK {
            return Some("the arguments are too large for a condition that reads them once for each element");
        }
        None
    }

    /// Says what failed without repeating what the caller sent: these words reach messages and records.
    fn explain(&self, failure: &Failure) -> Arc<str> {
        let text = match failure {
            Failure::NotBoolean => String::from("it does not yield true or false"),
            Failure::Execution(ExecutionError::NoSuchKey(key)) if self.text.contains(key.as_str()) => {
                format!("there is no `{key}`")
            }
            Failure::Execution(ExecutionError::NoSuchKey(_)) => String::from("a key is missing"),
            Failure::Execution(ExecutionError::IndexOutOfBounds(_)) => String::from("an index is out of bounds"),
            Failure::Execution(
                ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) | ExecutionError::Overflow(..),
            ) => String::from("a calculation has no result"),
            Failure::Execution(_) => String::from("a value has another type than the condition expects"),
        };
        Arc::from(text)
    }
}

/// What keeps an expression from being true or false.
enum Failure {
    NotBoolean,
    Execution(ExecutionError),
}

fn truth(expression: &Expression, context: &Context<'_, '_>) -> Result<bool, Failure> {
    match Value::resolve(expression, context) {
        Ok(Value::Bool(value)) => Ok(value),
        Ok(_) => Err(Failure::NotBoolean),
        Err(error) => Err(Failure::Execution(error)),
    }
}

/// Evaluates what stands before any call, and combines it with what does not as CEL would:
/// a false side decides `&&` and a true side decides `||`, whatever the other is.
fn foresee(expression: &Expression, context: &Context<'_, '_>) -> Prospect {
    if !scan::needs_call(expression) {
        return match truth(expression, context) {
            Ok(true) => Prospect::Always,
            Ok(false) => Prospect::Never,
            Err(_) => Prospect::Fails,
        };
    }
    let Expr::Call(call) = &expression.expr else { return Prospect::Maybe };
    match (call.func_name.as_str(), call.args.as_slice()) {
        (operators::LOGICAL_AND, [left, right]) => {
            combine(foresee(left, context), foresee(right, context), Prospect::Never, Prospect::Always)
        }
        (operators::LOGICAL_OR, [left, right]) => {
            combine(foresee(left, context), foresee(right, context), Prospect::Always, Prospect::Never)
        }
        (operators::LOGICAL_NOT, [inner]) => match foresee(inner, context) {
            Prospect::Always => Prospect::Never,
            Prospect::Never => Prospect::Always,
            other @ (Prospect::Maybe | Prospect::Fails) => other,
        },
        _ => Prospect::Maybe,
    }
}

fn combine(left: Prospect, right: Prospect, deciding: Prospect, neutral: Prospect) -> Prospect {
    if left == deciding || right == deciding {
        deciding
    } else if left == neutral {
        right
    } else if right == neutral || left == right {
        left
    } else {
        Prospect::Maybe
    }
}

/// How much there is to go through.
#[derive(Default)]
struct Size {
    longest: usize,
    bytes: usize,
}

impl Size {
    fn add(&mut self, value: &serde_json::Value) {
        self.bytes = self.bytes.saturating_add(1);
        match value {
            serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
            serde_json::Value::String(text) => self.bytes = self.bytes.saturating_add(text.len()),
            serde_json::Value::Array(values) => {
                self.longest = self.longest.max(values.len());
                for value in values {
                    self.add(value);
                }
            }
            serde_json::Value::Object(members) => {
                self.longest = self.longest.max(members.len());
                for (name, value) in members {
                    self.bytes = self.bytes.saturating_add(name.len());
                    self.add(value);
                }
            }
        }
    }
}

/// CEL's standard library without optional values, and the functions of [`TEXT_FUNCTIONS`].
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut environment = Env::stdlib().with_optional_support(false);
    for (name, function) in TEXT_FUNCTIONS {
        let declared =
            environment.add_overload(name, &format!("{name}_string"), vec![STRING_TYPE], function).and_then(|()| {
                environment.add_member_overload(name, &format!("string_{name}"), STRING_TYPE, vec![], function)
            });
        // INVARIANT: the standard library has no functions of these names; a test evaluates each of them.
        debug_assert!(declared.is_ok(), "`{name}` is declared twice");
    }
    Arc::new(environment)
});

type TextFunction = for<'b, 'v> fn(Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError>;

/// What CEL lacks: rules compare exactly, so whoever wants to ignore case or surrounding space says so.
pub(crate) const TEXT_FUNCTIONS: [(&str, TextFunction); 2] = [("lower", lower), ("trim", trim)];

fn lower<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    text_function("lower", arguments, str::to_lowercase)
}

fn trim<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    text_function("trim", arguments, |text| text.trim().to_owned())
}

fn text_function<'b, 'v>(
    name: &str,
    arguments: Vec<CowVal<'b, 'v>>,
    apply: impl Fn(&str) -> String,
) -> Result<CowVal<'b, 'v>, ExecutionError> {
    match arguments.into_iter().next().as_ref().and_then(|value| value.downcast_ref::<CelString<'_>>()) {
        Some(text) => Ok(CowVal::owned(CelString::from(apply(text.inner())))),
        None => Err(ExecutionError::function_error(name, "it takes one text")),
    }
}
