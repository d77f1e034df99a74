"""The only stage of `scratch`: draw the backbone's initial weights from the pre-training seed."""

from __future__ import annotations

from pretrain_bench.harness.contract.events import Ledger, Start, Usage
from pretrain_bench.methods.context import StageContext
from pretrain_bench.methods.networks.res16unet import seeded_backbone
from pretrain_bench.methods.training.checkpoint import save_backbone
from pretrain_bench.methods.training.numerics import numerics


def run(context: StageContext) -> dict[str, float | None]:
    """Write `artifacts/backbone.safetensors`, without reading data or taking steps."""
    context.events.cut(0)
    context.start(Start(total_steps=0, numerics=numerics()))
    spec = context.spec
    momentum = spec.network.pretrain_bn_momentum
    network = seeded_backbone(1, spec.network, momentum, spec.sparse_backend, context.seed("weights"))
    save_backbone(network, context.artifacts)
    context.events.write(Usage(ledger=Ledger()))
    return {"steps": 0.0}
