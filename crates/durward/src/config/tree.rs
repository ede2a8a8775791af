//! YAML text → a tree in which every key and value knows its place.
//!
//! Knows nothing of our keys. Keeps repeated keys, so that they can be reported; bounds depth and size, so that no
//! file can exhaust memory.

use serde_saphyr::granit_parser::{ErrorKind, Event, Options, Parser, ScalarStyle, StructureStyle, Tag, options};
use std::{collections::BTreeMap, ops::Range};

/// A place: bytes of the source.
pub(super) type Span = Range<usize>;

/// The most nodes of one file, aliases counted as what they stand for.
const MOST_NODES: usize = 200_000;

/// A value and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// Where it is written.
    pub(super) span: Span,
    /// What is written.
    pub(super) value: Value,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// Nothing: `key:` or `~`.
    Null,
    /// One value. `quoted` tells `"5"` from `5`.
    Scalar { text: String, quoted: bool },
    /// `[a, b]`
    List(Vec<Node>),
    /// `{ key: value }`
    Table(Vec<Entry>),
}

/// One key and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The key.
    pub(super) key: String,
    /// Where the key is written.
    pub(super) span: Span,
    /// What it holds.
    pub(super) node: Node,
}

/// Why a text is no YAML of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Syntax {
    /// Where.
    pub(super) span: Span,
    /// What is wrong.
    pub(super) what: String,
    /// What to do.
    pub(super) fix: &'static str,
}

impl Node {
    /// What holds `key`, if this is a table that has it with a value.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.node).filter(|node| node.value != Value::Null)
    }

    /// The entry of `key`; of repeated ones the first.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The entries, if this is a table; nothing otherwise.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Table(entries) => entries,
            Value::Null | Value::Scalar { .. } | Value::List(_) => &[],
        }
    }

    /// The members, if this is a list; otherwise the node itself, alone.
    pub(super) fn each(&self) -> &[Self] {
        match &self.value {
            Value::List(members) => members,
            Value::Null => &[],
            Value::Scalar { .. } | Value::Table(_) => std::slice::from_ref(self),
        }
    }

    /// The text, if this is one value.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            Value::Null | Value::List(_) | Value::Table(_) => None,
        }
    }

    /// What it is, for people.
    pub(super) fn describe(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Scalar { text, quoted: false } if matches!(text.as_str(), "true" | "false") => "true or false",
            Value::Scalar { text, quoted: false } if text.parse::<f64>().is_ok() => "a number",
            Value::Scalar { .. } => "a text",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }

    fn size(&self) -> usize {
        1 + match &self.value {
            Value::Null | Value::Scalar { .. } => 0,
            Value::List(members) => members.iter().map(Self::size).sum(),
            Value::Table(entries) => entries.iter().map(|entry| 1 + entry.node.size()).sum(),
        }
    }
}

/// Reads one document.
pub(super) fn parse(source: &str) -> Result<Node, Syntax> {
    let limits: Options = options! { flow_nesting_limit: 32, block_nesting_limit: 32 };
    let mut builder = Builder::default();
    for next in Parser::new_from_str_with_options(source, limits) {
        let (event, span) = next.map_err(|fault| {
            let at = fault.marker().byte_offset().unwrap_or(source.len()).min(source.len());
            let (what, fix) = policy::syntax(&fault);
            // With a tab before it, whatever else is said of a place is said because of that, unless a quote is not closed.
            let (what, fix) =
                if after_tab(source, at) && !in_quotes(fault.kind()) { (TAB.0.to_owned(), TAB.1) } else { (what, fix) };
            Syntax { span: at..at, what, fix }
        })?;
        builder.take(event, span.byte_range().unwrap_or(0..0))?;
    }
    Ok(builder.root.unwrap_or(Node { span: 0..0, value: Value::Null }))
}

/// What is said of a tab.
const TAB: (&str, &str) = ("a tab stands here", "indent with spaces: YAML does not allow tabs");

/// Whether the fault is of a text in quotes that goes on to this line.
fn in_quotes(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::InvalidQuotedScalarIndent | ErrorKind::TabInIndentation)
}

/// Whether a line is indented with a tab, and the fault is on it.
fn after_tab(source: &str, at: usize) -> bool {
    let line = source.get(..at).and_then(|before| before.rsplit('\n').next()).unwrap_or_default();
    let rest = source.get(at..).and_then(|after| after.split('\n').next()).unwrap_or_default();
    [line, rest].iter().any(|part| part.trim_start_matches(' ').starts_with('\t'))
}

/// Builds the tree from events.
#[derive(Default)]
struct Builder {
    open: Vec<Frame>,
    anchors: BTreeMap<usize, Node>,
    root: Option<Node>,
    documents: usize,
    nodes: usize,
}

/// A list or table that has not ended yet.
struct Frame {
    anchor: usize,
    span: Span,
    flow: bool,
    kind: Open,
}

enum Open {
    List(Vec<Node>),
    Table { entries: Vec<Entry>, key: Option<(String, Span)> },
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Syntax> {
        if event.tag().is_some_and(Tag::is_custom) {
            return Err(fault(span, "tags have no meaning here", "remove the word that begins with `!`"));
        }
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(fault(span, "a second document begins here", "keep everything in one document"));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, _) => {
                let quoted = style != ScalarStyle::Plain;
                let value = match &*text {
                    "" | "~" | "null" | "Null" | "NULL" if !quoted => Value::Null,
                    _ => Value::Scalar { text: text.into_owned(), quoted },
                };
                self.add(Node { span, value }, anchor)
            }
            Event::SequenceStart(style, anchor, _) => {
                let kind = Open::List(Vec::new());
                self.open.push(Frame { anchor, span, flow: style == StructureStyle::Flow, kind });
                Ok(())
            }
            Event::MappingStart(style, anchor, _) => {
                let kind = Open::Table { entries: Vec::new(), key: None };
                self.open.push(Frame { anchor, span, flow: style == StructureStyle::Flow, kind });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(frame) => {
                    let anchor = frame.anchor;
                    self.add(frame.close(span), anchor)
                }
                None => Ok(()),
            },
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => {
                    let node = Node { span, value: node.value.clone() };
                    self.add(node, 0)
                }
                None => Err(fault(span, "this refers to itself", "name an anchor that has ended")),
            },
            // Comments, anchors by name and the borders of the stream say nothing.
            _ => Ok(()),
        }
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Syntax> {
        if !matches!(node.value, Value::List(_) | Value::Table(_)) || anchor == 0 {
            self.nodes += 1;
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        // An alias of a big tree counts as that tree: anchors of anchors must not multiply without end.
        self.nodes += node.size();
        if self.nodes > MOST_NODES {
            return Err(fault(
                node.span,
                "the file is too large",
                "an alias, `*name`, counts as all that it stands for: write fewer of them",
            ));
        }
        match self.open.last_mut().map(|frame| &mut frame.kind) {
            None => self.root = Some(node),
            Some(Open::List(members)) => members.push(node),
            Some(Open::Table { entries, key }) => match key.take() {
                Some((key, span)) => entries.push(Entry { key, span, node }),
                None => match node.value {
                    Value::Scalar { text, .. } => *key = Some((text, node.span)),
                    Value::Null => *key = Some(("null".to_owned(), node.span)),
                    Value::List(_) | Value::Table(_) => {
                        return Err(fault(node.span, "a key must be a text", "write `name: value`"));
                    }
                },
            },
        }
        Ok(())
    }
}

impl Frame {
    fn close(self, end: Span) -> Node {
        let value = match self.kind {
            Open::List(members) => Value::List(members),
            Open::Table { entries, .. } => Value::Table(entries),
        };
        // A block has no closing bracket: its first key or member stands for it.
        let first = match &value {
            Value::Table(entries) => entries.first().map(|entry| entry.span.clone()),
            Value::List(members) => members.first().map(|member| member.span.clone()),
            Value::Null | Value::Scalar { .. } => None,
        };
        let span = if self.flow { self.span.start..end.end } else { first.unwrap_or(self.span) };
        Node { span, value }
    }
}

fn fault(span: Span, what: &str, fix: &'static str) -> Syntax {
    Syntax { span, what: what.to_owned(), fix }
}
