//! The calls of the library, on the `[tokens, vocab]` logits of a pack.

use anyhow::Result;
use candle_core::Tensor;
use prefuse::batch::{Batch, Labels, Pairs, ReferenceLogProbs, Unlabelled, Weights};
use prefuse::objectives::Dpo;
use prefuse::{Loss, RowOptions, Term};
use serde::Serialize;

use crate::sequences::Pack;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Method {
    #[serde(rename = "DPO")]
    Dpo,
    #[serde(rename = "Mask-DPO")]
    MaskDpo,
}

impl Method {
    pub fn name(self) -> &'static str {
        match self {
            Self::Dpo => "DPO",
            Self::MaskDpo => "Mask-DPO",
        }
    }
}

/// The log-probability of each row's label, `[tokens]`, with a backward pass; 0 where ignored.
pub fn token_log_probs(logits: &Tensor, labels: &[i64]) -> Result<Tensor> {
    let labels = Labels::new(labels);
    let tokens = prefuse_candle::token_log_probs(logits, &labels, None, RowOptions::default())?;
    Ok(tokens.log_probs)
}

/// The mean loss of a pack that holds all chosen answers, then their rejected ones. Mask-DPO is DPO
/// with token weights, under which policy and reference are summed alike.
pub fn preference_loss(
    logits: &Tensor,
    pack: &Pack,
    reference: &[f32],
    method: Method,
    beta: f64,
) -> Result<Tensor> {
    let pairs = Pairs::halves(pack.packing.sequences() / 2)?;
    let mut batch = Batch::new(Labels::new(&pack.labels[..]), pack.packing.clone())?;
    if method == Method::MaskDpo {
        batch = batch.with_weights(mask(pack, &pairs)?)?;
    }
    let batch = batch.with_reference(ReferenceLogProbs::per_token(reference))?.with_pairs(pairs)?;
    let loss = Loss::new(batch, [Term::pairs(Dpo::new(beta))])?;
    Ok(prefuse_candle::preference_loss(logits, &loss)?.loss)
}

/// 1 for the true sentences of chosen answers, the false ones of rejected answers and every token
/// outside the marked sentences; 0 for the rest.
pub fn mask(pack: &Pack, pairs: &Pairs<'_>) -> Result<Weights<'static>> {
    Ok(Weights::mask_dpo(&pack.packing, pairs, &pack.sentences, Unlabelled::Keep)?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::records::parse_records;
    use crate::sequences::{IGNORED, SequencePair};
    use crate::tokenizer::Tokenizer;

    const LINE: &str = r#"{"prompt":"Old?","chosen":"It is old. It is big. So.","rejected":"It is big. It is old. So.","chosen_sentences":[{"start":0,"end":10,"factual":true},{"start":10,"end":21,"factual":false}],"rejected_sentences":[{"start":0,"end":10,"factual":false},{"start":10,"end":21,"factual":true}]}"#;

    /// The marks of user and assistant and the prompt's two words precede the first answer token.
    const PROMPT_ROWS: usize = 3;

    fn pack(line: &str) -> (Pack, usize) {
        let record = &parse_records("test", line.as_bytes()).expect("a record").records[0];
        let texts = ["Old?", "It is old. It is big. So.", "So."];
        let tokenizer = Tokenizer::from_texts(texts.into_iter().chain(texts));
        let pair = SequencePair::new(&tokenizer, record, 64);
        (Pack::new([&pair.chosen, &pair.rejected]).expect("a pack"), tokenizer.vocabulary())
    }

    fn weights(pack: &Pack) -> [Vec<f32>; 2] {
        let weights = mask(pack, &Pairs::halves(1).expect("a pair")).expect("weights");
        [0, 1].map(|sequence| {
            let rows = pack.packing.get(sequence).expect("a sequence");
            weights.host().expect("host memory")[rows][PROMPT_ROWS..].to_vec()
        })
    }

    #[test]
    fn true_chosen_and_false_rejected_sentences_count_and_so_do_the_end_and_unmarked_tokens() {
        let [chosen, rejected] = weights(&pack(LINE).0);
        assert_eq!(chosen, [1., 1., 1., 1., 0., 0., 0., 0., 1., 1., 1.]);
        assert_eq!(rejected, [1., 1., 1., 1., 0., 0., 0., 0., 1., 1., 1.]);
    }

    #[test]
    fn answers_without_labels_count_in_full() {
        let line = r#"{"prompt":"Old?","chosen":"It is old.","rejected":"So."}"#;
        let [chosen, rejected] = weights(&pack(line).0);
        assert_eq!((chosen, rejected), (vec![1.; 5], vec![1.; 3]));
    }

    #[test]
    fn masked_tokens_have_no_gradient() {
        let (pack, vocabulary) = pack(LINE);
        let rows = pack.labels.len();
        let value = |index: usize| ((index * 7919) % 1009) as f32 / 500.0 - 1.0;
        let values: Vec<f32> = (0..rows * vocabulary).map(value).collect();
        let logits = Var::from_vec(values, (rows, vocabulary), &Device::Cpu).expect("logits");
        for (method, masked) in [(Method::Dpo, 0), (Method::MaskDpo, 8)] {
            let reference = vec![-3.0; rows];
            let loss = preference_loss(&logits, &pack, &reference, method, 0.1).expect("a loss");
            let gradients = loss.backward().expect("a backward pass");
            let gradient = gradients.get(&logits).expect("a gradient");
            let gradient = gradient.to_vec2::<f32>().expect("rows");
            let untouched: Vec<usize> = (0..rows)
                .filter(|&row| pack.labels[row] != IGNORED)
                .filter(|&row| gradient[row].iter().all(|&entry| entry == 0.0))
                .collect();
            assert_eq!(untouched.len(), masked, "{method:?}");
            let weights = mask(&pack, &Pairs::halves(1).expect("a pair")).expect("weights");
            assert!(untouched.iter().all(|&row| weights.host().expect("host memory")[row] == 0.0));
        }
    }
}
