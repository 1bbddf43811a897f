"""The bill of materials of an image, as CycloneDX JSON: the same image gives the same bytes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from deploy.images.layers import Image
from deploy.images.packages import Package, System, packages, system

_TOLD = "org.opencontainers.image."


def bill(image: Image, files: Mapping[str, bytes], epoch: int) -> str:
    """Return the bill of materials of an image as of a time (seconds since 1970: the commit's)."""
    known, whole = system(files), _image(image)
    inside = [*_system(known), *_components(packages(files), known)]
    tools = ToolRepository(components=[Component(name="tidegate", type=ComponentType.APPLICATION, bom_ref="tidegate")])
    about = BomMetaData(timestamp=datetime.fromtimestamp(epoch, UTC), component=whole, tools=tools)
    bom = Bom(serial_number=uuid5(NAMESPACE_URL, image.id), components=inside, metadata=about)
    bom.register_dependency(whole, inside)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that an image has nothing in it is no mistake
        return JsonV1Dot6(bom).output_as_string() + "\n"


def _image(image: Image) -> Component:
    """Describe the image: its name, version and digest, its layers, and its labels that say where it comes from."""
    name, _, version = image.name.rpartition(":")
    labels = (image.config.get("config") or {}).get("Labels") or {}
    told = {key: value for key, value in labels.items() if key.startswith(_TOLD)}
    layers = {f"dev.tidegate.layer.{nth:02}": one for nth, one in enumerate(image.config["rootfs"]["diff_ids"], 1)}
    return Component(
        name=name, version=version, type=ComponentType.CONTAINER, bom_ref="image",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=image.id.removeprefix("sha256:"))],
        purl=PackageURL("oci", None, name.rpartition("/")[2], image.id, {"tag": version}),
        properties=[Property(name=key, value=value) for key, value in (told | layers).items()],
    )  # fmt: skip


def _system(known: System) -> Iterator[Component]:
    if known.id:
        kind = ComponentType.OPERATING_SYSTEM
        yield Component(name=known.id, version=known.version or None, type=kind, bom_ref="operating-system")


def _components(found: Iterable[Package], known: System) -> Iterator[Component]:
    for number, one in enumerate(found, 1):
        where = Property(name="dev.tidegate.path", value=one.path)
        yield Component(name=one.name, version=one.version, type=ComponentType.LIBRARY, purl=_purl(one, known),
                        bom_ref=f"{number:04}-{one.name}", properties=[where])  # fmt: skip


def _purl(one: Package, known: System) -> PackageURL:
    if one.kind in ("deb", "apk"):
        told = {"arch": one.architecture, "distro": f"{known.id}-{known.version}".strip("-"), "upstream": one.source}
        qualifiers = {key: value for key, value in told.items() if value}
        return PackageURL(one.kind, known.id or None, one.name, one.version, qualifiers)
    namespace, _, name = one.name.rpartition("/")
    return PackageURL(one.kind, namespace or None, name, one.version)
