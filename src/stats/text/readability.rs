//! How hard a text is to read: counts, and indices of them. Made for English; the last one needs no syllables and is used for others, too.

use serde::Serialize;

/// Counts of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Readability {
    /// Letters and digits.
    pub letters: usize,
    /// Words: runs of letters, digits and apostrophes.
    pub words: usize,
    /// Sentences: runs of words that end in `.`, `!`, `?`, `…`, a colon of another script, or at the end.
    pub sentences: usize,
    /// Syllables, by groups of vowels (an English silent `e` isn't one): right for about nine words in ten.
    pub syllables: usize,
}

impl Readability {
    /// Counts.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut counts = Self::default();
        for sentence in text.split(['.', '!', '?', '…', '。', '！', '？', '।']) {
            let mut any = false;
            let words = sentence.split(|c: char| !c.is_alphanumeric() && !matches!(c, '\'' | '’'));
            for word in words {
                let letters = word.chars().filter(|c| c.is_alphanumeric()).count();
                if letters > 0 {
                    any = true;
                    counts.words += 1;
                    counts.letters += letters;
                    counts.syllables += syllables(word);
                }
            }
            counts.sentences += usize::from(any);
        }
        counts
    }

    fn per(&self, a: usize, b: usize) -> Option<f64> {
        (b > 0).then(|| a as f64 / b as f64)
    }

    /// Flesch reading ease, 206.835 − 1.015 words/sentence − 84.6 syllables/word (Flesch 1948): 100 is easy, 0 is hard. `None` without words.
    #[must_use]
    pub fn reading_ease(&self) -> Option<f64> {
        let (long, heavy) = (
            self.per(self.words, self.sentences)?,
            self.per(self.syllables, self.words)?,
        );
        Some(206.835 - 1.015 * long - 84.6 * heavy)
    }

    /// Flesch–Kincaid grade, 0.39 words/sentence + 11.8 syllables/word − 15.59 (Kincaid et al. 1975): years of school.
    #[must_use]
    pub fn grade(&self) -> Option<f64> {
        let (long, heavy) = (
            self.per(self.words, self.sentences)?,
            self.per(self.syllables, self.words)?,
        );
        Some(0.39 * long + 11.8 * heavy - 15.59)
    }

    /// Automated readability index, 4.71 letters/word + 0.5 words/sentence − 21.43 (Smith, Senter 1967): years of school, without syllables.
    #[must_use]
    pub fn automated_index(&self) -> Option<f64> {
        let (wide, long) = (
            self.per(self.letters, self.words)?,
            self.per(self.words, self.sentences)?,
        );
        Some(4.71 * wide + 0.5 * long - 21.43)
    }
}

fn syllables(word: &str) -> usize {
    let letters: Vec<char> = word
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphabetic())
        .collect();
    let vowel = |c: &char| {
        matches!(
            c,
            'a' | 'e' | 'i' | 'o' | 'u' | 'y' | 'ä' | 'ö' | 'ü' | 'é' | 'è' | 'á' | 'í' | 'ó' | 'ú'
        )
    };
    let groups = letters
        .chunk_by(|a, b| vowel(a) == vowel(b))
        .filter(|run| vowel(&run[0]))
        .count();
    let silent = match letters.as_slice() {
        // "table" has two, "made" one; "moved" one, "wanted" two.
        [.., a, 'l', 'e'] if !vowel(a) => 0,
        [.., a, 'e'] if !vowel(a) => 1,
        [.., a, 'e', 'd'] if !vowel(a) && !matches!(a, 't' | 'd') => 1,
        _ => 0,
    };
    groups.saturating_sub(silent).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_indices_are_their_formulas_on_counts_that_can_be_checked() {
        let counts =
            Readability::of("The cat sat on the mat. It was a table! Don't wanted moved made…");
        assert_eq!(
            counts,
            Readability {
                letters: 47,
                words: 14,
                sentences: 3,
                syllables: 16
            }
        );
        let ease = 206.835 - 1.015 * 14.0 / 3.0 - 84.6 * 16.0 / 14.0;
        assert!((counts.reading_ease().unwrap() - ease).abs() < 1e-12);
        assert!(
            (counts.automated_index().unwrap() - (4.71 * 47.0 / 14.0 + 0.5 * 14.0 / 3.0 - 21.43))
                .abs()
                < 1e-12
        );
        assert!(counts.grade().unwrap() < 3.0);
        for empty in ["", " … !?", "--"] {
            assert_eq!(Readability::of(empty).reading_ease(), None, "{empty}");
        }
        let hard = Readability::of(
            "Notwithstanding considerable organisational complexity, institutional accountability necessitates comprehensive documentation.",
        );
        assert!(
            hard.reading_ease() < counts.reading_ease()
                && hard.automated_index() > counts.automated_index()
        );
    }
}
