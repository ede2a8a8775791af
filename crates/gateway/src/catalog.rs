//! What a server offers, kept per server, and looked at again when it is given other credentials. How it is learned is the
//! business of `look`.

pub(crate) mod apart;
mod expression;
pub(crate) mod look;
mod offer;
mod read;
pub(crate) mod schema;
#[cfg(test)]
mod tests;
pub(crate) mod view;
mod weigh;

use crate::{
    bridge::{self, Crossing},
    call::Route,
    label,
    pipeline::Line,
    server::Server,
};
use bytes::Bytes;
use mcp::{
    Era, ListKind, Message,
    list::{Entry, Misfit},
    param::{AnnotationFault, Binding},
};
pub use offer::Offer;
use schema::Schema;
use serde_json::Value;
use std::{
    borrow::Cow,
    collections::HashSet,
    ops::BitOr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use vocab::Digest;

/// What one look at a server found.
pub struct Catalog {
    /// What it offers in the era that it is looked at in: the modern one, where it speaks that.
    offer: Arc<Offer>,
    /// What it offers in the legacy era, where it speaks both.
    legacy: Option<Arc<Offer>>,
    /// When it was looked at, in ticks.
    pub looked_at: u64,
}

impl Catalog {
    /// What it offers to whom speaks to it in this era.
    pub fn spoken(&self, era: Era) -> &Arc<Offer> {
        self.legacy.as_ref().filter(|_| era == Era::Legacy).unwrap_or(&self.offer)
    }

    /// The tool of this name, and the era that shows it: the modern one, where both do.
    pub fn tool(&self, name: &str) -> Option<(&Arc<Tool>, Era)> {
        self.offers().find_map(|offer| Some((offer.tools.get(name)?, offer.era)))
    }

    /// How many entries of a kind it has, in whichever era.
    pub fn count(&self, kind: ListKind) -> usize {
        let count = self.offer.digests(kind).count();
        let Some(legacy) = &self.legacy else { return count };
        let known: HashSet<&str> = self.offer.digests(kind).map(|(name, _)| name).collect();
        count + legacy.digests(kind).filter(|(name, _)| !known.contains(name)).count()
    }

    /// Entries that some client is not shown, and why, where nothing else says so.
    pub fn left_out<'c>(&'c self, server: &Server) -> impl Iterator<Item = (&'c LeftOut, &'c str)> {
        let speaks_legacy = server.speaks(Era::Legacy) == Some(true);
        self.offers().flat_map(move |offer| {
            // What the legacy era alone takes for none, who speaks the modern one may list.
            let is_legacy = speaks_legacy && (offer.era == Era::Legacy || self.legacy.is_none());
            offer.left_out.iter().filter_map(move |entry| {
                let misfit = entry.misfit.as_ref().filter(|misfit| is_legacy || !misfit.is_legacy)?;
                Some((entry, &*misfit.why))
            })
        })
    }

    /// What it offers, in each era that it was looked at in.
    pub fn offers(&self) -> impl Iterator<Item = &Arc<Offer>> {
        std::iter::once(&self.offer).chain(&self.legacy)
    }
}

/// An entry that lists leave out: for one that is none by the schema, official SDKs refuse a whole list, which is that of all
/// servers on `/mcp`.
pub struct LeftOut {
    /// The list that it stands on.
    pub kind: ListKind,
    /// Its name or address.
    pub name: Box<str>,
    /// What makes it none by the schema.
    pub misfit: Option<Misfit>,
    /// It is a tool whose annotations cannot be followed, which its fitness says.
    cannot_be_followed: bool,
    /// The digest of its definition.
    pub(crate) digest: Digest,
}

impl LeftOut {
    fn of(kind: ListKind, entry: &Entry<'_>) -> Option<Self> {
        let misfit = mcp::list::misfit(entry, kind);
        let cannot_be_followed = kind == ListKind::Tools && !mcp::param::can_be_followed(entry.raw);
        if misfit.is_none() && !cannot_be_followed {
            return None;
        }
        // Shown to people, and it may name what the server made up.
        let misfit = misfit.map(|Misfit { why, is_legacy }| Misfit { why: label::shown(&why).into_owned(), is_legacy });
        Some(Self { kind, name: Box::from(&*entry.name), misfit, cannot_be_followed, digest: Digest::of(entry.raw) })
    }

    /// Its name as it may be shown.
    pub fn shown(&self) -> Cow<'_, str> {
        label::shown(&self.name)
    }

    /// Whether clients of `era` are not shown it through this door.
    pub(crate) fn is_missing(&self, server: &Server, era: Era, route: &Route) -> bool {
        let (crossing, spoken) = (Crossing::between(era, server), bridge::spoken(era, server));
        let counts = |misfit: &Misfit| *route == Route::All && !(misfit.is_legacy && spoken == Era::Modern);
        if self.misfit.as_ref().is_some_and(counts) {
            return true;
        }
        let is_client = *route == Route::All || crossing == Crossing::Upward;
        self.cannot_be_followed && is_client && spoken == Era::Modern && !server.skips_schema(&self.name)
    }
}

/// One tool.
pub struct Tool {
    /// The digest of its definition: the schema is compiled once for it.
    pub digest: Digest,
    /// Whether its calls can be checked.
    pub fitness: Fitness,
    /// Arguments that headers mirror, or why that cannot be followed. Means something where the server is spoken to in the
    /// modern era, and nowhere else.
    mirrors: Result<Vec<Binding>, AnnotationFault>,
}

/// Whether the arguments of a tool can be checked.
pub enum Fitness {
    /// It has a schema that compiles.
    Fit(Box<Schema>),
    /// It has one that does not, or none: its calls are refused.
    Unfit(String),
}

impl Tool {
    fn new(definition: &[u8]) -> Self {
        let digest = Digest::of(definition);
        let schema = mcp::value(definition).ok().and_then(|mut tool| tool.get_mut("inputSchema").map(Value::take));
        // SPEC: a tool has one in every revision.
        let Some(schema) = schema else {
            let fitness = Fitness::Unfit("it has no `inputSchema`".to_owned());
            return Self { digest, fitness, mirrors: Ok(Vec::new()) };
        };
        let fitness = match Schema::new(&schema) {
            Ok(schema) => Fitness::Fit(Box::new(schema)),
            Err(why) => Fitness::Unfit(why),
        };
        Self { digest, fitness, mirrors: mcp::param::bindings(&schema) }
    }

    /// A tool that a list defines once more. Which of two definitions a client reads is not known here, nor which one the server
    /// means.
    fn and(first: &Arc<Self>, definition: &[u8]) -> Arc<Self> {
        if first.digest == Digest::of(definition) {
            return Arc::clone(first);
        }
        let digest = Digest::of(&[first.digest.as_bytes().as_slice(), definition].concat());
        let fitness = Fitness::Unfit("the server defines the tool twice, in two ways".to_owned());
        Arc::new(Self { digest, fitness, mirrors: Ok(Vec::new()) })
    }

    /// Arguments that headers mirror, as far as that can be followed.
    pub fn bindings(&self) -> &[Binding] {
        self.mirrors.as_deref().unwrap_or_default()
    }

    /// Why calls of it are refused, where its server is spoken to in this era.
    pub fn refused(&self, era: Era) -> Option<String> {
        match (&self.fitness, &self.mirrors, era) {
            (Fitness::Unfit(why), _, _) => Some(why.clone()),
            (Fitness::Fit(_), Err(fault), Era::Modern) => Some(fault.to_string()),
            (Fitness::Fit(_), Ok(_), _) | (Fitness::Fit(_), Err(_), Era::Legacy) => None,
        }
    }
}

/// Which lists of a server are others than they were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) tools: bool,
    pub(crate) prompts: bool,
    pub(crate) resources: bool,
}

impl BitOr for Changes {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self {
            tools: self.tools | other.tools,
            prompts: self.prompts | other.prompts,
            resources: self.resources | other.resources,
        }
    }
}

impl Changes {
    /// All of them.
    pub(crate) const ALL: Self = Self { tools: true, prompts: true, resources: true };

    /// What a notification tells of.
    pub(crate) fn told(method: &str) -> Self {
        Self {
            tools: method == "notifications/tools/list_changed",
            prompts: method == "notifications/prompts/list_changed",
            resources: method == "notifications/resources/list_changed",
        }
    }

    /// Whether there is one.
    pub(crate) const fn any(self) -> bool {
        self.tools || self.prompts || self.resources
    }

    /// Whether lists of this kind are among them.
    pub(crate) const fn has(self, kind: ListKind) -> bool {
        match kind {
            ListKind::Tools => self.tools,
            ListKind::Prompts => self.prompts,
            ListKind::Resources | ListKind::Templates => self.resources,
        }
    }

    /// Those that `wanted` has, too.
    pub(crate) const fn within(self, wanted: Self) -> Self {
        Self {
            tools: self.tools && wanted.tools,
            prompts: self.prompts && wanted.prompts,
            resources: self.resources && wanted.resources,
        }
    }

    /// What is new in `now`, in whichever era.
    fn since(before: Option<&Catalog>, now: &Catalog) -> Self {
        let within = |era| Self::within_era(before.map(|before| &**before.spoken(era)), now.spoken(era));
        within(Era::Legacy) | within(Era::Modern)
    }

    /// The same within one era. Where nothing was known before, everything is that is not empty.
    fn within_era(before: Option<&Offer>, now: &Offer) -> Self {
        let Some(before) = before else {
            return Self {
                tools: !now.tools.is_empty(),
                prompts: !now.prompts.is_empty(),
                resources: !now.resources.is_empty() || !now.templates.is_empty(),
            };
        };
        let mut tools = now.tools.iter();
        let same_tools = before.tools.len() == now.tools.len()
            && tools.all(|(name, tool)| before.tools.get(name).is_some_and(|known| known.digest == tool.digest));
        Self {
            tools: !same_tools,
            prompts: before.prompts != now.prompts,
            resources: before.resources != now.resources || before.templates != now.templates,
        }
    }

    /// Those that `other` lacks.
    pub(crate) const fn without(self, other: Self) -> Self {
        Self {
            tools: self.tools && !other.tools,
            prompts: self.prompts && !other.prompts,
            resources: self.resources && !other.resources,
        }
    }

    /// The notifications that tell of them.
    pub(crate) fn news(self) -> impl Iterator<Item = &'static str> {
        [
            (self.tools, "notifications/tools/list_changed"),
            (self.prompts, "notifications/prompts/list_changed"),
            (self.resources, "notifications/resources/list_changed"),
        ]
        .into_iter()
        .filter_map(|(changed, method)| changed.then_some(method))
    }
}

/// A server says that a list changed: the next who needs it looks again. One that is not configured any more, and still at a
/// call, is not looked at.
pub(crate) fn notice(line: &Line, server: &Arc<Server>, message: &Message) {
    let changes = Changes::told(message.method());
    if changes.tools {
        server.state.tools_told.fetch_add(1, Ordering::AcqRel);
    }
    if changes.any() && line.snapshot.servers.contains_key(&server.name) {
        line.look_again(server);
    }
}

/// A modern list whose cache scope is `private`, whatever the server said: this one is the caller's own.
pub(crate) fn private(list: &Message) -> Bytes {
    match list.outcome_member(&["cacheScope"]) {
        Some(scope) => mcp::splice(list.bytes(), &mut [(scope.span.clone(), b"\"private\"".to_vec())]),
        None => list.bytes().clone(),
    }
}

/// Whether the gateway, as a client of 2026-07-28, lists an entry: tools whose annotations it cannot follow it leaves out,
/// for it could not call them as their server wants. Where the operator waives their schema it does not hold them to it.
pub(crate) fn lists_as_client(server: &Server, kind: ListKind, entry: &Entry<'_>) -> bool {
    kind != ListKind::Tools || mcp::param::can_be_followed(entry.raw) || server.skips_schema(&entry.name)
}

/// Whether an entry is one by the schema of the era that its server was spoken to in.
pub(crate) fn fits(kind: ListKind, entry: &Entry<'_>, spoken: Era) -> bool {
    mcp::list::misfit(entry, kind).is_none_or(|misfit| misfit.is_legacy && spoken == Era::Modern)
}

/// The capability that stands for a list.
pub(crate) const fn capability(kind: ListKind) -> &'static str {
    match kind {
        ListKind::Tools => "tools",
        ListKind::Prompts => "prompts",
        ListKind::Resources | ListKind::Templates => "resources",
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
