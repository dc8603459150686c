"""Log-probs, entropies and their gradients, against torch in f64."""

import pytest
import torch
from conftest import DTYPES, EPSILON, check_refused, golden, log_probs_of, no_worse, tensor
from prefuse.torch import (
    entropies,
    mask_dpo_weights,
    sequence_log_probs,
    shift_labels,
    token_log_probs,
)


def case(shape=(3, 7), vocab=1031, dtype=torch.float32, scale=4.0):
    logits = (scale * torch.randn(*shape, vocab)).to(dtype)
    labels = torch.randint(vocab, shape)
    labels.view(-1)[::5] = -100
    return logits, labels


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (5,), (3, 7), (2, 1, 3)])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_gradients(dtype, shape, temperature):
    logits, labels = case(shape, dtype=dtype)
    by_log_prob, by_entropy = torch.randn(shape), torch.randn(shape)

    def run(logits, ours):
        logits = logits.clone().requires_grad_()
        if ours:
            log_probs, entropy = token_log_probs(
                logits, labels, temperature=temperature, return_entropy=True
            )
        else:
            log_probs = log_probs_of(logits, labels, temperature)
            rows = torch.log_softmax(logits / temperature, -1)
            entropy = torch.where(labels == -100, 0.0, -(rows.exp() * rows).sum(-1))
        loss = (log_probs * by_log_prob).sum() + (entropy * by_entropy).sum()
        loss.backward()
        return log_probs.detach(), entropy.detach(), logits.grad

    ours, theirs, truth = run(logits, True), run(logits, False), run(logits.double(), False)
    assert ours[0].dtype == ours[1].dtype == torch.float32 and ours[2].dtype == dtype
    for found, other, exact, slack in zip(ours, theirs, truth, [1e-5, 1e-5, EPSILON[dtype]]):
        no_worse(found, other, exact, slack)
    assert torch.all(ours[0][labels == -100] == 0.0) and torch.all(ours[2][labels == -100] == 0.0)


def test_golden_values():
    file = golden("token_logps_f64")
    for of in file["cases"]:
        given = file["inputs"][of["input"]]
        logits, labels = tensor(given["logits"]), tensor(given["labels"])
        temperature = of["params"]["temperature"]
        found = token_log_probs(logits[:, :-1], labels[:, 1:], temperature=temperature)
        expected = tensor(of["expected"]["token_logps"])
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12, msg=of["id"])
        shifted = token_log_probs(logits, shift_labels(labels), temperature=temperature)
        assert torch.equal(shifted[:, :-1], found) and torch.all(shifted[:, -1] == 0.0)
        sums, tokens = sequence_log_probs(logits[:, :-1], labels[:, 1:], temperature=temperature)
        torch.testing.assert_close(sums, tensor(of["expected"]["seq_sum"]), rtol=1e-12, atol=1e-12)
        assert tokens.tolist() == tensor(of["expected"]["n_tokens"]).tolist()


@pytest.mark.parametrize("options", [{}, {"temperature": 0.8}])
def test_gradcheck(options):
    logits, labels = case((2, 3), 7, torch.float64, 1.0)
    logits.requires_grad_()

    def of(logits):
        return token_log_probs(logits, labels, return_entropy=True, **options)

    assert torch.autograd.gradcheck(of, logits)
    assert torch.autograd.gradcheck(lambda x: entropies(x, **options), logits)
    weights = torch.tensor([[1.0, 0.5, 0.0], [2.0, -1.0, 1.0]])

    def sums(logits):
        return sequence_log_probs(logits, labels, weights=weights, **options)[0]

    assert torch.autograd.gradcheck(sums, logits)


LAYOUTS = {
    "all but the last position": lambda x: x[:, :-1],
    "a part of the vocabulary": lambda x: x[..., 3:-2],
    "every other sequence": lambda x: x[::2],
    "every third position": lambda x: x[:, ::3],
    "time first": lambda x: x.transpose(0, 1),
    "both": lambda x: x[::2, 1:-1, :-3].transpose(0, 1),
    "one sequence": lambda x: x[1:2, 2:],
    "one position": lambda x: x[:, 3:4],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_are_read_where_they_lie(layout):
    whole = torch.randn(4, 9, 37, requires_grad=True)
    logits = LAYOUTS[layout](whole)
    labels = torch.randint(logits.shape[-1], logits.shape[:-1])
    labels.view(-1)[1] = -100
    upstream = torch.randn(labels.shape)
    found = token_log_probs(logits, labels)
    (grads,) = torch.autograd.grad(found, whole, upstream)
    copy = token_log_probs(logits.contiguous(), labels)
    (expected,) = torch.autograd.grad(copy, whole, upstream)
    assert torch.equal(found, copy) and torch.equal(grads, expected)


def test_rows_that_lie_otherwise_are_refused():
    labels = torch.zeros(2, 3, dtype=torch.int64)
    for logits in [
        torch.randn(2, 4, 3).transpose(1, 2),
        torch.randn(2, 3, 8)[..., ::2],
        torch.randn(1, 3, 4).expand(2, 3, 4),
    ]:
        with pytest.raises(ValueError, match=r"strides .* call \.contiguous\(\)"):
            token_log_probs(logits, labels)


def test_nothing_is_nothing():
    logits = torch.randn(0, 5, requires_grad=True)
    found = token_log_probs(logits, torch.zeros(0, dtype=torch.int64))
    found.sum().backward()
    assert found.shape == (0,) and logits.grad.shape == (0, 5)


def test_argmax_and_masks():
    logits, labels = case()
    found, most = token_log_probs(logits, labels, return_argmax=True)
    counted = labels != -100
    assert torch.equal(most[counted], logits.argmax(-1)[counted]) and torch.all(
        most[~counted] == -1
    )
    assert not most.requires_grad
    _, squares = token_log_probs(logits, labels, return_log_sum_squares=True)
    expected = torch.logsumexp(2 * torch.log_softmax(logits.double(), -1), -1)
    torch.testing.assert_close(squares[counted].double(), expected[counted], rtol=1e-5, atol=1e-5)
    ours = token_log_probs(logits, labels.to(torch.int32), ignore_index=-100)
    assert torch.equal(ours, found)


def test_gradients_go_where_they_are_asked_for():
    logits, labels = case()
    logits.requires_grad_()
    with torch.no_grad():
        assert not token_log_probs(logits, labels).requires_grad
    log_probs, entropy = token_log_probs(logits, labels, return_entropy=True)
    (by_entropy,) = torch.autograd.grad(entropy.sum(), logits, retain_graph=True)
    (by_both,) = torch.autograd.grad(entropy.sum() + log_probs.sum(), logits, retain_graph=True)
    (by_log_probs,) = torch.autograd.grad(log_probs.sum(), logits)
    torch.testing.assert_close(by_both, by_entropy + by_log_probs)
    for of in (lambda x: x.exp().sum(), torch.sum):
        loss = of(token_log_probs(logits, labels))
        (first,) = torch.autograd.grad(loss, logits, create_graph=True)
        with pytest.raises(RuntimeError, match="gradients of gradients are not computed"):
            (loss + first.pow(2).sum()).backward()
    with pytest.raises(RuntimeError, match="setup_context"):
        torch.func.jvp(
            lambda x: token_log_probs(x, labels).sum(), (logits.detach(),), (logits.detach(),)
        )


def test_in_place():
    logits, labels = case()
    weight = torch.ones((), requires_grad=True)

    def run(inplace):
        scaled = logits * weight
        loss = token_log_probs(scaled, labels, inplace=inplace).sum()
        return scaled, loss

    scaled, loss = run(True)
    before = scaled.data_ptr()
    grads = []
    scaled.register_hook(lambda grad: grads.append(grad))
    loss.backward(retain_graph=True)
    assert grads[0].data_ptr() == before
    _, other = run(False)
    (expected,) = torch.autograd.grad(other, weight)
    torch.testing.assert_close(weight.grad, expected)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    # Metrics that saved the logits before.
    scaled, loss = run(True)
    metric = (scaled * scaled).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        metric.backward()
    leaf = logits.clone().requires_grad_()
    for of in (leaf, leaf.view(1, 3, 7, -1)[0]):
        with pytest.raises(ValueError, match="got a leaf of the graph"):
            token_log_probs(of, labels, inplace=True)
    with pytest.raises(ValueError, match="expected contiguous logits"):
        token_log_probs((logits * weight)[:, :-1], labels[:, :-1], inplace=True)


def test_checkpointing_and_autocast():
    logits, labels = case((4,), 33)
    weight = torch.randn(33, 33, requires_grad=True)

    def head(x):
        return token_log_probs(x @ weight, labels)

    head(logits).sum().backward()
    expected, weight.grad = weight.grad, None
    torch.utils.checkpoint.checkpoint(head, logits, use_reentrant=False).sum().backward()
    assert torch.equal(weight.grad, expected)
    weight.grad = None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head(logits)
        assert found.dtype == torch.float32
        found.sum().backward()
    assert weight.grad.dtype == torch.float32


def test_packed_sequences_are_those_of_padded_ones():
    lengths, vocab = [3, 0, 5, 1], 29
    rows = torch.randn(sum(lengths), vocab, requires_grad=True)
    labels = torch.randint(vocab, (sum(lengths),))
    weights = torch.rand(sum(lengths))
    offsets = torch.tensor([0, 3, 3, 8, 9], dtype=torch.int32)
    sums, tokens = sequence_log_probs(rows, labels, weights=weights, cu_seqlens=offsets)
    assert tokens.tolist() == [3.0, 0.0, 5.0, 1.0]
    upstream = torch.randn(4)
    (grads,) = torch.autograd.grad(sums, rows, upstream)
    padded = torch.zeros(4, 5, vocab)
    padded_labels = torch.full((4, 5), -100)
    padded_weights = torch.ones(4, 5)
    for index, (start, length) in enumerate(zip(offsets.tolist(), lengths)):
        part = slice(start, start + length)
        padded[index, :length] = rows.detach()[part]
        padded_labels[index, :length] = labels[part]
        padded_weights[index, :length] = weights[part]
    padded.requires_grad_()
    others, _ = sequence_log_probs(padded, padded_labels, weights=padded_weights)
    assert torch.equal(others, sums)
    (others,) = torch.autograd.grad(others, padded, upstream)
    for index, (start, length) in enumerate(zip(offsets.tolist(), lengths)):
        assert torch.equal(others[index, :length], grads[start : start + length])


def test_labels_are_shifted_within_sequences():
    ids = torch.tensor([7, 8, 9, 4, 5])
    assert shift_labels(ids).tolist() == [8, 9, 4, 5, -100]
    assert shift_labels(ids, cu_seqlens=[0, 3, 3, 5]).tolist() == [8, 9, -100, 5, -100]
    assert shift_labels(ids[None], cu_seqlens=[0, 3, 5]).tolist() == [[8, 9, -100, 5, -100]]
    small = torch.tensor([1, 2, 3], dtype=torch.uint8)
    assert shift_labels(small).tolist() == [2, 3, -100]
    with pytest.raises(TypeError, match="ids: expected a tensor of integers, got list"):
        shift_labels([1, 2, 3])
    with pytest.raises(ValueError, match="cu_seqlens: expected to start at 0, got 4"):
        shift_labels(ids, cu_seqlens=[4, 5])
    with pytest.raises(ValueError, match="cu_seqlens: expected to end at the 5 tokens, got 4"):
        shift_labels(ids, cu_seqlens=[0, 4])


def test_mask_dpo():
    labels = torch.zeros(2, 3, dtype=torch.int64)
    sentences = [(0, 0, 2, False), (1, 1, 3, False)]
    weights = mask_dpo_weights(labels, sentences)
    assert weights.tolist() == [[0.0, 0.0, 1.0], [1.0, 1.0, 1.0]]
    weights = mask_dpo_weights(labels, sentences, keep_unlabelled=False, pairs=[(0, 1)])
    assert weights.tolist() == [[0.0, 0.0, 0.0], [0.0, 1.0, 1.0]]
    with pytest.raises(ValueError, match="sentence"):
        mask_dpo_weights(labels, [(0, 0, 4, True)])
    with pytest.raises(ValueError, match=r"expected \(sequence, start, end, factual\), got \(0, 0"):
        mask_dpo_weights(labels, [(0, 0, 4)])


class Scored(torch.utils.data.Dataset):
    """Log-probs of each item, computed by a worker."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        torch.manual_seed(index)
        logits, labels = case((40,), 4001)
        return token_log_probs(logits, labels)


def test_forked_workers_have_threads_of_their_own():
    expected = [Scored()[index] for index in range(4)]
    loader = torch.utils.data.DataLoader(
        Scored(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60
    )
    for found, other in zip(loader, expected, strict=True):
        assert torch.equal(found, other)


def test_bad_input():
    logits, labels = torch.randn(2, 3, 5), torch.zeros(2, 3, dtype=torch.int64)
    cases = [
        (
            r"labels: expected shape \[2, 3\], that of the logits, got \[2\]",
            ValueError,
            lambda: token_log_probs(logits, labels[:, 0]),
        ),
        (
            "labels: expected int64, got torch.float32",
            TypeError,
            lambda: token_log_probs(logits, labels.float()),
        ),
        (
            "logits: expected float32, float16, bfloat16 or float64, got torch.int64",
            TypeError,
            lambda: token_log_probs(labels[..., None], labels),
        ),
        ("logits: expected a tensor, got list", TypeError, lambda: token_log_probs([1.0], labels)),
        ("label of token 0: expected", ValueError, lambda: token_log_probs(logits, labels + 5)),
        ("label of token 0: expected", ValueError, lambda: token_log_probs(logits, labels - 1)),
        (
            "temperature: expected",
            ValueError,
            lambda: token_log_probs(logits, labels, temperature=0.0),
        ),
        (
            r"logits: expected shape \[.., vocab\], got \[\]",
            ValueError,
            lambda: token_log_probs(logits[0, 0, 0], labels),
        ),
        ("meta", ValueError, lambda: token_log_probs(logits.to("meta"), labels)),
        (
            r"or cu_seqlens beside \[tokens, vocab\], got \[6, 5\]",
            ValueError,
            lambda: sequence_log_probs(logits.view(6, 5), labels.view(6)),
        ),
        (
            "cu_seqlens: expected to end at the 6 tokens, got 4",
            ValueError,
            lambda: sequence_log_probs(logits.view(6, 5), labels.view(6), cu_seqlens=[0, 4]),
        ),
        (
            "cu_seqlens: expected int32 or int64",
            TypeError,
            lambda: sequence_log_probs(
                logits.view(6, 5), labels.view(6), cu_seqlens=torch.tensor([0.0, 6.0])
            ),
        ),
        (
            "weights: expected a tensor without gradient",
            ValueError,
            lambda: sequence_log_probs(
                logits, labels, weights=torch.ones(2, 3, requires_grad=True)
            ),
        ),
        (
            "logits: expected a dense tensor",
            TypeError,
            lambda: token_log_probs(logits[0].to_sparse(), labels[0]),
        ),
        (
            r"weights: expected shape \[2, 3\]",
            ValueError,
            lambda: sequence_log_probs(logits, labels, weights=torch.ones(2)),
        ),
    ]
    check_refused(cases)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounded_log_probs_are_the_nearest(dtype):
    logits, labels = case((4, 32), 1024, dtype, 1.0)
    exact = log_probs_of(logits.double(), labels).to(dtype)
    assert torch.equal(token_log_probs(logits, labels).to(dtype), exact)
    assert not torch.equal(log_probs_of(logits, labels), exact)
