"""The state of built images: whether they match the code, users' own images, and removal of replaced ones."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

from pretrain_bench.benchmarks.specs.method import Method
from pretrain_bench.benchmarks.support.errors import BenchError, EnvironmentCannot, WrongUse
from pretrain_bench.harness.executors.engine import first_line, is_podman
from pretrain_bench.harness.executors.image_contents import (
    BASE,
    CODE_LABEL,
    NAME_LABEL,
    PARENT_LABEL,
    code_sha256_of,
    image_names,
    tag,
)

if TYPE_CHECKING:
    from docker import DockerClient

State = Literal["ok", "stale", "missing"]


class StaleImage(BenchError):
    """An image that is missing or no longer matches the code."""

    exit_code = EnvironmentCannot.exit_code


def state(client: DockerClient, image: str) -> tuple[State, str]:
    """Whether an image exists and matches this code, its locks and its base; if not, also the reason and what to run."""
    labels = image_labels(client, image)
    if labels is None:
        return "missing", f"{tag(image)} is not built; {_advice(client, image)}"
    if labels.get(CODE_LABEL) != code_sha256_of(image):
        changed = "locks or Dockerfile" if image == BASE else "code or Dockerfile"
        return "stale", f"{tag(image)}: its {changed} changed since it was built; {_advice(client, image)}"
    if image != BASE:
        if labels.get(PARENT_LABEL) != image_id(client, BASE):
            return "stale", f"{tag(image)}: its base was rebuilt since; {_advice(client, image)}"
        base_state, why = state(client, BASE)
        if base_state == "stale":
            return "stale", f"{tag(image)}: {why}"
    return "ok", ""


def _advice(client: DockerClient, image: str) -> str:
    return f"run: bench images build {image}{' --engine podman' if is_podman(client) else ''}"


def image_labels(client: DockerClient, image: str) -> dict[str, str] | None:
    """The labels of an image; None if it is not built."""
    from docker.errors import ImageNotFound

    try:
        return dict(client.images.get(tag(image)).labels)
    except ImageNotFound:
        return None


def image_id(client: DockerClient, image: str) -> str:
    """The id of an image; empty if it is not built."""
    from docker.errors import ImageNotFound

    try:
        return str(client.images.get(tag(image)).id)
    except ImageNotFound:
        return ""


def prune(client: DockerClient) -> list[str]:
    """Remove this project's images that a newer build has replaced; returns their ids."""
    removed = []
    current = {image.id for name in image_names() for image in client.images.list(tag(name))}
    for image in client.images.list(filters={"label": NAME_LABEL}, all=False):
        if image.id not in current and not image.tags:
            client.images.remove(image.id, force=True)
            removed.append(image.id)
    return removed


def lock_base(client: DockerClient, base: str) -> str:
    """The registry's current digest of a base image. Raises EnvironmentCannot if no registry answers."""
    try:
        return str(client.images.get_registry_data(base).id)
    except Exception as error:
        raise EnvironmentCannot(f"{base}: its digest cannot be read: {first_line(error)}") from None


def require(client: DockerClient, image: str) -> str:
    """The id of an image that matches this code. Raises StaleImage, with the reason, if it does not."""
    status, why = state(client, image)
    if status != "ok":
        raise StaleImage(why)
    return image_id(client, image)


def with_image(client: DockerClient, method: Method) -> Method:
    """A user's method with the current id of its image added to its code. Raises WrongUse for a missing or unusable image."""
    from docker.errors import ImageNotFound

    assert method.image is not None
    try:
        image = client.images.get(method.image)
    except ImageNotFound:
        raise WrongUse(
            f"method {method.name!r}: image {method.image} does not exist; build it first, for example: docker build -t "
            f"{method.image.partition(':')[0]} FOLDER"
        ) from None
    if image.attrs["Config"].get("Volumes"):
        raise WrongUse(f"method {method.name!r}: its image has a VOLUME, which escapes the disk limit; remove it")
    code = hashlib.sha256(f"{method.code_sha256} {image.id}".encode()).hexdigest()
    return method.model_copy(update={"code_sha256": code, "image": image.id})
