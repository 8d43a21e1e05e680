use bellwether_package::Digest;
use bellwether_package::sections::{DType, Dim, Field as ContractField, MissingRule};

use super::*;

const NOW: UnixSecs = UnixSecs(1_000);

fn field(name: &str, export: bool, domain: Option<&[i64]>) -> ContractField {
    ContractField {
        name: name.into(),
        unit: String::new(),
        range: None,
        missing: MissingRule::Allow,
        export,
        kind: match domain {
            None => FieldKind::Numeric,
            Some(codes) => FieldKind::Categorical {
                domain: codes.to_vec(),
            },
        },
        source: String::new(),
    }
}

/// `class` (codes 1, 5, 7) in a port of its own; `secret` and `score` side by side.
fn outputs() -> Vec<Port> {
    let port = |name: &str, dtype, shape, fields| Port {
        name: name.into(),
        dtype,
        shape,
        fields,
    };
    vec![
        port(
            "classes",
            DType::I64,
            vec![Dim::Batch],
            vec![field("class", true, Some(&[1, 5, 7]))],
        ),
        port(
            "scores",
            DType::F32,
            vec![Dim::Batch, Dim::Fixed(2)],
            vec![field("secret", false, None), field("score", true, None)],
        ),
    ]
}

fn slot(name: &str) -> SlotName {
    SlotName::new(name).unwrap()
}

fn release(n: u8) -> PackageId {
    PackageId(Digest([n; 32]))
}

struct Bench(Labels);

impl Bench {
    fn new() -> Self {
        Self(Labels::new(u64::MAX - 1))
    }

    /// An answer of two rows: classes 5 and `other`, scores 0.5 and `score`.
    fn answer(&self, other: i64, score: f32) -> PredictionId {
        let classes = Tensor::of::<i64>("classes", &[2], &[5, other]);
        let scores = Tensor::of::<f32>("scores", &[2, 2], &[9.0, 0.5, 9.0, score]);
        let mut inner = self.0.inner();
        let schema = inner.schema(&slot("a"), release(1), &outputs());
        let values = schema.values(&[classes, scores]).unwrap();
        inner.remember(schema, values)
    }

    fn label(
        &self,
        prediction: PredictionId,
        row: usize,
        values: &[(&str, f64)],
    ) -> Result<Counted, LabelError> {
        let values = values.iter();
        let values = values.map(|(field, value)| ((*field).to_owned(), *value));
        let label = Label {
            prediction,
            row,
            values: values.collect(),
        };
        self.0.take(&slot("a"), &[label], NOW)
    }
}

fn counted(counted: u32, repeated: u32, unknown: u32) -> Result<Counted, LabelError> {
    Ok(Counted {
        counted,
        repeated,
        unknown,
    })
}

#[test]
fn labels_become_counts_of_their_fields_and_nothing_else() {
    let bench = Bench::new();
    // The ids pass the end of their range in between.
    let (first, second) = (bench.answer(7, 2.0), bench.answer(4, f32::NAN));
    let third = bench.answer(7, 1.0);
    assert_eq!(third.to_string(), "0000000000000000");
    assert_eq!(
        bench.label(first, 0, &[("class", 5.0), ("score", 1.0)]),
        counted(2, 0, 0)
    );
    assert_eq!(bench.label(first, 1, &[("class", 1.0)]), counted(1, 0, 0));
    let both = [("class", 7.0), ("score", 0.0)];
    assert_eq!(bench.label(second, 1, &both), counted(2, 0, 0));
    assert_eq!(bench.label(third, 1, &both), counted(2, 0, 0));
    let told = bench.0.tallies(NOW.plus_secs(60));
    let [classes, scores] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!((classes.field, scores.field), (0, 2));
    assert_eq!((classes.started_at, classes.secs), (NOW, 60));
    let Tally::Classes(confusion) = &classes.tally else {
        panic!("{classes:?}");
    };
    // Rows: true code 1, 5, 7; columns: predicted 1, 5, 7, none of them.
    assert_eq!(confusion.cells, [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1, 1]);
    assert_eq!(classes.check(Some(3)), Ok(()));
    let Tally::Numbers(errors) = scores.tally else {
        panic!("{scores:?}");
    };
    let expected = Errors {
        labels: 2,
        sum: 0.5,
        sum_abs: 1.5,
        sum_sq: 1.25,
    };
    assert_eq!(errors, expected, "a NaN has no error");
    assert_eq!(bench.0.tallies(NOW), [], "each is told once");
}

#[test]
fn a_label_that_comes_twice_is_counted_once() {
    let bench = Bench::new();
    let id = bench.answer(1, 1.0);
    assert_eq!(bench.label(id, 0, &[("score", 1.0)]), counted(1, 0, 0));
    let both = [("score", 7.0), ("class", 1.0)];
    assert_eq!(bench.label(id, 0, &both), counted(1, 1, 0));
}

#[test]
fn labels_that_fit_nothing_are_refused_and_none_of_their_request_counts() {
    let bench = Bench::new();
    let id = bench.answer(1, 1.0);
    let good = ("class", 1.0);
    let refused = |values: &[(&str, f64)], row| bench.label(id, row, values).unwrap_err();
    let field = |field: &str| LabelError::field(field);
    assert_eq!(refused(&[good, ("secret", 1.0)], 0), field("secret"));
    assert_eq!(refused(&[good, ("nothing", 1.0)], 0), field("nothing"));
    let value = |field: &str| LabelError::value(field);
    assert_eq!(
        refused(&[("class", 4.0), ("score", 1.0)], 0),
        value("class")
    );
    assert_eq!(refused(&[good, ("score", f64::NAN)], 0), value("score"));
    assert_eq!(refused(&[good], 2), LabelError::Row { row: 2, rows: 2 });
    assert_eq!(bench.0.tallies(NOW), []);
}

#[test]
fn predictions_are_forgotten_the_oldest_first_and_their_labels_are_unknown() {
    let bench = Bench::new();
    let first = bench.answer(1, 1.0);
    for _ in 0..PREDICTIONS_MAX {
        bench.answer(1, 1.0);
    }
    let last = bench.answer(1, 1.0);
    let both = [("score", 1.0), ("class", 1.0)];
    assert_eq!(bench.label(first, 0, &both), counted(0, 0, 2));
    assert_eq!(
        bench.label(PredictionId(1 << 40), 0, &both),
        counted(0, 0, 2)
    );
    assert_eq!(bench.label(last, 0, &both), counted(2, 0, 0));
    let label = Label {
        prediction: last,
        row: 1,
        values: [("score".to_owned(), 1.0)].into(),
    };
    let elsewhere = bench.0.take(&slot("b"), &[label], NOW);
    assert_eq!(elsewhere, counted(0, 0, 1), "another slot's prediction");
}

#[test]
fn an_answer_of_many_rows_pushes_out_others_and_one_of_too_many_is_not_remembered() {
    let bench = Bench::new();
    let first = bench.answer(1, 1.0);
    let rows = VALUES_MAX / 2;
    let answer = |rows: usize| {
        let classes = Tensor::of::<i64>("classes", &[rows as u32], &vec![1; rows]);
        let scores = vec![1.0; 2 * rows];
        let scores = Tensor::of::<f32>("scores", &[rows as u32, 2], &scores);
        let schema = bench.0.inner().schema(&slot("a"), release(1), &outputs());
        schema.values(&[classes, scores])
    };
    assert!(answer(rows + 1).is_none());
    let values = answer(rows).unwrap();
    let mut inner = bench.0.inner();
    let schema = inner.schema(&slot("a"), release(1), &outputs());
    inner.remember(schema, values);
    drop(inner);
    assert_eq!(bench.label(first, 0, &[("score", 1.0)]), counted(0, 0, 1));
}

#[test]
fn a_request_is_read_strictly() {
    let read = serde_json::from_str::<LabelsRequest>;
    let text = r#"{"labels":[{"prediction":"00000000000000ff","values":{"score":1}}]}"#;
    let label = &read(text).unwrap().labels[0];
    assert_eq!((label.prediction, label.row), (PredictionId(255), 0));
    for bad in [
        r#"{"labels":[{"prediction":"ff","values":{}}]}"#,
        r#"{"labels":[{"prediction":"+0000000000000ff","values":{}}]}"#,
        r#"{"labels":[{"prediction":"00000000000000ff","value":1}]}"#,
        r#"{"labels":[{"prediction":"00000000000000ff","values":{"score":"high"}}]}"#,
        r#"{"labels":[{"prediction":"00000000000000ff","row":-1,"values":{}}]}"#,
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
}
