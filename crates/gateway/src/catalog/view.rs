//! What a caller sees of the lists, as digests: enough to tell whether a list became another for this very caller, and
//! nothing that grows with the lists. Never sends anything.

use super::{Changes, LeftOut, Offer};
use crate::{bridge, call::Route, pipeline::Line, release::list_action, server::Server};
use mcp::{Era, ListKind};
use policy::Subject;
use vocab::Digest;

/// The sum of the digests of a list's entries, in whatever order they come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sum([u64; 4]);

impl Sum {
    /// One entry more.
    pub(crate) fn add(&mut self, entry: &Digest) {
        let (words, _) = entry.as_bytes().as_chunks::<8>();
        for (sum, word) in self.0.iter_mut().zip(words) {
            *sum = sum.wrapping_add(u64::from_be_bytes(*word));
        }
    }

    /// One entry less.
    fn take(&mut self, entry: &Digest) {
        let (words, _) = entry.as_bytes().as_chunks::<8>();
        for (sum, word) in self.0.iter_mut().zip(words) {
            *sum = sum.wrapping_sub(u64::from_be_bytes(*word));
        }
    }

    fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// The lists of one server. Templates count as resources, as in the notification that tells of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) tools: Sum,
    pub(crate) prompts: Sum,
    pub(crate) resources: Sum,
}

impl Sums {
    /// The sum that entries of this kind are part of.
    pub(crate) const fn of(&mut self, kind: ListKind) -> &mut Sum {
        match kind {
            ListKind::Tools => &mut self.tools,
            ListKind::Prompts => &mut self.prompts,
            ListKind::Resources | ListKind::Templates => &mut self.resources,
        }
    }

    /// The lists that are not empty.
    pub(crate) fn present(&self) -> Changes {
        Changes {
            tools: !self.tools.is_empty(),
            prompts: !self.prompts.is_empty(),
            resources: !self.resources.is_empty(),
        }
    }
}

impl Offer {
    /// What lists of this kind hold, each with the digest of its definition.
    pub(super) fn digests(&self, kind: ListKind) -> Box<dyn Iterator<Item = (&str, Digest)> + '_> {
        match kind {
            ListKind::Tools => Box::new(self.tools.iter().map(|(name, tool)| (&**name, tool.digest))),
            ListKind::Prompts => Box::new(self.prompts.iter().map(|(name, digest)| (&**name, *digest))),
            ListKind::Resources => Box::new(self.resources.iter().map(|(uri, digest)| (&**uri, *digest))),
            ListKind::Templates => Box::new(self.templates.iter().map(|(uri, digest)| (&**uri, *digest))),
        }
    }

    /// Whether it holds this very definition. Of two of one name it holds one.
    fn holds(&self, entry: &LeftOut) -> bool {
        let name = &*entry.name;
        let known = match entry.kind {
            ListKind::Tools => self.tools.get(name).map(|tool| &tool.digest),
            ListKind::Prompts => self.prompts.get(name),
            ListKind::Resources => self.resources.get(name),
            ListKind::Templates => return true,
        };
        known == Some(&entry.digest)
    }

    /// The same with the sums of all that it lists.
    pub(super) fn summed(mut self) -> Self {
        let mut sums = Sums::default();
        for kind in ListKind::ALL {
            for (_, digest) in self.digests(kind) {
                sums.of(kind).add(&digest);
            }
        }
        self.sums = sums;
        self
    }
}

/// What a subject sees of one server through a door, as far as it is known.
fn of_server(line: &Line, subject: &Subject, server: &Server, (era, route): (Era, &Route)) -> Option<Sums> {
    let catalog = server.state.catalog.load_full()?;
    let offer = catalog.spoken(bridge::spoken(era, server));
    let policies = &line.snapshot.policies;
    let mut sums = Sums::default();
    let mut all = offer.sums;
    for kind in ListKind::ALL {
        let action = list_action(kind);
        if policies.sees_all(subject, action, server.root()) {
            *sums.of(kind) = *all.of(kind);
            continue;
        }
        for (name, digest) in offer.digests(kind) {
            if policies.visible(subject, action, &server.resource(name)) {
                sums.of(kind).add(&digest);
            }
        }
    }
    for entry in offer.left_out.iter().filter(|entry| entry.is_missing(server, era, route) && offer.holds(entry)) {
        if policies.visible(subject, list_action(entry.kind), &server.resource(&entry.name)) {
            sums.of(entry.kind).take(&entry.digest);
        }
    }
    Some(sums)
}

/// What a subject sees through one door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    tools: Digest,
    prompts: Digest,
    resources: Digest,
}

impl View {
    /// Looks. `adjust` may know better what a server shows this caller. `None` on the door of a server that nobody has
    /// looked at.
    pub(crate) fn of(
        line: &Line,
        subject: &Subject,
        era: Era,
        route: &Route,
        mut adjust: impl FnMut(&Server, &mut Sums),
    ) -> Option<Self> {
        let mut lists = [Vec::new(), Vec::new(), Vec::new()];
        for server in line.snapshot.reachable(subject) {
            let is_behind = match route {
                Route::All => !bridge::is_out_of_reach(era, server),
                Route::One(name) => server.name == *name,
            };
            if !is_behind {
                continue;
            }
            let Some(mut sums) = of_server(line, subject, server, (era, route)) else {
                if *route == Route::All {
                    continue;
                }
                return None;
            };
            adjust(server, &mut sums);
            for (list, sum) in lists.iter_mut().zip([sums.tools, sums.prompts, sums.resources]) {
                if !sum.is_empty() {
                    list.extend_from_slice(server.name.as_str().as_bytes());
                    list.push(0);
                    list.extend(sum.0.iter().flat_map(|word| word.to_be_bytes()));
                }
            }
        }
        let [tools, prompts, resources] = lists.map(|list| Digest::of(&list));
        Some(Self { tools, prompts, resources })
    }

    /// Which lists are others than they were.
    pub(crate) fn since(self, before: Self) -> Changes {
        Changes {
            tools: self.tools != before.tools,
            prompts: self.prompts != before.prompts,
            resources: self.resources != before.resources,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Sum;
    use vocab::Digest;

    #[test]
    fn a_sum_knows_its_entries_and_not_their_order() {
        let sum = |entries: &[&str]| {
            let mut sum = Sum::default();
            for entry in entries {
                sum.add(&Digest::of(entry.as_bytes()));
            }
            sum
        };
        assert_eq!(sum(&["a", "b"]), sum(&["b", "a"]));
        assert_ne!(sum(&["a", "b"]), sum(&["a", "c"]));
        assert_ne!(sum(&["a"]), sum(&["a", "a"]));
        assert!(sum(&[]).is_empty());
        let mut less = sum(&["a", "b", "c"]);
        less.take(&Digest::of(b"b"));
        assert_eq!(less, sum(&["a", "c"]));
    }
}
