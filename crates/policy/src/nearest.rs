//! The name somebody probably meant.

/// What to do about an unknown name: the nearest known one, or all of them.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let best =
        known.iter().map(|one| (strsim::damerau_levenshtein(&name.to_lowercase(), &one.to_lowercase()), one)).min();
    match best {
        Some((distance, one)) if distance <= 2.max(name.len() / 3) => format!("did you mean `{one}`?"),
        _ => format!("known are {}", known.iter().map(|one| format!("`{one}`")).collect::<Vec<_>>().join(", ")),
    }
}
