use std::io::Write;

use super::*;

fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

#[test]
fn an_empty_cell_is_missing_and_nan_is_a_reading() {
    let (_folder, path) = file("a.csv", b"x,y\n1,nan\n,inf\n3,NA\n");
    let table = Table::read(&path, None).unwrap();
    assert_eq!(table.column("x").unwrap().missing, [false, true, false]);
    let y = table.column("y").unwrap();
    assert_eq!(y.missing, [false, false, true]);
    assert!(y.values[0].is_nan() && y.values[1].is_infinite());
}

#[test]
fn a_cell_that_is_no_number_is_named() {
    let (_folder, path) = file("a.csv", b"x,time\n1,noon\n");
    let table = Table::read(&path, None).unwrap();
    assert!(table.column("x").is_ok());
    let refused = table.column("time").unwrap_err().to_string();
    assert!(
        refused.contains("row 1 of column `time` is `noon`"),
        "{refused}"
    );
}

#[test]
fn a_ragged_csv_is_refused() {
    let (_folder, path) = file("a.csv", b"x,y\n1,2\n3\n");
    assert!(Table::read(&path, None).is_err());
}

#[test]
fn a_gzipped_csv_is_read() {
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zipped.write_all(b"x\n1\n2\n").unwrap();
    let (_folder, path) = file("a.csv.gz", &zipped.finish().unwrap());
    assert_eq!(
        Table::read(&path, None)
            .unwrap()
            .column("x")
            .unwrap()
            .values,
        [1.0, 2.0]
    );
}

#[test]
fn arrays_written_are_arrays_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    let arrays = [
        Array {
            name: "x".into(),
            shape: vec![2, 2],
            values: Values::F32(vec![1.0, 2.0, 3.0, 4.0]),
        },
        Array {
            name: "n".into(),
            shape: vec![2],
            values: Values::I64(vec![-1, i64::MAX]),
        },
        Array {
            name: "b".into(),
            shape: vec![1],
            values: Values::Bool(vec![true]),
        },
    ];
    write_arrays(&path, &mut std::fs::File::create(&path).unwrap(), &arrays).unwrap();
    let mut read = read_arrays(&path).unwrap();
    read.sort_by_key(|array| array.name != "x");
    for array in &arrays {
        assert!(read.contains(array), "{array:?} is missing from {read:?}");
    }
}

#[test]
fn columns_of_an_array_are_numbered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npz");
    let array = Array {
        name: "x".into(),
        shape: vec![2, 2],
        values: Values::F32(vec![1.0, 2.0, 3.0, 4.0]),
    };
    write_arrays(&path, &mut std::fs::File::create(&path).unwrap(), &[array]).unwrap();
    let table = Table::read(&path, None).unwrap();
    assert_eq!(table.column("x.1").unwrap().values, [2.0, 4.0]);
}

#[test]
fn damaged_files_are_refused_without_panic() {
    for name in ["a.npz", "a.parquet", "a.csv.gz"] {
        for bytes in [
            &b""[..],
            b"PK\x03\x04",
            b"PAR1PAR1",
            b"\x1f\x8b\x08",
            &[0xff; 64],
        ] {
            let (_folder, path) = file(name, bytes);
            assert!(Table::read(&path, None).is_err(), "{name} {bytes:?}");
        }
    }
}
