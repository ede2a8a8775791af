//! Holds a tree against the table of keys: unknown, repeated and missing keys, wrong types, texts that do not parse.
//!
//! Looks at one value at a time; what several say together is for `read`.

use super::{
    fault::{Fault, Faults},
    key::{Key, Shape, Word},
    quantity,
    settings::Listen,
    show::HIDDEN,
    tree::{Entry, Node, Value},
    veil,
};
use identity::ClaimPath;
use policy::nearest_name as nearest;
use url::Url;
use vocab::{AgentId, EnvironmentName, NameError, RoleName, SecretName, ServerName};

/// Reports everything in `node` that is not as `shape` says. `path` names it for people.
pub(super) fn check(node: &Node, shape: &Shape, path: &str, faults: &mut Faults) {
    if node.text() == Some(HIDDEN) {
        faults.push(
            Fault::at(&node.span, format!("`{path}` was not shown"))
                .because("this stands for the value, and is none")
                .fix("write the value again"),
        );
        return;
    }
    match shape {
        Shape::Table(keys) => table(node, keys, path, faults),
        Shape::Map(word, inner) => map(node, *word, inner, path, faults),
        Shape::List(inner) => list(node, inner, path, faults),
        Shape::Some(inner) => match &node.value {
            Value::List(_) => list(node, inner, path, faults),
            Value::Table(_) if !matches!(inner, Shape::Table(_)) => {
                hide(node, faults);
                faults.push(wrong_type(node, "a text or a list", path));
            }
            Value::Null | Value::Scalar { .. } | Value::Table(_) => check(node, inner, path, faults),
        },
        Shape::Filled(_, what, fix) if matches!(&node.value, Value::List(members) if members.is_empty()) => {
            faults.push(Fault::at(&node.span, *what).because("the list is empty").fix(*fix));
        }
        Shape::Filled(inner, ..) => check(node, inner, path, faults),
        Shape::Hidden => {
            faults.veiled.push(node.span.clone());
            if node.text().is_none() {
                faults.push(wrong_type(node, "a text", path));
            }
        }
        Shape::Switch
        | Shape::Count(..)
        | Shape::Size(..)
        | Shape::Duration
        | Shape::Rate
        | Shape::Address
        | Shape::Listen
        | Shape::Url
        | Shape::Network
        | Shape::Choice(_)
        | Shape::Word(_)
        | Shape::Text
        | Shape::Claim => scalar(node, shape, path, faults),
    }
}

fn table(node: &Node, keys: &'static [Key], path: &str, faults: &mut Faults) {
    let entries = match &node.value {
        Value::Table(entries) => entries.as_slice(),
        // `admin:` with nothing below it says nothing.
        Value::Null => &[],
        Value::Scalar { .. } | Value::List(_) => {
            hide_if_telling(path, node, faults);
            faults.push(wrong_type(node, "a table", path).fix(format!("write `{{ {}: … }}`", first_of(keys))));
            return;
        }
    };
    repeated(entries, faults);
    for entry in entries {
        match keys.iter().find(|key| key.name == entry.key) {
            Some(key) if entry.node.value == Value::Null => empty(entry, key, faults),
            Some(key) => check(&entry.node, &key.shape, &join(path, key.name), faults),
            None => {
                let near = nearest(&entry.key, keys.iter().map(|key| key.name));
                if veil::tells(&entry.key) || near.is_none_or(|near| NEAR_SECRETS.contains(&near)) {
                    hide(&entry.node, faults);
                }
                faults.push(unknown(entry, keys, near, path));
            }
        }
    }
    for key in keys.iter().filter(|key| key.required) {
        // A misspelled key was reported as such.
        let meant = |entry: &Entry| nearest(&entry.key, keys.iter().map(|key| key.name)) == Some(key.name);
        if !entries.iter().any(meant) {
            faults.push(
                Fault::at(&node.span, format!("`{}` is missing", join(path, key.name)))
                    .because("it belongs here")
                    .fix(format!("add `{}: …`. {}", key.name, key.about)),
            );
        }
    }
}

fn map(node: &Node, word: Word, inner: &Shape, path: &str, faults: &mut Faults) {
    let entries = match &node.value {
        Value::Table(entries) => entries.as_slice(),
        Value::Null => &[],
        Value::Scalar { .. } | Value::List(_) => {
            if matches!(inner, Shape::Hidden) {
                hide(node, faults);
            }
            faults.push(wrong_type(node, "a table of names", path).fix("write `name: …`, one line for each"));
            return;
        }
    };
    repeated(entries, faults);
    for entry in entries {
        if let Err(Misnamed { why, fix }) = name(word, &entry.key) {
            let what = format!("{} is no {}", veil::quote(&entry.key), kind(word));
            let fault = Fault::at(&entry.span, what).because(why);
            faults.push(match fix {
                Some(fix) => fault.fix(fix),
                None => fault,
            });
        }
        check(&entry.node, inner, &join(path, &shown(&entry.key)), faults);
    }
}

fn list(node: &Node, inner: &Shape, path: &str, faults: &mut Faults) {
    match &node.value {
        Value::List(members) => {
            for (index, member) in members.iter().enumerate() {
                check(member, inner, &format!("{path}[{index}]"), faults);
            }
        }
        Value::Null => {}
        Value::Scalar { .. } => {
            hide_if_telling(path, node, faults);
            faults.push(wrong_type(node, "a list", path).fix("put it in brackets: `[…]`"));
        }
        Value::Table(_) => {
            // `headers: { Authorization: … }` is how others write them.
            hide(node, faults);
            faults.push(wrong_type(node, "a list", path).fix("begin each member with `- `"));
        }
    }
}

fn scalar(node: &Node, shape: &Shape, path: &str, faults: &mut Faults) {
    let expected = match shape {
        Shape::Switch => "true or false",
        Shape::Count(..) => "a number",
        Shape::Size(..) => "a size",
        Shape::Duration => "a duration",
        Shape::Rate => "a rate",
        Shape::Address => "an address with a port",
        Shape::Listen => "an address with a port or a socket",
        Shape::Url => "a URL",
        Shape::Network => "a range of addresses",
        Shape::Claim => "a claim",
        _ => "a text",
    };
    let Value::Scalar { text, quoted } = &node.value else {
        hide(node, faults);
        faults.push(wrong_type(node, expected, path));
        return;
    };
    if text.contains("${") {
        faults.push(
            Fault::at(&node.span, format!("`{path}` holds a variable, but none is expanded here"))
                .because("this stays as it is written")
                .fix("write the value itself; keep secrets in the vault: `durward secret set NAME`"),
        );
        return;
    }
    let (why, fix): (String, Option<String>) = match shape {
        Shape::Switch if !quoted && matches!(text.as_str(), "true" | "false") => return,
        Shape::Switch => (expected_but(path, expected, node), Some("write `true` or `false`, without quotes".into())),
        // `'5'` is a text for whatever else reads the file, `010` is eight for some of that, and `+5` has no use.
        Shape::Count(..) if *quoted => (expected_but(path, expected, node), Some("write it without quotes".into())),
        Shape::Count(..) if text.starts_with('+') || text.len() > 1 && text.starts_with('0') => (
            format!("`{path}` must be a whole number"),
            Some("write its digits alone, the first of them not a `0`".into()),
        ),
        Shape::Count(least, most) => match text.parse::<u64>() {
            Ok(count) if (*least..=*most).contains(&count) => return,
            Ok(_) => (format!("`{path}` is out of bounds"), Some(format!("choose a number from {least} to {most}"))),
            Err(_) => (format!("`{path}` must be a whole number"), Some(format!("choose one from {least} to {most}"))),
        },
        Shape::Size(least, most) => match quantity::size(text) {
            Ok(size) if (*least..=*most).contains(&size) => return,
            Ok(_) => (
                format!("`{path}` is out of bounds"),
                Some(format!("choose a size from {} to {}", quantity::print_size(*least), quantity::print_size(*most))),
            ),
            Err(expected) => (format!("`{path}` is not a size"), Some(expected.into())),
        },
        Shape::Duration => match quantity::duration(text) {
            Ok(duration) if duration.is_zero() => (format!("`{path}` is zero"), Some("write at least `1ms`".into())),
            Ok(_) => return,
            Err(most @ quantity::TOO_LONG) => (format!("`{path}` is too long"), Some(most.into())),
            Err(expected) => (format!("`{path}` is not a duration"), Some(expected.into())),
        },
        Shape::Rate => match quantity::rate(text) {
            Ok(_) => return,
            Err(most @ quantity::TOO_LONG) => (format!("the time of `{path}` is too long"), Some(most.into())),
            Err(most @ quantity::TOO_MANY) => (format!("the count of `{path}` is too large"), Some(most.into())),
            Err(expected) => (format!("`{path}` is not a rate"), Some(expected.into())),
        },
        Shape::Network => match quantity::network(text) {
            Ok(_) => return,
            Err(expected) => (format!("`{path}` is not a range of addresses"), Some(expected.into())),
        },
        Shape::Listen => match text.parse::<Listen>() {
            Ok(_) => return,
            Err(()) => (
                format!("`{path}` is neither an address with a port nor a socket"),
                Some(
                    "write `127.0.0.1:7420`, `[::1]:7420` or `unix:/run/durward.sock`; names are not resolved here"
                        .into(),
                ),
            ),
        },
        Shape::Address => match text.parse::<std::net::SocketAddr>() {
            Ok(_) => return,
            Err(_) => (
                format!("`{path}` is not an address with a port"),
                Some("write `127.0.0.1:7420`, `0.0.0.0:7420` or `[::1]:7420`; names are not resolved here".into()),
            ),
        },
        Shape::Url => match url(text) {
            Ok(_) => return,
            Err((why, fix)) => {
                if text.contains('@') {
                    hide(node, faults);
                }
                (format!("`{path}` {why}"), Some(fix.into()))
            }
        },
        Shape::Choice(choices) if choices.contains(&text.as_str()) => return,
        Shape::Choice(choices) => {
            let nearest = nearest(text, choices.iter().copied());
            (
                format!("{} is not known for `{path}`", veil::quote(text)),
                Some(match nearest {
                    Some(near) => format!("did you mean `{near}`? Known are {}", quoted_list(choices)),
                    None => format!("write one of {}", quoted_list(choices)),
                }),
            )
        }
        Shape::Word(word) => {
            if *word == Word::Secret && veil::looks_secret(text) {
                hide(node, faults);
                faults.push(
                    Fault::at(&node.span, format!("`{path}` holds what looks like the secret itself"))
                        .because("the name of a secret belongs here")
                        .fix(
                            "store it with `durward secret set NAME`, write NAME here, and renew it: it was in a file",
                        ),
                );
                return;
            }
            if *word == Word::Header && reserved(text) {
                faults.push(
                    Fault::at(&node.span, format!("`{text}` is a header of the gateway's own"))
                        .because("neither a client nor a secret fills it")
                        .fix("remove it"),
                );
                return;
            }
            match name(*word, text) {
                Ok(()) => return,
                Err(Misnamed { why, fix: Some(fix) }) => {
                    let fault = Fault::at(&node.span, format!("`{path}` is no {}", kind(*word)));
                    faults.push(fault.because(why).fix(fix));
                    return;
                }
                Err(Misnamed { why, fix: None }) => {
                    if matches!(word, Word::Secret | Word::Header | Word::Variable) {
                        hide(node, faults);
                    }
                    (format!("`{path}` is no {}", kind(*word)), Some(why))
                }
            }
        }
        Shape::Claim => match text.parse::<ClaimPath>() {
            Ok(_) => return,
            Err(_) => (
                format!("`{path}` names no claim"),
                Some("write `claim:` and the name or path of a claim: `claim:sub`, `claim:realm_access.roles`".into()),
            ),
        },
        _ if text.trim().is_empty() => (format!("`{path}` is empty"), Some("write a value or remove the key".into())),
        _ => return,
    };
    let fault = Fault::at(&node.span, why);
    faults.push(match fix {
        Some(fix) => fault.fix(fix),
        None => fault,
    });
}

/// An address over HTTP, without a password and without a fragment.
pub(super) fn url(text: &str) -> Result<Url, (&'static str, &'static str)> {
    const EXAMPLE: &str = "write a full address: `https://mcp.example.com/mcp`";
    let url = Url::parse(text).map_err(|_| ("is not a URL", EXAMPLE))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(("is not a URL over HTTP", EXAMPLE));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(("contains a user or a password", "remove it; use `credential:` and a secret of the vault"));
    }
    if url.fragment().is_some() {
        return Err(("contains a fragment", "remove everything from `#` on"));
    }
    Ok(url)
}

/// Why a text is none of its kind, and what to do where that does not say it.
struct Misnamed {
    why: String,
    fix: Option<&'static str>,
}

impl From<String> for Misnamed {
    fn from(why: String) -> Self {
        Self { why, fix: None }
    }
}

fn name(word: Word, text: &str) -> Result<(), Misnamed> {
    let said = |result: Result<(), NameError>| -> Result<(), Misnamed> {
        result.map_err(|fault| {
            let text = fault.to_string();
            text.rsplit(": ").next().unwrap_or_default().to_owned().into()
        })
    };
    match word {
        Word::Agent => said(AgentId::new(text).map(drop)),
        Word::Server => said(ServerName::new(text).map(drop)),
        Word::Role => said(RoleName::new(text).map(drop)),
        Word::Environment => said(EnvironmentName::new(text).map(drop)),
        Word::Secret => said(SecretName::new(text).map(drop)),
        Word::Header => {
            let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            if text.is_empty() || !text.bytes().all(token) {
                return Err("a header's name has letters, digits and `-`, and no colon".to_owned().into());
            }
            Ok(())
        }
        Word::Variable => {
            let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
            if first && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                Ok(())
            } else {
                Err("a variable's name has letters, digits and `_`, and does not begin with a digit".to_owned().into())
            }
        }
        Word::Target if !text.contains('/') => Err(format!(
            "write `server/name` as a glob: `{}/*` for a server, `*/{}` for a tool",
            shown(text),
            shown(text)
        )
        .into()),
        Word::Glob | Word::Target => glob(text),
    }
}

/// Headers that never travel on and never carry a secret of the vault.
const RESERVED: [&str; 17] = [
    "accept",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "forwarded",
    "host",
    "keep-alive",
    "last-event-id",
    "origin",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "set-cookie",
];

fn reserved(header: &str) -> bool {
    let lower = header.to_ascii_lowercase();
    RESERVED.contains(&lower.as_str()) || ["mcp-", "x-forwarded-"].iter().any(|start| lower.starts_with(start))
}

fn glob(text: &str) -> Result<(), Misnamed> {
    let wrong = |why: String, fix| Err(Misnamed { why, fix: Some(fix) });
    if text.is_empty() {
        return wrong("it is empty".to_owned(), "write `*`, which matches everything");
    }
    match globset::GlobBuilder::new(text).literal_separator(false).build() {
        Ok(glob) if policy::by_character(text) && policy::engine(&glob).is_err() => wrong(
            "it takes too much to match it".to_owned(),
            "write it with fewer `?` and `[…]`; `*` is any run of characters",
        ),
        Ok(_) => Ok(()),
        Err(fault) => {
            wrong(fault.kind().to_string(), "close each `[` and `{`, or put `\\` before a letter that is meant as such")
        }
    }
}

fn repeated(entries: &[Entry], faults: &mut Faults) {
    for (index, entry) in entries.iter().enumerate() {
        if entries.iter().take(index).any(|earlier| earlier.key == entry.key) {
            faults.push(
                Fault::at(&entry.span, format!("{} is written twice", veil::quote(&entry.key)))
                    .because("it was given above")
                    .fix("keep one of them"),
            );
        }
    }
}

/// Keys beside which people write secrets: what stands under a misspelling of one is not shown.
const NEAR_SECRETS: [&str; 8] = ["credential", "bearer", "header", "query", "env", "secret", "secrets", "key"];

fn unknown(entry: &Entry, keys: &'static [Key], near: Option<&str>, path: &str) -> Fault {
    let place = if path.is_empty() { "the file".to_owned() } else { format!("`{path}`") };
    let fault = Fault::at(&entry.span, format!("unknown key {} in {place}", veil::quote(&entry.key)));
    if entry.key == "<<" {
        return fault.because("merging tables is not supported").fix("repeat the keys");
    }
    if let Some(near) = near {
        return fault.because(format!("did you mean `{near}`?")).fix(format!("write `{near}`"));
    }
    let names: Vec<_> = keys.iter().map(|key| key.name).collect();
    fault.because("nothing reads this").fix(format!("known here are {}", quoted_list(&names)))
}

fn empty(entry: &Entry, key: &Key, faults: &mut Faults) {
    let fault = Fault::at(&entry.span, format!("`{}` has no value", key.name)).fix("write a value or remove the key");
    // What says nothing may wait for what comes; a table that cannot be without some of its keys was begun.
    let may_wait = match &key.shape {
        Shape::Table(keys) => keys.iter().all(|key| !key.required),
        Shape::Map(..) | Shape::List(_) => true,
        _ => false,
    };
    faults.push(if may_wait && !key.required { fault.warning() } else { fault });
}

fn wrong_type(node: &Node, expected: &str, path: &str) -> Fault {
    Fault::at(&node.span, expected_but(path, expected, node))
}

fn expected_but(path: &str, expected: &str, node: &Node) -> String {
    let found = node.describe();
    if path.is_empty() {
        return format!("expected {expected}, found {found}");
    }
    format!("`{path}` must be {expected}, not {found}")
}

/// Covers everything in `node`: nobody knows what it is.
fn hide(node: &Node, faults: &mut Faults) {
    match &node.value {
        Value::Null => {}
        Value::Scalar { text, .. } => {
            if !matches!(text.as_str(), "true" | "false") {
                faults.veiled.push(node.span.clone());
            }
        }
        Value::List(members) => members.iter().for_each(|member| hide(member, faults)),
        Value::Table(entries) => entries.iter().for_each(|entry| hide(&entry.node, faults)),
    }
}

fn hide_if_telling(path: &str, node: &Node, faults: &mut Faults) {
    let is_near = |key: &str| ["headers", "vault", "env"].contains(&key) || key.starts_with("credential");
    if path.split('.').any(is_near) || path.rsplit('.').next().is_some_and(veil::tells) {
        hide(node, faults);
    }
}

fn quoted_list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn shown(key: &str) -> String {
    if veil::looks_secret(key) { "[hidden]".to_owned() } else { veil::quote(key).trim_matches('`').to_owned() }
}

fn first_of(keys: &[Key]) -> &'static str {
    keys.first().map_or("…", |key| key.name)
}

const fn kind(word: Word) -> &'static str {
    match word {
        Word::Agent => "name of an agent",
        Word::Server => "name of a server",
        Word::Role => "name of a role",
        Word::Environment => "name of an environment",
        Word::Secret => "name of a secret",
        Word::Header => "name of a header",
        Word::Variable => "name of a variable",
        Word::Glob | Word::Target => "glob",
    }
}
