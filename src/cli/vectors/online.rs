//! Detectors on streams.

use crate::stats::drift::online::{
    Adwin, Ddm, Detector, Direction, Eddm, Hddm, Kswin, PageHinkley,
};
use serde_json::{Value, json};

use super::compare::number;
use super::table::Tables;

pub(super) fn compute(tables: &mut Tables, case: &Value) -> Option<Value> {
    let (stream, field) = (
        case["input"]["stream"].as_str()?,
        case["input"]["field"].as_str()?,
    );
    let values = tables.column(stream, field).numbers();
    let real = |key: &str| case["params"][key].as_f64().unwrap_or(f64::NAN);
    let whole = |key: &str| case["params"][key].as_u64().unwrap_or_default();
    Some(match case["metric"].as_str()? {
        "ddm" => run(
            &mut Ddm::new(
                whole("warm_start"),
                real("warning_threshold"),
                real("drift_threshold"),
            ),
            &values,
        ),
        "eddm" => run(
            &mut Eddm::new(whole("warm_start"), real("alpha"), real("beta")),
            &values,
        ),
        "hddm_a" => run(
            &mut Hddm::new(real("drift_confidence"), real("warning_confidence")),
            &values,
        ),
        "page_hinkley" => {
            let direction = match case["params"]["mode"].as_str()? {
                "up" => Direction::Up,
                "down" => Direction::Down,
                _ => Direction::Both,
            };
            let (delta, threshold, alpha) = (real("delta"), real("threshold"), real("alpha"));
            run(
                &mut PageHinkley::new(whole("min_instances"), delta, threshold, alpha, direction),
                &values,
            )
        }
        "kswin" => run(
            &mut Kswin::new(real("alpha"), whole("stat_size") as usize),
            &values,
        ),
        "adwin" => {
            let (buckets, least) = (whole("max_buckets") as usize, whole("min_window_length"));
            let mut adwin = Adwin::new(
                real("delta"),
                whole("clock"),
                buckets,
                least,
                whole("grace_period"),
            );
            let mut value = run(&mut adwin, &values);
            value["width"] = adwin.width().into();
            value["mean"] = number(adwin.mean());
            value["variance"] = number(adwin.squares());
            // Since it last began anew: river counts a detection in the window that it ends.
            value["n_detections"] =
                u64::from(value["drift_at"].as_array()?.last() == Some(&json!(values.len() - 1)))
                    .into();
            value
        }
        _ => return None,
    })
}

fn run(detector: &mut dyn Detector, values: &[f64]) -> Value {
    let signals: Vec<_> = values.iter().map(|&x| detector.update(x)).collect();
    let up =
        |flag: &dyn Fn(usize) -> bool| (0..signals.len()).filter(|&i| flag(i)).collect::<Vec<_>>();
    json!({"drift_at": up(&|i| signals[i].drift), "warning_at": up(&|i| signals[i].warning)})
}
