//! Metrics as `OpenMetrics` 1.0 text.

use super::meter::{Family, Instrument, Kind, Series, Value};
use std::fmt::{Result, Write};

/// The media type of the text.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes all families.
pub fn render(families: &[Family]) -> String {
    let mut text = String::with_capacity(16 << 10);
    for family in families {
        // Writing to a string cannot fail.
        let _ = one(&mut text, family);
    }
    text.push_str("# EOF\n");
    text
}

/// The Prometheus name of a metric, without the suffixes of its samples.
pub fn name(instrument: &Instrument) -> String {
    let plain = instrument.name.replace('.', "_");
    match unit(instrument) {
        Some(unit) => format!("{plain}_{unit}"),
        None => plain,
    }
}

/// The names of the samples that a metric has.
pub fn samples(instrument: &Instrument) -> Vec<String> {
    let name = name(instrument);
    match instrument.kind {
        Kind::Counter => vec![format!("{name}_total")],
        Kind::Gauge => vec![name],
        Kind::Histogram(_) => ["bucket", "count", "sum"].iter().map(|suffix| format!("{name}_{suffix}")).collect(),
    }
}

/// A label as Prometheus writes it.
pub fn label(label: &str) -> String {
    label.replace('.', "_")
}

fn unit(instrument: &Instrument) -> Option<&'static str> {
    match instrument.unit {
        "s" => Some("seconds"),
        "By" => Some("bytes"),
        _ => None,
    }
}

fn one(text: &mut String, family: &Family) -> Result {
    let instrument = family.instrument;
    let name = name(instrument);
    let kind = match instrument.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram(_) => "histogram",
    };
    writeln!(text, "# HELP {name} {}", instrument.help)?;
    writeln!(text, "# TYPE {name} {kind}")?;
    if let Some(unit) = unit(instrument) {
        writeln!(text, "# UNIT {name} {unit}")?;
    }
    for series in &family.series {
        sample(text, &name, instrument, series)?;
    }
    Ok(())
}

fn sample(text: &mut String, name: &str, instrument: &Instrument, series: &Series) -> Result {
    let labels = labels(instrument, series);
    let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    match &series.value {
        Value::Count(count) => writeln!(text, "{name}_total{braced} {count}"),
        Value::Level(level) => writeln!(text, "{name}{braced} {level}"),
        Value::Spread { counts, sum } => {
            let Kind::Histogram(bounds) = instrument.kind else { return Ok(()) };
            let comma = if labels.is_empty() { "" } else { "," };
            let mut all = 0;
            for (at, count) in counts.iter().enumerate() {
                all += count;
                let bound = bounds.get(at).map_or_else(|| "+Inf".to_owned(), |bound| canonical(*bound));
                writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {all}")?;
            }
            writeln!(text, "{name}_count{braced} {all}")?;
            writeln!(text, "{name}_sum{braced} {sum}")
        }
    }
}

/// Bounds are written as floats, `1` as `1.0`: scrapers compare them as text.
fn canonical(bound: f64) -> String {
    let text = bound.to_string();
    if text.contains('.') { text } else { format!("{text}.0") }
}

/// The labels that are not absent, without braces.
fn labels(instrument: &Instrument, series: &Series) -> String {
    let mut text = String::new();
    for (key, value) in instrument.labels.iter().zip(&series.labels) {
        if value.is_empty() {
            continue;
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&label(key));
        text.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    text
}
