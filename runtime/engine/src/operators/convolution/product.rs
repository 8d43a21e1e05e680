//! The product itself, with the vectors that this CPU has.

use pulp::{Arch, Simd, WithSimd};

use super::{FlatConvolution, SLACK, Step};

/// Floats of a row of the widest tile: 8 vectors of 16.
pub(super) const WIDTH_MAX: usize = 128;

/// Rows at once, and how well they keep the CPU busy, in hundredths.
const CHOICES: [(usize, usize); 6] = [(12, 100), (8, 100), (6, 100), (4, 95), (2, 60), (1, 40)];
/// Those whose sums fit into 16 registers.
const CHOICES_NARROW: &[(usize, usize)] = CHOICES.split_at(2).1;
const REGISTERS_MANY: usize = 32;

/// The number of rows that wastes least of so many outputs. None if there are no vectors that we
/// know of: the engine may know some.
pub(super) fn rows_at_once(outputs: usize) -> Option<usize> {
    let choices = match Arch::new().dispatch(Registers)? {
        REGISTERS_MANY.. => &CHOICES[..],
        _ => CHOICES_NARROW,
    };
    let cost = |(rows, share): &&(usize, usize)| outputs.div_ceil(*rows) * rows * 1000 / share;
    choices.iter().min_by_key(cost).map(|(rows, _)| *rows)
}

struct Registers;

impl WithSimd for Registers {
    type Output = Option<usize>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Self::Output {
        (!S::IS_SCALAR && S::F32_LANES * 8 <= WIDTH_MAX).then_some(S::REGISTER_COUNT)
    }
}

/// One evaluation.
pub(super) struct Run<'a> {
    pub(super) convolution: &'a FlatConvolution,
    pub(super) image: &'a [f32],
    pub(super) result: &'a mut [f32],
}

impl WithSimd for Run<'_> {
    type Output = ();

    /// Sums, one run of numbers and one weight together just fit into the registers.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (self.convolution.rows, S::REGISTER_COUNT >= REGISTERS_MANY) {
            (12, _) => self.run::<S, 12, 2>(simd),
            (8, _) => self.run::<S, 8, 3>(simd),
            (6, true) => self.run::<S, 6, 4>(simd),
            (6, false) => self.run::<S, 6, 2>(simd),
            (4, true) => self.run::<S, 4, 6>(simd),
            (4, false) => self.run::<S, 4, 2>(simd),
            (2, true) => self.run::<S, 2, 8>(simd),
            (2, false) => self.run::<S, 2, 4>(simd),
            _ => self.run::<S, 1, 8>(simd),
        }
    }
}

impl Run<'_> {
    #[inline(always)]
    fn run<S: Simd, const R: usize, const V: usize>(self, simd: S) {
        let c = self.convolution;
        let g = &c.geometry;
        let (taps, width) = (c.offsets.len(), V * S::F32_LANES);
        let mut planes = match c.in_place {
            true => Vec::new(),
            false => vec![0.0; c.planes_len() + SLACK],
        };
        let never_copies = c.flat && !c.in_place;
        let mut panel = vec![0.0; if never_copies { 0 } else { taps * width }];
        let packed: Vec<usize> = (0..taps).map(|tap| tap * width).collect();
        let images = self.image.chunks_exact(g.inputs * g.image[0] * g.image[1]);
        let results = g.outputs * g.result[0] * g.result[1];
        let results = self.result.chunks_exact_mut(results);
        for (at, (image, result)) in images.zip(results).enumerate() {
            let source = match c.in_place {
                true => image,
                false => {
                    c.lay_out(image, &mut planes);
                    &planes
                }
            };
            let mut from = 0;
            while from < c.positions() {
                let left = c.positions() - from;
                let tile = Tile::of(left, S::F32_LANES, R, V);
                let end = c.offsets.last().map_or(0, |offset| offset + from) + tile.width;
                let direct = c.flat && end <= source.len();
                if !direct {
                    c.fill(source, panel.chunks_exact_mut(width), from, tile.len);
                }
                let second = match direct {
                    true => (source, &*c.offsets, from),
                    false => (&*panel, &*packed, 0),
                };
                c.blocks::<S, R, V>(simd, at % g.groups, second, &tile, result, from);
                from += tile.len;
            }
        }
    }
}

/// The positions worked on at once.
struct Tile {
    /// All vectors, or one.
    full: bool,
    width: usize,
    len: usize,
}

impl Tile {
    /// A rest goes vector by vector where that is cheaper. One vector of few rows waits for its own
    /// sums: no less than eight must be under way.
    #[inline(always)]
    fn of(left: usize, lanes: usize, rows: usize, vectors: usize) -> Self {
        let full = left >= vectors * lanes || left.div_ceil(lanes) * rows.max(8) >= rows * vectors;
        let width = if full { vectors * lanes } else { lanes };
        let len = left.min(width);
        Self { full, width, len }
    }
}

impl FlatConvolution {
    /// Positions from the beginning of one row to that of the next.
    #[inline(always)]
    fn pitch(&self) -> usize {
        if self.flat {
            self.plane[1]
        } else {
            self.geometry.result[1]
        }
    }

    #[inline(always)]
    fn positions(&self) -> usize {
        (self.geometry.result[0] - 1) * self.pitch() + self.geometry.result[1]
    }

    /// Copies what `len` positions from `from` on read: a row of the panel for each tap.
    #[inline(always)]
    fn fill<'p>(
        &self,
        source: &[f32],
        panel: impl Iterator<Item = &'p mut [f32]>,
        from: usize,
        len: usize,
    ) {
        let pieces = Pieces::new(from, len, self.pitch(), self.flat);
        for (row, offset) in panel.zip(self.offsets.iter()) {
            for piece in pieces {
                let at = offset + piece.y * self.plane[1] + piece.x;
                row[piece.at..][..piece.len].copy_from_slice(&source[at..][..piece.len]);
            }
        }
    }

    /// All output channels of a group at one tile's positions.
    #[inline(always)]
    fn blocks<S: Simd, const R: usize, const V: usize>(
        &self,
        simd: S,
        group: usize,
        second: (&[f32], &[usize], usize),
        tile: &Tile,
        result: &mut [f32],
        from: usize,
    ) {
        let g = &self.geometry;
        let (size, width) = (g.result[0] * g.result[1], g.result[1]);
        let taps = self.offsets.len();
        let blocks = g.outputs.div_ceil(R);
        let weights = self.weights.chunks_exact(R * taps).skip(group * blocks);
        let bias = self.bias.chunks_exact(R).skip(group * blocks);
        let channels = result.chunks_mut(R * size);
        // Where nothing falls between the rows, a channel is one of them.
        let whole = self.pitch() == width;
        let end = if whole { usize::MAX } else { width };
        let pieces = Pieces::new(from, tile.len, self.pitch(), whole);
        let mut sums = [[0.0; WIDTH_MAX]; R];
        for ((weights, bias), channels) in weights.zip(bias).zip(channels) {
            match tile.full {
                true => multiply::<S, R, V>(simd, weights, bias, second, &mut sums),
                false => multiply::<S, R, 1>(simd, weights, bias, second, &mut sums),
            }
            for (row, channel) in sums.iter_mut().zip(channels.chunks_exact_mut(size)) {
                let row = &mut row[..tile.len];
                self.steps.iter().for_each(|step| step.apply(row));
                for piece in pieces {
                    let len = piece.len.min(end.saturating_sub(piece.x));
                    if len > 0 {
                        let to = &mut channel[piece.y * width + piece.x..][..len];
                        to.copy_from_slice(&row[piece.at..][..len]);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn multiply<S: Simd, const R: usize, const V: usize>(
    simd: S,
    weights: &[f32],
    bias: &[f32],
    (numbers, offsets, start): (&[f32], &[usize], usize),
    tile: &mut [[f32; WIDTH_MAX]; R],
) {
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    for row in 0..R {
        sums[row] = [simd.splat_f32s(bias[row]); V];
    }
    for (weights, offset) in weights.chunks_exact(R).zip(offsets) {
        let (run, _) = S::as_simd_f32s(&numbers[offset + start..][..V * S::F32_LANES]);
        for row in 0..R {
            let weight = simd.splat_f32s(weights[row]);
            for vector in 0..V {
                sums[row][vector] = simd.mul_add_f32s(weight, run[vector], sums[row][vector]);
            }
        }
    }
    for (to, sums) in tile.iter_mut().zip(&sums) {
        let (to, _) = S::as_mut_simd_f32s(&mut to[..V * S::F32_LANES]);
        to.copy_from_slice(sums);
    }
}

impl Step {
    /// Written so that what is not a number stays so.
    #[inline(always)]
    fn apply(self, row: &mut [f32]) {
        let at_least = |x: f32, low: f32| if x < low { low } else { x };
        let at_most = |x: f32, high: f32| if x > high { high } else { x };
        match self {
            Self::Max(low) => row.iter_mut().for_each(|x| *x = at_least(*x, low)),
            Self::Min(high) => row.iter_mut().for_each(|x| *x = at_most(*x, high)),
            Self::Leaky(slope) => row
                .iter_mut()
                .for_each(|x| *x = if *x < 0.0 { *x * slope } else { *x }),
            Self::Gate {
                add,
                low,
                high,
                scale,
            } => row
                .iter_mut()
                .for_each(|x| *x *= at_most(at_least(*x + add, low), high) * scale),
        }
    }
}

/// A run of positions, cut where rows end; or whole, as if all were one row.
#[derive(Clone, Copy)]
struct Pieces {
    y: usize,
    x: usize,
    done: usize,
    len: usize,
    pitch: usize,
}

struct Piece {
    y: usize,
    x: usize,
    at: usize,
    len: usize,
}

impl Pieces {
    #[inline(always)]
    fn new(from: usize, len: usize, pitch: usize, whole: bool) -> Self {
        let pitch = if whole { usize::MAX } else { pitch };
        Self {
            y: from / pitch,
            x: from % pitch,
            done: 0,
            len,
            pitch,
        }
    }
}

impl Iterator for Pieces {
    type Item = Piece;

    #[inline(always)]
    fn next(&mut self) -> Option<Piece> {
        let len = (self.pitch - self.x).min(self.len - self.done);
        if len == 0 {
            return None;
        }
        let piece = Piece {
            y: self.y,
            x: self.x,
            at: self.done,
            len,
        };
        (self.y, self.x, self.done) = (self.y + 1, 0, self.done + len);
        Some(piece)
    }
}
