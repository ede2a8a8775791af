//! Promises of `mcp`: what the scan accepts is JSON to everybody, and what is taken apart goes together again.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use mcp::{Body, Limits, Message, sse};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

/// Whatever the scan accepts, any other reader reads too, within the limits that were set.
pub fn envelope(input: &[u8]) {
    let limits = Limits { body: 1 << 20, depth: 32, batch: 16 };
    let Ok(body) = mcp::scan(Bytes::copy_from_slice(input), &limits) else { return };
    assert!(serde_json::from_slice::<IgnoredAny>(input).is_ok(), "accepted, but no JSON");
    // A number beyond every float is JSON, and passes as it is; whoever would decide by it must refuse.
    let is_readable = serde_json::from_slice::<Value>(input).is_ok();
    assert_eq!(mcp::value(input).is_ok(), is_readable, "a value that only some can read");
    if !is_readable {
        return;
    }
    match &body {
        Body::Single(message) => read(message),
        Body::Batch(messages) => {
            assert!(messages.len() <= limits.batch, "a batch beyond its limit");
            messages.iter().for_each(read);
        }
    }
}

/// Everything that is asked of a message, and a splice that changes nothing.
fn read(message: &Message) {
    let whole: Value = serde_json::from_slice(message.bytes()).expect("a message is JSON");
    let method = whole.get("method").and_then(Value::as_str).unwrap_or_default();
    assert_eq!(message.method(), method, "another method than other readers see");
    let params = whole.get("params");
    assert_eq!(message.params().is_some(), params.is_some(), "params that others do not see");
    let name = params.and_then(|params| params.get("name")).and_then(Value::as_str);
    if method == "tools/call" {
        assert_eq!(message.subject().as_deref(), name, "another tool than other readers see");
    }
    let meta = params.and_then(|params| params.get("_meta")?.get("io.modelcontextprotocol/protocolVersion")?.as_str());
    assert_eq!(message.modern_version().as_deref(), meta, "another revision than other readers see");
    if let (Some(member), Some(id)) = (message.id_member(), message.id()) {
        let again = mcp::splice(message.bytes(), &mut [(member.span, id.as_bytes().to_vec())]);
        assert_eq!(again, message.bytes(), "a splice of the same bytes changed something");
    }
    if let Some(arguments) = message.arguments()
        && let Ok(own) = arguments.value()
    {
        let theirs = params.and_then(|params| params.get("arguments"));
        assert!(
            theirs.is_some_and(|theirs| same(&own, theirs)),
            "other arguments than others see: {own} for {theirs:?}"
        );
    }
}

/// Whether both say the same. Readers may round the last digit of a float differently; ours rounds correctly.
fn same(own: &Value, theirs: &Value) -> bool {
    match (own, theirs) {
        (Value::Number(own), Value::Number(theirs)) if own.is_f64() && theirs.is_f64() => {
            let (own, theirs) = (own.as_f64().unwrap_or(f64::NAN), theirs.as_f64().unwrap_or(f64::NAN));
            (own - theirs).abs() <= own.abs() * 4.0 * f64::EPSILON
        }
        (Value::Array(own), Value::Array(theirs)) => {
            own.len() == theirs.len() && own.iter().zip(theirs).all(|(own, theirs)| same(own, theirs))
        }
        (Value::Object(own), Value::Object(theirs)) => {
            let found = |(name, value): (&String, &Value)| theirs.get(name).is_some_and(|theirs| same(value, theirs));
            own.len() == theirs.len() && own.iter().all(found)
        }
        (own, theirs) => own == theirs,
    }
}

/// The cuts of a stream change no event, and the events hold every byte.
pub fn event_stream(input: &[u8]) {
    let Some((seed, stream)) = input.split_first() else { return };
    let whole = decoded([stream]);
    let step = usize::from(*seed % 7) + 1;
    assert_eq!(decoded(stream.chunks(step)), whole, "cut into pieces of {step}, it is another stream");
    let Some((events, rest)) = whole else { return };
    let mut bytes: Vec<u8> = events.iter().flat_map(|event| event.raw.to_vec()).collect();
    bytes.extend(rest.unwrap_or_default());
    assert_eq!(bytes, stream, "bytes were lost");
    for event in &events {
        let is_message = event.event.as_ref().is_none_or(|kind| kind.is_empty() || kind == "message");
        let data = event.data.as_ref().filter(|data| is_message && !data.is_empty());
        assert_eq!(event.message(), data, "clients hear no other type than `message`");
    }
}

type Stream = Option<(Vec<sse::Event>, Option<Bytes>)>;

fn decoded<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Stream {
    let mut decoder = sse::Decoder::new(1 << 16);
    let mut events = Vec::new();
    for chunk in chunks {
        decoder.push(Bytes::copy_from_slice(chunk), &mut events).ok()?;
    }
    let (last, rest) = decoder.finish();
    events.extend(last);
    Some((events, rest))
}

/// Headers are lines before the first blank one, the rest is the body: what passes says the same in both.
pub fn headers(input: &[u8]) {
    let Some(end) = input.windows(2).position(|pair| pair == b"\n\n") else { return };
    let (head, body) = input.split_at(end);
    let mut headers = HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n') {
        let mut halves = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (halves.next(), halves.next()) else { continue };
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value.trim_ascii())) {
            headers.append(name, value);
        }
    }
    if let Ok(text) = std::str::from_utf8(head) {
        let value = mcp::name_value(text);
        let back = mcp::header::decode("mcp-name", &value).expect("our own value is well-formed");
        assert_eq!(back, text, "a name does not survive its header");
    }
    let Ok(Body::Single(message)) = mcp::scan(Bytes::copy_from_slice(body.trim_ascii()), &Limits::default()) else {
        return;
    };
    if mcp::check(&headers, &message).is_ok() && message.era() == mcp::Era::Modern && message.id().is_some() {
        // Read by somebody else: what the message says of itself is not what it is measured by.
        let Ok(whole) = serde_json::from_slice::<Value>(message.bytes()) else { return };
        agree(&headers, &whole);
        mirrored(&headers, whole.pointer("/params/arguments").unwrap_or(&Value::Null));
    }
}

/// The headers of a request that passed say what its body says.
fn agree(headers: &HeaderMap, body: &Value) {
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str);
    let version = text("/params/_meta/io.modelcontextprotocol~1protocolVersion");
    assert!(version.is_some(), "a request without its revision passed");
    assert_eq!(said(headers, "mcp-protocol-version").as_deref(), version, "the version header says something else");
    let method = text("/method");
    assert_eq!(said(headers, "mcp-method").as_deref(), method, "the method header says something else");
    let (subject, is_needed) = match method.unwrap_or_default() {
        "tools/call" | "prompts/get" => (text("/params/name"), true),
        "resources/read" => (text("/params/uri"), true),
        "resources/subscribe" | "resources/unsubscribe" => (text("/params/uri"), false),
        "tasks/get" | "tasks/update" | "tasks/cancel" | "tasks/result" => (text("/params/taskId"), false),
        _ => return,
    };
    let name = said(headers, "mcp-name");
    assert!(name.as_deref() == subject || (name.is_none() && !is_needed), "the name header says something else");
}

/// The headers of arguments that a tool's schema wants there say what the arguments say, where they pass; and our own do.
fn mirrored(headers: &HeaderMap, arguments: &Value) {
    let marked = |name: &str, kind: &str| json!({"type": kind, "x-mcp-header": name});
    let inner = json!({"type": "object", "properties": {"b": marked("B", "boolean")}});
    let properties = json!({"a": marked("A", "string"), "n": marked("N", "integer"), "o": inner});
    let bindings = mcp::param::bindings(&json!({"type": "object", "properties": properties})).expect("a good schema");
    let own = mcp::param::headers(&bindings, arguments).into_iter().collect();
    assert_eq!(mcp::param::check(&own, &bindings, arguments), Ok(()), "our own headers do not mirror {arguments}");
    if mcp::param::check(headers, &bindings, arguments).is_err() {
        return;
    }
    for (name, pointer) in [("mcp-param-a", "/a"), ("mcp-param-n", "/n"), ("mcp-param-b", "/o/b")] {
        let value = arguments.pointer(pointer).filter(|value| !value.is_null());
        let holds = match (said(headers, name), value) {
            (None, None) => true,
            (None, Some(value)) => value.is_array() || value.is_object() || value.is_number() && !value.is_i64(),
            (Some(said), Some(Value::String(text))) => said == *text,
            (Some(said), Some(Value::Bool(truth))) => said == truth.to_string(),
            (Some(said), Some(Value::Number(number))) => said.parse::<f64>().ok() == number.as_f64(),
            (Some(_), _) => false,
        };
        assert!(holds, "{name} says something else than {arguments}");
    }
}

/// What the one header of this name says.
fn said(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    assert!(values.next().is_none(), "{name} is there twice");
    Some(mcp::header::decode(name, value).expect("what passed can be read").into_owned())
}
