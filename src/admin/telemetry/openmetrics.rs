//! The metrics of `/metrics` as OTLP. They are read from the text that Prometheus gets, so both have the same names and numbers.

use super::attribute;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum,
};

/// One line of the text.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: f64,
}

/// One metric of the text, with its samples.
struct Family<'a> {
    name: &'a str,
    kind: &'a str,
    help: &'a str,
    samples: Vec<Sample<'a>>,
}

/// Returns the metrics of a text of OpenMetrics. `since`: when counting began; `now`: both in nanoseconds since 1970.
pub(super) fn metrics(text: &str, since: u64, now: u64) -> Vec<Metric> {
    families(text).into_iter().map(|family| family.metric(since, now)).collect()
}

fn families(text: &str) -> Vec<Family<'_>> {
    let mut families: Vec<Family<'_>> = Vec::new();
    let mut help = ("", "");
    for line in text.lines() {
        if let Some(said) = line.strip_prefix("# HELP ") {
            help = said.split_once(' ').unwrap_or((said, ""));
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|said| said.split_once(' '))
        {
            let help = if help.0 == name { help.1 } else { "" };
            families.push(Family { name, kind, help, samples: Vec::new() });
        } else if !line.starts_with('#')
            && let (Some(family), Some(sample)) = (families.last_mut(), sample(line))
        {
            family.samples.push(sample);
        }
    }
    families
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at_checked(end)?;
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (key, quoted) = rest.split_once("=\"")?;
            let (value, behind) = unquoted(quoted)?;
            labels.push((key.trim_start_matches(','), value));
            rest = behind;
        }
        rest = rest.strip_prefix('}')?;
    }
    // A time may follow.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name, labels, value })
}

/// Returns a quoted text up to its end, and what is behind it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

impl Family<'_> {
    fn metric(self, since: u64, now: u64) -> Metric {
        let cumulative = AggregationTemporality::Cumulative.into();
        let (name, description) = (self.name.to_owned(), self.help.to_owned());
        let data = match self.kind {
            "histogram" => Data::Histogram(Histogram {
                data_points: self.histograms(since, now),
                aggregation_temporality: cumulative,
            }),
            "counter" => Data::Sum(Sum {
                data_points: self.points(since, now),
                aggregation_temporality: cumulative,
                is_monotonic: true,
            }),
            _ => Data::Gauge(Gauge { data_points: self.points(0, now) }),
        };
        let unit = if self.name.ends_with("_seconds") {
            "s"
        } else if self.name.ends_with("_bytes") {
            "By"
        } else {
            ""
        };
        Metric { name, description, unit: unit.to_owned(), data: Some(data), ..Default::default() }
    }

    fn points(&self, since: u64, now: u64) -> Vec<NumberDataPoint> {
        let point = |sample: &Sample<'_>| NumberDataPoint {
            attributes: attributes(&sample.labels),
            start_time_unix_nano: since,
            time_unix_nano: now,
            value: Some(Value::AsDouble(sample.value)),
            ..Default::default()
        };
        self.samples.iter().map(point).collect()
    }

    fn histograms(&self, since: u64, now: u64) -> Vec<HistogramDataPoint> {
        let mut points: Vec<HistogramDataPoint> = Vec::new();
        for sample in &self.samples {
            let (le, labels): (Vec<_>, Vec<_>) =
                sample.labels.iter().cloned().partition(|(key, _)| *key == "le");
            let attributes = attributes(&labels);
            let at = points.iter().position(|point| point.attributes == attributes).unwrap_or_else(|| {
                points.push(HistogramDataPoint {
                    attributes,
                    start_time_unix_nano: since,
                    time_unix_nano: now,
                    ..Default::default()
                });
                points.len() - 1
            });
            let Some(point) = points.get_mut(at) else { continue };
            if sample.name.ends_with("_sum") {
                point.sum = Some(sample.value);
            } else if sample.name.ends_with("_count") {
                point.count = whole(sample.value);
            } else if let [(_, le)] = le.as_slice() {
                // A bucket of the text has all that are in the buckets below it, too.
                let below: u64 = point.bucket_counts.iter().sum();
                point.bucket_counts.push(whole(sample.value).saturating_sub(below));
                point.explicit_bounds.extend(le.parse::<f64>().ok().filter(|bound| bound.is_finite()));
            }
        }
        points
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count, which f64 holds exactly"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

fn attributes(labels: &[(&str, String)]) -> Vec<KeyValue> {
    labels.iter().map(|(key, value)| attribute(key, value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP hapax_x What \"x\" is.\n# TYPE hapax_x counter\n\
        hapax_x_total{window=\"a\\\"b\\\\c\\nd\",verdict=\"fresh\"} 7\nhapax_x_total{window=\"\",verdict=\"\"} 0\n\
        # TYPE hapax_g_seconds gauge\nhapax_g_seconds 1.5\n\
        # TYPE hapax_h histogram\nhapax_h_sum{w=\"1\"} 3.5\nhapax_h_count{w=\"1\"} 6\n\
        hapax_h_bucket{w=\"1\",le=\"0.5\"} 2\nhapax_h_bucket{w=\"1\",le=\"1.0\"} 5\nhapax_h_bucket{w=\"1\",le=\"+Inf\"} 6\n# EOF\n";

    #[test]
    fn the_text_of_prometheus_is_read() {
        let all = metrics(TEXT, 1, 2);
        let [x, g, h] = all.as_slice() else { panic!("{all:?}") };
        let Some(Data::Sum(sum)) = &x.data else { panic!("{x:?}") };
        assert!((&*x.name, &*x.description, sum.is_monotonic) == ("hapax_x", "What \"x\" is.", true));
        assert_eq!(sum.data_points.len(), 2);
        assert_eq!(sum.data_points[0].attributes[0], attribute("window", "a\"b\\c\nd".to_owned()));
        assert_eq!(sum.data_points[0].value, Some(Value::AsDouble(7.0)));
        let Some(Data::Gauge(gauge)) = &g.data else { panic!("{g:?}") };
        assert_eq!((&*g.unit, gauge.data_points[0].value.clone()), ("s", Some(Value::AsDouble(1.5))));
        let Some(Data::Histogram(histogram)) = &h.data else { panic!("{h:?}") };
        let point = &histogram.data_points[0];
        assert_eq!((point.sum, point.count, &*point.bucket_counts), (Some(3.5), 6, &[2, 3, 1][..]));
        assert_eq!(point.explicit_bounds, [0.5, 1.0]);
    }
}
