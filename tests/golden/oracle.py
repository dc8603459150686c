"""What the torch scripts of losses share: detaching; gradients, their check and the file of two."""

import torch
from golden_file import document, write_or_check
from independent import encode


class Stop:
    """Detaches; after `replay` it gives what it detached first, so that differences hold it."""

    def __init__(self):
        self.kept, self.at = [], None

    def replay(self):
        self.at = 0

    def __call__(self, x):
        if self.at is None:
            self.kept.append(x.detach())
            return self.kept[-1]
        self.at = (self.at + 1) % len(self.kept)
        return self.kept[self.at - 1]


def gradient(losses_of, arrays, name, stop, label, kinked=False):
    """The gradient of the sum of `losses_of(arrays)` by one array, checked by differences.

    The losses are a vector of independent units; `kinked` leaves the check out.
    """
    leaf = arrays[name].clone().requires_grad_()
    total = losses_of(arrays | {name: leaf}).sum() + 0 * leaf.sum()
    (grad,) = torch.autograd.grad(total, leaf)
    assert torch.isfinite(grad).all(), (label, name, grad)
    stop.replay()
    if not kinked:
        check(losses_of, arrays, name, grad, label)
    return grad


def check(losses_of, arrays, name, grad, label):
    """Compares a gradient with a five-point central difference, entry by entry."""
    x = arrays[name]
    step = 3e-4
    for index in range(x.numel()):

        def at(k, index=index):
            moved = x.clone()
            moved.view(-1)[index] += k * step
            with torch.no_grad():
                return losses_of(arrays | {name: moved})

        values = [at(k) for k in (-2, -1, 1, 2)]
        change = 8 * (values[2] - values[1]) - (values[3] - values[0])
        want = (change / (12 * step)).sum()
        moving = torch.where(change != 0, values[0].abs(), 0.0).sum()
        got = grad.view(-1)[index]
        rounding = 64 * 2.0**-52 * (1 + moving + x.view(-1)[index].abs()) / step
        tolerance = 1e-6 * got.abs() + 1e-8 + rounding
        assert abs(want - got) <= tolerance, (label, name, index, float(want), float(got))


def finite(label, expected):
    """The expected values, every one of them finite."""
    for key, value in expected.items():
        assert torch.isfinite(value).all(), (label, key, value)
    return encode(expected)


class Cases:
    """The inputs and cases of a file, as they are computed."""

    def __init__(self):
        self.inputs, self.cases, self.counts = {}, [], {}

    def add(self, objective, params, make, names, note, expected, noted=None):
        """A case for each named input of `make`; the note is of all, or of those `noted`."""
        index = self.counts[objective] = self.counts.get(objective, -1) + 1
        for name in names:
            arrays = make(name)
            given = f"{make.__name__}/{name}"
            self.inputs.setdefault(given, encode(arrays))
            label = f"{objective}/{index}/{name}"
            head = {"id": label, "objective": objective, "params": params, "input": given}
            said = note if noted is None or name in noted else None
            results = finite(label, expected(label, name, arrays))
            self.cases.append(head | ({"note": said} if said else {}) | {"expected": results})


def write(name, description, functions, notes, found, arguments):
    """Writes the golden file or compares it with the one there."""
    inputs, cases = found.inputs, found.cases
    assert len({case["id"] for case in cases}) == len(cases)
    used = {case["input"] for case in cases}
    assert used == set(inputs), used ^ set(inputs)
    header = {
        "schema": "prefloss-golden/1",
        "file": name,
        "description": description,
        "functions": functions,
        "provenance": "torch f64 composed by this project from the papers and the published code",
        "packages": {"torch": torch.__version__.split("+")[0]},
        "encoding": "tensor={shape,dtype,data row-major}; every number is finite",
        "notes": notes,
    }
    write_or_check(name, document(header, inputs=inputs, cases=cases), arguments)
    counts = {}
    for case in cases:
        counts[case["objective"]] = counts.get(case["objective"], 0) + 1
    print(f"{name}: {len(cases)} cases, {len(inputs)} inputs")
    print(", ".join(f"{key} {count}" for key, count in counts.items()))
