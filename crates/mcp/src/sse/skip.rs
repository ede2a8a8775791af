//! Passes over an event that is too long, and keeps of it only what says who waits for it.

use crate::Skim;

/// The longest field name, or type of an event, that means something here.
const WORD: usize = 8;

/// An event that is read to its end and not kept.
#[derive(Debug, Default)]
pub struct Skip {
    skim: Skim,
    at: At,
    /// The name of the field that is being read, or the type of the event, as far as it counts.
    word: Vec<u8>,
    kind: Vec<u8>,
    /// Bytes of the line.
    length: usize,
    has_data: bool,
    /// The last byte was a carriage return: a line feed belongs to it.
    after_return: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    #[default]
    Name,
    /// Before the space that a value may begin with.
    Colon,
    Value,
}

impl Skip {
    /// Reads on. Where the event ends, if it ends in this text.
    pub fn push(&mut self, text: &[u8]) -> Option<usize> {
        text.iter().position(|byte| self.ends_with(*byte)).map(|at| at + 1)
    }

    /// What is known of the message in it. `None` if it is an event of another kind, which no client hears.
    pub fn message(&self) -> Option<&Skim> {
        Some(&self.skim).filter(|_| matches!(self.kind.as_slice(), b"" | b"message"))
    }

    /// Takes one byte and says whether it is the last of the event.
    fn ends_with(&mut self, byte: u8) -> bool {
        if std::mem::take(&mut self.after_return) && byte == b'\n' {
            return false;
        }
        if matches!(byte, b'\r' | b'\n') {
            self.after_return = byte == b'\r';
            return self.end_line();
        }
        self.length += 1;
        match self.at {
            At::Name if byte == b':' => self.begin_value(),
            At::Name => keep(&mut self.word, byte),
            At::Colon if byte == b' ' => self.at = At::Value,
            At::Colon | At::Value => {
                self.at = At::Value;
                match self.word.as_slice() {
                    b"data" => self.skim.push(&[byte]),
                    b"event" => keep(&mut self.kind, byte),
                    _ => {}
                }
            }
        }
        false
    }

    fn begin_value(&mut self) {
        self.at = At::Colon;
        match self.word.as_slice() {
            // Lines of data are one text, with line feeds between them.
            b"data" if std::mem::replace(&mut self.has_data, true) => self.skim.push(b"\n"),
            b"event" => self.kind.clear(),
            _ => {}
        }
    }

    /// Whether the line was blank.
    fn end_line(&mut self) -> bool {
        self.at = At::Name;
        self.word.clear();
        std::mem::take(&mut self.length) == 0
    }
}

fn keep(word: &mut Vec<u8>, byte: u8) {
    if word.len() <= WORD {
        word.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::Skip;
    use crate::sse::Decoder;
    use bytes::Bytes;

    #[test]
    fn an_event_that_is_too_long_is_passed_over_to_its_end_wherever_it_is_cut() {
        let long = "x".repeat(200);
        for (event, id) in [
            (format!("data: {{\"id\":7,\"result\":\"{long}\"}}\n\n"), Some("7")),
            (
                format!("id: 1\r\nevent: message\r\ndata:{{\"id\":7,\r\ndata:  \"result\":\"{long}\"}}\r\n\r\n"),
                Some("7"),
            ),
            (format!("data: {{\"result\":\"{long}\",\"id\":7}}\r\r"), Some("7")),
            (format!("event: other\ndata: {{\"id\":7,\"result\":\"{long}\"}}\n\n"), None),
            (format!(": {{\"id\":7,\"result\":\"{long}\"}}\n\n"), None),
            (format!("data: {{\"result\":\"{long}\"}}\n\n"), None),
        ] {
            let stream = format!("data: before\n\n{event}data: after\n\n");
            for cut in 0..stream.len() {
                let (mut events, mut skip, mut decoder) = (Vec::new(), None, Decoder::new(100));
                let mut over = Vec::new();
                let (first, second) = stream.split_at(cut);
                for chunk in [first, second] {
                    let mut rest = Bytes::copy_from_slice(chunk.as_bytes());
                    loop {
                        if skip.is_none() {
                            if decoder.push(rest, &mut events).is_ok() {
                                break;
                            }
                            rest = std::mem::replace(&mut decoder, Decoder::new(100)).unread();
                            skip = Some(Skip::default());
                        }
                        let Some(end) = skip.as_mut().and_then(|skip| skip.push(&rest)) else { break };
                        let skipped = skip.take();
                        over.push(skipped.and_then(|skip| skip.message()?.only_id().map(str::to_owned)));
                        rest = rest.slice(end..);
                    }
                }
                let data: Vec<_> = events.iter().filter_map(|event| event.data.as_deref()).collect();
                assert_eq!(data, [b"before".as_slice(), b"after"], "{event} {cut}");
                assert_eq!(over, [id.map(str::to_owned)], "{event} {cut}");
            }
        }
    }
}
