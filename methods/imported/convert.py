"""The only stage of an imported checkpoint: convert the user's file and store its backbone."""

from __future__ import annotations

from pretrain_bench.benchmarks.support.errors import WrongUse
from pretrain_bench.harness.contract.events import Ledger, Start, Usage
from pretrain_bench.methods.context import StageContext
from pretrain_bench.methods.imported.matching import Request, import_checkpoint
from pretrain_bench.methods.networks.res16unet import HEAD, seeded_backbone
from pretrain_bench.methods.training.checkpoint import BACKBONE_FILE, save_weights
from pretrain_bench.methods.training.numerics import numerics


def run(context: StageContext) -> dict[str, float | None]:
    """Write `artifacts/backbone.safetensors`, without reading data or taking steps.

    Tensors that an accepted partial file lacks are drawn from the pre-training seed. Raises WrongUse if the stage has no file,
    and DataError as `import_checkpoint`.
    """
    spec, path = context.spec, context.checkpoint
    if spec.checkpoint is None or path is None:
        raise WrongUse("an imported checkpoint needs its file: --method NAME=FILE")
    imported = import_checkpoint(Request(path=path, network=spec.network, origin=spec.checkpoint.origin))
    context.events.cut(0)
    context.start(Start(total_steps=0, numerics=numerics()))
    seed, momentum = context.seed("weights"), spec.network.pretrain_bn_momentum
    drawn = seeded_backbone(1, spec.network, momentum, spec.sparse_backend, seed).state_dict()
    weights = {name: imported.weights.get(name, value) for name, value in drawn.items() if not name.startswith(HEAD)}
    if len(imported.weights) < len(weights):
        context.warn(
            f"{len(imported.weights)} of {len(weights)} tensors come from the file; the others were drawn from the "
            f"pre-training seed, first {next(name for name in weights if name not in imported.weights)}"
        )
    context.notes |= {
        "transferred_tensors": f"{len(imported.weights)} of {len(weights)}, from {imported.place or 'the top'}",
        "kernel_order": f"{imported.order}; {imported.permuted} kernels reordered",
    }
    save_weights(weights, context.artifacts / BACKBONE_FILE)
    context.events.write(Usage(ledger=Ledger()))
    return {"steps": 0.0}
