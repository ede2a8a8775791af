//! What a schema may cost, judged before it is compiled. Never looks at arguments.
//!
//! A server writes the schemas that the gateway runs, on the one thread that all calls of a worker share. References make a
//! short schema long: two to the same place, thirty times over, are a thousand million steps. So the schema is taken as a
//! graph, and the ways through it are counted.

use super::expression::Expressions;
use jsonschema::{Draft, Registry, RegistryBuilder, Retrieve, Uri, uri};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Keywords and references that one value may be held against, counted along every way through the schema.
const STEPS: u64 = 20_000;
/// Schemas within schemas on the longest way, references counted. All of them are on the stack at one time.
const HEIGHT: usize = 128;
/// The same where a part begins again within the value: then it is what each level of the arguments takes.
const ROUND: usize = 24;
/// JSON values in one schema, and parts of it and of what it refers to.
const VALUES: usize = 50_000;

/// Where a schema without `$id` is.
const BASE: &str = "json-schema:///";

/// What a schema costs at most.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weight {
    /// Steps for one value.
    pub(super) steps: u64,
    /// How many of them begin the schema, or a part of it, again for a value within the value.
    pub(super) again: u64,
    /// Sizes of the patterns that names of members are held against.
    pub(super) names: u64,
}

impl Weight {
    fn and(self, other: Self) -> Self {
        Self {
            steps: self.steps.saturating_add(other.steps),
            again: self.again.saturating_add(other.again),
            names: self.names.saturating_add(other.names),
        }
    }
}

/// The weight of a schema and its patterns, or why it is too heavy.
pub(super) fn weigh(schema: &Value, draft: Draft) -> Result<(Weight, Expressions), String> {
    let mut anchors = Vec::new();
    if values(schema, &mut anchors) > VALUES {
        return Err(format!("it has more than {VALUES} values"));
    }
    // What a dynamic reference means depends on the way to it; with one anchor there is one answer.
    if anchors.len() > 1 {
        return Err("it has more than one dynamic anchor".to_owned());
    }
    let mut expressions = Expressions::default();
    let graph = Graph::of(schema, draft, anchors.first().copied(), &mut expressions)?;
    graph.ends()?;
    let mut known = vec![Known::New; graph.parts.len()];
    let (weight, height) = graph.weigh(0, 1, &mut known)?;
    if weight.again > 0 && height > ROUND {
        return Err(format!("it recurs, and is more than {ROUND} schemas high, references counted"));
    }
    Ok((weight, expressions))
}

/// How many values there are, and which of them say that they are a dynamic anchor. The depth has its bound already.
fn values<'s>(value: &'s Value, anchors: &mut Vec<&'s Value>) -> usize {
    match value {
        Value::Object(members) => {
            if members.get("$dynamicAnchor").is_some_and(Value::is_string)
                || members.get("$recursiveAnchor") == Some(&Value::Bool(true))
            {
                anchors.push(value);
            }
            1 + members.values().map(|value| values(value, anchors)).sum::<usize>()
        }
        Value::Array(items) => 1 + items.iter().map(|value| values(value, anchors)).sum::<usize>(),
        _ => 1,
    }
}

/// One schema within the schema.
#[derive(Default)]
struct Part {
    /// What it costs by itself.
    own: Weight,
    /// It looks once more at what its parts said (`unevaluatedProperties`, `unevaluatedItems`).
    twice: bool,
    /// Where it goes on: for the same value, or (`true`) for one within it.
    next: Vec<(usize, bool)>,
}

#[derive(Clone, Copy)]
enum Known {
    New,
    Open,
    Done(Weight, usize),
}

struct Graph {
    /// The first is the whole.
    parts: Vec<Part>,
}

impl Graph {
    fn of(schema: &Value, draft: Draft, anchor: Option<&Value>, expressions: &mut Expressions) -> Result<Self, String> {
        let resource = draft.create_resource_ref(schema);
        let base = resource.id().unwrap_or(BASE);
        let registry = Registry::new().draft(draft).retriever(Nowhere).add(base, resource);
        let registry = registry.and_then(RegistryBuilder::prepare).map_err(text)?;
        let root = registry.resolver(uri::from_str(base.trim_end_matches('#')).map_err(text)?);
        let mut graph = Self { parts: vec![Part::default()] };
        let mut places = HashMap::from([(std::ptr::from_ref(schema), 0)]);
        let mut open = vec![(0, schema, root.clone(), draft)];
        while let Some((at, schema, resolver, draft)) = open.pop() {
            let Some(members) = schema.as_object() else { continue };
            let draft = draft.detect(schema);
            let resolver = resolver.in_subresource(draft.create_resource_ref(schema)).map_err(text)?;
            let within = parts(members).map(|(within, eats)| (within, eats, resolver.clone(), draft));
            let mut goes_on: Vec<_> = within.collect();
            for keyword in ["$ref", "$dynamicRef", "$recursiveRef"] {
                let Some(reference) = members.get(keyword).and_then(Value::as_str) else { continue };
                let (contents, resolver, draft) = resolver.lookup(reference).map_err(text)?.into_inner();
                goes_on.push((contents, false, resolver, draft));
                if let Some(anchor) = anchor.filter(|anchor| keyword != "$ref" && !std::ptr::eq(*anchor, contents)) {
                    goes_on.push((anchor, false, root.clone(), draft));
                }
            }
            let mut next = Vec::with_capacity(goes_on.len());
            for (within, eats, resolver, draft) in goes_on {
                let fresh = graph.parts.len();
                let to = *places.entry(std::ptr::from_ref(within)).or_insert(fresh);
                if to == fresh {
                    graph.parts.push(Part::default());
                    open.push((to, within, resolver, draft));
                }
                next.push((to, eats));
            }
            if graph.parts.len() > VALUES {
                return Err(format!("it has more than {VALUES} parts"));
            }
            let part = Part { own: own(members, expressions)?, twice: looks_twice(members), next };
            if let Some(place) = graph.parts.get_mut(at) {
                *place = part;
            }
        }
        Ok(graph)
    }

    /// No way leads back to where it began without going into the value.
    fn ends(&self) -> Result<(), String> {
        let same = |part: &Part| part.next.iter().filter(|(_, eats)| !eats).map(|(to, _)| *to).collect::<Vec<_>>();
        let mut into = vec![0_usize; self.parts.len()];
        for to in self.parts.iter().flat_map(same) {
            if let Some(into) = into.get_mut(to) {
                *into += 1;
            }
        }
        let mut free: Vec<usize> = (0..into.len()).filter(|at| into.get(*at) == Some(&0)).collect();
        let mut left = into.len();
        while let Some(at) = free.pop() {
            left -= 1;
            for to in self.parts.get(at).map(same).unwrap_or_default() {
                let Some(into) = into.get_mut(to) else { continue };
                *into -= 1;
                if *into == 0 {
                    free.push(to);
                }
            }
        }
        if left == 0 {
            Ok(())
        } else {
            Err("its references lead back to where they began, for the same value".to_owned())
        }
    }

    /// What a part costs, and how high it is.
    fn weigh(&self, at: usize, depth: usize, known: &mut [Known]) -> Result<(Weight, usize), String> {
        let too_high = || Err(format!("it is more than {HEIGHT} schemas high, references counted"));
        match known.get(at) {
            Some(Known::Done(weight, height)) if depth + height <= HEIGHT + 1 => return Ok((*weight, *height)),
            Some(Known::Open) => return Ok((Weight { steps: 1, again: 1, names: 0 }, 1)),
            Some(Known::New) if depth <= HEIGHT => {}
            _ => return too_high(),
        }
        let Some(part) = self.parts.get(at) else { return too_high() };
        set(known, at, Known::Open);
        let mut sum = part.own;
        let mut height = 1;
        for (to, _) in &part.next {
            let (weight, below) = self.weigh(*to, depth + 1, known)?;
            sum = sum.and(weight);
            height = height.max(below + 1);
        }
        if part.twice {
            sum = sum.and(sum);
        }
        // An object or array is looked at once by each part that begins again, a scalar each time.
        if sum.steps.saturating_mul(sum.again.max(1)) > STEPS {
            return Err(format!("one value could take more than {STEPS} steps through it"));
        }
        set(known, at, Known::Done(sum, height));
        Ok((sum, height))
    }
}

fn set(known: &mut [Known], at: usize, now: Known) {
    if let Some(place) = known.get_mut(at) {
        *place = now;
    }
}

/// What a schema costs without its parts: its keywords, what they list, and its patterns.
fn own(members: &Map<String, Value>, expressions: &mut Expressions) -> Result<Weight, String> {
    let lists = ["enum", "required", "type"].iter().filter_map(|keyword| members.get(*keyword)?.as_array());
    let steps = 1 + members.len() + lists.map(Vec::len).sum::<usize>();
    if let Some(pattern) = members.get("pattern").and_then(Value::as_str) {
        expressions.add(pattern)?;
    }
    let mut names = 0_u64;
    for pattern in members.get("patternProperties").and_then(Value::as_object).into_iter().flat_map(Map::keys) {
        names = names.saturating_add(expressions.add(pattern)?);
    }
    Ok(Weight { steps: steps as u64, again: 0, names })
}

fn looks_twice(members: &Map<String, Value>) -> bool {
    members.contains_key("unevaluatedProperties") || members.contains_key("unevaluatedItems")
}

/// The schemas that a schema holds its value against, or (`true`) what is within its value.
fn parts(members: &Map<String, Value>) -> impl Iterator<Item = (&Value, bool)> {
    members.iter().flat_map(|(keyword, value)| {
        let (eats, named) = match keyword.as_str() {
            "allOf" | "anyOf" | "oneOf" | "not" | "if" | "then" | "else" => (false, false),
            "dependentSchemas" | "dependencies" => (false, true),
            "items"
            | "prefixItems"
            | "additionalItems"
            | "contains"
            | "unevaluatedItems"
            | "additionalProperties"
            | "propertyNames"
            | "unevaluatedProperties" => (true, false),
            "properties" | "patternProperties" => (true, true),
            _ => return Vec::new(),
        };
        let within: Vec<&Value> = match value {
            Value::Object(named_ones) if named => named_ones.values().collect(),
            Value::Array(items) => items.iter().collect(),
            one => vec![one],
        };
        within.into_iter().map(|within| (within, eats)).collect()
    })
}

/// Nothing is fetched.
struct Nowhere;

impl Retrieve for Nowhere {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Err(format!("{uri} is not fetched").into())
    }
}

fn text(fault: impl std::fmt::Display) -> String {
    fault.to_string()
}
