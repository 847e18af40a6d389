//! What revisions are like, in words that images and parameters carry: `good`, `slow`, `errors`, …

/// How pods of a revision behave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nature {
    /// Milliseconds until a pod is ready.
    pub start: u64,
    /// Its pods never start.
    pub never: bool,
    /// Share of requests that fail.
    pub errors: f64,
    /// What Evaluations measure.
    pub accuracy: f64,
    /// Evaluations can't measure it.
    pub unmeasurable: bool,
}

impl Default for Nature {
    fn default() -> Self {
        Self {
            start: 4_000,
            never: false,
            errors: 0.0,
            accuracy: 0.9,
            unmeasurable: false,
        }
    }
}

/// The words there are.
pub const WORDS: [&str; 7] = [
    "good",
    "slow",
    "errors",
    "never",
    "badeval",
    "refused",
    "unmeasurable",
];

/// What a word means.
pub fn named(word: &str) -> Nature {
    let usual = Nature::default();
    match word {
        "slow" => Nature {
            start: 25_000,
            ..usual
        },
        "errors" => Nature {
            errors: 0.7,
            ..usual
        },
        "never" => Nature {
            never: true,
            ..usual
        },
        "badeval" => Nature {
            accuracy: 0.4,
            ..usual
        },
        "unmeasurable" => Nature {
            unmeasurable: true,
            ..usual
        },
        _ => usual,
    }
}

/// What an image (or URI, or prompt) such as `registry/s:errors-3` is like.
pub fn of_image(image: &str) -> Nature {
    let tag = image.rsplit([':', '/']).next().unwrap_or_default();
    named(tag.split('-').next().unwrap_or_default())
}

impl Nature {
    /// The worse of both.
    pub fn with(self, other: Nature) -> Nature {
        Nature {
            start: self.start.max(other.start),
            never: self.never || other.never,
            errors: self.errors.max(other.errors),
            accuracy: self.accuracy.min(other.accuracy),
            unmeasurable: self.unmeasurable || other.unmeasurable,
        }
    }
}
