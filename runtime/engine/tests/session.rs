//! A session over the real worker: contract, counts, recovery.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used)]

mod common;

use bellwether_drift::Special;
use bellwether_features::Step;
use bellwether_package::sections::MissingRule;
use bellwether_runtime::{
    Fault, InputError, OpenError, Refusal, RunError, SealedBlob, Session, Tensor,
};
use common::{Opened as _, Parts, options, readings};
use rustix::process::{Pid, Signal, kill_process};

fn open(parts: &Parts) -> Session {
    let (package, blob) = parts.verified();
    Session::open(package, blob, options()).unwrap()
}

#[test]
fn raw_readings_pass_the_steps_and_raw_readings_are_counted() {
    let mut parts = Parts::linear();
    // 100 °C-like readings become whole numbers: (x − 1) / 2.
    parts.contract.steps = vec![Step::Scale {
        field: 1,
        centre: 1.0,
        deviation: 2.0,
    }];
    let mut session = open(&parts);
    let run = session
        .run(&[readings(&[[1.0, 5.0, 3.0], [0.0, 1.0, 0.0]])])
        .unwrap();
    let scores = Tensor::from_f32("scores", &[2, 2], &[-1.5, 15.0, 0.5, -1.0]);
    assert_eq!(run.outputs, [scores]);
    let window = session.take_window();
    assert_eq!((window.runs, window.rows), (1, 2));
    let raw = window.inputs[1].values().unwrap();
    assert_eq!((raw.min, raw.max), (1.0, 5.0), "before the step");
    assert_eq!(
        window.outputs[1].special(Special::Above),
        1,
        "15 is above training"
    );
    assert_eq!(window.outputs[1].special(Special::Below), 1);
    assert_eq!(window.uncounted, 0);
    assert_eq!(window.latency.count(), 1);
    assert!(window.memory_bytes_peak > 0);
    assert!(session.window().inputs[0].is_empty(), "a new window begins");
}

#[test]
fn an_input_that_breaks_the_contract_is_refused_by_port_field_and_row() {
    let mut session = open(&Parts::linear());
    let value = |session: &mut Session, x: f32| match session
        .run(&[readings(&[[1.0; 3], [1.0, x, 1.0]])])
        .unwrap_err()
    {
        RunError::Input(InputError::Value {
            port,
            field,
            row,
            fault,
            ..
        }) => {
            assert_eq!((port.as_str(), field.as_str(), row), ("readings", "b", 1));
            fault
        }
        other => panic!("{other}"),
    };
    assert_eq!(value(&mut session, f32::NAN), Fault::Missing);
    assert_eq!(value(&mut session, f32::INFINITY), Fault::Infinite);
    assert_eq!(
        value(&mut session, 2000.0),
        Fault::Outside {
            lo: -1000.0,
            hi: 1000.0
        }
    );

    let x = readings(&[[1.0; 3]]);
    let shaped = |shape: &[u32]| Tensor {
        shape: shape.to_vec(),
        ..x.clone()
    };
    let named = Tensor {
        name: "other".to_owned(),
        ..x.clone()
    };
    for bad in [
        vec![],
        vec![x.clone(), x.clone()],
        vec![named],
        vec![shaped(&[3])],
        vec![shaped(&[2, 3])],
        vec![shaped(&[3, 1])],
        vec![Tensor::from_f32("readings", &[0, 3], &[])],
    ] {
        assert!(
            matches!(session.run(&bad), Err(RunError::Input(_))),
            "{bad:?}"
        );
    }
    let window = session.take_window();
    assert_eq!((window.runs, window.refused, window.failed), (0, 10, 0));
    // What a sensor sent is counted all the same; what had no shape is not.
    assert_eq!(window.inputs[1].special(Special::Nan), 1);
    assert_eq!(window.inputs[1].special(Special::Infinite), 1);
    assert_eq!(window.inputs[1].special(Special::Above), 1);
    assert_eq!(window.inputs[0].total(), 6);
}

#[test]
fn a_reading_that_may_be_missing_is_filled_and_counted_as_missing() {
    let mut parts = Parts::linear();
    parts.contract.inputs[0].fields[2].missing = MissingRule::Allow;
    parts.contract.steps = vec![Step::Fill {
        field: 2,
        rule: bellwether_features::FillRule::Constant(3.0),
    }];
    let mut session = open(&parts);
    let run = session.run(&[readings(&[[1.0, 2.0, f32::NAN]])]).unwrap();
    assert_eq!(run.outputs[0].to_f32().unwrap(), [-1.5, 15.0]);
    assert_eq!(session.window().inputs[2].special(Special::Missing), 1);
}

#[test]
fn non_finite_outputs_are_told_and_counted() {
    let mut session = open(&Parts::logarithm());
    let x = Tensor::from_f32("readings", &[2, 1], &[1.0, -1.0]);
    let run = session.run(&[x]).unwrap();
    assert_eq!(run.outputs_nonfinite, 1);
    let window = session.take_window();
    assert_eq!(window.outputs_nonfinite, 1);
    assert_eq!(window.outputs[0].special(Special::Nan), 1);
}

#[test]
fn a_second_baseline_counts_the_same_inputs() {
    let mut session = open(&Parts::linear());
    let other = common::baseline(&common::linear_contract());
    session.also_count(Some(&other)).unwrap();
    session.run(&[readings(&[[1.0, 2.0, 3.0]])]).unwrap();
    let window = session.take_window();
    assert_eq!(window.inputs_also.as_ref().unwrap(), &window.inputs);
    assert!(
        session.window().inputs_also.is_some(),
        "it goes on in the next window"
    );
    let foreign = common::baseline(&common::logarithm_contract());
    assert!(session.also_count(Some(&foreign)).is_err());
    session.also_count(None).unwrap();
    assert!(session.window().inputs_also.is_none());
}

#[test]
fn a_dead_worker_is_replaced_and_no_count_is_lost() {
    let mut session = open(&Parts::linear());
    let x = [readings(&[[1.0, 2.0, 3.0]])];
    session.run(&x).unwrap();
    let first = session.worker_id().unwrap();
    let pid = Pid::from_raw(first.cast_signed()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    assert!(matches!(session.run(&x), Err(RunError::Died(_))));
    session.run(&x).unwrap();
    assert_ne!(session.worker_id().unwrap(), first);
    let window = session.take_window();
    assert_eq!((window.runs, window.failed, window.deaths), (2, 1, 1));
    assert_eq!(window.inputs[0].total(), 3);
}

#[test]
fn deaths_in_a_row_are_answered_with_a_wait_and_then_it_serves_again() {
    let mut session = open(&Parts::linear());
    let x = [readings(&[[1.0, 2.0, 3.0]])];
    let kill = |session: &mut Session| {
        let pid = Pid::from_raw(session.worker_id().unwrap().cast_signed()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        assert!(matches!(session.run(&x), Err(RunError::Died(_))));
    };
    kill(&mut session);
    session.run(&x).unwrap();
    kill(&mut session);
    let Err(RunError::Recovering {
        retry_after,
        deaths: 2,
    }) = session.run(&x)
    else {
        panic!("no wait after a second death");
    };
    assert!(session.worker_id().is_none());
    // The state waited for is a time: the backoff's own.
    std::thread::sleep(retry_after);
    session.run(&x).unwrap();
}

fn total(session: &mut Session, rows: &[f32]) -> (Vec<f32>, bool) {
    let reading = Tensor::from_f32("reading", &[rows.len() as u32, 1], rows);
    let run = session.run(&[reading]).unwrap();
    (run.outputs[0].to_f32().unwrap(), run.fresh)
}

#[test]
fn a_state_goes_back_in_until_a_new_stream_begins() {
    let mut session = open(&Parts::accumulate());
    assert_eq!(total(&mut session, &[1.0]), (vec![2.0], true));
    assert_eq!(total(&mut session, &[10.0]), (vec![22.0], false));
    session.begin_anew();
    assert_eq!(total(&mut session, &[1.0, 5.0]), (vec![2.0, 10.0], true));
    assert_eq!(total(&mut session, &[1.0, 5.0]), (vec![4.0, 20.0], false));
}

#[test]
fn a_state_is_never_given_to_another_number_of_rows() {
    let mut session = open(&Parts::accumulate());
    total(&mut session, &[1.0, 2.0]);
    let three = Tensor::from_f32("reading", &[3, 1], &[1.0; 3]);
    assert!(matches!(
        session.run(&[three]).unwrap_err(),
        RunError::Input(InputError::Stream {
            found: 3,
            expected: 2
        })
    ));
    assert_eq!(total(&mut session, &[0.0, 0.0]), (vec![2.0, 4.0], false));
}

#[test]
fn a_worker_that_replaces_another_says_that_the_state_is_lost() {
    let mut session = open(&Parts::accumulate());
    total(&mut session, &[1.0]);
    let pid = Pid::from_raw(session.worker_id().unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    let reading = Tensor::from_f32("reading", &[1, 1], &[1.0]);
    assert!(matches!(session.run(&[reading]), Err(RunError::Died(_))));
    assert_eq!(total(&mut session, &[3.0]), (vec![6.0], true));
}

#[test]
fn a_model_that_needs_more_than_the_contract_gives_is_refused_by_port() {
    type Change = fn(&mut Parts);
    let changes: [(Change, &str); 3] = [
        (|parts| parts.contract.constants.clear(), "gain"),
        (|parts| parts.contract.states.clear(), "total"),
        (
            |parts| parts.contract.states[0].output = "sum".to_owned(),
            "sum",
        ),
    ];
    for (change, named) in changes {
        let mut parts = Parts::accumulate();
        change(&mut parts);
        let (package, blob) = parts.verified();
        match Session::open(package, blob, options()) {
            Err(OpenError::Refused(Refusal::Port { port, .. })) => assert_eq!(port, named),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn other_bytes_than_the_manifest_s_are_refused() {
    let (package, _) = Parts::linear().verified();
    let other = SealedBlob::copy_from(&common::model("logarithm.onnx")[..]).unwrap();
    assert!(matches!(
        Session::open(package, other, options()),
        Err(OpenError::OtherModel { .. })
    ));
}

#[test]
fn a_step_that_needs_a_stream_is_refused_at_the_start() {
    let mut parts = Parts::linear();
    parts.contract.steps = vec![Step::Fill {
        field: 0,
        rule: bellwether_features::FillRule::Last { initial: 0.0 },
    }];
    let (package, blob) = parts.verified();
    assert!(matches!(
        Session::open(package, blob, options()),
        Err(OpenError::StepNeedsStream { step: 0 })
    ));
}

#[test]
fn outputs_that_do_not_keep_the_contract_never_reach_the_application() {
    let mut parts = Parts::linear();
    let fields = ["s", "t", "u"].map(common::field).to_vec();
    parts.contract.outputs = vec![common::port("scores", fields)];
    let expected = common::golden_tensor("scores", 3, &[0.0; 3]);
    parts.golden = common::golden(common::golden_tensor("readings", 3, &[0.0; 3]), expected);
    let mut session = open(&parts);
    let error = session.run(&[readings(&[[1.0; 3]])]).unwrap_err();
    assert!(matches!(error, RunError::Output(_)), "{error}");
    assert!(!error.is_input_fault());
}
