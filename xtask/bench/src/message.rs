//! The messages of the measurement: tools, requests, and what a right answer to each is.

use anyhow::{Result, bail, ensure};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt::Write};

/// How a conversation is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Era {
    /// 2025-11-25: a session
    Legacy,
    /// 2026-07-28: each request alone
    Modern,
}

impl Era {
    pub(crate) const fn version(self) -> &'static str {
        match self {
            Self::Legacy => "2025-11-25",
            Self::Modern => "2026-07-28",
        }
    }
}

/// What is asked, over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// A tool call that gives its text of this many bytes back
    Echo(usize),
    /// A tool call that gives this many bytes
    Sized(usize),
    /// A tool call that reports progress this often, two milliseconds apart, before it answers
    Stream(usize),
    /// The list of tools, of which there must be this many
    List(usize),
}

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}"#;

impl Question {
    pub(crate) const fn method(self) -> &'static str {
        match self {
            Self::Echo(_) | Self::Sized(_) | Self::Stream(_) => "tools/call",
            Self::List(_) => "tools/list",
        }
    }

    pub(crate) const fn tool(self) -> Option<&'static str> {
        match self {
            Self::Echo(_) => Some("echo"),
            Self::Sized(_) => Some("sized"),
            Self::Stream(_) => Some("stream"),
            Self::List(_) => None,
        }
    }

    /// Writes the request with this number. Each has a text of its own, so that answers cannot be confused.
    pub(crate) fn write(self, number: u64, era: Era, body: &mut String) -> Result<()> {
        body.clear();
        write!(body, r#"{{"jsonrpc":"2.0","id":{number},"method":"{}","params":{{"#, self.method())?;
        if let Some(tool) = self.tool() {
            write!(body, r#""name":"{tool}","arguments":{{"#)?;
            match self {
                Self::Echo(size) => write!(body, r#""text":"{number} {}""#, filler(size))?,
                Self::Sized(size) => write!(body, r#""bytes":{size}"#)?,
                Self::Stream(events) => write!(body, r#""events":{events}"#)?,
                Self::List(_) => {}
            }
            body.push('}');
        }
        if era == Era::Modern {
            let comma = if self.tool().is_some() { "," } else { "" };
            write!(body, "{comma}{META}")?;
        }
        body.push_str("}}");
        Ok(())
    }

    /// Fails unless `answer` is the right one to the request with this number.
    pub(crate) fn verify(self, number: u64, era: Era, text: &[u8]) -> Result<()> {
        let answer: Answer<'_> = serde_json::from_slice(text)?;
        ensure!(answer.id.is_some_and(|id| id.get().parse() == Ok(number)), "the answer has another id");
        let Some(result) = answer.result else { bail!("no result: {}", String::from_utf8_lossy(text)) };
        let is_complete = result.result_type.as_deref() == Some("complete");
        ensure!(era == Era::Legacy || is_complete, "no resultType");
        ensure!(!result.is_error, "an error result");
        let text = result.content.first().map(|content| content.text.as_ref()).unwrap_or_default();
        let is_right = match self {
            Self::Echo(size) => text.strip_suffix(filler(size)).is_some_and(|own| own == format!("{number} ")),
            Self::Sized(size) => text == filler(size),
            Self::Stream(_) => text == "streamed",
            Self::List(count) => result.tools.len() == count,
        };
        ensure!(is_right, "a wrong answer: {}", text.chars().take(80).collect::<String>());
        Ok(())
    }
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<ResultOf<'a>>,
}

#[derive(Deserialize)]
struct ResultOf<'a> {
    #[serde(borrow, default)]
    content: Vec<Content<'a>>,
    #[serde(borrow, default)]
    tools: Vec<&'a RawValue>,
    #[serde(default, rename = "isError")]
    is_error: bool,
    #[serde(borrow, rename = "resultType")]
    result_type: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow)]
    text: Cow<'a, str>,
}

/// Plain text of this size, at most 64 KiB.
pub(crate) fn filler(size: usize) -> &'static str {
    static TEXT: std::sync::LazyLock<String> =
        std::sync::LazyLock::new(|| "the quick brown fox jumps over the lazy dog ".repeat(1_490));
    TEXT.get(..size).unwrap_or(&TEXT)
}

/// The definitions of `count` tools: those that work, then ones of the size that real servers have.
pub(crate) fn tools(count: usize) -> String {
    let working = [
        ("echo", "Gives its text back.", r#""text":{"type":"string","maxLength":100000}"#, "text"),
        ("sized", "Gives as many bytes as asked.", r#""bytes":{"type":"integer","minimum":0}"#, "bytes"),
        ("stream", "Reports progress, then answers.", r#""events":{"type":"integer","minimum":0}"#, "events"),
        ("ask", "Asks who it is, then answers.", r#""text":{"type":"string"}"#, "text"),
    ];
    let mut tools: Vec<String> = working
        .iter()
        .map(|(name, description, property, required)| {
            format!(
                r#"{{"name":"{name}","description":"{description}","inputSchema":{{"type":"object","properties":{{{property}}},"required":["{required}"],"additionalProperties":false}},"annotations":{{"readOnlyHint":true}}}}"#
            )
        })
        .collect();
    let nouns = ["account", "invoice", "ticket", "deployment", "document", "event", "table", "branch"];
    for (index, noun) in nouns.iter().cycle().take(count.saturating_sub(tools.len())).enumerate() {
        tools.push(format!(
            r#"{{"name":"search_{noun}_{index:04}","title":"Search {noun}","description":"Searches the {noun}s of workspace {index} by name, state or range of dates; newest first. Use it when the user names a {noun} without its identifier.","inputSchema":{{"type":"object","properties":{{"query":{{"type":"string","minLength":1,"maxLength":512,"description":"Free text, or field:value filters"}},"state":{{"type":"string","enum":["open","blocked","done","archived"]}},"labels":{{"type":"array","items":{{"type":"string","maxLength":64}},"maxItems":20}},"limit":{{"type":"integer","minimum":1,"maximum":200,"default":50}}}},"required":["query"],"additionalProperties":false}},"annotations":{{"readOnlyHint":true,"openWorldHint":true}}}}"#
        ));
    }
    tools.truncate(count);
    tools.join(",")
}

#[cfg(test)]
mod tests {
    use super::{Era, Question, tools};
    use serde_json::Value;

    #[test]
    fn only_the_right_answer_is_accepted() {
        let question = Question::Echo(5);
        let right = br#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"7 the q"}],"resultType":"complete"}}"#;
        question.verify(7, Era::Modern, right).unwrap();
        assert!(question.verify(8, Era::Modern, right).is_err());
        let stale = String::from_utf8_lossy(right).replace("7 the q", "6 the q");
        assert!(question.verify(7, Era::Modern, stale.as_bytes()).is_err());
        let bare = String::from_utf8_lossy(right).replace(r#","resultType":"complete""#, "");
        assert!(question.verify(7, Era::Modern, bare.as_bytes()).is_err());
        question.verify(7, Era::Legacy, bare.as_bytes()).unwrap();
    }

    #[test]
    fn there_are_as_many_tools_as_asked_and_all_are_json() {
        for count in [3, 50, 1_000] {
            let tools: Value = serde_json::from_str(&format!("[{}]", tools(count))).unwrap();
            assert_eq!(tools.as_array().unwrap().len(), count);
        }
    }
}
