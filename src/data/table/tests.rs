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
