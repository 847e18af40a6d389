//! Detectors on streams of labelled outcomes; equal to river. After a drift a detector begins anew with the next sample.

mod concept;

pub use concept::{Concept, Kind};

use super::{Pair, Sample, test};

/// What a detector says after a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signal {
    /// The stream has changed.
    pub drift: bool,
    /// It may be changing.
    pub warning: bool,
}

/// A detector that is fed one sample after the other.
pub trait Detector {
    /// Takes a sample (for detectors of errors: not 0 is an error).
    fn update(&mut self, x: f64) -> Signal;
}

/// Drift detection method (Gama et al. 2004): the error rate rises above its best by a number of standard deviations.
#[derive(Clone, Debug)]
pub struct Ddm {
    /// Samples before the first test.
    pub warm_start: u64,
    /// Standard deviations to a warning.
    pub warning: f64,
    /// Standard deviations to a drift.
    pub drift: f64,
    n: u64,
    mean: f64,
    best: (f64, f64),
    signal: Signal,
}

impl Ddm {
    /// An empty detector.
    #[must_use]
    pub fn new(warm_start: u64, warning: f64, drift: f64) -> Self {
        Self {
            warm_start,
            warning,
            drift,
            n: 0,
            mean: 0.0,
            best: (f64::INFINITY, 0.0),
            signal: Signal::default(),
        }
    }
}

impl Detector for Ddm {
    fn update(&mut self, x: f64) -> Signal {
        if self.signal.drift {
            *self = Self::new(self.warm_start, self.warning, self.drift);
        }
        self.n += 1;
        self.mean += (x - self.mean) / self.n as f64;
        let deviation = (self.mean * (1.0 - self.mean) / self.n as f64).sqrt();
        if self.n > self.warm_start {
            let now = self.mean + deviation;
            if now <= self.best.0 + self.best.1 {
                self.best = (self.mean, deviation);
            }
            self.signal.warning = now > self.best.0 + self.warning * self.best.1;
            if now > self.best.0 + self.drift * self.best.1 {
                self.signal = Signal {
                    drift: true,
                    warning: false,
                };
            }
        }
        self.signal
    }
}

/// Early drift detection method (Baena-García et al. 2006): errors come closer together.
#[derive(Clone, Debug)]
pub struct Eddm {
    /// Samples, and errors, before the first test.
    pub warm_start: u64,
    /// Ratio below which it warns.
    pub alpha: f64,
    /// Ratio below which it is a drift.
    pub beta: f64,
    n: u64,
    last: u64,
    errors: u64,
    mean: f64,
    squares: f64,
    most: f64,
    signal: Signal,
}

impl Eddm {
    /// An empty detector.
    #[must_use]
    pub fn new(warm_start: u64, alpha: f64, beta: f64) -> Self {
        let most = f64::NEG_INFINITY;
        Self {
            warm_start,
            alpha,
            beta,
            n: 0,
            last: 0,
            errors: 0,
            mean: 0.0,
            squares: 0.0,
            most,
            signal: Signal::default(),
        }
    }
}

impl Detector for Eddm {
    fn update(&mut self, x: f64) -> Signal {
        if self.signal.drift {
            *self = Self::new(self.warm_start, self.alpha, self.beta);
        }
        self.n += 1;
        if x == 0.0 {
            return self.signal;
        }
        let distance = (self.n - self.last) as f64;
        self.last = self.n;
        self.errors += 1;
        let before = self.mean;
        self.mean += (distance - before) / self.errors as f64;
        self.squares += (distance - before) * (distance - self.mean);
        let variance = if self.errors > 1 {
            self.squares / (self.errors - 1) as f64
        } else {
            0.0
        };
        if self.n <= self.warm_start {
            return self.signal;
        }
        let now = self.mean + 2.0 * variance.sqrt();
        if now > self.most {
            self.most = now;
        } else if self.errors > self.warm_start {
            let ratio = now / self.most;
            if ratio < self.beta {
                self.signal.drift = true;
            } else {
                self.signal.warning = ratio < self.alpha;
            }
        }
        self.signal
    }
}

/// Hoeffding's drift detection, averages, one-sided (Frías-Blanco et al. 2015).
#[derive(Clone, Debug)]
pub struct Hddm {
    /// Confidence of a drift.
    pub drift: f64,
    /// Confidence of a warning.
    pub warning: f64,
    all: (f64, f64),
    best: (f64, f64),
    signal: Signal,
}

impl Hddm {
    /// An empty detector.
    #[must_use]
    pub fn new(drift: f64, warning: f64) -> Self {
        Self {
            drift,
            warning,
            all: (0.0, 0.0),
            best: (0.0, 0.0),
            signal: Signal::default(),
        }
    }
}

impl Detector for Hddm {
    fn update(&mut self, x: f64) -> Signal {
        if self.signal.drift {
            *self = Self::new(self.drift, self.warning);
        }
        // (samples, mean)
        self.all.0 += 1.0;
        self.all.1 += (x - self.all.1) / self.all.0;
        let bound = |(n, mean): (f64, f64)| mean + ((1.0 / self.drift).ln() / (2.0 * n)).sqrt();
        if self.best.0 == 0.0 || bound(self.all) <= bound(self.best) {
            self.best = self.all;
        }
        let ((n, mean), (n_best, mean_best)) = (self.all, self.best);
        let beyond = |confidence: f64| {
            let m = (n - n_best) / (n_best * n);
            n > n_best && mean - mean_best >= (m / 2.0 * (2.0 / confidence).ln()).sqrt()
        };
        self.signal = if beyond(self.drift) {
            Signal {
                drift: true,
                warning: false,
            }
        } else {
            Signal {
                drift: false,
                warning: beyond(self.warning),
            }
        };
        self.signal
    }
}

/// Which way a mean may move for [`PageHinkley`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Up.
    Up,
    /// Down.
    Down,
    /// Either.
    Both,
}

/// Page–Hinkley's test (Page 1954): the cumulated distance from the mean leaves its extreme.
#[derive(Clone, Debug)]
pub struct PageHinkley {
    /// Samples before the first test.
    pub min_instances: u64,
    /// Distance that is tolerated.
    pub delta: f64,
    /// Cumulated distance that is a drift.
    pub threshold: f64,
    /// Forgetting factor.
    pub alpha: f64,
    /// Which way.
    pub direction: Direction,
    n: u64,
    mean: f64,
    sums: (f64, f64),
    extremes: (f64, f64),
    signal: Signal,
}

impl PageHinkley {
    /// An empty detector.
    #[must_use]
    pub fn new(
        min_instances: u64,
        delta: f64,
        threshold: f64,
        alpha: f64,
        direction: Direction,
    ) -> Self {
        Self {
            min_instances,
            delta,
            threshold,
            alpha,
            direction,
            n: 0,
            mean: 0.0,
            sums: (0.0, 0.0),
            extremes: (f64::INFINITY, -1.0),
            signal: Signal::default(),
        }
    }
}

impl Detector for PageHinkley {
    fn update(&mut self, x: f64) -> Signal {
        if self.signal.drift {
            *self = Self::new(
                self.min_instances,
                self.delta,
                self.threshold,
                self.alpha,
                self.direction,
            );
        }
        self.n += 1;
        self.mean += (x - self.mean) / self.n as f64;
        let distance = x - self.mean;
        self.sums.0 = self.alpha * self.sums.0 + distance - self.delta;
        self.sums.1 = self.alpha * self.sums.1 + distance + self.delta;
        self.extremes = (
            self.extremes.0.min(self.sums.0),
            self.extremes.1.max(self.sums.1),
        );
        let up =
            self.direction != Direction::Down && self.sums.0 - self.extremes.0 > self.threshold;
        let down =
            self.direction != Direction::Up && self.extremes.1 - self.sums.1 > self.threshold;
        self.signal.drift = self.n >= self.min_instances && (up || down);
        self.signal
    }
}

/// Adaptive windowing (Bifet, Gavaldà 2007): a window that drops its oldest part when two parts of it differ.
#[derive(Clone, Debug)]
pub struct Adwin {
    /// Confidence.
    pub delta: f64,
    /// Samples between two tests.
    pub clock: u64,
    /// Buckets of one size at most.
    pub max_buckets: usize,
    /// The shortest part that is compared.
    pub min_window: f64,
    /// Samples before the first test.
    pub grace_period: f64,
    /// By size 2^i, oldest first: (sum, sum of squared deviations).
    rows: Vec<Vec<(f64, f64)>>,
    width: f64,
    total: f64,
    squares: f64,
    ticks: u64,
    signal: Signal,
}

impl Adwin {
    /// An empty detector.
    #[must_use]
    pub fn new(
        delta: f64,
        clock: u64,
        max_buckets: usize,
        min_window: u64,
        grace_period: u64,
    ) -> Self {
        Self {
            delta,
            clock: clock.max(1),
            max_buckets,
            min_window: min_window as f64,
            grace_period: grace_period as f64,
            rows: vec![Vec::new()],
            width: 0.0,
            total: 0.0,
            squares: 0.0,
            ticks: 0,
            signal: Signal::default(),
        }
    }

    /// Samples in the window.
    #[must_use]
    pub fn width(&self) -> u64 {
        self.width as u64
    }

    /// Mean of the window.
    #[must_use]
    pub fn mean(&self) -> f64 {
        if self.width > 0.0 {
            self.total / self.width
        } else {
            0.0
        }
    }

    /// Sum of squared deviations of the window (river calls it variance).
    #[must_use]
    pub fn squares(&self) -> f64 {
        self.squares
    }

    fn insert(&mut self, x: f64) {
        self.width += 1.0;
        if self.width > 1.0 {
            let before = self.width - 1.0;
            self.squares += before * (x - self.total / before).powi(2) / self.width;
        }
        self.total += x;
        self.rows[0].push((x, 0.0));
        let mut i = 0;
        while self.rows[i].len() > self.max_buckets {
            let size = 2f64.powi(i as i32);
            let (a, b) = (self.rows[i].remove(0), self.rows[i].remove(0));
            let between = size * size * (a.0 / size - b.0 / size).powi(2) / (size + size);
            if i + 1 == self.rows.len() {
                self.rows.push(Vec::new());
            }
            self.rows[i + 1].push((a.0 + b.0, a.1 + b.1 + between));
            i += 1;
        }
    }

    fn drop_oldest(&mut self) {
        let Some(row) = self.rows.last_mut().filter(|row| !row.is_empty()) else {
            return;
        };
        let (sum, squares) = row.remove(0);
        let empty = row.is_empty();
        let size = 2f64.powi(self.rows.len() as i32 - 1);
        self.width -= size;
        self.total -= sum;
        let between = size * self.width * (sum / size - self.total / self.width).powi(2)
            / (size + self.width);
        self.squares -= squares + between;
        if empty && self.rows.len() > 1 {
            self.rows.pop();
        }
    }

    /// Whether a cut from old to new tells two parts apart.
    fn has_cut(&self) -> bool {
        let (mut n0, mut u0) = (0.0, 0.0);
        let buckets = self
            .rows
            .iter()
            .enumerate()
            .rev()
            .flat_map(|(i, row)| row.iter().map(move |b| (i, b.0)));
        for (i, sum) in buckets {
            n0 += 2f64.powi(i as i32);
            u0 += sum;
            let n1 = self.width - n0;
            if n1 <= 0.0 {
                break; // The last bucket is never a cut.
            }
            if n0 < self.min_window || n1 < self.min_window {
                continue;
            }
            let ln = (2.0 * self.width.ln() / self.delta).ln();
            let h = 1.0 / (n0 - self.min_window + 1.0) + 1.0 / (n1 - self.min_window + 1.0);
            let epsilon = (2.0 * h * self.squares / self.width * ln).sqrt() + 2.0 / 3.0 * ln * h;
            if (u0 / n0 - (self.total - u0) / n1).abs() > epsilon {
                return true;
            }
        }
        false
    }
}

impl Detector for Adwin {
    fn update(&mut self, x: f64) -> Signal {
        if self.signal.drift {
            let (min_window, grace) = (self.min_window as u64, self.grace_period as u64);
            *self = Self::new(self.delta, self.clock, self.max_buckets, min_window, grace);
        }
        self.insert(x);
        self.ticks += 1;
        if self.ticks.is_multiple_of(self.clock) && self.width > self.grace_period {
            while self.has_cut() {
                self.signal.drift = true;
                self.drop_oldest();
            }
        }
        self.signal
    }
}

/// Kolmogorov–Smirnov windowing (Raab et al. 2020) whose older half is compared whole.
#[derive(Clone, Debug)]
pub struct Kswin {
    /// p-value at which it is a drift.
    pub alpha: f64,
    /// Samples in each half.
    pub half: usize,
    window: Vec<f64>,
    signal: Signal,
}

impl Kswin {
    /// An empty detector.
    #[must_use]
    pub fn new(alpha: f64, half: usize) -> Self {
        Self {
            alpha,
            half: half.max(1),
            window: Vec::new(),
            signal: Signal::default(),
        }
    }
}

impl Detector for Kswin {
    fn update(&mut self, x: f64) -> Signal {
        if self.signal.drift {
            *self = Self::new(self.alpha, self.half);
        }
        self.window.push(x);
        if self.window.len() > 2 * self.half {
            self.window.remove(0);
        }
        if self.window.len() == 2 * self.half {
            let sample = |part: &[f64]| Sample::numbers(part.iter().map(|&x| Some(x)));
            let (old, new) = self.window.split_at(self.half);
            let result =
                Pair::new(&sample(old), &sample(new)).map(|pair| test::kolmogorov_smirnov(&pair));
            self.signal.drift =
                result.is_some_and(|r| r.p_value <= self.alpha && r.statistic > 0.1);
        }
        self.signal
    }
}
