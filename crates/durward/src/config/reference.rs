//! The reference of the configuration in `docs/configuration.md`: written from the table of keys, checked by a test.

use super::{
    key::{Key, ROOT, Shape, Word},
    quantity::print_size,
};
use std::{fmt::Write as _, fs, path::Path};

const BEGIN: &str = "<!-- written by `cargo xtask docs` from crates/durward/src/config/key.rs -->\n";
const END: &str = "<!-- end -->";

/// What `cargo xtask docs` sets, so that the test writes the page instead of judging it.
const WRITE: &str = "DURWARD_WRITE_DOCS";

#[test]
#[expect(clippy::disallowed_methods, reason = "whoever writes the page says so by a variable")]
fn the_reference_names_every_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page has a place for the reference");
    let (_, after) = rest.split_once(END).expect("the reference has an end");
    let current = format!("{before}{BEGIN}\n{}\n{END}{after}", reference());
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, current).unwrap();
    } else {
        assert!(page == current, "docs/configuration.md is out of date: run `cargo xtask docs`");
    }
}

/// One table for the whole file, then one for each table in it.
fn reference() -> String {
    let Shape::Table(keys) = &ROOT else { panic!("the whole file is a table") };
    let mut text = String::new();
    section(&mut text, "The whole file", "", keys);
    text.trim_end().to_owned()
}

fn section(text: &mut String, title: &str, path: &str, keys: &[Key]) {
    write!(text, "### {title}\n\n| key | holds | for |\n|---|---|---|\n").unwrap();
    for key in keys {
        let required = if key.required { " **Required.**" } else { "" };
        let about = key.about.replace('|', "\\|");
        writeln!(text, "| `{}` | {} | {about}{required} |", key.name, holds(&key.shape)).unwrap();
    }
    text.push('\n');
    for key in keys {
        let path = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
        inner(text, &path, &key.shape);
    }
}

/// The tables inside a value.
fn inner(text: &mut String, path: &str, shape: &Shape) {
    match shape {
        Shape::Table(keys) => section(text, &format!("`{path}`"), path, keys),
        Shape::Map(word, shape) => inner(text, &format!("{path}.{}", placeholder(*word)), shape),
        Shape::List(shape) => inner(text, &format!("{path}[]"), shape),
        Shape::Some(shape) | Shape::Filled(shape, ..) => inner(text, path, shape),
        _ => {}
    }
}

fn holds(shape: &Shape) -> String {
    match shape {
        Shape::Switch => "`true` or `false`".to_owned(),
        Shape::Count(least, most) => format!("a number from {least} to {most}"),
        Shape::Size(least, most) => format!("a size from `{}` to `{}`", print_size(*least), print_size(*most)),
        Shape::Duration => "a time: `500ms`, `30s`, `5m`, `2h`, `30d`".to_owned(),
        Shape::Rate => "so many per so long: `10/min`, `5/s`, `1/30s`".to_owned(),
        Shape::Address => "address and port".to_owned(),
        Shape::Listen => "address and port, or `unix:PATH`".to_owned(),
        Shape::Url => "a URL, `https://…` or `http://…`".to_owned(),
        Shape::Network => "an address or a range of them, `10.0.0.0/8`".to_owned(),
        Shape::Choice(choices) => choices.iter().map(|choice| format!("`{choice}`")).collect::<Vec<_>>().join(", "),
        Shape::Word(word) => word_of(*word).to_owned(),
        Shape::Text => "text".to_owned(),
        Shape::Hidden => "text that is never shown".to_owned(),
        Shape::Claim => "`claim:PATH`".to_owned(),
        Shape::List(inner) => format!("a list: {}", holds(inner)),
        Shape::Some(inner) => format!("{}, or a list of them", holds(inner)),
        Shape::Filled(inner, ..) => format!("{}; not an empty one", holds(inner)),
        Shape::Map(word, inner) => format!("{} → {}", placeholder(*word), holds(inner)),
        Shape::Table(_) => "a table, see below".to_owned(),
    }
}

const fn word_of(word: Word) -> &'static str {
    match word {
        Word::Agent => "the name of an agent",
        Word::Server => "the name of a server",
        Word::Role => "the name of a role",
        Word::Environment => "the name of an environment",
        Word::Secret => "the name of a secret",
        Word::Header => "the name of a header",
        Word::Variable => "the name of a variable",
        Word::Glob => "a glob",
        Word::Target => "a glob over `server/name`",
    }
}

const fn placeholder(word: Word) -> &'static str {
    match word {
        Word::Agent => "AGENT",
        Word::Server => "SERVER",
        Word::Role => "ROLE",
        Word::Environment => "ENVIRONMENT",
        Word::Secret => "SECRET",
        Word::Header => "HEADER",
        Word::Variable => "VARIABLE",
        Word::Glob | Word::Target => "GLOB",
    }
}
