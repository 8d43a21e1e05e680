//! `TreeEnsembleClassifier`, `TreeEnsembleRegressor` and `TreeEnsemble`: their scores made into
//! what they give out, as ONNX Runtime does it.

use std::sync::{Mutex, OnceLock};

use tract_onnx::{pb::NodeProto, tract_hir::internal::*};

use super::{
    attributes::{AttributeError, Attributes, Result, needed, of_length},
    classes::{Classes, Label},
    ensemble::{Aggregate, Ensemble, Scalar, Scores, TARGETS_MAX, Trees},
    op::{Fact, Kernel, expect_number, matrix, rows_columns, tensor},
    post::{PostTransform, logistic, probit},
    tree_attributes::{CLASS, Names, TARGET, aggregate, listed, numbers, placed},
};

/// An operator of trees.
#[derive(Debug)]
pub(crate) struct TreeOp {
    /// As described, until the type of the readings is known.
    described: Mutex<Option<Trees<f64>>>,
    built: OnceLock<Built>,
    aggregate: Aggregate,
    columns_min: usize,
    targets: usize,
    base: Vec<f64>,
    post: PostTransform,
    kind: Kind,
}

#[derive(Debug)]
enum Built {
    F32(Ensemble<f32>),
    F64(Ensemble<f64>),
}

#[derive(Debug)]
enum Kind {
    /// Versions 1 and 3 answer in f32 whatever they are asked in.
    Regressor,
    /// Version 5 answers in the type of the readings.
    Ensemble,
    Classifier(Classifier),
}

#[derive(Debug)]
struct Classifier {
    classes: Classes,
    /// Two classes, and all weights are for one and the same.
    one_for_two: bool,
    /// No weight is below 0, so that a score is a share.
    shares: bool,
}

impl TreeOp {
    pub(crate) fn parse_classifier(node: &NodeProto) -> Result<Self> {
        let attributes = Attributes(node);
        let classes = Classes::of(attributes, "classlabels_int64s", "classlabels_strings")?;
        let trees = listed(attributes, &CLASS, targets(CLASS, classes.len())?)?;
        let mut weights = trees.weights.iter();
        let first = trees.weights.first().map(|weight| weight.target);
        let classifier = Classifier {
            one_for_two: classes.len() == 2 && weights.all(|w| Some(w.target) == first),
            shares: trees.weights.iter().all(|weight| weight.value >= 0.0),
            classes,
        };
        // Weights of a classifier are always added up.
        Self::new(
            attributes,
            trees,
            Aggregate::Sum,
            Kind::Classifier(classifier),
        )
    }

    pub(crate) fn parse_regressor(node: &NodeProto) -> Result<Self> {
        let attributes = Attributes(node);
        let targets = attributes.count("n_targets", TARGETS_MAX)?;
        let trees = listed(attributes, &TARGET, needed("n_targets", targets)?)?;
        Self::new(attributes, trees, aggregate(attributes)?, Kind::Regressor)
    }

    pub(crate) fn parse_ensemble(node: &NodeProto) -> Result<Self> {
        let attributes = Attributes(node);
        let targets = attributes.count("n_targets", TARGETS_MAX)?;
        let trees = placed(attributes, needed("n_targets", targets)?)?;
        let aggregate = match attributes.int("aggregate_function")? {
            Some(0) => Aggregate::Average,
            None | Some(1) => Aggregate::Sum,
            Some(2) => Aggregate::Min,
            Some(3) => Aggregate::Max,
            Some(other) => return Err(unknown("aggregate_function", other)),
        };
        // The specification's text has 1 and 2 the other way round; ONNX Runtime, against which
        // models are tried before they get here, has them so.
        let post = match attributes.int("post_transform")? {
            None | Some(0) => PostTransform::None,
            Some(1) => PostTransform::Logistic,
            Some(2) => PostTransform::Softmax,
            Some(3) => PostTransform::SoftmaxZero,
            Some(4) => PostTransform::Probit,
            Some(other) => return Err(unknown("post_transform", other)),
        };
        Ok(Self::described(
            trees,
            aggregate,
            vec![],
            post,
            Kind::Ensemble,
        ))
    }

    fn new(
        attributes: Attributes<'_>,
        trees: Trees<f64>,
        aggregate: Aggregate,
        kind: Kind,
    ) -> Result<Self> {
        let base = numbers(attributes, "base_values", "base_values_as_tensor")?;
        let base = base.unwrap_or_default();
        let two_classes = matches!(kind, Kind::Classifier(_)) && trees.targets == 2;
        match base.len() {
            0 => {}
            // One base for two classes is the one's that the trees know.
            1 if two_classes => {}
            found => of_length("base_values", found, trees.targets)?,
        }
        let post = PostTransform::of(attributes)?;
        Ok(Self::described(trees, aggregate, base, post, kind))
    }

    fn described(
        trees: Trees<f64>,
        aggregate: Aggregate,
        base: Vec<f64>,
        post: PostTransform,
        kind: Kind,
    ) -> Self {
        Self {
            columns_min: trees.columns_min(),
            targets: trees.targets,
            described: Mutex::new(Some(trees)),
            built: OnceLock::new(),
            aggregate,
            base,
            post,
            kind,
        }
    }

    /// The ensemble for readings of a type. It is built once, whatever the number of batch sizes
    /// that a model is made ready for, and the description is let go.
    fn build(&self, dtype: DatumType) -> TractResult<&Built> {
        let mut described = self.described.lock().map_err(|_| format_err!("poisoned"))?;
        if let Some(trees) = described.take() {
            let built = if dtype == DatumType::F64 {
                Built::F64(Ensemble::new(trees, self.aggregate)?)
            } else {
                Built::F32(Ensemble::new(trees.cast(), self.aggregate)?)
            };
            let _ = self.built.set(built);
        }
        let built = self.built.get().context("the ensemble is not built")?;
        let double = matches!(built, Built::F64(_));
        ensure!(
            double == (dtype == DatumType::F64),
            "an ensemble for readings of another type than {dtype:?}"
        );
        Ok(built)
    }

    fn answer<T: Scalar + Datum>(
        &self,
        ensemble: &Ensemble<T>,
        x: &Tensor,
    ) -> TractResult<TVec<TValue>> {
        let (rows, columns) = rows_columns(x)?;
        let readings = x.try_as_plain_ram()?.as_slice::<T>()?;
        let mut scores = ensemble.score(readings, rows, columns);
        match &self.kind {
            Kind::Classifier(classifier) => {
                let (labels, scores) = self.classify(classifier, rows, &scores);
                Ok(tvec![
                    classifier.classes.labels(&labels)?,
                    tensor(&[rows, self.targets], &scores)?
                ])
            }
            kind => {
                self.finish(&mut scores);
                let shape = [rows, self.targets];
                if matches!(kind, Kind::Ensemble) {
                    return Ok(tvec![tensor(&shape, &scores.values)?]);
                }
                let scores: Vec<f32> = scores.values.iter().map(|v| v.to_f64() as f32).collect();
                Ok(tvec![tensor(&shape, &scores)?])
            }
        }
    }

    /// What a regressor does to its scores. Of several targets, one that no leaf has had a word in
    /// stays 0 whatever its base.
    fn finish<T: Scalar>(&self, scores: &mut Scores<T>) {
        let spoken = |i: usize| self.targets == 1 || scores.given.is_empty() || scores.given[i];
        for (i, score) in scores.values.iter_mut().enumerate() {
            if let Some(base) = self.base.get(i % self.targets)
                && spoken(i)
            {
                *score += T::of(*base);
            }
        }
        let scores = &mut scores.values[..];
        match (self.targets, self.post) {
            (_, PostTransform::None) => {}
            // Of one score there is nothing to compare, and only one transform is made.
            (1, PostTransform::Probit) => {
                scores
                    .iter_mut()
                    .for_each(|s| *s = T::of(probit(narrow(*s)).into()));
            }
            (1, _) => {}
            _ => scores.chunks_exact_mut(self.targets).for_each(|row| {
                let mut narrowed: Vec<f32> = row.iter().map(|score| narrow(*score)).collect();
                self.post.apply(&mut narrowed);
                for (score, narrowed) in row.iter_mut().zip(narrowed) {
                    *score = T::of(narrowed.into());
                }
            }),
        }
    }

    fn classify<T: Scalar>(
        &self,
        classifier: &Classifier,
        rows: usize,
        scores: &Scores<T>,
    ) -> (Vec<Label>, Vec<f32>) {
        let mut labels = Vec::with_capacity(rows);
        let mut out = Vec::with_capacity(rows * self.targets);
        let mut row_scores = Vec::with_capacity(self.targets);
        for row in 0..rows {
            let range = row * self.targets..(row + 1) * self.targets;
            row_scores.clear();
            row_scores.extend_from_slice(&scores.values[range.clone()]);
            // Whether any leaf had a word in it; where nothing is noted, one always has.
            let given = |class: usize| scores.given.is_empty() || scores.given[range.start + class];
            labels.push(match self.targets {
                1 => self.classify_one(&mut row_scores, &mut out),
                2 => self.classify_two(classifier, &mut row_scores, [given(0), given(1)], &mut out),
                _ => self.classify_many(&mut row_scores, given, &mut out),
            });
        }
        (labels, out)
    }

    /// The greatest of the classes that anything was said of; bases are said of all.
    fn classify_many<T: Scalar>(
        &self,
        scores: &mut [T],
        given: impl Fn(usize) -> bool,
        out: &mut Vec<f32>,
    ) -> Label {
        for (score, base) in scores.iter_mut().zip(&self.base) {
            *score += T::of(*base);
        }
        let mut best: Option<usize> = None;
        for class in 0..scores.len() {
            let known = !self.base.is_empty() || given(class);
            if known && best.is_none_or(|best| scores[class] > scores[best]) {
                best = Some(class);
            }
        }
        self.push(scores, out);
        Label::Class(best.unwrap_or(0))
    }

    /// A single class: it is there, or it is not.
    fn classify_one<T: Scalar>(&self, scores: &mut [T], out: &mut Vec<f32>) -> Label {
        if let [base] = self.base[..] {
            scores[0] += T::of(base);
        }
        let score = narrow(scores[0]);
        out.push(match self.post {
            PostTransform::Probit => probit(score),
            _ => score,
        });
        Label::Sign(score > 0.0)
    }

    /// Two classes, of which the trees may know one alone. The cases are those of ONNX Runtime.
    fn classify_two<T: Scalar>(
        &self,
        classifier: &Classifier,
        scores: &mut [T],
        given: [bool; 2],
        out: &mut Vec<f32>,
    ) -> Label {
        let [first, second] = scores else {
            return Label::Class(0);
        };
        match self.base[..] {
            [_, base] if given[1] => {
                let mut score = T::of(base);
                score += *first;
                *second = score;
                *first = T::of(-score.to_f64());
            }
            [base_first, base_second] => {
                *first += T::of(base_first);
                *second += T::of(base_second);
            }
            [base] => {
                *first += T::of(base);
            }
            _ => {}
        }
        let alone = self.base.len() != 2 && !given[1];
        let decisive = match given {
            [_, true] => second.to_f64(),
            [true, false] => first.to_f64(),
            _ => 0.0,
        };
        let threshold = if classifier.shares { 0.5 } else { 0.0 };
        let label = if classifier.one_for_two {
            Label::Class(usize::from(decisive > threshold))
        } else {
            Label::Sign(decisive > 0.0)
        };
        if !alone {
            // What no leaf has had a word in stays 0 whatever was added to it.
            let pair = [(*first, given[0]), (*second, given[1])];
            let pair = pair.map(|(score, given)| if given { score } else { T::default() });
            self.push(&pair, out);
            return label;
        }
        let score = narrow(*first);
        out.extend(match self.post {
            PostTransform::Probit => [probit(score), 0.0],
            _ if !classifier.one_for_two && self.base.len() == 1 => [score, 0.0],
            PostTransform::Logistic => [logistic(-score), logistic(score)],
            _ if classifier.one_for_two && classifier.shares => [1.0 - score, score],
            _ => [-score, score],
        });
        label
    }

    /// Transforms a row's scores and gives them out.
    fn push<T: Scalar>(&self, scores: &[T], out: &mut Vec<f32>) {
        let first = out.len();
        out.extend(scores.iter().map(|score| narrow(*score)));
        self.post.apply(&mut out[first..]);
    }
}

fn narrow<T: Scalar>(score: T) -> f32 {
    score.to_f64() as f32
}

fn targets(names: Names, count: usize) -> Result<usize> {
    if count > TARGETS_MAX {
        return Err(AttributeError::Value {
            name: names.ids,
            message: format!("{count} classes, at most {TARGETS_MAX}"),
        });
    }
    Ok(count)
}

fn unknown(name: &'static str, value: i64) -> AttributeError {
    AttributeError::Value {
        name,
        message: format!("{value} is not one of its values"),
    }
}

impl Kernel for TreeOp {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Regressor => "TreeEnsembleRegressor",
            Kind::Ensemble => "TreeEnsemble",
            Kind::Classifier(_) => "TreeEnsembleClassifier",
        }
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let (dtype, shape) = &inputs[0];
        expect_number(*dtype)?;
        let (rows, columns) = matrix(shape)?;
        if let Ok(columns) = columns.to_usize() {
            ensure!(
                columns >= self.columns_min,
                "{columns} columns; the trees look at {}",
                self.columns_min
            );
        }
        self.build(*dtype)?;
        let scores = tvec![rows.clone(), self.targets.to_dim()];
        Ok(match &self.kind {
            Kind::Regressor => tvec![(DatumType::F32, scores)],
            Kind::Ensemble if *dtype == DatumType::F64 => tvec![(DatumType::F64, scores)],
            Kind::Ensemble => tvec![(DatumType::F32, scores)],
            Kind::Classifier(classifier) => tvec![
                (classifier.classes.dtype(), tvec![rows]),
                (DatumType::F32, scores)
            ],
        })
    }

    fn eval(&self, inputs: &[TValue]) -> TractResult<TVec<TValue>> {
        match self.build(inputs[0].datum_type())? {
            Built::F32(ensemble) => self.answer(ensemble, &*inputs[0].cast_to::<f32>()?),
            Built::F64(ensemble) => self.answer(ensemble, &*inputs[0].cast_to::<f64>()?),
        }
    }
}
