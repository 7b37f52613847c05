//! Checks `[duplicates]`: where the copies of windows with `duplicates_to` go.

use super::Config;
use super::problem::Report;

/// Reports a window whose copies have nowhere to go.
pub(super) fn check(config: &Config, report: &mut Report) {
    for (index, window) in config.windows.iter().enumerate() {
        let Some(exchange) = &window.rules.signals.duplicates_to else { continue };
        if config.duplicates.is_none() && !report.is_wrong("duplicates") {
            let source = report.source(&format!("window.{index}.duplicates_to"));
            report.problem(
                &source,
                format!(
                    "window \"{}\": `duplicates_to` is \"{exchange}\", but nobody says at which broker",
                    window.rules.name
                ),
                "write a line [duplicates], and below it uri = \"amqp://hapax:PASSWORD@127.0.0.1:5672\"",
            );
        }
    }
}
