//! Arguments that a tool's schema wants mirrored into `Mcp-Param-*` headers.
//!
//! See 2026-07-28, streamable-http, "Custom Headers from Tool Parameters".

#[cfg(test)]
mod tests;

use crate::{
    HeaderFault, Limits,
    header::{PARAM_PREFIX, decode, name_value},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

/// The keyword that marks a property.
pub(crate) const ANNOTATION: &str = "x-mcp-header";
/// Integers that every reader of JSON keeps exactly: −2⁵³+1 … 2⁵³−1.
const SAFE: i64 = (1 << 53) - 1;

/// Why a schema's annotations cannot be followed. A tool with one is left out of lists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationFault {
    /// The name is no header name.
    #[error("`x-mcp-header` at {pointer} is not a header name")]
    Name {
        /// JSON pointer of the annotated schema.
        pointer: String,
    },
    /// Two annotations give the same header.
    #[error("`x-mcp-header` at {pointer} repeats another one's name")]
    Repeated {
        /// JSON pointer of the second.
        pointer: String,
    },
    /// The property is not a string, an integer or a boolean.
    #[error("`x-mcp-header` at {pointer} marks no string, integer or boolean")]
    Type {
        /// JSON pointer of the annotated schema.
        pointer: String,
    },
    /// The property is not reached by `properties` alone.
    #[error("`x-mcp-header` at {pointer} is not reachable by `properties` alone")]
    Unreachable {
        /// JSON pointer of the annotated schema.
        pointer: String,
    },
    /// The schema nests too deeply to be read.
    #[error("the schema nests too deeply")]
    TooDeep,
}

/// One argument and the header that mirrors it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The header.
    pub header: HeaderName,
    /// The property names that lead to the argument.
    pub path: Vec<String>,
}

/// Reads the annotations of a tool's input schema. Most tools have none: the result is empty and nothing is left to do.
pub fn bindings(schema: &Value) -> Result<Vec<Binding>, AnnotationFault> {
    let mut reader = Reader { found: Vec::new(), pointer: String::new() };
    reader.schema(schema, Some(&mut Vec::new()), 0)?;
    Ok(reader.found)
}

/// Whether a tool, as it is listed, has no annotation that cannot be followed. SPEC: clients leave such tools out of lists
/// (2026-07-28, streamable-http, "Custom Headers from Tool Parameters").
pub fn can_be_followed(tool: &[u8]) -> bool {
    // Most tools have none, which is cheaper to see than where; letters may be spelled by escapes.
    if [ANNOTATION.as_bytes(), b"\\u00"].into_iter().all(|word| memchr::memmem::find(tool, word).is_none()) {
        return true;
    }
    let Ok(tool) = crate::value(tool) else { return true };
    let Some(Err(fault)) = tool.get("inputSchema").map(bindings) else { return true };
    // A schema that cannot be read to its end has no fault that is known.
    fault == AnnotationFault::TooDeep
}

/// The headers that mirror `arguments`; what is absent or null has none.
pub fn headers(bindings: &[Binding], arguments: &Value) -> Vec<(HeaderName, HeaderValue)> {
    let mirror = |binding: &Binding| {
        let text = mirrored(argument(arguments, &binding.path)?)?;
        Some((binding.header.clone(), name_value(&text)))
    };
    bindings.iter().filter_map(mirror).collect()
}

/// Checks the `Mcp-Param-*` headers that the schema knows against `arguments`. Unknown ones pass.
pub fn check(headers: &HeaderMap, bindings: &[Binding], arguments: &Value) -> Result<(), HeaderFault> {
    for binding in bindings {
        let name = binding.header.as_str();
        let value = argument(arguments, &binding.path);
        match (headers.get(&binding.header), value) {
            (None, None) => {}
            // What cannot be mirrored is not of the schema's type; validation will say so.
            (None, Some(value)) if mirrored(value).is_none() => {}
            (None, Some(_)) => return Err(HeaderFault::Missing(name.to_owned())),
            (Some(header), Some(value)) if says(&decode(name, header)?, value) => {}
            (Some(_), _) => return Err(HeaderFault::Mismatch(name.to_owned())),
        }
    }
    Ok(())
}

/// [`bindings`] and [`headers`] in one step.
pub fn param_headers(schema: &Value, arguments: &Value) -> Result<Vec<(HeaderName, HeaderValue)>, AnnotationFault> {
    Ok(headers(&bindings(schema)?, arguments))
}

/// The argument at `path`; null counts as absent.
fn argument<'a>(arguments: &'a Value, path: &[String]) -> Option<&'a Value> {
    let found = path.iter().try_fold(arguments, |value, name| value.get(name))?;
    (!found.is_null()).then_some(found)
}

/// How a value is written in a header.
fn mirrored(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Number(_) => integer(value).map(|number| number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Whether a header's text stands for `value`. Integers are compared as numbers: `42.0` is `42`.
fn says(text: &str, value: &Value) -> bool {
    match value {
        Value::String(wanted) => text == wanted,
        Value::Bool(wanted) => text == if *wanted { "true" } else { "false" },
        Value::Number(_) => {
            let Ok(said) = crate::value(text.as_bytes()) else { return false };
            integer(&said).is_some() && integer(&said) == integer(value)
        }
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// The safe integer a number stands for.
fn integer(value: &Value) -> Option<i64> {
    let number = match (value.as_i64(), value.as_f64()) {
        (Some(number), _) => number,
        // Display of a whole double within the safe range is its decimal integer.
        (None, Some(float)) if float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0 => {
            format!("{float:.0}").parse().ok()?
        }
        _ => return None,
    };
    (-SAFE..=SAFE).contains(&number).then_some(number)
}

/// Walks a schema and collects annotations.
struct Reader {
    found: Vec<Binding>,
    /// JSON pointer of the schema that is being read.
    pointer: String,
}

impl Reader {
    /// `path` is `None` where `properties` alone does not lead.
    fn schema(&mut self, schema: &Value, path: Option<&mut Vec<String>>, depth: usize) -> Result<(), AnnotationFault> {
        if depth > Limits::DEEPEST {
            return Err(AnnotationFault::TooDeep);
        }
        let Value::Object(members) = schema else { return Ok(()) };
        let mut path = path;
        if let Some(annotation) = members.get(ANNOTATION) {
            self.annotation(members, annotation, path.as_deref())?;
        }
        for (keyword, below) in members {
            let length = self.pointer.len();
            self.descend(keyword);
            match (keyword.as_str(), below) {
                // Their values are data, not schemas.
                ("const" | "default" | "enum" | "examples" | ANNOTATION, _) => {}
                ("properties", Value::Object(properties)) => {
                    for (name, property) in properties {
                        let length = self.pointer.len();
                        self.descend(name);
                        match path.as_deref_mut() {
                            Some(path) => {
                                path.push(name.clone());
                                self.schema(property, Some(path), depth + 1)?;
                                path.pop();
                            }
                            None => self.schema(property, None, depth + 1)?,
                        }
                        self.pointer.truncate(length);
                    }
                }
                ("$defs" | "definitions" | "dependentSchemas" | "patternProperties", Value::Object(schemas)) => {
                    for (name, below) in schemas {
                        let length = self.pointer.len();
                        self.descend(name);
                        self.schema(below, None, depth + 1)?;
                        self.pointer.truncate(length);
                    }
                }
                (_, Value::Array(schemas)) => {
                    for below in schemas {
                        self.schema(below, None, depth + 1)?;
                    }
                }
                (_, below) => self.schema(below, None, depth + 1)?,
            }
            self.pointer.truncate(length);
        }
        Ok(())
    }

    fn annotation(
        &mut self,
        members: &Map<String, Value>,
        annotation: &Value,
        path: Option<&Vec<String>>,
    ) -> Result<(), AnnotationFault> {
        let pointer = || self.pointer.clone();
        let Some(path) = path.filter(|path| !path.is_empty()) else {
            return Err(AnnotationFault::Unreachable { pointer: pointer() });
        };
        let primitive = |name: &Value| matches!(name.as_str(), Some("string" | "integer" | "boolean"));
        let typed = match members.get("type") {
            // A nullable primitive is one that may be left out.
            Some(Value::Array(names)) => match names.as_slice() {
                [one] => primitive(one),
                [one, null] if null == "null" => primitive(one),
                [null, one] if null == "null" => primitive(one),
                _ => false,
            },
            Some(name) => primitive(name),
            None => false,
        };
        if !typed {
            return Err(AnnotationFault::Type { pointer: pointer() });
        }
        let name = annotation.as_str().filter(|name| !name.is_empty());
        let header = name.and_then(|name| HeaderName::try_from(format!("{PARAM_PREFIX}{name}")).ok());
        let Some(header) = header else { return Err(AnnotationFault::Name { pointer: pointer() }) };
        if self.found.iter().any(|binding| binding.header == header) {
            return Err(AnnotationFault::Repeated { pointer: pointer() });
        }
        self.found.push(Binding { header, path: path.clone() });
        Ok(())
    }

    fn descend(&mut self, name: &str) {
        self.pointer.push('/');
        self.pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
    }
}
