//! The engine in this process gives what a worker gives, with the same types.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used)]

use std::num::NonZeroU32;

use bellwether_package::read;
use bellwether_runtime::{
    BlobSealer, OpenError, Options, RunError, SealedBlob, Session, Tensor, prove,
};
use bellwether_tests::packages::{Parts, approved};

fn opened(parts: &Parts) -> (bellwether_package::VerifiedPackage, SealedBlob) {
    let mut sealer = BlobSealer::new().unwrap();
    let package = read(&parts.packed()[..], &mut sealer).unwrap();
    (approved(package), sealer.seal().unwrap())
}

fn session(parts: &Parts, options: Options) -> Session {
    let (package, blob) = opened(parts);
    Session::open(package, blob, options).unwrap()
}

fn readings(rows: &[[f32; 3]]) -> Tensor {
    Tensor::from_f32("readings", &[rows.len() as u32, 3], &rows.concat())
}

#[test]
fn rows_are_answered_and_counted_without_a_worker() {
    let mut session = session(&Parts::linear(), Options::in_process());
    let run = session
        .run(&[readings(&[[1.0, 2.0, 3.0], [0.0; 3]])])
        .unwrap();
    let scores = run.output("scores").unwrap();
    assert_eq!(scores.to_vec::<f32>().unwrap(), [-1.5, 15.0, 0.5, -1.0]);
    assert_eq!(run.output("readings"), None, "an input is no output");
    assert_eq!(session.worker_id(), None);
    let window = session.take_window();
    assert_eq!((window.runs, window.rows, window.deaths), (1, 2, 0));
    assert!(!window.inputs[0].is_empty());
}

#[test]
fn a_package_is_proven_within_its_budget() {
    let (package, blob) = opened(&Parts::linear());
    let proof = prove(&package, blob, Options::in_process()).unwrap();
    assert!(proof.passed(), "{:?}", proof.shortfalls());
    assert!(proof.timed_runs > 0);
}

#[test]
fn states_are_kept_until_a_stream_begins_anew() {
    let mut session = session(&Parts::accumulate(), Options::in_process());
    let score = |session: &mut Session, x: f32| {
        let run = session
            .run(&[Tensor::from_f32("reading", &[1, 1], &[x])])
            .unwrap();
        (run.fresh, run.output("score").unwrap().to_vec::<f32>())
    };
    assert_eq!(score(&mut session, 1.0), (true, Some(vec![2.0])));
    assert_eq!(score(&mut session, 2.0), (false, Some(vec![6.0])));
    session.begin_anew();
    assert_eq!(score(&mut session, 2.0), (true, Some(vec![4.0])));
}

#[test]
fn what_breaks_the_contract_is_refused_as_by_a_worker() {
    let mut session = session(&Parts::linear(), Options::in_process());
    let error = session.run(&[readings(&[[1.0, f32::INFINITY, 0.0]])]);
    assert!(matches!(error, Err(RunError::Input(_))), "{error:?}");
    assert!(session.run(&[readings(&[[0.0; 3]])]).is_ok());
    assert_eq!(session.window().refused, 1);
}

#[test]
fn a_model_that_is_none_is_refused_when_it_is_opened() {
    let mut parts = Parts::linear();
    parts.onnx = b"no model at all".to_vec();
    let (package, blob) = opened(&parts);
    let error = Session::open(package, blob, Options::in_process()).unwrap_err();
    assert!(matches!(error, OpenError::Refused(_)), "{error:?}");
}

#[test]
fn more_threads_give_the_same_bits() {
    let options = |threads| Options {
        threads: NonZeroU32::new(threads).unwrap(),
        ..Options::in_process()
    };
    let rows: Vec<[f32; 3]> = (0..4096)
        .map(|i| [i as f32 / 7.0 % 900.0, -(i as f32 % 91.0), 0.25])
        .collect();
    let [one, three] = [1, 3].map(|threads| {
        let mut session = session(&Parts::linear(), options(threads));
        session.run(&[readings(&rows)]).unwrap().outputs
    });
    assert_eq!(one, three);
}
