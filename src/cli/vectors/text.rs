//! Texts against references.

use crate::stats::text;
use serde_json::{Value, json};

use super::table::Tables;

pub(super) fn compute(tables: &mut Tables, case: &Value) -> Option<Value> {
    let file = case["input"]["file"].as_str()?;
    let mut all = |name: &str| -> Vec<String> {
        tables
            .column(file, name)
            .texts()
            .into_iter()
            .flatten()
            .collect()
    };
    let (predictions, references) = (all("pred"), all("ref"));
    if case["metric"] == "corpus" {
        let pairs: Vec<(&str, &str)> = predictions
            .iter()
            .zip(&references)
            .map(|(p, r)| (p.as_str(), r.as_str()))
            .collect();
        let bleu = text::corpus_bleu(&pairs);
        return Some(json!({
            "bleu": bleu.score, "precisions": bleu.precisions, "brevity_penalty": bleu.brevity_penalty,
            "sys_len": bleu.prediction_tokens, "ref_len": bleu.reference_tokens,
            "chrf": text::chrf_corpus(&pairs, 0), "chrf_pp": text::chrf_corpus(&pairs, 2),
        }));
    }
    let row = case["input"]["row"].as_u64()? as usize;
    let (p, r) = (predictions[row].as_str(), references[row].as_str());
    Some(match case["metric"].as_str()? {
        "edit" => json!({
            "exact_match": p == r, "exact_match_normalized": text::exact_match(p, r), "token_f1": text::token_f1(p, r),
            "levenshtein": text::levenshtein(p, r), "levenshtein_similarity": text::levenshtein_similarity(p, r),
            "indel_ratio": text::indel_ratio(p, r),
        }),
        "rouge" => json!({
            "rouge1": text::rouge_n(p, r, 1), "rouge2": text::rouge_n(p, r, 2), "rougeL": text::rouge_l(p, r),
        }),
        "sentence_bleu" => {
            json!({"score": text::sentence_bleu(p, r).score, "chrf": text::chrf(p, r)})
        }
        _ => return None,
    })
}
