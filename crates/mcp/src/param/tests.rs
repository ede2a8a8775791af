//! The examples of the specification, and what it forbids.

use super::*;
use http::HeaderMap;
use serde_json::json;

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "limit": {"type": ["integer", "null"], "x-mcp-header": "Limit"},
        "options": {"type": "object", "properties": {"dry": {"type": "boolean", "x-mcp-header": "Dry"}}},
        // A property of that name is no annotation, nor is data.
        "x-mcp-header": {"type": "number", "default": {"x-mcp-header": ""}},
    }})
}

fn written(arguments: &Value) -> Vec<(String, String)> {
    let headers = param_headers(&schema(), arguments).unwrap();
    headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
}

#[test]
fn arguments_are_written_as_the_specification_shows() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let all = json!({"region": "us-west1", "limit": -7, "options": {"dry": true}, "x-mcp-header": 1});
    let mut found = written(&all);
    found.sort();
    assert_eq!(
        found,
        [pair("mcp-param-dry", "true"), pair("mcp-param-limit", "-7"), pair("mcp-param-region", "us-west1")]
    );
    for (text, value) in [
        ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
        (" padded ", "=?base64?IHBhZGRlZCA=?="),
        ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
        ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
    ] {
        assert_eq!(written(&json!({"region": text})), [pair("mcp-param-region", value)]);
    }
    assert_eq!(written(&json!({"region": null, "options": {}, "limit": 42.0})), [pair("mcp-param-limit", "42")]);
    // Beyond the safe range a number may not be what it was.
    assert_eq!(written(&json!({"limit": 9_007_199_254_740_992_i64})), []);
    assert_eq!(written(&json!([])), []);
}

#[test]
fn headers_must_say_what_the_arguments_say() {
    let bindings = bindings(&schema()).unwrap();
    let verdict = |headers: &[(&str, &str)], arguments: Value| {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        check(&map, &bindings, &arguments)
    };
    let mismatch = |name: &str| Err(HeaderFault::Mismatch(format!("mcp-param-{name}")));
    assert_eq!(verdict(&[("mcp-param-region", "eu"), ("mcp-param-other", "x")], json!({"region": "eu"})), Ok(()));
    assert_eq!(verdict(&[("mcp-param-limit", "42.0")], json!({"limit": 42})), Ok(()));
    assert_eq!(verdict(&[("mcp-param-dry", "false")], json!({"options": {"dry": false}})), Ok(()));
    assert_eq!(verdict(&[("mcp-param-region", "=?base64?IGE=?=")], json!({"region": " a"})), Ok(()));
    assert_eq!(verdict(&[], json!({"region": null})), Ok(()));
    assert_eq!(verdict(&[], json!({"region": {"a": 1}})), Ok(()));
    assert_eq!(verdict(&[("mcp-param-region", "us")], json!({"region": "eu"})), mismatch("region"));
    assert_eq!(verdict(&[("mcp-param-region", "eu")], json!({})), mismatch("region"));
    assert_eq!(verdict(&[("mcp-param-region", "eu")], json!({"region": {}})), mismatch("region"));
    assert_eq!(verdict(&[("mcp-param-limit", "x")], json!({"limit": 42})), mismatch("limit"));
    assert_eq!(
        verdict(&[("mcp-param-limit", "9007199254740993")], json!({"limit": 9_007_199_254_740_993_i64})),
        mismatch("limit")
    );
    assert_eq!(verdict(&[], json!({"region": "eu"})), Err(HeaderFault::Missing("mcp-param-region".into())));
    assert_eq!(
        verdict(&[("mcp-param-region", "=?base64?*?=")], json!({"region": "eu"})),
        Err(HeaderFault::Malformed("mcp-param-region".into()))
    );
}

#[test]
fn annotations_that_cannot_be_followed_are_faults() {
    let fault = |schema: Value| bindings(&schema).unwrap_err().to_string();
    let property = |schema: Value| json!({"properties": {"a/b": schema}});
    for name in ["", "a b", "a\r\nb", "ü"] {
        let said = fault(property(json!({"type": "string", "x-mcp-header": name})));
        assert_eq!(said, "`x-mcp-header` at /properties/a~1b is not a header name", "{name:?}");
    }
    for odd in [json!({"type": "number"}), json!({}), json!({"type": ["string", "integer"]}), json!({"type": "object"})]
    {
        let mut odd = odd;
        odd["x-mcp-header"] = json!("A");
        assert_eq!(fault(property(odd)), "`x-mcp-header` at /properties/a~1b marks no string, integer or boolean");
    }
    let marked = json!({"type": "string", "x-mcp-header": "A"});
    for hidden in [
        json!({"items": marked}),
        json!({"anyOf": [{"properties": {"a": marked}}]}),
        json!({"if": {"properties": {"a": marked}}}),
        json!({"$defs": {"x": marked}}),
        json!({"properties": {"a": {"additionalProperties": marked}}}),
        marked.clone(),
    ] {
        assert!(fault(hidden.clone()).ends_with("is not reachable by `properties` alone"), "{hidden}");
    }
    let twice = json!({"properties": {"a": marked, "b": {"type": "string", "x-mcp-header": "a"}}});
    assert_eq!(fault(twice), "`x-mcp-header` at /properties/b repeats another one's name");
}

#[test]
fn a_tool_that_cannot_be_followed_is_told_from_its_text() {
    let tool = |schema: &str| format!(r#"{{"name":"a","description":"x-mcp-header","inputSchema":{schema}}}"#);
    for (schema, followed) in [
        ("{}", true),
        (r#"{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}"#, true),
        (r#"{"properties":{"a":{"type":"number","x-mcp-header":"A"}}}"#, false),
        (r#"{"properties":{"a":{"type":"number","x\u002dmcp\u002dheader":"A"}}}"#, false),
        (r#"{"properties":{"a":{"type":"number","default":{"x-mcp-header":"A"}}}}"#, true),
    ] {
        assert_eq!(can_be_followed(tool(schema).as_bytes()), followed, "{schema}");
    }
    let described = r#"{"name":"a","outputSchema":{"properties":{"a":{"type":"number","x-mcp-header":"A"}}}}"#;
    assert!(can_be_followed(described.as_bytes()), "results have no headers");
}

#[test]
fn a_header_has_8_kib_and_one_that_is_longer_is_named_with_the_bound() {
    let shape = |length: usize| {
        let arguments = json!({"region": "x".repeat(length)});
        crate::header::check_shape(&HeaderMap::from_iter(param_headers(&schema(), &arguments).unwrap()))
    };
    assert_eq!(shape(8192), Ok(()));
    let fault = shape(8193).unwrap_err();
    assert_eq!(fault.to_string(), "header `mcp-param-region` is longer than 8 KiB");
    assert_eq!(fault.code(), crate::error::HEADER_MISMATCH);
}
