//! What a server asks of its client in what is no request: questions in results and in news of tasks (2026-07-28,
//! basic/patterns/mrtr), pages to visit in errors (-32042 of 2025-11-25, client/elicitation).
//!
//! Finds, and never judges. SECURITY: whatever some client could read as a question is one. Codes and types do not matter,
//! for clients differ in how they read them, nor does the case of names: some readers ignore it.

use super::{
    BridgeFault,
    rewrite::{each, is_object, message_text, text_at},
    upward::{InputRequest, InputRequired},
};
use crate::{Era, Message, method, splice::quote, walk::Walk};
use bytes::Bytes;
use std::borrow::Cow;
use vocab::Action;

/// The member that holds questions, by their keys.
const QUESTIONS: &str = "inputRequests";
/// The member that holds pages.
const PAGES: &str = "elicitations";

impl<'a> InputRequest<'a> {
    /// Everything that a message asks of a client of `era`: pages in an error and, in the modern era, questions in a result
    /// or in what is said of a task. Where it `is_of_task`, what the task ended with is part of what is said. In order,
    /// and whatever it is: what no revision knows is asked all the same where a client of today reads it.
    pub fn of_message(message: &'a Message, era: Era, is_of_task: bool) -> Result<Vec<Self>, BridgeFault> {
        let mut all = Self::pages_of(message)?;
        let said = message.result().or_else(|| message.params_member().map(|params| params.raw));
        let Some(said) = said else { return Ok(all) };
        if is_of_task {
            for pages in under(said, &["error", "data", PAGES]) {
                add_pages(pages, &mut all)?;
            }
        }
        if era == Era::Modern {
            for questions in named(said, QUESTIONS) {
                add_questions(questions, &mut all)?;
            }
            for questions in is_of_task.then(|| under(said, &["result", QUESTIONS])).into_iter().flatten() {
                add_questions(questions, &mut all)?;
            }
        }
        Ok(all)
    }

    /// The pages that an error wants visited first, each as the question that it is.
    pub fn pages_of(message: &'a Message) -> Result<Vec<Self>, BridgeFault> {
        let mut all = Vec::new();
        for pages in message.error().into_iter().flat_map(|error| under(error, &["data", PAGES])) {
            add_pages(pages, &mut all)?;
        }
        Ok(all)
    }

    /// Everything that a text may ask of a client of `era` that reads it as if it were a message, or several: pages and
    /// questions wherever they are, and requests. The text was scanned.
    pub fn of_text(text: &'a [u8], era: Era) -> Result<Vec<Self>, BridgeFault> {
        let mut all = Vec::new();
        let text = text.trim_ascii();
        let mut open = if is_array(text) { elements(text).collect() } else { vec![text] };
        for read in &open {
            add_request(read, &mut all)?;
        }
        while let Some(raw) = open.pop() {
            for (key, value) in each(raw) {
                if key.eq_ignore_ascii_case(PAGES) {
                    add_pages(value, &mut all)?;
                } else if era == Era::Modern && key.eq_ignore_ascii_case(QUESTIONS) {
                    add_questions(value, &mut all)?;
                } else {
                    open.push(value);
                }
            }
            open.extend(elements(raw));
        }
        Ok(all)
    }

    /// The same as a request of the older revisions has it.
    pub fn as_request(&self) -> Bytes {
        message_text(Some(&quote(&self.key)), &self.method, self.params)
    }
}

fn add<'a>(all: &mut Vec<InputRequest<'a>>, what: &'static str, one: InputRequest<'a>) -> Result<(), BridgeFault> {
    if all.len() == InputRequired::MOST {
        return Err(BridgeFault::TooLarge { what, most: InputRequired::MOST });
    }
    all.push(one);
    Ok(())
}

fn add_questions<'a>(asked: &'a [u8], all: &mut Vec<InputRequest<'a>>) -> Result<(), BridgeFault> {
    if asked == b"null" {
        return Ok(());
    }
    if !is_object(asked) {
        return Err(BridgeFault::Malformed(QUESTIONS));
    }
    for (key, raw) in each(asked) {
        let method = text_at(raw, &["method"]).ok_or(BridgeFault::Malformed(QUESTIONS))?;
        add(all, QUESTIONS, InputRequest { key, method, params: super::rewrite::at(raw, &["params"]) })?;
    }
    Ok(())
}

fn add_pages<'a>(pages: &'a [u8], all: &mut Vec<InputRequest<'a>>) -> Result<(), BridgeFault> {
    if pages == b"null" {
        return Ok(());
    }
    if !is_array(pages) {
        return Err(BridgeFault::Malformed(PAGES));
    }
    for page in elements(pages) {
        if !is_object(page) {
            return Err(BridgeFault::Malformed(PAGES));
        }
        let key = Cow::Owned(format!("page-{}", all.len() + 1));
        add(all, PAGES, InputRequest { key, method: Cow::Borrowed("elicitation/create"), params: Some(page) })?;
    }
    Ok(())
}

/// A request for what clients are asked.
fn add_request<'a>(raw: &'a [u8], all: &mut Vec<InputRequest<'a>>) -> Result<(), BridgeFault> {
    let Some(asked) = named(raw, "method").find_map(|method| text_at(method, &[])) else { return Ok(()) };
    if !matches!(method::action(&asked), Some(Action::ServerSample | Action::ServerElicit | Action::ServerRoots)) {
        return Ok(());
    }
    let key = Cow::Owned(format!("request-{}", all.len() + 1));
    add(all, "requests", InputRequest { key, method: asked, params: named(raw, "params").next() })
}

/// The members of a raw object that are called `name`, whatever the case of its letters.
fn named<'a>(raw: &'a [u8], name: &'static str) -> impl Iterator<Item = &'a [u8]> {
    each(raw).filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// The values at `path` in a raw value: several where names differ in case alone.
fn under<'a>(raw: &'a [u8], path: &[&'static str]) -> Vec<&'a [u8]> {
    path.iter().fold(vec![raw], |found, name| found.into_iter().flat_map(|raw| named(raw, name)).collect())
}

fn is_array(raw: &[u8]) -> bool {
    raw.starts_with(b"[")
}

/// The elements of a raw array.
fn elements(raw: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut walk = Walk::new(raw, 0);
    std::iter::from_fn(move || raw.get(walk.element()?))
}
