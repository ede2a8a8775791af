//! The guards of one direction of traffic: which detectors look, and what is done about what they find.
//!
//! Fails closed: what cannot be read or is too large to be looked into does not pass where something may be masked,
//! unless a glance shows that nothing could be in it, however it is read.

mod rewrite;
mod search;

use crate::carry::Carry;
use crate::detector::{Detector, HIGH_ENTROPY, Match, Mode, Setting};
use crate::json::{Care, Token, Walker};
use crate::secret::Secrets;
use rewrite::Edit;
use search::Seen;
use std::fmt;
use std::sync::Arc;
use vocab::{Finding, Side};

/// The largest single string that is looked into.
const LARGEST_TEXT: usize = 4 * 1024 * 1024;
/// How many findings of one message are told. What is beyond is masked or refused all the same.
const FINDINGS: usize = 256;
/// Longer member names are not told.
const LONGEST_STEP: usize = 256;
/// How many detectors there may be.
const DETECTORS: usize = 16;

/// Detectors in the order they were added, each with its setting. Cheap to clone.
#[derive(Clone, Default)]
pub struct Guards {
    list: Vec<(Arc<dyn Detector>, Setting)>,
}

impl fmt::Debug for Guards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list.iter().map(|(detector, setting)| (detector.family(), setting))).finish()
    }
}

/// There is no room for one more detector.
#[derive(Debug, thiserror::Error)]
#[error("more than {DETECTORS} detectors")]
pub struct TooManyDetectors;

/// What came of looking.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Screening {
    /// What was found, in the order of the text; at most 256.
    pub findings: Vec<Finding>,
    /// What is to be sent on.
    pub verdict: Verdict,
}

/// What is to be sent on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The bytes as they are.
    Clean,
    /// These bytes instead: a whole JSON text of the same structure.
    Masked(Vec<u8>),
    /// Nothing.
    Refused,
}

impl Guards {
    /// Looks for secrets.
    pub fn new(secrets: Setting) -> Self {
        Self::only(Arc::new(Secrets), secrets)
    }

    /// Looks with one detector.
    pub fn only(detector: Arc<dyn Detector>, setting: Setting) -> Self {
        Self { list: vec![(detector, setting)] }
    }

    /// Looks for nothing.
    pub const fn none() -> Self {
        Self { list: Vec::new() }
    }

    /// Adds a detector behind the others. Where two find the same range, the name that the first gives it is used.
    pub fn with(mut self, detector: Arc<dyn Detector>, setting: Setting) -> Result<Self, TooManyDetectors> {
        if self.list.len() >= DETECTORS {
            return Err(TooManyDetectors);
        }
        self.list.push((detector, setting));
        Ok(self)
    }

    /// Nothing is looked for in this direction.
    pub fn is_off(&self, side: Side) -> bool {
        self.list.iter().all(|(_, setting)| setting.mode(side) == Mode::Off)
    }

    /// Looks into what a caller sends: the JSON text of the `params` of a message, or of the `result` of an answer.
    pub fn screen(&self, json: &[u8]) -> Screening {
        self.inspect(json, Side::Arguments, None)
    }

    /// Whether nothing can be found in a text, if a caller sends it as a string. Costs nothing but a look; a no says nothing.
    pub fn is_clean_argument(&self, text: &str) -> bool {
        self.is_clean_at_a_glance(text, Side::Arguments)
    }

    /// Whether nothing can be found in a text, if a server says it in a string. The same.
    pub fn is_clean_result(&self, text: &str) -> bool {
        self.is_clean_at_a_glance(text, Side::Result)
    }

    /// Looks into what a server sends: the JSON text of a `result`, an `error` or the `params` of a message.
    pub fn release(&self, json: &[u8], carry: &mut Carry) -> Screening {
        if let Some(earlier) = carry.take_up() {
            recall(&earlier, carry);
        }
        carry.next();
        self.inspect(json, Side::Result, Some(carry))
    }

    fn inspect(&self, json: &[u8], side: Side, carry: Option<&mut Carry>) -> Screening {
        if self.is_off(side) {
            return Screening { findings: Vec::new(), verdict: Verdict::Clean };
        }
        let mut inspection = Inspection { guards: self, side, findings: Vec::new(), edits: Vec::new(), refused: false };
        let source = std::str::from_utf8(json).ok();
        let mut carry = carry;
        if let Some(source) = source
            && self.is_clean_at_a_glance(source, side)
            && carry.as_deref_mut().is_none_or(|carry| carry.put_off(source))
        {
            return Screening { findings: Vec::new(), verdict: Verdict::Clean };
        }
        let Some(source) = source.filter(|source| inspection.read(source, carry)) else {
            inspection.unfit("unreadable", "");
            return inspection.close("");
        };
        inspection.close(source)
    }

    /// Whether no detector could find anything in any string. What has escapes, or may have a text within a blob, has to
    /// be walked through.
    fn is_clean_at_a_glance(&self, source: &str, side: Side) -> bool {
        source.len() <= LARGEST_TEXT
            && !source.contains('\\')
            && !source.contains("\"blob\"")
            && self.active(side).all(|(detector, _)| !detector.may_find(source))
    }

    fn active(&self, side: Side) -> impl Iterator<Item = (&dyn Detector, Mode)> {
        let with_mode = self.list.iter().map(move |(detector, setting)| (detector.as_ref(), setting.mode(side)));
        with_mode.filter(|(_, mode)| *mode != Mode::Off)
    }
}

/// Everything that a detector finds in a text that is no JSON but may hold some: as it is and with its escapes undone. What
/// is larger than a string may be is looked into as it is.
pub fn search(detector: &dyn Detector, text: &str) -> Vec<Match> {
    if text.len() > LARGEST_TEXT {
        let mut found = Vec::new();
        detector.find(text, &mut found);
        return found;
    }
    Seen::of(text, false).search(detector, None)
}

/// Says what of a text is larger than what is looked into, for whoever reads that it does not pass. `None`: nothing is.
pub fn too_large(json: &[u8]) -> Option<String> {
    let mut walker = Walker::new(std::str::from_utf8(json).ok()?);
    let mut longest = 0;
    while let Ok(Some(token)) = walker.advance() {
        if walker.care(&token) != Care::Untouched {
            longest = longest.max(token.span.len());
        }
    }
    (longest > LARGEST_TEXT)
        .then(|| format!("a single string of {longest} bytes, and detectors look into {LARGEST_TEXT} at most (4 MiB)"))
}

/// Remembers the ends of the texts of a message in which nothing was found and nothing is escaped.
fn recall(json: &str, carry: &mut Carry) {
    let mut walker = Walker::new(json);
    while let Ok(Some(token)) = walker.advance() {
        let care = walker.care(&token);
        if !token.key && care != Care::Untouched {
            carry.remember(walker.place(), walker.raw(&token.span), None);
            if care == Care::Full && walker.is_said(&token) {
                carry.remember_last(walker.raw(&token.span), None);
            }
        }
    }
}

/// What is found where a string goes on with an earlier one.
#[derive(Default, Clone, Copy)]
struct Joint {
    /// Something is.
    is_one: bool,
    /// Where it begins, in the two together, if it runs to the end of the string.
    open: Option<usize>,
}

/// Adds what begins in `tail` and ends in this string.
fn join(seen: &Seen<'_>, detector: &dyn Detector, tail: &str, found: &mut Vec<Match>) -> Joint {
    let (across, open) = seen.search_across(detector, tail);
    let is_one = !across.is_empty();
    // What is part of something larger is named by that.
    let reached = across.iter().map(|m| m.span.end).max().unwrap_or(0);
    found.retain(|m| m.span.end > reached);
    found.splice(0..0, across);
    Joint { is_one, open }
}

/// One message being looked into.
struct Inspection<'g> {
    guards: &'g Guards,
    side: Side,
    findings: Vec<Finding>,
    edits: Vec<Edit>,
    refused: bool,
}

impl Inspection<'_> {
    /// False when the text is not JSON.
    fn read(&mut self, source: &str, mut carry: Option<&mut Carry>) -> bool {
        let mut walker = Walker::new(source);
        loop {
            match walker.advance() {
                Ok(Some(token)) => self.look(&walker, &token, carry.as_deref_mut()),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    fn look(&mut self, walker: &Walker<'_>, token: &Token, carry: Option<&mut Carry>) {
        let care = walker.care(token);
        if care == Care::Untouched {
            return;
        }
        if token.span.len() > LARGEST_TEXT {
            self.unfit("too-large", &self.pointer(walker));
            return;
        }
        let raw = walker.raw(&token.span);
        if let Some(text) = (care == Care::Blob).then(|| search::blob(raw)).flatten() {
            self.look_into_blob(walker, token, &text);
            return;
        }
        let seen = Seen::of(raw, token.escaped);
        let name = token.name.as_ref().map(|name| walker.raw(name));
        let is_said = care == Care::Full && walker.is_said(token);
        let carried = carry.as_ref().filter(|_| !token.key);
        let tail = carried.and_then(|carry| carry.tail(walker.place()));
        let before = carried.filter(|_| is_said).and_then(|carry| carry.before());
        let length = |tail: Option<&str>| tail.map_or(0, str::len);
        let (mut edits, mut open, mut open_last, mut goes_on) = (Vec::new(), None, None, false);
        for (detector, mode) in self.guards.active(self.side) {
            let mut found = seen.search(detector, name);
            if care != Care::Full {
                found.retain(|found| found.kind != HIGH_ENTROPY);
            }
            let within = found.iter().filter(|found| found.span.end == raw.len()).map(|found| found.span.start).min();
            let within = within.map(|start| seen.plain_offset(start));
            let here = tail.map(|tail| join(&seen, detector, tail, &mut found)).unwrap_or_default();
            // What was said last is most often what was said here.
            let anywhere = match before {
                Some(before) if tail != Some(before) => join(&seen, detector, before, &mut found),
                Some(_) => here,
                None => Joint::default(),
            };
            goes_on |= anywhere.is_one;
            open = open.or(here.open).or_else(|| within.map(|start| length(tail) + start));
            open_last = open_last.or(anywhere.open).or_else(|| within.map(|start| length(before) + start));
            for Match { kind, span } in found {
                let span = token.span.start + span.start..token.span.start + span.end;
                edits.push((Edit { span, kind, key: token.key, text: None }, detector.family(), mode));
            }
        }
        self.settle(walker, edits);
        if let Some(carry) = carry.filter(|_| !token.key) {
            carry.remember(walker.place(), seen.plain(), open);
            if goes_on {
                carry.spend();
            }
            if is_said {
                carry.remember_last(seen.plain(), open_last);
            }
        }
    }

    /// A blob that holds a text is masked in the text and encoded again.
    fn look_into_blob(&mut self, walker: &Walker<'_>, token: &Token, text: &str) {
        let mut masks = Vec::new();
        let mut kinds = Vec::new();
        for (detector, mode) in self.guards.active(self.side) {
            for Match { kind, span } in Seen::of(text, false).search(detector, None) {
                masks.push((Edit { span, kind, key: false, text: None }, mode));
                kinds.push((kind, detector.family(), mode));
            }
        }
        for (kind, family, mode) in kinds {
            self.note(walker, kind, family, mode);
        }
        let masks: Vec<Edit> =
            masks.into_iter().filter(|(_, mode)| *mode == Mode::Mask).map(|(edit, _)| edit).collect();
        if !masks.is_empty() {
            let text = Some(search::to_blob(&rewrite::apply(text, masks)));
            self.edits.push(Edit { span: token.span.clone(), kind: "blob", key: false, text });
        }
    }

    fn settle(&mut self, walker: &Walker<'_>, edits: Vec<(Edit, &'static str, Mode)>) {
        for (edit, family, mode) in edits {
            self.note(walker, edit.kind, family, mode);
            if mode == Mode::Mask {
                self.edits.push(edit);
            }
        }
    }

    fn note(&mut self, walker: &Walker<'_>, kind: &str, family: &str, mode: Mode) {
        self.refused |= mode == Mode::Refuse;
        if self.findings.len() < FINDINGS {
            let pointer = self.pointer(walker);
            self.tell(family, kind, &pointer);
        }
    }

    /// What cannot be judged passes only where nothing would have been changed.
    fn unfit(&mut self, kind: &str, pointer: &str) {
        self.refused |= self.guards.active(self.side).any(|(_, mode)| matches!(mode, Mode::Mask | Mode::Refuse));
        self.tell("guard", kind, pointer);
    }

    fn tell(&mut self, detector: &str, kind: &str, pointer: &str) {
        let (detector, kind, pointer) = (detector.into(), kind.into(), pointer.into());
        self.findings.push(Finding { detector, kind, pointer, side: self.side });
    }

    /// SECURITY: a member name may itself be a secret, and findings never carry the text.
    fn pointer(&self, walker: &Walker<'_>) -> String {
        let mut pointer = String::new();
        for step in walker.path() {
            if step.len() > LONGEST_STEP {
                pointer.push_str("/[long]");
                continue;
            }
            let seen = Seen::of(&step, step.contains('\\'));
            let found = self.guards.active(self.side).flat_map(|(detector, _)| seen.search(detector, None));
            let edits: Vec<Edit> =
                found.map(|Match { kind, span }| Edit { span, kind, key: false, text: None }).collect();
            let step = rewrite::apply(&step, edits);
            let step = Seen::of(&step, step.contains('\\')).plain().replace('~', "~0").replace('/', "~1");
            pointer.push('/');
            pointer.push_str(&step);
        }
        pointer
    }

    fn close(self, source: &str) -> Screening {
        let verdict = if self.refused {
            Verdict::Refused
        } else if self.edits.is_empty() {
            Verdict::Clean
        } else {
            let keys = self.edits.iter().any(|edit| edit.key);
            let masked = rewrite::apply(source, self.edits);
            Verdict::Masked(if keys { rewrite::number_keys(&masked) } else { masked }.into_bytes())
        };
        Screening { findings: self.findings, verdict }
    }
}
