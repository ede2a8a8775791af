//! What the decoder promises, for any stream and any chunks.

use super::*;
use proptest::{collection::vec, prelude::*, sample::select};

/// All events of a stream that comes in the given chunks, and what is left at its end.
fn events(chunks: &[Vec<u8>]) -> (Vec<Event>, Option<Bytes>) {
    let mut decoder = Decoder::new(1 << 20);
    let mut out = Vec::new();
    for chunk in chunks {
        decoder.push(Bytes::from(chunk.clone()), &mut out).unwrap();
    }
    let (last, tail) = decoder.finish();
    out.extend(last);
    (out, tail)
}

fn one(text: &str) -> Event {
    let (mut events, tail) = events(&[text.as_bytes().to_vec()]);
    assert_eq!((events.len(), tail), (1, None));
    events.remove(0)
}

/// Data and type of every event, by the letter of §9.2.6: normalise line ends, split, dispatch on blank lines.
fn by_the_letter(text: &[u8]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let text = String::from_utf8_lossy(text).replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<&str> = text.split('\n').collect();
    lines.pop();
    let (mut events, mut data, mut kind) = (Vec::new(), Vec::<&str>::new(), None);
    for line in lines {
        if line.is_empty() {
            if !data.is_empty() {
                events.push((data.join("\n").into_bytes(), kind));
            }
            (data, kind) = (Vec::new(), None);
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => data.push(value),
            "event" => kind = Some(value.as_bytes().to_vec()),
            _ => {}
        }
    }
    events
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "data: {\"a\":1}",
        "data:x",
        "data",
        "data: ",
        "data:  y",
        ":ping",
        "id: 7",
        "id:\u{0}",
        "event: message",
        "retry: 50",
        "retry: 5x",
        "other: 1",
        "dat",
        "\u{feff}",
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "\r\n\r\n",
        "\r\r",
    ];
    vec(select(pieces.to_vec()), 0..24).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn chunks_make_no_difference_and_nothing_is_lost(stream in stream(), cuts in vec(any::<prop::sample::Index>(), 0..8)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        let mut chunks = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([stream.len()]) {
            chunks.push(stream[from..cut].to_vec());
            from = cut;
        }
        let whole = events(std::slice::from_ref(&stream));
        let single: Vec<Vec<u8>> = stream.iter().map(|byte| vec![*byte]).collect();
        prop_assert_eq!(&events(&chunks), &whole);
        prop_assert_eq!(&events(&single), &whole);

        let (events, tail) = whole;
        let raw: Vec<u8> = events.iter().flat_map(|event| event.raw.to_vec()).chain(tail.into_iter().flatten()).collect();
        prop_assert_eq!(&raw, &stream);
        let found: Vec<_> = events
            .into_iter()
            .filter_map(|event| Some((event.data?.to_vec(), event.event.map(|kind| kind.to_vec()))))
            .collect();
        prop_assert_eq!(found, by_the_letter(&stream));
    }

    #[test]
    fn replaced_data_is_read_and_the_rest_stays(stream in stream(), data in "[a-z{}\": \n\r]{0,20}") {
        let (events_before, _) = events(&[stream]);
        for before in events_before.into_iter().filter(|event| event.data.is_some()) {
            let replaced = replace_data(&before, data.as_bytes());
            // What was not first must not be read as first.
            let lead: &[u8] = if before.marked { b"" } else { b"\n" };
            let (after, tail) = events(&[lead.to_vec(), replaced.to_vec()]);
            prop_assert_eq!(tail, None);
            let after: Vec<Event> = after.into_iter().filter(|event| !event.is_comment_only()).collect();
            prop_assert_eq!(after.len(), 1);
            let wanted = data.replace("\r\n", "\n").replace('\r', "\n");
            prop_assert_eq!(after[0].data.as_deref(), Some(wanted.as_bytes()));
            prop_assert_eq!((&after[0].id, &after[0].event, after[0].retry), (&before.id, &before.event, before.retry));
        }
    }
}

#[test]
fn an_event_is_read_field_by_field() {
    let event = one(": hello\r\nid: 42\r\nevent: message\r\nretry: 1500\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\n");
    assert_eq!(event.data.as_deref(), Some(b"{\"a\":\n1}".as_slice()));
    assert_eq!(event.id.as_deref(), Some(b"42".as_slice()));
    assert_eq!(event.event.as_deref(), Some(b"message".as_slice()));
    assert_eq!(event.retry, Some(1500));
    let priming = one("id: 1\ndata:\n\n");
    assert_eq!((priming.data.as_deref(), priming.message()), (Some(b"".as_slice()), None));
    for (kind, is_message) in [
        ("", true),
        ("event\n", true),
        ("event:\n", true),
        ("event: message\n", true),
        ("event: ping\nevent: message\n", true),
        ("event: message\nevent: ping\n", false),
        ("event: ping\n", false),
        ("event: Message\n", false),
        ("event:  message\n", false),
    ] {
        assert_eq!(one(&format!("{kind}data: {{}}\n\n")).message().is_some(), is_message, "{kind:?}");
    }
    assert!(one(": keep-alive\n\n").is_comment_only());
    assert!(!one("retry: 1\n\n").is_comment_only());
}

#[test]
fn an_event_is_given_out_as_soon_as_it_is_complete() {
    for text in ["data: 1\n\n", "data: 1\r\n\r\n", "data: 1\r\r"] {
        let mut out = Vec::new();
        Decoder::new(64).push(Bytes::from(text), &mut out).unwrap();
        assert_eq!(out.len(), 1, "{text:?}");
    }
}

#[test]
fn an_event_in_one_chunk_is_not_copied() {
    let chunk = Bytes::from("data: abc\n\ndata: def\n\n");
    let mut out = Vec::new();
    Decoder::new(64).push(chunk.clone(), &mut out).unwrap();
    for event in &out {
        assert!(chunk.as_ptr_range().contains(&event.raw.as_ptr()));
        assert!(chunk.as_ptr_range().contains(&event.data.as_ref().unwrap().as_ptr()));
    }
}

#[test]
fn a_longer_event_than_allowed_ends_the_stream_in_any_chunks() {
    let text = b"data: 0123456789\n\n";
    for size in 1..=text.len() {
        let mut decoder = Decoder::new(text.len() - 1);
        let mut out = Vec::new();
        let result = text.chunks(size).try_for_each(|chunk| decoder.push(Bytes::from(chunk.to_vec()), &mut out));
        assert_eq!((result, out.len()), (Err(TooBig { limit: text.len() - 1 }), 0), "{size}");
    }
}

#[test]
fn replaced_data_keeps_its_place() {
    let event = one(": c\nid: 1\ndata: a\ndata: b\nevent: e\n\n");
    let prefixed = prefix_id(&event, "files/");
    assert_eq!(prefixed.raw, String::from_utf8(event.raw.to_vec()).unwrap().replace("id: 1", "id: files/1"));
    assert_eq!(prefixed.id.as_deref(), Some(&b"files/1"[..]));
    assert_eq!(replace_data(&event, b"new"), ": c\nid: 1\ndata: new\nevent: e\n\n");
    assert_eq!(replace_data(&event, b"two\nlines"), ": c\nid: 1\ndata: two\ndata: lines\nevent: e\n\n");
    assert_eq!(encode(b"{}", Some("9\ndata: x")), "id: 9data: x\ndata: {}\n\n");
    assert_eq!(encode(b"{}", None), "data: {}\n\n");
}

#[test]
fn what_stands_beside_data_is_replaced_line_by_line() {
    let shout = |event: &Event| {
        replace_beside(event, |text| match text {
            Beside::Id(id) => Some(id.to_ascii_uppercase()),
            Beside::Line(line) if line.contains(&b'x') => Some(Vec::new()),
            Beside::Line(line) => line.contains(&b'c').then(|| line.to_ascii_uppercase()),
        })
    };
    for end in ["\n", "\r\n", "\r"] {
        let lines = |text: &str| text.replace('\n', end);
        let event = one(&lines(": c\ndata: abc\nid:k\nretry: 3\nx: y\ndata\nc\nevent: message\n\n"));
        assert!(event.has_beside());
        let changed = shout(&event).unwrap();
        assert_eq!(changed.raw, lines(": C\ndata: abc\nid: K\nretry: 3\n:\ndata\nC\nevent: message\n\n"));
        assert_eq!((changed.id.as_deref(), &changed.data, changed.retry), (Some(&b"K"[..]), &event.data, Some(3)));
        let marked = one(&lines("\u{feff}id: k\ndata: {}\n\n"));
        assert_eq!(shout(&marked).unwrap().raw, lines("\u{feff}id: K\ndata: {}\n\n"));
        assert_eq!(shout(&one(&lines("retry: 1\ndata: {}\n\n"))), None);
        assert!(!one(&lines("event: message\ndata: {}\n\n")).has_beside());
    }
}
