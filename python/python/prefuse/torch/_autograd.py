"""The operators, connected to their gradients."""

from __future__ import annotations

import functools

import torch
from torch.autograd.function import once_differentiable

_ops = torch.ops.prefuse


def _once(backward):
    """`once_differentiable`, which lets a gradient through as a constant where the upstream one is a constant."""
    plain = once_differentiable(backward)

    @functools.wraps(backward)
    def checked(ctx, *upstream):
        found = plain(ctx, *upstream)
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return found
        message = "prefuse: gradients of gradients are not computed"
        error = torch._C._functions.DelayedError(message, len(found))
        return error(*[of if of is None else of.detach().requires_grad_() for of in found])

    return checked


class TokenLogProbs(torch.autograd.Function):
    """Log-probs, maxima, logarithms of sums; entropies, logarithms of sums of squares and argmax, if asked for.

    Log-probs and entropies have a gradient.
    """

    @staticmethod
    def forward(ctx, logits, labels, ignore_index, temperature, entropy, squares, argmax, inplace):
        found = _ops.token_log_probs.default(
            logits, labels, ignore_index, temperature, entropy, squares, argmax
        )
        _, maximum, log_sum, *more = found
        ctx.save_for_backward(logits, labels, maximum, log_sum, more[0] if entropy else None)
        ctx.options = (ignore_index, temperature, inplace)
        ctx.mark_non_differentiable(maximum, log_sum, *more[entropy:])
        ctx.set_materialize_grads(False)
        return tuple(found)

    @staticmethod
    @_once
    def backward(ctx, by_log_prob, _maximum, _log_sum, *more):
        logits, labels, maximum, log_sum, entropy = ctx.saved_tensors
        ignore_index, temperature, inplace = ctx.options
        by_entropy = None if entropy is None else more[0]
        if by_log_prob is None and by_entropy is None:
            return (None,) * 8
        if by_log_prob is None:
            by_log_prob = torch.zeros_like(maximum)
        entropy = None if by_entropy is None else entropy
        of_rows = (labels, ignore_index, temperature, maximum, log_sum)
        by = (by_log_prob, by_entropy, entropy)
        if inplace:
            grads = logits.detach()
            _ops.logit_grads_.default(grads, *of_rows, *by)
            # Whoever saved the logits too is refused from now on.
            torch.autograd.graph.increment_version(logits)
        else:
            grads = _ops.logit_grads.default(logits, *of_rows, *by)
        return (grads, *[None] * 7)


class Loss(torch.autograd.Function):
    """The loss; the numbers beside it have no gradient."""

    @staticmethod
    def forward(ctx, log_probs, entropy, maximum, log_sum, labels, options):
        *found, by_log_prob, by_entropy = _ops.loss.default(
            log_probs, maximum, log_sum, entropy, labels, *options
        )
        ctx.save_for_backward(by_log_prob, by_entropy)
        ctx.uses_entropy = options[-1]
        ctx.mark_non_differentiable(*found[1:])
        return tuple(found)

    @staticmethod
    @_once
    def backward(ctx, upstream, *_):
        by_log_prob, by_entropy = ctx.saved_tensors
        by_entropy = by_entropy * upstream if ctx.uses_entropy else None
        return by_log_prob * upstream, by_entropy, None, None, None, None


class ScalarLoss(torch.autograd.Function):
    """The same over one number for each sequence."""

    @staticmethod
    def forward(ctx, values, tokens, options):
        *found, grads = _ops.scalar_loss.default(values, tokens, *options)
        ctx.save_for_backward(grads)
        ctx.mark_non_differentiable(*found[1:])
        return tuple(found)

    @staticmethod
    @_once
    def backward(ctx, upstream, *_):
        (grads,) = ctx.saved_tensors
        return grads * upstream, None, None


class SequenceSums(torch.autograd.Function):
    """Sums of weight times log-prob; counted tokens and sums of weights have no gradient."""

    @staticmethod
    def forward(ctx, log_probs, labels, ignore_index, weights, offsets):
        sums, tokens, weights_of = _ops.sequence_sums.default(
            log_probs, labels, ignore_index, weights, offsets
        )
        ctx.save_for_backward(labels, weights, offsets)
        ctx.ignore_index = ignore_index
        ctx.mark_non_differentiable(tokens, weights_of)
        return sums, tokens, weights_of

    @staticmethod
    @_once
    def backward(ctx, upstream, *_):
        labels, weights, offsets = ctx.saved_tensors
        grads = _ops.token_grads.default(
            upstream.contiguous(), labels, ctx.ignore_index, weights, offsets
        )
        return grads, None, None, None, None


class Divergence(torch.autograd.Function):
    """Divergences of each token, by any upstream gradient: the rows are visited again on the way back."""

    @staticmethod
    def forward(
        ctx, student, labels, ignore_index, ids, entries, text, floats, entropies, *teachers
    ):
        values, *of_entropies, _ = _ops.divergence.default(
            student, teachers, ids, entries, labels, ignore_index, text, floats, None, entropies
        )
        ctx.save_for_backward(student, labels, ids, entries, floats, *teachers)
        ctx.options = (ignore_index, text)
        ctx.mark_non_differentiable(*of_entropies)
        return (values, *of_entropies)

    @staticmethod
    @_once
    def backward(ctx, upstream, *_):
        student, labels, ids, entries, floats, *teachers = ctx.saved_tensors
        ignore_index, text = ctx.options
        *_, grads = _ops.divergence.default(
            student, teachers, ids, entries, labels, ignore_index, text, floats, upstream, 0
        )
        return (grads, *[None] * (7 + len(teachers)))


class Distillation(torch.autograd.Function):
    """The sum of the tokens' divergences under `factors`, and beside it, without gradient, the divergences.

    On the CPU the gradient comes from the same visit of the rows, as long as the upstream gradient is 1, and is
    kept. On a device that cannot be known without waiting, and a visit more costs what a product would.
    """

    @staticmethod
    def forward(
        ctx,
        student,
        labels,
        ignore_index,
        ids,
        entries,
        text,
        floats,
        entropies,
        factors,
        *teachers,
    ):
        at_once = ctx.needs_input_grad[0] and not student.is_cuda
        at_once = at_once and not torch.compiler.is_compiling()
        by = factors if at_once else None
        values, *of_entropies, grads = _ops.divergence.default(
            student, teachers, ids, entries, labels, ignore_index, text, floats, by, entropies
        )
        kept = grads if at_once else None
        ctx.save_for_backward(student, labels, ids, entries, floats, factors, kept, *teachers)
        ctx.options = (ignore_index, text)
        ctx.mark_non_differentiable(values, *of_entropies)
        # A factor of 0 takes out what may be infinite.
        weighed = torch.where(factors == 0.0, 0.0, values * factors)
        return (weighed.sum(), values, *of_entropies)

    @staticmethod
    @_once
    def backward(ctx, upstream, *_):
        student, labels, ids, entries, floats, factors, grads, *teachers = ctx.saved_tensors
        ignore_index, text = ctx.options
        if grads is None or upstream != 1.0:
            by = factors * upstream
            *_, grads = _ops.divergence.default(
                student, teachers, ids, entries, labels, ignore_index, text, floats, by, 0
            )
        return (grads, *[None] * (8 + len(teachers)))
