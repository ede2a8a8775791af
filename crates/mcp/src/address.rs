//! Addresses of resources in the aggregate: they carry their server.
//!
//! `ui://REST` of a server becomes `ui://SERVER/REST`, for hosts of apps render nothing of another scheme. Any other
//! `ADDRESS` becomes `durward://SERVER/ADDRESS`. The server stands where a URI has its authority, so that no reader who
//! tidies paths can make one server's address another's, and the address itself stands at the end as it is: what is left
//! of a template is the template of what is shown. Where addresses stand in messages is the business of `place`.
//!
//! INVARIANT: a pair has one form and a form one pair. A server's name has no `/`, so the first one ends it; an address
//! that begins with `ui://` has no form of the second kind. What a form means depends on nothing else: not on what
//! servers list, nor on which of them there are.

mod place;

use crate::{Entry, ListKind, name, splice, splice::quote};
use bytes::Bytes;
use std::borrow::Cow;

pub use place::{heard, said};

/// The scheme of apps, which they keep.
const APP: &str = "ui://";
/// The scheme of all other addresses.
const OTHER: &str = "durward://";

/// The address, or template of addresses, `address` of `server` in the aggregate.
pub fn join(server: &str, address: &str) -> String {
    match address.strip_prefix(APP) {
        Some(rest) => format!("{APP}{server}/{rest}"),
        None => format!("{OTHER}{server}/{address}"),
    }
}

/// The server and its own address of what [`join`] made. Nothing else has any.
pub fn split(shown: &str) -> Option<(&str, Cow<'_, str>)> {
    if let Some(rest) = shown.strip_prefix(APP) {
        let (server, rest) = rest.split_once('/')?;
        return (!server.is_empty()).then(|| (server, Cow::Owned(format!("{APP}{rest}"))));
    }
    let (server, address) = shown.strip_prefix(OTHER)?.split_once('/')?;
    (!server.is_empty() && !address.starts_with(APP)).then_some((server, Cow::Borrowed(address)))
}

/// Whether an address is one of the web, which means the same whoever names it.
pub fn is_web(address: &str) -> bool {
    address.starts_with("https://") || address.starts_with("http://")
}

/// Whether a text could hold an address, or a key that has one. Most do not, which is cheaper to see than where; letters
/// may be spelled by escapes.
pub fn may_occur(text: &[u8]) -> bool {
    [&b"uri"[..], b"ui:", b"\\u00"].into_iter().any(|word| memchr::memmem::find(text, word).is_some())
}

/// The name or address of an entry of a list of `server` in the aggregate, and the entry as it is listed there: under that
/// name, with the addresses of apps in its metadata. Every other byte is kept.
pub fn entry(entry: &Entry<'_>, kind: ListKind, server: &str) -> (String, Bytes) {
    let shown = match kind {
        ListKind::Tools | ListKind::Prompts => name::join(server, &entry.name),
        ListKind::Resources | ListKind::Templates => join(server, &entry.name),
    };
    let mut edits = if may_occur(entry.raw) { place::of_entry(entry.raw, server) } else { Vec::new() };
    let start = entry.name_span.start - entry.span.start;
    edits.push((start..start + entry.name_span.len(), quote(&shown).into_bytes()));
    (shown, splice(entry.raw, &mut edits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_carry_their_server_and_apps_keep_their_scheme() {
        for (address, shown) in [
            ("ui://weather/view.html", "ui://s/weather/view.html"),
            ("ui://{city}/view{?units}", "ui://s/{city}/view{?units}"),
            ("ui://", "ui://s/"),
            ("file:///a b", "durward://s/file:///a b"),
            ("memo:notes", "durward://s/memo:notes"),
            ("db://{table}/{+row}", "durward://s/db://{table}/{+row}"),
            ("durward://s/ui://x", "durward://s/durward://s/ui://x"),
            ("UI://x", "durward://s/UI://x"),
            ("", "durward://s/"),
        ] {
            assert_eq!(join("s", address), shown);
            assert_eq!(split(shown), Some(("s", address.into())));
        }
    }

    #[test]
    fn what_carries_no_server_is_no_address_here() {
        for text in
            ["file:///a", "ui://view", "ui:///view", "durward:///a", "durward://s", "durward://s/ui://x", "", "s/a"]
        {
            assert_eq!(split(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_address_leads_back_to_its_server_and_to_no_other(
            one in ("[A-Za-z0-9_.-]{1,8}", "(ui://|durward://|file:///)?[a-c/:u]{0,6}|.{0,40}"),
            other in ("[A-Za-z0-9_.-]{1,8}", "(ui://|durward://|file:///)?[a-c/:u]{0,6}|.{0,40}"),
        ) {
            let (shown, second) = (join(&one.0, &one.1), join(&other.0, &other.1));
            prop_assert_eq!(split(&shown), Some((one.0.as_str(), Cow::Borrowed(one.1.as_str()))));
            prop_assert_eq!(shown == second, one == other);
        }

        #[test]
        fn close_pairs_stay_apart(
            a in "[a.]{1,2}", b in "(ui://|durward://)?[a./]{0,6}", c in "[a.]{1,2}", d in "(ui://|durward://)?[a./]{0,6}",
        ) {
            prop_assert_eq!(join(&a, &b) == join(&c, &d), (a, b) == (c, d));
        }

        #[test]
        fn whatever_is_an_address_here_is_the_only_spelling_of_it(
            shown in "(ui://|durward://)[a/]{0,4}(ui://|durward://)?[a/]{0,4}",
        ) {
            if let Some((server, address)) = split(&shown) {
                prop_assert_eq!(join(server, &address), shown.clone());
            }
        }
    }
}
