//! Which session a call is to have, and how many there may be. Opens none.

use super::{Key, Leaving, Slot, Slots, lock};
use crate::{
    server::Transport,
    session::Way,
    upstream::{UpstreamFault, exchange::Hop},
};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};
use vocab::Digest;

/// Sessions in all. Idle ones take a few KiB each, and processes have a bound of their own.
const MOST: usize = 16_384;
/// Sessions of one principal with one server: so many clients of its can differ in what they say of themselves.
const MOST_ALIKE: usize = 8;
/// Sessions beside those, for calls at the same time.
const MOST_BESIDE: u8 = 7;

/// Another one of the same client.
pub(super) fn at((server, principal, client, _): &Key, number: u8) -> Key {
    (server.clone(), principal.clone(), *client, number)
}

/// The sessions of a principal with a server: the first ones of its clients, or those beside them.
fn own<'s>(slots: &'s Slots, key: &Key, beside: bool) -> impl Iterator<Item = (&'s Key, &'s Arc<Slot>)> + use<'s> {
    let of = |digest, number| (key.0.clone(), key.1.clone(), Digest::from_bytes(digest), number);
    let all = slots.range(of([0; 32], 0)..=of([u8::MAX; 32], u8::MAX));
    all.filter(move |(key, _)| (key.3 > 0) == beside)
}

/// Which session of its client a call is to have: the first one that no call has; another one, while there is room for that; or
/// the one that has the fewest. What made room for another is handed back, to be ended on its server.
pub(super) fn which(slots: &mut Slots, hop: &Hop<'_>, first: &Key) -> (u8, Option<Leaving>) {
    let of = slots.range(at(first, 0)..=at(first, u8::MAX)).map(|(key, slot)| (key.3, slot));
    let is_open = |slot: &Slot| lock(&slot.link).as_ref().is_some_and(|link| link.fits(hop));
    let Some((_, slot)) = of.clone().next().filter(|(number, _)| *number == 0) else { return (0, None) };
    // Sessions that a server does not tell apart are one.
    let is_one = lock(&slot.link).as_ref().is_some_and(|link| matches!(link.leg.way, Way::Http(None)));
    if !slot.is_taken() || is_one {
        return (0, None);
    }
    if let Some((number, _)) = of.clone().find(|(_, slot)| !slot.is_taken() && is_open(slot)) {
        return (number, None);
    }
    let busy: Vec<u8> = of.clone().filter(|(_, slot)| slot.is_taken()).map(|(number, _)| number).collect();
    let fewest = of.filter(|(_, slot)| slot.is_taken()).min_by_key(|(_, slot)| slot.calls.load(Ordering::Relaxed));
    let fewest = fewest.map_or(0, |(number, _)| number);
    let is_process = matches!(hop.server.transport, Transport::Stdio(_));
    if slots.len() >= MOST / 2 || (is_process && !hop.state.children.has_spare(&first.1)) {
        return (fewest, None);
    }
    let Some(another) = (1..=MOST_BESIDE).find(|number| !busy.contains(number)) else { return (fewest, None) };
    let mut made_room = None;
    if !slots.contains_key(&at(first, another)) && own(slots, first, true).count() >= usize::from(MOST_BESIDE) {
        let Some(leaving) = oldest(own(slots, first, true)) else { return (fewest, None) };
        made_room = take(slots, &leaving);
    }
    (another, made_room)
}

/// Takes out a session that nobody has a hand in.
fn take(slots: &mut Slots, key: &Key) -> Option<Leaving> {
    let link = slots.remove(key).and_then(|slot| lock(&slot.link).take());
    link.map(|link| (key.0.clone(), Arc::clone(&link.leg)))
}

/// The room for a session. Where all is taken, the one that was not used for longest makes room, if it is free; it is handed
/// back, to be ended on its server.
pub(super) fn room(slots: &mut Slots, key: &Key, now: u64) -> Result<(Arc<Slot>, Option<Leaving>), UpstreamFault> {
    if let Some(slot) = slots.get(key) {
        slot.used.store(now, Ordering::Relaxed);
        return Ok((Arc::clone(slot), None));
    }
    let crowded = key.3 == 0 && own(slots, key, false).count() >= MOST_ALIKE;
    let mut evicted = None;
    if crowded || slots.len() >= MOST {
        let free = if crowded { oldest(own(slots, key, false)) } else { oldest(slots.iter()) };
        let Some(leaving) = free else {
            let why = format!(
                "too many sessions with legacy servers are in use ({MOST_ALIKE} of a principal with one server, {MOST} \
                 in all); wait until a call or a listening stream ends"
            );
            return Err(UpstreamFault::Sessions(why));
        };
        evicted = take(slots, &leaving);
    }
    let slot = Arc::new(Slot {
        opening: Arc::default(),
        link: Mutex::default(),
        used: AtomicU64::new(now),
        calls: Arc::default(),
        lost: Arc::default(),
    });
    slots.insert(key.clone(), Arc::clone(&slot));
    Ok((slot, evicted))
}

/// The one that was not used for longest, of those that nobody has a hand in.
fn oldest<'a>(slots: impl Iterator<Item = (&'a Key, &'a Arc<Slot>)>) -> Option<Key> {
    let free = slots.filter(|(_, slot)| slot.is_free());
    free.min_by_key(|(_, slot)| slot.used.load(Ordering::Relaxed)).map(|(key, _)| key.clone())
}
