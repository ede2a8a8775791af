//! Reads what a server offers, in one look: every list of it, whole.

use super::{Catalog, LeftOut, Tool, view::Sums};
use crate::{
    label,
    server::Server,
    session::Leg,
    upstream::{UpstreamFault, exchange::Hop},
};
use mcp::{Era, ListKind, Message};
use serde_json::Value;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use vocab::Digest;

impl Hop<'_> {
    /// Reads every list.
    pub(super) async fn read(
        &self,
        leg: Option<&Leg>,
        era: Era,
        identity: &Message,
        now: u64,
    ) -> Result<Catalog, UpstreamFault> {
        let capabilities =
            identity.outcome_member(&["capabilities"]).and_then(|member| member.value().ok()).unwrap_or(Value::Null);
        let instructions = identity
            .outcome_member(&["instructions"])
            .and_then(|member| member.text().map(std::borrow::Cow::into_owned));
        let before = self.server.state.catalog.load_full();
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
                            let known = before.as_ref().and_then(|before| before.tools.get(&name));
                            let tool = match (tools.get(&name), known) {
                                (Some(twice), _) => Tool::and(twice, entry.raw),
                                (None, Some(tool)) if tool.digest == Digest::of(entry.raw) => Arc::clone(tool),
                                (None, _) => Arc::new(Tool::new(entry.raw)),
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
        let (sums, looked_at) = (Sums::default(), now.max(1));
        Ok(Catalog { tools, prompts, resources, templates, left_out, sums, capabilities, instructions, looked_at }
            .summed())
    }
}

/// Says which entries `/mcp` leaves out, once as long as they are the same.
pub(super) fn tell_of_left_out(server: &Server, before: Option<&Catalog>, now: &Catalog) {
    let names = |catalog: &Catalog| {
        let told = |entry: &LeftOut| Some((entry.kind.method(), entry.name.clone(), entry.why(server)?.to_owned()));
        let mut names: Vec<_> = catalog.left_out.iter().filter_map(told).collect();
        // A list that comes in another order is the same.
        names.sort_unstable();
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
