//! What is fed, with examples and words of its format.

use std::{cell::RefCell, io::Write, path::PathBuf, sync::Arc};

use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, ListArray, RecordBatch, StringArray},
    datatypes::Float64Type,
    ipc::writer::{FileWriter, StreamWriter},
};
use parquet::arrow::ArrowWriter;
use perennial::{
    api::{container::ResultsFormat, revision::Signature},
    cluster::prometheus::held_to,
    data::{
        table::{Format, Kind, Source},
        training_rows,
        uri::Uri,
    },
    evaluate::results,
    gateway::{
        inputs, open_inference, predictions,
        prompt::template::CompiledPrompt,
        protobuf, signature,
        tensors::{self, Form, Side},
    },
    plan::schedule,
    stats::{
        self,
        sketch::{ColumnKind, NumericSketch, RowSketch},
        text,
    },
};
use serde_json::{Value, json};

/// One parser.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&[u8]),
    pub(crate) examples: fn() -> Vec<Vec<u8>>,
    pub(crate) words: &'static [&'static str],
}

const VALUES: &[&str] = &[
    "NaN",
    "null",
    "None",
    "inf",
    "-0",
    "1e999",
    "9223372036854775808",
    "-9223372036854775809",
    "0x1",
    "true",
    "False",
    "2013-01-01",
    "2013-13-41T99:99:99Z",
    "-9999-01-01",
    "\"",
    "\"\"",
    ",",
    "\n",
    "\r\n",
    "\u{feff}",
    "é",
    "\u{0}",
    "\\u0000",
    "{",
    "}",
    "[",
    "]",
    ":",
];

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "csv",
        run: |bytes| table(bytes, Format::Csv, "a.csv"),
        examples: || {
            texts(&[
                "id,temp,origin,late,when\n1,20.5,EWR,true,2013-01-01T05:00:00Z\n2,,\"L,G\"\"A\",false,2013-01-02\n",
                "a\n1\n",
                "a,b\r\n1,x\r\n",
            ])
        },
        words: VALUES,
    },
    Target {
        name: "jsonl",
        run: |bytes| table(bytes, Format::Jsonl, "a.jsonl"),
        examples: || {
            texts(&[
                "{\"a\": 1, \"b\": \"x\", \"c\": [1, {\"d\": null}], \"t\": \"2013-01-01T00:00:00Z\"}\n{\"b\": true}\n",
            ])
        },
        words: VALUES,
    },
    Target {
        name: "gzip",
        run: |bytes| table(bytes, Format::Csv, "a.csv.gz"),
        examples: || {
            let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            let _ = gz.write_all(b"a,b\n1,x\n2,y\n");
            vec![gz.finish().unwrap_or_default()]
        },
        words: VALUES,
    },
    Target {
        name: "zstd",
        run: |bytes| table(bytes, Format::Jsonl, "a.jsonl.zst"),
        examples: || {
            vec![zstd::stream::encode_all(&b"{\"a\": 1}\n{\"a\": 2}\n"[..], 1).unwrap_or_default()]
        },
        words: VALUES,
    },
    Target {
        name: "parquet",
        run: |bytes| table(bytes, Format::Parquet, "a.parquet"),
        examples: || vec![written(0), written(40)],
        words: &["PAR1", "\u{0}\u{0}\u{0}\u{0}"],
    },
    Target {
        name: "arrow",
        run: |bytes| table(bytes, Format::Arrow, "a.arrow"),
        examples: arrows,
        words: &["ARROW1", "\u{0}\u{0}\u{0}\u{0}"],
    },
    Target {
        name: "schedule",
        run: |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let (cron, zone) = text.split_once('|').unwrap_or((&*text, "UTC"));
            let _ = schedule::next(cron, Some(zone), jiff::Timestamp::UNIX_EPOCH);
        },
        examples: || {
            texts(&[
                "0 3 * * 0|Europe/Berlin",
                "*/5 1-4,7 29 2 *",
                "0 0 31 4 *",
                "@daily|UTC",
                "0 2 L * MON#3",
            ])
        },
        words: &[
            "*",
            "/",
            "-",
            ",",
            "L",
            "W",
            "#",
            "?",
            "60",
            "99999999999",
            "0",
            "MON",
            "JAN",
            "@yearly",
            " ",
        ],
    },
    Target {
        name: "uri",
        run: |bytes| {
            if let Ok(uri) = String::from_utf8_lossy(bytes).parse::<Uri>() {
                let _ = (
                    uri.name(),
                    uri.mounted(&PathBuf::from("/mnt")),
                    uri.to_string(),
                );
            }
        },
        examples: || {
            texts(&[
                "s3://bucket/a/b.csv",
                "pvc://claim/x/../y",
                "https://user@host:80/a%20b?c#d",
                "/tmp/x",
            ])
        },
        words: &[
            "s3://", "pvc://", "https://", "..", "//", "%2e%2e", "%", "@", ":", "[::1]", "?", "#",
            "\u{0}", " ",
        ],
    },
    Target {
        name: "template",
        run: |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let revision = json!({"version": "v", "backend": {"url": "http://llm/v1/", "model": "m"},
                "prompt": {"messages": [{"role": "user", "content": text}], "variables": {"type": "object"}}});
            let Ok(revision) = serde_json::from_value(revision) else {
                return;
            };
            let Ok(prompt) = CompiledPrompt::new(&revision) else {
                return;
            };
            let body = json!({"model": "m", "prompt": {"id": "p", "variables": {"x": "{{ x }}", "n": 3, "list": [1, "two", {"k": null}]}}});
            let _ = body.as_object().map(|body| prompt.render(body));
        },
        examples: || {
            texts(&[
                "Answer {{ x }} in {{ n }} words.{% for i in list %}{{ loop.index }}: {{ i|tojson }}{% endfor %}",
                "{% if x == 'y' and n > 2 %}{{ list[0] ~ x|upper|replace('a', 'b') }}{% else %}-{% endif %}{# c #}{% raw %}{{{% endraw %}",
                "{% set y = x.split(',') %}{% macro m(a, b=1) %}{{ a * b }}{% endmacro %}{{ m(n) }}",
            ])
        },
        words: &[
            "{{",
            "}}",
            "{%",
            "%}",
            "{#",
            "|",
            "for i in range(100000)",
            "endfor",
            "if",
            "x",
            "n",
            "list",
            "*",
            "**",
            "[",
            "(",
            "'",
            "loop",
            "self",
            "~",
            "-",
            "e9999",
        ],
    },
    Target {
        name: "inference",
        run: |bytes| {
            let _ = (
                open_inference::inputs(bytes),
                open_inference::model(bytes),
                open_inference::Method::of(&String::from_utf8_lossy(bytes)),
            );
            for field in protobuf::Fields::of(bytes) {
                let _ = field.map(|(_, field)| field.text());
            }
            let _ = protobuf::packed(bytes);
            let body = bytes::Bytes::copy_from_slice(bytes);
            let _ = signature::check(&http::HeaderMap::new(), &body, &signature_of());
            let _ = signature::check_message(&body, &signature_of());
            let mut sketch =
                RowSketch::new([("x", ColumnKind::Numeric), ("c", ColumnKind::Categorical)]);
            let _ = inputs::add_rows(&mut sketch, bytes, &signature_of());
            for form in [Form::Json, Form::Message, Form::Binary(bytes.len() / 2)] {
                for side in [Side::Request, Side::Answer] {
                    let body = tensors::read(bytes, form, side);
                    if let Some(predicted) = body.as_ref().and_then(predictions::of) {
                        predicted.sketch(&mut stats::predictions::empty());
                    }
                }
            }
        },
        examples: || {
            let json = json!({"id": "1", "inputs": [{"name": "x", "datatype": "FP64", "shape": [2], "data": [1.0, 2.5]}, {"name": "c", "datatype": "BYTES", "shape": [2, 1], "data": ["a", "b"]}]});
            let flat = json!({"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 2], "data": [[1, 2]]}]});
            let answer = json!({"outputs": [{"name": "predict", "datatype": "INT64", "shape": [1], "data": [1]}, {"name": "predict_proba", "datatype": "FP64", "shape": [1, 2], "data": [[0.25, 0.75]]}]});
            // model_name "m", one tensor "x" of FP64 [1] with its content.
            let binary = b"\x0a\x01m\x2a\x17\x0a\x01x\x12\x04FP64\x1a\x01\x01\x2a\x09\x3a\x08\0\0\0\0\0\0\xf0\x3f".to_vec();
            vec![
                json.to_string().into_bytes(),
                flat.to_string().into_bytes(),
                answer.to_string().into_bytes(),
                binary,
            ]
        },
        words: &[
            "\"shape\":[",
            "18446744073709551615",
            "-1",
            "[[[[",
            "]]",
            "\"datatype\":\"",
            "BOOL",
            "INT64",
            "1e308",
            "null",
            "\u{7f}\u{7f}",
        ],
    },
    Target {
        name: "promql",
        run: |bytes| {
            let text = String::from_utf8_lossy(bytes);
            if let Ok(held) = held_to(&text, "namespace", "shop") {
                // What is held stays held.
                assert!(
                    held_to(&held, "namespace", "shop").is_ok(),
                    "{text} became {held}"
                );
            }
        },
        examples: || {
            texts(&[
                "sum(rate(http_requests_total{job=~\"a|b\",code!=\"200\"}[5m])) by (code) / ignoring(x) group_left sum(up)",
                "histogram_quantile(0.99, sum by (le) (rate(x_bucket[1m] offset 5m))) > bool 2",
                "max_over_time(deriv(y[5m:1m])[1h:]) or vector(1) unless absent({__name__=\"z\"})",
            ])
        },
        words: &[
            "(",
            ")",
            "{",
            "}",
            "[5m]",
            "[1h:]",
            " offset -5m",
            " @ end()",
            "by",
            "on",
            "=~",
            "!~",
            "\"",
            "'",
            "`",
            "-",
            "namespace=\"other\"",
            "{__name__=~\".*\"}",
            "1e400",
            "Inf",
        ],
    },
    Target {
        name: "results",
        run: |bytes| {
            use ResultsFormat::{Evidently, JUnit, Json, LmEval, Promptfoo};
            for format in [Evidently, Promptfoo, LmEval, JUnit, Json] {
                let Ok(found) = results::parse(format, bytes, 1) else {
                    continue;
                };
                assert!(found.errors + found.failed <= found.items);
                for metric in &found.metrics {
                    assert!(metric.value.is_none_or(f64::is_finite), "{metric:?}");
                }
                let _ = found.finish(Some("x"), 0.01);
            }
        },
        examples: || {
            let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/results");
            let files = [
                "promptfoo.json",
                "evidently.json",
                "lm_eval.json",
                "junit.xml",
            ];
            let read = files
                .iter()
                .map(|name| std::fs::read(folder.join(name)).unwrap_or_default());
            let plain = r#"{"metrics": {"a": 1, "b": {"value": 0.5, "samples": 3, "lower": 0, "upper": 1}}, "items": [{"error": "x"}]}"#;
            read.chain([plain.into()]).collect()
        },
        words: &[
            "NaN",
            "-Infinity",
            "null",
            "1e308",
            "-1",
            "18446744073709551615",
            "\"metrics\":",
            "\"namedScores\":{\"a\":",
            "\"acc,none\":",
            "\"acc_stderr,none\":",
            "(column=a,",
            "<testcase>",
            "</testcase>",
            "<failure/>",
            "<error>",
            "<![CDATA[",
            "&#0;",
            "<!DOCTYPE a [<!ENTITY b \"&b;\">]>",
        ],
    },
    Target {
        name: "rows",
        run: |bytes| {
            if let Ok(sets) = training_rows::parse(bytes) {
                let written = training_rows::write(&sets).expect("what was read is written");
                let again = training_rows::parse(&written).expect("and read again");
                assert_eq!(sets, again);
            }
        },
        examples: || {
            let head = r#"{"format":1,"sets":[{"dataset":"train","by":"Row","columns":["a","b"],"rows":3,"zeros":0,"hashes":2},{"dataset":"train","by":"Key","columns":["a"],"rows":3,"zeros":1,"hashes":1}]}"#;
            let hashes = [1u64, 2, 3].iter().flat_map(|hash| hash.to_le_bytes());
            vec![format!("{head}\n").bytes().chain(hashes).collect()]
        },
        words: &[
            "\n",
            "\"hashes\":18446744073709551615",
            "\"zeros\":64",
            "\"format\":2",
            "\"by\":\"Key\"",
            "\"sets\":[]",
        ],
    },
    Target {
        name: "sketch",
        run: |bytes| {
            let _ = serde_json::from_slice::<RowSketch>(bytes);
            if let Ok(mut sketch) = serde_json::from_slice::<NumericSketch>(bytes) {
                let other = sketch.clone();
                sketch.merge(&other);
                let _ = (
                    sketch.mean(),
                    sketch.std(),
                    sketch.quantile(0.5),
                    sketch.below(&[0.0, 1.0]),
                );
            }
        },
        examples: || {
            let mut sketch = NumericSketch::default();
            (0..3000).for_each(|i| sketch.add(f64::from(i) * 1.1));
            let few = r#"{"level":0,"buckets":[1,1],"range":["0.0","1.0"]}"#;
            vec![few.into(), serde_json::to_vec(&sketch).unwrap_or_default()]
        },
        words: &[
            "9223372036854775807",
            "-1",
            "[",
            ",",
            "\"nan\":",
            "1e999",
            "255",
        ],
    },
    Target {
        name: "text",
        run: |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let half = text
                .char_indices()
                .nth(text.chars().count() / 2)
                .map_or(0, |c| c.0);
            let (a, b) = text.split_at(half);
            let (a, b) = (shortened(a), shortened(b));
            let _ = (
                text::rouge_l(a, b),
                text::corpus_bleu(&[(a, b)]),
                text::chrf(a, b),
                text::token_f1(a, b),
                text::indel_ratio(a, b),
            );
            let _ = text::pii::entities(a);
        },
        examples: || {
            texts(&[
                "The cat, on 536-22-1234 or ٥٣٦-٢٢-١٢٣٤, wrote to a@b.example.",
                "4111 1111 1111 1111 DE89 3704 0044 0532 0130 00",
            ])
        },
        words: &[
            "٣", "４", "\u{200b}", "\u{301}", "İ", "ß", "-", " ", ".", "1",
        ],
    },
];

fn shortened(text: &str) -> &str {
    text.char_indices().nth(400).map_or(text, |c| &text[..c.0])
}

fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn signature_of() -> Signature {
    let features: Value =
        json!({"features": [{"name": "x", "type": "Number"}, {"name": "c", "type": "String"}]});
    serde_json::from_value(features).unwrap_or_default()
}

thread_local! {
    /// One file for all inputs.
    static FOLDER: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
}

/// Opens the bytes as a table, and reads all that it says it has.
fn table(bytes: &[u8], format: Format, name: &str) {
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| {
            // In memory, where there is such a place: thousands of files a second.
            tempfile::tempdir_in("/dev/shm")
                .or_else(|_| tempfile::tempdir())
                .expect("there is room for a file")
        });
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("the file can be written");
        let Ok(source) = Source::open(&path, Some(format)) else {
            return;
        };
        let plain = source.fields().iter().filter(|f| f.kind != Kind::Other);
        let names: Vec<&str> = plain.map(|f| f.name.as_str()).collect();
        let mut rows = 0;
        let read = source.scan(&names, |batch| {
            assert!(
                batch.columns.iter().all(|c| c.values.len() == batch.rows),
                "columns of different lengths"
            );
            rows += batch.rows as u64;
            Ok(())
        });
        assert!(
            read.is_err() || source.is_columnar() || rows == source.rows(),
            "{rows} of {} rows",
            source.rows()
        );
        for field in source.fields() {
            let _ = source.vectors(&field.name, 10);
        }
    });
}

fn batch(rows: i64) -> RecordBatch {
    let lists = (0..rows).map(|i| Some(vec![Some(i as f64), None]));
    let columns: [(&str, ArrayRef); 4] = [
        (
            "i",
            Arc::new(Int64Array::from_iter(
                (0..rows).map(|i| (i % 5 > 0).then_some(i)),
            )),
        ),
        (
            "x",
            Arc::new(Float64Array::from_iter_values(
                (0..rows).map(|i| i as f64 / 7.0),
            )),
        ),
        (
            "c",
            Arc::new(StringArray::from_iter_values(
                (0..rows).map(|i| format!("c{}", i % 3)),
            )),
        ),
        (
            "v",
            Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(lists)),
        ),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(n, c)| (n, c, true)))
        .expect("columns of one length")
}

fn written(rows: i64) -> Vec<u8> {
    let (batch, mut bytes) = (batch(rows), Vec::new());
    let mut writer =
        ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("a schema of Parquet");
    writer.write(&batch).expect("it can be written");
    writer.close().expect("it can be ended");
    bytes
}

fn arrows() -> Vec<Vec<u8>> {
    let (batch, mut file, mut stream) = (batch(40), Vec::new(), Vec::new());
    let mut writer = FileWriter::try_new(&mut file, &batch.schema()).expect("a schema");
    writer
        .write(&batch)
        .and_then(|()| writer.finish())
        .expect("it can be written");
    let mut writer = StreamWriter::try_new(&mut stream, &batch.schema()).expect("a schema");
    writer
        .write(&batch)
        .and_then(|()| writer.finish())
        .expect("it can be written");
    vec![file, stream]
}
