//! burn-fusion: the default bodies are plain tensor operations, which it fuses; the product with a packed weight is one operation.

use std::iter;
use std::marker::PhantomData;

use burn::tensor::ops::{Device, FloatTensor};
use burn_fusion::stream::{Operation, OperationStreams};
use burn_fusion::{Fusion, FusionBackend, FusionHandle};
use burn_ir::{CustomOpIr, HandleContainer, OperationIr, TensorIr};

use crate::frozen::Form;
use crate::{Compute, FrozenWeight, LowRankBackend, Side};

/// Inputs: `x`, then the weight's tensors of floats and of integers.
#[derive(Debug)]
struct FrozenMatmul<B> {
    ir: CustomOpIr,
    form: Form,
    /// How many of the inputs are the weight's floats.
    floats: usize,
    side: Side,
    backend: PhantomData<B>,
}

impl<B: FusionBackend + LowRankBackend> Operation<B::FusionRuntime> for FrozenMatmul<B> {
    fn execute(&self, handles: &mut HandleContainer<FusionHandle<B::FusionRuntime>>) {
        let [x, weight @ ..] = &self.ir.inputs[..] else { unreachable!("registered with x") };
        let (floats, ints) = weight.split_at(self.floats);
        let x = handles.get_float_tensor::<B>(x);
        let floats: Vec<_> = floats.iter().map(|ir| handles.get_float_tensor::<B>(ir)).collect();
        let ints: Vec<_> = ints.iter().map(|ir| handles.get_int_tensor::<B>(ir)).collect();
        let y = B::frozen_matmul(x, self.form.assemble(floats, ints), self.side);
        handles.register_float_tensor::<B>(&self.ir.outputs[0].id, y);
    }
}

impl<B: FusionBackend + LowRankBackend> LowRankBackend for Fusion<B> {
    fn computes_in(compute: Compute, device: &Device<Self>) -> bool {
        B::computes_in(compute, device)
    }

    fn frozen_matmul(x: FloatTensor<Self>, weight: FrozenWeight<Self>, side: Side) -> FloatTensor<Self> {
        let (form, floats, ints) = weight.take_apart();
        let Some(packing) = form.packing() else {
            return form.assemble::<Self>(floats, ints).plain_product(x, side);
        };
        let [_, columns] = packing.along(side);
        let client = x.client.clone();
        let y = TensorIr::uninit(client.create_empty_handle(), [x.shape[0], columns].into(), x.dtype);
        let streams = OperationStreams::with_inputs(iter::once(&x).chain(&floats).chain(&ints));
        let count = floats.len();
        let inputs: Vec<TensorIr> = iter::once(x).chain(floats).chain(ints).map(|tensor| tensor.into_ir()).collect();
        let ir = CustomOpIr::new("frozen_matmul", &inputs, &[y]);
        let operation = FrozenMatmul::<B> { ir: ir.clone(), form, floats: count, side, backend: PhantomData };
        client.register(streams, OperationIr::Custom(ir), operation).remove(0)
    }
}
