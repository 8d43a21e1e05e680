//! What is not a number stays so.
//!
//! A device watches for NaN in what a model answers. Much of the engine computes with `maxps` and
//! its like, which take the number where one of two is none, so that a NaN from the middle of a
//! model never reached its outputs: a rectifier made it 0, a sigmoid 1.
//!
//! | operators | are |
//! |---|---|
//! | the greatest and least of two, of windows, along axes | our own: [`pair`], [`extreme`], [`pool`] |
//! | activations, softmax, recurrent cells, scattered extremes, the first of a sorted list | the engine's, with the places of NaN put right where there is one: [`kept`] |
//! | what the engine takes for nothing: `0 · x`, the square of a root | told apart before it looks: [`untouched`] |
//!
//! To look for a NaN is one pass over numbers that are about to be read anyway.

mod cells;
mod extreme;
mod kept;
mod number;
mod pair;
mod pool;
#[cfg(test)]
mod tests;
mod untouched;

use tract_onnx::tract_core::{
    internal::*,
    ops::{
        array::{ScatterElements, ScatterNd, ScatterReduction, Topk},
        binary::TypedBinOp,
        cnn::MaxPool,
        element_wise::{ElementWiseMiniOp, ElementWiseOp},
        gru_cell::GruEpilogue,
        gru_seq::GruSeq,
        logic::IfThenElse,
        lstm_cell::LstmEpilogue,
        math::{Erf, Exp, Ln, Max, Min, Tanh},
        nn::{GeluApproximate, GeluExact, HardSwish, Reduce, Sigmoid, Silu, Softmax},
        scan::Scan,
    },
};

use super::recurrent::LstmCell;
use extreme::Extreme;
use kept::{Kept, Spread};
use number::is_float;
use pair::Pair;
use pool::Pool;

pub(crate) use number::greater;
pub(crate) use untouched::keep_from_simplifying;

/// Replaces the operators of a decluttered model that lose NaN, those of its loops and conditions
/// too. Graphs are nested no deeper than was read.
pub(crate) fn keep(model: &mut TypedModel) -> TractResult<()> {
    let found = model.nodes().iter().map(|node| kept(model, node));
    let found = found.collect::<TractResult<Vec<_>>>()?;
    for (node, op) in model.nodes_mut().iter_mut().zip(found) {
        if let Some(op) = op {
            node.op = op;
        } else if let Some(scan) = node.op_as_mut::<Scan>() {
            keep(&mut scan.body)?;
        } else if let Some(condition) = node.op_as_mut::<IfThenElse>() {
            keep(&mut condition.then_body)?;
            keep(&mut condition.else_body)?;
        }
    }
    Ok(())
}

/// What to put in place of a node's operator.
fn kept(model: &TypedModel, node: &TypedNode) -> TractResult<Option<Box<dyn TypedOp>>> {
    let facts = model.node_input_facts(node.id)?;
    if !facts.first().is_some_and(|fact| is_float(fact.datum_type)) {
        return Ok(None);
    }
    if let Some(op) = node.op_as::<TypedBinOp>() {
        let same = facts[0].datum_type == facts[1].datum_type;
        let pair = if op.0.is::<Max>() {
            Some(Pair::Greatest)
        } else {
            op.0.is::<Min>().then_some(Pair::Least)
        };
        let pair = pair.filter(|_| same);
        return Ok(pair.map(|pair| Box::new(TypedBinOp(Box::new(pair), op.1)) as _));
    }
    if let Some(reduce) = node.op_as::<Reduce>() {
        return Ok(Extreme::of(reduce).map(|op| Box::new(op) as _));
    }
    if let Some(pool) = node.op_as::<MaxPool>() {
        return Ok(Pool::of(pool, facts[0])?.map(|op| Box::new(op) as _));
    }
    let spread = spread(&*node.op);
    Ok(spread.map(|spread| Box::new(Kept::new(node.op.clone(), spread, &facts)) as _))
}

/// How NaN spreads through an operator whose kernels may lose it.
fn spread(op: &dyn TypedOp) -> Option<Spread> {
    if let Some(op) = op.downcast_ref::<ElementWiseOp>() {
        return has_clamping_kernel(&*op.0).then_some(Spread::Same);
    }
    if let Some(op) = op.downcast_ref::<Softmax>() {
        return Some(Spread::Along(op.axes.clone()));
    }
    if op
        .downcast_ref::<ScatterNd>()
        .is_some_and(|op| takes_extremes(op.reduction))
    {
        let reduction = ScatterReduction::Add;
        return Some(Spread::Sum(Box::new(ScatterNd { reduction })));
    }
    if let Some(op) = op
        .downcast_ref::<ScatterElements>()
        .filter(|op| takes_extremes(op.reduction))
    {
        let reduction = ScatterReduction::Add;
        return Some(Spread::Sum(Box::new(ScatterElements {
            reduction,
            ..op.clone()
        })));
    }
    if let Some(op) = op.downcast_ref::<Topk>() {
        return Some(Spread::First {
            axis: op.axis,
            greatest: op.largest,
        });
    }
    if let Some(op) = op.downcast_ref::<LstmEpilogue>() {
        return Some(Spread::LstmCell(op.hidden));
    }
    if let Some(op) = op.downcast_ref::<LstmCell>() {
        return Some(Spread::LstmCell(op.hidden));
    }
    if let Some(op) = op.downcast_ref::<GruEpilogue>() {
        return Some(Spread::GruCell(op.hidden));
    }
    op.downcast_ref::<GruSeq>().map(|op| Spread::Gru {
        hidden: op.hidden,
        projected: op.projected,
        backward: op.chunk < 0,
    })
}

/// Operators on each number for which the engine has kernels by processor, some of which clamp.
fn has_clamping_kernel(op: &dyn ElementWiseMiniOp) -> bool {
    op.is::<Sigmoid>()
        || op.is::<Tanh>()
        || op.is::<Silu>()
        || op.is::<HardSwish>()
        || op.is::<GeluApproximate>()
        || op.is::<GeluExact>()
        || op.is::<Erf>()
        || op.is::<Exp>()
        || op.is::<Ln>()
}

fn takes_extremes(reduction: ScatterReduction) -> bool {
    matches!(reduction, ScatterReduction::Max | ScatterReduction::Min)
}
