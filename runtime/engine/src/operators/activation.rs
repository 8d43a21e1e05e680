//! Activations that the engine lacks, computes wrongly, or loses NaN in.
//! <https://onnx.ai/onnx/operators/onnx__Celu.html>,
//! <https://onnx.ai/onnx/operators/onnx__Shrink.html>,
//! <https://onnx.ai/onnx/operators/onnx__ThresholdedRelu.html>,
//! <https://onnx.ai/onnx/operators/onnx__LSTM.html#function-f>

use tract_onnx::{
    Onnx,
    model::ParsingContext,
    pb::NodeProto,
    tract_core::ops::element_wise::{ElementWiseMiniOp, ElementWiseOp},
    tract_hir::internal::{tract_num_traits::Float, *},
};

pub(super) fn register(onnx: &mut Onnx) {
    onnx.op_register.insert("Celu", celu);
    onnx.op_register.insert("Shrink", shrink);
    onnx.op_register.insert("ThresholdedRelu", thresholded_relu);
}

type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

fn celu(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    Activation::Celu(node.get_attr_opt("alpha")?.unwrap_or(1.0)).built()
}

fn thresholded_relu(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    Activation::thresholded_relu(node.get_attr_opt("alpha")?.unwrap_or(1.0)).built()
}

fn shrink(_: &ParsingContext<'_>, node: &NodeProto) -> Built {
    let greatest: f32 = node.get_attr_opt("lambd")?.unwrap_or(0.5);
    let shift = node.get_attr_opt("bias")?.unwrap_or(0.0);
    let shrink = Activation::Beyond {
        least: -greatest,
        greatest,
        shift,
    };
    shrink.built()
}

/// What is computed of each number. NaN stays NaN: it is beyond no bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Activation {
    Relu,
    /// 0 below 0, and a multiple of x there.
    LeakyRelu(f32),
    /// α · (eˣ − 1) below 0.
    Elu(f32),
    /// α · (e^(x / α) − 1) below 0.
    Celu(f32),
    /// α · x + β, between 0 and 1.
    HardSigmoid(f32, f32),
    /// 0 from `least` to `greatest`; x + shift below, x − shift above.
    Beyond {
        least: f32,
        greatest: f32,
        shift: f32,
    },
    Softplus,
    Softsign,
}

impl Eq for Activation {}

impl Activation {
    pub(super) fn thresholded_relu(alpha: f32) -> Self {
        Self::Beyond {
            least: f32::NEG_INFINITY,
            greatest: alpha,
            shift: 0.0,
        }
    }

    pub(super) fn op(self) -> ElementWiseOp {
        ElementWiseOp(Box::new(self), None)
    }

    fn built(self) -> Built {
        Ok((self.op().into_hir(), vec![]))
    }

    fn of<T: Float + From<f32>>(self, x: T) -> T {
        let (zero, one, number) = (T::zero(), T::one(), <T as From<f32>>::from);
        match self {
            Self::Relu if x < zero => zero,
            Self::LeakyRelu(alpha) if x < zero => x * number(alpha),
            Self::Elu(alpha) if x < zero => number(alpha) * x.exp_m1(),
            Self::Celu(alpha) if x < zero => number(alpha) * (x / number(alpha)).exp_m1(),
            Self::Relu | Self::LeakyRelu(_) | Self::Elu(_) | Self::Celu(_) => x,
            Self::HardSigmoid(alpha, beta) => match number(alpha) * x + number(beta) {
                y if y < zero => zero,
                y if y > one => one,
                y => y,
            },
            Self::Beyond { least, shift, .. } if x < number(least) => x + number(shift),
            Self::Beyond {
                greatest, shift, ..
            } if x > number(greatest) => x - number(shift),
            Self::Beyond { .. } if x.is_nan() => x,
            Self::Beyond { .. } => zero,
            Self::Softplus if x > zero => x + (-x).exp().ln_1p(),
            Self::Softplus => x.exp().ln_1p(),
            Self::Softsign => x / (one + x.abs()),
        }
    }
}

impl ElementWiseMiniOp for Activation {
    fn name(&self) -> String {
        "Activation".to_owned()
    }

    fn eval_in_place(&self, x: &mut Tensor, _: Option<DatumType>) -> TractResult<()> {
        let dtype = x.datum_type();
        if dtype == DatumType::F32 {
            let mut plain = x.try_as_plain_ram_mut()?;
            let values = plain.as_slice_mut::<f32>()?;
            values.iter_mut().for_each(|x| *x = self.of(*x));
            return Ok(());
        }
        // Other types are rare here, and their numbers near a bound fit an f64.
        let mut wide = x.cast_to::<f64>()?.into_owned();
        let mut plain = wide.try_as_plain_ram_mut()?;
        let values = plain.as_slice_mut::<f64>()?;
        values.iter_mut().for_each(|x| *x = self.of(*x));
        *x = wide.cast_to_dt(dtype)?.into_owned();
        Ok(())
    }
}
