"""One step of each adversarial method against its equations, written out term by term without the package's losses.

Each function below is the text of a paper (or of its code, where the method's module says so): it takes a copy of the
method with the weights from before the step, and returns the losses of network and heads, and of the discriminators.
"""

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mitoda.methods.base import Method
from tests.methods.method_helpers import batches, build

PROGRESS = 0.5
SOURCE, TARGET = 0.0, 1.0


def ce(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over all pixels."""
    return F.nll_loss(F.log_softmax(logits, 1), labels)


def bce(decision: Tensor, domain: float) -> Tensor:
    """Mean binary cross-entropy of a discriminator's logits."""
    return -(F.logsigmoid(decision) * domain + F.logsigmoid(-decision) * (1 - domain)).mean()


def soft(logits: Tensor) -> Tensor:
    """Softmax over the classes."""
    return F.softmax(logits, 1)


def supervised(output, labels: Tensor) -> Tensor:
    """Equation 1 of DA-ISC."""
    first, second = labels[:, 0], labels[:, 1]
    return ce(output.first, first) + ce(output.second, second) + ce(output.residual, (first != second).long())


def isc(m: Method, source, labels: Tensor, target) -> tuple[Tensor, Tensor]:
    """Equations 1 to 4; the discriminators of masks count a quarter for each map, as in the code."""
    s, t = m.network(source), m.network(target)
    masks, residuals = m.discriminators["segmentation"], m.discriminators["residual"]
    seg = 0.001 / 2 * (bce(masks(soft(t.first)), SOURCE) + bce(masks(soft(t.second)), SOURCE))
    res = 0.001 * bce(residuals(soft(t.residual)), SOURCE)
    changed = t.residual.argmax(1) == 1
    one, other = t.first.argmax(1) == 1, t.second.argmax(1) == 1
    weight = 0.1 * math.exp(-5 * (1 - min(PROGRESS / 0.25, 1)) ** 2)
    consistent = weight * (ce(t.first, (other ^ changed).long()) + ce(t.second, (one ^ changed).long()))
    judged = [(x.detach(), d) for out, d in ((s, SOURCE), (t, TARGET)) for x in (out.first, out.second)]
    learnt = sum(bce(masks(soft(x)), d) for x, d in judged) / 4
    learnt += bce(residuals(soft(s.residual.detach())), SOURCE) / 2
    learnt += bce(residuals(soft(t.residual.detach())), TARGET) / 2
    return supervised(s, labels) + seg + res + consistent, learnt


def adaptsegnet(m: Method, source, labels: Tensor, target) -> tuple[Tensor, Tensor]:
    """λ_seg 0.1, λ_adv 0.001 and 0.0002; both sections are judged together."""
    s, t = m.network(source), m.network(target)
    head = m.heads["auxiliary_head"]
    (s1, s2), (t1, t2) = head(s), head(t)
    loss = supervised(s, labels) + 0.1 * (ce(s1, labels[:, 0]) + ce(s2, labels[:, 1]))
    learnt = torch.zeros(())
    for name, weight, real, adapted in (
        ("main", 0.001, (s.first, s.second), (t.first, t.second)),
        ("auxiliary", 0.0002, (s1, s2), (t1, t2)),
    ):
        judge = m.discriminators[name]
        loss = loss + weight * sum(bce(judge(soft(x)), SOURCE) for x in adapted) / 2
        learnt = learnt + sum(bce(judge(soft(x.detach())), SOURCE) for x in real) / 4
        learnt = learnt + sum(bce(judge(soft(x.detach())), TARGET) for x in adapted) / 4
    return loss, learnt


def da_vsn(m: Method, source, labels: Tensor, target) -> tuple[Tensor, Tensor]:
    """u = 0.001; each section is the current one once, and the other its key."""
    s, t = m.network(source), m.network(target)
    head, u = m.heads["auxiliary_head"], 0.001
    levels = {"main": ((s.first, s.second), (t.first, t.second)), "auxiliary": (head(s), head(t))}
    loss = supervised(s, labels)
    loss = loss + 0.1 * sum(
        ce(x, y) for x, y in zip(levels["auxiliary"][0], (labels[:, 0], labels[:, 1]), strict=True)
    )
    learnt = torch.zeros(())
    for level, (real, adapted) in levels.items():
        cross, intra = m.discriminators[f"cross_{level}"], m.discriminators[f"intra_{level}"]
        share = {"main": 1.0, "auxiliary": 0.2}[level]
        for current, key in (adapted[::-1], adapted):
            p, q = soft(current), soft(key.detach())
            entropy_p, entropy_q = (-(x * x.log()).sum(1, keepdim=True) for x in (p, q))
            loss = loss + u * share / 2 * bce(cross(torch.cat([p, q], 1)), SOURCE)
            loss = loss + u * share / 2 * bce(intra(torch.cat([p, p], 1)), SOURCE)
            loss = loss + u / 2 * ((p - q).abs() * (entropy_q < entropy_p)).mean()
        for pair, domain in ((real, SOURCE), (adapted, TARGET)):
            for current, key in (pair[::-1], pair):
                p, q = soft(current.detach()), soft(key.detach())
                learnt = learnt + bce(cross(torch.cat([p, q], 1)), domain) / 4
                learnt = learnt + bce(intra(torch.cat([p, p], 1)), domain) / 4
        weights = [[c.weight.flatten() for c in d if isinstance(c, nn.Conv2d)] for d in (cross, intra)]
        cosines = [a @ b / (a.norm() * b.norm()) for a, b in zip(*weights, strict=True)]
        learnt = learnt + u * (1 + sum(cosines) / len(cosines))
    return loss, learnt


def damt_net(m: Method, source, labels: Tensor, target) -> tuple[Tensor, Tensor]:
    """The source is 1 and the target 0; reconstruction after the warm-up."""
    s, t = m.network(source), m.network(target)
    decoder, by_label, by_feature = (
        m.heads["reconstruction"],
        m.discriminators["label"],
        m.discriminators["feature"],
    )
    error = ((decoder(s.bottleneck) - source) ** 2).mean() + ((decoder(t.bottleneck) - target) ** 2).mean()
    loss = supervised(s, labels) + 5e-4 / 2 * error
    loss = loss + 1e-3 * sum(bce(by_label(soft(x)), 1.0) for x in (t.first, t.second)) / 2
    loss = loss + 1e-3 * sum(bce(by_feature(x), 1.0) for x in t.full) / 2
    learnt = torch.zeros(())
    for out, domain in ((s, 1.0), (t, 0.0)):
        learnt = learnt + sum(bce(by_label(soft(x.detach())), domain) for x in (out.first, out.second)) / 4
        learnt = learnt + sum(bce(by_feature(x.detach()), domain) for x in out.full) / 4
    return loss, learnt


def y_net(m: Method, source, labels: Tensor, target) -> tuple[Tensor, Tensor]:
    """λ = 1 on grey values from 0 to 1, whose variance is 0.04 where ours is 1."""
    s, t = m.network(source), m.network(target)
    decoder = m.heads["reconstruction"]
    error = ((decoder(s.bottleneck) - source) ** 2).mean() + ((decoder(t.bottleneck) - target) ** 2).mean()
    return supervised(s, labels) + 0.04 * error, torch.zeros(())


TRANSCRIPTIONS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "isc": isc,
    "adaptsegnet": adaptsegnet,
    "da-vsn": da_vsn,
    "damt-net": damt_net,
    "y-net": y_net,
}


def gradients(loss: Tensor, modules: list[nn.Module]) -> list[list[Tensor]]:
    """Gradients of each module's parameters, clipped to a norm of 1 for each module; of unused ones 0."""
    found = []
    for module in modules:
        own = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True, allow_unused=True)
        filled = [
            torch.zeros_like(p) if g is None else g for g, p in zip(own, module.parameters(), strict=True)
        ]
        norm = torch.sqrt(sum((g**2).sum() for g in filled))
        found.append([g * min(1.0, 1.0 / (float(norm) + 1e-6)) for g in filled])
    return found


@pytest.mark.parametrize("name", TRANSCRIPTIONS)
def test_a_step_has_the_gradients_of_the_equations(name):
    """In float32, after clipping: network, heads and discriminators agree to 1e-4 of each module's norm."""
    method = build(name)
    source, target = batches()
    before = copy.deepcopy(method)
    loss, learnt = TRANSCRIPTIONS[name](before, source.images, source.labels(2), target.images)
    network_and_heads = gradients(loss, [before.network, *before.heads.values()])
    expected = network_and_heads
    if before.discriminators:
        expected = network_and_heads + gradients(learnt, list(before.discriminators.values()))
    method.update(source, target, PROGRESS)
    modules = [method.network, *method.heads.values(), *method.discriminators.values()]
    for module, wanted in zip(modules, expected, strict=True):
        ours = [torch.zeros_like(p) if p.grad is None else p.grad for p in module.parameters()]
        difference = math.sqrt(sum(float(((a - b) ** 2).sum()) for a, b in zip(ours, wanted, strict=True)))
        assert math.sqrt(sum(float((b**2).sum()) for b in wanted)) > 1e-4
        assert difference < 1e-4 * math.sqrt(sum(float((b**2).sum()) for b in wanted))
