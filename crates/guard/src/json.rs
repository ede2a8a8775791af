//! Walks the strings of a JSON text, with the place of each.
//!
//! One pass, no recursion, no tree. Judges only what it needs to keep its place; it is not the validator.

use std::ops::Range;

/// The text is not JSON.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// One string token.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    /// Between the quotes.
    pub(crate) span: Range<usize>,
    /// Has a backslash.
    pub(crate) escaped: bool,
    /// Is a member name.
    pub(crate) key: bool,
    /// The member name it is the value of, as written; that of the array for an element.
    pub(crate) name: Option<Range<usize>>,
}

/// How far a text may be looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Care {
    /// An opaque value of the protocol: never touched.
    Untouched,
    /// May look random by right: only what has a known shape is looked for.
    Shapes,
    /// Base64 of bytes that may be a text.
    Blob,
    /// Everything is looked for.
    Full,
}

#[derive(Debug, Clone)]
enum Step {
    Member(Range<usize>),
    Element(usize),
}

struct Frame {
    start: usize,
    object: bool,
    step: Step,
    /// The member name that led here.
    name: Option<Range<usize>>,
    /// Inside arguments or structured content: names mean what the tool says.
    application: bool,
    /// Inside what is said in words of the server's own: structured content, the data of a log message or an error.
    words: bool,
    /// Where the protocol keeps its own values: the root, `_meta`, `task`, `tasks`, what a listener asks for.
    protocol: bool,
    media: bool,
    place: u64,
    /// Waits for the end of the object, when its type is known.
    waiting: Vec<Token>,
}

enum Expect {
    Value,
    ValueOrEnd,
    KeyOrEnd,
    Key,
    CommaOrEnd,
    End,
}

/// Yields the strings of a JSON text in order, except that `blob` and `data` wait for the end of their object.
pub(crate) struct Walker<'t> {
    source: &'t str,
    at: usize,
    frames: Vec<Frame>,
    expect: Expect,
}

impl<'t> Walker<'t> {
    pub(crate) const fn new(source: &'t str) -> Self {
        Self { source, at: 0, frames: Vec::new(), expect: Expect::Value }
    }

    /// The next string, or nothing at the end of the text.
    pub(crate) fn advance(&mut self) -> Result<Option<Token>, Malformed> {
        loop {
            self.skip_space();
            let Some(byte) = self.peek() else {
                return if matches!(self.expect, Expect::End) { Ok(None) } else { Err(Malformed) };
            };
            match (&self.expect, byte) {
                (Expect::Value | Expect::ValueOrEnd, b'"') => {
                    let token = self.string(false)?;
                    self.after_value();
                    if let Some(token) = self.hold(token) {
                        return Ok(Some(token));
                    }
                }
                (Expect::Value | Expect::ValueOrEnd, b'{' | b'[') => self.open(byte == b'{'),
                (Expect::ValueOrEnd | Expect::CommaOrEnd, b']') => self.close(false)?,
                (Expect::KeyOrEnd | Expect::CommaOrEnd, b'}') => {
                    if let Some(token) = self.frames.last_mut().and_then(|frame| frame.waiting.pop()) {
                        if let (Some(frame), Some(name)) = (self.frames.last_mut(), token.name.clone()) {
                            frame.step = Step::Member(name);
                        }
                        self.expect = Expect::CommaOrEnd;
                        return Ok(Some(token));
                    }
                    self.close(true)?;
                }
                (Expect::KeyOrEnd | Expect::Key, b'"') => {
                    let token = self.string(true)?;
                    self.skip_space();
                    if self.peek() != Some(b':') {
                        return Err(Malformed);
                    }
                    self.at += 1;
                    self.expect = Expect::Value;
                    if let Some(frame) = self.frames.last_mut() {
                        frame.step = Step::Member(token.span.clone());
                    }
                    return Ok(Some(token));
                }
                (Expect::CommaOrEnd, b',') => self.comma()?,
                (Expect::Value | Expect::ValueOrEnd, b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                    self.scalar();
                    self.after_value();
                }
                _ => return Err(Malformed),
            }
        }
    }

    /// The text of a token or name, as written.
    pub(crate) fn raw(&self, span: &Range<usize>) -> &'t str {
        self.source.get(span.clone()).unwrap_or_default()
    }

    /// The steps from the root to the string that was yielded last, as written.
    pub(crate) fn path(&self) -> impl Iterator<Item = String> + '_ {
        self.frames.iter().map(|frame| match &frame.step {
            Step::Member(name) => self.raw(name).to_owned(),
            Step::Element(index) => index.to_string(),
        })
    }

    /// Where the innermost open object or array starts. Siblings differ, and an outer one starts earlier.
    pub(crate) fn object(&self) -> usize {
        self.frames.last().map_or(0, |frame| frame.start)
    }

    /// A number for the place of the string that was yielded last; elements of one array share it.
    pub(crate) fn place(&self) -> u64 {
        self.frames.last().map_or(0, |frame| self.place_of(frame))
    }

    /// How far the string that was yielded last may be looked into.
    pub(crate) fn care(&self, token: &Token) -> Care {
        let Some(frame) = self.frames.last() else { return Care::Full };
        if token.key && self.is_key_of_questions(frame) {
            return Care::Untouched;
        }
        let (false, Some(name)) = (token.key, &token.name) else { return Care::Full };
        // SPEC: what the protocol hands out to get it back unchanged. Elsewhere the same names are a tool's own.
        let opaque = frame.protocol && !frame.application;
        match self.raw(name) {
            "progressToken"
            | "requestState"
            | "nextCursor"
            | "cursor"
            | "taskId"
            | "taskIds"
            | "elicitationId"
            | "subscriptionId"
            | "io.modelcontextprotocol/subscriptionId" => {
                if opaque {
                    Care::Untouched
                } else {
                    Care::Shapes
                }
            }
            "jsonrpc" | "mimeType" | "type" | "id" | "uri" | "resourceSubscriptions" | "toolUseId" | "requestId" => {
                Care::Shapes
            }
            // What a call names is listed by a server, and long names may look random.
            "name" if self.frames.len() == 1 => Care::Shapes,
            // SPEC: W3C trace context, random by design.
            "traceparent" | "tracestate" if opaque => Care::Shapes,
            "data" | "blob" if frame.media => Care::Shapes,
            "blob" => Care::Blob,
            _ => Care::Full,
        }
    }

    /// Whether the member names of this object are ids of a server's questions. SPEC: the answers bear the same.
    fn is_key_of_questions(&self, frame: &Frame) -> bool {
        let name = frame.name.as_ref().map(|name| self.raw(name));
        let is_named = matches!(name, Some("inputRequests" | "inputResponses"));
        is_named && self.frames.len() == 2 && !frame.application
    }

    /// Whether the string that was yielded last is something said, and no word of the protocol.
    pub(crate) fn is_said(&self, token: &Token) -> bool {
        let (false, Some(frame), Some(name)) = (token.key, self.frames.last(), &token.name) else { return false };
        frame.words || matches!(self.raw(name), "text" | "message" | "data" | "description" | "statusMessage")
    }

    fn peek(&self) -> Option<u8> {
        self.source.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn scalar(&mut self) {
        while let Some(b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'E') = self.peek() {
            self.at += 1;
        }
    }

    fn string(&mut self, key: bool) -> Result<Token, Malformed> {
        let start = self.at + 1;
        let mut end = start;
        let mut escaped = false;
        let bytes = self.source.as_bytes();
        loop {
            match bytes.get(end).ok_or(Malformed)? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    end += 2;
                }
                _ => end += 1,
            }
        }
        self.at = end + 1;
        let name = if key { None } else { self.name() };
        Ok(Token { span: start..end, escaped, key, name })
    }

    /// The member name that leads to the next value.
    fn name(&self) -> Option<Range<usize>> {
        let frame = self.frames.last()?;
        match &frame.step {
            Step::Member(name) => Some(name.clone()),
            Step::Element(_) => frame.name.clone(),
        }
    }

    fn place_of(&self, frame: &Frame) -> u64 {
        match &frame.step {
            Step::Member(name) => hash(frame.place, self.raw(name)),
            Step::Element(_) => hash(frame.place, "*"),
        }
    }

    fn open(&mut self, object: bool) {
        let name = self.name();
        let text = name.as_ref().map_or("", |name| self.raw(name));
        let (mut application, mut words, mut protocol, mut place) = (false, false, true, 0);
        if let Some(parent) = self.frames.last() {
            application = parent.application || matches!(text, "structuredContent" | "arguments");
            words = application || parent.words || text == "data";
            let is_filter = text == "notifications" && self.frames.len() == 1;
            let meta = is_filter || matches!(text, "_meta" | "task" | "tasks");
            let inherits = self.frames.len() > 1 && parent.protocol;
            protocol = !application && (meta || inherits);
            place = self.place_of(parent);
        }
        let start = self.at;
        self.at += 1;
        self.expect = if object { Expect::KeyOrEnd } else { Expect::ValueOrEnd };
        let step = Step::Element(0);
        let waiting = Vec::new();
        let media = false;
        self.frames.push(Frame { start, object, step, name, application, words, protocol, media, place, waiting });
    }

    fn close(&mut self, object: bool) -> Result<(), Malformed> {
        let frame = self.frames.pop().ok_or(Malformed)?;
        if frame.object != object {
            return Err(Malformed);
        }
        self.at += 1;
        self.after_value();
        Ok(())
    }

    fn comma(&mut self) -> Result<(), Malformed> {
        let frame = self.frames.last_mut().ok_or(Malformed)?;
        self.at += 1;
        if frame.object {
            self.expect = Expect::Key;
        } else {
            if let Step::Element(index) = &mut frame.step {
                *index += 1;
            }
            self.expect = Expect::Value;
        }
        Ok(())
    }

    const fn after_value(&mut self) {
        self.expect = if self.frames.is_empty() { Expect::End } else { Expect::CommaOrEnd };
    }

    /// Learns what kind of content this object is, and keeps back what can only be judged when that is known.
    fn hold(&mut self, token: Token) -> Option<Token> {
        let source = self.source;
        let Some(frame) = self.frames.last_mut().filter(|frame| frame.object) else { return Some(token) };
        let value = source.get(token.span.clone()).unwrap_or_default();
        let name = token.name.clone().and_then(|name| source.get(name)).unwrap_or_default();
        match name {
            "type" => frame.media |= matches!(value, "image" | "audio"),
            "mimeType" => {
                let family = value.split('/').next().unwrap_or_default();
                let drawn = value.eq_ignore_ascii_case("image/svg+xml");
                frame.media |= !drawn && matches!(family, "image" | "audio" | "video" | "font");
            }
            "blob" | "data" => {
                frame.waiting.push(token);
                return None;
            }
            _ => {}
        }
        Some(token)
    }
}

/// FNV-1a, one step of a path.
fn hash(seed: u64, step: &str) -> u64 {
    let start = seed ^ 0xcbf2_9ce4_8422_2325;
    step.bytes().chain([b'/']).fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
