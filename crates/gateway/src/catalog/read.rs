//! Reads what a server offers, in each era that it speaks: every list of it, whole.

use super::{Catalog, LeftOut, Offer, Tool, look::Said, view::Sums};
use crate::{
    label,
    server::Server,
    session::Leg,
    upstream::{UpstreamFault, exchange::Hop},
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

/// How long a server that speaks both eras may take to say what it offers in the legacy one.
const BESIDE: Duration = Duration::from_secs(15);

impl Hop<'_> {
    /// Reads what the server offers in each era that it said it speaks, and ends what was opened for that.
    pub(super) async fn read_all(
        &self,
        modern: Result<Said, UpstreamFault>,
        legacy: Result<Said, UpstreamFault>,
    ) -> Result<Catalog, UpstreamFault> {
        let looked_at = self.state.clock.ticks().max(1);
        let before = self.server.state.catalog.load_full();
        let mut known: Vec<Arc<Offer>> = before.iter().flat_map(|before| before.offers().cloned()).collect();
        let (offer, legacy) = match (modern, legacy) {
            (Ok(Said::Speaks(leg, identity)), legacy) => {
                let offer = self.read(leg.as_ref(), Era::Modern, &identity, &known).await.map(Arc::new);
                known.extend(offer.iter().cloned());
                let legacy = match legacy {
                    Ok(Said::Speaks(leg, identity)) => self.read_beside(leg, &identity, &known).await,
                    _ => None,
                };
                (offer, legacy)
            }
            (_, Ok(Said::Speaks(leg, identity))) => {
                let offer = self.read(leg.as_ref(), Era::Legacy, &identity, &known).await.map(Arc::new);
                self.end_all(leg).await;
                (offer, None)
            }
            (Err(fault), _) | (_, Err(fault)) => (Err(fault), None),
            (Ok(modern), Ok(legacy)) => {
                let why: Vec<_> = [modern, legacy].into_iter().filter_map(Said::why).collect();
                let why = format!("it speaks no revision that it is asked in: {}", why.join("; "));
                (Err(UpstreamFault::Protocol(why)), None)
            }
        };
        Ok(Catalog { offer: offer?, legacy: legacy.map(Arc::new), looked_at })
    }

    /// What a server offers in the legacy era beside the modern one. One that cannot say it is held to what it says in the
    /// modern one, which its clients of that era would lose as well otherwise.
    async fn read_beside(&self, leg: Option<Leg>, identity: &Message, known: &[Arc<Offer>]) -> Option<Offer> {
        let reading = timeout(BESIDE, self.read(leg.as_ref(), Era::Legacy, identity, known)).await;
        let offer = match reading.unwrap_or(Err(UpstreamFault::Timeout(BESIDE))) {
            Ok(offer) => Some(offer),
            Err(fault) => {
                let server = &self.server.name;
                tracing::warn!(%server, %fault, "what the server offers in the legacy era cannot be read; what it offers in the modern one stands for it");
                None
            }
        };
        self.end_all(leg).await;
        offer
    }

    async fn end_all(&self, leg: Option<Leg>) {
        if let Some(leg) = &leg {
            self.end(leg).await;
        }
    }

    /// Reads every list. A tool that is known from before, or from another era, is not made again.
    async fn read(
        &self,
        leg: Option<&Leg>,
        era: Era,
        identity: &Message,
        known: &[Arc<Offer>],
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
                                None => known_tool(known, &entry).unwrap_or_else(|| Arc::new(Tool::new(entry.raw))),
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
        Ok(Offer { tools, prompts, resources, templates, left_out, sums, capabilities, instructions }.summed())
    }
}

/// The tool that an entry defines, if it is one of these.
fn known_tool(known: &[Arc<Offer>], entry: &Entry<'_>) -> Option<Arc<Tool>> {
    let digest = Digest::of(entry.raw);
    known.iter().filter_map(|offer| offer.tools.get(&*entry.name)).find(|tool| tool.digest == digest).cloned()
}

/// Says which entries `/mcp` leaves out, once as long as they are the same.
pub(super) fn tell_of_left_out(server: &Server, before: Option<&Catalog>, now: &Catalog) {
    let names = |catalog: &Catalog| {
        let told = |entry: &LeftOut| Some((entry.kind.method(), entry.name.clone(), entry.why(server)?.to_owned()));
        let mut names: Vec<_> = catalog.offers().flat_map(|offer| offer.left_out.iter()).filter_map(told).collect();
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
