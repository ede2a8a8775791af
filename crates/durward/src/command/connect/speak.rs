//! What the client reads: one message a line, on standard output, and nothing else.
//!
//! The only writer. Whoever speaks waits while the client does not read; the end of the program does not.

use bytes::Bytes;
use std::{
    io::{self, Write},
    thread,
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

/// Messages that wait to be written.
const AHEAD: usize = 64;
/// How long the last messages may take when the program ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The way to the client.
#[derive(Clone)]
pub(super) struct Voice(mpsc::Sender<Option<Bytes>>);

/// The end of the way: tells when everything is written.
pub(super) struct Written(oneshot::Receiver<()>);

/// Writes to standard output on a thread of its own, for the reason that [`super::line`] reads on one.
pub(super) fn to_stdout() -> io::Result<(Voice, Written)> {
    let (sender, mut messages) = mpsc::channel::<Option<Bytes>>(AHEAD);
    let (done, written) = oneshot::channel();
    thread::Builder::new().name("stdout".to_owned()).spawn(move || {
        let mut output = io::stdout().lock();
        while let Some(Some(message)) = messages.blocking_recv() {
            // Whoever read has gone. That closes the channel, and the program ends.
            if write(&mut output, &message).is_err() {
                break;
            }
        }
        drop(messages);
        // Nobody waits any more if it took too long.
        let _ = done.send(());
    })?;
    Ok((Voice(sender), Written(written)))
}

impl Voice {
    /// Says a message.
    pub(super) async fn say(&self, message: Bytes) {
        // A client that has gone is noticed where it matters: see `gone`.
        let _ = self.0.send(Some(message)).await;
    }

    /// Says that this is all.
    async fn finish(&self) {
        let _ = self.0.send(None).await;
    }

    /// Waits until nobody reads any more.
    pub(super) async fn gone(&self) {
        self.0.closed().await;
    }
}

impl Written {
    /// Waits until what was said is written, if somebody reads it. Nothing is written after that.
    pub(super) async fn all(self, voice: &Voice) {
        let written = async {
            voice.finish().await;
            // Its thread is gone: then there is nothing to wait for.
            let _ = self.0.await;
        };
        // Whether it was or not, the program ends.
        let _ = tokio::time::timeout(LAST_WORDS, written).await;
    }
}

/// Writes a message as one line. Line breaks in JSON stand between values only, where a blank says the same.
fn write(output: &mut impl Write, message: &[u8]) -> io::Result<()> {
    for (index, part) in message.split(|byte| matches!(byte, b'\n' | b'\r')).enumerate() {
        if index > 0 {
            output.write_all(b" ")?;
        }
        output.write_all(part)?;
    }
    output.write_all(b"\n")?;
    output.flush()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_message_is_one_line_and_its_own_bytes() {
        for (message, line) in [
            ("{\"n\": 1.0,\"n2\":9007199254740993}", "{\"n\": 1.0,\"n2\":9007199254740993}\n"),
            ("{\r\n  \"text\": \"a\\nb\"\n}", "{    \"text\": \"a\\nb\" }\n"),
        ] {
            let mut written = Vec::new();
            super::write(&mut written, message.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), line);
        }
    }
}
