//! Takes lines and events out of the pieces in which they come.

/// Whole lines of what comes in pieces, without their ends.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    begun: Vec<u8>,
    /// The last line ended with a return, which a newline may follow as a part of the same end.
    is_returned: bool,
}

impl Lines {
    /// What came of a line that has not ended.
    pub(crate) fn begun(&self) -> &[u8] {
        &self.begun
    }

    /// Hands each line that a piece ends to `then`.
    pub(crate) fn take(&mut self, piece: &[u8], mut then: impl FnMut(&[u8])) {
        for part in piece.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let (text, end) = match part.split_last() {
                Some((end @ (b'\n' | b'\r'), text)) => (text, Some(*end)),
                _ => (part, None),
            };
            let is_rest_of_end = self.is_returned && text.is_empty() && end == Some(b'\n');
            self.is_returned = end == Some(b'\r');
            if is_rest_of_end {
                continue;
            }
            self.begun.extend_from_slice(text);
            if end.is_some() {
                then(&std::mem::take(&mut self.begun));
            }
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: Vec<u8>,
}

/// Whole events of a stream that comes in pieces. Those without data are none.
#[derive(Debug, Default)]
pub(crate) struct Events {
    lines: Lines,
    begun: Event,
}

impl Events {
    pub(crate) fn take(&mut self, piece: &[u8]) -> Vec<Event> {
        let (mut events, begun) = (Vec::new(), &mut self.begun);
        self.lines.take(piece, |line| {
            if line.is_empty() {
                let event = std::mem::take(begun);
                events.extend((!event.data.is_empty()).then_some(event));
            } else if let Some(value) = field(line, b"data:") {
                if !begun.data.is_empty() {
                    begun.data.push(b'\n');
                }
                begun.data.extend_from_slice(value);
            } else if let Some(value) = field(line, b"event:") {
                begun.name = String::from_utf8_lossy(value).into_owned();
            }
        });
        events
    }
}

fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = line.strip_prefix(name)?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}
