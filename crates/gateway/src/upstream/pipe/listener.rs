//! Who hears what a server says unasked, until it says nothing more. One who reads, and has no room for it yet, is waited
//! for a little.

use super::{Heard, NoRoomYet, Word, lock, patience::Patience};
use bytes::Bytes;
use std::sync::{Arc, Mutex};

/// Takes what the server says unasked.
type Listener = dyn Fn(Word) -> Heard + Send + Sync;

/// One who listens.
struct Listening {
    listener: Arc<Listener>,
    /// The message that it was told last, or would have been.
    turn: u64,
    /// What became of that.
    became: Heard,
    patience: Patience,
}

/// All who listen; none once the server says nothing more.
pub(super) struct Listeners(Mutex<Option<All>>);

#[derive(Default)]
struct All {
    listening: Vec<Listening>,
    /// The message that is told.
    turn: u64,
    /// Somebody was told it who has no room for it yet.
    is_held_up: bool,
}

impl Default for Listeners {
    fn default() -> Self {
        Self(Mutex::new(Some(All::default())))
    }
}

impl Listeners {
    /// Adds a listener. Those that are gone make room: a shared process that says nothing unasked outlives many sessions.
    ///
    /// INVARIANT: each is told once that it is over: by the end, which takes all there are, or here, after the end.
    pub(super) fn add(&self, listener: Arc<Listener>) {
        {
            let mut all = lock(&self.0);
            if let Some(All { listening, turn, .. }) = &mut *all {
                listening.retain(|one| (one.listener)(Word::Nothing) != Heard::Gone);
                let (turn, became, patience) = (*turn, Heard::Missed, Patience::default());
                listening.push(Listening { listener, turn, became, patience });
                return;
            }
        }
        listener(Word::Over);
    }

    /// Says something to all of them, and gives what became of it with each. Where one of them is waited for it is to be said
    /// again in a moment: who was told it is not told it twice. `is_alone`: beside them nobody is held up by that.
    pub(super) fn tell(&self, text: &Bytes, is_alone: bool, mut heard: impl FnMut(Heard)) -> Result<(), NoRoomYet> {
        let mut all = lock(&self.0);
        let Some(All { listening, turn, is_held_up }) = &mut *all else { return Ok(()) };
        if !std::mem::replace(is_held_up, false) {
            *turn += 1;
        }
        // Who has fallen behind for good misses nothing by another's being waited for.
        let hearing = listening.iter().filter(|one| one.became == Heard::Taken).count();
        for one in listening.iter_mut().filter(|one| one.turn != *turn) {
            let others = hearing - usize::from(one.became == Heard::Taken);
            let became = (one.listener)(Word::Said(text.clone()));
            match became {
                Heard::Full if one.patience.is_left() => {
                    *is_held_up = true;
                    continue;
                }
                Heard::Taken => one.patience.taken(is_alone && others == 0),
                // While its client is away nobody waits for it.
                Heard::Full | Heard::Missed | Heard::Gone => one.patience.over(),
            }
            (one.turn, one.became) = (*turn, became);
        }
        if *is_held_up {
            return Err(NoRoomYet);
        }
        listening.retain(|one| {
            heard(one.became);
            one.became != Heard::Gone
        });
        Ok(())
    }

    /// Whether one of them has no room yet for what was said last.
    pub(super) fn is_held_up(&self) -> bool {
        lock(&self.0).as_ref().is_some_and(|all| all.is_held_up)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        lock(&self.0).as_ref().map_or(0, |all| all.listening.len())
    }

    /// The server says nothing more.
    pub(super) fn end(&self) {
        let all = lock(&self.0).take();
        for one in all.into_iter().flat_map(|all| all.listening) {
            (one.listener)(Word::Over);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::patience::NAP, Heard, Listeners, Word};
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };
    use tokio::time::Instant;

    #[test]
    fn listeners_that_are_gone_are_not_kept() {
        let listeners = Listeners::default();
        for heard in [Heard::Gone, Heard::Missed, Heard::Gone, Heard::Gone, Heard::Taken] {
            listeners.add(Arc::new(move |_| heard));
        }
        let mut kept = Vec::new();
        assert!(listeners.tell(&"x".into(), true, |heard| kept.push(heard)).is_ok());
        assert_eq!(kept, [Heard::Missed, Heard::Taken]);
    }

    #[tokio::test]
    async fn whoever_listens_is_told_each_thing_once_though_another_is_waited_for() {
        let listeners = Listeners::default();
        let (quick, room) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let told = Arc::clone(&quick);
        listeners.add(Arc::new(move |_| {
            told.fetch_add(1, Ordering::SeqCst);
            Heard::Taken
        }));
        let slow = Arc::clone(&room);
        listeners.add(Arc::new(move |_| {
            let takes = slow.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |room| room.checked_sub(1)).is_ok();
            if takes { Heard::Taken } else { Heard::Full }
        }));
        // Looked at when the second came.
        quick.store(0, Ordering::SeqCst);
        for _ in 0..3 {
            assert!(listeners.tell(&"x".into(), true, |_| panic!("it is not over")).is_err() && listeners.is_held_up());
        }
        room.store(1, Ordering::SeqCst);
        let mut became = Vec::new();
        assert!(listeners.tell(&"x".into(), true, |heard| became.push(heard)).is_ok() && !listeners.is_held_up());
        assert_eq!((became, quick.load(Ordering::SeqCst)), (vec![Heard::Taken, Heard::Taken], 1));
        // Waited for no longer than that: then it misses what it has no room for.
        let mut became = Vec::new();
        let began = Instant::now();
        while listeners.tell(&"y".into(), true, |heard| became.push(heard)).is_err() {
            tokio::time::sleep(NAP).await;
        }
        assert!(began.elapsed() >= Duration::from_millis(50));
        for _ in 0..3 {
            assert!(listeners.tell(&"z".into(), true, |heard| became.push(heard)).is_ok());
        }
        assert_eq!((became, quick.load(Ordering::SeqCst)), ([Heard::Taken, Heard::Full].repeat(4), 5));
    }

    #[test]
    fn whoever_comes_to_listen_is_told_once_that_it_is_over_before_the_end_and_after() {
        let listeners = Listeners::default();
        let told = Arc::new(AtomicUsize::new(0));
        let listen = || {
            let told = Arc::clone(&told);
            listeners.add(Arc::new(move |word| {
                if matches!(word, Word::Over) {
                    told.fetch_add(1, Ordering::SeqCst);
                }
                Heard::Missed
            }));
        };
        listen();
        assert_eq!(told.load(Ordering::SeqCst), 0);
        listeners.end();
        assert_eq!(told.load(Ordering::SeqCst), 1);
        listen();
        listeners.end();
        assert_eq!((told.load(Ordering::SeqCst), listeners.count()), (2, 0));
    }

    #[test]
    fn whoever_comes_while_it_ends_is_told_all_the_same() {
        for _ in 0..1000 {
            let listeners = Listeners::default();
            let told = Arc::new(AtomicUsize::new(0));
            std::thread::scope(|scope| {
                scope.spawn(|| listeners.end());
                let told = Arc::clone(&told);
                listeners.add(Arc::new(move |word| {
                    told.fetch_add(usize::from(matches!(word, Word::Over)), Ordering::SeqCst);
                    Heard::Missed
                }));
            });
            assert_eq!(told.load(Ordering::SeqCst), 1);
        }
    }
}
