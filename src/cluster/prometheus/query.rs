//! Holding a query to one namespace.
//!
//! The query is parsed, each of its selectors gets the matcher, and what is asked is the tree written out again, never the user's text.
//! What was written is parsed once more and must be the same tree, so that no string can turn into something else on the way.

use std::{
    cell::Cell,
    panic::{self, UnwindSafe},
    sync::Once,
};

use promql_parser::{
    label::{MatchOp, Matcher},
    parser::{Expr, SubqueryExpr, VectorSelector},
};

/// Deepest nesting of an expression: walking it is recursive.
const DEEPEST: usize = 64;
/// Opening brackets and signs in a query, which bound how deep the parser goes.
const MOST_OPENED: usize = 512;

/// The query with every selector held to `label="namespace"`.
///
/// # Errors
/// It is no PromQL, or asks for another namespace, in a sentence.
pub fn held_to(query: &str, label: &str, namespace: &str) -> Result<String, String> {
    let opened = query.chars().filter(|c| matches!(c, '(' | '-' | '+' | '['));
    if opened.count() > MOST_OPENED {
        return Err("its query is nested too deeply".to_owned());
    }
    let parse = |text: &str| {
        // The parser panics on durations that no clock can hold; found by fuzzing.
        quietly(|| promql_parser::parser::parse(text))
            .unwrap_or_else(|| Err("it has a number that is too large".to_owned()))
            .map_err(|e| format!("its query is no PromQL: {e}"))
    };
    let mut tree = parse(query)?;
    walk(&mut tree, &|selector| select(selector, label, namespace), 0)?;
    let text = tree.to_string();
    // Matchers are written in an order of their own.
    let sort = |selector: &mut VectorSelector| {
        let matchers = &mut selector.matchers.matchers;
        matchers.sort_by_cached_key(ToString::to_string);
        Ok(())
    };
    walk(&mut tree, &sort, 0)?;
    let again = parse(&text).and_then(|mut again| {
        walk(&mut again, &sort, 0)?;
        Ok(again)
    });
    match again {
        Ok(again) if again == tree => Ok(text),
        _ => Err("its query can't be held to the namespace: write it more simply".to_owned()),
    }
}

/// What this gives; nothing if it panics, of which no line is printed: it is a user's text that broke it, as often as anybody looks.
fn quietly<T>(call: impl FnOnce() -> T + UnwindSafe) -> Option<T> {
    thread_local! {
        static QUIET: Cell<bool> = const { Cell::new(false) };
    }
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
    QUIET.set(true);
    let outcome = panic::catch_unwind(call);
    QUIET.set(false);
    outcome.ok()
}

type Change<'a> = dyn Fn(&mut VectorSelector) -> Result<(), String> + 'a;

/// Changes every selector of a query.
fn walk(expression: &mut Expr, change: &Change, depth: usize) -> Result<(), String> {
    if depth > DEEPEST {
        return Err("its query is nested too deeply".to_owned());
    }
    let within = |e: &mut Expr| walk(e, change, depth + 1);
    match expression {
        Expr::Aggregate(aggregate) => {
            // The parameter of topk and quantile may be a query of its own.
            if let Some(parameter) = &mut aggregate.param {
                within(parameter)?;
            }
            within(&mut aggregate.expr)
        }
        Expr::Unary(unary) => within(&mut unary.expr),
        Expr::Binary(binary) => {
            within(&mut binary.lhs)?;
            within(&mut binary.rhs)
        }
        Expr::Paren(paren) => within(&mut paren.expr),
        Expr::Subquery(SubqueryExpr { expr, .. }) => within(expr),
        Expr::Call(call) => {
            // It reads series that no selector of the query names.
            if call.func.name == "info" {
                return Err("its query uses info(), which can't be held to a namespace".to_owned());
            }
            call.args.args.iter_mut().try_for_each(|e| within(e))
        }
        Expr::VectorSelector(selector) => change(selector),
        Expr::MatrixSelector(matrix) => change(&mut matrix.vs),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(()),
        Expr::Extension(_) => Err("its query is no PromQL".to_owned()),
    }
}

fn select(selector: &mut VectorSelector, label: &str, namespace: &str) -> Result<(), String> {
    let matchers = &mut selector.matchers;
    if !matchers.or_matchers.is_empty() {
        return Err("its query has `or` within a selector: write two selectors".to_owned());
    }
    let own = |m: &Matcher| m.op == MatchOp::Equal && m.value == namespace;
    let mut given = matchers.matchers.iter().filter(|m| m.name == label);
    if let Some(other) = given.clone().find(|m| !own(m)) {
        return Err(format!(
            "its query asks for {other}, and a release may only ask for {label}=\"{namespace}\": leave that matcher out"
        ));
    }
    if given.next().is_none() {
        let matcher = Matcher::new(MatchOp::Equal, label, namespace);
        matchers.matchers.push(matcher);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(query: &str) -> Result<String, String> {
        held_to(query, "namespace", "team")
    }

    #[test]
    fn every_selector_wherever_it_hides_is_held_to_the_namespace() {
        for query in [
            "up",
            "sum by (b, a) (x{c=\"d\",a=\"b\"}) * on (b, a) group_left (d, c) y{z!=\"\"}",
            "max without (b, a) (x offset -5m) > bool 3 ^ 2 ^ 1",
            "sum(rate(x{release=\"w\",revision=\"a\",outcome=\"error\"}[8s])) / sum(rate(x{revision=\"a\",b=\"c\"}[8s]))",
            "{__name__=~\"a.*\"}",
            "sum by (x) (rate(errors{code=~\"5..\"}[5m])) / sum by (x) (rate(requests[5m] offset 1h))",
            "max_over_time(deriv(rate(x[1m])[5m:1m])[1h:])",
            "topk(scalar(secret), x)",
            "quantile(scalar(secret), x)",
            "label_replace(x, \"a\", \"$1\", \"b\", \"(.*)\")",
            "absent(x) or on() vector(scalar(y))",
            "-x + -(y @ start())",
            "histogram_quantile(0.9, sum by (le) (rate(h_bucket{a!=\"}\"}[5m])))",
            "count_values(\"v\", x)",
            "x{a=\"\\\"} or secret{b=\\\"\"}",
            "x{a=`\"} or secret{b=\"`}",
        ] {
            let text = held(query).unwrap();
            // As many matchers as there are names of series, which here are those before a brace or bracket.
            let tree = promql_parser::parser::parse(&text).unwrap();
            let mut again = tree.clone();
            walk(&mut again, &|s| select(s, "namespace", "team"), 0).unwrap();
            assert_eq!(tree, again, "{text} had a selector without the matcher");
            assert!(text.contains("namespace=\"team\""), "{text}");
        }
        assert_eq!(
            held("topk(scalar(secret), x)").unwrap(),
            "topk(scalar(secret{namespace=\"team\"}), x{namespace=\"team\"})"
        );
    }

    #[test]
    fn another_namespace_is_refused_and_the_own_one_is_not_asked_for_twice() {
        assert_eq!(
            held("x{namespace=\"team\"}").unwrap(),
            "x{namespace=\"team\"}"
        );
        for query in [
            "x{namespace=\"other\"}",
            "x{namespace=~\".*\"}",
            "x{namespace!=\"team\"}",
            "x{namespace=\"team\"} + x{namespace=\"other\"}",
            "sum(x{namespace=\"team\", namespace=~\".+\"})",
        ] {
            let error = held(query).unwrap_err();
            assert!(error.contains("may only ask for"), "{query}: {error}");
        }
        let error = held("x{a=\"b\" or namespace=\"other\"}").unwrap_err();
        assert!(error.contains("or"), "{error}");
    }

    /// What the parser panics on.
    const BREAKS: &str = "max_over_time(x[1h:1e400])";

    #[test]
    fn a_query_that_breaks_the_parser_is_refused_without_a_word_in_the_log() {
        const AGAIN: &str = "PERENNIAL_TEST_BREAKS_THE_PARSER";
        if std::env::var_os(AGAIN).is_some() {
            // Here in the process below.
            assert!(held(BREAKS).is_err());
            let other = panic::catch_unwind(|| panic!("another panic is heard"));
            assert!(other.is_err());
            return;
        }
        let name = "cluster::prometheus::query::tests::a_query_that_breaks_the_parser_is_refused_without_a_word_in_the_log";
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(AGAIN, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert_eq!(said.matches("panicked at").count(), 1, "{said}");
        assert!(said.contains("another panic is heard"), "{said}");
    }

    #[test]
    fn what_is_no_query_is_refused_and_a_deep_one_harms_nobody() {
        assert!(held(BREAKS).unwrap_err().contains("no PromQL"));
        assert!(held("sum(").unwrap_err().contains("no PromQL"));
        assert!(held("").is_err());
        let deep = format!("{}x{}", "(".repeat(4000), ")".repeat(4000));
        assert!(held(&deep).unwrap_err().contains("deeply"));
        assert!(held(&format!("{}x", "-".repeat(4000))).is_err());
        let deep = format!("{}x{}", "(".repeat(500), ")".repeat(500));
        assert!(held(&deep).is_err());
        let long = vec!["x"; 500].join(" or ");
        assert!(held(&long).is_err() || held(&long).is_ok());
    }
}
