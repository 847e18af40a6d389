//! How much samples of the reference differ from the reference: the null that live drift is held against.
//!
//! A block bootstrap (Künsch, 1989): neighbouring rows are alike (the same day, the same weather), and so are
//! neighbouring requests, so a sample is drawn as whole blocks of neighbouring rows, not row by row. The reference is
//! itself a sample: against n rows, m live ones differ as m·n/(m+n) drawn from a known distribution do, so
//! that many are drawn.

use super::{ColumnProfile, NOISE_SIZES, NoisePoint, round};
use crate::stats::drift::live::Grid;
use crate::stats::random::Generator;
use crate::stats::sketch::{CategorySketch, Cell, ColumnKind};

/// Rows kept at most, for each column.
const MAX_ROWS: usize = 50_000;
/// Rows are kept in runs of this many neighbours.
const RUN: u64 = 500;
/// The longest block that is drawn; a short reference has shorter ones, so that there are at least 40.
const LONGEST_BLOCK: usize = 250;
const FEWEST_BLOCKS: usize = 40;
/// Samples drawn for each size.
const DRAWS: usize = 400;
const SEED: u64 = 0x7065_7265_6e6e_6961;

/// Rows of one column, in order, thinned to whole runs: every `stride`-th is kept.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    stride: u64,
    rows: Vec<Kept>,
}

/// A value as the noise needs it.
#[derive(Clone, Copy, Debug)]
enum Kept {
    Missing,
    Number(f64),
    Category(u64),
}

impl Default for Blocks {
    fn default() -> Self {
        Self {
            stride: 1,
            rows: Vec::new(),
        }
    }
}

impl Blocks {
    pub(super) fn add(&mut self, index: u64, cell: Cell<'_>, kind: ColumnKind) {
        if !(index / RUN).is_multiple_of(self.stride) {
            return;
        }
        if self.rows.len() == MAX_ROWS {
            self.thin();
            if !(index / RUN).is_multiple_of(self.stride) {
                return;
            }
        }
        self.rows.push(match (kind, cell) {
            (ColumnKind::Numeric, Cell::Number(x)) if x.is_finite() => Kept::Number(x + 0.0),
            (ColumnKind::Categorical, cell) => cell.category().map_or(Kept::Missing, |name| {
                Kept::Category(CategorySketch::hash_of(&name))
            }),
            _ => Kept::Missing,
        });
    }

    fn thin(&mut self) {
        self.stride *= 2;
        let run = RUN as usize;
        let mut kept = Vec::with_capacity(MAX_ROWS);
        for (i, rows) in self.rows.chunks(run).enumerate() {
            if i % 2 == 0 {
                kept.extend_from_slice(rows);
            }
        }
        self.rows = kept;
    }

    /// The noise of the column whose profile this is; empty if there are too few values to say.
    pub(super) fn noise(&self, profile: &ColumnProfile) -> Vec<NoisePoint> {
        let Some(grid) = Grid::of(profile) else {
            return Vec::new();
        };
        let hashes: Vec<u64> = profile
            .categories
            .iter()
            .map(|c| CategorySketch::hash_of(&c.name))
            .collect();
        let cells: Vec<Option<usize>> = self
            .rows
            .iter()
            .map(|row| match row {
                Kept::Missing => None,
                Kept::Number(x) => Some(grid.cell(*x)),
                Kept::Category(hash) => Some(
                    hashes
                        .iter()
                        .position(|h| h == hash)
                        .unwrap_or(hashes.len()),
                ),
            })
            .collect();
        let length = (cells.len() / FEWEST_BLOCKS).clamp(1, LONGEST_BLOCK);
        let blocks: Vec<(Vec<u32>, u64)> = cells
            .chunks_exact(length)
            .map(|rows| {
                let mut counts = vec![0u32; grid.cells()];
                rows.iter().flatten().for_each(|&cell| counts[cell] += 1);
                let total = counts.iter().map(|&c| u64::from(c)).sum();
                (counts, total)
            })
            .collect();
        if blocks.iter().all(|(_, total)| *total == 0) {
            return Vec::new();
        }
        let mut generator = Generator::new(SEED);
        NOISE_SIZES
            .iter()
            .map(|&size| NoisePoint {
                size,
                score: round(draw(&grid, &blocks, size, profile.count, &mut generator)),
            })
            .collect()
    }
}

/// The 99th percentile of the score over samples of `size`.
fn draw(
    grid: &Grid,
    blocks: &[(Vec<u32>, u64)],
    size: u64,
    reference: u64,
    generator: &mut Generator,
) -> f64 {
    let wanted = (size as f64 * reference as f64 / (size + reference) as f64)
        .round()
        .max(1.0) as u64;
    let mut scores: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let mut counts = vec![0f64; grid.cells()];
            let mut drawn = 0;
            while drawn < wanted {
                let (block, total) = &blocks[generator.below(blocks.len())];
                if *total == 0 {
                    continue;
                }
                // The last block counts for as much as is still wanted.
                let weight = ((wanted - drawn) as f64 / *total as f64).min(1.0);
                counts
                    .iter_mut()
                    .zip(block)
                    .for_each(|(sum, &c)| *sum += weight * f64::from(c));
                drawn += total;
            }
            grid.score(&counts)
        })
        .collect();
    scores.sort_by(f64::total_cmp);
    scores[DRAWS * 99 / 100 - 1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::profile::ProfileBuilder;

    fn profile(rows: impl Iterator<Item = f64>) -> ColumnProfile {
        let mut builder = ProfileBuilder::new([("x", ColumnKind::Numeric)]);
        rows.for_each(|x| builder.add(&[Cell::Number(x)]));
        builder.finish().columns.remove(0)
    }

    #[test]
    fn noise_falls_with_the_square_root_of_the_size_for_independent_rows() {
        let mut generator = Generator::new(8);
        let column = profile((0..50_000).map(|_| generator.unit()));
        let at = |size| column.noise_at(size).unwrap();
        let ratio = at(500) / at(5_000);
        assert!((2.5..3.6).contains(&ratio), "{ratio} {:?}", column.noise);
        assert!(at(500) < 0.25, "{:?}", column.noise);
    }

    #[test]
    fn rows_that_resemble_their_neighbours_are_noisier_than_shuffled_ones() {
        // A slow wave: any run of rows sees only a part of it.
        let wave = |i: usize| (i as f64 / 2_000.0).sin();
        let ordered = profile((0..40_000).map(wave));
        let shuffled = profile((0..40_000).map(|i| wave(i * 7_919 % 40_000)));
        let (a, b) = (
            ordered.noise_at(2_000).unwrap(),
            shuffled.noise_at(2_000).unwrap(),
        );
        assert!(a > 4.0 * b, "{a} against {b}");
    }

    #[test]
    fn the_rows_kept_are_bounded_and_the_same_every_time() {
        let make = || profile((0..130_000).map(|i| f64::from(i % 1_000)));
        assert_eq!(make(), make());
        let mut blocks = Blocks::default();
        for i in 0..400_000 {
            blocks.add(i, Cell::Number(1.0), ColumnKind::Numeric);
        }
        assert!((MAX_ROWS / 2..=MAX_ROWS).contains(&blocks.rows.len()));
        assert_eq!(blocks.stride, 8);
    }

    #[test]
    fn a_column_without_values_has_no_noise() {
        assert!(profile((0..100).map(|_| f64::NAN)).noise.is_empty());
    }
}
