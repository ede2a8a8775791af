//! The picture of the tour: what `durward demo --once` prints, as SVG text.
//!
//! Whatever differs from run to run is written as what it usually is, so that the committed picture can be checked.

use crate::{
    process::{self, program},
    world,
};
use anyhow::{Context, Result, bail};
use clap::Args;
use regex::Regex;
use std::{fmt::Write, fs, path::Path};

const PICTURE: &str = "docs/picture/demo.svg";

/// What varies, and what stands for it.
const VOLATILE: [(&str, &str); 5] = [
    (r"127\.0\.0\.1:\d+", "127.0.0.1:7420"),
    (r" \(the usual port is taken\)", ""),
    (r"sha256:[0-9a-f]+", "sha256:5a1f9c07"),
    (r"try again in \d+ s", "try again in 30 s"),
    (r"in \d+ ms", "in 40 ms"),
];

const COLUMN: f64 = 8.0;
const LINE: f64 = 19.0;
const MARGIN: f64 = 20.0;
const BAR: f64 = 30.0;

#[derive(Args)]
pub(crate) struct Options {
    /// Only say whether the committed picture is current.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let mut demo = program(world::built(root)?);
    demo.args(["demo", "--once"]).current_dir(root).env("CLICOLOR_FORCE", "1");
    let said = process::output(&mut demo).context("the tour did not do what it says")?;
    let picture = draw(&steady(&said)?);
    let path = root.join(PICTURE);
    if !options.check {
        fs::create_dir_all(path.parent().unwrap_or(root))?;
        return fs::write(&path, picture).with_context(|| format!("cannot write {PICTURE}"));
    }
    if fs::read_to_string(&path).unwrap_or_default() != picture {
        bail!("{PICTURE} does not show what the tour prints; `cargo xtask picture` draws it anew");
    }
    Ok(())
}

/// The output without what differs from run to run.
fn steady(said: &str) -> Result<String> {
    let mut text = said.trim_matches('\n').to_owned();
    for (varies, usual) in VOLATILE {
        text = Regex::new(varies)?.replace_all(&text, usual).into_owned();
    }
    Ok(text)
}

/// Draws a terminal: dark on any page, so that it can be read on light and on dark ones.
fn draw(text: &str) -> String {
    let lines: Vec<Vec<(String, &str)>> = text.lines().map(spans).collect();
    let columns = lines.iter().map(|line| line.iter().map(|(part, _)| part.chars().count()).sum()).max();
    let columns = u32::try_from(columns.unwrap_or(0_usize)).unwrap_or(u32::MAX);
    let rows = u32::try_from(lines.len()).unwrap_or(u32::MAX);
    let width = f64::from(columns) * COLUMN + 2.0 * MARGIN;
    let height = f64::from(rows) * LINE + BAR + MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" aria-label=\"durward demo --once\">\n\
         <style>text{{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,\"DejaVu Sans Mono\",monospace;\
         fill:#d6deeb}}.bold{{font-weight:700;fill:#ffffff}}.dim{{fill:#9aa7b8}}\
         .good{{fill:#5fd38d}}.bad{{fill:#ff7b72}}</style>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#0f1720\" stroke=\"#334155\"/>\n\
         <g fill=\"#475569\"><circle cx=\"20\" cy=\"17\" r=\"5\"/><circle cx=\"38\" cy=\"17\" r=\"5\"/>\
         <circle cx=\"56\" cy=\"17\" r=\"5\"/></g>\n"
    );
    for (row, line) in (0_u32..).zip(&lines) {
        let y = BAR + LINE * (f64::from(row) + 0.8);
        let mut column = 0;
        for (part, class) in line {
            let count = part.chars().count();
            if !part.trim().is_empty() {
                text_at(&mut svg, part, class, MARGIN + f64::from(column) * COLUMN, y);
            }
            column += u32::try_from(count).unwrap_or(u32::MAX);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// One run of text. Its length is said, so that it stands in its columns whatever font the reader has.
fn text_at(svg: &mut String, part: &str, class: &str, x: f64, y: f64) {
    let indent = u32::try_from(part.chars().take_while(|letter| *letter == ' ').count()).unwrap_or(0);
    let part = part.trim();
    let length = f64::from(u32::try_from(part.chars().count()).unwrap_or(u32::MAX)) * COLUMN;
    let x = x + f64::from(indent) * COLUMN;
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    // Spaces in a row would become one.
    let escaped = part.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace("  ", "\u{a0}\u{a0}");
    // Writing to a string cannot fail.
    let _ = writeln!(
        svg,
        "<text x=\"{x}\" y=\"{y:.1}\" textLength=\"{length}\" lengthAdjust=\"spacingAndGlyphs\"{class}>{escaped}</text>"
    );
}

/// A line in parts of one look each.
fn spans(line: &str) -> Vec<(String, &'static str)> {
    let mut parts = Vec::new();
    for (number, part) in line.split("\u{1b}[").enumerate() {
        let (look, text) = match part.split_once('m') {
            Some((code, text)) if number > 0 => (class(code), text),
            Some(_) | None => ("", part),
        };
        if !text.is_empty() {
            parts.push((text.to_owned(), look));
        }
    }
    parts
}

fn class(code: &str) -> &'static str {
    match code {
        "1" => "bold",
        "2" => "dim",
        "31" => "bad",
        "32" => "good",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::{draw, spans, steady};

    #[test]
    fn what_varies_becomes_what_is_usual() {
        let one = "\n  gateway  http://127.0.0.1:7420/mcp\n  sha256:00ff0011… try again in 30 s\n  9 of 9, in 40 ms\n";
        let two = "\n  gateway  http://127.0.0.1:41234/mcp (the usual port is taken)\n  \
                   sha256:abcdef12… try again in 29 s\n  9 of 9, in 1200 ms\n";
        assert_eq!(steady(one).unwrap(), steady(two).unwrap());
    }

    #[test]
    fn colours_become_classes_and_markup_stays_text() {
        assert_eq!(
            spans("  \u{1b}[32m✓\u{1b}[0m 1 \u{1b}[1mA\u{1b}[0m"),
            [("  ".to_owned(), ""), ("✓".to_owned(), "good"), (" 1 ".to_owned(), ""), ("A".to_owned(), "bold")]
        );
        let svg = draw("a <b> & \u{1b}[2mc\u{1b}[0m");
        assert!(svg.contains(">a &lt;b&gt; &amp;<") && svg.contains("class=\"dim\">c<"), "{svg}");
    }
}
