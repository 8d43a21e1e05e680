//! Convolution as a product of matrices whose second factor is never written down.
//!
//! Laid out flat and padded at its edges, an image needs no gathering: tap (y, x) of a kernel reads
//! the same run of numbers, y·width + x further on. What falls between the end of one output row
//! and the beginning of the next is computed for nothing and dropped. Where that would be too much,
//! pieces of rows are copied next to each other first. With strides, each residue is a plane of its
//! own.
//!
//! The engine's own way gathers a matrix first, and takes about twice as long on the small images
//! and few channels that models for devices have.

mod fuse;
mod product;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use pulp::Arch;
use tract_onnx::tract_core::internal::*;

pub(crate) use fuse::flatten;
use product::{Run, rows_at_once};

/// Below this many output positions a product with a vector is what there is to do, and the engine
/// does it well.
const POSITIONS_MIN: usize = 16;
/// Floats that the planes may fill; convolutions beyond it are left to the engine.
const PLANES_MAX: usize = 1 << 24;
/// Taps of one output; bounds the table of offsets and the panel.
const TAPS_MAX: usize = 1 << 16;
/// Floats that may be read past the last plane: no less than the widest tile.
const SLACK: usize = product::WIDTH_MAX;
/// Copying one number into a panel costs about as much as multiplying it this many times.
const COPY_COST: usize = 6;

/// What is done to each number before it is stored.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Max(f32),
    Min(f32),
    /// x where it is positive, else a multiple of it.
    Leaky(f32),
    /// x · min(max(x + add, low), high) · scale: a hard swish, as exporters write it.
    Gate {
        add: f32,
        low: f32,
        high: f32,
        scale: f32,
    },
}

/// Sizes of a convolution over images of two axes; those with one have a first axis of 1.
#[derive(Debug, Clone, PartialEq)]
struct Geometry {
    batch: usize,
    groups: usize,
    /// Channels of one group.
    inputs: usize,
    outputs: usize,
    image: [usize; 2],
    result: [usize; 2],
    kernel: [usize; 2],
    strides: [usize; 2],
    dilations: [usize; 2],
    /// Padding before the first number; what is after the last follows from the result.
    before: [usize; 2],
}

impl Geometry {
    fn taps(&self) -> Option<usize> {
        let [height, width] = self.kernel;
        self.inputs.checked_mul(height)?.checked_mul(width)
    }

    /// The residues of the stride that taps reach along an axis.
    fn phases(&self, axis: usize) -> Vec<usize> {
        let taps = 0..self.kernel[axis];
        let mut phases: Vec<usize> = taps
            .map(|tap| tap * self.dilations[axis] % self.strides[axis])
            .collect();
        phases.sort_unstable();
        phases.dedup();
        phases
    }

    /// Numbers along an axis of one plane.
    fn reach(&self, axis: usize) -> Option<usize> {
        let last = (self.kernel[axis] - 1).checked_mul(self.dilations[axis])?;
        self.result[axis].checked_add(last / self.strides[axis])
    }

    fn is_sound(&self) -> bool {
        let sizes = [self.batch, self.groups, self.inputs, self.outputs];
        let pairs = [self.image, self.result, self.kernel, self.strides];
        let sizes = sizes.into_iter().chain(pairs.into_iter().flatten());
        sizes.min() > Some(0) && self.result[0].saturating_mul(self.result[1]) >= POSITIONS_MIN
    }
}

/// A convolution in f32 with constant weights, and what directly follows it.
#[derive(Debug, Clone, PartialEq)]
struct FlatConvolution {
    geometry: Geometry,
    shape: TVec<usize>,
    steps: Vec<Step>,
    /// Output channels worked on at once.
    rows: usize,
    /// By group, block of rows, tap, row.
    weights: Arc<[f32]>,
    /// By group, block of rows, row.
    bias: Arc<[f32]>,
    phases: [Vec<usize>; 2],
    plane: [usize; 2],
    /// Where a tap's run of numbers begins.
    offsets: Arc<[usize]>,
    /// The image is one plane as it is.
    in_place: bool,
    /// Computing what falls between the rows is cheaper than copying.
    flat: bool,
}

impl Eq for FlatConvolution {}

impl FlatConvolution {
    /// `kernel` by output, input, y, x. None if the engine's own way is to be taken.
    fn new(
        geometry: Geometry,
        shape: TVec<usize>,
        kernel: &[f32],
        bias: &[f32],
        steps: Vec<Step>,
    ) -> Option<Self> {
        let g = &geometry;
        let taps = g.is_sound().then(|| g.taps()).flatten()?;
        let channels = g.groups.checked_mul(g.outputs)?;
        let fits = bias.len() == channels && channels.checked_mul(taps) == Some(kernel.len());
        if !fits || taps > TAPS_MAX {
            return None;
        }
        let rows = rows_at_once(g.outputs)?;
        let plane = [g.reach(0)?, g.reach(1)?];
        let phases = [g.phases(0), g.phases(1)];
        let sizes = [g.inputs, phases[0].len(), phases[1].len(), plane[0]];
        let floats = sizes
            .iter()
            .try_fold(plane[1], |floats, size| floats.checked_mul(*size))?;
        if floats > PLANES_MAX {
            return None;
        }
        let garbage = (plane[1] - g.result[1]).saturating_mul(g.outputs);
        Some(Self {
            rows,
            weights: blocked(kernel, g, rows, taps).into(),
            bias: blocked(bias, g, rows, 1).into(),
            offsets: offsets(g, &phases, plane).into(),
            in_place: g.strides == [1, 1] && g.before == [0, 0] && plane == g.image,
            flat: garbage < g.result[1].saturating_mul(COPY_COST),
            phases,
            plane,
            shape,
            steps,
            geometry,
        })
    }

    fn planes_len(&self) -> usize {
        let [tall, wide] = &self.phases;
        self.geometry.inputs * tall.len() * wide.len() * self.plane[0] * self.plane[1]
    }

    /// Lays out the image of one group: padded, and a plane for each residue of the strides.
    fn lay_out(&self, image: &[f32], planes: &mut [f32]) {
        let g = &self.geometry;
        let [height, width] = g.image;
        let mut lines = planes.chunks_exact_mut(self.plane[1]);
        for channel in image.chunks_exact(height * width) {
            for tall in &self.phases[0] {
                for wide in &self.phases[1] {
                    for (y, to) in lines.by_ref().take(self.plane[0]).enumerate() {
                        let from = (y * g.strides[0] + tall).checked_sub(g.before[0]);
                        if let Some(from) = from.filter(|from| *from < height) {
                            let line = &channel[from * width..][..width];
                            copy_stepping(line, to, g.strides[1], *wide, g.before[1]);
                        }
                    }
                }
            }
        }
    }
}

/// `to[i] = line[i · stride + phase − before]`, where the line has that.
#[inline(always)]
fn copy_stepping(line: &[f32], to: &mut [f32], stride: usize, phase: usize, before: usize) {
    let first = before.saturating_sub(phase).div_ceil(stride);
    let skipped = first * stride + phase - before;
    if first >= to.len() || skipped >= line.len() {
        return;
    }
    let (to, line) = (&mut to[first..], &line[skipped..]);
    if stride == 1 {
        let len = to.len().min(line.len());
        to[..len].copy_from_slice(&line[..len]);
    } else {
        for (to, from) in to.iter_mut().zip(line.iter().step_by(stride)) {
            *to = *from;
        }
    }
}

/// Values by channel and tap, as values by group, block of `rows` channels, tap, row.
fn blocked(values: &[f32], g: &Geometry, rows: usize, taps: usize) -> Vec<f32> {
    let blocks = g.outputs.div_ceil(rows);
    let mut blocked = vec![0.0; g.groups * blocks * taps * rows];
    for (channel, values) in values.chunks_exact(taps).enumerate() {
        let (group, output) = (channel / g.outputs, channel % g.outputs);
        let block = group * blocks + output / rows;
        for (tap, value) in values.iter().enumerate() {
            blocked[(block * taps + tap) * rows + output % rows] = *value;
        }
    }
    blocked
}

fn offsets(g: &Geometry, phases: &[Vec<usize>; 2], plane: [usize; 2]) -> Vec<usize> {
    let along = |axis: usize, tap: usize| {
        let at = tap * g.dilations[axis];
        let phase = phases[axis].binary_search(&(at % g.strides[axis]));
        (phase.expect("made of these taps"), at / g.strides[axis])
    };
    let mut offsets = Vec::new();
    for input in 0..g.inputs {
        for y in 0..g.kernel[0] {
            for x in 0..g.kernel[1] {
                let ((tall, y), (wide, x)) = (along(0, y), along(1, x));
                let which = (input * phases[0].len() + tall) * phases[1].len() + wide;
                offsets.push((which * plane[0] + y) * plane[1] + x);
            }
        }
    }
    offsets
}

impl Op for FlatConvolution {
    fn name(&self) -> StaticName {
        "FlatConvolution".into()
    }

    op_as_typed_op!();
}

impl EvalOp for FlatConvolution {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let g = &self.geometry;
        let image = input.try_as_plain_ram()?;
        let image = image.as_slice::<f32>()?;
        let numbers = g.batch * g.groups * g.inputs * g.image[0] * g.image[1];
        ensure!(image.len() == numbers, "an image of another size");
        let mut output = Tensor::zero::<f32>(&self.shape)?;
        let mut result = output.try_as_plain_ram_mut()?;
        Arch::new().dispatch(Run {
            convolution: self,
            image,
            result: result.as_slice_mut::<f32>()?,
        });
        Ok(tvec!(output.into_tvalue()))
    }
}

impl TypedOp for FlatConvolution {
    fn output_facts(&self, _: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(f32::fact(&self.shape)))
    }

    as_op!();
}
