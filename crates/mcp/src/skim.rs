//! What can be said of a text that cannot be read: who waits for it.
//!
//! Reads any bytes, whole or piece by piece, and keeps none of them but an id. Decides nothing: what it says of a text that
//! [`scan`](mod@crate::scan) takes is no more than that says.

use crate::{Limits, scan_value};

/// The longest id or key that is looked at, in bytes.
const WORD: usize = 512;

/// The outermost object of a text, as far as it can be made out.
#[derive(Debug, Clone, Default)]
pub struct Skim {
    depth: usize,
    has_begun: bool,
    in_string: bool,
    escaped: bool,
    /// The key whose value is being read, as written.
    key: Vec<u8>,
    /// The string, number or word that is being read in the outermost object.
    word: Vec<u8>,
    id: Option<String>,
    /// How often it has an id.
    ids: usize,
    has_method: bool,
    has_outcome: bool,
    /// It begins with something else.
    is_quoted: bool,
}

impl Skim {
    /// Skims a whole text.
    pub fn of(text: &[u8]) -> Self {
        let mut skim = Self::default();
        skim.push(text);
        skim
    }

    /// The raw id, if it has one that an answer can carry, a string or an integer: of several the last.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The same, unless there are several: nobody knows then which is meant.
    pub fn only_id(&self) -> Option<&str> {
        self.id().filter(|_| self.ids == 1)
    }

    /// Whether it asks for something; what has an id and does not is an answer.
    pub const fn has_method(&self) -> bool {
        self.has_method
    }

    /// Whether it has a `result` or an `error`, asks for nothing, and stands alone: some log on the same pipe what they say.
    pub const fn is_answer(&self) -> bool {
        self.has_outcome && !self.has_method && !self.is_quoted
    }

    /// Reads on.
    pub fn push(&mut self, text: &[u8]) {
        for byte in text {
            self.step(*byte);
        }
    }

    fn step(&mut self, byte: u8) {
        if self.in_string {
            self.keep(byte);
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => {
                self.in_string = true;
                self.keep(byte);
            }
            b'{' | b'[' => {
                self.has_begun = true;
                self.depth += 1;
            }
            b'}' | b']' => {
                self.end_member();
                self.depth = self.depth.saturating_sub(1);
            }
            b',' => self.end_member(),
            b':' if self.depth == 1 => self.begin_member(),
            b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => self.keep(byte),
        }
    }

    fn keep(&mut self, byte: u8) {
        self.is_quoted |= self.depth == 0 && !self.has_begun;
        if self.depth == 1 && self.word.len() <= WORD {
            self.word.push(byte);
        }
    }

    fn begin_member(&mut self) {
        self.key = std::mem::take(&mut self.word);
        match self.key.as_slice() {
            b"\"method\"" => self.has_method = true,
            b"\"result\"" | b"\"error\"" => self.has_outcome = true,
            _ => {}
        }
    }

    fn end_member(&mut self) {
        if self.depth != 1 {
            return;
        }
        let (key, word) = (std::mem::take(&mut self.key), std::mem::take(&mut self.word));
        if key != b"\"id\"" {
            return;
        }
        self.ids += 1;
        let is_whole = word.len() <= WORD && scan_value(&word, &Limits::default()).is_ok();
        self.id = String::from_utf8(word).ok().filter(|word| is_whole && can_be_id(word));
    }
}

/// Whether a raw value can be an id to its sender: also an integer that is written with a point, as `1.0`.
fn can_be_id(word: &str) -> bool {
    word.starts_with('"') || word.parse::<f64>().is_ok_and(|number| number.fract() == 0.0)
}

#[cfg(test)]
mod tests {
    use super::Skim;
    use crate::{Body, Kind, scan};
    use bytes::Bytes;
    use proptest::{collection::vec, prelude::*};

    #[test]
    fn skimming_finds_the_id_of_the_outermost_object_alone() {
        for (text, id, has_method, is_answer) in [
            (r#"{"id": 7 , "method":"x"}"#, Some("7"), true, false),
            (r#"{"method":"x","params":{"id":3},"id":-1}"#, Some("-1"), true, false),
            (r#"{"id":4,"result":{"method":"x"}}"#, Some("4"), false, true),
            (r#"{"params":["id",{"id":9}],"method":"x"}"#, None, true, false),
            (r#"{"id":null,"method":"x"}"#, None, true, false),
            (r#"{"id":{"id":1},"method":"x"}"#, None, true, false),
            (r#"{"id":true,"method":"x"}"#, None, true, false),
            (r#"{"id":1.5,"method":"x"}"#, None, true, false),
            (r#"{"id":1.0,"method":"x"}"#, Some("1.0"), true, false),
            (r#"{"id":1e999,"method":"x"}"#, None, true, false),
            (r#"[{"id":1,"method":"x"}]"#, None, false, false),
            (r#"{"text":"\",\"id\":5,","method":"x"}"#, None, true, false),
            (r#"{"id":12"#, None, false, false),
            ("}}}]],,::", None, false, false),
            (r#"{"id":1,"id":2,"result":{}}"#, Some("2"), false, true),
            // What breaks the rest of a text does not hide whose it is.
            (r#"{"result":{"a":1,"a":2},"id":3}"#, Some("3"), false, true),
            (r#"{"result":{"x":NaN},"id":3}"#, Some("3"), false, true),
            (r#"{"error":{"message":"\ud800"},"id":"q\"7"}"#, Some(r#""q\"7""#), false, true),
            (r#"{"jsonrpc":"2.0","id":3,"result":{"text":"xxxx"#, Some("3"), false, true),
            (r#"{"result":{"text":"xxxx"#, None, false, true),
            (r#"{"level":"info","id":3,"msg":"no answer"}"#, Some("3"), false, false),
            (r#"sent: {"jsonrpc":"2.0","id":3,"result":{}}"#, Some("3"), false, false),
        ] {
            let skim = Skim::of(text.as_bytes());
            assert_eq!((skim.id(), skim.has_method(), skim.is_answer()), (id, has_method, is_answer), "{text}");
        }
        assert_eq!(Skim::of(br#"{"id":1,"id":2,"result":{}}"#).only_id(), None);
        assert_eq!(Skim::of(br#"{"id":1,"result":{"id":2}}"#).only_id(), Some("1"));
        let deep = format!(r#"{{"result":{}1{},"id":8}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(Skim::of(deep.as_bytes()).id(), Some("8"));
        assert_eq!(Skim::of(b"{\"result\":\"\xff\xfe\",\"id\":9}").id(), Some("9"));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_say_the_same(bytes in vec(any::<u8>(), 0..200), at in 0_usize..200) {
            let whole = Skim::of(&bytes);
            let (first, rest) = bytes.split_at(at.min(bytes.len()));
            let mut pieces = Skim::of(first);
            pieces.push(rest);
            prop_assert_eq!(
                (whole.id(), whole.has_method(), whole.is_answer()),
                (pieces.id(), pieces.has_method(), pieces.is_answer())
            );
        }

        #[test]
        fn of_what_can_be_read_it_says_what_reading_says(
            id in "-?[1-9][0-9]{0,15}|\"[a-z\\\\\"]{0,3}\"",
            filler in vec("\"(id|method|result|a)\":|[\\[\\]{},:0-9]|\"[a-z]{0,3}\"", 0..8),
            first in any::<bool>(),
            answers in any::<bool>(),
        ) {
            let filler = filler.concat();
            let what = if answers { format!("\"result\":{{\"a\":{filler}}}") } else { format!("\"method\":\"m\",\"params\":{{\"a\":{filler}}}") };
            let text = if first { format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},{what}}}") } else { format!("{{\"jsonrpc\":\"2.0\",{what},\"id\":{id}}}") };
            let skim = Skim::of(text.as_bytes());
            if let Ok(Body::Single(message)) = scan(Bytes::from(text.clone()), &crate::Limits::default()) {
                prop_assert_eq!(skim.id(), message.id());
                prop_assert_eq!(skim.has_method(), message.kind() != Kind::Response);
                prop_assert_eq!(skim.is_answer(), message.kind() == Kind::Response);
            }
        }
    }
}
