//! `LinearClassifier` and `LinearRegressor`.

use tract_onnx::{pb::NodeProto, tract_hir::internal::*};

use super::{
    attributes::{AttributeError, Attributes, Result, needed, of_length},
    classes::{Classes, Label, greatest},
    op::{Fact, Kernel, expect_columns, expect_number, floats, matrix, rows_columns, tensor},
    post::{PostTransform, logistic, probit},
};

/// Weights of several targets.
#[derive(Debug)]
struct Planes {
    /// Target by target.
    coefficients: Vec<f32>,
    /// One for each target.
    intercepts: Vec<f32>,
    columns: usize,
}

impl Planes {
    fn new(coefficients: &[f32], intercepts: &[f32], targets: usize) -> Result<Self> {
        let name = "coefficients";
        if coefficients.is_empty() || targets == 0 || !coefficients.len().is_multiple_of(targets) {
            let message = format!("{} values for {targets} targets", coefficients.len());
            return Err(AttributeError::Value { name, message });
        }
        Ok(Self {
            coefficients: coefficients.to_vec(),
            intercepts: intercepts.to_vec(),
            columns: coefficients.len() / targets,
        })
    }

    fn targets(&self) -> usize {
        self.intercepts.len()
    }

    /// Scores row by row.
    fn scores(&self, x: &Tensor) -> TractResult<Vec<f32>> {
        let (_, columns) = rows_columns(x)?;
        ensure!(
            columns == self.columns,
            "{columns} columns; the model was made for {}",
            self.columns
        );
        let values = x.try_as_plain_ram()?.as_slice::<f32>()?;
        let rows = values.chunks_exact(columns.max(1));
        let scores = rows.flat_map(|row| {
            let planes = self.coefficients.chunks_exact(columns.max(1));
            let scores = planes.zip(&self.intercepts);
            scores.map(|(plane, intercept)| dot(row, plane) + intercept)
        });
        Ok(scores.collect())
    }
}

/// The sum of products; several sums side by side, which the compiler makes one of vectors.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    const SUMS: usize = 8;
    let (a_chunks, a_rest) = a.as_chunks::<SUMS>();
    let (b_chunks, b_rest) = b.as_chunks::<SUMS>();
    let mut sums = [0.0_f32; SUMS];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// <https://onnx.ai/onnx/operators/onnx_aionnxml_LinearRegressor.html>
#[derive(Debug)]
pub(crate) struct LinearRegressor {
    planes: Planes,
    post: PostTransform,
}

impl LinearRegressor {
    pub(crate) fn parse(node: &NodeProto) -> Result<Self> {
        let attributes = Attributes(node);
        let coefficients = needed("coefficients", attributes.floats("coefficients")?)?;
        let targets = attributes
            .count("targets", coefficients.len())?
            .unwrap_or(1);
        // Intercepts of another number are ignored, as elsewhere.
        let zeros = vec![0.0; targets];
        let intercepts = attributes.floats("intercepts")?;
        let intercepts = intercepts.filter(|values| values.len() == targets);
        Ok(Self {
            planes: Planes::new(coefficients, intercepts.unwrap_or(&zeros), targets)?,
            post: PostTransform::of(attributes)?,
        })
    }
}

impl Kernel for LinearRegressor {
    fn name(&self) -> &'static str {
        "LinearRegressor"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let (dtype, shape) = &inputs[0];
        expect_number(*dtype)?;
        let (rows, columns) = matrix(shape)?;
        expect_columns(&columns, self.planes.columns)?;
        let targets = self.planes.targets().to_dim();
        Ok(tvec![(DatumType::F32, tvec![rows, targets])])
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let x = floats(&inputs[0])?;
        let targets = self.planes.targets();
        let mut scores = self.planes.scores(&x)?;
        match (targets, self.post) {
            // Of one score there is nothing to compare, and only one transform is made.
            (1, PostTransform::Probit) => scores.iter_mut().for_each(|s| *s = probit(*s)),
            (1, _) => {}
            _ => scores
                .chunks_exact_mut(targets)
                .for_each(|row| self.post.apply(row)),
        }
        Ok(tvec![tensor(&[scores.len() / targets, targets], &scores)?])
    }
}

/// <https://onnx.ai/onnx/operators/onnx_aionnxml_LinearClassifier.html>
#[derive(Debug)]
pub(crate) struct LinearClassifier {
    planes: Planes,
    post: PostTransform,
    classes: Classes,
}

impl LinearClassifier {
    pub(crate) fn parse(node: &NodeProto) -> Result<Self> {
        let attributes = Attributes(node);
        let classes = Classes::of(attributes, "classlabels_ints", "classlabels_strings")?;
        let coefficients = needed("coefficients", attributes.floats("coefficients")?)?;
        let intercepts = needed("intercepts", attributes.floats("intercepts")?)?;
        if intercepts.len() != 1 {
            of_length("intercepts", intercepts.len(), classes.len())?;
        }
        Ok(Self {
            planes: Planes::new(coefficients, intercepts, intercepts.len())?,
            post: PostTransform::of(attributes)?,
            classes,
        })
    }

    /// Scores that are given out for a row: one plane between two classes makes two.
    fn width(&self) -> usize {
        let planes = self.planes.targets();
        if planes == 1 && self.classes.len() == 2 {
            2
        } else {
            planes
        }
    }

    fn label(&self, scores: &[f32]) -> Label {
        match scores {
            [score] if self.classes.len() == 2 => Label::Class(usize::from(*score > 0.0)),
            [score] => Label::Sign(*score > 0.0),
            scores => Label::Class(greatest(scores)),
        }
    }

    fn finish(&self, scores: &[f32], out: &mut Vec<f32>) {
        let first = out.len();
        match *scores {
            [score] => match (self.post, self.width()) {
                (PostTransform::Probit, width) => {
                    out.push(probit(score));
                    out.resize(first + width, 0.0);
                }
                (PostTransform::Logistic, 2) => out.extend([logistic(-score), logistic(score)]),
                (_, 2) => out.extend([1.0 - score, score]),
                _ => out.push(score),
            },
            _ => {
                out.extend_from_slice(scores);
                self.post.apply(&mut out[first..]);
            }
        }
    }
}

impl Kernel for LinearClassifier {
    fn name(&self) -> &'static str {
        "LinearClassifier"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let (dtype, shape) = &inputs[0];
        expect_number(*dtype)?;
        let (rows, columns) = matrix(shape)?;
        expect_columns(&columns, self.planes.columns)?;
        Ok(tvec![
            (self.classes.dtype(), tvec![rows.clone()]),
            (DatumType::F32, tvec![rows, self.width().to_dim()])
        ])
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let x = floats(&inputs[0])?;
        let scores = self.planes.scores(&x)?;
        let rows = scores.chunks_exact(self.planes.targets());
        let labels: Vec<Label> = rows.clone().map(|row| self.label(row)).collect();
        let mut out = Vec::with_capacity(rows.len() * self.width());
        rows.for_each(|row| self.finish(row, &mut out));
        let shape = [labels.len(), self.width()];
        Ok(tvec![self.classes.labels(&labels)?, tensor(&shape, &out)?])
    }
}
