use super::*;
use crate::{
    fixture::{self, Place, call, call_id, closed, filled, intent},
    record::{Leaf, Outcome},
};
use vocab::{AgentId, IssuerName};

fn reader(place: &Place) -> Reader {
    Reader::open(place.path(), &Tree::Tenant(fixture::tenant())).unwrap()
}

fn query(filter: Filter, order: Order, limit: usize) -> Query {
    Query { filter, order, from: None, limit, scan: u64::MAX }
}

fn walk(reader: &Reader, mut query: Query) -> Vec<u64> {
    let mut seen = Vec::new();
    loop {
        let page = reader.page(&query).unwrap();
        assert!(page.entries.len() <= query.limit);
        seen.extend(page.entries.iter().map(|entry| entry.index));
        match page.next {
            Some(next) => query.from = Some(next),
            None => return seen,
        }
    }
}

#[tokio::test]
async fn pages_cover_everything_once_in_both_directions() {
    let place = filled(600).await;
    let reader = reader(&place);
    let forward = walk(&reader, query(Filter::default(), Order::Oldest, 37));
    assert_eq!(forward, (0..600).collect::<Vec<_>>());
    let mut backward = walk(&reader, query(Filter::default(), Order::Newest, 37));
    backward.reverse();
    assert_eq!(backward, forward);
    let bounded = Query { scan: 10, ..query(Filter::default(), Order::Oldest, 37) };
    let page = reader.page(&bounded).unwrap();
    assert_eq!((page.entries.len(), page.next), (10, Some(10)));
}

#[tokio::test]
async fn filters_find_what_they_say() {
    let place = Place::new();
    let log = place.open();
    for n in 0..20 {
        let mut record = call(n);
        if n % 5 == 0 {
            record.agent = Some(AgentId::new("other").unwrap());
            record.outcome = Outcome::Refused { reason: "denied".into(), stage: "authorize".into() };
            record.trace = Some(format!("trace-{n}"));
            let issuer = if n < 10 { "https://a.example" } else { "https://b.example" };
            record.issuer = Some(IssuerName::new(issuer).unwrap());
        }
        log.append_unwatched(Leaf::Call(record)).unwrap();
    }
    log.flush().await.unwrap();
    let reader = reader(&place);
    let some = |text: &str| Some(text.to_owned());
    let check = |filter: Filter, wanted: &[u64]| {
        assert_eq!(walk(&reader, query(filter.clone(), Order::Oldest, 2)), wanted, "{filter:?}");
    };
    check(Filter { agent: some("other"), ..Filter::default() }, &[0, 5, 10, 15]);
    check(Filter { outcome: some("refused"), target: some("read"), ..Filter::default() }, &[0, 5, 10, 15]);
    check(Filter { trace: some("trace-5"), server: some("files"), ..Filter::default() }, &[5]);
    check(Filter { call: Some(call_id(7)), ..Filter::default() }, &[7]);
    check(Filter { since: Some(fixture::at(3)), until: Some(fixture::at(6)), ..Filter::default() }, &[3, 4, 5]);
    check(Filter { issuer: some("https://b.example"), agent: some("other"), ..Filter::default() }, &[10, 15]);
    check(Filter { user: some("nobody"), ..Filter::default() }, &[]);
    check(Filter { kind: some("admin"), ..Filter::default() }, &[]);
}

/// The same records with every bundle looked at and every record parsed: what a search must find.
fn plain(reader: &Reader, filter: &Filter) -> Vec<u64> {
    let all = (0..reader.size()).map(|index| reader.get(index).unwrap().unwrap());
    all.filter(|entry| filter.matches(&entry.value)).map(|entry| entry.index).collect()
}

#[tokio::test]
async fn what_is_passed_over_unparsed_does_not_fit() {
    let place = Place::new();
    let log = place.open();
    for n in 0..1500 {
        let mut record = call(n);
        record.target = Some(match n % 300 {
            0 => "quoted \"agent\":\"rare\"".to_owned(),
            1 => "ümläut\\\n\u{1}".to_owned(),
            _ => format!("tool-{}", n % 7),
        });
        if n == 700 {
            record.agent = Some(AgentId::new("rare").unwrap());
        }
        log.append_unwatched(Leaf::Call(record)).unwrap();
    }
    log.flush().await.unwrap();
    let reader = reader(&place);
    let some = |text: &str| Some(text.to_owned());
    for (filter, count) in [
        (Filter { agent: some("rare"), ..Filter::default() }, 1),
        (Filter { target: some("quoted \"agent\":\"rare\""), ..Filter::default() }, 5),
        (Filter { target: some("ümläut\\\n\u{1}"), ..Filter::default() }, 5),
        (Filter { target: some("tool-3"), since: Some(fixture::at(1400)), ..Filter::default() }, 14),
        (Filter { kind: some("call"), agent: some("none"), ..Filter::default() }, 0),
        (Filter { since: Some(fixture::at(10)), until: Some(fixture::at(300)), ..Filter::default() }, 290),
    ] {
        let wanted = plain(&reader, &filter);
        assert_eq!(wanted.len(), count, "{filter:?}");
        for limit in [1, 3, 5000] {
            assert_eq!(walk(&reader, query(filter.clone(), Order::Oldest, limit)), wanted, "{filter:?}");
            let mut newest = walk(&reader, query(filter.clone(), Order::Newest, limit));
            newest.reverse();
            assert_eq!(newest, wanted, "{filter:?}");
        }
        // A bounded look goes on where it stopped, wherever that is in a bundle.
        let bounded = Query { scan: 100, ..query(filter.clone(), Order::Newest, 5000) };
        let mut found = walk(&reader, bounded);
        found.reverse();
        assert_eq!(found, wanted, "{filter:?}");
    }
}

#[tokio::test]
async fn bundles_from_before_the_time_asked_for_are_not_read() {
    let place = filled(1000).await;
    let reader = reader(&place);
    let late = |since| Filter { since: Some(since), ..Filter::default() };
    let all = walk(&reader, query(late(fixture::at(0)), Order::Oldest, 5000));
    assert_eq!(all.len(), 1000);
    // The oldest bundle was written long before; whoever reads it finds that it is none.
    let oldest = place.file("tenant/default/tile/entries/000");
    let since = fixture::at(300);
    std::fs::write(&oldest, "no bundle").unwrap();
    let file = std::fs::File::options().write(true).open(&oldest).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)).unwrap();
    assert_eq!(walk(&reader, query(late(since), Order::Oldest, 5000)).first(), Some(&300));
    assert!(reader.page(&query(late(fixture::at(-100_000_000_000_000_000)), Order::Oldest, 5000)).is_err());
}

#[tokio::test]
async fn a_call_is_found_with_its_intent() {
    let place = Place::new();
    let log = place.open();
    let opened = log.append(intent(1)).unwrap().durable().await.unwrap();
    log.append_unwatched(closed(2)).unwrap();
    let mut closing = call(1);
    closing.intent = Some(opened);
    log.append_unwatched(Leaf::Call(closing)).unwrap();
    log.flush().await.unwrap();
    let reader = reader(&place);
    let found: Vec<_> = reader.find(&call_id(1)).unwrap().into_iter().map(|entry| entry.index).collect();
    assert_eq!(found, [0, 2]);
    assert_eq!(reader.find(&call_id(2)).unwrap().len(), 1);
    assert_eq!(reader.find(&call_id(3)).unwrap(), []);
    assert_eq!(reader.get(3).unwrap(), None);
    assert_eq!(reader.get(2).unwrap().unwrap().value["record"]["intent"], 0);
}
