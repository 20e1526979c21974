use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::*;

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// Names in `counter!("...")` and its sisters.
fn literal_names(source: &str) -> Vec<(MetricKind, String)> {
    let mut names = Vec::new();
    for (macro_name, kind) in
        [("counter!(", MetricKind::Counter), ("gauge!(", MetricKind::Gauge), ("histogram!(", MetricKind::Histogram)]
    {
        for part in source.split(macro_name).skip(1) {
            if let Some(name) = part.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next()) {
                names.push((kind, name.to_owned()));
            }
        }
    }
    names
}

/// Lower floors cannot import the names of this one, so they write them out.
#[test]
fn every_metric_that_any_crate_counts_is_in_the_list_with_its_kind() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "actors/src", "storage/src", "domains/dataset/src"] {
        rust_files(&root.join(folder), &mut files);
    }
    assert!(files.len() > 10, "only {} files found under {}", files.len(), root.display());
    for file in files.iter().filter(|file| !file.ends_with("telemetry/tests.rs")) {
        for (kind, name) in literal_names(&std::fs::read_to_string(file).unwrap()) {
            let known = METRICS.iter().any(|metric| metric.name == name && metric.kind == kind);
            assert!(known, "{}: {kind:?} {name} is not in telemetry::METRICS; add it there", file.display());
        }
    }
}

#[test]
fn names_in_source_are_found_whatever_the_space_around_them() {
    let source = r#"counter!("a").increment(1); metrics::gauge!( "b", "l" => "x").set(1.0); histogram!(NAME)"#;
    let names: Vec<String> = literal_names(source).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn names_are_unique_and_end_in_their_unit() {
    let names: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), METRICS.len());
    for metric in METRICS {
        assert!(metric.name.starts_with("tendon_"), "{}", metric.name);
        match metric.kind {
            MetricKind::Counter => assert!(metric.name.ends_with("_total"), "{}", metric.name),
            MetricKind::Gauge => assert!(!metric.name.ends_with("_total"), "{}", metric.name),
            MetricKind::Histogram => assert!(metric.name.ends_with("_seconds"), "{}", metric.name),
        }
    }
}

#[test]
fn a_scrape_shows_help_buckets_and_values() {
    let recorder = builder().unwrap().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        describe();
        metrics::counter!(REQUESTS_REFUSED, "code" => "token_missing").increment(3);
        metrics::histogram!(ACK_LATENCY).record(0.003);
    });
    let text = handle.render();
    assert!(text.contains(r#"tendon_requests_refused_total{code="token_missing"} 3"#), "{text}");
    assert!(text.contains("# HELP tendon_requests_refused_total REST requests"), "{text}");
    assert!(text.contains(r#"tendon_ack_latency_seconds_bucket{le="0.004"} 1"#), "{text}");
    assert!(text.contains(r#"tendon_ack_latency_seconds_bucket{le="0.002"} 0"#), "{text}");
}

#[test]
fn a_filter_that_is_none_says_what_to_write() {
    assert!(filter(None).is_ok());
    assert!(filter(Some(" ")).is_ok());
    assert!(filter(Some("tendon=debug,warn")).is_ok());
    let error = filter(Some("tendon=loud")).unwrap_err().to_string();
    assert!(error.contains("TENDON_LOG") && error.contains("tendon=debug,warn"), "{error}");
}
