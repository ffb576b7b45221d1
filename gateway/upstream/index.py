"""One index of models out of those of several replicas."""

from collections.abc import Iterable

from tritonclient.grpc.service_pb2 import RepositoryIndexResponse

from gateway.upstream.replica import Replica, Served

_READY = "READY"


def merged(indexes: Iterable[bytes]) -> bytes:
    """Every model and version that one of them has; ready where it is ready somewhere."""
    found: dict[Served, RepositoryIndexResponse.ModelIndex] = {}
    for index in indexes:
        for entry in RepositoryIndexResponse.FromString(index).models:
            key = (entry.name, entry.version)
            if key not in found or found[key].state != _READY:
                found[key] = entry
    return bytes(RepositoryIndexResponse(models=found.values()).SerializeToString())


def common(replicas: Iterable[Replica]) -> bytes:
    """The versions of each model that every replica which has the model has ready; where there are none, all of them.

    So a version that is being loaded on one replica after the other gets no calls before the last has it.
    """
    versions: dict[str, list[set[str]]] = {}
    for replica in replicas:
        having: dict[str, set[str]] = {}
        for name, version in replica.serves:
            having.setdefault(name, set()).add(version)
        for name, each in having.items():
            versions.setdefault(name, []).append(each)
    index = RepositoryIndexResponse()
    for name, sets in sorted(versions.items()):
        for version in sorted(set.intersection(*sets) or set.union(*sets)):
            index.models.add(name=name, version=version, state=_READY)
    return bytes(index.SerializeToString())
