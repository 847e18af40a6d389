//! Whether groups of rows are treated alike: differences and ratios between the groups of each sensitive column.
//!
//! Groups below `minGroupSize` are not compared, and for rates of one class neither are groups without a row of it; how many is
//! `insufficientGroups.<column>`, and which ones stands in the report.

use super::{
    column,
    details::{Details, Group, Groups},
    input_failure,
    measure::{Columns, Compared},
    rows::Rows,
    truth::Truth,
};
use crate::{
    api::{evaluation::Fairness, gate::MetricValue},
    stats::{
        fairness::{FairnessReport, GroupReport, fairness},
        performance::share_interval,
    },
    supervise::failure::Failure,
};

/// Rows below which a group says too little, where the spec doesn't say.
const MIN_GROUP_SIZE: i64 = 100;
/// Different values that make groups; more is no grouping.
const MAX_GROUPS: usize = 1000;
/// Groups shown.
const SHOWN: usize = 50;

/// Measures each sensitive column, of both sides and of the constant predictor.
///
/// # Errors
/// `UnknownLabel` for labels that are numbers, `InputUnreadable` for a column whose values make no groups.
pub fn run(
    evaluator: &Fairness,
    rows: &Rows,
    truth: &Truth,
    compared: &Compared,
    details: &mut Details,
) -> Result<Vec<MetricValue>, Failure> {
    if matches!(truth, Truth::Multi { .. }) {
        return Err(input_failure(
            "UnknownLabel",
            "the fairness evaluator is about one class, and the label has several: write which is positive, evaluators: [{classification: {positive: …}}]".to_owned(),
        ));
    }
    if matches!(truth, Truth::Number(_)) {
        return Err(input_failure(
            "UnknownLabel",
            "the fairness evaluator compares how often groups are called positive, and the label is a number: take it out of evaluators".to_owned(),
        ));
    }
    let least = evaluator.min_group_size.unwrap_or(MIN_GROUP_SIZE);
    let least = u64::try_from(least).unwrap_or(1);
    let mut metrics = Vec::new();
    for name in &evaluator.sensitive {
        let groups = groups(rows, name, compared)?;
        let of = |columns: &Columns| fairness(&compared.classes, &columns.predicted, &groups);
        let own = of(&compared.own);
        if own.groups.len() > MAX_GROUPS {
            return Err(input_failure(
                "InputUnreadable",
                format!(
                    "column `{name}` has {} different values, more than the {MAX_GROUPS} that make groups: put them into classes, and name that column in fairness.sensitive",
                    own.groups.len()
                ),
            ));
        }
        metrics.extend(measure("", name, &own, least));
        if let Some(stable) = &compared.stable {
            metrics.extend(measure("stable.", name, &of(stable), least));
        }
        // The constant predictor calls all rows what most of them are.
        let positives = compared.classes.iter().filter(|c| **c).count();
        let constant = vec![2 * positives > compared.classes.len(); compared.classes.len()];
        let constant = fairness(&compared.classes, &constant, &groups);
        metrics.extend(measure("baseline.", name, &constant, least));
        let (insufficient, value) = insufficient(&own, least);
        metrics.push(MetricValue {
            name: format!("insufficientGroups.{name}"),
            value: Some(value as f64),
            samples: i64::try_from(own.groups.len()).ok(),
            ..MetricValue::default()
        });
        details
            .fairness
            .push(table(name, &own, least, &insufficient));
    }
    Ok(metrics)
}

/// The group of each row that counts.
fn groups(rows: &Rows, name: &str, compared: &Compared) -> Result<Vec<String>, Failure> {
    let values = &column(&rows.table, name)?.values;
    let group = |&row: &usize| match values.cell(row) {
        cell if cell.is_missing() => "(missing)".to_owned(),
        cell => cell.to_string(),
    };
    Ok(compared.kept.iter().map(group).collect())
}

/// Why each group is not compared, if it isn't, and how many aren't.
fn insufficient(report: &FairnessReport, least: u64) -> (Vec<(String, String)>, usize) {
    let reason = |group: &GroupReport| {
        if group.count < least {
            Some(format!("fewer than {least} rows"))
        } else if group.positives == 0 {
            Some("no positive row: no true positive rate".to_owned())
        } else if group.positives == group.count {
            Some("no negative row: no false positive rate".to_owned())
        } else {
            None
        }
    };
    let all: Vec<(String, String)> = report
        .groups
        .iter()
        .filter_map(|(name, group)| Some((name.clone(), reason(group)?)))
        .collect();
    let count = all.len();
    (all, count)
}

fn measure(prefix: &str, column: &str, report: &FairnessReport, least: u64) -> Vec<MetricValue> {
    let (large, _) = report.with_groups_of(least);
    let (rated, _) = large.with_both_classes();
    let (parity, odds, opportunity) = (
        large.demographic_parity(),
        rated.equalized_odds(),
        rated.equal_opportunity(),
    );
    [
        ("demographicParityDifference", parity.difference, &large),
        ("demographicParityRatio", parity.ratio, &large),
        ("equalizedOddsDifference", odds.difference, &rated),
        ("equalizedOddsRatio", odds.ratio, &rated),
        ("equalOpportunityDifference", opportunity.difference, &rated),
        ("equalOpportunityRatio", opportunity.ratio, &rated),
    ]
    .into_iter()
    .map(|(name, value, groups)| {
        let enough = groups.groups.len() >= 2;
        let value = (enough && value.is_finite()).then_some(value);
        MetricValue {
            name: format!("{prefix}{name}.{column}"),
            value,
            samples: i64::try_from(groups.groups.values().map(|g| g.count).sum::<u64>()).ok(),
            message: match (value, enough) {
                (Some(_), _) => None,
                (None, false) => Some(format!(
                    "{} of {} groups have enough rows (minGroupSize {least}) of both classes, and it takes two to compare",
                    groups.groups.len(),
                    report.groups.len()
                )),
                (None, true) => Some("no group is ever called positive".to_owned()),
            },
            ..MetricValue::default()
        }
    })
    .collect()
}

fn table(
    column: &str,
    report: &FairnessReport,
    least: u64,
    insufficient: &[(String, String)],
) -> Groups {
    let hits = |share: f64, whole: u64| (share * whole as f64).round() as u64;
    let mut groups: Vec<Group> = report
        .groups
        .iter()
        .map(|(name, &rates)| {
            let negatives = rates.count - rates.positives;
            Group {
                group: name.clone(),
                selection_interval: share_interval(
                    hits(rates.selection_rate, rates.count),
                    rates.count,
                ),
                true_positive_interval: share_interval(
                    hits(rates.true_positive_rate, rates.positives),
                    rates.positives,
                ),
                false_positive_interval: share_interval(
                    hits(rates.false_positive_rate, negatives),
                    negatives,
                ),
                insufficient: insufficient
                    .iter()
                    .find(|(group, _)| group == name)
                    .map(|(_, why)| why.clone()),
                rates,
            }
        })
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.rates.count));
    let count = groups.len();
    groups.truncate(SHOWN);
    Groups {
        column: column.to_owned(),
        min_group_size: least,
        groups,
        count,
    }
}
