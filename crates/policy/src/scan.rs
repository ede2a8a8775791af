//! Reads a condition once, at load: what it names, what it costs, what it may miss.
//!
//! Refuses names and functions that do not exist, nested comprehensions and patterns made at run time;
//! turns readings of the clock and times written as texts into what evaluation needs.

use crate::{
    condition::{ConditionFault, TEXT_FUNCTIONS},
    fact::{CLOCK, Clock, PRINCIPAL, TARGET, VARIABLES},
    nearest::nearest,
};
use cel::{
    Context, Value,
    common::{
        ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr, operators},
        types::{CelInt, CelString},
    },
    parser::Expression,
};
use jiff::tz::TimeZone;
use std::collections::BTreeSet;
use vocab::Timestamp;

/// The functions of CEL's standard library that conditions may call.
const FUNCTIONS: [&str; 9] =
    ["size", "contains", "startsWith", "endsWith", "matches", "string", "int", "double", "uint"];

/// How deep a condition may be nested: evaluation recurses.
const DEEPEST: usize = 48;

/// What a condition reads.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    /// The paths it reads: `args.table`, `principal.roles`.
    pub(crate) reads: BTreeSet<String>,
    /// The paths it reads without asking `has()` first, though they may be missing.
    pub(crate) unguarded: BTreeSet<String>,
    /// Whether it names no variable at all.
    pub(crate) constant: bool,
    /// Whether it goes through lists.
    pub(crate) loops: bool,
    /// Whether going through a list reads arguments or findings again for each element.
    pub(crate) loop_reads_call: bool,
}

/// Scans and rewrites `expression`, or says everything that is wrong with it.
pub(crate) fn scan(expression: &mut Expression) -> Result<(Scanned, Vec<Clock>), Vec<ConditionFault>> {
    let mut scan = Scan::default();
    scan.walk(expression);
    if !scan.faults.is_empty() {
        return Err(scan.faults);
    }
    let Scan { reads, tested, named, clocks, loops, loop_reads_call, .. } = scan;
    let unguarded = reads.iter().filter(|path| may_be_missing(path) && !tested.contains(*path)).cloned().collect();
    Ok((Scanned { reads, unguarded, constant: !named, loops, loop_reads_call }, clocks))
}

/// Whether an expression reads what is only known when a call is made.
pub(crate) fn needs_call(expression: &Expression) -> bool {
    match &expression.expr {
        Expr::Ident(name) => matches!(name.as_str(), "args" | "findings" | "now") || name.starts_with(CLOCK),
        Expr::Select(select) => needs_call(&select.operand),
        Expr::Call(call) => call.args.iter().chain(call.target.as_deref()).any(needs_call),
        Expr::List(list) => list.elements.iter().any(needs_call),
        Expr::Map(map) => map.entries.iter().any(|entry| match &entry.expr {
            EntryExpr::StructField(field) => needs_call(&field.value),
            EntryExpr::MapEntry(entry) => needs_call(&entry.key) || needs_call(&entry.value),
        }),
        Expr::Comprehension(it) => {
            [&it.iter_range, &it.accu_init, &it.loop_cond, &it.loop_step, &it.result].into_iter().any(needs_call)
        }
        Expr::Literal(_) => false,
        Expr::Struct(_) | Expr::Unspecified => true,
    }
}

/// Arguments may lack anything; of the rest only these two may be absent.
fn may_be_missing(path: &str) -> bool {
    path.starts_with("args.") || matches!(path, "principal.user" | "target.environment")
}

#[derive(Default)]
struct Scan {
    reads: BTreeSet<String>,
    tested: BTreeSet<String>,
    clocks: Vec<Clock>,
    faults: Vec<ConditionFault>,
    /// Names that a comprehension binds, innermost last.
    bound: Vec<String>,
    named: bool,
    loops: bool,
    in_loop: bool,
    in_range: bool,
    loop_reads_call: bool,
    depth: usize,
    too_deep: bool,
}

impl Scan {
    fn fault(&mut self, cause: impl Into<String>, fix: impl Into<String>) {
        self.faults.push(ConditionFault { cause: cause.into(), fix: fix.into() });
    }

    fn walk(&mut self, expression: &mut Expression) {
        self.depth += 1;
        if self.depth <= DEEPEST {
            self.visit(expression);
        } else if !self.too_deep {
            self.too_deep = true;
            self.fault("the condition is nested too deeply", "split it into rules of their own");
        }
        self.depth -= 1;
    }

    fn visit(&mut self, expression: &mut Expression) {
        if let Some(path) = self.path(&expression.expr) {
            self.reads.insert(path);
        }
        let rewritten = match &mut expression.expr {
            Expr::Ident(name) => {
                let name = name.clone();
                self.name(&name);
                None
            }
            Expr::Select(select) => {
                self.select(select);
                None
            }
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(it) => {
                self.comprehension(it);
                None
            }
            Expr::List(list) => {
                list.elements.iter_mut().for_each(|element| self.walk(element));
                None
            }
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    match &mut entry.expr {
                        EntryExpr::StructField(field) => self.walk(&mut field.value),
                        EntryExpr::MapEntry(entry) => {
                            self.walk(&mut entry.key);
                            self.walk(&mut entry.value);
                        }
                    }
                }
                None
            }
            Expr::Literal(_) => None,
            Expr::Struct(_) | Expr::Unspecified => {
                self.fault("a condition cannot build messages", "compare the members one by one");
                None
            }
        };
        if let Some(rewritten) = rewritten {
            expression.expr = rewritten;
        }
    }

    fn name(&mut self, name: &str) {
        if self.bound.iter().any(|bound| bound == name) {
            return;
        }
        if !VARIABLES.contains(&name) {
            self.fault(format!("there is no variable `{name}`"), nearest(name, VARIABLES));
            return;
        }
        self.named = true;
        self.loop_reads_call |= self.in_loop && matches!(name, "args" | "findings");
    }

    fn select(&mut self, select: &mut SelectExpr) {
        if let Expr::Ident(root) = &select.operand.expr
            && !self.bound.contains(root)
        {
            let members: &[&str] = match root.as_str() {
                "principal" => &PRINCIPAL,
                "target" => &TARGET,
                _ => &[],
            };
            if !members.is_empty() && !members.contains(&select.field.as_str()) {
                let cause = format!("`{root}` has no member `{}`", select.field);
                self.fault(cause, nearest(&select.field, members.iter().copied()));
            }
        }
        if select.test
            && let Some(path) = self.path(&select.operand.expr)
        {
            self.tested.insert(format!("{path}.{}", select.field));
        }
        self.walk(&mut select.operand);
    }

    /// Scans a call; gives what stands in its place where it is known at load.
    fn call(&mut self, call: &mut CallExpr) -> Option<Expr> {
        let name = call.func_name.clone();
        if Clock::FUNCTIONS.contains(&name.as_str()) {
            return self.clock(call);
        }
        if name == "time" {
            return self.time(call);
        }
        let ours = TEXT_FUNCTIONS.map(|(name, _)| name);
        if name.starts_with(|letter: char| letter.is_ascii_alphabetic())
            && !FUNCTIONS.contains(&name.as_str())
            && !ours.contains(&name.as_str())
        {
            let known =
                FUNCTIONS.into_iter().chain(ours).chain(Clock::FUNCTIONS).chain(["time", "has", "all", "exists"]);
            self.fault(format!("there is no function `{name}`"), nearest(&name, known));
        }
        if name == "matches" {
            self.pattern(call);
        }
        if let (operators::IN, [key, container]) = (name.as_str(), call.args.as_slice())
            && let (Some(key), Some(path)) = (text_of(key), self.path(&container.expr))
        {
            self.tested.insert(format!("{path}.{key}"));
        }
        call.args.iter_mut().chain(call.target.as_deref_mut()).for_each(|argument| self.walk(argument));
        None
    }

    /// `hour("Europe/Berlin")` becomes a variable that reads that clock.
    fn clock(&mut self, call: &CallExpr) -> Option<Expr> {
        let function = &call.func_name;
        let zone = match (&call.target, call.args.as_slice()) {
            (None, [argument]) => text_of(argument),
            _ => None,
        };
        let Some(zone) = zone else {
            let fix = format!("write a name, as in `{function}(\"Europe/Berlin\")`");
            self.fault(format!("`{function}` takes the name of one time zone"), fix);
            return None;
        };
        let Ok(here) = TimeZone::get(zone) else {
            let fix = "use a name of the time zone database, such as `Europe/Berlin` or `UTC`";
            self.fault(format!("there is no time zone `{zone}`"), fix);
            return None;
        };
        self.named = true;
        self.clocks.extend(Clock::new(function, here));
        Some(Expr::Ident(format!("{CLOCK}{}", self.clocks.len() - 1)))
    }

    /// `time("2026-12-24T00:00:00Z")` becomes the seconds that `now` is compared with.
    fn time(&mut self, call: &CallExpr) -> Option<Expr> {
        let moment = match (&call.target, call.args.as_slice()) {
            (None, [argument]) => text_of(argument).and_then(|text| text.parse::<Timestamp>().ok()),
            _ => None,
        };
        if moment.is_none() {
            self.fault("`time` takes one time as RFC 3339 has it", "write it as in `time(\"2026-12-24T00:00:00Z\")`");
        }
        moment.map(|moment| Expr::Literal(LiteralValue::Int(CelInt::from(moment.as_seconds()))))
    }

    /// SECURITY: a pattern that the arguments could choose would be compiled on every call.
    fn pattern(&mut self, call: &CallExpr) {
        let Some(pattern) = call.args.last().and_then(text_of) else {
            self.fault("the pattern of `matches` is not written out", "write the regular expression as a text");
            return;
        };
        let trial = Expr::Call(CallExpr {
            func_name: String::from("matches"),
            target: None,
            args: ["", pattern]
                .map(|text| literal(Expr::Literal(LiteralValue::String(CelString::from(text.to_owned())))))
                .into(),
        });
        if Value::resolve(&literal(trial), &Context::default()).is_err() {
            self.fault(format!("`{pattern}` is not a regular expression"), "see the syntax of Rust's `regex`");
        }
    }

    fn comprehension(&mut self, it: &mut ComprehensionExpr) {
        if self.in_loop || self.in_range {
            let fix = "say it in two rules, or go through one list only: the cost of a condition is bounded";
            self.fault("a comprehension stands inside another", fix);
            return;
        }
        self.loops = true;
        self.in_range = true;
        self.walk(&mut it.iter_range);
        self.in_range = false;

        self.in_loop = true;
        let outside = self.bound.len();
        self.bound.extend([it.iter_var.clone(), it.accu_var.clone()].into_iter().chain(it.iter_var2.clone()));
        for part in [&mut it.accu_init, &mut it.loop_cond, &mut it.loop_step, &mut it.result] {
            self.walk(part);
        }
        self.bound.truncate(outside);
        self.in_loop = false;
    }

    /// `args.a["b"]` as `args.a.b`, where it begins with a variable of ours and has a member at all.
    fn path(&self, expression: &Expr) -> Option<String> {
        match expression {
            Expr::Ident(name) if VARIABLES.contains(&name.as_str()) && !self.bound.contains(name) => Some(name.clone()),
            Expr::Select(select) if !select.test => {
                Some(format!("{}.{}", self.path(&select.operand.expr)?, select.field))
            }
            Expr::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
                [operand, index] => Some(format!("{}.{}", self.path(&operand.expr)?, text_of(index)?)),
                _ => None,
            },
            _ => None,
        }
    }
}

fn text_of(expression: &Expression) -> Option<&str> {
    match &expression.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

const fn literal(expr: Expr) -> Expression {
    Expression { id: 0, expr }
}
