"""VoteNet's loss against results of the original code: terms, assignments, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pretrain_bench.methods.finetune.votenet_loss import TERMS, BoxTargets, assign, votenet_loss
from pretrain_bench.methods.networks.votenet import Proposals
from tests.parity.vectors import case, load

GOLDEN = load("votenet")
NAMES = {
    "votes": "vote_xyz", "clusters": "aggregated_vote_xyz", "centres": "center", "objectness": "objectness_scores",
    "heading_scores": "heading_scores", "heading_residuals": "heading_residuals_normalized", "size_scores": "size_scores",
    "size_residuals": "size_residuals_normalized", "class_scores": "sem_cls_scores",
}  # fmt: skip
"""Outputs of the network, and the arrays with them (and, after `grad_`, their gradients)."""


def given(golden: dict[str, np.ndarray], dtype: torch.dtype) -> tuple[Proposals, BoxTargets]:
    def real(name: str) -> Tensor:
        return torch.from_numpy(golden[name]).to(dtype)

    def whole(name: str) -> Tensor:
        return torch.from_numpy(golden[name]).long()

    rows = whole("seed_inds")
    said = {field: real(name).requires_grad_() for field, name in NAMES.items()}
    proposals = Proposals(seeds=real("seed_xyz"), seed_rows=rows, **said)
    offsets = real("vote_label").unflatten(2, (3, 3)).gather(1, rows[..., None, None].expand(-1, -1, 3, 3))
    targets = BoxTargets(
        centres=real("center_label"),
        present=real("box_label_mask") > 0,
        heading_classes=whole("heading_class_label"),
        heading_residuals=real("heading_residual_label"),
        size_classes=whole("size_class_label"),
        size_residuals=real("size_residual_label"),
        classes=whole("sem_cls_label"),
        vote_mask=whole("vote_label_mask").gather(1, rows) > 0,
        vote_targets=proposals.seeds[:, :, None] + offsets,
    )
    return proposals, targets


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
@pytest.mark.parametrize("name", ["votenet_sun", "votenet_scannet"])
def test_the_loss_its_terms_and_its_gradients(name: str, dtype: torch.dtype, tolerance: float) -> None:
    golden = case(GOLDEN, name)
    proposals, targets = given(golden, dtype)
    loss, terms = votenet_loss(proposals, targets, golden["mean_sizes_f64"], "at_origin")
    assert list(terms) == list(TERMS) == [str(n) for n in golden["term_names"]]
    for term, expected in zip(terms, golden["terms_f64"], strict=True):
        assert abs(terms[term] - expected) <= tolerance * max(1.0, abs(expected)), term
    loss.backward()
    for field, array in NAMES.items():
        found, expected = getattr(proposals, field).grad, golden[f"grad_{array}"]
        found = np.zeros_like(expected) if found is None else found.numpy()
        assert np.abs(found - expected).max() <= tolerance, field


@pytest.mark.parametrize("name", ["votenet_sun", "votenet_scannet"])
def test_the_assignment(name: str) -> None:
    golden = case(GOLDEN, name)
    proposals, targets = given(golden, torch.float64)
    found = assign(proposals, targets, "at_origin")
    assert np.array_equal(found.positive.numpy(), golden["objectness_label"] > 0)
    assert np.array_equal(found.counts.numpy(), golden["objectness_mask"] > 0)
    expected = torch.from_numpy(golden["object_assignment"]).long()
    used = targets.present.gather(1, expected)
    assert torch.equal(found.object[used], expected[used])
    # All padded objects are at the origin, so any of them may be assigned.
    assert not targets.present.gather(1, found.object)[~used].any() and not used.all()


@pytest.mark.parametrize("name", ["votenet_sun", "votenet_scannet"])
def test_places_that_are_not_used_attract_nothing_where_that_is_asked(name: str) -> None:
    proposals, targets = given(case(GOLDEN, name), torch.float64)
    found = assign(proposals, targets, "ignored")
    assert targets.present.gather(1, found.object).all()
    upstream = assign(proposals, targets, "at_origin")
    assert upstream.positive[:, 0].all() and not found.positive[:, 0].any(), "proposal 0 lies near the origin"
