"""Which stages may start: parents first, never more than a node has free, in order."""

from __future__ import annotations

from pretrain_bench.harness.running.capacity import Capacity, Demand
from pretrain_bench.harness.running.policy import Place, Policy, chain_seconds

GPU_NODE = Capacity(16, 1000, ("0", "1"))


def started(policy: Policy) -> dict[str, Place]:
    places = {}
    for key, place in policy.startable():
        policy.start(key, place)
        places[key] = place
    return places


def test_stages_fill_the_nodes_in_order_and_no_gpu_is_given_twice() -> None:
    demands = {"a": Demand(1, 1, 2), "b": Demand(1, 1, 1), "c": Demand(1, 1, 2), "d": Demand(1, 1, 1)}
    policy = Policy(dict.fromkeys(demands, ()), demands, [GPU_NODE, GPU_NODE], workers=9)
    assert started(policy) == {"a": Place(0, ("0", "1")), "b": Place(1, ("0",)), "d": Place(1, ("1",))}
    policy.end("b", succeeded=True)
    assert started(policy) == {}, "c needs two GPUs of one node"
    policy.end("a", succeeded=False)
    assert started(policy) == {"c": Place(0, ("0", "1"))}


def test_cpus_memory_and_workers_are_limits() -> None:
    stages = dict.fromkeys("abcd", ())
    for demand, workers, most in ((Demand(6, 1, 0), 9, 2), (Demand(1, 400, 0), 9, 2), (Demand(1, 1, 0), 3, 3)):
        assert len(started(Policy(stages, dict.fromkeys("abcd", demand), [GPU_NODE], workers))) == most


def test_a_failure_drops_what_builds_on_it_and_nothing_else() -> None:
    parents = {"a": (), "b": ("a",), "c": ("b",), "d": (), "e": ("d",), "f": ("elsewhere",)}
    policy = Policy(parents, dict.fromkeys(parents, Demand(1, 1, 0)), [GPU_NODE], workers=9)
    assert list(started(policy)) == ["a", "d"]
    policy.end("a", succeeded=False)
    policy.end("d", succeeded=True)
    policy.drop_blocked()
    assert list(policy.waiting) == ["e"] and list(started(policy)) == ["e"]


def test_chains_are_as_long_as_their_longest_branch() -> None:
    parents = {"a": ("elsewhere",), "b": ("a",), "c": ("a",), "d": ("b", "c")}
    seconds = {"a": 1.0, "b": 10.0, "c": 20.0, "d": 5.0}
    assert chain_seconds(parents, seconds) == {"a": 26.0, "b": 15.0, "c": 25.0, "d": 5.0}
