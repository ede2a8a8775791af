//! How often: who may call what, how many times in how long, and how many at once.
//!
//! A rule names dimensions with globs (agent, tool, server, tenant); each distinct value of the named dimensions has
//! a bucket of its own. `{agent: "*", tool: "files/*"}` is one bucket per agent and tool; `{server: "github"}` is one
//! bucket for everybody. Methods about tasks count like tools; what else is no tool has one bucket per rule and server.
//! Time is handed in. Never waits, never reads a clock, never decides what is allowed.

mod bucket;
mod table;
#[cfg(test)]
mod tests;

use crate::pattern::{Pattern, PatternError, single_stars};
use bucket::{Taken, Terms};
use identity::Proven;
use std::{fmt, net::IpAddr, sync::Arc, time::Duration};
use table::{Key, Of, Table};
use vocab::{Action, PrincipalId, TargetId};

pub use bucket::{Held, Slot};

/// So many per so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many; at least one.
    pub count: u32,
    /// In how long; more than zero.
    pub per: Duration,
}

/// A lasting rate, and how many may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// The lasting rate.
    pub rate: Rate,
    /// How many may come at once.
    pub burst: u32,
}

/// One configured limit.
#[derive(Debug, Clone)]
pub struct LimitSetting {
    /// Glob over agents.
    pub agent: Option<String>,
    /// Glob over `server/name`, split at its first `/`.
    pub tool: Option<String>,
    /// Glob over servers.
    pub server: Option<String>,
    /// Glob over tenants.
    pub tenant: Option<String>,
    /// The lasting rate, and how many may come at once.
    pub allowance: Allowance,
    /// How many may be under way at one time.
    pub concurrency: Option<u32>,
}

/// Everything that limits.
#[derive(Debug, Clone)]
pub struct LimitSettings {
    /// Configured limits.
    pub rules: Vec<LimitSetting>,
    /// Authenticated requests of one principal, whatever becomes of them.
    pub attempts: Allowance,
    /// Failed authentications from one address (IPv6: one /64), and by one credential that is known and not let in.
    pub failures: Allowance,
}

impl Default for LimitSettings {
    /// No rule; 100,000 attempts per second, which only stops runaways; 20 failures at once, then 20 per minute.
    fn default() -> Self {
        let per_second = Rate { count: 100_000, per: Duration::from_secs(1) };
        let per_minute = Rate { count: 20, per: Duration::from_mins(1) };
        Self {
            rules: Vec::new(),
            attempts: Allowance { rate: per_second, burst: 100_000 },
            failures: Allowance { rate: per_minute, burst: 20 },
        }
    }
}

/// A limit that cannot be enforced.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// A glob is not one.
    #[error("limits[{rule}]: `{glob}` is not a glob")]
    Glob {
        /// Position of the rule.
        rule: usize,
        /// The text.
        glob: String,
        /// What is wrong with it.
        #[source]
        cause: PatternError,
    },
    /// A tool glob without a server.
    #[error("limits[{rule}]: `{glob}` names no server; write `server/name`, or `*/name` for every server")]
    NoServer {
        /// Position of the rule.
        rule: usize,
        /// The text.
        glob: String,
    },
    /// Rate, burst or concurrency would refuse everything.
    #[error("{rule}: rate, burst and concurrency must be more than zero")]
    Zero {
        /// The rule.
        rule: String,
    },
}

/// A call that came too soon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule} allows {}; try again in {} s", self.allowed(), seconds(*.retry_in))]
pub struct Limited {
    /// The rule, by its place in the configuration: `limits[0]`.
    pub rule: String,
    /// How many may come at once.
    pub limit: u32,
    /// The lasting rate.
    pub rate: Rate,
    /// The time in which all of them come back.
    pub window: Duration,
    /// The rule's bound of calls under way, if it was this that refused.
    pub concurrency: Option<u32>,
    /// How many would still be admitted now.
    pub remaining: u32,
    /// When the next one will be admitted. For concurrency nobody knows; a second is a guess.
    pub retry_in: Duration,
    /// When the whole burst will be available again.
    pub reset: Duration,
}

impl Limited {
    /// Names and values of `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers). They tell of a quota
    /// and its window: where calls under way are too many, what is left of the quota is no word on when to come back.
    pub fn headers(&self) -> Option<[(&'static str, String); 2]> {
        if self.concurrency.is_some() {
            return None;
        }
        let (rule, wait, window) = (&self.rule, seconds(self.retry_in), seconds(self.window));
        Some([
            ("ratelimit-policy", format!("\"{rule}\";q={};w={window}", self.limit)),
            ("ratelimit", format!("\"{rule}\";r={};t={wait}", self.remaining)),
        ])
    }

    fn allowed(&self) -> String {
        match self.concurrency {
            Some(most) => format!("{most} calls under way at one time"),
            None => format!("{}, {} at once", self.rate, self.limit),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.per.as_secs() {
            1 => write!(f, "{} per second", self.count),
            60 => write!(f, "{} per minute", self.count),
            3600 => write!(f, "{} per hour", self.count),
            _ => write!(f, "{} per {:?}", self.count, self.per),
        }
    }
}

/// Whole seconds, never too few.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// All limits. Immutable; the buckets behind it live on through reloads.
pub struct Limits {
    /// INVARIANT: in the order of their ids. Buckets are locked in this order, also by an older snapshot.
    rules: Vec<Rule>,
    attempts: Rule,
    failures: Rule,
    refusals: Rule,
    calls: Arc<Table>,
    guesses: Arc<Table>,
    /// Of credentials that are known: whoever guesses fills none of it.
    refused: Arc<Table>,
}

struct Rule {
    /// The same for the same rule after a reload; a change of its dimensions or rate makes it a new rule.
    id: u64,
    name: String,
    terms: Terms,
    agent: Option<Pattern>,
    tool: Option<(Pattern, Pattern)>,
    server: Option<Pattern>,
    tenant: Option<Pattern>,
}

impl Limits {
    /// Compiles the rules. `before` lends its buckets: a reload forgives nobody.
    pub fn new(settings: &LimitSettings, before: Option<&Self>) -> Result<Self, Vec<LimitError>> {
        let calls = before.map_or_else(Arc::default, |before| Arc::clone(&before.calls));
        let guesses = before.map_or_else(Arc::default, |before| Arc::clone(&before.guesses));
        let refused = before.map_or_else(Arc::default, |before| Arc::clone(&before.refused));
        let mut rules: Vec<Rule> = Vec::with_capacity(settings.rules.len());
        let mut faults = Vec::new();
        for (position, setting) in settings.rules.iter().enumerate() {
            match Rule::new(position, setting) {
                Ok(mut rule) => {
                    let twins = settings.rules.iter().take(position).filter(|other| same(other, setting)).count();
                    let rate = setting.allowance.rate;
                    rule.id = calls.id((&setting.agent, &setting.tool, &setting.server, &setting.tenant, rate, twins));
                    rules.push(rule);
                }
                Err(fault) => faults.push(fault),
            }
        }
        rules.sort_by_key(|rule| rule.id);
        let mut built_in = |name: &str, allowance, id| {
            let rule = Rule::built_in(name, allowance, id);
            rule.map_err(|fault| faults.push(fault)).ok()
        };
        let attempts = built_in("attempts", settings.attempts, calls.id("attempts"));
        let failures = built_in("failed authentications", settings.failures, guesses.id("failures"));
        // SECURITY: by another name it would tell a credential that was good once from one that never was.
        let refusals = built_in("failed authentications", settings.failures, refused.id("refusals"));
        match (attempts, failures, refusals) {
            (Some(attempts), Some(failures), Some(refusals)) if faults.is_empty() => {
                Ok(Self { rules, attempts, failures, refusals, calls, guesses, refused })
            }
            _ => Err(faults),
        }
    }

    /// Counts one authenticated request, whatever will become of it.
    pub fn attempt(&self, principal: &PrincipalId, now_us: u64) -> Result<(), Limited> {
        let now = nanoseconds(now_us);
        let user = principal.user.as_ref().map(AsRef::as_ref);
        let issuer = principal.issuer.as_ref().map(AsRef::as_ref);
        let names = [Some(principal.tenant.as_str()), Some(principal.agent.as_str()), user, issuer];
        let bucket = self.calls.bucket(&Key { rule: self.attempts.id, of: Of::Names(names) }, now);
        bucket.take(&self.attempts.terms, now).map_err(|short| self.attempts.limited(short))
    }

    /// Whether `address` has failed too often of late. To be asked before a credential is looked at.
    pub fn failed_authentication(&self, address: IpAddr, now_us: u64) -> Result<(), Limited> {
        let now = nanoseconds(now_us);
        let rest = Key { rule: self.failures.id, of: Of::STRANGERS };
        let found = self.guesses.find(&self.guess(address)).or_else(|| self.guesses.find(&rest));
        let Some(bucket) = found else { return Ok(()) };
        bucket.check(&self.failures.terms, now).map_err(|short| self.failures.limited(short))
    }

    /// Counts one failed authentication. Guesses that ran in parallel all count, so the lasting rate holds.
    pub fn note_failure(&self, address: IpAddr, now_us: u64) {
        let now = nanoseconds(now_us);
        self.guesses.bucket(&self.guess(address), now).force(&self.failures.terms, now);
    }

    /// Counts one refusal of a credential that is known: revoked, expired, or of an agent that may not call. Each is on
    /// record by name, and without a bound whoever has an old key could fill the disk.
    pub fn refusal(&self, known: &Proven, now_us: u64) -> Result<(), Limited> {
        let now = nanoseconds(now_us);
        let (id, credential) = (&known.id, known.credential.text());
        let names = [Some(id.tenant.as_str()), Some(id.agent.as_str()), Some(&*credential), None];
        let bucket = self.refused.bucket(&Key { rule: self.refusals.id, of: Of::Names(names) }, now);
        bucket.take(&self.refusals.terms, now).map_err(|short| self.refusals.limited(short))
    }

    /// Takes from all buckets that apply, or from none.
    pub fn admit(
        &self,
        principal: &PrincipalId,
        action: Action,
        target: &TargetId,
        now_us: u64,
    ) -> Result<Slot, Limited> {
        self.take(principal, (action, target), now_us, |terms| terms)
    }

    /// The same for one more request of a call that is under way, and has its place among those already: once it is spent,
    /// nothing is held.
    pub fn again(
        &self,
        principal: &PrincipalId,
        action: Action,
        target: &TargetId,
        now_us: u64,
    ) -> Result<Slot, Limited> {
        self.take(principal, (action, target), now_us, Terms::without_concurrency)
    }

    fn take(
        &self,
        principal: &PrincipalId,
        (action, target): (Action, &TargetId),
        now_us: u64,
        adapt: impl Fn(Terms) -> Terms,
    ) -> Result<Slot, Limited> {
        let now = nanoseconds(now_us);
        let mut taken = Vec::new();
        for (at, rule) in self.rules.iter().enumerate() {
            if let Some(names) = rule.matches(principal, action, target) {
                let bucket = self.calls.bucket(&Key { rule: rule.id, of: Of::Names(names) }, now);
                taken.push(Taken { bucket, terms: adapt(rule.terms), rule: at });
            }
        }
        match bucket::reserve(taken, now) {
            Ok(slot) => Ok(slot),
            Err((at, short)) => Err(self.rules.get(at).unwrap_or(&self.attempts).limited(short)),
        }
    }

    fn guess(&self, address: IpAddr) -> Key<'static> {
        let number = match address.to_canonical() {
            IpAddr::V4(address) => u64::from(u32::from(address)),
            // Whoever has one address of a /64 has them all. None of these begins with 32 zero bits.
            IpAddr::V6(address) => u64::try_from(u128::from(address) >> 64).unwrap_or(u64::MAX),
        };
        Key { rule: self.failures.id, of: Of::Address(number) }
    }
}

impl Rule {
    fn new(position: usize, setting: &LimitSetting) -> Result<Self, LimitError> {
        let name = format!("limits[{position}]");
        let terms = Terms::new(setting.allowance, setting.concurrency);
        let compile = |text: &String| {
            // Names are no paths, and have no components that `**` could mean.
            Pattern::new(&single_stars(text)).map_err(|cause| LimitError::Glob {
                rule: position,
                glob: text.clone(),
                cause,
            })
        };
        let tool = match &setting.tool {
            None => None,
            Some(glob) => {
                let (server, tool) =
                    glob.split_once('/').ok_or_else(|| LimitError::NoServer { rule: position, glob: glob.clone() })?;
                Some((compile(&server.to_owned())?, compile(&tool.to_owned())?))
            }
        };
        Ok(Self {
            id: 0,
            terms: terms.ok_or_else(|| LimitError::Zero { rule: name.clone() })?,
            name,
            agent: setting.agent.as_ref().map(compile).transpose()?,
            tool,
            server: setting.server.as_ref().map(compile).transpose()?,
            tenant: setting.tenant.as_ref().map(compile).transpose()?,
        })
    }

    fn built_in(name: &str, allowance: Allowance, id: u64) -> Result<Self, LimitError> {
        let terms = Terms::new(allowance, None).ok_or_else(|| LimitError::Zero { rule: name.to_owned() })?;
        Ok(Self { id, name: name.to_owned(), terms, agent: None, tool: None, server: None, tenant: None })
    }

    /// The values of the dimensions that this rule names, if it applies.
    ///
    /// SECURITY: tools are as many as servers list, and methods about tasks are few. Anything else is named by whoever asks,
    /// who could have a new bucket for each spelling: on one server, all that the rule's glob means counts as one.
    fn matches<'a>(
        &self,
        principal: &'a PrincipalId,
        action: Action,
        target: &'a TargetId,
    ) -> Option<[Option<&'a str>; 4]> {
        let of = |pattern: &Option<Pattern>, text: &'a str| match pattern {
            None => Some(None),
            Some(pattern) => pattern.matches(text).then_some(Some(text)),
        };
        let tenant = of(&self.tenant, principal.tenant.as_str())?;
        let agent = of(&self.agent, principal.agent.as_str())?;
        let server = of(&self.server, target.server.as_str())?;
        match &self.tool {
            None => Some([tenant, agent, server, None]),
            Some((of_server, of_name)) => {
                let applies = of_server.matches(target.server.as_str()) && of_name.matches(&target.name);
                applies.then_some([tenant, agent, Some(target.server.as_str()), counted_apart(action, &target.name)])
            }
        }
    }

    fn limited(&self, short: bucket::Short) -> Limited {
        Limited {
            rule: self.name.clone(),
            limit: self.terms.burst,
            rate: self.terms.rate,
            window: Duration::from_nanos(self.terms.depth),
            concurrency: short.concurrency.then_some(self.terms.concurrency).flatten(),
            remaining: short.remaining,
            retry_in: Duration::from_nanos(short.retry_in),
            reset: Duration::from_nanos(short.reset),
        }
    }
}

/// Methods about tasks: whoever reads much may still take a task back.
const TASKS: [&str; 5] = ["tasks/get", "tasks/list", "tasks/update", "tasks/cancel", "tasks/result"];

/// The name that has buckets of its own, if there are only so many of its kind.
fn counted_apart(action: Action, name: &str) -> Option<&str> {
    match action {
        Action::ToolExecute => Some(name),
        Action::TaskManage => Some(name).filter(|name| TASKS.contains(name)),
        Action::ResourceRead
        | Action::ResourceSubscribe
        | Action::PromptGet
        | Action::CompletionComplete
        | Action::MethodCall
        // Answers to questions are no calls more.
        | Action::ServerSample
        | Action::ServerElicit
        | Action::ServerRoots => None,
    }
}

/// Whether two rules would share their buckets.
fn same(one: &LimitSetting, other: &LimitSetting) -> bool {
    (&one.agent, &one.tool, &one.server, &one.tenant, one.allowance.rate)
        == (&other.agent, &other.tool, &other.server, &other.tenant, other.allowance.rate)
}

/// Buckets count nanoseconds: a microsecond is too coarse for a million calls per second.
const fn nanoseconds(now_us: u64) -> u64 {
    now_us.saturating_mul(1000)
}
