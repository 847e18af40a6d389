//! The quality of the data itself, read in one pass: memory depends on the columns, not on the rows.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
};

use super::{
    details::{Details, QualityColumn},
    rows::Loaded,
};
use crate::{
    api::{gate::MetricValue, run::EXIT_INPUT},
    data::table::{Cell, Kind, Source},
    stats::sketch::HashSketch,
    supervise::failure::Failure,
};

/// Columns that are looked at.
const MAX_COLUMNS: usize = 200;
/// Different values of a column that are told apart.
const MAX_DISTINCT: usize = 10_000;

/// Different rows that are told apart (up to 16 bytes each); beyond, their number is estimated, with a standard error of 0.12 %.
const MAX_DIFFERENT_ROWS: usize = 1 << 20;

/// What is counted of a column.
#[derive(Default)]
struct Count {
    missing: u64,
    infinite: u64,
    values: u64,
    /// Hashes of the different values.
    distinct: HashSet<u64>,
    more: bool,
    low: f64,
    high: f64,
    unseen: u64,
}

/// The same for equal cells of one kind of column, in every run.
fn hash(cell: Cell<'_>, hasher: &mut DefaultHasher) {
    match cell {
        Cell::Null => 0u8.hash(hasher),
        Cell::Number(x) if x.is_nan() => 0u8.hash(hasher),
        // -0.0 is 0.0; whole numbers and floats are the same type here.
        Cell::Number(x) => (x + 0.0).to_bits().hash(hasher),
        Cell::Integer(x) => match x as f64 {
            exact if exact.abs() < 9e15 => (exact + 0.0).to_bits().hash(hasher),
            _ => x.hash(hasher),
        },
        Cell::Time(x) => x.hash(hasher),
        Cell::Text(x) => x.hash(hasher),
        Cell::Boolean(x) => x.hash(hasher),
    }
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
        let mut hasher = DefaultHasher::new();
        hash(cell, &mut hasher);
        let value = hasher.finish();
        if let Some(known) = known {
            let unseen = match (cell, number) {
                (Cell::Text(_) | Cell::Boolean(_), _) => {
                    !known.more && !known.distinct.contains(&value)
                }
                (_, Some(x)) => x < known.low || x > known.high,
                _ => false,
            };
            self.unseen += u64::from(unseen);
        }
        if self.distinct.len() < MAX_DISTINCT {
            self.distinct.insert(value);
        } else if !self.more {
            self.more = !self.distinct.contains(&value);
        }
    }
}

struct Counted {
    names: Vec<(String, Kind)>,
    counts: Vec<Count>,
    rows: u64,
    /// Different rows.
    different: f64,
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
            ((rows - counted.different) / rows).max(0.0),
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
    // What the reference has of a column, where it is of the same type.
    let known: Vec<Option<&Count>> = names
        .iter()
        .map(|(name, kind)| {
            let known = known?;
            let same = |(n, k): &(String, Kind)| n == name && !differ(*k, *kind);
            known.counts.get(known.names.iter().position(same)?)
        })
        .collect();
    let mut counted = Counted {
        counts: names.iter().map(|_| Count::new()).collect(),
        rows: 0,
        different: 0.0,
        names: names.clone(),
    };
    let mut different = HashSketch::new(MAX_DIFFERENT_ROWS);
    source
        .scan(&wanted, |batch| {
            for row in 0..batch.rows {
                let mut hasher = DefaultHasher::new();
                for (place, column) in batch.columns.iter().enumerate() {
                    let cell = column.values.cell(row);
                    counted.counts[place].add(cell, known[place]);
                    cell.is_missing().hash(&mut hasher);
                    hash(cell, &mut hasher);
                }
                different.add(hasher.finish());
                counted.rows += 1;
            }
            Ok(())
        })
        .map_err(|e| Failure::of("InputUnreadable", "dataQuality", &e, EXIT_INPUT))?;
    counted.different = different.different();
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_is_the_same_value_as_integer_and_as_float() {
        let of = |cell: Cell<'_>| {
            let mut hasher = DefaultHasher::new();
            hash(cell, &mut hasher);
            hasher.finish()
        };
        assert_eq!(of(Cell::Integer(3)), of(Cell::Number(3.0)));
        assert_eq!(of(Cell::Number(-0.0)), of(Cell::Integer(0)));
        assert_ne!(of(Cell::Integer(i64::MAX)), of(Cell::Integer(i64::MAX - 1)));
    }
}
