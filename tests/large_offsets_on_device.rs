//! What takes most of a device's memory, and minutes of an emulator: on a real device alone.

use half::bf16;
use prefuse::batch::{Labels, Logits, LogitsMut};
use prefuse::{Backend, DType, MaskedRows, RowOptions, Slice, Target, token_log_probs};

use crate::backends::devices;
use crate::common::{Placed, logits};

/// More rows than a grid has blocks, and elements beyond 2^32; the last rows are like few of them.
#[test]
#[ignore = "takes 13 GB of a device"]
fn many_rows() {
    let (vocab, few) = (33, 64);
    let tokens = (1_usize << 32) / vocab + 1000;
    let data = logits::<bf16>(1, few, vocab);
    let options = RowOptions::default();
    for device in devices() {
        let mut many = device.allocate(DType::BF16, tokens * vocab).unwrap();
        let last = (tokens - few) * vocab..tokens * vocab;
        let mut part = many.slice_mut().part(last.clone()).unwrap();
        part.copy_from(Slice::new(&data)).unwrap();
        let ids = device.allocate(DType::I64, tokens).unwrap();
        let labels = Labels::from_slice(ids.slice()).unwrap();
        let view = Logits::from_slice(many.slice(), tokens, vocab, vocab).unwrap();
        let ours = token_log_probs(&device, view, &labels, None, options).unwrap();
        let mut packed = Placed::new(&device, &data);
        let few_labels = Labels::new(vec![0; few]);
        let rows = packed.logits(few, vocab);
        let expected = token_log_probs(&device, rows, &few_labels, None, options).unwrap();
        let got = ours.log_probs().part(tokens - few..tokens).unwrap();
        let bits = |values: Slice<'_>| values.read::<f32>().unwrap().into_iter().map(f32::to_bits);
        assert!(bits(got).eq(bits(expected.log_probs())));
        let first = ours.log_probs().part(0..1).unwrap().read::<f32>().unwrap()[0];
        assert!((first + 33_f32.ln()).abs() < 1e-5, "{first}");

        let mut upstream = device.allocate(DType::F32, tokens).unwrap();
        let mut part = upstream.slice_mut().part(tokens - few..tokens).unwrap();
        part.copy_from(Slice::new(&vec![1.0_f32; few])).unwrap();
        let target = LogitsMut::from_slice(many.slice_mut(), tokens, vocab, vocab).unwrap();
        let (target, grads) = (Target::InPlace(target), (upstream.slice(), None));
        ours.logit_grads(&device, target, (&labels, None), grads, MaskedRows::Zero).unwrap();
        let ones = Placed::new(&device, &vec![1.0_f32; few]);
        let target = Target::InPlace(packed.target(few, vocab));
        let grads = (ones.slice(), None);
        expected
            .logit_grads(&device, target, (&few_labels, None), grads, MaskedRows::Zero)
            .unwrap();
        let got: Vec<bf16> = many.slice().part(last).unwrap().read().unwrap();
        assert!(
            got.iter().map(|x| x.to_bits()).eq(packed.read::<bf16>().iter().map(|x| x.to_bits()))
        );
    }
}
