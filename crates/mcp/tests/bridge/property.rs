//! What holds for any message on a bridge.

use super::schema::message;
use bytes::Bytes;
use mcp::{
    Body, Limits, Message, Revision,
    bridge::{Client, Filter, LogLevel, downward, upward},
    scan,
};
use proptest::{collection::vec, prelude::*};
use serde_json::{Map, Value, json};

const METHODS: [&str; 12] = [
    "tools/call",
    "tools/list",
    "prompts/get",
    "prompts/list",
    "resources/read",
    "completion/complete",
    "initialize",
    "subscriptions/listen",
    "sampling/createMessage",
    "elicitation/create",
    "roots/list",
    "vendor/thing",
];

/// Names that mean something to the bridges, and some that do not.
const NAMES: [&str; 38] = [
    "_meta",
    "io.modelcontextprotocol/protocolVersion",
    "io.modelcontextprotocol/clientCapabilities",
    "io.modelcontextprotocol/clientInfo",
    "io.modelcontextprotocol/logLevel",
    "io.modelcontextprotocol/serverInfo",
    "io.modelcontextprotocol/subscriptionId",
    "io.modelcontextprotocol/related-task",
    "task",
    "inputRequests",
    "inputResponses",
    "requestState",
    "resultType",
    "ttlMs",
    "cacheScope",
    "capabilities",
    "clientInfo",
    "supportedVersions",
    "protocolVersion",
    "elicitation",
    "sampling",
    "extensions",
    "content",
    "structuredContent",
    "tools",
    "outputSchema",
    "inputSchema",
    "properties",
    "messages",
    "requestedSchema",
    "type",
    "oneOf",
    "mode",
    "method",
    "params",
    "notifications",
    "resourceSubscriptions",
    "x\"y",
];

fn tree() -> impl Strategy<Value = Value> {
    let words = ["complete", "input_required", "task", "audio", "resource_link", "array", "object", "url", "form"];
    let more = ["2026-07-28", "elicitation/create", "sampling/createMessage", "roots/list", "ü\n"];
    let words: Vec<&str> = words.into_iter().chain(more).collect();
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(words).prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 80, 8, |inner| {
        prop_oneof![
            1 => vec(inner.clone(), 0..4).prop_map(Value::from),
            4 => members(inner).prop_map(Value::from),
        ]
    })
}

fn members(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    let name = prop::sample::select(NAMES.to_vec()).prop_map(str::to_owned);
    vec((name, inner), 0..8).prop_map(|members| members.into_iter().collect())
}

fn any_message() -> impl Strategy<Value = Value> {
    let method = prop::sample::select(METHODS.to_vec());
    prop_oneof![
        (method.clone(), tree())
            .prop_map(|(method, params)| json!({"jsonrpc":"2.0","id":"i","method":method,"params":params})),
        method.prop_map(|method| json!({"jsonrpc":"2.0","id":7,"method":method})),
        tree().prop_map(|params| json!({"jsonrpc":"2.0","method":"notifications/progress","params":params})),
        tree().prop_map(|result| json!({"jsonrpc":"2.0","id":"i","result":result})),
        (any::<i16>(), tree()).prop_map(|(code, data)| {
            json!({"jsonrpc":"2.0","id":1,"error":{"code": i32::from(code) - 32000, "message":"m","data":data}})
        }),
        tree().prop_map(|data| json!({"jsonrpc":"2.0","id":1,"error":{"code":-32042,"message":"m","data":data}})),
    ]
}

fn written(tree: &Value, pretty: bool) -> Vec<u8> {
    if pretty { serde_json::to_vec_pretty(tree) } else { serde_json::to_vec(tree) }.unwrap()
}

fn introduction(revision: Revision) -> upward::Introduction {
    let hello = json!({"jsonrpc":"2.0","id":0,"method":"initialize","params":{
        "protocolVersion": revision.as_str(), "clientInfo": {"name":"c","version":"1"},
        "capabilities": {"elicitation":{"form":{},"url":{}},"sampling":{"tools":{}},"roots":{}}}});
    let mut introduction = upward::Introduction::of(&message(hello.to_string().as_bytes())).unwrap();
    introduction.set_level(LogLevel::Notice);
    introduction
}

/// Everything that the bridges can make of one message.
fn everything(message: &Message, method: &str, revision: Revision) -> Vec<Bytes> {
    let introduction = introduction(revision);
    let client = introduction.client();
    let mut made = vec![upward::discover("1", &introduction), downward::initialize("1", client)];
    made.extend(upward::Introduction::of(message).map(|found| upward::discover("1", &found)));
    made.extend(upward::initialize_result(message, &introduction, "1"));
    made.extend(upward::request(message, &introduction));
    made.extend(upward::answer(message, method, revision));
    made.extend(upward::notification(message));
    if let Ok(Some(asked)) = upward::InputRequired::of(message) {
        made.extend(asked.requests.iter().filter_map(|asked| upward::question("\"q\"", asked, &introduction).ok()));
    }
    if let Ok(response) = upward::input_response(message, method) {
        made.push(downward::answer_to("1", method, &response, revision));
    }
    made.extend(upward::retry(message, "9", &[("a\"", b"{}")], Some("\"s\"")));
    if let Ok(filter) = Filter::of(message) {
        made.push(upward::listen("1", &introduction, &filter));
        made.extend(downward::acknowledged(message, &filter));
    }
    made.extend(Client::of_request(message).map(|client| downward::initialize("1", &client)));
    made.extend(downward::discover_result(message, "1"));
    made.extend(downward::request(message));
    made.extend(downward::answer(message, method, None, downward::server_info(message)));
    made.extend(downward::answer(message, method, Some(b"\"x:y\""), Some(br#"{"name":"s","version":"1"}"#)));
    made.extend(downward::notification(message, Some("\"l\"")));
    made.extend(downward::notification(message, None));
    made.extend(downward::listen_result(message));
    made.extend(downward::listen_again(message));
    made.extend(downward::input_required("1", "k", message, client, "\"s\""));
    made.extend(downward::pages_required("1", message, client).ok().flatten());
    made.extend(downward::input_response(message, "a").map(|raw| downward::answer_to("1", method, raw, revision)));
    let _ = (downward::negotiated(message), downward::request_state(message), LogLevel::wanted(message));
    made
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn whatever_is_made_scans_again(
        tree in any_message(),
        method in prop::sample::select(METHODS.to_vec()),
        revision in prop::sample::select(Revision::LEGACY.to_vec()),
        pretty: bool,
    ) {
        let Ok(Body::Single(message)) = scan(written(&tree, pretty).into(), &Limits::default()) else { return Ok(()) };
        for text in everything(&message, method, revision) {
            let again = scan(text.clone(), &Limits::default());
            prop_assert!(matches!(again, Ok(Body::Single(_))), "{:?} from {}", again, String::from_utf8_lossy(&text));
        }
    }

    #[test]
    fn a_request_comes_back_over_both_bridges_byte_for_byte(
        tree in tree(), name in "[a-z]{1,3}", method in prop::sample::select(METHODS.to_vec()), pretty: bool,
    ) {
        let touched = ["_meta", "task", "inputResponses", "requestState"];
        let mut params = match tree { Value::Object(members) => members, other => Map::from_iter([(name, other)]) };
        params.retain(|name, _| !touched.contains(&name.as_str()));
        params.insert("_meta".to_owned(), json!({"progressToken": 7, "vendor": {"a": [1]}}));
        let body = json!({"jsonrpc":"2.0","id":"i","method":method,"params":params});
        let sent = written(&body, pretty);
        let there = upward::request(&message(&sent), &introduction(Revision::V2025_06_18)).unwrap();
        prop_assert_eq!(message(&there).era(), mcp::Era::Modern);
        let back = downward::request(&message(&there)).unwrap();
        prop_assert_eq!(String::from_utf8_lossy(&back), String::from_utf8_lossy(&sent));
    }

    #[test]
    fn a_result_comes_back_over_both_bridges_byte_for_byte(
        tree in tree(), method in prop::sample::select(METHODS.to_vec()), pretty: bool,
    ) {
        // What older revisions hear otherwise, and what each era says in words of its own.
        let touched = [
            "_meta", "resultType", "ttlMs", "cacheScope", "content", "structuredContent", "tools", "messages",
            "inputRequests", "requestState",
        ];
        let mut result = match tree { Value::Object(members) => members, other => Map::from_iter([("x".to_owned(), other)]) };
        result.retain(|name, _| !touched.contains(&name.as_str()));
        result.insert("_meta".to_owned(), json!({"vendor": 1.5}));
        let sent = written(&json!({"jsonrpc":"2.0","id":"i","result":result}), pretty);
        let there = downward::answer(&message(&sent), method, None, Some(br#"{"name":"s","version":"1"}"#)).unwrap();
        let back = upward::answer(&message(&there), method, Revision::V2024_11_05).unwrap();
        prop_assert_eq!(String::from_utf8_lossy(&back), String::from_utf8_lossy(&sent));
    }

    #[test]
    fn members_that_mean_nothing_keep_their_bytes(tree in any_message(), vendor in tree(), pretty: bool) {
        let mut tree = tree;
        for part in ["params", "result"] {
            if let Some(Value::Object(members)) = tree.get_mut(part) {
                members.insert("vendor/member".to_owned(), vendor.clone());
            }
        }
        let Ok(Body::Single(sent)) = scan(written(&tree, pretty).into(), &Limits::default()) else { return Ok(()) };
        let of = |message: &Message| {
            let found = message.param(&["vendor/member"]).or_else(|| message.outcome_member(&["vendor/member"]));
            found.map(|member| member.raw.to_vec())
        };
        let Some(raw) = of(&sent) else { return Ok(()) };
        let made = [
            upward::request(&sent, &introduction(Revision::V2025_11_25)).ok(),
            upward::answer(&sent, "tools/list", Revision::V2024_11_05).ok(),
            upward::notification(&sent),
            upward::retry(&sent, "2", &[], None).ok(),
            downward::request(&sent).ok(),
            downward::answer(&sent, "tools/call", None, Some(b"{}")).ok(),
            downward::notification(&sent, Some("1")),
        ];
        for text in made.into_iter().flatten() {
            let kept = of(&message(&text));
            prop_assert_eq!(kept.as_ref(), Some(&raw));
        }
    }
}
