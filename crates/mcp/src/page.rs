//! Pages to visit in the aggregate: their ids (`elicitationId` of 2025-11-25) carry their server, `SERVER/ID`.
//!
//! Servers choose them, and two may choose alike: what one says of its own page would be said of another's. No client
//! says such an id to a server; it keeps them, and learns by them that a page was dealt with. So they have one way alone.
//!
//! INVARIANT: a server's name has no `/`, so the first one ends it, and no server can say an id of another.
//! SECURITY: names of members count in any case, for some readers ignore it, and an id that is no text is made one.

use crate::{Kind, Member, Message, Span, scan::folds_to, splice::quote, walk::Walk};

type Edits = Vec<(Span, Vec<u8>)>;

/// Whether a message could name a page. What it is says so, and nothing is read.
pub fn may_be_named(message: &Message) -> bool {
    match message.kind() {
        Kind::Response => message.error().is_some(),
        Kind::Request => message.method() == "elicitation/create",
        Kind::Notification => message.method() == "notifications/elicitation/complete",
    }
}

/// What is another in what `server` says, as the aggregate says it. The code of an error does not matter: clients differ
/// in what they read.
pub fn said(message: &Message, server: &str) -> Edits {
    let (text, mut edits) = (message.bytes(), Vec::new());
    if !may_be_named(message) {
        return edits;
    }
    let place = |member: Option<Member<'_>>| member.map(|member| member.span).into_iter().collect::<Vec<_>>();
    let named = match message.kind() {
        Kind::Response => {
            let lists = under(text, under(text, place(message.error_member()), "data"), "elicitations");
            lists.iter().flat_map(|list| elements(text, list)).collect()
        }
        Kind::Request | Kind::Notification => place(message.params_member()),
    };
    for span in under(text, named, "elicitationid") {
        let raw = text.get(span.clone()).unwrap_or_default();
        let id = Member { span: span.clone(), raw };
        let id = id.text().unwrap_or_else(|| String::from_utf8_lossy(raw));
        edits.push((span, quote(&format!("{server}/{id}")).into_bytes()));
    }
    edits
}

/// The members called `name`, which is in small letters, of the objects at these places.
fn under(text: &[u8], places: Vec<Span>, name: &str) -> Vec<Span> {
    let mut found = Vec::new();
    for place in places {
        let mut walk = Walk::new(text.get(place.clone()).unwrap_or_default(), place.start);
        while let Some((key, span)) = walk.member() {
            if folds_to(key.as_bytes(), name.as_bytes()) {
                found.push(span);
            }
        }
    }
    found
}

fn elements(text: &[u8], list: &Span) -> Vec<Span> {
    let mut walk = Walk::new(text.get(list.clone()).unwrap_or_default(), list.start);
    std::iter::from_fn(|| walk.element()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Body, Limits, scan, splice};
    use bytes::Bytes;

    fn shown(text: &str) -> String {
        let Ok(Body::Single(message)) = scan(Bytes::copy_from_slice(text.as_bytes()), &Limits::default()) else {
            unreachable!("not a message: {text}")
        };
        String::from_utf8(splice(message.bytes(), &mut said(&message, "s")).to_vec()).unwrap()
    }

    #[test]
    fn ids_of_pages_carry_their_server_and_nothing_else_changes() {
        let complete = |params: &str| {
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/elicitation/complete","params":{params}}}"#)
        };
        let asked =
            |params: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"elicitation/create","params":{params}}}"#);
        let away =
            |data: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":1,"message":"","data":{data}}}}}"#);
        let result = |text: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"result":{text}}}"#);
        for (before, after) in [
            (
                complete(r#"{"elicitationId":"a","x":{"elicitationId":"a"}}"#),
                r#"{"elicitationId":"s/a","x":{"elicitationId":"a"}}"#,
            ),
            (complete(r#"{"elicitationId":"o/a"}"#), r#"{"elicitationId":"s/o/a"}"#),
            (
                complete(r#"{"ElicitationID":"a","elicitation\u0049d":"b"}"#),
                r#"{"ElicitationID":"s/a","elicitation\u0049d":"s/b"}"#,
            ),
            (complete(r#"{"elicitationId": 7}"#), r#"{"elicitationId": "s/7"}"#),
            (complete(r#"{"elicitationId":["a"]}"#), r#"{"elicitationId":"s/[\"a\"]"}"#),
            (
                asked(r#"{"mode":"url","elicitationId":"a","url":"https://a"}"#),
                r#"{"mode":"url","elicitationId":"s/a","url":"https://a"}"#,
            ),
            (
                away(r#"{"elicitations":[{"elicitationId":"a"},1,{"elicitationId":"b"}],"elicitationId":"c"}"#),
                r#"{"elicitations":[{"elicitationId":"s/a"},1,{"elicitationId":"s/b"}],"elicitationId":"c"}"#,
            ),
            (away(r#""a""#), r#""a""#),
            (result(r#"{"elicitationId":"a"}"#), r#"{"elicitationId":"a"}"#),
        ] {
            assert!(shown(&before).contains(after), "{before} {}", shown(&before));
        }
        let other = r#"{"jsonrpc":"2.0","id":1,"method":"roots/list","params":{"elicitationId":"a"}}"#;
        assert_eq!(shown(other), other);
    }
}
