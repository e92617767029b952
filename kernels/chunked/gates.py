"""The decay inside chunks and its gradients: what tokens see of each other, what enters and leaves.

With G the log decay summed from a chunk's start, on tensors [M, C, D] of M chunks:
    scores(a, b)[t, s] = sum_d a[t, d] b[s, d] exp(G[t, d] - G[s, d])     for s <= t, else 0
    reading(p, v)[t, d] = sum_s p[t, s] exp(G[t, d] - G[s, d]) v[s, d]    over s <= t
        (p is 0 above the diagonal; add_reading adds the sum to a given tensor)
    transposed_reading(p, o)[s, d] = sum_t p[t, s] exp(G[t, d] - G[s, d]) o[t, d]    over t >= s
    entering(a)[t] = a[t] exp(G[t]),   leaving(b)[s] = b[s] exp(G[C] - G[s]),   total = exp(G[C])
Most have a pull_ method, its vector-Jacobian product: it returns or adds up the gradients of the
tensors, keeps that of G, and may overwrite the gradient it is given. No gradient of G passes
through terms that cancel (the diagonal, the last token's leaving): at -20 their rounding would
drown it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Half a chunk's log decay for which float32 factors are good to 40 * 2^-24 = 2e-6.
_MILD = -40.0


def gates_for(log_decay: Tensor | None, steps: int = 1) -> NoGates:
    """From [M, C, 1], one decay a head, or [M, C, D], one a channel.

    steps: rows of one token; all but its first must be 0.
    """
    if log_decay is None:
        return NoGates()
    return ScalarGates(log_decay) if log_decay.shape[-1] == 1 else ChannelGates(log_decay, steps)


class NoGates:
    """No decay, and the interface of all gates."""

    # None stands for 1.
    total: Tensor | None = None  # [M, 1, 1 or D]
    enter: Tensor | None = None  # [M, C, 1 or D], what `entering` multiplies by
    leave: Tensor | None = None  # [M, C, 1 or D], what `leaving` does

    def start_pulling(self) -> None:
        """Begin a backward pass: the gradient of G is 0 again."""

    def scores(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.bmm(a, b.mT).tril_()

    def pull_scores(
        self, grad: Tensor, scores: Tensor, a: Tensor, b: Tensor, grad_a: Tensor, grad_b: Tensor
    ) -> None:
        """Add to grad_a and grad_b, which may be one tensor."""
        grad.tril_()
        grad_a.baddbmm_(grad, b)
        grad_b.baddbmm_(grad.mT, a)

    def reading(self, p: Tensor, v: Tensor) -> Tensor:
        return torch.bmm(p, v)

    def add_reading(self, onto: Tensor, p: Tensor, v: Tensor) -> Tensor:
        return onto.baddbmm_(p, v)

    def transposed_reading(self, p: Tensor, o: Tensor) -> Tensor:
        return torch.bmm(p.mT, o)

    def pull_reading(self, grad: Tensor, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of p, right for s <= t only, and of v."""
        return torch.bmm(grad, v.mT), torch.bmm(p.mT, grad)

    def entering(self, a: Tensor) -> Tensor:
        return a

    def pull_entering(self, grad: Tensor, a: Tensor) -> Tensor:
        return grad

    def leaving(self, b: Tensor) -> Tensor:
        return b

    def pull_leaving(self, grad: Tensor, b: Tensor) -> Tensor:
        return grad

    def pull_total(self, grad: Tensor) -> None:
        """From the gradient of `total`."""

    def grad_log_decay(self) -> Tensor | None:
        return None


class _SummedGates(NoGates):
    """What scalar and channel gates share: G and the factors made of it."""

    def __init__(self, log_decay: Tensor, floor: float) -> None:
        dtype = log_decay.dtype
        # In float64, because differences of G are taken.
        self.summed = log_decay.clamp(min=floor).double().cumsum(1)  # [M, C, 1 or D]
        self.enter: Tensor = self.summed.to(dtype).exp()
        self.leave: Tensor = (self.summed[:, -1:] - self.summed).to(dtype).exp()
        self.total: Tensor = self.enter[:, -1:]

    def start_pulling(self) -> None:
        self._grad_through = torch.zeros_like(self.enter)  # of G
        self._grad_after = torch.zeros_like(self.enter)  # of G[C] - G

    def reading(self, p: Tensor, v: Tensor) -> Tensor:
        return self.add_reading(torch.zeros_like(v), p, v)

    def entering(self, a: Tensor) -> Tensor:
        return a * self.enter

    def pull_entering(self, grad: Tensor, a: Tensor) -> Tensor:
        grad = grad.mul_(self.enter)
        self._add(self._grad_through, grad, a)
        return grad

    def leaving(self, b: Tensor) -> Tensor:
        return b * self.leave

    def pull_leaving(self, grad: Tensor, b: Tensor) -> Tensor:
        grad = grad.mul_(self.leave)
        self._add(self._grad_after, grad, b)
        return grad

    def pull_total(self, grad: Tensor) -> None:
        self._add(self._grad_through[:, -1:], grad, self.total)

    def grad_log_decay(self) -> Tensor:
        from_here = self._grad_through.flip(1).cumsum(1).flip(1)
        return from_here.add_(F.pad(self._grad_after[:, :-1].cumsum(1), (0, 0, 1, 0)))

    def _add(self, total: Tensor, grad: Tensor, x: Tensor) -> None:
        """Add the gradient of G where x * exp(G) has the gradient `grad` with respect to x."""
        if total.shape[-1] == 1:
            total.add_((grad * x).sum(-1, keepdim=True))
        else:
            total.addcmul_(grad, x)


class ScalarGates(_SummedGates):
    def __init__(self, log_decay: Tensor) -> None:
        # The floor changes no result; it keeps -inf - -inf out of the differences.
        super().__init__(log_decay, floor=-1000.0)
        self._matrix = (self.summed - self.summed.mT).to(log_decay.dtype).exp().tril_()  # [M, C, C]

    def start_pulling(self) -> None:
        super().start_pulling()
        self._weighted: Tensor | None = None  # the gradient of G[t] - G[s], [M, C, C]

    def scores(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.bmm(a, b.mT).mul_(self._matrix)

    def pull_scores(
        self, grad: Tensor, scores: Tensor, a: Tensor, b: Tensor, grad_a: Tensor, grad_b: Tensor
    ) -> None:
        self._pull_differences(grad * scores)
        grad.mul_(self._matrix)
        grad_a.baddbmm_(grad, b)
        grad_b.baddbmm_(grad.mT, a)

    def add_reading(self, onto: Tensor, p: Tensor, v: Tensor) -> Tensor:
        return onto.baddbmm_(p * self._matrix, v)

    def transposed_reading(self, p: Tensor, o: Tensor) -> Tensor:
        return torch.bmm((p * self._matrix).mT, o)

    def pull_reading(self, grad: Tensor, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        decayed = p * self._matrix
        grad_v = torch.bmm(decayed.mT, grad)
        grad_p = torch.bmm(grad, v.mT)
        self._pull_differences(decayed.mul_(grad_p))
        return grad_p.mul_(self._matrix), grad_v

    def grad_log_decay(self) -> Tensor:
        if self._weighted is None:
            return super().grad_log_decay()
        # g[r] is part of G[t] - G[s] for s < r <= t; sums of these alone, so that none cancel.
        ones = torch.ones_like(self._weighted[0]).triu_()
        from_here = torch.matmul(ones, self._weighted)
        return super().grad_log_decay().add_(from_here.tril_(-1).sum(-1, keepdim=True))

    def _pull_differences(self, weighted: Tensor) -> None:
        self._weighted = weighted if self._weighted is None else self._weighted.add_(weighted)


class ChannelGates(_SummedGates):
    """Decays inside products by factors: (a exp(G - M)) (b exp(M - G))^T, M = G in mid-chunk.

    The factors are float64, which holds exponents to 709: half a chunk of 32 may sum to -690, so a
    log decay below -43 counts as -43 (2e-19). On a CPU, where looking at the values is cheap, gates
    mild enough for float32 to be as good use that, at half the time.
    """

    def __init__(self, log_decay: Tensor, steps: int = 1) -> None:
        chunk, device = log_decay.shape[1], log_decay.device
        super().__init__(log_decay, floor=-690.0 / max(chunk // 2, 1))
        middle = self.summed[:, (chunk - 1) // 2, None]
        farthest = torch.minimum(self.summed[:, -1:] - middle, middle - self.summed[:, :1])
        mild = device.type == "cpu" and bool((farthest >= _MILD).all())
        self._shrink = (self.summed - middle).to(log_decay.dtype if mild else torch.float64).exp()
        self._grow = self._shrink.reciprocal()
        token = torch.arange(chunk, device=device) // steps
        self._same_token = (token[:, None] == token).tril_() if steps > 1 else None  # [C, C]

    def scores(self, a: Tensor, b: Tensor) -> Tensor:
        # Above the diagonal the product may be infinite; tril_ overwrites it.
        return torch.bmm(a * self._shrink, (b * self._grow).mT).tril_().to(a.dtype)

    def pull_scores(
        self, grad: Tensor, scores: Tensor, a: Tensor, b: Tensor, grad_a: Tensor, grad_b: Tensor
    ) -> None:
        earlier = self._earlier(grad).to(self._shrink.dtype)
        from_b = torch.bmm(earlier, b * self._grow).mul_(self._shrink).to(a.dtype)
        from_a = torch.bmm(earlier.mT, a * self._shrink).mul_(self._grow).to(b.dtype)
        self._grad_through.addcmul_(from_b, a).addcmul_(from_a, b, value=-1)
        self._add_same_token(grad_a.add_(from_b), grad, b)
        self._add_same_token(grad_b.add_(from_a), grad, a, transposed=True)

    def add_reading(self, onto: Tensor, p: Tensor, v: Tensor) -> Tensor:
        onto.add_(self._reading_earlier(p, v))
        return self._add_same_token(onto, p, v)

    def transposed_reading(self, p: Tensor, o: Tensor) -> Tensor:
        later = self._transposed_reading_later(p, o * self._shrink)
        return self._add_same_token(later, p, o, transposed=True)

    def pull_reading(self, grad: Tensor, p: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self._grad_through.addcmul_(self._reading_earlier(p, v), grad)
        shrunk = grad * self._shrink
        grad_v = self._transposed_reading_later(p, shrunk)
        self._grad_through.addcmul_(grad_v, v, value=-1)
        self._add_same_token(grad_v, p, grad, transposed=True)
        grad_p = torch.bmm(shrunk, (v * self._grow).mT).tril_().to(p.dtype)
        return grad_p, grad_v

    def _reading_earlier(self, p: Tensor, v: Tensor) -> Tensor:
        """What `add_reading` adds from earlier tokens."""
        earlier = self._earlier(p).to(self._shrink.dtype)
        return torch.bmm(earlier, v * self._grow).mul_(self._shrink).to(v.dtype)

    def _transposed_reading_later(self, p: Tensor, shrunk: Tensor) -> Tensor:
        """What `transposed_reading` takes from later tokens, o times its factor."""
        earlier = self._earlier(p).to(self._shrink.dtype)
        return torch.bmm(earlier.mT, shrunk).mul_(self._grow).to(p.dtype)

    def _earlier(self, x: Tensor) -> Tensor:
        """The entries [t, s] of x for a token s before t's."""
        if self._same_token is None:
            return x.tril(-1)
        return x.tril().masked_fill_(self._same_token, 0)

    def _add_same_token(
        self, onto: Tensor, x: Tensor, b: Tensor, *, transposed: bool = False
    ) -> Tensor:
        """Add x b, or x^T b, over what `_earlier` leaves out of x: nothing decays in a token."""
        if self._same_token is None:
            return onto.addcmul_(x.diagonal(dim1=1, dim2=2).unsqueeze(-1), b)
        same = x.where(self._same_token, 0)
        return onto.baddbmm_(same.mT if transposed else same, b)
