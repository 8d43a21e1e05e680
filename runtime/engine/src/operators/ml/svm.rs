//! `SVMClassifier` and `SVMRegressor`, as ONNX Runtime computes them.

use tract_onnx::{pb::NodeProto, tract_hir::internal::*};

use super::{
    attributes::{AttributeError, Attributes, Result, needed, of_length},
    classes::{Classes, Label, greatest},
    linear::dot,
    op::{Fact, Kernel, expect_columns, expect_number, floats, matrix, rows_columns, tensor},
    post::{PostTransform, logistic},
};

/// Classes at most: their pairs are compared one by one, and so many are 2 million.
const CLASSES_MAX: usize = 2048;
/// Steps towards the probabilities of several classes; libsvm's own number.
const COUPLING_STEPS_MAX: usize = 100;

/// How alike a row and a support vector are.
#[derive(Debug, Clone, Copy)]
enum Similarity {
    Linear,
    Poly { gamma: f32, coef0: f32, degree: f32 },
    Rbf { gamma: f32 },
    Sigmoid { gamma: f32, coef0: f32 },
}

impl Similarity {
    fn of(attributes: Attributes<'_>) -> Result<Self> {
        let params = attributes.floats("kernel_params")?.unwrap_or_default();
        let [gamma, coef0, degree] = match *params {
            [] => [0.0; 3],
            [gamma, coef0, degree] => [gamma, coef0, degree],
            _ => {
                of_length("kernel_params", params.len(), 3)?;
                [0.0; 3]
            }
        };
        let name = "kernel_type";
        Ok(match attributes.word(name)? {
            None | Some("LINEAR") => Self::Linear,
            Some("POLY") => Self::Poly {
                gamma,
                coef0,
                degree,
            },
            Some("RBF") => Self::Rbf { gamma },
            Some("SIGMOID") => Self::Sigmoid { gamma, coef0 },
            Some(other) => {
                let message = format!("`{other}` is not a kernel");
                return Err(AttributeError::Value { name, message });
            }
        })
    }

    fn between(self, row: &[f32], vector: &[f32]) -> f32 {
        match self {
            Self::Linear => dot(row, vector),
            Self::Poly {
                gamma,
                coef0,
                degree,
            } => (gamma * dot(row, vector) + coef0).powf(degree),
            Self::Rbf { gamma } => {
                let squares = row.iter().zip(vector).map(|(a, b)| (a - b) * (a - b));
                (-gamma * squares.sum::<f32>()).exp()
            }
            Self::Sigmoid { gamma, coef0 } => (gamma * dot(row, vector) + coef0).tanh(),
        }
    }
}

/// Vectors of equal length, one after the other.
#[derive(Debug)]
struct Vectors {
    values: Vec<f32>,
    columns: usize,
}

impl Vectors {
    fn new(name: &'static str, values: &[f32], count: usize) -> Result<Self> {
        if values.is_empty() || count == 0 || !values.len().is_multiple_of(count) {
            let message = format!("{} values for {count} vectors", values.len());
            return Err(AttributeError::Value { name, message });
        }
        Ok(Self {
            values: values.to_vec(),
            columns: values.len() / count,
        })
    }

    fn similarities(&self, similarity: Similarity, row: &[f32]) -> Vec<f32> {
        let vectors = self.values.chunks_exact(self.columns);
        vectors
            .map(|vector| similarity.between(row, vector))
            .collect()
    }
}

/// A count that an attribute gives and that another attribute's length bounds.
fn counts(name: &'static str, values: &[i64], most: usize) -> Result<Vec<usize>> {
    let counts: Option<Vec<usize>> = values.iter().map(|v| usize::try_from(*v).ok()).collect();
    let within = |counts: &Vec<usize>| {
        let sum = counts
            .iter()
            .try_fold(0_usize, |sum, c| sum.checked_add(*c));
        sum.is_some_and(|sum| sum <= most)
    };
    counts.filter(within).ok_or_else(|| AttributeError::Value {
        name,
        message: format!("counts below 0, or more than {most} together"),
    })
}

fn rows_of(x: &Tensor, columns: usize) -> TractResult<&[f32]> {
    let found = rows_columns(x)?.1;
    ensure!(
        found == columns,
        "{found} columns; the model was made for {columns}"
    );
    x.try_as_plain_ram()?.as_slice::<f32>()
}

/// <https://onnx.ai/onnx/operators/onnx_aionnxml_SVMRegressor.html>
#[derive(Debug)]
pub(crate) struct SvmRegressor {
    similarity: Similarity,
    vectors: Vectors,
    /// One for each vector; empty if the vector itself is the plane.
    coefficients: Vec<f32>,
    rho: f32,
    one_class: bool,
}

impl SvmRegressor {
    pub(crate) fn parse(node: &NodeProto) -> Result<Self> {
        let attributes = Attributes(node);
        let coefficients = needed("coefficients", attributes.floats("coefficients")?)?;
        let rho = needed("rho", attributes.floats("rho")?)?;
        let rho = *needed("rho", rho.first())?;
        let count = attributes.int("n_supports")?.unwrap_or(0);
        let one_class = attributes.int("one_class")?.unwrap_or(0) != 0;
        if count == 0 {
            return Ok(Self {
                similarity: Similarity::Linear,
                vectors: Vectors::new("coefficients", coefficients, 1)?,
                coefficients: vec![],
                rho,
                one_class,
            });
        }
        let values = attributes.floats("support_vectors")?.unwrap_or_default();
        let count = counts("n_supports", &[count], values.len())?[0];
        of_length("coefficients", coefficients.len(), count)?;
        Ok(Self {
            similarity: Similarity::of(attributes)?,
            vectors: Vectors::new("support_vectors", values, count)?,
            coefficients: coefficients.to_vec(),
            rho,
            one_class,
        })
    }

    fn score(&self, row: &[f32]) -> f32 {
        let alike = self.vectors.similarities(self.similarity, row);
        let sum = match &self.coefficients[..] {
            [] => alike.iter().sum(),
            coefficients => dot(&alike, coefficients),
        };
        match (self.one_class, sum + self.rho) {
            (false, score) => score,
            (true, score) if score > 0.0 => 1.0,
            (true, _) => -1.0,
        }
    }
}

impl Kernel for SvmRegressor {
    fn name(&self) -> &'static str {
        "SVMRegressor"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let (dtype, shape) = &inputs[0];
        expect_number(*dtype)?;
        let (rows, columns) = matrix(shape)?;
        expect_columns(&columns, self.vectors.columns)?;
        Ok(tvec![(DatumType::F32, tvec![rows, 1.to_dim()])])
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let x = floats(&inputs[0])?;
        let rows = rows_of(&x, self.vectors.columns)?;
        let rows = rows.chunks_exact(self.vectors.columns);
        let scores: Vec<f32> = rows.map(|row| self.score(row)).collect();
        Ok(tvec![tensor(&[scores.len(), 1], &scores)?])
    }
}

/// <https://onnx.ai/onnx/operators/onnx_aionnxml_SVMClassifier.html>
#[derive(Debug)]
pub(crate) struct SvmClassifier {
    similarity: Similarity,
    vectors: Vectors,
    /// Support vectors of each class; empty if the vectors themselves are planes, one for a class.
    of_class: Vec<usize>,
    coefficients: Vec<f32>,
    rho: Vec<f32>,
    /// For each pair of classes, what makes probabilities of its score; empty if there are none.
    sigmoids: Vec<(f32, f32)>,
    all_positive: bool,
    classes: Classes,
    post: PostTransform,
}

impl SvmClassifier {
    pub(crate) fn parse(node: &NodeProto) -> Result<Self> {
        let attributes = Attributes(node);
        let classes = Classes::of(attributes, "classlabels_ints", "classlabels_strings")?;
        if classes.len() > CLASSES_MAX {
            return Err(AttributeError::Value {
                name: "classlabels_ints",
                message: format!("{} classes, at most {CLASSES_MAX}", classes.len()),
            });
        }
        let coefficients = needed("coefficients", attributes.floats("coefficients")?)?;
        let rho = needed("rho", attributes.floats("rho")?)?;
        let values = attributes.floats("support_vectors")?.unwrap_or_default();
        let of_class = attributes.ints("vectors_per_class")?.unwrap_or_default();
        let of_class = counts("vectors_per_class", of_class, values.len())?;
        let count = of_class.iter().sum::<usize>();
        let linear = count == 0;
        let (name, values, count) = if linear {
            ("coefficients", coefficients, classes.len())
        } else {
            ("support_vectors", values, count)
        };
        let made = Self {
            similarity: if linear {
                Similarity::Linear
            } else {
                Similarity::of(attributes)?
            },
            vectors: Vectors::new(name, values, count)?,
            of_class: if linear { vec![] } else { of_class },
            coefficients: coefficients.to_vec(),
            rho: rho.to_vec(),
            sigmoids: sigmoids(attributes)?,
            all_positive: coefficients.iter().all(|value| *value >= 0.0),
            classes,
            post: PostTransform::of(attributes)?,
        };
        made.check(count)?;
        Ok(made)
    }

    fn check(&self, vectors: usize) -> Result<()> {
        if self.is_linear() {
            return needed("rho", self.rho.first()).map(|_| ());
        }
        let classes = self.classes.len();
        of_length("vectors_per_class", self.of_class.len(), classes)?;
        of_length(
            "coefficients",
            self.coefficients.len(),
            (classes - 1) * vectors,
        )?;
        let pairs = self.pairs();
        if self.rho.len() < pairs {
            of_length("rho", self.rho.len(), pairs)?;
        }
        if !self.sigmoids.is_empty() && self.sigmoids.len() < pairs {
            of_length("prob_a", self.sigmoids.len(), pairs)?;
        }
        Ok(())
    }

    fn is_linear(&self) -> bool {
        self.of_class.is_empty()
    }

    fn pairs(&self) -> usize {
        self.classes.len() * (self.classes.len() - 1) / 2
    }

    /// Scores that are given out for a row.
    fn width(&self) -> usize {
        if self.is_linear() || !self.sigmoids.is_empty() {
            self.classes.len()
        } else if self.classes.len() > 2 {
            self.pairs()
        } else {
            2
        }
    }

    /// The score of each pair of classes, and how many pairs each class has won.
    fn duels(&self, row: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let alike = self.vectors.similarities(self.similarity, row);
        let starts: Vec<usize> = self
            .of_class
            .iter()
            .scan(0, |next, count| {
                Some(std::mem::replace(next, *next + count))
            })
            .collect();
        let classes = self.classes.len();
        let mut votes = vec![0.0; classes];
        let mut scores = Vec::with_capacity(self.pairs());
        // The part of a pair's score that the support vectors of `class` bring.
        let part = |class: usize, line: usize| -> f64 {
            let range = starts[class]..starts[class] + self.of_class[class];
            let line = &self.coefficients[line * alike.len()..][..alike.len()];
            let products = line[range.clone()].iter().zip(&alike[range]);
            products.map(|(a, b)| f64::from(a * b)).sum()
        };
        for i in 0..classes {
            for j in i + 1..classes {
                let rho = f64::from(self.rho[scores.len()]);
                let sum = part(i, j - 1) + part(j, i) + rho;
                votes[if sum > 0.0 { i } else { j }] += 1.0;
                scores.push(sum as f32);
            }
        }
        (scores, votes)
    }

    fn probabilities(&self, duels: &[f32]) -> Vec<f32> {
        const LEAST: f32 = 1e-7;
        let classes = self.classes.len();
        let mut wins = vec![0.0; classes * classes];
        let mut pair = 0;
        for i in 0..classes {
            for j in i + 1..classes {
                let (a, b) = self.sigmoids[pair];
                let share = 1.0 - logistic(duels[pair] * a + b);
                let share = share.clamp(LEAST, 1.0 - LEAST);
                wins[i * classes + j] = share;
                wins[j * classes + i] = 1.0 - share;
                pair += 1;
            }
        }
        couple(classes, &wins)
    }

    fn finish(&self, row: &[f32]) -> (Label, Vec<f32>) {
        let classes = self.classes.len();
        if self.is_linear() {
            let scores = self.vectors.similarities(self.similarity, row);
            let mut scores: Vec<f32> = scores.iter().map(|s| s + self.rho[0]).collect();
            let class = greatest(&scores);
            let label = self.label(class, Some(scores[class]));
            if classes > 1 {
                self.post.apply(&mut scores);
            }
            return (label, scores);
        }
        let (duels, votes) = self.duels(row);
        let label = self.label(greatest(&votes), None);
        if !self.sigmoids.is_empty() {
            let mut scores = self.probabilities(&duels);
            self.post.apply(&mut scores);
            return (label, scores);
        }
        let scores = match duels[..] {
            // No pair at all: one class.
            [] => vec![0.0, 0.0],
            [score] if self.post == PostTransform::Probit => {
                vec![super::post::probit(score), 0.0]
            }
            [score] if self.post == PostTransform::None => vec![-score, score],
            [score] if self.post == PostTransform::Logistic => {
                vec![logistic(-score), logistic(score)]
            }
            [score] => vec![1.0 - score, score],
            _ => {
                let mut scores = duels;
                self.post.apply(&mut scores);
                scores
            }
        };
        (label, scores)
    }

    /// The label, of planes with their greatest score.
    fn label(&self, class: usize, greatest: Option<f32>) -> Label {
        let score = greatest.unwrap_or(0.0);
        match (self.classes.len(), self.sigmoids.is_empty()) {
            (2, true) => {
                let positive = if self.all_positive {
                    score >= 0.5
                } else {
                    score > 0.0
                };
                Label::Class(if positive { 1 } else { class })
            }
            _ => Label::Class(class),
        }
    }
}

fn sigmoids(attributes: Attributes<'_>) -> Result<Vec<(f32, f32)>> {
    let a = attributes.floats("prob_a")?.unwrap_or_default();
    let b = attributes.floats("prob_b")?.unwrap_or_default();
    of_length("prob_b", b.len(), a.len())?;
    Ok(a.iter().copied().zip(b.iter().copied()).collect())
}

/// Probabilities of classes from those of their pairs: the second method of Wu, Lin and Weng,
/// "Probability Estimates for Multi-class Classification by Pairwise Coupling", as in libsvm.
fn couple(classes: usize, wins: &[f32]) -> Vec<f32> {
    let win = |i: usize, j: usize| wins[i * classes + j];
    let mut q = vec![0.0; classes * classes];
    for i in 0..classes {
        for j in (0..classes).filter(|j| *j != i) {
            q[i * classes + i] += win(j, i) * win(j, i);
            q[i * classes + j] = -win(j, i) * win(i, j);
        }
    }
    let near = 0.005 / classes as f32;
    let mut p = vec![1.0 / classes as f32; classes];
    for _ in 0..COUPLING_STEPS_MAX {
        let mut qp: Vec<f32> = q
            .chunks_exact(classes)
            .map(|line| plain_dot(line, &p))
            .collect();
        let mut pqp = plain_dot(&p, &qp);
        let error = qp.iter().map(|value| (value - pqp).abs());
        if error.fold(0.0, f32::max) < near {
            break;
        }
        for i in 0..classes {
            let diagonal = q[i * classes + i];
            let step = (pqp - qp[i]) / diagonal;
            p[i] += step;
            pqp = (pqp + step * (step * diagonal + 2.0 * qp[i])) / (1.0 + step) / (1.0 + step);
            for j in 0..classes {
                qp[j] = (qp[j] + step * q[i * classes + j]) / (1.0 + step);
                p[j] /= 1.0 + step;
            }
        }
    }
    p
}

/// In order, so that the steps towards probabilities are those that others take.
fn plain_dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Kernel for SvmClassifier {
    fn name(&self) -> &'static str {
        "SVMClassifier"
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let (dtype, shape) = &inputs[0];
        expect_number(*dtype)?;
        let (rows, columns) = matrix(shape)?;
        expect_columns(&columns, self.vectors.columns)?;
        Ok(tvec![
            (self.classes.dtype(), tvec![rows.clone()]),
            (DatumType::F32, tvec![rows, self.width().to_dim()])
        ])
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        let x = floats(&inputs[0])?;
        let rows = rows_of(&x, self.vectors.columns)?;
        let rows = rows.chunks_exact(self.vectors.columns);
        let (labels, scores): (Vec<Label>, Vec<Vec<f32>>) =
            rows.map(|row| self.finish(row)).unzip();
        let shape = [labels.len(), self.width()];
        Ok(tvec![
            self.classes.labels(&labels)?,
            tensor(&shape, &scores.concat())?
        ])
    }
}
