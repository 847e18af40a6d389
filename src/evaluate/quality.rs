//! The quality of the data itself, read in one pass: memory depends on the columns, not on the rows (but for 8 bytes a row that find
//! duplicates).

use std::{
    collections::{BTreeSet, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use super::{
    details::{Details, QualityColumn},
    rows::Loaded,
};
use crate::{
    api::{gate::MetricValue, run::EXIT_INPUT},
    data::table::{Cell, Kind, Source},
    supervise::failure::Failure,
};

/// Columns that are looked at.
const MAX_COLUMNS: usize = 200;
/// Different values of a column that are told apart.
const MAX_DISTINCT: usize = 10_000;

/// What is counted of a column.
#[derive(Default)]
struct Count {
    missing: u64,
    infinite: u64,
    values: u64,
    distinct: BTreeSet<String>,
    more: bool,
    low: f64,
    high: f64,
    unseen: u64,
}

impl Count {
    fn new() -> Self {
        Self {
            low: f64::INFINITY,
            high: f64::NEG_INFINITY,
            ..Self::default()
        }
    }

    fn add(&mut self, cell: Cell<'_>, known: Option<&Self>) {
        if cell.is_missing() {
            self.missing += 1;
            return;
        }
        let number = cell.number();
        if number.is_some_and(f64::is_infinite) {
            self.infinite += 1;
            return;
        }
        self.values += 1;
        if let Some(x) = number {
            (self.low, self.high) = (self.low.min(x), self.high.max(x));
        }
        let text = cell.to_string();
        if let Some(known) = known {
            let unseen = match (cell, number) {
                (Cell::Text(_) | Cell::Boolean(_), _) => {
                    !known.more && !known.distinct.contains(&text)
                }
                (_, Some(x)) => x < known.low || x > known.high,
                _ => false,
            };
            self.unseen += u64::from(unseen);
        }
        if self.distinct.len() < MAX_DISTINCT {
            self.distinct.insert(text);
        } else if !self.distinct.contains(&text) {
            self.more = true;
        }
    }
}

struct Counted {
    names: Vec<(String, Kind)>,
    counts: Vec<Count>,
    rows: u64,
    duplicates: u64,
}

/// Looks at the data, and at the reference where there is one.
///
/// # Errors
/// If a file is broken.
pub fn run(loaded: &Loaded, details: &mut Details) -> Result<Vec<MetricValue>, Failure> {
    let Some(current) = loaded.current.as_ref().map(|ready| &ready.source) else {
        return Ok(Vec::new());
    };
    let reference = loaded.reference.as_ref().map(|ready| &ready.source);
    let known = reference.map(|source| count(source, None)).transpose()?;
    let counted = count(current, known.as_ref())?;
    let samples = i64::try_from(counted.rows).ok();
    let metric = |name: String, value: f64| MetricValue {
        name,
        value: value.is_finite().then_some(value),
        samples,
        ..MetricValue::default()
    };
    let rows = counted.rows as f64;
    let sum = |of: fn(&Count) -> u64| counted.counts.iter().map(of).sum::<u64>() as f64;
    let number_of = |of: &dyn Fn(&Count) -> bool| {
        counted.counts.iter().filter(|count| of(count)).count() as f64
    };
    let mut metrics = vec![
        metric("rowCount".to_owned(), rows),
        metric(
            "missingShare".to_owned(),
            sum(|c| c.missing) / (rows * counted.counts.len() as f64),
        ),
        metric(
            "duplicateShare".to_owned(),
            counted.duplicates as f64 / rows,
        ),
        metric("infiniteValues".to_owned(), sum(|c| c.infinite)),
        metric(
            "emptyColumns".to_owned(),
            number_of(&|c| c.values + c.infinite == 0),
        ),
        metric(
            "constantColumns".to_owned(),
            number_of(&|c| c.values > 0 && c.distinct.len() == 1 && !c.more),
        ),
        metric("unreadableLines".to_owned(), current.skipped().lines as f64),
    ];
    if let Some(reference) = reference {
        let has = |source: &Source, name: &str| source.fields().iter().any(|f| f.name == name);
        let absent = |of: &Source, from: &Source| {
            let names = of.fields().iter().map(|f| f.name.as_str());
            names.filter(|name| !has(from, name)).count() as f64
        };
        let retyped = current
            .fields()
            .iter()
            .filter(|f| {
                reference
                    .field(&f.name)
                    .is_ok_and(|r| differ(r.kind, f.kind))
            })
            .count();
        metrics.extend([
            metric("missingColumns".to_owned(), absent(reference, current)),
            metric("unknownColumns".to_owned(), absent(current, reference)),
            metric("retypedColumns".to_owned(), retyped as f64),
        ]);
    }
    details.quality = columns(&counted, known.as_ref(), reference);
    // The worst first: status keeps no more than it can.
    let mut missing: Vec<&QualityColumn> = details.quality.iter().collect();
    missing.sort_by(|a, b| b.missing_share.total_cmp(&a.missing_share));
    metrics.extend(
        missing
            .iter()
            .map(|c| metric(format!("missingShare.{}", c.column), c.missing_share)),
    );
    let mut unseen: Vec<(&str, f64)> = details
        .quality
        .iter()
        .filter_map(|c| Some((c.column.as_str(), c.unseen_share?)))
        .collect();
    unseen.sort_by(|a, b| b.1.total_cmp(&a.1));
    metrics.extend(
        unseen
            .into_iter()
            .map(|(name, share)| metric(format!("unseenShare.{name}"), share)),
    );
    Ok(metrics)
}

/// Whole numbers and floats are the same type here.
fn differ(a: Kind, b: Kind) -> bool {
    let number = |kind| matches!(kind, Kind::Integer | Kind::Number);
    a != b && !(number(a) && number(b))
}

fn columns(
    counted: &Counted,
    known: Option<&Counted>,
    reference: Option<&Source>,
) -> Vec<QualityColumn> {
    let rows = counted.rows.max(1) as f64;
    let column = |((name, kind), count): (&(String, Kind), &Count)| {
        let comparable = reference
            .and_then(|r| r.field(name).ok())
            .is_some_and(|r| !differ(r.kind, *kind));
        let unseen = known.filter(|_| comparable && count.values > 0);
        QualityColumn {
            column: name.clone(),
            kind: kind.to_string(),
            missing_share: count.missing as f64 / rows,
            infinite: count.infinite,
            distinct: count.distinct.len(),
            more: count.more,
            unseen_share: unseen.map(|_| count.unseen as f64 / count.values as f64),
        }
    };
    counted
        .names
        .iter()
        .zip(&counted.counts)
        .map(column)
        .collect()
}

fn count(source: &Source, known: Option<&Counted>) -> Result<Counted, Failure> {
    let names: Vec<(String, Kind)> = source
        .fields()
        .iter()
        .filter(|f| f.kind != Kind::Other)
        .take(MAX_COLUMNS)
        .map(|f| (f.name.clone(), f.kind))
        .collect();
    let wanted: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
    let mut counted = Counted {
        counts: names.iter().map(|_| Count::new()).collect(),
        rows: 0,
        duplicates: 0,
        names: names.clone(),
    };
    let mut seen = HashSet::new();
    source
        .scan(&wanted, |batch| {
            for row in 0..batch.rows {
                let mut hasher = DefaultHasher::new();
                for (place, column) in batch.columns.iter().enumerate() {
                    let cell = column.values.cell(row);
                    let (name, kind) = &names[place];
                    let of = known.and_then(|known| {
                        let at = known
                            .names
                            .iter()
                            .position(|(n, k)| n == name && !differ(*k, *kind))?;
                        known.counts.get(at)
                    });
                    counted.counts[place].add(cell, of);
                    (cell.is_missing(), cell.to_string()).hash(&mut hasher);
                }
                counted.duplicates += u64::from(!seen.insert(hasher.finish()));
                counted.rows += 1;
            }
            Ok(())
        })
        .map_err(|e| Failure::of("InputUnreadable", "dataQuality", &e, EXIT_INPUT))?;
    Ok(counted)
}
