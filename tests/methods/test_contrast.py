from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch.nn import functional

from pretrain_bench.methods.training.contrast import (
    ROW_BLOCK,
    embedding_health,
    grouped_info_nce,
    info_nce,
    info_nce_among_queries,
    ranked_first,
    unit_rows,
)


def test_closed_form() -> None:
    rows = torch.eye(2)
    assert math.isclose(float(info_nce(rows, rows, 0.4)), math.log(1 + math.exp(-2.5)), rel_tol=1e-5)


def test_closed_forms_among_queries() -> None:
    one, two = torch.eye(2, 3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)[2].expand(2, 3)
    assert math.isclose(float(info_nce_among_queries(one, one, 0.4)), math.log(1 + math.exp(-2.5)), rel_tol=1e-9)
    # Two equal queries, each orthogonal to its key: the negative is another query, not another key.
    same = one[:1].expand(2, 3)
    assert math.isclose(float(info_nce_among_queries(same, two, 0.4)), math.log(1 + math.exp(2.5)), rel_tol=1e-9)
    assert math.isclose(float(info_nce(same, two, 0.4)), math.log(2), rel_tol=1e-9)


@pytest.mark.parametrize("block", [1, 7, 50, 1000])
def test_queries_as_negatives_equal_a_plain_reference_with_gradients(block: int) -> None:
    torch.manual_seed(4)
    leaves = [torch.randn(50, 6, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    queries, keys = (unit_rows(leaf) for leaf in leaves)
    rows = [
        torch.cat([queries[i] @ keys[i].view(6, 1), queries[i] @ queries[torch.arange(50) != i].t()]) for i in range(50)
    ]
    reference = functional.cross_entropy(torch.stack(rows) / 0.4, torch.zeros(50, dtype=torch.long))
    found = info_nce_among_queries(queries, keys, 0.4, block)
    assert torch.allclose(found, reference, atol=1e-12)
    expected = torch.autograd.grad(3 * reference, leaves, retain_graph=True)
    for gradient, right in zip(torch.autograd.grad(3 * found, leaves), expected, strict=True):
        assert torch.allclose(gradient, right, atol=1e-12)


@pytest.mark.parametrize("block", [3, 1000])
def test_groups_share_their_negatives(block: int) -> None:
    torch.manual_seed(5)
    sizes = (5, 1, 9)
    leaves = [torch.randn(n, 4, dtype=torch.float64, requires_grad=True) for n in (*sizes, *sizes)]
    pairs = [(unit_rows(q), unit_rows(k)) for q, k in zip(leaves[:3], leaves[3:], strict=True)]
    logits = torch.cat([q for q, _ in pairs]) @ torch.cat([k for _, k in pairs]).t() / 0.4
    each = functional.cross_entropy(logits, torch.arange(15), reduction="none").split(sizes)
    found = grouped_info_nce(pairs, 0.4, block)
    assert torch.allclose(torch.stack(found), torch.stack([part.mean() for part in each]), atol=1e-12)
    expected = torch.autograd.grad(sum(part.mean() for part in each), leaves, retain_graph=True)
    for gradient, right in zip(torch.autograd.grad(sum(found), leaves), expected, strict=True):
        assert torch.allclose(gradient, right, atol=1e-12)


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_blocks_equal_the_whole_with_gradients(block: int) -> None:
    torch.manual_seed(3)
    leaves = [torch.randn(50, 6, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    q1, k1 = unit_rows(leaves[0]), unit_rows(leaves[1])
    ours = info_nce(q1, k1, 0.4, block)
    with torch.no_grad():
        for a, b in ((leaves[0], leaves[2]), (leaves[1], leaves[3])):
            b.copy_(a)
    q2, k2 = unit_rows(leaves[2]), unit_rows(leaves[3])
    reference = functional.cross_entropy(q2 @ k2.t() / 0.4, torch.arange(50))
    assert torch.allclose(ours, reference, atol=1e-12)
    (3 * ours).backward()
    (3 * reference).backward()
    assert torch.allclose(leaves[0].grad, leaves[2].grad, atol=1e-12)
    assert torch.allclose(leaves[1].grad, leaves[3].grad, atol=1e-12)


@pytest.mark.parametrize(
    ("pairs", "block", "mebibytes"), [(5000, 640, 60), pytest.param(16000, ROW_BLOCK, 600, marks=pytest.mark.slow)]
)
def test_many_pairs_need_no_table_of_all_of_them(pairs: int, block: int, mebibytes: int) -> None:
    """A step of `ours` has 16,000 pairs, whose logits and gradient would take 2 GB; those of the 5,000 here would take 190 MiB."""
    code = (
        "import resource, torch; from pretrain_bench.methods.training.contrast import info_nce, unit_rows; torch.set_num_threads(1);"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024;"
        f"q, k = (unit_rows(torch.randn({pairs}, 16)).requires_grad_() for _ in range(2));"
        f"info_nce(q[:64], k[:64], 0.4, {block}).backward(); before = peak();"
        f"info_nce(q, k, 0.4, {block}).backward(); print(peak() - before, bool(q.grad.isfinite().all()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    grown, finite = done.stdout.split()
    assert float(grown) < mebibytes and finite == "True"


def test_gradient_by_finite_differences() -> None:
    torch.manual_seed(1)
    q, k = (torch.randn(6, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a, b, 0.4, 4), (q, k))


def test_order_of_pairs_does_not_matter() -> None:
    torch.manual_seed(2)
    q, k = unit_rows(torch.randn(40, 8)), unit_rows(torch.randn(40, 8))
    order = torch.randperm(40)
    assert torch.allclose(info_nce(q, k, 0.4), info_nce(q[order], k[order], 0.4), atol=1e-6)


def test_a_zero_row_is_no_nan() -> None:
    rows = torch.zeros(3, 4, requires_grad=True)
    loss = info_nce(unit_rows(rows), unit_rows(torch.randn(3, 4)), 0.4)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(rows.grad).all()


def test_empty_and_unequal_are_refused() -> None:
    with pytest.raises(ValueError, match="queries and keys of equal shape"):
        info_nce(torch.zeros(0, 3), torch.zeros(0, 3), 0.4)
    for loss in (info_nce, info_nce_among_queries, lambda q, k, t: grouped_info_nce([(q, k)], t)):
        with pytest.raises(ValueError, match="queries and keys of equal shape"):
            loss(torch.zeros(2, 3), torch.zeros(1, 3), 0.4)


def test_health_tells_collapse_from_spread() -> None:
    torch.manual_seed(0)
    spread = unit_rows(torch.randn(200, 16))
    collapsed = unit_rows(torch.ones(200, 16) + 1e-3 * torch.randn(200, 16))
    good, bad = embedding_health(spread, spread), embedding_health(collapsed, collapsed)
    assert good["top1"] == 1.0 and good["effective_rank"] > 12 and abs(good["negative_similarity"]) < 0.05
    assert bad["negative_similarity"] > 0.99


def test_the_share_that_ranks_first_counts_every_sample() -> None:
    torch.manual_seed(1)
    queries, keys = unit_rows(torch.randn(103, 3)), unit_rows(torch.randn(103, 3))
    keys[::2] = queries[::2]
    right = []
    for group in range(5):  # rows group, group + 5, ... of the first 100
        rows = range(group, 100, 5)
        right += [max(rows, key=lambda j: float(queries[i] @ keys[j])) == i for i in rows]
    assert abs(ranked_first(queries, keys, 20) - sum(right) / 100) < 1e-6
    assert ranked_first(queries[:7], queries[:7], 20) == 1.0
