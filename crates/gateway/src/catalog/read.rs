//! Reads what a server offers, in each era that it speaks: every list of it, whole.

use super::{
    Catalog, LeftOut, Offer, Tool,
    look::{BESIDE, OLDEST, Said},
    micros,
    view::Sums,
};
use crate::{
    label,
    server::Server,
    session::Leg,
    settings::EraSettings,
    upstream::{UpstreamFault, exchange::Hop},
    verdict::Verdict,
};
use mcp::{Era, ListKind, Message, list::Entry};
use serde_json::Value;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::timeout;
use vocab::Digest;

impl Hop<'_> {
    /// Reads what the server offers in each era that it said it speaks. Of an era that it could not be asked in now, or whose
    /// lists could not be read beside those of the other, what it offered before counts on for a while.
    pub(super) async fn read_all(
        &self,
        modern: Result<Said, UpstreamFault>,
        legacy: Result<Said, UpstreamFault>,
        verdict: &Verdict,
    ) -> Result<Catalog, UpstreamFault> {
        let why: Vec<_> = [&modern, &legacy].into_iter().flatten().filter_map(Said::why).collect();
        let why = why.join("; ");
        let known = Known {
            before: self.server.state.catalog.load_full(),
            verdict,
            is_both: self.server.era == Some(EraSettings::Both),
            credential: self.injected.pool,
            now: self.state.clock.ticks(),
        };
        let (answered, patience) = match &modern {
            Ok(modern) if modern.speaks() => (true, BESIDE),
            Ok(_) => (true, Duration::MAX),
            Err(_) => (false, Duration::MAX),
        };
        let reading = self.read_in(Era::Modern, modern, &known);
        let beside = async {
            let reading = timeout(patience, self.read_in(Era::Legacy, legacy, &known));
            reading.await.unwrap_or(Err(UpstreamFault::Timeout(patience)))
        };
        let (modern, legacy) = tokio::join!(reading, beside);
        let modern = match modern {
            Ok(modern) => modern,
            Err(fault) if answered || !matches!(legacy, Ok(Some(_))) => return Err(fault),
            Err(fault) => match known.of(Era::Modern) {
                // Calls of that era would be held to what the other one is offered.
                None if known.speaks(Era::Modern) => return Err(fault),
                offer => self.goes_on_with(offer, Era::Modern, &fault),
            },
        };
        let legacy = match (legacy, &modern) {
            (Ok(legacy), _) => legacy,
            (Err(fault), None) => return Err(fault),
            (Err(fault), Some(_)) if known.speaks(Era::Legacy) => {
                self.goes_on_with(known.of(Era::Legacy), Era::Legacy, &fault)
            }
            (Err(_), Some(_)) => None,
        };
        let looked_at = known.now.max(1);
        match (modern, legacy) {
            (Some(offer), legacy) => Ok(Catalog { offer, legacy, looked_at }),
            (None, Some(offer)) => Ok(Catalog { offer, legacy: None, looked_at }),
            (None, None) => Err(UpstreamFault::Protocol(format!("it speaks no revision that it is asked in: {why}"))),
        }
    }

    /// What it offers in one era, if it said that it speaks it.
    async fn read_in(
        &self,
        era: Era,
        said: Result<Said, UpstreamFault>,
        known: &Known<'_>,
    ) -> Result<Option<Arc<Offer>>, UpstreamFault> {
        let Said::Speaks(leg, identity) = said? else { return Ok(None) };
        let opened = Opened { hop: self, leg: leg.map(Arc::new) };
        let offer = self.read(opened.leg.as_deref(), era, &identity, known).await?;
        Ok(Some(Arc::new(offer)))
    }

    /// Says that an era could not be looked at, and what stands for it.
    fn goes_on_with(&self, offer: Option<Arc<Offer>>, era: Era, fault: &UpstreamFault) -> Option<Arc<Offer>> {
        let (server, era) = (&self.server.name, era.as_str());
        match &offer {
            Some(_) => {
                tracing::warn!(%server, era, %fault, "what the server offers in this era cannot be read; what it offered before counts on");
            }
            None => {
                tracing::warn!(%server, era, %fault, "what the server offers in this era cannot be read; what it offers in the other one stands for it");
            }
        }
        offer
    }

    /// Reads every list.
    async fn read(
        &self,
        leg: Option<&Leg>,
        era: Era,
        identity: &Message,
        known: &Known<'_>,
    ) -> Result<Offer, UpstreamFault> {
        let capabilities =
            identity.outcome_member(&["capabilities"]).and_then(|member| member.value().ok()).unwrap_or(Value::Null);
        let instructions = identity
            .outcome_member(&["instructions"])
            .and_then(|member| member.text().map(std::borrow::Cow::into_owned));
        let mut tools = HashMap::new();
        let (mut prompts, mut resources, mut templates) = (HashMap::new(), HashMap::new(), Vec::new());
        let mut left_out = Vec::new();
        for kind in ListKind::ALL {
            let mut misfits = HashSet::new();
            if capabilities.get(super::capability(kind)).is_none() {
                continue;
            }
            for page in self.pages(leg, kind, era, None).await? {
                let entries =
                    mcp::list::entries(&page, kind).map_err(|fault| UpstreamFault::Protocol(fault.to_string()))?;
                for entry in entries {
                    let name: Box<str> = Box::from(&*entry.name);
                    // What stands there twice is kept once, but for templates: so it is taken away once, too.
                    let is_kept = |entry: &LeftOut| kind == ListKind::Templates || misfits.insert(entry.digest);
                    left_out.extend(LeftOut::of(kind, &entry).filter(is_kept));
                    match kind {
                        ListKind::Tools => {
                            let tool = match tools.get(&name) {
                                Some(twice) => Tool::and(twice, entry.raw),
                                None => known.tool(&entry).unwrap_or_else(|| Arc::new(Tool::new(entry.raw))),
                            };
                            tools.insert(name, tool);
                        }
                        ListKind::Prompts => drop(prompts.insert(name, Digest::of(entry.raw))),
                        ListKind::Resources => drop(resources.insert(name, Digest::of(entry.raw))),
                        ListKind::Templates => templates.push((name, Digest::of(entry.raw))),
                    }
                }
            }
        }
        let sums = Sums::default();
        Ok(Offer {
            era,
            credential: known.credential,
            read_at: known.now,
            tools,
            prompts,
            resources,
            templates,
            left_out,
            sums,
            capabilities,
            instructions,
        }
        .summed())
    }
}

/// What is known of the server before it is read.
struct Known<'k> {
    before: Option<Arc<Catalog>>,
    verdict: &'k Verdict,
    /// By configuration it speaks both eras.
    is_both: bool,
    credential: u64,
    now: u64,
}

impl Known<'_> {
    /// Whether it speaks an era, whatever it answered just now.
    fn speaks(&self, era: Era) -> bool {
        self.is_both || self.verdict.of(era).is_some_and(|seen| seen.speaks)
    }

    /// What it offered in an era, to this credential, not too long ago.
    fn of(&self, era: Era) -> Option<Arc<Offer>> {
        self.verdict.of(era).filter(|seen| seen.speaks)?;
        let is_young = |offer: &Offer| self.now.saturating_sub(offer.read_at) < micros(OLDEST);
        let is_it = |offer: &&Arc<Offer>| offer.era == era && offer.credential == self.credential && is_young(offer);
        self.before.as_ref()?.offers().find(is_it).cloned()
    }

    /// The tool that an entry defines, if it is known: it is not made again.
    fn tool(&self, entry: &Entry<'_>) -> Option<Arc<Tool>> {
        let digest = Digest::of(entry.raw);
        let mut tools =
            self.before.iter().flat_map(|before| before.offers()).filter_map(|offer| offer.tools.get(&*entry.name));
        tools.find(|tool| tool.digest == digest).cloned()
    }
}

/// A session that was opened for a look. It ends with that, however that ends, and holds nobody up.
struct Opened<'h> {
    hop: &'h Hop<'h>,
    leg: Option<Arc<Leg>>,
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        if let Some(leg) = self.leg.take() {
            self.hop.state.part(vec![(self.hop.server.name.clone(), leg)]);
        }
    }
}

/// Says which entries `/mcp` leaves out, once as long as they are the same.
pub(super) fn tell_of_left_out(server: &Server, before: Option<&Catalog>, now: &Catalog) {
    let names = |catalog: &Catalog| {
        let told = |(entry, why): (&LeftOut, &str)| (entry.kind.method(), entry.name.clone(), why.to_owned());
        let mut names: Vec<_> = catalog.left_out(server).map(told).collect();
        // A list that comes in another order is the same.
        names.sort_unstable();
        names.dedup();
        names
    };
    let left_out = names(now);
    let Some((list, name, why)) = left_out.first() else { return };
    if before.is_none_or(|before| names(before) != left_out) {
        let entries = left_out.len();
        let first = &*label::shown(name);
        tracing::warn!(server = %server.name, entries, list, first, why, "`/mcp` leaves out entries that clients refuse a whole list for");
    }
}
