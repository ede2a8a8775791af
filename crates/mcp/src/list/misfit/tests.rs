use super::*;
use crate::{Body, Limits, list, scan};
use proptest::prelude::*;

fn judged(kind: ListKind, entry: &str) -> Option<Misfit> {
    let text = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"{}":[{entry}]}}}}"#, kind.member());
    let Ok(Body::Single(message)) = scan(text.into(), &Limits::default()) else { unreachable!("{entry}") };
    misfit(list::entries(&message, kind).unwrap().first().unwrap(), kind)
}

#[test]
fn what_sdks_refuse_a_list_for_is_found_and_nothing_else() {
    use ListKind::{Prompts, Resources, Templates, Tools};
    let fits = [
        (Tools, r#"{"name":"a","inputSchema":{"type":"object"}}"#),
        (
            Tools,
            r#"{ "inputSchema" : { "x":[{"type":1}], "properties" : { "a":{"type":["string"]} , "type" : {} } , "required":["a"] , "type" : "object" } , "name" : "a" , "size":null }"#,
        ),
        (
            Tools,
            r#"{"name":"a","inputSchema":{"type":"object","properties":{}},"outputSchema":{"type":"object"},"title":"","annotations":{},"icons":[],"_meta":{},"execution":{},"description":"\"}"}"#,
        ),
        (Tools, r#"{"name":"a","inputSchema":{"typ\u0065":"obj\u0065ct"}}"#),
        (
            Tools,
            r#"{"name":"a","inputSchema":{"type":"object","required":[ ]},"annotations":{ "title":"b" , "readOnlyHint":true,"openWorldHint":false,"size":{} },"icons":[ {"theme":"d\u0061rk","src":"c","sizes":["any"],"more":1} , {"src":"d"} ],"execution":{"taskSupport":"optional"}}"#,
        ),
        (Prompts, r#"{"name":"a","inputSchema":1,"arguments":[{"name":"b"}]}"#),
        (
            Prompts,
            r#"{"name":"a","arguments":[{"required":false,"name":"b","title":null,"description":"","icons":1},{"name":"c"}],"annotations":1}"#,
        ),
        (
            Resources,
            r#"{"uri":"a:b","name":"b","size":1.0,"annotations":{"audience":["user","\u0061ssistant"],"priority":0.5,"lastModified":"2025-01-12T15:00:58Z"}}"#,
        ),
        (Resources, r#"{"uri":"a:b","name":"b","size":-1,"mimeType":"c"}"#),
        (Templates, r#"{"uriTemplate":"a:{b}","name":"b","size":"any"}"#),
    ];
    for (kind, entry) in fits {
        assert_eq!(judged(kind, entry), None, "{entry}");
    }
    let misfits = [
        (Tools, r#"{"name":"a"}"#, "it has no `inputSchema`", false),
        (Tools, r#"{"name":"a","inputSchema":null}"#, "`inputSchema` is not an object", false),
        (Tools, r#"{"name":"a","inputSchema":{}}"#, "`inputSchema` has no `type` that is \"object\"", false),
        (
            Tools,
            r#"{"name":"a","inputSchema":{"properties":{"type":{"type":"object"}}}}"#,
            "`inputSchema` has no `type` that is \"object\"",
            false,
        ),
        (
            Tools,
            r#"{"name":"a","inputSchema":{"type":["object"]}}"#,
            "`inputSchema` has no `type` that is \"object\"",
            false,
        ),
        (
            Tools,
            r#"{"name":"a","inputSchema":{"type":"object","properties":{"b":true}}}"#,
            "`b` in `inputSchema` is not an object",
            true,
        ),
        (
            Tools,
            r#"{"name":"a","inputSchema":{"type":"object","required":null}}"#,
            "`required` in `inputSchema` is not a list of texts",
            true,
        ),
        (
            Tools,
            r#"{"name":"a","inputSchema":{"type":"object"},"outputSchema":{"type":"array"}}"#,
            "`outputSchema` has no `type` that is \"object\"",
            true,
        ),
        (Tools, r#"{"name":"a","outputSchema":{},"inputSchema":1}"#, "`inputSchema` is not an object", false),
        (
            Tools,
            r#"{"name":"a","inputSchema":{"type":"object"},"description":null}"#,
            "`description` is not text",
            false,
        ),
        (
            Tools,
            r#"{"name":"a","inputSchema":{"type":"object"},"annotations":{"readOnlyHint":"true"}}"#,
            "`readOnlyHint` in `annotations` is not `true` or `false`",
            false,
        ),
        (
            Tools,
            r#"{"name":"a","inputSchema":{"type":"object"},"annotations":{"title":1}}"#,
            "`title` in `annotations` is not text",
            false,
        ),
        (
            Tools,
            r#"{"name":"a","inputSchema":{"type":"object"},"annotations":[]}"#,
            "`annotations` is not an object",
            false,
        ),
        (
            Tools,
            r#"{"name":"a","inputSchema":{"type":"object"},"icons":[{"mimeType":"a/b"}]}"#,
            "an entry of `icons` has no `src`",
            false,
        ),
        (
            Tools,
            r#"{"name":"a","inputSchema":{"type":"object"},"icons":["a"]}"#,
            "an entry of `icons` is not an object",
            false,
        ),
        (
            Tools,
            r#"{"name":"a","inputSchema":{"type":"object"},"icons":[{"src":"a","sizes":"1x1"}]}"#,
            "`sizes` in `icons` is not a list of texts",
            false,
        ),
        (
            Tools,
            r#"{"name":"a","inputSchema":{"type":"object"},"icons":[{"src":"a","sizes":["1x1",1]}]}"#,
            "`sizes` in `icons` is not a list of texts",
            false,
        ),
        (
            Tools,
            r#"{"name":"a","inputSchema":{"type":"object"},"icons":[{"src":"a","theme":"blue"}]}"#,
            "`theme` in `icons` is not \"light\" or \"dark\"",
            false,
        ),
        (Tools, r#"{"name":"a","inputSchema":{"type":"object"},"execution":1}"#, "`execution` is not an object", false),
        (
            Tools,
            r#"{"name":"a","inputSchema":{"type":"object"},"execution":null}"#,
            "`execution` is not an object",
            true,
        ),
        (
            Tools,
            r#"{"name":"a","inputSchema":{"type":"object"},"execution":{"taskSupport":"never"}}"#,
            "`taskSupport` in `execution` is not \"required\", \"optional\" or \"forbidden\"",
            false,
        ),
        (
            Tools,
            r#"{"name":"a","inputSchema":{"type":"object"},"execution":{"taskSupport":null}}"#,
            "`taskSupport` in `execution` is not \"required\", \"optional\" or \"forbidden\"",
            true,
        ),
        (
            Tools,
            r#"{"name":"a","inputSchema":{"type":"object","required":["b",1]}}"#,
            "`required` in `inputSchema` is not a list of texts",
            true,
        ),
        (
            Tools,
            r#"{"name":"a","inputSchema":{"type":"object","$schema":1}}"#,
            "`$schema` in `inputSchema` is not text",
            false,
        ),
        (
            Resources,
            r#"{"uri":"a:b","name":"b","annotations":{"audience":["other"]}}"#,
            "`audience` in `annotations` is not a list of roles",
            false,
        ),
        (
            Resources,
            r#"{"uri":"a:b","name":"b","annotations":{"audience":"user"}}"#,
            "`audience` in `annotations` is not a list of roles",
            false,
        ),
        (
            Templates,
            r#"{"uriTemplate":"a:{b}","name":"b","annotations":{"priority":1.5}}"#,
            "`priority` in `annotations` is not a number from 0 to 1",
            false,
        ),
        (
            Resources,
            r#"{"uri":"a:b","name":"b","annotations":{"priority":"1"}}"#,
            "`priority` in `annotations` is not a number from 0 to 1",
            false,
        ),
        (
            Resources,
            r#"{"uri":"a:b","name":"b","annotations":{"lastModified":"2025-01-12"}}"#,
            "`lastModified` in `annotations` is not a time with its offset (RFC 3339)",
            false,
        ),
        (Resources, r#"{"uri":"a:b","name":"b","size":1.5}"#, "`size` is not a whole number", false),
        (Resources, r#"{"uri":"a:b","name":"b","size":1e400}"#, "`size` is not a whole number", false),
        (Prompts, r#"{"name":"a","arguments":["b"]}"#, "an entry of `arguments` is not an object", false),
        (Prompts, r#"{"name":"a","arguments":[{"name":"b"},{}]}"#, "an entry of `arguments` has no `name`", false),
        (Prompts, r#"{"name":"a","arguments":[{"name":1}]}"#, "`name` in `arguments` is not text", false),
        (
            Prompts,
            r#"{"name":"a","arguments":[{"name":"b","required":"yes"}]}"#,
            "`required` in `arguments` is not `true` or `false`",
            false,
        ),
        (
            Prompts,
            r#"{"name":"a","arguments":[{"name":"b","description":null}]}"#,
            "`description` in `arguments` is not text",
            false,
        ),
        (Prompts, r#"{"name":"a","arguments":[{"name":"b","title":1}]}"#, "`title` in `arguments` is not text", false),
        (Prompts, r#"{"name":"a","arguments":{}}"#, "`arguments` is not a list", false),
        (Resources, r#"{"uri":"a:b"}"#, "it has no `name`", false),
        (Resources, r#"{"uri":"a:b","name":1}"#, "`name` is not text", false),
        (Templates, r#"{"uriTemplate":"a:b","name":"c","mimeType":null}"#, "`mimeType` is not text", false),
    ];
    for (kind, entry, why, is_legacy) in misfits {
        assert_eq!(judged(kind, entry), Some(Misfit { why: why.to_owned(), is_legacy }), "{entry}");
    }
}

#[test]
fn a_moment_is_what_sdks_take_for_one() {
    let moments = [
        "2025-01-12T15:00:58Z",
        "2025-01-12T15:00:58.123456789Z",
        "2025-12-31T23:59:59+02:00",
        "2024-02-29T00:00:00-00:00",
        "2000-02-29T00:00:00Z",
        "0000-01-01T00:00:00.0Z",
    ];
    for text in moments {
        assert!(moment::is_one(text), "{text}");
    }
    let others = [
        "",
        "2025-01-12",
        "2025-01-12T15:00Z",
        "2025-01-12T15:00:58",
        "2025-01-12T15:00:58+0200",
        "2025-01-12T15:00:58+02",
        "2025-01-12T15:00:58+24:00",
        "2025-01-12T15:00:58Z ",
        "2025-01-12t15:00:58z",
        "2025-01-12 15:00:58Z",
        "2025-01-12T15:00:58.Z",
        "2025-01-12T15:00:58,5Z",
        "2025-01-12T24:00:00Z",
        "2025-01-12T23:60:00Z",
        "2025-01-12T23:59:60Z",
        "2025-00-12T15:00:58Z",
        "2025-13-12T15:00:58Z",
        "2025-01-00T15:00:58Z",
        "2025-04-31T15:00:58Z",
        "2025-02-29T15:00:58Z",
        "1900-02-29T15:00:58Z",
        "20ä-01-12T15:00:58Z",
    ];
    for text in others {
        assert!(!moment::is_one(text), "{text}");
    }
}

proptest! {
    #[test]
    fn of_what_is_no_json_something_is_said_and_nothing_hangs(raw in "[\\[\\]{}:,\" a1]{0,40}") {
        for kind in ListKind::ALL {
            for raw in [raw.clone(), format!("{{\"icons\":{raw}"), format!("{{\"annotations\":{{\"audience\":{raw}")] {
                let entry = Entry { span: 0..0, name_span: 0..0, name: "a".into(), raw: raw.as_bytes() };
                misfit(&entry, kind);
            }
        }
    }
}
