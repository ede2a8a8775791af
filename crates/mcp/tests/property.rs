//! What holds for any text.

use bytes::Bytes;
use mcp::{Body, Limits, Span, quote, scan, scan_value, splice, value};
use proptest::{collection::vec, prelude::*};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use std::{collections::HashSet, fmt};

/// What serde accepts as JSON when duplicate keys are refused at every level.
struct Strict;

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Self;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E: Error>(self) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_str<E: Error>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some((key, _)) = members.next_entry::<String, Self>()? {
            if !keys.insert(key) {
                return Err(A::Error::custom("duplicate key"));
            }
        }
        Ok(self)
    }
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 20, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec(("[a-d\"\\\\ü\u{1}]{0,2}", inner), 0..18).prop_map(|members| members.into_iter().collect::<Value>()),
        ]
    })
}

/// A byte and where it goes: what a damaged text is made with.
fn damage() -> impl Strategy<Value = (prop::sample::Index, Option<u8>, bool)> {
    let byte = prop_oneof![
        prop::sample::select(b"{}[]\",:\\ue+-.019 \n\x00\x1f\x80\xff".to_vec()).prop_map(Some),
        any::<u8>().prop_map(Some),
        Just(None),
    ];
    (any::<prop::sample::Index>(), byte, any::<bool>())
}

fn damaged(mut text: Vec<u8>, damage: &[(prop::sample::Index, Option<u8>, bool)]) -> Vec<u8> {
    for (at, byte, replace) in damage {
        let at = at.index(text.len() + 1);
        if (*replace || byte.is_none()) && at < text.len() {
            text.remove(at);
        }
        if let Some(byte) = byte {
            text.insert(at.min(text.len()), *byte);
        }
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn the_scan_accepts_what_strict_serde_accepts(tree in tree(), damage in vec(damage(), 0..4), pretty: bool) {
        let text = if pretty { serde_json::to_vec_pretty(&tree) } else { serde_json::to_vec(&tree) }.unwrap();
        let text = damaged(text, &damage);
        match (scan_value(&text, &Limits::default()), serde_json::from_slice::<Strict>(&text)) {
            (Ok(()), Err(fault)) => prop_assert!(fault.to_string().contains("out of range"), "{fault}"),
            (Err(fault), Ok(_)) => prop_assert!(false, "{fault} in {:?}", String::from_utf8_lossy(&text)),
            (Ok(()), Ok(_)) | (Err(_), Err(_)) => {}
        }
        prop_assert_eq!(value(&text).is_ok(), serde_json::from_slice::<Strict>(&text).is_ok());
    }

    #[test]
    fn trees_come_back_as_they_were_written(tree in tree(), pretty: bool) {
        let text = if pretty { serde_json::to_vec_pretty(&tree) } else { serde_json::to_vec(&tree) }.unwrap();
        prop_assert_eq!(value(&text).unwrap(), tree);
    }

    #[test]
    fn any_bytes_are_answered(bytes in vec(any::<u8>(), 0..200)) {
        let _ = scan(Bytes::from(bytes.clone()), &Limits::default());
        let _ = value(&bytes);
    }

    #[test]
    fn members_are_found_where_they_lie(params in tree(), key in "[a-c\"ü]{1,2}", inner in tree()) {
        let mut params = match params { Value::Object(members) => members, _ => serde_json::Map::new() };
        params.insert(key.clone(), serde_json::json!({ "x": [1], "y": inner }));
        let body = serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": "vendor/x", "params": params});
        let Ok(Body::Single(message)) = scan(serde_json::to_vec_pretty(&body).unwrap().into(), &Limits::default()) else {
            panic!("must scan");
        };
        let member = message.param(&[&key, "y"]).unwrap();
        prop_assert_eq!(&message.bytes()[member.span.clone()], member.raw);
        prop_assert_eq!(member.value().unwrap(), inner);
        prop_assert!(message.param(&[&key, "z"]).is_none());
        prop_assert_eq!(value(message.params().unwrap()).unwrap(), Value::Object(params));
    }

    #[test]
    fn splicing_keeps_every_other_byte(
        pieces in vec((vec(any::<u8>(), 1..8), vec(any::<u8>(), 0..4), vec(any::<u8>(), 0..8)), 1..6),
        turn in any::<prop::sample::Index>(),
    ) {
        let (mut text, mut expected, mut edits) = (Vec::new(), Vec::new(), Vec::<(Span, Vec<u8>)>::new());
        for (kept, old, new) in &pieces {
            text.extend_from_slice(kept);
            edits.push((text.len()..text.len() + old.len(), new.clone()));
            text.extend_from_slice(old);
            expected.extend_from_slice(kept);
            expected.extend_from_slice(new);
        }
        let turn = turn.index(edits.len());
        edits.rotate_left(turn);
        prop_assert_eq!(splice(&text, &mut edits), expected);
    }

    #[test]
    fn quoted_text_reads_back(text in ".{0,40}", odd in "[\"\\\\\u{0}-\u{20}]{0,10}") {
        let text = format!("{text}{odd}");
        prop_assert_eq!(value(quote(&text).as_bytes()).unwrap(), Value::String(text));
    }

    #[test]
    fn name_headers_read_back(text in ".{0,40}") {
        let header = mcp::name_value(&text);
        prop_assert_eq!(mcp::header::decode("mcp-name", &header).unwrap(), text);
    }
}
