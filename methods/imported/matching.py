"""Finds this project's backbone in a checkpoint, by the names and shapes of its tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, cast, get_args

import torch
from torch import Tensor

from pretrain_bench.benchmarks.specs.backbone_shapes import INIT_DIM, Shapes, backbone_shapes
from pretrain_bench.benchmarks.specs.base import Spec
from pretrain_bench.benchmarks.specs.checkpoint import KERNEL_ORDER, ORIGINS, PARTIAL, CheckpointOrigin, KernelOrder
from pretrain_bench.benchmarks.specs.network import NetworkSettings
from pretrain_bench.benchmarks.support.errors import DataError
from pretrain_bench.methods.imported.layouts import COUNTER, LAYOUTS, POINTCEPT, Layout, order_to_cube, with_their_norms
from pretrain_bench.methods.imported.reading import CheckpointContent, read_checkpoint
from pretrain_bench.methods.training.checkpoint import refuse_not_finite

MOST_SHOWN = 6
USUAL = "headline"
"""The profile suggested if several have the network of a file."""


class Request(Spec):
    """What to import. `prefix` selects one of several networks by its keys and prefix, such as `state_dict.module.`; `profiles`
    gives networks by profile, so that an error can suggest one that fits."""

    path: Path
    network: NetworkSettings
    origin: CheckpointOrigin | None = None
    prefix: str | None = None
    partial: bool = False
    profiles: dict[str, NetworkSettings] = {}


class Imported(NamedTuple):
    """Backbone tensors in this project's layout, by name, and how the tensors of the file were used."""

    weights: dict[str, Tensor]
    expected: int
    place: str
    order: KernelOrder
    permuted: int
    missing: list[str]
    reshaped: list[str]
    dropped: list[str]

    def drawn(self, network: NetworkSettings) -> list[str]:
        """The tensors of the backbone, except counters, that the file lacks; the import draws them at random."""
        return [n for n in backbone_shapes(network) if n not in self.weights and not n.endswith(COUNTER)]


class Candidate(NamedTuple):
    """The tensors below one prefix of one mapping of a file, interpreted in one layout. `tensors` fit, `others` differ in shape;
    both are keyed by this project's names."""

    place: str
    prefix: str
    layout: Layout
    tensors: dict[str, Tensor]
    others: dict[str, Tensor]
    dropped: list[str]

    @property
    def fit(self) -> int:
        """The number of tensors with the right name and shape."""
        return len(self.tensors)


def import_checkpoint(request: Request) -> Imported:
    """Read a checkpoint and convert its backbone: float32, kernels in this project's order, without last layers and heads.

    Raises DataError if the file holds more than tensors and plain settings; no network in it has all tensors of the backbone in
    its shapes (unless `partial` is set, or the file states that it was accepted as partial); two networks in it fit equally; the
    kernel order is unknown or contradicts the file; or a weight is NaN or infinite.
    """
    content = read_checkpoint(request.path)
    best = _best(request, content)
    expected = best.layout.shapes(request.network)
    missing = [n for n in expected if n not in best.tensors and n not in best.others and not n.endswith(COUNTER)]
    reshaped = [f"{n}: {_shape(v)}, expected {expected[n]}" for n, v in best.others.items()]
    partial = request.partial or PARTIAL in content.statements
    if not best.fit or ((missing or reshaped) and not partial):
        raise DataError(_no_match(request, content, best))
    order = _order(request, content, best)
    weights = {n: order_to_cube(n, best.tensors[n], order) for n in expected if n in best.tensors}
    permuted = sum(weights[n] is not v for n, v in best.tensors.items())
    weights = {n: v.float() if v.is_floating_point() else v for n, v in weights.items()}
    refuse_not_finite(weights, request.path.name)
    if not missing:  # PyTorch before 0.4.1 stored no counters, and this project does not read them
        weights |= {n: torch.zeros((), dtype=torch.int64) for n in expected if n.endswith(COUNTER) and n not in weights}
    return Imported(weights, len(expected), best.place, order, permuted, missing, reshaped, best.dropped)


def _best(request: Request, content: CheckpointContent) -> Candidate:
    """The network in the file with the most fitting tensors. Raises DataError if two different ones fit equally well."""
    candidates = list(_candidates(request.network, content))
    wanted = request.prefix or (ORIGINS[request.origin].prefix if request.origin else None)
    chosen = [c for c in candidates if c.place == wanted]
    if request.prefix is not None and not chosen:
        known = ", ".join(sorted({repr(c.place) for c in candidates})) or "none"
        raise DataError(
            f"{request.path}: --prefix {request.prefix!r} matches no network; networks in the file: {known}"
        )
    ranked = sorted(chosen or candidates, key=lambda c: -c.fit)
    if not ranked:
        raise DataError(
            f"{request.path}: {_seen(content)}; none of its tensors has the name of a tensor of this backbone"
        )
    first = ranked[0]
    equals = [c for c in ranked[1:] if c.fit == first.fit and not _same(c, first)]
    if first.fit and equals:
        places = " and ".join(repr(c.place) for c in (first, *equals[:2]))
        raise DataError(
            f"{request.path}: {len(equals) + 1} networks in it fit, at {places}; convert one of them: bench methods "
            f"import-checkpoint FILE --prefix {equals[0].place or first.place}"
        )
    return first


def _candidates(network: NetworkSettings, content: CheckpointContent) -> Iterator[Candidate]:
    for keys, tensors in content.nests.items():
        for layout in LAYOUTS:
            expected = layout.shapes(network)
            names = {layout.name_of(name): name for name in expected}
            for prefix in _prefixes(tensors, names):
                place = "".join(f"{key}." for key in keys) + prefix
                yield _candidate(
                    place, prefix, layout, {names.get(k, k): v for k, v in _below(tensors, prefix)}, expected
                )


def _candidate(place: str, prefix: str, layout: Layout, tensors: dict[str, Tensor], expected: Shapes) -> Candidate:
    fitting = {n: v for n, v in tensors.items() if tuple(v.shape) == expected.get(n)}
    kept = with_their_norms(fitting)
    fitting = {n: v for n, v in fitting.items() if n in kept}
    others = {n: v for n, v in tensors.items() if n in expected and tuple(v.shape) != expected[n]}
    return Candidate(place, prefix, layout, fitting, others, sorted(set(tensors) - set(expected)))


def _prefixes(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> set[str]:
    """The prefixes, with their final dot, under which a mapping has names of the backbone."""
    prefixes = set()
    for key in tensors:
        parts = key.split(".")
        for cut in range(len(parts)):
            if ".".join(parts[cut:]) in names:
                prefixes.add("".join(f"{part}." for part in parts[:cut]))
    return prefixes


def _below(tensors: Mapping[str, Tensor], prefix: str) -> Iterator[tuple[str, Tensor]]:
    return ((key.removeprefix(prefix), v) for key, v in tensors.items() if key.startswith(prefix))


def _same(one: Candidate, two: Candidate) -> bool:
    if one.tensors.keys() != two.tensors.keys():
        return False
    return all(torch.equal(value, two.tensors[name]) for name, value in one.tensors.items())


def _order(request: Request, content: CheckpointContent, best: Candidate) -> KernelOrder:
    """The kernel order, as the file states it or the user's origin implies. Raises DataError if they differ or are missing."""
    stated = content.statements.get(KERNEL_ORDER)
    own = cast("KernelOrder", stated) if stated in get_args(KernelOrder) else None
    if own is None and best.layout is POINTCEPT:
        own = "spconv"
    named = ORIGINS[request.origin].order if request.origin else None
    if own is not None and named is not None and own != named:
        raise DataError(
            f"{request.path}: origin {request.origin!r} means kernels in the order of {named}, but those of the file are in the "
            f"order of {own}; leave the origin out"
        )
    order = own or named
    fitting = ("spconv", "spconv-zyx") if best.layout.is_spconv else ("minkowski-0.5", "minkowski-0.4")
    if order is None:
        choices = "; ".join(f"{name}: {facts.title}" for name, facts in ORIGINS.items() if facts.order in fitting)
        raise DataError(
            f"{request.path}: its tensors fit, but do not show the order of its kernels, and with a wrong order the network "
            "computes garbage. Name the origin of the file: --method NAME=ORIGIN:FILE, or --origin ORIGIN of "
            f"import-checkpoint ({choices})"
        )
    if order not in fitting:
        raise DataError(
            f"{request.path}: its kernels should be in the order of {order}, but its tensors have the layout of "
            f"{best.layout.title}; name the origin that wrote the file"
        )
    return order


def _no_match(request: Request, content: CheckpointContent, best: Candidate) -> str:
    """Why a file is refused: its content, the nearest match, and a profile with its network, if any."""
    expected = best.layout.shapes(request.network)
    first = next(
        (
            f"{n} has shape {_shape(best.others[n])}, expected {shape}" if n in best.others else f"{n} is missing"
            for n, shape in expected.items()
            if n not in best.tensors and not n.endswith(COUNTER)
        ),
        "",
    )
    match = (
        f"nearest match: names of {best.layout.title} below {best.place!r}, {best.fit} of {len(expected)} tensors fit"
    )
    return f"{request.path}: {_seen(content)}; {match}, first that does not: {first}{_other_network(request, best)}"


def _seen(content: CheckpointContent) -> str:
    """The mappings of a file, each with the first parts of its tensor names."""
    if not content.nests:
        return "it holds no tensors by name"
    texts = []
    for keys, tensors in list(content.nests.items())[:MOST_SHOWN]:
        prefixes = sorted({name.split(".")[0] + "." for name in tensors if "." in name})
        listed = ", ".join(prefixes[:MOST_SHOWN]) + (", ..." if len(prefixes) > MOST_SHOWN else "")
        texts.append(f"{'.'.join(keys) or 'at the top'}: {len(tensors)} tensors ({listed or 'no prefix'})")
    return f"it holds {'; '.join(texts)}"


def _other_network(request: Request, best: Candidate) -> str:
    """Advice for a network that does not fit: its sizes if its first layer shows that they differ, else a partial import."""
    stem = {**best.others, **best.tensors}.get("conv0p1s1.kernel")
    if stem is None or best.layout is POINTCEPT:
        return "; a part of a backbone is accepted with: bench methods import-checkpoint FILE --partial"
    volume, inputs, width = stem.shape if stem.ndim == 3 else (stem.shape[1] ** 3, stem.shape[-1], stem.shape[0])
    own = {"width": width / INIT_DIM, "input_channels": inputs, "first_kernel": round(volume ** (1 / 3))}
    wanted = request.network.model_dump(include=set(own))
    differing = [f"{name} {value:g} (here {wanted[name]:g})" for name, value in own.items() if value != wanted[name]]
    if not differing:
        return "; a part of a backbone is accepted with: bench methods import-checkpoint FILE --partial"
    fitting = [name for name, network in request.profiles.items() if network.model_dump(include=set(own)) == own]
    settings = ", ".join(f"{name}: {own[name]:g}" for name in own if own[name] != wanted[name])
    shown = [name for name in fitting if name == USUAL] or fitting
    advice = f"--profile {' or '.join(shown)}, or " if shown else ""
    return (
        f". The network of the file has {', '.join(differing)}: use {advice}a profile of your own that extends this one with "
        f"network: {{{settings}}}"
    )


def _shape(value: Tensor) -> tuple[int, ...]:
    return tuple(value.shape)
