//! Flat convolutions against the engine's own.

use proptest::prelude::*;
use tract_onnx::{
    prelude::IntoRunnable,
    tract_core::{
        internal::*,
        ops::{
            cnn::{Conv, KernelFormat, PaddingSpec, PoolSpec},
            math,
            nn::{self, DataFormat},
        },
    },
};

use super::{FlatConvolution, flatten};

const DIFFERENCE_MAX: f32 = 1e-4;

#[derive(Debug, Clone)]
struct Case {
    batch: usize,
    groups: usize,
    inputs: usize,
    outputs: usize,
    image: [usize; 2],
    kernel: [usize; 2],
    strides: [usize; 2],
    dilations: [usize; 2],
    pads: [[usize; 2]; 2],
    one_axis: bool,
    follows: Follows,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Follows {
    Nothing,
    ScaleShiftRelu,
    Leaky,
    HardSwish,
}

fn pair(range: std::ops::Range<usize>) -> impl Strategy<Value = [usize; 2]> {
    [range.clone(), range]
}

fn cases() -> impl Strategy<Value = Case> {
    let channels = (
        1usize..3,
        prop_oneof![Just((1, 1usize)), Just((3, 1)), Just((2, 5))],
        1usize..26,
    );
    let window = (pair(1..4), pair(1..4), pair(1..3), [pair(0..3), pair(0..3)]);
    let follows = prop_oneof![
        Just(Follows::Nothing),
        Just(Follows::ScaleShiftRelu),
        Just(Follows::Leaky),
        Just(Follows::HardSwish)
    ];
    let image = [8usize..40, 8usize..70];
    (channels, image, window, any::<bool>(), follows).prop_map(
        |((batch, (groups, inputs), outputs), image, window, one_axis, follows)| Case {
            batch,
            groups,
            inputs,
            outputs,
            image,
            kernel: window.0,
            strides: window.1,
            dilations: window.2,
            pads: window.3,
            one_axis,
            follows,
        },
    )
}

/// Numbers between −1 and 1 without a pattern that a mistake could hide behind.
fn numbers(shape: &[usize], seed: u32) -> Tensor {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / u32::MAX as f32 * 2.0 - 1.0
        })
        .collect();
    Tensor::from_shape(shape, &values).unwrap()
}

fn model(case: &Case) -> TractResult<TypedModel> {
    let axes = usize::from(case.one_axis)..2;
    let (inputs, outputs) = (case.inputs * case.groups, case.outputs * case.groups);
    let shape = |first: [usize; 2], sizes: [usize; 2]| -> Vec<usize> {
        [&first[..], &sizes[axes.clone()]].concat()
    };
    let of = |sizes: [usize; 2]| -> TVec<usize> { sizes[axes.clone()].iter().copied().collect() };
    let ends = |end: usize| of([case.pads[0][end], case.pads[1][end]]);
    let conv = Conv {
        pool_spec: PoolSpec {
            data_format: DataFormat::NCHW,
            kernel_shape: of(case.kernel),
            padding: PaddingSpec::Explicit(ends(0), ends(1)),
            dilations: Some(of(case.dilations)),
            strides: Some(of(case.strides)),
            input_channels: inputs,
            output_channels: outputs,
        },
        kernel_fmt: KernelFormat::OIHW,
        group: case.groups,
        q_params: None,
    };
    let mut model = TypedModel::default();
    let x = model.add_source("x", f32::fact(shape([case.batch, inputs], case.image)))?;
    let kernel = numbers(&shape([outputs, case.inputs], case.kernel), 1);
    let kernel = model.add_const("kernel", kernel)?;
    let bias = model.add_const("bias", numbers(&[outputs], 2))?;
    let y = model.wire_node("conv", conv, &[x, kernel, bias])?[0];
    let by_channel = shape([1, outputs], [1, 1]);
    let y = follow(&mut model, y, case.follows, &by_channel)?;
    model.select_output_outlets(&[y])?;
    Ok(model)
}

fn follow(
    model: &mut TypedModel,
    y: OutletId,
    follows: Follows,
    by_channel: &[usize],
) -> TractResult<OutletId> {
    let one = vec![1; by_channel.len()];
    let mut constants = 0;
    let mut constant = |model: &mut TypedModel, value: Tensor| {
        constants += 1;
        model.add_const(format!("constant {constants}"), value)
    };
    let scalar = |value: f32| Tensor::from_shape(&one, &[value]);
    match follows {
        Follows::Nothing => Ok(y),
        Follows::ScaleShiftRelu => {
            let scale = constant(model, numbers(by_channel, 3))?;
            let shift = constant(model, numbers(by_channel, 4))?;
            let zero = constant(model, scalar(0.0)?)?;
            let y = model.wire_node("scale", math::mul(), &[scale, y])?[0];
            let y = model.wire_node("shift", math::sub(), &[y, shift])?[0];
            Ok(model.wire_node("relu", math::max(), &[y, zero])?[0])
        }
        Follows::Leaky => Ok(model.wire_node("leaky", nn::leaky_relu(0.2), &[y])?[0]),
        Follows::HardSwish => {
            let three = constant(model, scalar(3.0)?)?;
            let zero = constant(model, scalar(0.0)?)?;
            let six = constant(model, scalar(6.0)?)?;
            let t = model.wire_node("add", math::add(), &[y, three])?[0];
            let t = model.wire_node("low", math::max(), &[t, zero])?[0];
            let t = model.wire_node("high", math::min(), &[t, six])?[0];
            let y = model.wire_node("gate", math::mul(), &[y, t])?[0];
            Ok(model.wire_node("sixth", math::div(), &[y, six])?[0])
        }
    }
}

fn run(model: TypedModel) -> Vec<f32> {
    let shape = model.input_fact(0).unwrap().shape.to_owned();
    let image = numbers(shape.as_concrete().unwrap(), 5);
    let plan = model.into_optimized().unwrap().into_runnable().unwrap();
    let output = plan.run(tvec!(image.into_tvalue())).unwrap();
    let output = output[0].try_as_plain_ram().unwrap();
    output.as_slice::<f32>().unwrap().to_vec()
}

fn flat_nodes(model: &TypedModel) -> usize {
    let nodes = model.nodes().iter();
    nodes.filter(|node| node.op_is::<FlatConvolution>()).count()
}

/// False where the CPU that runs the tests has no vectors that we know.
fn has_vectors() -> bool {
    super::rows_at_once(1).is_some()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_flat_convolution_computes_what_the_engine_does(case in cases()) {
        let mut flat = model(&case).unwrap();
        flatten(&mut flat).unwrap();
        let (found, wanted) = (run(flat), run(model(&case).unwrap()));
        prop_assert_eq!(found.len(), wanted.len());
        let most = wanted.iter().fold(1.0f32, |most, x| most.max(x.abs()));
        for (found, wanted) in found.iter().zip(&wanted) {
            prop_assert!((found - wanted).abs() <= DIFFERENCE_MAX * most, "{found} {wanted}");
        }
    }
}

fn plain(follows: Follows) -> Case {
    Case {
        batch: 1,
        groups: 1,
        inputs: 3,
        outputs: 13,
        image: [16, 24],
        kernel: [3, 3],
        strides: [1, 1],
        dilations: [1, 1],
        pads: [[1, 1], [1, 1]],
        one_axis: false,
        follows,
    }
}

#[test]
fn what_follows_a_convolution_is_taken_into_it() {
    if !has_vectors() {
        return;
    }
    for follows in [Follows::ScaleShiftRelu, Follows::Leaky, Follows::HardSwish] {
        let mut flat = model(&plain(follows)).unwrap();
        flatten(&mut flat).unwrap();
        let flat = flat.into_optimized().unwrap();
        assert_eq!(flat_nodes(&flat), 1, "{follows:?}");
        assert_eq!(flat.nodes().len(), 2, "{follows:?}: {flat}");
    }
}

#[test]
fn what_is_not_a_number_stays_so() {
    for follows in [Follows::ScaleShiftRelu, Follows::Leaky, Follows::HardSwish] {
        let mut flat = model(&plain(follows)).unwrap();
        flatten(&mut flat).unwrap();
        let plan = flat.into_optimized().unwrap().into_runnable().unwrap();
        let image = Tensor::from_shape(&[1, 3, 16, 24], &[f32::NAN; 3 * 16 * 24]).unwrap();
        let output = plan.run(tvec!(image.into_tvalue())).unwrap();
        let output = output[0].try_as_plain_ram().unwrap();
        let output = output.as_slice::<f32>().unwrap();
        assert!(output.iter().all(|x| x.is_nan()), "{follows:?}");
    }
}

#[test]
fn dilations_that_overflow_are_left_to_the_engine() {
    let geometry = super::Geometry {
        batch: 1,
        groups: 1,
        inputs: 3,
        outputs: 13,
        image: [1, 24],
        result: [1, 24],
        kernel: [1, 3],
        strides: [1, 1],
        dilations: [1, usize::MAX / 2],
        before: [0, 0],
    };
    let found = FlatConvolution::new(geometry, tvec!(1, 13, 24), &[0.0; 117], &[0.0; 13], vec![]);
    assert_eq!(found, None);
}
