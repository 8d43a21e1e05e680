//! Inputs of the model that nobody feeds: states, which the run before left, and constants.

use bellwether_engine::inspect::{DimFacts, ModelFacts, PortFacts};
use bellwether_package::sections::{Constant, DType, State};

use super::{contract, sample};
use crate::config;
use crate::failure::{Failure, Result, Who};

/// The states of the contract.
///
/// # Errors
/// When the model has no such input or output, or their types differ.
pub(super) fn states(described: &[config::State], facts: &ModelFacts) -> Result<Vec<State>> {
    let state = |one: &config::State| {
        let input = find("input", &one.input, &facts.inputs)?;
        let output = find("output", &one.output, &facts.outputs)?;
        let dtype = dtype("input", input)?;
        // An output whose type the model does not tell is looked at when it runs.
        if output.dtype.is_some_and(|found| found != dtype) {
            return Err(Failure::operator(format!(
                "output `{}` is of another type than input `{}`, so it can't be fed to it",
                one.output, one.input
            ))
            .next("name the output that the model gives for the next run"));
        }
        Ok(State {
            input: one.input.clone(),
            output: one.output.clone(),
            dtype,
            shape: contract::shape("state", &one.input, one.shape.as_deref(), input)?,
        })
    };
    described.iter().map(state).collect()
}

/// The constants of the contract.
///
/// # Errors
/// When the model has no such input, or the value does not fit it.
pub(super) fn constants(
    described: &[config::Constant],
    facts: &ModelFacts,
) -> Result<Vec<Constant>> {
    described
        .iter()
        .map(|one| {
            let input = find("input", &one.name, &facts.inputs)?;
            constant(one, input, dtype("input", input)?)
        })
        .collect()
}

fn constant(one: &config::Constant, facts: &PortFacts, dtype: DType) -> Result<Constant> {
    let wrong = |problem: &str| {
        Failure::operator(format!("constant `{}` {problem}", one.name))
            .next("give a number, or arrays of numbers as deep as the input has dimensions")
    };
    let (mut shape, mut bytes) = (Vec::new(), Vec::new());
    measure(&one.value, &mut shape);
    fill(&one.value, &shape, dtype, &mut bytes).map_err(|problem| wrong(&problem))?;
    // A number for an input of one element needs no brackets.
    if let (Some(declared), []) = (&facts.shape, &shape[..]) {
        shape = vec![1; declared.len()];
    }
    let fits = facts.shape.as_ref().is_none_or(|declared| {
        let fits = |(declared, found): (&DimFacts, &u32)| match declared {
            DimFacts::Fixed(size) => size == found,
            DimFacts::Named(_) | DimFacts::Unknown => true,
        };
        declared.len() == shape.len() && declared.iter().zip(&shape).all(fits)
    });
    if !fits {
        return Err(wrong("has another shape than the model's input"));
    }
    Ok(Constant {
        name: one.name.clone(),
        dtype,
        shape,
        bytes,
    })
}

/// The shape of nested arrays, by the first of each.
fn measure(value: &toml::Value, shape: &mut Vec<u32>) {
    let mut value = Some(value);
    while let Some(toml::Value::Array(inner)) = value {
        shape.push(u32::try_from(inner.len()).unwrap_or(u32::MAX));
        value = inner.first();
    }
}

/// Appends the numbers of nested arrays, which must all be of `shape`.
fn fill(
    value: &toml::Value,
    shape: &[u32],
    dtype: DType,
    bytes: &mut Vec<u8>,
) -> std::result::Result<(), String> {
    match (value, shape) {
        (toml::Value::Array(inner), [size, rest @ ..]) if inner.len() == *size as usize => inner
            .iter()
            .try_for_each(|one| fill(one, rest, dtype, bytes)),
        // Every i64 that a model means by a number of its own is a whole f64.
        (toml::Value::Integer(number), []) => sample::push(bytes, dtype, *number as f64),
        (toml::Value::Float(number), []) => sample::push(bytes, dtype, *number),
        (toml::Value::Boolean(truth), []) => {
            sample::push(bytes, dtype, f64::from(u8::from(*truth)))
        }
        _ => Err("holds something else than numbers, or rows of different lengths".to_owned()),
    }
}

fn find<'a>(side: &str, name: &str, ports: &'a [PortFacts]) -> Result<&'a PortFacts> {
    ports.iter().find(|port| port.name == name).ok_or_else(|| {
        let known: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
        Failure::operator(format!("the model has no {side} `{name}`"))
            .next(format!("the model's {side}s are: {}", known.join(", ")))
    })
}

fn dtype(side: &str, facts: &PortFacts) -> Result<DType> {
    facts.dtype.ok_or_else(|| {
        Failure::new(
            Who::Package,
            format!(
                "{side} `{}` has a type that no contract can name",
                facts.name
            ),
        )
        .next("export the model with tensors of numbers or truth values only")
    })
}
