use std::io::Write;

use super::*;

fn source(name: &str, bytes: &[u8]) -> Result<(tempfile::TempDir, Source)> {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    Source::open(&path, None).map(|source| (root, source))
}

fn kinds(source: &Source) -> Vec<(&str, Kind)> {
    source
        .fields()
        .iter()
        .map(|f| (f.name.as_str(), f.kind))
        .collect()
}

const CSV: &str = "id,temp,origin,late,when,region\n1,20.5,EWR,true,2013-01-01T05:00:00Z,NA\n2,,JFK,false,2013-01-02 05:00:00,\n3,NaN,\"L,GA\",true,2013-01-03,EU\n";

#[test]
fn types_of_a_csv_are_found_by_looking_at_all_values() {
    let (_root, source) = source("a.csv", CSV.as_bytes()).unwrap();
    assert_eq!(
        kinds(&source),
        [
            ("id", Kind::Integer),
            ("temp", Kind::Number),
            ("origin", Kind::Text),
            ("late", Kind::Boolean),
            ("when", Kind::Time),
            ("region", Kind::Text)
        ]
    );
    let table = source.read(&["origin", "temp", "region", "when"]).unwrap();
    assert_eq!((source.rows(), table.rows), (3, 3));
    let cells = |name: &str| {
        let column = table.column(name).unwrap();
        (0..3).map(|i| column.values.cell(i)).collect::<Vec<_>>()
    };
    assert_eq!(
        cells("origin"),
        [Cell::Text("EWR"), Cell::Text("JFK"), Cell::Text("L,GA")]
    );
    // In a text column `NA` is a value (North America), only an empty field is missing.
    assert_eq!(
        cells("region"),
        [Cell::Text("NA"), Cell::Null, Cell::Text("EU")]
    );
    assert_eq!(cells("temp")[1], Cell::Null);
    assert!(cells("temp")[2].is_missing());
    assert_eq!(cells("when")[1].to_string(), "2013-01-02T05:00:00Z");
}

#[test]
fn compressed_files_read_as_plain_ones() {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(CSV.as_bytes()).unwrap();
    let zst = zstd::stream::encode_all(CSV.as_bytes(), 1).unwrap();
    let (_r1, plain) = source("a.csv", CSV.as_bytes()).unwrap();
    let (_r2, gz) = source("a.csv.gz", &gz.finish().unwrap()).unwrap();
    let (_r3, zst) = source("a.csv.zst", &zst).unwrap();
    let all = ["id", "temp", "origin", "late"];
    for other in [gz, zst] {
        assert_eq!(other.fields(), plain.fields());
        assert_eq!(
            other.read(&all[..1]).unwrap(),
            plain.read(&all[..1]).unwrap()
        );
    }
}

#[test]
fn jsonl_has_the_types_that_its_values_have() {
    let text = "{\"a\": 1, \"b\": \"x\", \"n\": 1.5}\n\n{\"b\": null, \"a\": 2, \"n\": \"NaN\", \"deep\": [1]}\n{\"a\": 3, \"b\": \"7\", \"n\": \"Infinity\", \"t\": true}\n";
    let (_root, source) = source("a.jsonl", text.as_bytes()).unwrap();
    assert_eq!(
        kinds(&source),
        [
            ("a", Kind::Integer),
            ("b", Kind::Text),
            ("n", Kind::Number),
            ("deep", Kind::Other),
            ("t", Kind::Boolean)
        ]
    );
    let table = source.read(&["n", "t", "b"]).unwrap();
    assert_eq!(table.columns[0].values.cell(2), Cell::Number(f64::INFINITY));
    assert!(table.columns[0].values.cell(1).is_missing());
    assert_eq!(table.columns[1].values.cell(0), Cell::Null);
    let error = source.read(&["deep"]).unwrap_err().to_string();
    assert!(
        error.contains("column `deep` of a.jsonl holds lists"),
        "{error}"
    );
}

#[test]
fn a_few_bad_lines_are_counted_and_many_are_an_error() {
    let mut text = String::from("a,b\n");
    for i in 0..300 {
        text += &format!("{i},x\n");
    }
    let few = format!("{text}1,2,3\n");
    let (_root, source_) = source("a.csv", few.as_bytes()).unwrap();
    assert_eq!(source_.rows(), 300);
    assert_eq!(source_.skipped().lines, 1);
    assert_eq!(
        source_.skipped().first.as_deref(),
        Some("a.csv line 302: 3 fields where the header has 2")
    );
    assert_eq!(source_.read(&["a"]).unwrap().rows, 300);
    let error = source("b.csv", b"a,b\n1\n2\n3,4\n")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("2 of 3 lines of b.csv can't be read; the first: b.csv line 2"),
        "{error}"
    );
    let error = source("c.jsonl", b"not json\n").unwrap_err().to_string();
    assert!(error.contains("c.jsonl line 1: it isn't JSON"), "{error}");
}

#[test]
fn what_is_no_table_is_said_with_what_to_write() {
    for (name, bytes, word) in [
        ("data", &b"x"[..], "write `format`"),
        ("a.parquet", b"not parquet at all", "no readable Parquet"),
        ("a.csv", b"a,a\n1,2\n", "two columns `a`"),
        ("a.csv.gz", b"not gzip", "readable header"),
    ] {
        let error = source(name, bytes).unwrap_err().to_string();
        assert!(error.contains(word), "{name}: {error}");
    }
    let (_root, source) = source("a.csv", CSV.as_bytes()).unwrap();
    let error = source.read(&["tmp"]).unwrap_err().to_string();
    assert_eq!(
        error,
        "a.csv has no column `tmp`: it has id, temp, origin, late, when, region"
    );
}

#[test]
fn a_directory_of_files_is_one_table() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("b.csv"), "x,y\n3,b\n").unwrap();
    std::fs::write(root.path().join("a.csv"), "y,x\na,1.5\n").unwrap();
    std::fs::write(root.path().join("_SUCCESS"), "").unwrap();
    std::fs::write(root.path().join("README.md"), "about").unwrap();
    let source = Source::open(root.path(), None).unwrap();
    let table = source.read(&["x", "y"]).unwrap();
    assert_eq!(
        table.columns[0].values,
        Values::Number(vec![Some(1.5), Some(3.0)])
    );
    assert_eq!(table.columns[1].values.cell(1), Cell::Text("b"));
}

#[test]
fn parquet_of_the_vectors_is_read_with_all_row_groups() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/data/large_ref.parquet");
    let source = Source::open(&path, None).unwrap();
    assert!(source.rows() > 1000);
    let names: Vec<&str> = source
        .fields()
        .iter()
        .filter(|f| f.kind != Kind::Other)
        .map(|f| f.name.as_str())
        .collect();
    let mut rows = 0;
    source
        .scan(&names, |batch| {
            assert!(batch.columns.iter().all(|c| c.values.len() == batch.rows));
            rows += batch.rows as u64;
            Ok(())
        })
        .unwrap();
    assert_eq!(rows, source.rows());
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_data() {
    let text = "\u{feff}a,b\r\n1,x\r\n2,y\r\n";
    let (_root, csv) = source("a.csv", text.as_bytes()).unwrap();
    assert_eq!(kinds(&csv), [("a", Kind::Integer), ("b", Kind::Text)]);
    assert_eq!(
        csv.read(&["b"]).unwrap().columns[0].values.cell(1),
        Cell::Text("y")
    );
    let (_root, json) = source("a.jsonl", "\u{feff}{\"a\": 1}\n".as_bytes()).unwrap();
    assert_eq!(json.rows(), 1);
}

fn arrow_batch(from: i64) -> arrow::array::RecordBatch {
    use arrow::array::{ArrayRef, Float32Array, Int64Array, ListArray, StringArray};
    use arrow::datatypes::Float64Type;
    let ids: Vec<Option<i64>> = (from..from + 5_000)
        .map(|i| (i % 7 != 0).then_some(i))
        .collect();
    let lists = ids
        .iter()
        .map(|i| Some(vec![Some(i.unwrap_or(0) as f64); 3]));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", std::sync::Arc::new(Int64Array::from(ids.clone()))),
        (
            "x",
            std::sync::Arc::new(Float32Array::from_iter_values(
                ids.iter().map(|i| i.unwrap_or(0) as f32 / 3.0),
            )),
        ),
        (
            "name",
            std::sync::Arc::new(StringArray::from_iter(
                ids.iter().map(|i| i.map(|i| format!("n{i}"))),
            )),
        ),
        (
            "embedding",
            std::sync::Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(lists)),
        ),
    ];
    arrow::array::RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(n, c)| (n, c, true)),
    )
    .unwrap()
}

fn arrow_bytes(stream: bool) -> Vec<u8> {
    use arrow::ipc::writer::{FileWriter, StreamWriter};
    let (a, b) = (arrow_batch(0), arrow_batch(5_000));
    let mut bytes = Vec::new();
    if stream {
        let mut writer = StreamWriter::try_new(&mut bytes, &a.schema()).unwrap();
        writer
            .write(&a)
            .and_then(|()| writer.write(&b))
            .and_then(|()| writer.finish())
            .unwrap();
    } else {
        let mut writer = FileWriter::try_new(&mut bytes, &a.schema()).unwrap();
        writer
            .write(&a)
            .and_then(|()| writer.write(&b))
            .and_then(|()| writer.finish())
            .unwrap();
    }
    bytes
}

#[test]
fn arrow_files_and_streams_are_read_as_parquet_is() {
    let mut parquet = Vec::new();
    let batch = arrow_batch(0);
    let mut writer =
        ::parquet::arrow::ArrowWriter::try_new(&mut parquet, batch.schema(), None).unwrap();
    writer
        .write(&batch)
        .and_then(|()| writer.write(&arrow_batch(5_000)))
        .unwrap();
    writer.close().unwrap();
    let (_root, expected) = source("a.parquet", &parquet).unwrap();
    let columns = ["name", "id", "x"];
    for stream in [false, true] {
        let (_root, source) = source("a.arrow", &arrow_bytes(stream)).unwrap();
        assert_eq!(source.fields(), expected.fields());
        assert!(source.is_columnar() && source.rows() == 10_000);
        assert!(source.field("x").unwrap().single && !source.field("id").unwrap().single);
        assert_eq!(
            source.read(&columns).unwrap(),
            expected.read(&columns).unwrap()
        );
        let vectors = source.vectors("embedding", usize::MAX).unwrap();
        assert_eq!(vectors, expected.vectors("embedding", usize::MAX).unwrap());
        assert_eq!((vectors.len(), &vectors[8]), (10_000, &vec![8.0; 3]));
        let some = source.vectors("embedding", 100).unwrap();
        assert_eq!(some, source.vectors("embedding", 100).unwrap());
        assert!(some.len() == 100 && some.iter().any(|v| v[0] > 5_000.0));
        let error = source.vectors("name", 1).unwrap_err().to_string();
        assert!(error.contains("column `name` of a.arrow"), "{error}");
    }
}

#[test]
fn memory_of_a_scan_is_one_batch_whatever_the_rows() {
    let mut text = String::from("id,x\n");
    for i in 0..30_000 {
        text += &format!("{i},{}.5\n", i % 100);
    }
    for (name, bytes) in [
        ("a.csv", text.as_bytes().to_vec()),
        ("a.arrow", arrow_bytes(false)),
    ] {
        let (_root, source) = source(name, &bytes).unwrap();
        let mut batches = 0;
        source
            .scan(&["id", "x"], |batch| {
                assert!(batch.rows <= super::BATCH);
                batches += 1;
                Ok(())
            })
            .unwrap();
        assert!(batches > 1);
    }
}

/// Whatever a file holds, reading it ends in a table or in a sentence.
fn read_all(name: &str, bytes: &[u8]) {
    if let Ok((_root, source)) = source(name, bytes) {
        let names: Vec<&str> = source
            .fields()
            .iter()
            .filter(|f| f.kind != Kind::Other)
            .map(|f| f.name.as_str())
            .collect();
        let _ = source.scan(&names, |_| Ok(()));
        for field in source.fields() {
            let _ = source.vectors(&field.name, 10);
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
        for name in ["a.csv", "a.jsonl", "a.parquet", "a.arrow", "a.csv.gz", "a.jsonl.zst"] {
            read_all(name, &bytes);
        }
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in "([a-z0-9\"',{}:\\[\\] .\n\r\t-]|NaN|null|\"a\":|2013-01-01|é){0,80}") {
        for name in ["a.csv", "a.jsonl"] {
            read_all(name, text.as_bytes());
        }
    }

    #[test]
    fn no_changed_byte_of_a_good_file_makes_a_reader_panic(places in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(), proptest::prelude::any::<u8>()), 1..6)) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/data");
        let good = [("a.parquet", std::fs::read(folder.join("emb_0_ref.parquet")).unwrap()), ("a.arrow", small_arrow())];
        for (name, mut bytes) in good {
            for (place, byte) in &places {
                let at = place.index(bytes.len());
                bytes[at] = *byte;
            }
            read_all(name, &bytes);
        }
    }
}

fn small_arrow() -> Vec<u8> {
    let batch = arrow_batch(0).slice(0, 20);
    let mut bytes = Vec::new();
    let mut writer = arrow::ipc::writer::FileWriter::try_new(&mut bytes, &batch.schema()).unwrap();
    writer.write(&batch).and_then(|()| writer.finish()).unwrap();
    bytes
}
