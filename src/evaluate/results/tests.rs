//! Files that the tools themselves wrote (tests/results/README.md), and files that nobody should believe.

use super::*;

fn file(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/results");
    std::fs::read(path.join(name)).unwrap()
}

fn results(format: ResultsFormat, name: &str) -> Results {
    parse(format, &file(name), 1).unwrap()
}

/// Value, samples, and whether there is an interval.
fn shown(results: &Results, name: &str) -> (Option<f64>, Option<i64>, bool) {
    let found = results.metrics.iter().find(|m| m.name == name);
    let found = found.unwrap_or_else(|| {
        let names: Vec<&str> = results.metrics.iter().map(|m| m.name.as_str()).collect();
        panic!("no {name} in {names:?}")
    });
    let whole = found.lower.zip(found.upper);
    if let (Some((lower, upper)), Some(value)) = (whole, found.value) {
        assert!(lower <= value && value <= upper, "{found:?}");
    }
    (found.value, found.samples, whole.is_some())
}

fn near(results: &Results, name: &str, value: f64, samples: i64, interval: bool) {
    let found = shown(results, name);
    assert!(
        found.0.is_some_and(|x| (x - value).abs() < 1e-9),
        "{name}: {found:?}"
    );
    assert_eq!((found.1, found.2), (Some(samples), interval), "{name}");
}

#[test]
fn promptfoos_results_have_its_own_numbers_and_errors_are_no_failures() {
    let found = results(ResultsFormat::Promptfoo, "promptfoo.json");
    assert_eq!((found.items, found.errors, found.failed), (6, 1, 3));
    assert_eq!((found.tokens, found.cost), (Some(35), Some(0.0001)));
    near(&found, "passRate", 2.0 / 5.0, 5, true);
    near(&found, "score", 2.75 / 5.0, 5, true);
    near(&found, "exact", 1.0, 2, true);
    near(&found, "polite", 2.0 / 3.0, 3, true);
    near(&found, "words", 0.25, 1, true);
    assert_eq!(found.metrics.len(), 5);
}

#[test]
fn repeats_of_a_test_are_drawn_together() {
    let once = results(ResultsFormat::Promptfoo, "promptfoo.json");
    let twice = results(ResultsFormat::Promptfoo, "promptfoo-repeated.json");
    near(&twice, "passRate", 2.0 / 5.0, 10, true);
    let width = |results: &Results| {
        let rate = &results.metrics[0];
        rate.upper.unwrap() - rate.lower.unwrap()
    };
    // Ten answers to five questions say no more than five do.
    assert!(width(&twice) > 0.8 * width(&once), "{:?}", twice.metrics[0]);
    // Too few questions for an interval.
    near(&twice, "polite", 2.0 / 3.0, 6, false);
}

#[test]
fn evidentlys_metrics_are_named_by_column_and_by_parameters_where_they_must() {
    let found = results(ResultsFormat::Evidently, "evidently.json");
    for (name, value) in [
        ("RowCount", 200.0),
        ("MissingValueCount.plan.share", 0.015),
        ("MeanValue.age", 48.08225),
        ("QuantileValue.age(quantile=0.25)", 41.227_500_000_000_006),
        ("QuantileValue.age(quantile=0.75)", 55.3625),
        ("DriftedColumnsCount.share", 0.5),
        ("ValueDrift.plan", 0.727_127_825_185_524),
        ("Accuracy", 0.84),
        ("F1ByLabel.1", 0.844_660_194_174_757_2),
    ] {
        near(&found, name, value, 200, false);
    }
    assert_eq!(shown(&found, "MeanValue.empty").0, None);
    near(&found, "passRate", 9.0 / 19.0, 19, false);
    assert_eq!((found.items, found.errors, found.failed), (19, 0, 10));
    let counts = found.metrics.iter().find(|m| m.name.contains("counts"));
    assert_eq!(counts, None, "counts of categories are no metrics");
}

#[test]
fn the_first_evidently_of_this_format_has_the_same_names() {
    let names = |file: &str| -> Vec<String> {
        let found = results(ResultsFormat::Evidently, file);
        found.metrics.into_iter().map(|m| m.name).collect()
    };
    assert_eq!(names("evidently-0.7.0.json"), names("evidently.json"));
}

#[test]
fn lm_evals_tasks_and_groups_have_samples_and_standard_errors() {
    let found = results(ResultsFormat::LmEval, "lm_eval.json");
    near(&found, "fruit.acc", 2.0 / 3.0, 6, true);
    near(&found, "fruit.acc_norm", 2.0 / 3.0, 6, true);
    near(&found, "tools.acc", 0.5, 6, true);
    near(&found, "echo.exact_match.strict", 0.25, 4, true);
    near(&found, "echo.exact_match.loose", 0.25, 4, true);
    near(&found, "small.acc", 7.0 / 12.0, 12, true);
    assert_eq!(found.metrics.len(), 7);
    let group = found.metrics.iter().find(|m| m.name == "small.acc");
    let lower = group.unwrap().lower.unwrap();
    assert!((lower - (7.0 / 12.0 - 1.96 * 0.153_659)).abs() < 1e-4);
}

#[test]
fn cases_of_junit_that_broke_or_were_skipped_are_not_counted_as_failed() {
    let found = results(ResultsFormat::JUnit, "junit.xml");
    near(&found, "passRate", 5.0 / 7.0, 7, true);
    near(&found, "skippedTests", 2.0, 10, false);
    assert_eq!((found.items, found.errors, found.failed), (8, 1, 2));
    let nested = br#"<?xml version="1.0"?><testsuite><testsuite><testcase name="a"><system-out>&lt;error/&gt;</system-out>
        <failure/><error/></testcase><testcase name="b"><properties><error/></properties></testcase></testsuite></testsuite>"#;
    let found = parse(ResultsFormat::JUnit, nested, 1).unwrap();
    assert_eq!(
        (found.items, found.errors, found.failed),
        (2, 1, 0),
        "the worst of a case counts, and what stands deeper isn't about it"
    );
}

#[test]
fn plain_json_takes_numbers_and_numbers_with_samples() {
    let text = r#"{"metrics": {"accuracy": 0.93, "f1": {"value": 0.9, "samples": 120, "lower": 0.85, "upper": 0.94}, "lost": null,
        "spoiled": NaN, "stable.accuracy": 0.9, "text": -Infinity}, "items": [{"id": "NaN \" Infinity"}, {"error": "no answer"}, {"error": null}]}"#;
    let found = parse(ResultsFormat::Json, text.as_bytes(), 1).unwrap();
    near(&found, "accuracy", 0.93, 2, false);
    near(&found, "f1", 0.9, 120, true);
    for name in ["lost", "spoiled", "text"] {
        assert_eq!(shown(&found, name).0, None);
    }
    assert_eq!((found.items, found.errors), (3, 1));
}

#[test]
fn what_can_not_be_believed_is_an_error_with_its_field() {
    use ResultsFormat::{Evidently, JUnit, Json, LmEval, Promptfoo};
    let promptfoo = |more: &str| format!(r#"{{"results": {{{more}}}}}"#);
    let cases: &[(ResultsFormat, &str, &str)] = &[
        (Json, "", "it is empty"),
        (Json, " \n", "it is empty"),
        (Json, "{", "can't be read"),
        (Json, "{}", "missing field `metrics`"),
        (Json, r#"{"metrics": {}} x"#, "behind its end"),
        (
            Json,
            r#"{"metrics": {"a": "0.9"}}"#,
            "`metrics.a` is a text",
        ),
        (Json, r#"{"metrics": {"a": [1]}}"#, "`metrics.a` is a list"),
        (
            Json,
            r#"{"metrics": {"a": {"value": 1, "sample": 3}}}"#,
            "`metrics.a` can't be read: unknown field `sample`",
        ),
        (
            Json,
            r#"{"metrics": {"a": {"value": 1, "samples": -3}}}"#,
            "`metrics.a` can't be read",
        ),
        (
            Json,
            r#"{"metrics": {"a": {"value": 1, "lower": 2, "upper": 0}}}"#,
            "`lower` above `upper`",
        ),
        (
            Json,
            r#"{"metrics": {"a": {"value": 1, "lower": 0}}}"#,
            "one end of an interval",
        ),
        (Json, r#"{"metrics": {"a": 1}, "items": 3}"#, "`items`"),
        (Json, r#"{"metrics": {"a": 1}, "items": [3]}"#, "`items[0]`"),
        (Json, r#"{"metrics": {"a": 1}, "samples": -1}"#, "`samples`"),
        (Json, r#"{"metrics": {"a": 1e999}}"#, "number out of range"),
        (Promptfoo, "{}", "missing field `results`"),
        (
            Promptfoo,
            &promptfoo(r#""version": 2, "results": []"#),
            "`results.version` is 2",
        ),
        (
            Promptfoo,
            &promptfoo(r#""version": 3, "results": []"#),
            "nothing was evaluated",
        ),
        (
            Promptfoo,
            &promptfoo(r#""version": 3, "results": [{"success": true, "score": "high"}]"#),
            "`results.results[0].score`",
        ),
        (
            Promptfoo,
            &promptfoo(r#""version": 3, "results": [{"score": 1}]"#),
            "missing field `success`",
        ),
        (Evidently, r#"{"metrics": {}}"#, "`metrics`"),
        (
            Evidently,
            r#"{"metrics": [], "tests": [{"status": "FINE"}]}"#,
            "`tests[0].status`",
        ),
        (LmEval, r#"{"results": {}}"#, "nothing was evaluated"),
        (
            LmEval,
            r#"{"results": {"t": {"acc,none": [1]}}}"#,
            "`results.t.acc,none` is no number",
        ),
        (JUnit, "no XML", "no element testsuites"),
        (JUnit, "<html></html>", "the element `html`"),
        (JUnit, "<testsuite></testsuite>", "nothing was tested"),
        (
            JUnit,
            "<testsuite><testcase/>",
            "it ends within the element `testsuite`",
        ),
        (JUnit, "<testsuite><testcase></testsuite>", "it is no XML"),
        (
            JUnit,
            "<testsuite><testcase/></testsuite><testsuite/>",
            "the element `testsuite`",
        ),
        (
            JUnit,
            "<testsuite><testcase><testcase/></testcase></testsuite>",
            "within another",
        ),
    ];
    for (format, text, expected) in cases {
        let error = parse(*format, text.as_bytes(), 1).expect_err(text);
        assert!(error.contains(expected), "{format:?} {text}: {error}");
    }
    let deep = "<testsuite>".repeat(1000);
    let error = parse(JUnit, deep.as_bytes(), 1).unwrap_err();
    assert!(error.contains("more than 64 deep"), "{error}");
}

#[test]
fn a_file_that_is_cut_anywhere_is_an_error_or_says_less_but_never_a_panic() {
    for (format, name) in [
        (ResultsFormat::Promptfoo, "promptfoo.json"),
        (ResultsFormat::Evidently, "evidently.json"),
        (ResultsFormat::LmEval, "lm_eval.json"),
        (ResultsFormat::JUnit, "junit.xml"),
    ] {
        let whole = file(name);
        let end = whole.trim_ascii_end().len();
        for at in (0..end).step_by(97).chain([end - 1]) {
            assert!(parse(format, &whole[..at], 1).is_err(), "{name} at {at}");
        }
    }
}

#[test]
fn more_errors_than_are_allowed_leave_nothing_to_conclude() {
    let found = results(ResultsFormat::Promptfoo, "promptfoo.json");
    let strict = found.clone().finish(None, 0.01).unwrap();
    let rate = &strict.metrics[0];
    assert!(rate.inconclusive);
    assert!(
        rate.message
            .as_deref()
            .is_some_and(|m| m.starts_with("1 of 6 items ended in an error")),
        "{rate:?}"
    );
    let share = strict.metrics.iter().find(|m| m.name == "errorShare");
    let share = share.unwrap();
    assert!(!share.inconclusive && (share.value.unwrap() - 1.0 / 6.0).abs() < 1e-9);
    let lenient = found.finish(Some("style"), 0.2).unwrap();
    assert!(!lenient.metrics[0].inconclusive);
    assert_eq!(lenient.metrics[0].name, "style.passRate");
}

#[test]
fn names_that_can_not_be_gated_on_are_refused() {
    let with = |metrics: Vec<MetricValue>| Results {
        metrics,
        ..Results::default()
    };
    let named = |name: &str| number(name, Some(1.0));
    for (metrics, expected) in [
        (vec![], "no metrics"),
        (vec![named("")], "no name of a metric"),
        (vec![named(&"a".repeat(129))], "no name of a metric"),
        (vec![named("a\nb")], "no name of a metric"),
        (vec![named("a"), named("b"), named("a")], "`a` twice"),
        (
            (0..1001).map(|i| named(&format!("m{i}"))).collect(),
            "1001 metrics",
        ),
    ] {
        let error = with(metrics).finish(None, 0.01).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}
