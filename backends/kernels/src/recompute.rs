//! Operations whose results burn computes again going back instead of keeping them.
//!
//! burn computes a result again where its operation is marked as bound by memory. It decides so for a whole backend
//! (`BalancedCheckpointing`), and then holds the operands of every addition until the backward pass starts, which costs more
//! than it saves. So single operations are marked here, whatever the backend's strategy: those whose operands are kept anyway.

use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn_autodiff::checkpoint::retro_forward::RetroForward;
use burn_autodiff::checkpoint::state::BackwardStates;
use burn_autodiff::checkpoint::strategy::{BalancedCheckpointing, CheckpointStrategy};
use burn_autodiff::ops::{Backward, OpsKind};
use burn_autodiff::{Autodiff, NodeId};

/// An operation on `N` tensors that is cheap enough to run twice; what it needs beside them it carries itself.
pub(crate) trait Repeatable<B: Backend, const N: usize>: Backward<B, N> + Copy {
    fn run(self, operands: [FloatTensor<B>; N]) -> FloatTensor<B>;

    /// What the backward pass needs.
    fn state(self, operands: &[FloatTensor<B>; N]) -> Self::State;
}

/// Where a repetition finds an operand. burn only hands out values of nodes that it tracks.
#[derive(Debug)]
enum Operand<B: Backend> {
    Tracked(NodeId),
    Constant(FloatTensor<B>),
}

#[derive(Debug)]
struct Again<O, B: Backend, const N: usize> {
    operation: O,
    operands: [Operand<B>; N],
}

impl<B: Backend, O: Repeatable<B, N>, const N: usize> RetroForward for Again<O, B, N> {
    fn forward(&self, states: &mut BackwardStates, out: NodeId) {
        let operands = self.operands.each_ref().map(|operand| match operand {
            Operand::Tracked(id) => states.get_state::<FloatTensor<B>>(id),
            Operand::Constant(value) => value.clone(),
        });
        states.save(out, self.operation.run(operands));
    }
}

/// Runs the operation, so that its result is kept for no one.
pub(crate) fn repeatable<B: Backend, C: CheckpointStrategy, O: Repeatable<B, N>, const N: usize>(
    operation: O,
    operands: [FloatTensor<Autodiff<B, C>>; N],
) -> FloatTensor<Autodiff<B, C>> {
    let prep = operation.prepare::<BalancedCheckpointing>(operands.each_ref().map(|x| x.node.clone()));
    let tracked: Vec<_> = operands.iter().filter(|x| x.is_tracked()).collect();
    // burn could not compute an untracked result again: it does not know its operands.
    let prep = if tracked.is_empty() {
        prep.compute_bound()
    } else {
        let operands = operands.each_ref().map(|x| match x.is_tracked() {
            true => Operand::Tracked(x.node.id),
            false => Operand::Constant(x.primitive.clone()),
        });
        prep.memory_bound().retro_forward(Again { operation, operands }).parents(tracked)
    };
    let values = operands.map(|x| x.primitive);
    match prep.stateful() {
        OpsKind::Tracked(prep) => {
            let state = operation.state(&values);
            prep.finish(state, operation.run(values))
        }
        OpsKind::UnTracked(prep) => prep.finish(operation.run(values)),
    }
}
