//! Categories: exact counts for as many as fit, chosen without regard to order.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::numeric::MOST;
use crate::stats::random::mix;

/// A sketch keeps the counts of at most this many categories.
pub const MAX_CATEGORIES: usize = 512;

/// Names longer than this are cut and end in a hash of the whole.
const MAX_NAME_BYTES: usize = 64;

/// A mergeable count of categories.
///
/// Up to [`MAX_CATEGORIES`] distinct ones are all kept. Beyond that, those with the smallest hashes stay, with exact
/// counts, and the rest is pooled (bottom-k sampling: Cohen and Kaplan, 2007). A heavy-hitter summary would
/// keep the frequent ones instead, but depends on the order of what it sees. Two sketches, or a profile and a sketch, are
/// compared on the categories below the smaller [`limit`](Self::limit) of both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct CategorySketch {
    kept: BTreeMap<u64, (String, u64)>,
    /// The smallest hash that isn't kept any more.
    limit: Option<u64>,
    pooled: u64,
}

impl CategorySketch {
    /// Adds one occurrence.
    pub fn add(&mut self, name: &str) {
        self.add_many(name, 1);
    }

    /// Adds `count` occurrences.
    pub fn add_many(&mut self, name: &str, count: u64) {
        if count > 0 {
            let name = shorten(name);
            self.insert(hash(&name), name, count);
        }
    }

    /// Adds all that `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        self.pooled += other.pooled;
        if let Some(limit) = other.limit {
            self.lower(limit);
        }
        for (&hash, (name, count)) in &other.kept {
            self.insert(hash, Cow::Borrowed(name), *count);
        }
    }

    /// Occurrences seen.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.pooled + self.kept.values().map(|(_, count)| count).sum::<u64>()
    }

    /// Occurrences of categories that aren't kept by name.
    #[must_use]
    pub fn pooled(&self) -> u64 {
        self.pooled
    }

    /// The categories kept, with exact counts, in no meaningful order.
    pub fn categories(&self) -> impl Iterator<Item = (&str, u64)> {
        self.kept
            .values()
            .map(|(name, count)| (name.as_str(), *count))
    }

    /// How often `name` was seen, if it is among those kept or could be.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        let hash = hash(&shorten(name));
        match self.kept.get(&hash) {
            Some((_, count)) => Some(*count),
            None => self.limit.is_none_or(|limit| hash < limit).then_some(0),
        }
    }

    /// Categories whose [`hash_of`](Self::hash_of) is at least this were pooled; `None`: none was.
    #[must_use]
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// The hash by which categories are kept or pooled (FNV-1a, mixed; stable across versions).
    #[must_use]
    pub fn hash_of(name: &str) -> u64 {
        hash(&shorten(name))
    }

    /// How many distinct categories there were: exact until some were pooled, then the bottom-k
    /// estimate (Bar-Yossef et al., 2002; relative error about 4.5 %).
    #[must_use]
    pub fn distinct(&self) -> u64 {
        match self.limit {
            None => self.kept.len() as u64,
            Some(limit) => (self.kept.len() as f64 / (limit as f64 / 2f64.powi(64))).round() as u64,
        }
    }

    fn insert(&mut self, hash: u64, name: Cow<'_, str>, count: u64) {
        if self.limit.is_some_and(|limit| hash >= limit) {
            self.pooled += count;
            return;
        }
        let entry = self
            .kept
            .entry(hash)
            .or_insert_with(|| (name.clone().into_owned(), 0));
        entry.1 += count;
        if entry.0.as_str() > name.as_ref() {
            entry.0 = name.into_owned(); // Two names, one hash: one in 2^64.
        }
        if self.kept.len() > MAX_CATEGORIES
            && let Some((&largest, _)) = self.kept.last_key_value()
        {
            self.lower(largest);
        }
    }

    fn lower(&mut self, limit: u64) {
        let limit = self.limit.map_or(limit, |old| old.min(limit));
        for (_, (_, count)) in self.kept.split_off(&limit) {
            self.pooled += count;
        }
        self.limit = Some(limit);
    }
}

fn hash(name: &str) -> u64 {
    let fnv = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(fnv)
}

fn shorten(name: &str) -> Cow<'_, str> {
    if name.len() <= MAX_NAME_BYTES {
        return Cow::Borrowed(name);
    }
    let mut end = MAX_NAME_BYTES - 12;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}…{:08x}", &name[..end], hash(name) >> 32))
}

#[derive(Serialize, Deserialize)]
struct Form {
    categories: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pooled: u64,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl From<CategorySketch> for Form {
    fn from(sketch: CategorySketch) -> Self {
        Self {
            categories: sketch.kept.into_values().collect(),
            limit: sketch.limit,
            pooled: sketch.pooled,
        }
    }
}

impl TryFrom<Form> for CategorySketch {
    type Error = String;

    fn try_from(form: Form) -> Result<Self, String> {
        if form.categories.len() > MAX_CATEGORIES {
            return Err(format!(
                "the category sketch has {} categories; {MAX_CATEGORIES} is the most",
                form.categories.len()
            ));
        }
        if form.pooled > MOST || form.categories.values().any(|count| *count > MOST) {
            return Err("the category sketch counts more values than there can be".into());
        }
        let mut sketch = Self {
            kept: BTreeMap::new(),
            limit: form.limit,
            pooled: form.pooled,
        };
        for (name, count) in form.categories {
            if count == 0 {
                return Err(format!(
                    "category {name:?} of the sketch was seen zero times"
                ));
            }
            sketch.add_many(&name, count);
        }
        Ok(sketch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sketch<S: AsRef<str>>(names: &[S]) -> CategorySketch {
        let mut sketch = CategorySketch::default();
        for name in names {
            sketch.add(name.as_ref());
        }
        sketch
    }

    #[test]
    fn counts_are_exact_and_an_absent_category_is_zero() {
        let s = sketch(&["UA", "AA", "UA"]);
        assert_eq!(
            (s.get("UA"), s.get("AA"), s.get("DL")),
            (Some(2), Some(1), Some(0))
        );
        assert_eq!((s.count(), s.distinct(), s.pooled()), (3, 2, 0));
    }

    #[test]
    fn too_many_categories_are_pooled_and_still_counted() {
        let names: Vec<String> = (0..10_000).map(|i| format!("user-{}", i % 5_000)).collect();
        let s = sketch(&names);
        assert_eq!(s.kept.len(), MAX_CATEGORIES);
        assert_eq!(s.count(), 10_000);
        assert!((4_300..5_700).contains(&s.distinct()), "{}", s.distinct());
        assert!(s.categories().all(|(_, count)| count == 2));
        let pooled = names.iter().find(|n| s.get(n).is_none()).unwrap();
        assert!(CategorySketch::hash_of(pooled) >= s.limit().unwrap());
    }

    #[test]
    fn long_names_are_cut_but_stay_apart() {
        let (a, b) = ("é".repeat(100), format!("{}x", "é".repeat(99)));
        let s = sketch(&[&a, &b, &a]);
        assert_eq!((s.get(&a), s.get(&b)), (Some(2), Some(1)));
        assert!(s.categories().all(|(name, _)| name.len() <= MAX_NAME_BYTES));
        let text = serde_json::to_string(&s).unwrap();
        assert_eq!(serde_json::from_str::<CategorySketch>(&text).unwrap(), s);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_parts_merged_in_any_order_are_the_whole(
            ids in prop::collection::vec(0u32..1500, 0..3000),
            cut in 0usize..3000,
        ) {
            let names: Vec<String> = ids.iter().map(|i| format!("c{i}")).collect();
            let cut = cut.min(names.len());
            let (a, b) = (sketch(&names[..cut]), sketch(&names[cut..]));
            let mut ab = a.clone();
            ab.merge(&b);
            let mut ba = b;
            ba.merge(&a);
            let whole = serde_json::to_string(&sketch(&names)).unwrap();
            prop_assert_eq!(serde_json::to_string(&ab).unwrap(), &whole[..]);
            prop_assert_eq!(serde_json::to_string(&ba).unwrap(), &whole[..]);
            let read: CategorySketch = serde_json::from_str(&whole).unwrap();
            prop_assert_eq!(read, ab);
        }
    }
}
