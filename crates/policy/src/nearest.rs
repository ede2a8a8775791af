//! The name somebody probably meant.

/// The known name that was most likely meant: a third of it may be another.
pub fn nearest_name<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase().replace('-', "_");
    let distance = |one: &str| strsim::damerau_levenshtein(&name, &one.to_lowercase().replace('-', "_"));
    let near = |one: &str| (one.chars().count().max(name.chars().count()) / 3).max(1);
    let known = known.into_iter().map(|one| (distance(one), one));
    known.filter(|(distance, one)| *distance <= near(one)).min().map(|(_, one)| one)
}

/// What to do about an unknown name: the nearest known one, or all of them.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest_name(name, known.iter().copied()) {
        Some(one) => format!("did you mean `{one}`?"),
        None => format!("known are {}", known.iter().map(|one| format!("`{one}`")).collect::<Vec<_>>().join(", ")),
    }
}
