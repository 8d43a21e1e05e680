//! Where recurrent cells give NaN.
//!
//! A gate that is NaN makes its unit NaN; in the next step every gate has a part of that unit.

use tract_onnx::{
    tract_core::internal::*,
    tract_hir::internal::tract_ndarray::{ArrayD, IxDyn},
};

use super::kept::nan;

type Places = TVec<ArrayD<bool>>;

/// Gates i, o, f and c of each row and the cells before; the outputs are states and cells.
pub(super) fn lstm_cell(inputs: &[TValue], hidden: usize) -> TractResult<Places> {
    let (gates, before) = (rows(&inputs[0])?, rows(&inputs[1])?);
    let gates =
        |at: usize, which: usize| gates[at / hidden * 4 * hidden + which * hidden + at % hidden];
    let cells: Vec<bool> = (0..before.len())
        .map(|at| before[at] || gates(at, 0) || gates(at, 2) || gates(at, 3))
        .collect();
    let states = (0..before.len())
        .map(|at| cells[at] || gates(at, 1))
        .collect();
    let shape = IxDyn(inputs[1].shape());
    Ok(tvec!(
        ArrayD::from_shape_vec(shape.clone(), states)?,
        ArrayD::from_shape_vec(shape, cells)?,
    ))
}

/// Gates z, r and h of each row, by inputs and by states, and the states before.
pub(super) fn gru_cell(inputs: &[TValue], hidden: usize) -> TractResult<Places> {
    let parts = [rows(&inputs[0])?, rows(&inputs[1])?];
    let before = rows(&inputs[2])?;
    let states = (0..before.len())
        .map(|at| before[at] || parts.iter().any(|gates| any_gate(gates, at, hidden)))
        .collect();
    Ok(tvec!(ArrayD::from_shape_vec(
        IxDyn(inputs[2].shape()),
        states
    )?))
}

/// Inputs by batch, step and number or gate; weights; states before. The outputs are the states
/// of all steps, if anybody reads them, and the last.
pub(super) fn gru(
    inputs: &[TValue],
    hidden: usize,
    projected: bool,
    backward: bool,
) -> TractResult<Places> {
    let fed = nan(&inputs[0])?;
    let (batch, steps) = (fed.shape()[0], fed.shape()[1]);
    let fed = rows(&inputs[0])?;
    let width = fed.len() / (batch * steps).max(1);
    let before = rows(inputs.last().context("states before")?)?;
    // Weights with a NaN spoil all, if not all of them in the first step.
    let mut spoilt_weights = false;
    for weights in &inputs[1..inputs.len() - 1] {
        spoilt_weights = spoilt_weights || rows(weights)?.contains(&true);
    }
    let mut all = vec![false; batch * steps * hidden];
    let mut last = vec![false; batch * hidden];
    for image in 0..batch {
        let state = &mut last[image * hidden..][..hidden];
        state.copy_from_slice(&before[image * hidden..][..hidden]);
        for step in 0..steps {
            let step = if backward { steps - 1 - step } else { step };
            let fed = &fed[(image * steps + step) * width..][..width];
            let spoilt =
                spoilt_weights || state.contains(&true) || !projected && fed.contains(&true);
            for (unit, state) in state.iter_mut().enumerate() {
                *state = spoilt || projected && any_gate(fed, unit, hidden);
            }
            all[(image * steps + step) * hidden..][..hidden].copy_from_slice(state);
        }
    }
    Ok(tvec!(
        ArrayD::from_shape_vec(IxDyn(&[batch, steps, hidden]), all)?,
        ArrayD::from_shape_vec(IxDyn(&[batch, 1, hidden]), last)?,
    ))
}

fn any_gate(gates: &[bool], at: usize, hidden: usize) -> bool {
    let row = &gates[at / hidden * 3 * hidden..][..3 * hidden];
    (0..3).any(|which| row[which * hidden + at % hidden])
}

/// Where a tensor is NaN, one number after the other.
fn rows(tensor: &TValue) -> TractResult<Vec<bool>> {
    Ok(nan(tensor)?.into_iter().collect())
}
