"""A pre-training method in a container of its own, with nothing but Python's standard library.

It reads what to do, draws every kernel of the network from a normal distribution of variance 2 / inputs, and leaves the
weights as safetensors. See docs/contract.md.
"""

import array
import json
import math
import random
import struct
from pathlib import Path

ROOT = Path("/bench")
stage = json.loads((ROOT / "in/stage.json").read_text())
shapes = json.loads((ROOT / "in/backbone.json").read_text())
draw = random.Random(stage["seed"])
gain = stage["settings"]["gain"]


def tell(**event):
    with (ROOT / "out/events.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")


def values(name, shape):
    """Bytes and type of one tensor: kernels are drawn, norms start as the identity."""
    count = math.prod(shape)
    if name.endswith("num_batches_tracked"):
        return "I64", bytes(8 * count)
    if name.endswith("kernel"):
        deviation = gain * math.sqrt(2 / math.prod(shape[:-1]))
        return "F32", array.array("f", (draw.gauss(0, deviation) for _ in range(count))).tobytes()
    one = name.endswith((".weight", "running_var"))
    return "F32", array.array("f", [1.0 if one else 0.0] * count).tobytes()


tell(event="start", total_steps=0)
header, data = {}, b""
for name, shape in shapes.items():
    dtype, content = values(name, shape)
    header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
    data += content
text = json.dumps(header).encode()
artifacts = ROOT / "out/artifacts"
artifacts.mkdir(exist_ok=True)
(artifacts / "backbone.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
tell(event="usage", ledger={"optimizer_steps": 0})
tell(event="end", status="ok")
