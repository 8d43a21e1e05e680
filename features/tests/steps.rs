//! Steps on single rows, their checks, and their bytes on the wire.
#![allow(clippy::unwrap_used)] // Helpers of tests panic as tests do.

use bellwether_features::{
    CHANNELS_MAX, FillRule, Method, Plan, STEPS_MAX, Step, StepError, apply_row, validate,
};

const HALVE: Step = Step::Unit {
    field: 0,
    factor: 0.5,
    offset: 1.0,
};

#[test]
fn steps_apply_in_order() {
    let steps = [
        Step::Fill {
            field: 1,
            rule: FillRule::Constant(4.0),
        },
        HALVE,
        Step::Scale {
            field: 0,
            centre: 1.0,
            deviation: 2.0,
        },
        Step::Range {
            field: 1,
            lo: 0.0,
            hi: 8.0,
        },
        Step::Clip {
            field: 2,
            lo: -1.0,
            hi: 1.0,
        },
    ];
    let mut row = [8.0, f32::NAN, 9.0];
    apply_row(&steps, &mut row).unwrap();
    assert_eq!(row, [2.0, 0.5, 1.0]);
}

#[test]
fn every_nan_becomes_the_same_nan() {
    let mut row = [f32::from_bits(0xffc0_1234), f32::INFINITY];
    let steps = [
        HALVE,
        Step::Scale {
            field: 1,
            centre: 0.0,
            deviation: 1.0,
        },
    ];
    apply_row(&steps, &mut row).unwrap();
    assert_eq!(row[0].to_bits(), f32::NAN.to_bits());
    assert_eq!(row[1], f32::INFINITY);
}

#[test]
fn steps_that_need_a_stream_are_refused_on_a_row() {
    for step in [
        Step::Window { len: 2, hop: 1 },
        Step::Resample {
            period_us: 1,
            method: Method::Mean,
        },
        Step::Fill {
            field: 0,
            rule: FillRule::Last { initial: 0.0 },
        },
    ] {
        let mut row = [1.0];
        assert_eq!(
            apply_row(&[HALVE, step], &mut row),
            Err(StepError::NeedsStream(1))
        );
        assert_eq!(row, [1.0], "a refused row is left as it was");
        assert!(!Plan::new(&[step], 1).unwrap().is_rowwise());
    }
}

#[test]
fn impossible_steps_are_refused() {
    let number = StepError::NumberInvalid(0);
    let length = StepError::LengthInvalid(0);
    let cases = [
        (
            Step::Unit {
                field: 0,
                factor: 0.0,
                offset: 0.0,
            },
            number,
        ),
        (
            Step::Unit {
                field: 0,
                factor: 1.0,
                offset: f32::NAN,
            },
            number,
        ),
        (
            Step::Unit {
                field: 2,
                factor: 1.0,
                offset: 0.0,
            },
            StepError::FieldUnknown { step: 0, field: 2 },
        ),
        (
            Step::Fill {
                field: 0,
                rule: FillRule::Constant(f32::NAN),
            },
            number,
        ),
        (
            Step::Fill {
                field: 0,
                rule: FillRule::Last {
                    initial: f32::INFINITY,
                },
            },
            number,
        ),
        (
            Step::Scale {
                field: 0,
                centre: 0.0,
                deviation: 0.0,
            },
            number,
        ),
        (
            Step::Scale {
                field: 0,
                centre: 0.0,
                deviation: -1.0,
            },
            number,
        ),
        (
            Step::Range {
                field: 0,
                lo: 1.0,
                hi: 1.0,
            },
            number,
        ),
        (
            Step::Range {
                field: 0,
                lo: f32::MIN,
                hi: f32::MAX,
            },
            number,
        ),
        (
            Step::Clip {
                field: 0,
                lo: 2.0,
                hi: 1.0,
            },
            number,
        ),
        (
            Step::Clip {
                field: 0,
                lo: f32::NAN,
                hi: 1.0,
            },
            number,
        ),
        (Step::Window { len: 0, hop: 1 }, length),
        (Step::Window { len: 1, hop: 0 }, length),
        (Step::Window { len: 1025, hop: 1 }, length),
        (
            Step::Resample {
                period_us: 0,
                method: Method::Mean,
            },
            length,
        ),
        (
            Step::Resample {
                period_us: u64::MAX,
                method: Method::Mean,
            },
            length,
        ),
    ];
    for (step, error) in cases {
        assert_eq!(validate(&[step], 2), Err(error), "{step:?}");
    }
}

#[test]
fn steps_out_of_place_or_number_are_refused() {
    let window = Step::Window { len: 2, hop: 1 };
    let resample = Step::Resample {
        period_us: 5,
        method: Method::Linear,
    };
    assert_eq!(validate(&[window, HALVE], 1), Err(StepError::Misplaced(0)));
    assert_eq!(validate(&[window, window], 1), Err(StepError::Misplaced(0)));
    assert_eq!(
        validate(&[window, resample], 1),
        Err(StepError::Misplaced(0))
    );
    assert_eq!(
        validate(&[resample, resample], 1),
        Err(StepError::Misplaced(1))
    );
    assert_eq!(validate(&[], 0), Err(StepError::Channels(0)));
    assert_eq!(
        validate(&[], CHANNELS_MAX + 1),
        Err(StepError::Channels(CHANNELS_MAX + 1))
    );
    let many = vec![HALVE; STEPS_MAX + 1];
    assert_eq!(validate(&many, 1), Err(StepError::TooMany(STEPS_MAX + 1)));
    assert_eq!(validate(&[HALVE, resample, HALVE, window], 1), Ok(()));
}

/// These bytes are signed into packages in the field: they may grow, never change.
#[test]
fn bytes_on_the_wire_are_stable() {
    let one = [0, 0, 128, 63];
    let cases: [(Step, Vec<u8>); 8] = [
        (
            Step::Unit {
                field: 300,
                factor: 1.0,
                offset: 1.0,
            },
            [&[0, 172, 2][..], &one, &one].concat(),
        ),
        (
            Step::Fill {
                field: 1,
                rule: FillRule::Constant(1.0),
            },
            [&[1, 1, 0][..], &one].concat(),
        ),
        (
            Step::Fill {
                field: 1,
                rule: FillRule::Last { initial: 1.0 },
            },
            [&[1, 1, 1][..], &one].concat(),
        ),
        (
            Step::Scale {
                field: 2,
                centre: 1.0,
                deviation: 1.0,
            },
            [&[2, 2][..], &one, &one].concat(),
        ),
        (
            Step::Range {
                field: 2,
                lo: 1.0,
                hi: 1.0,
            },
            [&[3, 2][..], &one, &one].concat(),
        ),
        (
            Step::Clip {
                field: 2,
                lo: 1.0,
                hi: 1.0,
            },
            [&[4, 2][..], &one, &one].concat(),
        ),
        (Step::Window { len: 3, hop: 2 }, vec![5, 3, 2]),
        (
            Step::Resample {
                period_us: 9,
                method: Method::Mean,
            },
            vec![6, 9, 2],
        ),
    ];
    for (step, bytes) in cases {
        assert_eq!(postcard::to_allocvec(&step).unwrap(), bytes, "{step:?}");
        assert_eq!(postcard::from_bytes::<Step>(&bytes).unwrap(), step);
    }
}

#[test]
fn unknown_step_is_refused() {
    assert!(postcard::from_bytes::<Step>(&[7, 0, 0, 0]).is_err());
}
