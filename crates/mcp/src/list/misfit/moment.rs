//! Points in time as the TypeScript SDKs take them, which is less than ISO 8601 has: to the second, with an offset.

/// Whether a text is one, like `2025-01-12T15:00:58.5+02:00`.
pub(super) fn is_one(text: &str) -> bool {
    read(text.as_bytes()).is_some()
}

fn read(text: &[u8]) -> Option<()> {
    let (date, time) = text.split_at_checked(10)?;
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = date else { return None };
    let year = two([*y1, *y2], 99)? * 100 + two([*y3, *y4], 99)?;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match two([*m1, *m2], 12)? {
        0 => return None,
        2 => 28 + u16::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if two([*d1, *d2], days)? == 0 {
        return None;
    }
    let [b'T', h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = time else { return None };
    two([*h1, *h2], 23)?;
    two([*m1, *m2], 59)?;
    two([*s1, *s2], 59)?;
    let offset = match rest {
        [b'.', rest @ ..] => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            rest.get(digits..).filter(|_| digits > 0)?
        }
        _ => rest,
    };
    match offset {
        [b'Z'] => Some(()),
        [b'+' | b'-', h1, h2, b':', m1, m2] => two([*h1, *h2], 23).and(two([*m1, *m2], 59)).map(drop),
        _ => None,
    }
}

/// The number that two digits are, up to `most`.
fn two(digits: [u8; 2], most: u16) -> Option<u16> {
    let [tens, ones] = digits.map(|digit| digit.is_ascii_digit().then(|| u16::from(digit - b'0')));
    Some(tens? * 10 + ones?).filter(|number| *number <= most)
}
