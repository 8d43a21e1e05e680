//! The contract: what the configuration says about the inputs and outputs that the model has.

use bellwether_engine::inspect::{DimFacts, ModelFacts, PortFacts};
use bellwether_features::{FillRule, Step};
use bellwether_package::sections::{Contract, Dim, Field, FieldKind, MissingRule, Port};

use super::unfed;
use crate::config::{self, Config, Missing};
use crate::failure::{Failure, Result, Who};

/// Builds the contract and checks that it makes sense by itself.
///
/// # Errors
/// When configuration and model disagree: says which input or output, and what the model has.
pub(crate) fn build(config: &Config, facts: &ModelFacts) -> Result<Contract> {
    let inputs = ports("input", &config.inputs, &facts.inputs)?;
    let states = unfed::states(&config.states, facts)?;
    let constants = unfed::constants(&config.constants, facts)?;
    for port in &facts.inputs {
        let described = inputs.iter().any(|input| input.name == port.name)
            || states.iter().any(|state| state.input == port.name)
            || constants.iter().any(|constant| constant.name == port.name);
        if !described {
            return Err(Failure::operator(format!(
                "the model's input `{}` is not described",
                port.name
            ))
            .next(format!(
                "add [[inputs]] with name = \"{}\" and its columns; [[states]] if an output of the \
                 run before is fed to it, [[constants]] if it is always the same",
                port.name
            )));
        }
    }
    let outputs = ports("output", &config.outputs, &facts.outputs)?;
    let fields: Vec<&str> = inputs
        .iter()
        .flat_map(|port| &port.fields)
        .map(|field| field.name.as_str())
        .collect();
    let steps = config
        .steps
        .iter()
        .map(|one| step(one, &fields))
        .collect::<Result<Vec<Step>>>()?;
    let contract = Contract {
        inputs,
        outputs,
        steps,
        states,
        constants,
    };
    contract.encode().map_err(|error| {
        Failure::operator("inputs, outputs and steps do not make a contract")
            .next("correct what the cause names")
            .because(error)
    })?;
    Ok(contract)
}

/// The described ports, in the model's own order.
fn ports(side: &str, described: &[config::Port], facts: &[PortFacts]) -> Result<Vec<Port>> {
    let known: Vec<&str> = facts.iter().map(|port| port.name.as_str()).collect();
    for (place, port) in described.iter().enumerate() {
        if !known.contains(&port.name.as_str()) {
            return Err(
                Failure::operator(format!("the model has no {side} `{}`", port.name))
                    .next(format!("the model's {side}s are: {}", known.join(", "))),
            );
        }
        if described[..place]
            .iter()
            .any(|earlier| earlier.name == port.name)
        {
            return Err(
                Failure::operator(format!("{side} `{}` is described twice", port.name))
                    .next("keep one of both"),
            );
        }
    }
    let both = facts.iter().filter_map(|facts| {
        described
            .iter()
            .find(|port| port.name == facts.name)
            .map(|port| (port, facts))
    });
    both.map(|(port, facts)| one(side, port, facts)).collect()
}

fn one(side: &str, port: &config::Port, facts: &PortFacts) -> Result<Port> {
    let dtype = facts.dtype.ok_or_else(|| {
        Failure::new(
            Who::Package,
            format!(
                "{side} `{}` has a type that no contract can name",
                port.name
            ),
        )
        .next("export the model with tensors of numbers or truth values only")
    })?;
    let shape = shape(side, &port.name, port.shape.as_deref(), facts)?;
    let fields: Vec<Field> = port.all_fields().into_iter().map(field).collect();
    let width = match shape.last() {
        Some(Dim::Fixed(width)) => *width as usize,
        Some(Dim::Batch) | None => 1,
    };
    if !fields.is_empty() && fields.len() != width {
        return Err(Failure::operator(format!(
            "{side} `{}` has {} columns, and the model's last axis has {width} elements",
            port.name,
            fields.len()
        ))
        .next("name one column for each element, in the order that the model was trained with"));
    }
    Ok(Port {
        name: port.name.clone(),
        dtype,
        shape,
        fields,
    })
}

/// The shape of a port: the model's, as far as it tells, else as the configuration has it.
pub(super) fn shape(
    side: &str,
    name: &str,
    said: Option<&[u32]>,
    facts: &PortFacts,
) -> Result<Vec<Dim>> {
    let open = |what: &str| {
        Failure::operator(format!("{side} `{}`: {what}", name)).next(format!(
            "say it in the configuration: shape = [0, …] beside name = \"{}\", 0 for the batch",
            name
        ))
    };
    let said = said.map(|shape| {
        shape
            .iter()
            .map(|dim| {
                if *dim == 0 {
                    Dim::Batch
                } else {
                    Dim::Fixed(*dim)
                }
            })
            .collect()
    });
    let Some(declared) = &facts.shape else {
        return said.ok_or_else(|| open("the model does not tell its shape"));
    };
    let Some(said): Option<Vec<Dim>> = said else {
        return declared
            .iter()
            .enumerate()
            .map(|(axis, dim)| match dim {
                DimFacts::Fixed(size) => Ok(Dim::Fixed(*size)),
                _ if axis == 0 => Ok(Dim::Batch),
                _ => Err(open(&format!("the model leaves dimension {axis} open"))),
            })
            .collect();
    };
    let agrees = |(said, declared): (&Dim, &DimFacts)| match (said, declared) {
        (Dim::Fixed(said), DimFacts::Fixed(declared)) => said == declared,
        (Dim::Batch, DimFacts::Fixed(_)) => false,
        _ => true,
    };
    if said.len() != declared.len() || !said.iter().zip(declared).all(agrees) {
        return Err(Failure::operator(format!(
            "{side} `{}`: the shape {} is not the model's {}",
            name,
            dims_text(&said),
            facts_text(declared)
        ))
        .next("correct `shape`, or leave it out"));
    }
    Ok(said)
}

fn field(field: config::Field) -> Field {
    Field {
        name: field.name,
        unit: field.unit,
        range: field.range.map(|[lo, hi]| (lo, hi)),
        missing: match field.missing {
            Some(Missing::Nan) => MissingRule::Allow,
            Some(Missing::Refuse) | None => MissingRule::Refuse,
        },
        export: field.export,
        kind: match field.categories {
            Some(domain) => FieldKind::Categorical { domain },
            None => FieldKind::Numeric,
        },
        source: field.source,
    }
}

fn step(step: &config::Step, fields: &[&str]) -> Result<Step> {
    let place = |name: &String| {
        fields
            .iter()
            .position(|field| field == name)
            .and_then(|place| u16::try_from(place).ok())
            .ok_or_else(|| {
                Failure::operator(format!(
                    "a step names the field `{name}`, which no input has"
                ))
                .next(format!("the input fields are: {}", fields.join(", ")))
            })
    };
    Ok(match step {
        config::Step::Unit {
            field,
            factor,
            offset,
        } => Step::Unit {
            field: place(field)?,
            factor: *factor,
            offset: *offset,
        },
        config::Step::Fill { field, value } => Step::Fill {
            field: place(field)?,
            rule: FillRule::Constant(*value),
        },
        config::Step::Scale {
            field,
            centre,
            deviation,
        } => Step::Scale {
            field: place(field)?,
            centre: *centre,
            deviation: *deviation,
        },
        config::Step::Range { field, lo, hi } => Step::Range {
            field: place(field)?,
            lo: *lo,
            hi: *hi,
        },
        config::Step::Clip { field, lo, hi } => Step::Clip {
            field: place(field)?,
            lo: *lo,
            hi: *hi,
        },
        config::Step::Window { len, hop } => Step::Window {
            len: *len,
            hop: *hop,
        },
    })
}

/// A shape for people: `[batch, 9]`.
pub(crate) fn dims_text(shape: &[Dim]) -> String {
    let dims: Vec<String> = shape
        .iter()
        .map(|dim| match dim {
            Dim::Batch => "batch".to_owned(),
            Dim::Fixed(size) => size.to_string(),
        })
        .collect();
    format!("[{}]", dims.join(", "))
}

fn facts_text(shape: &[DimFacts]) -> String {
    let dims: Vec<String> = shape
        .iter()
        .map(|dim| match dim {
            DimFacts::Fixed(size) => size.to_string(),
            DimFacts::Named(name) => name.clone(),
            DimFacts::Unknown => "?".to_owned(),
        })
        .collect();
    format!("[{}]", dims.join(", "))
}
