//! What a server asks of its client in what is no request: questions in results and in news of tasks (2026-07-28,
//! basic/patterns/mrtr), pages to visit in errors (-32042 of 2025-11-25, client/elicitation).
//!
//! Finds, and never judges. SECURITY: whatever some client could read as a question is one. Codes and types do not matter,
//! for clients differ in how they read them, nor does the case of names: some readers ignore it. Where a name is there in
//! more than one way, each may be the one that is read.

use super::{
    BridgeFault,
    rewrite::{each, elements, is_object, message_text, text_at},
    upward::{InputRequest, InputRequired},
};
use crate::{Era, Message, method, scan::folds_to, splice::quote, walk::Walk};
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
            // The scan saw whether a result has any.
            let may_ask = message.result().is_none() || message.may_ask();
            for questions in may_ask.then(|| named(said, QUESTIONS)).into_iter().flatten() {
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
        if !is_array(text) {
            add_request(text, &mut all)?;
        }
        for read in elements(text) {
            add_request(read, &mut all)?;
        }
        // Once through the text, however deep it is.
        let mut walk = Walk::new(text, 0);
        while let Some(key) = walk.deep_member() {
            if is_named(&key, PAGES) {
                add_pages(text.get(walk.deep_value()).unwrap_or_default(), &mut all)?;
            } else if era == Era::Modern && is_named(&key, QUESTIONS) {
                add_questions(text.get(walk.deep_value()).unwrap_or_default(), &mut all)?;
            }
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
        let (mut methods, mut params) = (named(raw, "method"), named(raw, "params"));
        let method = methods.next().and_then(|method| text_at(method, &[]));
        let (method, params, others) = (method, params.next(), methods.next().or(params.next()));
        let method = method.filter(|_| others.is_none()).ok_or(BridgeFault::Malformed(QUESTIONS))?;
        add(all, QUESTIONS, InputRequest { key, method, params })?;
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
    for asked in named(raw, "method").filter_map(|method| text_at(method, &[])) {
        if !matches!(method::action(&asked), Some(Action::ServerSample | Action::ServerElicit | Action::ServerRoots)) {
            continue;
        }
        let mut params: Vec<_> = named(raw, "params").map(Some).collect();
        if params.is_empty() {
            params.push(None);
        }
        for params in params {
            let key = Cow::Owned(format!("request-{}", all.len() + 1));
            add(all, "requests", InputRequest { key, method: asked.clone(), params })?;
        }
    }
    Ok(())
}

/// The members of a raw object that are called `name`, whatever the case of its letters.
fn named<'a>(raw: &'a [u8], name: &'static str) -> impl Iterator<Item = &'a [u8]> {
    each(raw).filter(move |(key, _)| is_named(key, name)).map(|(_, value)| value)
}

/// Whether some reader takes a key for this name.
fn is_named(key: &str, name: &str) -> bool {
    folds_to(key.as_bytes(), name.to_ascii_lowercase().as_bytes())
}

/// The values at `path` in a raw value: several where names differ in case alone.
fn under<'a>(raw: &'a [u8], path: &[&'static str]) -> Vec<&'a [u8]> {
    path.iter().fold(vec![raw], |found, name| found.into_iter().flat_map(|raw| named(raw, name)).collect())
}

fn is_array(raw: &[u8]) -> bool {
    raw.starts_with(b"[")
}

#[cfg(test)]
mod tests {
    use super::InputRequest;
    use crate::Era;

    fn asked(text: &str) -> Result<Vec<String>, ()> {
        let all = InputRequest::of_text(text.as_bytes(), Era::Modern).map_err(drop)?;
        let told = |one: &InputRequest<'_>| {
            format!("{} {}", one.method, String::from_utf8_lossy(one.params.unwrap_or_default()))
        };
        Ok(all.iter().map(told).collect())
    }

    #[test]
    fn each_of_several_names_may_be_the_one_that_is_read() {
        let twice = r#"{"Method":"x","method":"roots/list","params":{"a":1},"Params":{"a":2}}"#;
        assert_eq!(asked(twice).unwrap(), [r#"roots/list {"a":1}"#, r#"roots/list {"a":2}"#]);
        let both = r#"{"METHOD":"roots/list","method":"sampling/createMessage"}"#;
        assert_eq!(asked(both).unwrap(), ["roots/list ", "sampling/createMessage "]);
        assert_eq!(asked(r#"{"inputRequeſts":{"a":{"Method":"roots/list"}}}"#).unwrap(), ["roots/list "]);
        for unclear in [r#"{"method":"a","Method":"b"}"#, r#"{"method":"a","params":{},"Params":{}}"#, "{}", "1"] {
            assert!(asked(&format!(r#"{{"inputRequests":{{"a":{unclear}}}}}"#)).is_err(), "{unclear}");
        }
    }

    #[test]
    fn a_question_is_found_however_deep_it_is() {
        let question = r#"{"x":"elicitations","inputRequests":{"a":{"method":"roots/list"}}}"#;
        for depth in [0, 1, 100_000] {
            let text = format!("{}{question}{}", "[".repeat(depth), "]".repeat(depth));
            assert_eq!(asked(&text).unwrap(), ["roots/list "], "{depth}");
        }
    }
}
