//! Results that come again. Servers answer a list with the same long text each time, under another id: what was read
//! once is recognized by its bytes and not read again.

use crate::{
    Body, Limits, Message,
    parts::{List, Outcome, Parts, Spot},
    scan,
};
use bytes::Bytes;
use std::sync::Arc;

/// How far into a message its result may begin, and how much may follow it.
const AROUND: usize = 1024;
/// How a result is introduced. Servers that put blanks in between are read as if nothing were known.
const RESULT: &[u8] = b"\"result\":";
/// What stands for the result while the rest of the message is read.
const NOTHING: &[u8] = b"{}";

/// A result that was read before: its text, and where its entries lie in it.
#[derive(Debug, Clone)]
pub struct Known {
    text: Bytes,
    lists: Option<Arc<[List]>>,
    outcome: Outcome,
}

impl Known {
    /// Remembers the result of a message, if it is an object. The text is copied: it is not to keep a larger buffer.
    pub fn of(message: &Message) -> Option<Self> {
        let text = message.result().filter(|text| text.starts_with(b"{"))?;
        let (lists, outcome) = message.shape();
        Some(Self { text: Bytes::copy_from_slice(text), lists, outcome })
    }

    /// The text of the result.
    pub const fn text(&self) -> &Bytes {
        &self.text
    }

    /// Reads a body that holds this very result; what is around it is scanned as ever. `None` if it holds another.
    pub fn find_in(&self, body: &Bytes, limits: &Limits) -> Option<Message> {
        let start = result_of(body)?;
        let end = start.checked_add(self.text.len())?;
        let (head, tail) = (body.get(..start)?, body.get(end..)?);
        if body.len() > limits.body || tail.len() > AROUND || body.get(start..end)? != self.text {
            return None;
        }
        let around: Bytes = [head, NOTHING, tail].concat().into();
        let Ok(Body::Single(message)) = scan(around, limits) else { return None };
        let parts = message.parts().widened(start, NOTHING.len(), self.text.len())?;
        Some(Message::read_again(body.clone(), Parts { outcome: self.outcome, ..parts }, self.lists.clone()))
    }
}

/// Where the result seems to begin. Whether it does, the scan of what is around it tells.
fn result_of(body: &[u8]) -> Option<usize> {
    let head = body.get(..AROUND.min(body.len()))?;
    head.windows(RESULT.len()).position(|window| window == RESULT).map(|at| at + RESULT.len())
}

impl Parts {
    /// The parts of the same message with a longer result at `start`. `None` if that is not where the result is.
    fn widened(self, start: usize, from: usize, to: usize) -> Option<Self> {
        if self.result != Spot::new(start, start + from) {
            return None;
        }
        // Only these stand beside a result.
        let Self { id, error: Spot::NONE, method: Spot::NONE, params: Spot::NONE, more, .. } = self else {
            return None;
        };
        Some(Self { id: id.moved_on(start, to - from), result: Spot::new(start, start + to), more, ..Self::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ListKind, list::entries};
    use proptest::prelude::*;

    const LIST: &str = r#"{"tools":[{"name":"a","inputSchema":{}},{"title":"é","name":"b"}],"ttlMs":5}"#;

    /// A list that says all that the scan notes of a result.
    const TELLING: &str = r#"{"isError":true,"resultType":"task","tools":[],"task":{},"inputRequests":{}}"#;

    fn read(text: String) -> Message {
        match scan(text.into(), &Limits::default()).unwrap() {
            Body::Single(message) => message,
            Body::Batch(_) => panic!("one message"),
        }
    }

    fn known() -> Known {
        Known::of(&read(format!(r#"{{"jsonrpc":"2.0","id":1,"result":{LIST}}}"#))).unwrap()
    }

    fn same(found: &Message, scanned: &Message) {
        assert_eq!(found.bytes(), scanned.bytes());
        assert_eq!((found.id(), found.id_member()), (scanned.id(), scanned.id_member()));
        assert_eq!(found.result_member(), scanned.result_member());
        assert_eq!((found.kind(), found.shape().1), (scanned.kind(), scanned.shape().1));
        assert_eq!(found.has_more(), scanned.has_more());
        let names = |message: &Message| -> Vec<_> {
            let entries = entries(message, ListKind::Tools).unwrap();
            entries.into_iter().map(|entry| (entry.name.into_owned(), entry.span, entry.name_span)).collect()
        };
        assert_eq!(names(found), names(scanned));
    }

    #[test]
    fn a_result_is_recognized_wherever_it_stands() {
        for text in [
            format!(r#"{{"jsonrpc":"2.0","id":77,"result":{LIST}}}"#),
            format!(r#"{{"result":{LIST},"jsonrpc":"2.0","id":"x\"y"}}"#),
            format!(r#"{{"jsonrpc":"2.0","id":7,"result":{LIST},"x":[1]}}"#),
            format!("{{\"id\":2,\n\"result\":{LIST} ,\"jsonrpc\":\"2.0\"}}\n"),
        ] {
            let found = known().find_in(&text.clone().into(), &Limits::default()).expect(&text);
            same(&found, &read(text));
        }
    }

    #[test]
    fn what_it_says_at_its_top_is_known_too() {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{TELLING}}}"#);
        let (scanned, known) = (read(text.clone()), Known::of(&read(text.clone())).unwrap());
        let found = known.find_in(&text.into(), &Limits::default()).unwrap();
        assert!(found.is_failure() && found.is_task() && found.may_ask());
        assert_eq!(found.shape().1, scanned.shape().1);
    }

    #[test]
    fn what_only_looks_like_it_is_not_it() {
        for text in [
            format!(r#"{{"jsonrpc":"2.0","id":1,"result":{}}}"#, LIST.replace("ttlMs", "ttlms")),
            // In a string, beside another result, twice, with an error, below the top.
            format!(r#"{{"jsonrpc":"2.0","id":"\"result\":{LIST}"}}"#),
            format!(r#"{{"jsonrpc":"2.0","id":1,"x":{{"result":{LIST}}},"result":{{}}}}"#),
            format!(r#"{{"jsonrpc":"2.0","id":1,"result":{LIST},"result":{LIST}}}"#),
            format!(r#"{{"jsonrpc":"2.0","id":1,"result":{LIST},"error":{{"code":1}}}}"#),
            format!(r#"{{"jsonrpc":"2.0","id":1,"result":{LIST}"#),
            format!(r#"{{"jsonrpc":"2.0","result":{LIST}}}"#),
            format!(r#"[{{"jsonrpc":"2.0","id":1,"result":{LIST}}}]"#),
        ] {
            assert!(known().find_in(&text.clone().into(), &Limits::default()).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn found_means_scanned(before in r#"[{}"a-z:,\[\] ]{0,12}"#, after in r#"[{}"a-z:,\[\] 0-9]{0,16}"#) {
            let text = format!(r#"{{{before}"jsonrpc":"2.0","id":1,"result":{LIST}{after}}}"#);
            if let Some(found) = known().find_in(&text.clone().into(), &Limits::default()) {
                same(&found, &read(text));
            }
        }
    }
}
