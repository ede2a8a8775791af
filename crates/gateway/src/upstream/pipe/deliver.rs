//! Whose it is what a server says: each message goes to the request or the listener that it concerns.

use super::{
    Heard, NoRoomYet, Pipe, UNCLEAR,
    backlog::{Unsaid, Weight},
    lock,
    patience::in_time,
    replies::cancelled,
    waiting::{Hears, Waiting, is_unclear},
};
use crate::upstream::UpstreamFault;
use bytes::Bytes;
use mcp::{Kind, Message, Skim};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// How long it is not said again that something is lost.
const AGAIN: Duration = Duration::from_mins(1);
/// Why a question is answered by the gateway: nobody is there.
const NOBODY: &str = "nobody is listening who could answer";

/// What became of a message of the server.
pub(super) enum Delivered {
    /// It went where it belongs.
    Done,
    /// The server is told this.
    Answered(Bytes),
    /// Nobody is there who hears it.
    ToNobody,
}

impl Pipe {
    /// What the server is told, now that it has said this.
    pub(super) async fn take(self: &Arc<Self>, message: &Message) -> Option<Bytes> {
        self.roots.asked(message);
        if message.method() == "notifications/cancelled"
            && let Some(named) = message.param(&["requestId"])
        {
            self.is_answered(&String::from_utf8_lossy(named.raw));
        }
        if self.keeps(message) || self.keeps_behind(message) {
            return None;
        }
        match self.deliver_in_time(message).await {
            Delivered::Done => None,
            Delivered::Answered(answer) => Some(answer),
            Delivered::ToNobody if self.keeps_early(message) => None,
            Delivered::ToNobody => self.refusal(message),
        }
    }

    /// A question of the server is answered, or taken back: a call may have waited for that.
    pub(super) fn is_answered(&self, id: &str) {
        self.roots.answered(id);
        self.moved.notify_waiters();
    }

    /// Hands over one message of the server, which waits a little for whoever reads.
    pub(super) async fn deliver_in_time(&self, message: &Message) -> Delivered {
        in_time(|| self.deliver(message)).await
    }

    /// What a server is told that asks nobody.
    pub(super) fn refusal(&self, message: &Message) -> Option<Bytes> {
        (message.kind() == Kind::Request).then(|| self.journal.unheard(&self.server, message, NOBODY))
    }

    /// Hands one message of the server to whoever it concerns.
    fn deliver(&self, message: &Message) -> Result<Delivered, NoRoomYet> {
        let asks = message.kind() == Kind::Request;
        if message.kind() == Kind::Response {
            let _ = self.deliver_response(message);
            return Ok(Delivered::Done);
        }
        if let Some(stream) = message.param(&["_meta", mcp::key::SUBSCRIPTION_ID])
            && let Some(number) = number(stream.raw)
        {
            let answer = self.deliver_news(number, message, &stream.span)?;
            return Ok(answer.map_or(Delivered::Done, Delivered::Answered));
        }
        Ok(match self.deliver_other(message)? {
            None => {
                if asks && message.method() != "ping" {
                    *lock(&self.asked) = Some(Instant::now());
                }
                Delivered::Done
            }
            Some(NOBODY) => Delivered::ToNobody,
            Some(why) if asks => Delivered::Answered(self.journal.unheard(&self.server, message, why)),
            Some(_) => Delivered::Done,
        })
    }

    pub(super) fn deliver_response(&self, message: &Message) -> Option<()> {
        let number: u64 = message.id()?.parse().ok()?;
        let waiting = lock(&self.waiting).remove(&number)?;
        let mut edits = vec![(message.id_member()?.span.clone(), waiting.id.as_bytes().to_vec())];
        if let Some(stream) = message.outcome_member(&["_meta", mcp::key::SUBSCRIPTION_ID]) {
            edits.push((stream.span.clone(), waiting.id.as_bytes().to_vec()));
        }
        waiting.speaker.end(Ok(mcp::splice(message.bytes(), &mut edits)));
        Some(())
    }

    /// Ends the request whose answer cannot be read: it is not to wait for another. `false` if nobody knows whose it is.
    pub(super) fn fail(&self, unread: &Skim, fault: UpstreamFault) -> bool {
        if !unread.is_answer() {
            return false;
        }
        let mut table = lock(&self.waiting);
        let number = match unread.only_id() {
            Some(id) => id.parse().ok(),
            // SECURITY: where several share the process the only request may be another's.
            None if !self.shared => {
                let mut sent = table.iter().filter(|(_, waiting)| waiting.is_sent);
                sent.next().filter(|_| sent.next().is_none()).map(|(number, _)| *number)
            }
            None => None,
        };
        number.and_then(|number| table.remove(&number)).is_some_and(|waiting| waiting.speaker.end(Err(fault)))
    }

    /// What was subscribed to goes to the request that subscribed, under the client's id. Where that is not read, nothing is
    /// missed without a word: the stream ends with its result, and the server is told so.
    fn deliver_news(&self, number: u64, message: &Message, stream: &mcp::Span) -> Result<Option<Bytes>, NoRoomYet> {
        let mut table = lock(&self.waiting);
        let is_alone = table.len() == 1;
        let Some(waiting) = table.get_mut(&number) else { return Ok(None) };
        let text = mcp::splice(message.bytes(), &mut [(stream.clone(), waiting.id.as_bytes().to_vec())]);
        match waiting.speaker.say(text, Weight::News, is_alone) {
            Ok(()) => return Ok(None),
            Err(Unsaid::Yet) => return Err(NoRoomYet),
            Err(Unsaid::Lost | Unsaid::Gone) => {}
        }
        let Some(waiting) = table.remove(&number) else { return Ok(None) };
        let result =
            format!(r#"{{"resultType":"complete","_meta":{{"{}":{}}}}}"#, mcp::key::SUBSCRIPTION_ID, waiting.id);
        waiting.speaker.end(Ok(mcp::error::result_text(&waiting.id, result.as_bytes())));
        Ok(Some(cancelled(number)))
    }

    /// Progress goes to the request it belongs to, and so does what takes back a question; everything else to a request under
    /// way, or to the listener. Where nobody hears it, why not.
    fn deliver_other(&self, message: &Message) -> Result<Option<&'static str>, NoRoomYet> {
        if message.method() == "notifications/progress"
            && let Some(token) = message.param(&["progressToken"])
            && let Some(number) = number(token.raw)
        {
            let mut table = lock(&self.waiting);
            let is_alone = table.len() == 1;
            let Some(waiting) = table.get_mut(&number) else { return Ok(None) };
            let Some(original) = &waiting.token else { return Ok(None) };
            let text = mcp::splice(message.bytes(), &mut [(token.span.clone(), original.as_bytes().to_vec())]);
            match waiting.speaker.say(text, Weight::News, is_alone) {
                Ok(()) | Err(Unsaid::Gone) => {}
                Err(Unsaid::Yet) => return Err(NoRoomYet),
                Err(Unsaid::Lost) => self.lose(),
            }
            return Ok(None);
        }
        if message.method() == "notifications/cancelled" && self.deliver_withdrawal(message)? {
            return Ok(None);
        }
        // What waits for a listener is not for a call any more.
        let for_one = (message.kind() == Kind::Request || message.method() == "notifications/message")
            && !self.listeners.is_held_up();
        if for_one { self.deliver_to_one(message) } else { self.deliver_to_all(message, false) }
    }

    /// What takes back a question goes where that went. `false` if it was put in the course of no request under way.
    fn deliver_withdrawal(&self, message: &Message) -> Result<bool, NoRoomYet> {
        let Some(named) = message.param(&["requestId"]) else { return Ok(false) };
        let id = String::from_utf8_lossy(named.raw);
        let mut table = lock(&self.waiting);
        let is_alone = table.len() == 1;
        let Some(waiting) = table.values_mut().rev().find(|waiting| waiting.asked.has(&id)) else { return Ok(false) };
        // There is as much room for it as for the question.
        match waiting.speaker.say(Bytes::copy_from_slice(message.bytes()), Weight::Question, is_alone) {
            Ok(()) | Err(Unsaid::Gone) => {}
            Err(Unsaid::Yet) => return Err(NoRoomYet),
            Err(Unsaid::Lost) => self.lose(),
        }
        Ok(true)
    }

    /// What concerns one client: where all calls are one's, the newest under way is the likeliest cause.
    fn deliver_to_one(&self, message: &Message) -> Result<Option<&'static str>, NoRoomYet> {
        let mut table = lock(&self.waiting);
        let is_alone = table.len() == 1;
        // SECURITY: where several share the process nobody can tell whom it concerns, so none of them hears it.
        if self.shared && table.len() > 1 {
            return Ok(Some(NOBODY));
        }
        let asks = message.kind() == Kind::Request;
        // A ping asks nobody, and whoever waits for its client would answer it late.
        if message.method() == "ping" && table.values().any(|waiting| waiting.rests) {
            return Ok(Some(NOBODY));
        }
        if asks && is_unclear(table.values()) {
            return Ok(Some(UNCLEAR));
        }
        let weight = if asks { Weight::Question } else { Weight::News };
        let may_hear =
            |waiting: &&mut Waiting| if asks { waiting.hears_questions() } else { waiting.hears > Hears::Nothing };
        let hearing = table.values_mut().filter(may_hear);
        let mut is_full = false;
        if let Some(waiting) = hearing.max_by_key(|waiting| waiting.rank()) {
            // A copy: what the pipe read at once is one buffer, of which a few words would keep all.
            match waiting.speaker.say(Bytes::copy_from_slice(message.bytes()), weight, is_alone) {
                Ok(()) => {
                    if asks {
                        waiting.asked.put(message);
                    }
                    return Ok(None);
                }
                Err(Unsaid::Yet) => return Err(NoRoomYet),
                Err(Unsaid::Lost) => is_full = true,
                Err(Unsaid::Gone) => {}
            }
        }
        drop(table);
        if self.shared && self.listeners.count() > 1 {
            return Ok(Some(NOBODY));
        }
        self.deliver_to_all(message, is_full)
    }

    /// Tells everybody who listens. `is_full`: whoever it was meant for had no room for it.
    fn deliver_to_all(&self, message: &Message, is_full: bool) -> Result<Option<&'static str>, NoRoomYet> {
        // Of a process that is not shared the one call under way is the listener's own.
        let is_alone = lock(&self.waiting).len() <= usize::from(!self.shared);
        let (mut taken, mut lost) = (false, false);
        self.listeners.tell(message.bytes(), is_alone, |heard| {
            taken |= heard == Heard::Taken;
            lost |= heard == Heard::Full;
        })?;
        // Who asks is told that nobody hears.
        if message.kind() == Kind::Notification && (lost || (is_full && !taken)) {
            self.lose();
            return Ok(None);
        }
        Ok(if taken { None } else { Some(NOBODY) })
    }

    /// Something was said that somebody would have heard, had there been room for it.
    fn lose(&self) {
        let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
        let mut said = lock(&self.lost_said);
        if said.is_none_or(|said| said.elapsed() > AGAIN) {
            *said = Some(Instant::now());
            tracing::warn!(server = %self.server, lost, "notifications of the server are lost: a client reads too slowly");
        }
    }
}

/// The number that a raw JSON value is.
fn number(raw: &[u8]) -> Option<u64> {
    std::str::from_utf8(raw).ok()?.parse().ok()
}
