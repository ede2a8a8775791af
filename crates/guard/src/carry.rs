//! The ends of the texts that a stream has already sent.
//!
//! A secret may be split over two events. What went out cannot be called back; the part in the later event can be
//! masked if the end of the earlier text is still known: of the text at the same place, and of whatever was said last at
//! any. Bounded: `PLACES` tails of `TAIL` bytes, and two for what was said last.

const TAIL: usize = 512;
const PLACES: usize = 32;
/// The longest message that is put off, in bytes.
const PUT_OFF: usize = 64 * 1024;
/// How much of the beginning of an overlong match is kept: enough for any keyword that starts one.
const HEAD: usize = 96;
/// With how many texts of a message the end of what was said last is read.
const JOINTS: usize = 64;

/// Tails of the texts of one stream, by place. Start with `Carry::default()` and hand the same one to every message.
#[derive(Default)]
pub struct Carry {
    tails: Vec<Tail>,
    /// The end of what earlier messages said last, wherever that stood.
    before: Last,
    /// The same, with what this message said so far.
    last: Last,
    /// Which message this is.
    turn: u64,
    /// The first message, which was clean at a glance. Most streams have no other, and then nobody asks for its tails.
    put_off: Option<String>,
}

struct Tail {
    place: u64,
    /// The message it is from.
    turn: u64,
    text: String,
}

/// What was said last on a stream.
#[derive(Default, Clone)]
struct Last {
    text: String,
    /// It ends with what is a secret already. Any text would do as more of it, so that only one is taken for it.
    found: bool,
    /// One was.
    spent: bool,
    /// How many texts of this message were seen.
    texts: usize,
}

impl std::fmt::Debug for Carry {
    // SECURITY: the tails may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Carry({} places)", self.tails.len())
    }
}

impl Carry {
    /// A new message begins.
    pub(crate) fn next(&mut self) {
        self.turn = self.turn.wrapping_add(1);
        self.last.texts = 0;
        self.last.spent = false;
        self.before.clone_from(&self.last);
    }

    /// Keeps a first message that is clean, to be walked through only if another comes. False if it is to be walked now.
    pub(crate) fn put_off(&mut self, json: &str) -> bool {
        let may_wait = self.tails.is_empty() && self.put_off.is_none() && json.len() <= PUT_OFF;
        if may_wait {
            self.put_off = Some(json.to_owned());
        }
        may_wait
    }

    /// The message that was put off.
    pub(crate) const fn take_up(&mut self) -> Option<String> {
        self.put_off.take()
    }

    /// What earlier messages ended with at this place. Only the first text there goes on with it.
    pub(crate) fn tail(&self, place: u64) -> Option<&str> {
        self.tails.iter().find(|tail| tail.place == place && tail.turn != self.turn).map(|tail| tail.text.as_str())
    }

    /// What earlier messages said last, if this text may go on with it.
    pub(crate) fn before(&self) -> Option<&str> {
        let is_over = self.before.found && self.before.spent;
        let may = self.last.texts < JOINTS && !self.before.text.is_empty() && !is_over;
        may.then_some(self.before.text.as_str())
    }

    /// A text went on with what earlier messages said last.
    pub(crate) const fn spend(&mut self) {
        self.before.spent = true;
    }

    /// Remembers the end of `text`. `open` is where a match starts, in the tail and the text together, that ran to the
    /// very end: its beginning is kept even when it is longer than a tail, so that a third message is still understood.
    pub(crate) fn remember(&mut self, place: u64, text: &str, open: Option<usize>) {
        if text.is_empty() {
            return;
        }
        let known = self.tails.iter().position(|tail| tail.place == place);
        if known.is_none() && self.tails.len() >= PLACES {
            // The oldest stands first: what is used is put back at the end.
            self.tails.remove(0);
        }
        let turn = self.turn;
        let mut tail = known.map_or_else(|| Tail { place, turn, text: String::new() }, |at| self.tails.remove(at));
        if tail.turn != turn || known.is_none() {
            grow(&mut tail.text, text, open);
        } else {
            tail.text.clear();
            tail.text.push_str(last(text, TAIL));
        }
        tail.turn = turn;
        self.tails.push(tail);
    }

    /// Remembers `text` as what was said last. Only the first text of a message goes on with what was before; `open` as
    /// above.
    pub(crate) fn remember_last(&mut self, text: &str, open: Option<usize>) {
        if text.is_empty() {
            return;
        }
        if self.last.texts == 0 {
            grow(&mut self.last.text, text, open);
        } else {
            self.last.text.clear();
            self.last.text.push_str(last(text, TAIL));
        }
        self.last.found = open.is_some();
        self.last.texts += 1;
    }
}

/// Lets a tail go on with a text.
fn grow(tail: &mut String, text: &str, open: Option<usize>) {
    let before = tail.len();
    let whole = before + text.len();
    match open.filter(|open| whole.saturating_sub(*open) > TAIL) {
        Some(open) => {
            let start = match open.checked_sub(before) {
                Some(within) => text.get(within..),
                None => tail.get(open..),
            };
            let mut kept = String::from(first(start.unwrap_or_default(), HEAD));
            kept.push_str(last(text, TAIL - HEAD));
            *tail = kept;
        }
        None if whole <= TAIL => tail.push_str(text),
        None => {
            tail.push_str(last(text, TAIL));
            *tail = String::from(last(tail, TAIL));
        }
    }
}

/// At most `count` bytes from the start.
pub(crate) fn first(text: &str, count: usize) -> &str {
    text.get(..text.floor_char_boundary(count)).unwrap_or_default()
}

/// At most `count` bytes from the end.
pub(crate) fn last(text: &str, count: usize) -> &str {
    text.get(text.ceil_char_boundary(text.len().saturating_sub(count))..).unwrap_or_default()
}
