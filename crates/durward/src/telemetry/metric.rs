//! Metrics as OTLP writes them.

use super::{attribute, nanos, scope};
use gateway::observe::meter::{Family, Instrument, Kind, Series, Value};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::KeyValue,
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
        ScopeMetrics, Sum, metric::Data, number_data_point,
    },
    resource::v1::Resource,
};
use vocab::Timestamp;

/// The times a metric is about.
#[derive(Clone, Copy)]
struct Span {
    began: u64,
    now: u64,
}

/// A request with all metrics, counted since `began`.
pub(super) fn request(
    families: Vec<Family>,
    began: Timestamp,
    now: Timestamp,
    resource: &Resource,
) -> ExportMetricsServiceRequest {
    let span = Span { began: nanos(began), now: nanos(now) };
    let shown = families.into_iter().filter(|family| !family.series.is_empty());
    let metrics = shown.map(|family| metric(family, span)).collect();
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource.clone()),
            scope_metrics: vec![ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() }],
            ..ResourceMetrics::default()
        }],
    }
}

fn metric(family: Family, span: Span) -> Metric {
    let Family { instrument, series } = family;
    let cumulative = AggregationTemporality::Cumulative.into();
    let data = match instrument.kind {
        Kind::Counter => Data::Sum(Sum {
            data_points: numbers(instrument, series, span),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        Kind::Gauge => Data::Gauge(Gauge { data_points: numbers(instrument, series, span) }),
        Kind::Histogram(bounds) => Data::Histogram(Histogram {
            data_points: series.into_iter().filter_map(|series| spread(instrument, bounds, series, span)).collect(),
            aggregation_temporality: cumulative,
        }),
    };
    Metric {
        name: instrument.name.to_owned(),
        description: instrument.help.to_owned(),
        unit: if instrument.unit.is_empty() { "1" } else { instrument.unit }.to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

fn numbers(instrument: &Instrument, series: Vec<Series>, span: Span) -> Vec<NumberDataPoint> {
    let point = |series: Series| {
        let value = match series.value {
            Value::Count(count) => number_data_point::Value::AsInt(i64::try_from(count).unwrap_or(i64::MAX)),
            Value::Level(level) => number_data_point::Value::AsDouble(level),
            Value::Spread { .. } => return None,
        };
        Some(NumberDataPoint {
            attributes: attributes(instrument, &series.labels),
            start_time_unix_nano: span.began,
            time_unix_nano: span.now,
            value: Some(value),
            ..NumberDataPoint::default()
        })
    };
    series.into_iter().filter_map(point).collect()
}

fn spread(instrument: &Instrument, bounds: &[f64], series: Series, span: Span) -> Option<HistogramDataPoint> {
    let Value::Spread { counts, sum } = series.value else { return None };
    Some(HistogramDataPoint {
        attributes: attributes(instrument, &series.labels),
        start_time_unix_nano: span.began,
        time_unix_nano: span.now,
        count: counts.iter().sum(),
        sum: Some(sum),
        bucket_counts: counts,
        explicit_bounds: bounds.to_vec(),
        ..HistogramDataPoint::default()
    })
}

fn attributes(instrument: &Instrument, labels: &[Box<str>]) -> Vec<KeyValue> {
    let present = instrument.labels.iter().zip(labels).filter(|(_, value)| !value.is_empty());
    present.map(|(key, value)| attribute(key, &**value)).collect()
}
