//! What schemas may cost, and what arguments may.

use super::schema::{Misfit, Schema};
use serde_json::{Map, Value, json};

/// `levels` definitions, each of which says by `keyword` twice what the one before it says.
fn doubled(levels: usize, first: Value, each: impl Fn(Value) -> Value) -> Value {
    let mut definitions = Map::from_iter([("a0".to_owned(), first)]);
    for level in 1..=levels {
        let before = json!({"$ref": format!("#/$defs/a{}", level - 1)});
        definitions.insert(format!("a{level}"), each(before));
    }
    json!({"type": "object", "$ref": format!("#/$defs/a{levels}"), "$defs": definitions})
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!({}), |within, _| json!({"a": within}))
}

#[test]
fn a_schema_that_could_take_for_ever_does_not_compile() {
    let text = || json!({"type": "string"});
    let one = |before| json!({"allOf": [before]});
    let unevaluated = (0..25).fold(
        json!({"properties": {"a": true}}),
        |within, _| json!({"allOf": [within], "unevaluatedProperties": false}),
    );
    let dynamic = json!({"$id": "urn:a", "$dynamicRef": "#a", "$defs": {
        "a": {"$dynamicAnchor": "a"}, "b": {"$id": "urn:b", "$dynamicAnchor": "a"},
    }});
    let steps = "one value could take more than 20000 steps";
    for (name, schema, why) in [
        ("all", doubled(30, text(), |before| json!({"allOf": [before, before]})), steps),
        ("any", doubled(30, text(), |before| json!({"anyOf": [before, before]})), steps),
        ("one", doubled(30, text(), |before| json!({"oneOf": [before, before]})), steps),
        ("not", doubled(30, text(), |before| json!({"not": before, "if": before})), steps),
        ("items", doubled(30, text(), |before| json!({"items": before, "contains": before})), steps),
        ("members", doubled(30, text(), |before| json!({"properties": {"a": before, "b": before}})), steps),
        ("names", doubled(30, text(), |before| json!({"patternProperties": {"a": before, "b": before}})), steps),
        ("dependent", doubled(30, text(), |before| json!({"dependentSchemas": {"a": before, "b": before}})), steps),
        ("unevaluated", unevaluated, steps),
        ("high", doubled(300, text(), one), "more than 128 schemas high"),
        (
            "high and round",
            doubled(20, json!({"properties": {"a": {"$ref": "#"}}}), one),
            "it recurs, and is more than 24",
        ),
        ("round", json!({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}), "lead back"),
        (
            "round by anchor",
            json!({"anyOf": [{"$ref": "#b"}], "$defs": {"b": {"$anchor": "b", "not": {"$ref": "#"}}}}),
            "lead back",
        ),
        (
            "round beside",
            json!({"items": {"$ref": "#/$defs/a"}, "$defs": {"a": {"allOf": [{"items": {"$ref": "#"}}, {"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}}}),
            "lead back",
        ),
        ("wide", json!({"enum": (0..50_000).collect::<Vec<_>>()}), "more than 50000 values"),
        ("dynamic", dynamic, "more than one dynamic anchor"),
        ("backwards", json!({"pattern": "(a*)*\\1b"}), "none of the linear engine"),
        ("names backwards", json!({"patternProperties": {"(a*)*\\1b": {}}}), "none of the linear engine"),
        ("large", json!({"pattern": "((a{0,100}){0,100}){0,100}b"}), "larger than 4 MiB"),
        (
            "large together",
            json!({"allOf": (0..9).map(|n| json!({"pattern": format!("^.{{1,500}}{n}$")})).collect::<Vec<_>>()}),
            "larger than 8 MiB",
        ),
    ] {
        let refused = Schema::new(&schema).err().unwrap_or_default();
        assert!(refused.contains(why), "{name}: {refused:?}");
    }
}

#[test]
fn schemas_as_people_write_them_compile() {
    let filter = json!({"$ref": "#/$defs/f", "$defs": {"f": {"anyOf": [
        {"type": "object", "properties": {"op": {"const": "and"}, "of": {"type": "array", "items": {"$ref": "#/$defs/f"}}}},
        {"type": "object", "properties": {"op": {"const": "or"}, "of": {"type": "array", "items": {"$ref": "#/$defs/f"}}}},
        {"type": "object", "properties": {"op": {"const": "not"}, "of": {"$ref": "#/$defs/f"}}},
        {"type": "object", "properties": {"op": {"const": "is"}, "of": {"type": "string", "pattern": "^[a-z0-9_.-]{1,255}$"}}, "required": ["of"], "additionalProperties": false},
    ]}}});
    let tree = json!({"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}, "additionalProperties": false});
    let dynamic = json!({"$dynamicAnchor": "node", "properties": {"a": {"$dynamicRef": "#node"}}, "unevaluatedProperties": false});
    let wide = json!({"properties": (0..500).map(|n| (format!("p{n}"), json!({"type": "string", "maxLength": 9, "description": "d"}))).collect::<Map<_, _>>()});
    for (schema, good, bad) in [
        (
            filter,
            json!({"op": "and", "of": [{"op": "not", "of": {"op": "is", "of": "a.b"}}]}),
            json!({"op": "is", "of": 7}),
        ),
        (tree, json!({"left": {"left": {}, "right": {}}}), json!({"left": {"middle": {}}})),
        (dynamic, nested(20), json!({"a": {"b": 1}})),
        (wide, json!({"p3": "three"}), json!({"p3": 3})),
        (
            json!({"properties": {"a": {"$ref": "https://json-schema.org/draft/2020-12/schema"}}}),
            json!({"a": {"type": "string"}}),
            json!({"a": {"type": "text"}}),
        ),
        (
            json!({"patternProperties": {"^x-": {"type": "string"}}, "additionalProperties": false}),
            json!({"x-a": "a"}),
            json!({"y": "a"}),
        ),
        (json!({"propertyNames": {"pattern": "^[a-z]+$"}}), json!({"a": 1}), json!({"A": 1})),
    ] {
        let compiled = Schema::new(&schema).unwrap_or_else(|why| panic!("{schema}: {why}"));
        assert!(compiled.check(&good, 1_000).is_ok(), "{schema}");
        let Err(Misfit::Faults(faults)) = compiled.check(&bad, 1_000) else { panic!("{schema}") };
        assert!(!faults.is_empty(), "{schema}");
    }
}

#[test]
fn a_fault_of_a_pattern_names_place_and_pattern() {
    let schema = Schema::new(&json!({"properties": {"id": {"pattern": "^[0-9]+$"}}})).unwrap();
    let Err(Misfit::Faults(faults)) = schema.check(&json!({"id": "secret"}), 100) else { panic!() };
    assert_eq!(faults, [("/id".to_owned(), "value does not match \"^[0-9]+$\"".to_owned())]);
}

#[test]
fn names_of_members_are_told_as_far_as_they_are_short() {
    let closed = json!({"type": "object", "additionalProperties": {"type": "number"}});
    let schema = Schema::new(&closed).unwrap();
    let name = "é".repeat(5_000);
    let Err(Misfit::Faults(faults)) = schema.check(&json!({ &name: "x" }), 20_000) else { panic!() };
    assert_eq!(faults[0].0, format!("/{}…", "é".repeat(299)));
    let none = Schema::new(&json!({"type": "object", "additionalProperties": false})).unwrap();
    let many: Map<String, Value> = (0..10_000).map(|number| (format!("member{number}"), json!(1))).collect();
    let Err(Misfit::Faults(faults)) = none.check(&many.into(), 500_000) else { panic!() };
    assert!(faults.iter().all(|(_, why)| why.chars().count() <= 301), "{}", faults[0].1.len());
}

/// Two ways into each level: what is not asked for twice is known, but faults are looked for in all of them.
#[test]
fn arguments_that_would_take_too_long_are_refused() {
    let twice = json!({"type": "object", "allOf": [{"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}}]});
    let mut bad = json!(7);
    for _ in 0..60 {
        bad = json!({"a": bad});
    }
    let hundred: Vec<_> = (0..1_000).map(|number| json!({"minimum": number})).collect();
    let each = json!({"properties": {"a": {"items": {"allOf": hundred}}}});
    // Each byte could begin what two thousand bytes later turns out not to be.
    let slow = |within: Value| json!({"properties": {"a": within}});
    let late = json!({"pattern": "[ab]*a[ab]{2000}z"});
    let random = (0_u32..400_000).scan(1_u32, |seed, _| {
        *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some(if *seed >> 31 == 1 { 'a' } else { 'b' })
    });
    let random = json!({"a": random.collect::<String>()});
    let named = json!({"patternProperties": {"[ab]*a[ab]{2000}z": {}}});
    let name = json!({ random["a"].as_str().unwrap(): 1 });
    for (schema, arguments, expected) in [
        (twice.clone(), nested(60), "fits"),
        (twice, bad, "somewhere"),
        (each.clone(), json!({"a": vec![1_000; 60]}), "fits"),
        (each, json!({"a": vec![1_000; 60_000]}), "too much"),
        (slow(late.clone()), json!({"a": "aba"}), "faults"),
        (slow(late.clone()), random.clone(), "too much"),
        (slow(json!({"not": late})), random, "too much"),
        (named, name, "too much"),
    ] {
        let bytes = arguments.to_string().len();
        let said = match Schema::new(&schema).unwrap_or_else(|why| panic!("{why}")).check(&arguments, bytes) {
            Ok(()) => "fits",
            Err(Misfit::Faults(_)) => "faults",
            Err(Misfit::Somewhere) => "somewhere",
            Err(Misfit::TooMuch) => "too much",
        };
        assert_eq!(said, expected, "{:.200}", schema.to_string());
    }
}

/// A worker has 2 MiB of stack, as this test has.
#[test]
fn the_highest_schema_fits_the_stack_with_the_deepest_arguments() {
    for keyword in ["allOf", "anyOf", "oneOf"] {
        let round = doubled(10, json!({"properties": {"a": {"$ref": "#"}}}), |before| json!({keyword: [before]}));
        let schema = Schema::new(&round).unwrap_or_else(|why| panic!("{why}"));
        for last in [json!({}), json!(7)] {
            let arguments = (0..127).fold(last.clone(), |within, _| json!({"a": within}));
            assert_eq!(schema.check(&arguments, 1_000).is_ok(), last.is_object(), "{keyword}");
        }
    }
}
