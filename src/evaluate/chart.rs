//! Charts as inline SVG: nothing is loaded from elsewhere.

use std::fmt::Write;

use super::details::Distribution;
use crate::{
    api::verdict::short,
    stats::{drift::Sample, performance::CalibrationBin},
};

/// Bins of a numeric column.
const BINS: usize = 20;
/// Categories that are shown by name.
const CATEGORIES: usize = 15;

/// A column's values on both sides in the same bins; `None` if a side has none, or they are of different types.
#[must_use]
pub fn distribution(name: &str, reference: &Sample, current: &Sample) -> Option<Distribution> {
    if reference.used() == 0 || current.used() == 0 {
        return None;
    }
    let (bins, range, r, c) = match (reference.categories_counted(), current.categories_counted()) {
        (Some(r), Some(c)) => {
            let mut names: Vec<&str> = r
                .keys()
                .chain(c.keys().filter(|k| !r.contains_key(*k)))
                .map(|name| &**name)
                .collect();
            let count = |name: &str| r.get(name).unwrap_or(&0) + c.get(name).unwrap_or(&0);
            names.sort_by_key(|name| std::cmp::Reverse(count(name)));
            names.truncate(CATEGORIES);
            let of = |counts: &std::collections::BTreeMap<Box<str>, u64>, rows: usize| {
                let mut shares: Vec<f64> = names
                    .iter()
                    .map(|name| *counts.get(*name).unwrap_or(&0) as f64 / rows as f64)
                    .collect();
                let rest = 1.0 - shares.iter().sum::<f64>();
                // What is left of adding up isn't a category.
                shares.push(if rest < 1e-9 { 0.0 } else { rest });
                shares
            };
            let (mut r, mut c) = (of(&r, reference.used()), of(&c, current.used()));
            let mut bins: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            bins.push("(others)".to_owned());
            if r.last() == Some(&0.0) && c.last() == Some(&0.0) {
                r.pop();
                c.pop();
                bins.pop();
            }
            (bins, None, r, c)
        }
        (None, None) => {
            // Without the last hundredth on either end, which would make all others one bin.
            let low = reference.at(0.01)?.min(current.at(0.01)?);
            let high = reference.at(0.99)?.max(current.at(0.99)?);
            let width = (high - low) / BINS as f64;
            let inner: Vec<f64> = (1..BINS).map(|i| low + width * i as f64).collect();
            let of = |sample: &Sample| {
                let used = sample.used() as f64;
                let mut ends = vec![0.0];
                ends.extend(sample.below(&inner));
                ends.push(used);
                let shares = ends.windows(2).map(|pair| (pair[1] - pair[0]) / used);
                shares.collect::<Vec<f64>>()
            };
            let bins = (0..BINS)
                .map(|i| format!("from {}", short(low + width * i as f64)))
                .collect();
            (bins, Some((low, high)), of(reference), of(current))
        }
        _ => return None,
    };
    Some(Distribution {
        column: name.to_owned(),
        bins,
        range,
        reference: r,
        current: c,
    })
}

/// Text that can't end a tag or an attribute.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Both sides as bars, the reference behind, the current data before it; below them the categories as far as there is room, or both ends of the numbers.
#[must_use]
pub fn bars(distribution: &Distribution) -> String {
    const WIDTH: f64 = 320.0;
    const HEIGHT: f64 = 72.0;
    /// Room for words below.
    const FOOT: f64 = 16.0;
    /// Width of a character, about.
    const CHARACTER: f64 = 7.0;
    let count = distribution.bins.len().max(1) as f64;
    let most = distribution
        .reference
        .iter()
        .chain(&distribution.current)
        .fold(f64::MIN_POSITIVE, |most, share| most.max(*share));
    let step = WIDTH / count;
    let mut svg = format!(
        r#"<svg class="bars" viewBox="0 0 {WIDTH} {}" role="img" aria-label="distribution of {}">"#,
        HEIGHT + FOOT,
        escape(&distribution.column)
    );
    let sides = distribution.reference.iter().zip(&distribution.current);
    for (i, ((r, c), bin)) in sides.zip(&distribution.bins).enumerate() {
        let x = step * i as f64;
        let tall = |share: f64| share / most * (HEIGHT - 2.0);
        let _ = write!(
            svg,
            r#"<g><title>{}: reference {} %, current {} %</title><rect class="ref" x="{:.1}" y="{:.1}" width="{:.1}" height="{:.1}"/><rect class="cur" x="{:.1}" y="{:.1}" width="{:.1}" height="{:.1}"/></g>"#,
            escape(bin),
            short(r * 100.0),
            short(c * 100.0),
            x + step * 0.06,
            HEIGHT - tall(*r),
            step * 0.88,
            tall(*r),
            x + step * 0.28,
            HEIGHT - tall(*c),
            step * 0.44,
            tall(*c),
        );
    }
    let mut word = |x: f64, anchor: &str, text: &str| {
        let _ = write!(
            svg,
            r#"<text x="{x:.1}" y="{:.1}" text-anchor="{anchor}">{}</text>"#,
            HEIGHT + FOOT - 4.0,
            escape(text)
        );
    };
    if let Some((low, high)) = distribution.range {
        word(0.0, "start", &short(low));
        word(WIDTH, "end", &short(high));
    } else {
        let room = (step / CHARACTER) as usize;
        for (i, bin) in distribution.bins.iter().enumerate() {
            let name: String = bin.chars().take(room.max(1)).collect();
            // One letter of many says nothing.
            if name == *bin || room > 2 {
                word(step * (i as f64 + 0.5), "middle", &name);
            }
        }
    }
    svg + "</svg>"
}

/// The calibration curve: mean score across, share of positives up; the area of a dot is its rows.
#[must_use]
pub fn calibration(curve: &[CalibrationBin]) -> String {
    const SIZE: f64 = 300.0;
    const EDGE: f64 = 44.0;
    let place = |x: f64| EDGE + x * (SIZE - 2.0 * EDGE);
    let most = curve.iter().map(|bin| bin.count).max().unwrap_or(1).max(1) as f64;
    let mut svg = format!(
        r#"<svg class="calibration" viewBox="0 0 {SIZE} {SIZE}" role="img" aria-label="calibration curve">"#
    );
    for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let (x, y) = (place(tick), place(1.0 - tick));
        let (low, high) = (place(0.0), place(1.0));
        let _ = write!(
            svg,
            r#"<line class="grid" x1="{x:.1}" y1="{low:.1}" x2="{x:.1}" y2="{high:.1}"/><line class="grid" x1="{low:.1}" y1="{y:.1}" x2="{high:.1}" y2="{y:.1}"/><text x="{x:.1}" y="{:.1}" text-anchor="middle">{tick}</text><text x="{:.1}" y="{:.1}" text-anchor="end">{tick}</text>"#,
            high + 14.0,
            low - 5.0,
            y + 3.5,
        );
    }
    let _ = write!(
        svg,
        r#"<line class="ideal" x1="{0:.1}" y1="{1:.1}" x2="{1:.1}" y2="{0:.1}"/>"#,
        place(0.0),
        place(1.0)
    );
    let points: Vec<String> = curve
        .iter()
        .map(|bin| format!("{:.1},{:.1}", place(bin.score), place(1.0 - bin.positive)))
        .collect();
    let _ = write!(
        svg,
        r#"<polyline class="curve" points="{}"/>"#,
        points.join(" ")
    );
    for bin in curve {
        let _ = write!(
            svg,
            r#"<circle class="dot" cx="{:.1}" cy="{:.1}" r="{:.1}"><title>scores {} to {}: mean {}, positive {}, {} rows</title></circle>"#,
            place(bin.score),
            place(1.0 - bin.positive),
            2.0 + 7.0 * (bin.count as f64 / most).sqrt(),
            short(bin.from),
            short(bin.to),
            short(bin.score),
            short(bin.positive),
            bin.count,
        );
    }
    let _ = write!(
        svg,
        r#"<text x="{0:.1}" y="{1:.1}" text-anchor="middle">mean score</text><text transform="translate(10 {0:.1}) rotate(-90)" text-anchor="middle">share positive</text></svg>"#,
        SIZE / 2.0,
        SIZE - 4.0
    );
    svg
}
