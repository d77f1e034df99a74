"""examples/kuberay.yaml uses only fields of RayCluster (ray.io/v1), with the right types, and the names in it exist.

The models are written by hand after ray-operator/apis/ray/v1/raycluster_types.go of ray-project/kuberay (commit 026f1433) and the
Kubernetes pod API, for the used fields only; they replace neither the CRD nor a test on a cluster.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pretrain_bench.harness.clusters.ray_cluster import DATA_PREFIX
from tests.conftest import REPOSITORY

QUANTITY = r"^[0-9]+(m|Ki|Mi|Gi|Ti)?$"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class SecretKey(Strict):
    name: str
    key: str


class ValueFrom(Strict):
    secret: SecretKey = Field(alias="secretKeyRef")


class Variable(Strict):
    name: str
    value: str | None = None
    value_from: ValueFrom | None = Field(None, alias="valueFrom")


class Resources(Strict):
    limits: dict[str, str]


class Mount(Strict):
    name: str
    path: str = Field(alias="mountPath", pattern="^/")


class Container(Strict):
    name: str
    image: str
    env: list[Variable]
    resources: Resources
    mounts: list[Mount] = Field(alias="volumeMounts")


class Claim(Strict):
    name: str = Field(alias="claimName")


class Volume(Strict):
    name: str
    claim: Claim = Field(alias="persistentVolumeClaim")


class PodSpec(Strict):
    containers: list[Container] = Field(min_length=1)
    volumes: list[Volume]


class Template(Strict):
    spec: PodSpec


class Head(Strict):
    start: dict[str, str] = Field(alias="rayStartParams")
    template: Template


class Workers(Head):
    name: str = Field(alias="groupName")
    replicas: int
    least: int = Field(alias="minReplicas")
    most: int = Field(alias="maxReplicas")


class ClusterSpec(Strict):
    version: str = Field(alias="rayVersion")
    head: Head = Field(alias="headGroupSpec")
    workers: list[Workers] = Field(alias="workerGroupSpecs")


class Metadata(Strict):
    name: str


class RayCluster(Strict):
    api: Literal["ray.io/v1"] = Field(alias="apiVersion")
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: ClusterSpec


def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((REPOSITORY / "examples/kuberay.yaml").read_text()))


def test_every_field_is_one_of_the_types_and_every_name_is_declared() -> None:
    claim, payload = documents()
    spec = RayCluster.model_validate(payload).spec
    extra = (REPOSITORY / "pyproject.toml").read_text()
    assert f'"ray=={spec.version.rpartition(".")[0]}.*"' in extra, "the version that the extra pins"
    assert claim["kind"] == "PersistentVolumeClaim" and claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for group in (spec.head, *spec.workers):
        pod = group.template.spec
        volumes = {volume.name: volume.claim.name for volume in pod.volumes}
        assert set(volumes.values()) == {claim["metadata"]["name"]}
        for container in pod.containers:
            assert {mount.name for mount in container.mounts} <= set(volumes)
            variables = {variable.name: variable for variable in container.env}
            token = variables["RAY_AUTH_TOKEN"].value_from
            assert (
                variables["RAY_AUTH_MODE"].value == "token" and token is not None and token.secret.name == "ray-token"
            )
            for name, amount in container.resources.limits.items():
                assert name in ("cpu", "memory", "nvidia.com/gpu") and re.match(QUANTITY, amount)
    for workers in spec.workers:
        assert workers.least <= workers.replicas <= workers.most
        resources = json.loads(json.loads(workers.start["resources"]))
        assert resources and all(name.startswith(DATA_PREFIX) for name in resources)


@pytest.mark.parametrize("wrong", ["replica", "workerGroupSpec"])
def test_a_field_that_does_not_exist_is_caught(wrong: str) -> None:
    payload = documents()[1]
    place = payload["spec"] if wrong == "workerGroupSpec" else payload["spec"]["workerGroupSpecs"][0]
    place[wrong] = 1
    with pytest.raises(ValidationError, match=wrong):
        RayCluster.model_validate(payload)
