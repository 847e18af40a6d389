//! Logs, metrics, and the little HTTP server that shows them.

pub mod log;
pub mod metrics;
pub mod server;
pub mod shown;

/// The header by which the API server's audit log and metrics tell our roles apart.
#[must_use]
pub fn user_agent(role: &'static str) -> (http::HeaderName, http::HeaderValue) {
    let name = format!("perennial/{} ({role})", env!("CARGO_PKG_VERSION"));
    let value = http::HeaderValue::try_from(name);
    // A version and a word of ours are always valid.
    let value = value.unwrap_or_else(|_| http::HeaderValue::from_static("perennial"));
    (http::header::USER_AGENT, value)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// Whatever looks like a metric's name.
    fn names(text: &str) -> BTreeSet<&str> {
        let word = |c: char| !(c.is_ascii_lowercase() || c == '_');
        let metric = |w: &&str| w.starts_with("perennial_") && !w.ends_with('_');
        text.split(word).filter(metric).collect()
    }

    #[test]
    fn the_page_of_metrics_has_every_name_and_no_other() {
        let page = names(include_str!("../../docs/metrics.md"));
        let quoted = |text: &'static str| -> BTreeSet<&str> {
            let strings = text.split('"').skip(1).step_by(2);
            strings.flat_map(names).collect()
        };
        let mut ours = quoted(include_str!("metrics.rs"));
        ours.extend(super::shown::Gauge::ALL.map(|(_, name, _, _)| name));
        let missing: Vec<_> = ours.difference(&page).collect();
        assert!(
            missing.is_empty(),
            "docs/metrics.md lacks {missing:?}: add a row for each"
        );
        for shown in [
            include_str!("../../charts/perennial/files/alerts.yaml"),
            include_str!("../../charts/perennial/files/dashboard.json"),
        ] {
            let unknown: Vec<_> = names(shown)
                .into_iter()
                .filter(|n| !ours.contains(n))
                .collect();
            assert!(
                unknown.is_empty(),
                "the chart asks for {unknown:?}, which nobody counts"
            );
        }
        ours.extend(names(include_str!("../gateway/telemetry.rs")));
        let gone: Vec<_> = page.difference(&ours).collect();
        assert!(
            gone.is_empty(),
            "docs/metrics.md has {gone:?}, which nobody counts"
        );
    }
}
