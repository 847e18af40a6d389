//! What holds for any text.

use proptest::prelude::*;

use super::*;

/// Any text: of every script, of digits in several scripts with separators, of what our rules look for.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[0-9٠-٩०-९０-９ .@+()a-zA-Z-]{0,40}",
        r"(\+?[0-9٣]{1,4}[-. ]?){1,6}",
        "(the |a |An |cat[.,!]? |\u{200b}|\n|[A-Z]{2}[0-9]{2} ?[A-Z0-9]{4} ){0,12}",
    ]
}

proptest! {
    #[test]
    fn no_text_makes_a_function_panic_and_scores_stay_in_their_range(a in text(), b in text()) {
        let within = |x: f64, top: f64| (0.0..=top * (1.0 + 1e-12)).contains(&x);
        for x in [token_f1(&a, &b), levenshtein_similarity(&a, &b), indel_ratio(&a, &b)] {
            prop_assert!(within(x, 1.0), "{x}");
        }
        for rouge in [rouge_n(&a, &b, 1), rouge_n(&a, &b, 2), rouge_l(&a, &b)] {
            prop_assert!(within(rouge.f, 1.0) && within(rouge.precision, 1.0) && within(rouge.recall, 1.0));
        }
        for x in [sentence_bleu(&a, &b).score, chrf(&a, &b), corpus_bleu(&[(&a, &b)]).score, chrf_corpus(&[(&a, &b)], 2)] {
            prop_assert!(within(x, 100.0), "{x}");
        }
        let _ = (exact_match(&a, &b), pii::entities(&a));
        for finding in [refusal(&a), injection(&a), toxicity(&a, std::slice::from_ref(&b))] {
            prop_assert!(within(finding.score, 1.0));
        }
        let counts = Readability::of(&a);
        prop_assert!(counts.sentences <= counts.words && counts.words <= counts.syllables);
    }

    #[test]
    fn a_text_is_most_like_itself(a in text()) {
        prop_assert!(exact_match(&a, &a));
        prop_assert_eq!((token_f1(&a, &a), levenshtein(&a, &a), indel_ratio(&a, &a)), (1.0, 0, 1.0));
        let same = rouge_l(&a, &a).f;
        prop_assert!(same == 0.0 || same == 1.0);
        prop_assert!(a.split_whitespace().next().is_none() || (chrf(&a, &a) - 100.0).abs() < 1e-9);
        prop_assert_eq!(normalize(&normalize(&a)), normalize(&a));
    }

    #[test]
    fn edit_distance_is_a_metric(a in "[ab]{0,8}", b in "[ab]{0,8}", c in "[ab]{0,8}") {
        prop_assert_eq!(levenshtein(&a, &b), levenshtein(&b, &a));
        prop_assert!(levenshtein(&a, &c) <= levenshtein(&a, &b) + levenshtein(&b, &c));
        prop_assert_eq!(levenshtein(&a, &b) == 0, a == b);
        prop_assert!((indel_ratio(&a, &b) - indel_ratio(&b, &a)).abs() < 1e-15);
    }

    #[test]
    fn rouge_and_token_f1_swap_precision_and_recall_with_their_sides(a in text(), b in text()) {
        let (x, y) = (rouge_n(&a, &b, 1), rouge_n(&b, &a, 1));
        prop_assert_eq!((x.precision, x.recall), (y.recall, y.precision));
        prop_assert!((token_f1(&a, &b) - token_f1(&b, &a)).abs() < 1e-12);
        prop_assert!((rouge_l(&a, &b).f - rouge_l(&b, &a).f).abs() < 1e-12);
    }
}
