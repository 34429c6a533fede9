//! The inputs of a node that is being put together.

use rbc_ir::Input;

/// Inputs, the base first. Each other node is listed once, however often it is used.
pub(super) struct Inputs(Vec<Input>);

impl Inputs {
    /// Those of a node that works on `base`.
    pub fn new(base: Input) -> Self {
        Self(vec![base])
    }

    /// Adds an input and gives its number.
    pub fn push(&mut self, input: Input) -> u32 {
        let known = self.0.iter().skip(1).position(|have| *have == input);
        let index = known.map_or(self.0.len(), |at| at + 1);
        if known.is_none() {
            self.0.push(input);
        }
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    /// All of them, in order.
    pub fn finish(self) -> Vec<Input> {
        self.0
    }
}
