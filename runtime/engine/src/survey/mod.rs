//! Looks over a model's bytes before anything parses them.
//!
//! The parser of the engine turns a byte of a hostile file into hundreds of bytes of memory, and
//! believes what a tensor says of its size. This one believes nothing, keeps nothing but names and
//! counts, and never calls itself: it walks the wire format of protocol buffers along
//! `schema`'s fields, at most [`DEPTH_MAX`] messages deep, and refuses what no honest export
//! contains.
//!
//! It answers *may this be parsed*, not *can this be run*: operators are `inspect`'s business.

mod cursor;
mod schema;
mod tensor;

use bellwether_wire::{RANK_MAX, Refusal, bounded_message};

use crate::inspect::SUBGRAPH_DEPTH_MAX;
use cursor::{Cursor, Value};
use schema::{Field, Kind};
use tensor::{ELEMENTS_MAX, Elements, TensorFacts};

/// Messages within messages at most: three for each graph within a graph, and a few for a tensor
/// or a shape at the bottom. The parser itself gives up at 100.
pub const DEPTH_MAX: usize = 3 * SUBGRAPH_DEPTH_MAX + 12;
/// Nodes at most, those of inner graphs included: ten times the largest export seen.
pub const NODES_MAX: u64 = 100_000;
/// Initialisers and constants at most.
pub const TENSORS_MAX: u64 = 100_000;
/// Messages of any kind at most. Each costs the parser some 200 bytes, whatever its length.
pub const MESSAGES_MAX: u64 = 2_000_000;
/// Strings in lists at most: an ensemble of a thousand trees names the mode of each of its nodes.
pub const STRINGS_MAX: u64 = 16_000_000;
/// Bytes of a name at most: of a node, a value, an operator, a domain.
pub const NAME_BYTES_MAX: usize = 4096;
/// Bytes of the formula for a dimension at most: it is parsed by descent.
pub const FORMULA_BYTES_MAX: usize = 256;
/// Bytes of a text attribute or of one string of a list at most.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Refuses bytes that must not be parsed.
pub fn survey(onnx: &[u8]) -> Result<(), Refusal> {
    let mut survey = Survey {
        cursor: Cursor::new(onnx),
        open: Vec::with_capacity(DEPTH_MAX),
        tally: Tally::default(),
        tensor: TensorFacts::default(),
        shape: Elements::default(),
        dim: None,
    };
    survey.enter(Kind::Model, onnx.len())?;
    while let Some(end) = survey.open.last().map(|open| open.end) {
        if survey.cursor.at() == end {
            survey.leave()?;
        } else {
            survey.field(end)?;
        }
    }
    Ok(())
}

struct Survey<'a> {
    cursor: Cursor<'a>,
    /// From the model down to the message that is being read.
    open: Vec<Open<'a>>,
    tally: Tally,
    /// Of the one tensor that is open: tensors hold no tensors.
    tensor: TensorFacts<'a>,
    /// Of the one shape that is open, and its open dimension.
    shape: Elements,
    dim: Option<i64>,
}

/// A message that is being read.
struct Open<'a> {
    kind: Kind,
    end: usize,
    /// A bit for each field that may stand here once and did.
    seen: u32,
    name: &'a [u8],
    /// A node's first output: what viewers show where it has no name.
    output: &'a [u8],
}

impl Open<'_> {
    fn shown(&self) -> Option<String> {
        let bytes = [self.name, self.output]
            .into_iter()
            .find(|s| !s.is_empty())?;
        // Cut before it is cleaned: nothing here grows with a name.
        let bytes = &bytes[..bytes.len().min(NAME_BYTES_MAX)];
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
}

#[derive(Default)]
struct Tally {
    nodes: u64,
    tensors: u64,
    messages: u64,
    strings: u64,
}

impl<'a> Survey<'a> {
    fn enter(&mut self, kind: Kind, end: usize) -> Result<(), Refusal> {
        self.count(kind)?;
        match kind {
            Kind::Tensor => self.tensor = TensorFacts::default(),
            Kind::Shape => self.shape = Elements::default(),
            Kind::Dimension => self.dim = None,
            _ => {}
        }
        self.open.push(Open {
            kind,
            end,
            seen: 0,
            name: &[],
            output: &[],
        });
        Ok(())
    }

    fn count(&mut self, kind: Kind) -> Result<(), Refusal> {
        let graphs = || self.open.iter().filter(|open| open.kind == Kind::Graph);
        let deep = self.open.len() >= DEPTH_MAX
            || (kind == Kind::Graph && graphs().count() > SUBGRAPH_DEPTH_MAX);
        if deep {
            let levels = SUBGRAPH_DEPTH_MAX as u64;
            return Err(self.excess("levels of graphs within graphs", levels + 1, levels));
        }
        self.tally.messages += 1;
        let (what, found, most) = match kind {
            Kind::Node => {
                self.tally.nodes += 1;
                ("nodes", self.tally.nodes, NODES_MAX)
            }
            Kind::Tensor => {
                self.tally.tensors += 1;
                (
                    "initialisers and constants",
                    self.tally.tensors,
                    TENSORS_MAX,
                )
            }
            _ => ("parts", self.tally.messages, MESSAGES_MAX),
        };
        if found > most {
            return Err(self.excess(what, found, most));
        }
        Ok(())
    }

    /// Checks the innermost message as a whole, now that it was read.
    fn leave(&mut self) -> Result<(), Refusal> {
        match self.open.last().map(|open| open.kind) {
            Some(Kind::Tensor) => {
                let place = self.place();
                self.tensor.check(&place)?;
            }
            Some(Kind::Shape) => self.check_shape()?,
            Some(Kind::Dimension) => {
                // Without a number, or with one below zero as some exporters write, it is open.
                let size = self.dim.and_then(|dim| u64::try_from(dim).ok());
                self.shape.take(size.unwrap_or(1));
            }
            _ => {}
        }
        self.open.pop();
        Ok(())
    }

    fn check_shape(&self) -> Result<(), Refusal> {
        if self.shape.rank > RANK_MAX {
            return Err(self.excess("dimensions", self.shape.rank as u64, RANK_MAX as u64));
        }
        match self.shape.product {
            Some(product) if product <= ELEMENTS_MAX => Ok(()),
            product => Err(self.excess("elements", product.unwrap_or(u64::MAX), ELEMENTS_MAX)),
        }
    }

    /// Reads one field of the innermost message, which ends at `end`.
    fn field(&mut self, end: usize) -> Result<(), Refusal> {
        let (tag, value) = self.cursor.field(end)?;
        let Some(kind) = self.open.last().map(|open| open.kind) else {
            return Ok(());
        };
        match (schema::field(kind, tag), value) {
            (Field::Message(inner), Value::Bytes(bytes)) => self.walk_into(inner, bytes.len()),
            (Field::OneMessage(inner), Value::Bytes(bytes)) => {
                self.once(tag)?;
                self.walk_into(inner, bytes.len())
            }
            (Field::Name, Value::Bytes(bytes)) => {
                self.text("name", bytes, NAME_BYTES_MAX)?;
                self.keep_name(kind, tag, bytes);
                Ok(())
            }
            (Field::Formula, Value::Bytes(bytes)) => {
                self.text("dimension", bytes, FORMULA_BYTES_MAX)
            }
            (Field::Text, Value::Bytes(bytes)) => self.text("text", bytes, TEXT_BYTES_MAX),
            (Field::Texts, Value::Bytes(bytes)) => self.string(kind, bytes),
            (Field::Tensor, value) => self.tensor_field(tag, value),
            (Field::Size, Value::Number(size)) => {
                self.dim = Some(size.cast_signed());
                Ok(())
            }
            (Field::Refused(message), _) => Err(self.refuse(message)),
            // What the schema does not know, the parser passes over; what has another form than
            // the schema's, the parser refuses.
            _ => Ok(()),
        }
    }

    /// Opens the message of `length` bytes that the cursor has just passed.
    fn walk_into(&mut self, kind: Kind, length: usize) -> Result<(), Refusal> {
        let end = self.cursor.at();
        self.cursor.back(length);
        self.enter(kind, end)
    }

    fn tensor_field(&mut self, tag: u32, value: Value<'_>) -> Result<(), Refusal> {
        if self.tensor.take(tag, value) {
            return Ok(());
        }
        let place = self.place();
        Err(malformed(&format!("the dimensions of {place} do not end")))
    }

    fn string(&mut self, kind: Kind, bytes: &[u8]) -> Result<(), Refusal> {
        self.text("string", bytes, TEXT_BYTES_MAX)?;
        self.tally.strings += 1;
        if kind == Kind::Tensor {
            self.tensor.strings += 1;
        }
        if self.tally.strings > STRINGS_MAX {
            return Err(self.excess("strings", self.tally.strings, STRINGS_MAX));
        }
        Ok(())
    }

    /// The parser would merge a message that stands twice, and what was checked in halves would
    /// become a whole that was not.
    fn once(&mut self, tag: u32) -> Result<(), Refusal> {
        let bit = 1_u32.checked_shl(tag).unwrap_or(0);
        match self.open.last_mut() {
            Some(open) if open.seen & bit == 0 => {
                open.seen |= bit;
                Ok(())
            }
            _ => Err(malformed(&format!(
                "{} is given twice in part",
                self.place()
            ))),
        }
    }

    fn text(&self, what: &str, bytes: &[u8], most: usize) -> Result<(), Refusal> {
        if bytes.len() <= most {
            return Ok(());
        }
        let what = format!("bytes in a {what}");
        Err(self.excess(&what, bytes.len() as u64, most as u64))
    }

    fn keep_name(&mut self, kind: Kind, tag: u32, bytes: &'a [u8]) {
        if kind == Kind::Tensor {
            self.tensor.name = bytes;
        }
        let Some(open) = self.open.last_mut() else {
            return;
        };
        if schema::name(kind) == Some(tag) {
            open.name = bytes;
        } else if schema::is_output(kind, tag) && open.output.is_empty() {
            open.output = bytes;
        }
    }

    /// Where the survey stands, as a person would look for it.
    fn place(&self) -> String {
        let mut place = String::new();
        for open in self.open.iter().rev() {
            let (Some(noun), Some(name)) = (open.kind.noun(), open.shown()) else {
                continue;
            };
            place.push_str(&format!("{noun} `{name}`"));
            // An attribute says little without its node.
            if open.kind != Kind::Attribute {
                break;
            }
            place.push_str(" of ");
        }
        if place.is_empty() || place.ends_with(" of ") {
            place.push_str("the model");
        }
        bounded_message(&place)
    }

    fn excess(&self, what: &str, found: u64, most: u64) -> Refusal {
        Refusal::Excess {
            place: self.place(),
            what: what.to_owned(),
            found,
            most,
        }
    }

    fn refuse(&self, message: &str) -> Refusal {
        Refusal::Unsupported {
            node: None,
            operator: None,
            stage: "read".to_owned(),
            message: bounded_message(&format!("{} {message}", self.place())),
        }
    }
}

fn malformed(message: &str) -> Refusal {
    Refusal::Malformed {
        message: bounded_message(message),
    }
}

#[cfg(test)]
mod tests;
