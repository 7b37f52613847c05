//! The two text formats: OpenMetrics for clients that ask for it (Prometheus does), and the classic format for all
//! others (`promtool check metrics`, curl, a browser, older collectors).
//!
//! `prometheus-client` writes OpenMetrics. It can also write the classic format, but with other values of the label
//! `le` (`2` instead of `2.0`), and that would make different series. Therefore the classic text is made from
//! OpenMetrics here. The two formats differ only in their declarations: OpenMetrics declares a counter or an info
//! without the suffix that its samples carry, the classic format with it. The classic format has no type `info`.

use axum::http::{HeaderMap, HeaderValue, header};

/// A text format of metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::admin) enum Format {
    /// OpenMetrics 1.0
    OpenMetrics,
    /// the text format of Prometheus, version 0.0.4
    Classic,
}

const OPENMETRICS: &str = "application/openmetrics-text";

impl Format {
    /// Returns the format that a client accepts: OpenMetrics only if it asks for it.
    pub(in crate::admin) fn accepted(headers: &HeaderMap) -> Format {
        let ranges = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        if ranges.flat_map(|value| value.split(',')).any(takes_openmetrics) {
            Format::OpenMetrics
        } else {
            Format::Classic
        }
    }

    /// Returns the content type of the format.
    pub(in crate::admin) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Classic => "text/plain; version=0.0.4; charset=utf-8",
        })
    }
}

/// Returns true if this media range of `Accept` takes OpenMetrics. A quality of 0 means "anything but this".
fn takes_openmetrics(range: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(OPENMETRICS));
    let refused = parts
        .filter_map(|part| part.split_once('='))
        .any(|(name, value)| name.trim().eq_ignore_ascii_case("q") && value.trim().parse() == Ok(0.0));
    named && !refused
}

/// Converts OpenMetrics to the classic format.
pub(super) fn classic(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len() + openmetrics.len() / 16);
    let mut help = "";
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            text += &format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n");
        } else if !line.starts_with('#') {
            text += line;
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(accept: &'static str) -> Format {
        Format::accepted(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]))
    }

    #[test]
    fn who_does_not_ask_for_openmetrics_gets_the_classic_format() {
        assert_eq!(Format::accepted(&HeaderMap::new()), Format::Classic);
        for accept in [
            "*/*",
            "text/plain;version=0.0.4;q=0.5",
            "text/html,application/xhtml+xml",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text ; version=1.0.0 ; q=0.0, text/plain",
        ] {
            assert_eq!(accepted(accept), Format::Classic, "{accept}");
        }
    }

    #[test]
    fn prometheus_gets_openmetrics() {
        for accept in [
            // as Prometheus 2.42 and 3.5 send it
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=1.0.0;q=0.4,*/*;q=0.1",
            "text/plain, APPLICATION/OpenMetrics-Text",
        ] {
            assert_eq!(accepted(accept), Format::OpenMetrics, "{accept}");
        }
    }

    #[test]
    fn declarations_are_those_of_the_classic_format() {
        let openmetrics = "# HELP a Counts # what.\n# TYPE a counter\na_total{l=\"# HELP x\"} 1\n\
                           # HELP b Info.\n# TYPE b info\nb_info{version=\"1\"} 1\n\
                           # HELP c Gauge.\n# TYPE c gauge\nc 2.5\n# EOF\n";
        assert_eq!(
            classic(openmetrics),
            "# HELP a_total Counts # what.\n# TYPE a_total counter\na_total{l=\"# HELP x\"} 1\n\
             # HELP b_info Info.\n# TYPE b_info gauge\nb_info{version=\"1\"} 1\n\
             # HELP c Gauge.\n# TYPE c gauge\nc 2.5\n"
        );
    }
}
