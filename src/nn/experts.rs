//! A sparse mixture of experts (Shazeer et al. 2017): each token goes through the few experts that a router likes best.

use burn::tensor::backend::Backend;
use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData, activation};

/// How a router's scores become weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Routing {
    pub experts_per_token: usize,
    /// Whether the weights of one token are brought to a sum of 1.
    pub normalised: bool,
}

impl Routing {
    /// `Σ w_e · expert(e, x)` over the chosen experts of each token of `x [n, hidden]`, from `scores [n, experts]`: w are those of
    /// their softmax. An expert gets the tokens that chose it. One that nobody chose is not asked, unless it `trains`: then it gets
    /// a token of weight 0, so that its gradient is zero, as transformers' is, and an optimizer's moments decay alike.
    pub fn mixture<B: Backend>(
        self,
        x: Tensor<B, 2>,
        scores: Tensor<B, 2>,
        trains: impl Fn(usize) -> bool,
        expert: impl Fn(usize, Tensor<B, 2>) -> Tensor<B, 2>,
    ) -> Tensor<B, 2> {
        let ([n, experts], device) = (scores.dims(), x.device());
        let p = activation::softmax(scores, 1);
        let chosen = self.chosen(&p);
        let mask = chosen.iter().map(|&chosen| f32::from(u8::from(chosen))).collect();
        let weights = p * Tensor::from_data(TensorData::new(mask, [n, experts]), &device);
        let weights = if self.normalised { weights.clone() / weights.sum_dim(1) } else { weights };
        let mut y = x.zeros_like();
        for e in 0..experts {
            let mut tokens: Vec<i32> = (0..n).filter(|token| chosen[token * experts + e]).map(|t| t as i32).collect();
            if tokens.is_empty() {
                if !trains(e) {
                    continue;
                }
                tokens.push(0);
            }
            let tokens = Tensor::<B, 1, Int>::from_data(TensorData::from(&tokens[..]), &device);
            let weight = weights.clone().narrow(1, e, 1).select(0, tokens.clone());
            let result = expert(e, x.clone().select(0, tokens.clone())) * weight;
            y = y.select_assign(0, tokens, result, IndexingUpdateOp::Add);
        }
        y
    }

    /// Whether each token goes through each expert, `[n × experts]`. Nobody is chosen on a device that fails, which is told
    /// where the loss is read.
    fn chosen<B: Backend>(self, p: &Tensor<B, 2>) -> Vec<bool> {
        let [n, experts] = p.dims();
        let data = p.clone().try_into_data().map(|data| data.convert::<f32>().into_vec::<f32>());
        let Ok(Ok(p)) = data else { return vec![false; n * experts] };
        let mut chosen = vec![false; n * experts];
        for (p, chosen) in p.chunks_exact(experts).zip(chosen.chunks_exact_mut(experts)) {
            let mut order: Vec<usize> = (0..experts).collect();
            order.sort_by(|a, b| p[*b].total_cmp(&p[*a]));
            order.iter().take(self.experts_per_token).for_each(|&expert| chosen[expert] = true);
        }
        chosen
    }
}
