//! Measures the secrets family on labelled rows: `cargo run --release -p guard --example measure -- DIRECTORY`.
//!
//! Reads every `*.jsonl` in the directory. A row is `{kind, text, label, tier, sub, …}`. With a second argument, rows that
//! were judged wrongly are printed: `miss` or `false`, then the group.

use guard::{Carry, Detector, Guards, Mode, Secrets, Setting};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Instant;

#[derive(Default)]
struct Count {
    rows: usize,
    hits: usize,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("usage: measure DIRECTORY [miss|false [GROUP]]")?;
    let show = arguments.next();
    let group = arguments.next().unwrap_or_default();
    let mut files: Vec<_> = std::fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    files.sort_by_key(std::fs::DirEntry::file_name);

    let mut counts: BTreeMap<(String, String, String), Count> = BTreeMap::new();
    let mut kinds: BTreeMap<&'static str, usize> = BTreeMap::new();
    let (mut texts, mut clean, mut secrets) = (Vec::new(), Vec::new(), Vec::new());
    for file in files.iter().filter(|file| file.path().extension().is_some_and(|end| end == "jsonl")) {
        for line in std::fs::read_to_string(file.path())?.lines() {
            let row: Value = serde_json::from_str(line)?;
            let field = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
            let (kind, label, text) = (field("kind"), field("label"), field("text"));
            let tier = if kind == "secret" { field("sub") } else { field("tier") };
            let mut found = Vec::new();
            Secrets.find(&text, &mut found);
            let hit = !found.is_empty();
            let secret = label == "secret";
            let wrong = if secret { "miss" } else { "false" };
            if secret != hit && show.as_deref() == Some(wrong) && format!("{kind}/{tier}").contains(&group) {
                let what: Vec<_> =
                    found.iter().map(|m| (m.kind, text.get(m.span.clone()).unwrap_or_default())).collect();
                println!("{kind}/{label}/{tier} {what:?} {:?}", text.chars().take(400).collect::<String>());
            }
            for kind in found.iter().map(|m| m.kind).filter(|_| secret) {
                *kinds.entry(kind).or_default() += 1;
            }
            for tier in [tier, String::from("(all)")] {
                let count = counts.entry((kind.clone(), label.clone(), tier)).or_default();
                count.rows += 1;
                count.hits += usize::from(hit);
            }
            if secret {
                secrets.push(text.clone());
            } else if kind == "secret" || !hit {
                clean.push(text.clone());
            }
            texts.push(text);
        }
    }
    println!("| kind | label | tier | rows | flagged | rate |\n|---|---|---|---:|---:|---:|");
    for ((kind, label, tier), Count { rows, hits }) in &counts {
        println!("| {kind} | {label} | {tier} | {rows} | {hits} | {:.1} % |", percent(*hits, *rows));
    }
    println!("\nkinds in secret rows: {kinds:?}");
    println!("after a clean text: {}", after(&clean, &clean));
    println!("after a text with a secret: {}", after(&secrets, &clean));
    speed(&texts)?;
    worst();
    Ok(())
}

/// How many results hold more masks because of a line of log that came before them.
fn after(before: &[String], texts: &[String]) -> String {
    let guards = Guards::new(Setting { results: Mode::Mask, arguments: Mode::Refuse });
    let mut more = 0;
    for (said, text) in before.iter().cycle().zip(texts.iter().skip(1).chain(texts.first())) {
        let result = serde_json::json!({"content": [{"type": "text", "text": text}]}).to_string();
        let alone = guards.release(result.as_bytes(), &mut Carry::default());
        let mut carry = Carry::default();
        let log = serde_json::json!({"level": "info", "data": said}).to_string();
        let _ = guards.release(log.as_bytes(), &mut carry);
        more += usize::from(guards.release(result.as_bytes(), &mut carry).findings.len() > alone.findings.len());
    }
    format!("{more} of {} results hold more masks than alone ({:.2} %)", texts.len(), percent(more, texts.len()))
}

/// Texts made to be slow to read, of 1 MB each.
fn worst() {
    let guards = Guards::new(Setting { results: Mode::Mask, arguments: Mode::Refuse });
    let pieces = [
        "-----BEGIN PRIVATE KEY-----",
        "eyJ-",
        "eyJaaaaaaaaaaaaa.",
        "://a:",
        "bearer ",
        "key ",
        "keykey",
        "key:",
        "sk-ant-",
        "EAA.",
        "FlyV1 fm2_",
        " -u",
        "\\\\",
        "\\u0041",
        "AKIAQW3RT5YU7IO6PAS2 ",
        "password=aB3!xy90 ",
        "x9Kq2LmZ8vB4nT6pW1sY3dF5gH7jR0cAqE2uXiOz ",
        "\",\"",
        "\":{\"x",
    ];
    for piece in pieces {
        let text = piece.repeat(1_000_000 / piece.len());
        let json = if piece.contains("\":{") {
            format!("{{\"{text}\":1{}}}", "}".repeat(text.len() / piece.len()))
        } else {
            format!("[\"{text}\"]")
        };
        let mut carry = Carry::default();
        let start = Instant::now();
        for _ in 0..2 {
            let _ = std::hint::black_box(guards.release(json.as_bytes(), &mut carry));
        }
        println!("{:.1} ms for 1 MB of {piece:?}", start.elapsed().as_secs_f64() * 500.0);
    }
}

fn percent(part: usize, whole: usize) -> f64 {
    f64::from(u32::try_from(part).unwrap_or(u32::MAX)) * 100.0
        / f64::from(u32::try_from(whole.max(1)).unwrap_or(u32::MAX))
}

/// The whole of what `release` does, on results of 1 text, 20 texts and 1,000 texts each.
fn speed(texts: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let guards = Guards::new(Setting { results: Mode::Mask, arguments: Mode::Refuse });
    for count in [1, 20, 1000] {
        let bodies = texts.chunks(count).map(|some| {
            let content: Vec<Value> =
                some.iter().map(|text| serde_json::json!({"type": "text", "text": text})).collect();
            serde_json::to_vec(&serde_json::json!({ "content": content }))
        });
        let bodies = bodies.collect::<Result<Vec<_>, _>>()?;
        let start = Instant::now();
        for body in &bodies {
            let _ = std::hint::black_box(guards.release(body, &mut Carry::default()));
        }
        let spent = start.elapsed().as_secs_f64();
        let bytes: usize = bodies.iter().map(Vec::len).sum();
        let megabytes = f64::from(u32::try_from(bytes)?) / 1e6;
        println!(
            "{count} texts per result: {:.1} MB/s, {:.1} µs per result of {} bytes on average",
            megabytes / spent,
            spent * 1e6 / f64::from(u32::try_from(bodies.len())?),
            bytes / bodies.len()
        );
    }
    Ok(())
}
