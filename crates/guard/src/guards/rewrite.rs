//! Puts masks into a text. Every byte outside the ranges stays.

use crate::json::Walker;
use std::collections::HashSet;
use std::ops::Range;

const MASK: &str = "[redacted:";

/// One range to be replaced.
pub(super) struct Edit {
    pub(super) span: Range<usize>,
    pub(super) kind: &'static str,
    /// The range lies in a member name.
    pub(super) key: bool,
    /// What to put there; the mask of its kind if none.
    pub(super) text: Option<String>,
}

/// Replaces the ranges. Ranges that overlap become one, named by the edit that was added first.
pub(super) fn apply(source: &str, edits: Vec<Edit>) -> String {
    let mut ordered: Vec<(usize, Edit)> = edits.into_iter().enumerate().collect();
    ordered.sort_by_key(|(added, edit)| (edit.span.start, *added));
    let mut merged: Vec<(usize, Edit)> = Vec::with_capacity(ordered.len());
    for (added, edit) in ordered {
        match merged.last_mut().filter(|(_, last)| edit.span.start < last.span.end) {
            Some((first, last)) => {
                last.span.end = last.span.end.max(edit.span.end);
                if added < *first {
                    *first = added;
                    last.kind = edit.kind;
                }
            }
            None => merged.push((added, edit)),
        }
    }
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    for (_, edit) in merged {
        out.push_str(source.get(at..edit.span.start).unwrap_or_default());
        match edit.text {
            Some(text) => out.push_str(&text),
            None => out.extend([MASK, edit.kind, "]"]),
        }
        at = edit.span.end;
    }
    out.push_str(source.get(at..).unwrap_or_default());
    out
}

/// Numbers the masked member names that would otherwise occur twice in one object.
pub(super) fn number_keys(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    let mut walker = Walker::new(source);
    let mut objects: Vec<(usize, HashSet<String>)> = Vec::new();
    while let Ok(Some(token)) = walker.advance() {
        if !token.key {
            continue;
        }
        let object = walker.object();
        while objects.last().is_some_and(|(start, _)| *start > object) {
            objects.pop();
        }
        if objects.last().is_none_or(|(start, _)| *start < object) {
            objects.push((object, HashSet::new()));
        }
        let Some((_, names)) = objects.last_mut() else { continue };
        let name = walker.raw(&token.span);
        let mut unique = name.to_owned();
        let mut number = 2_usize;
        while name.contains(MASK) && names.contains(&unique) {
            unique = format!("{name}#{number}");
            number += 1;
        }
        out.push_str(source.get(at..token.span.start).unwrap_or_default());
        out.push_str(&unique);
        at = token.span.end;
        names.insert(unique);
    }
    out.push_str(source.get(at..).unwrap_or_default());
    out
}
