"""The versions of an exported model: which there are, which are served, and whether their bytes are the ones recorded."""

from collections.abc import Callable, Mapping, Sequence

from pydantic import ValidationError

from contract.card import ENCODED_SUFFIX
from contract.errors import ManifestInvalid
from contract.manifest import Manifest, Tuned
from contract.model_config import from_pbtxt
from contract.repository import CONFIG, MANIFEST
from export.configs import shared_files, versions_served
from export.errors import RepositoryFailed, one_line
from export.golden import GOLDEN, GoldenImages
from export.store import Store

Reload = Callable[[str], None]


def not_running(model: str) -> None:
    """What reloads a model where no server runs."""


class Versions:
    """The versions of NAME and NAME_encoded in a repository.

    Attributes:
        store: Where they are.
        name: NAME.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name
        self._encoded_name = name + ENCODED_SUFFIX

    @property
    def existing(self) -> tuple[int, ...]:
        """The numbers that Triton would take for versions, ascending; half a version may be among them."""
        names = self.store.directories(self.name)
        return tuple(
            sorted(int(name) for name in names if name.isascii() and name.isdigit() and not name.startswith("0"))
        )

    @property
    def published(self) -> tuple[int, ...]:
        """Those that have a manifest, ascending."""
        return tuple(version for version in self.existing if self._manifest_text(version) is not None)

    @property
    def newest(self) -> int | None:
        """The highest that has a manifest."""
        return next((version for version in reversed(self.existing) if self._manifest_text(version) is not None), None)

    @property
    def served(self) -> tuple[int, ...]:
        """Those that config.pbtxt has Triton load, ascending.

        Raises:
            ConfigInvalid: It does not parse.
        """
        path = f"{self.name}/{CONFIG}"
        text = self.store.read(path) or b""
        return versions_served(from_pbtxt(text.decode(), path=path), self.existing)

    @property
    def loadable(self) -> tuple[int, ...]:
        """Of those that are served, the ones with a readable manifest: Triton refuses the others."""
        return tuple(version for version in self.served if self._is_readable(version))

    @property
    def live(self) -> int | None:
        """The highest that is served: it answers requests that name no version."""
        return max(self.served, default=None)

    def manifest(self, version: int) -> Manifest:
        """The manifest of a version.

        Raises:
            RepositoryFailed: There is no such version.
            ManifestInvalid: It is unreadable.
        """
        text = self._manifest_text(version)
        if text is None:
            published = ", ".join(map(str, self.published)) or "none"
            raise RepositoryFailed(f"{self.name} has no version {version} with a manifest; there are: {published}")
        try:
            return Manifest.model_validate_json(text)
        except ValidationError as error:
            path = f"{self.name}/{version}/{MANIFEST}"
            raise ManifestInvalid(f"{path}: not a manifest: {one_line(error)}") from error

    def golden(self, version: int) -> GoldenImages | None:
        """The golden images of a version; None where it was exported without."""
        data = self.store.read(f"{self.name}/{version}/{GOLDEN}")
        return None if data is None else GoldenImages.from_bytes(data)

    def faults(self, version: int) -> list[str]:
        """What is wrong with the files of a version: a line for each that is missing or changed."""
        try:
            manifest = self.manifest(version)
        except ManifestInvalid as error:
            return [str(error)]
        found = []
        for path, expected in manifest.artifacts.items():
            actual = self.store.digest(path)
            if actual is None:
                found.append(f"{path}: listed in the manifest, but missing")
            elif actual != expected:
                found.append(f"{path}: SHA-256 is {actual.sha256}, the manifest says {expected.sha256}")
        return found

    def reserve(self, draft: Manifest) -> None:
        """Give a new model configs that name no version: without one, Triton would serve the first files it finds."""
        for model in (self.name, self._encoded_name):
            if self.store.read(f"{model}/{CONFIG}") is None:
                self._write(shared_files(model, draft, ()))

    def add(self, version: int) -> None:
        """Serve a version that was just published beside the one that is live."""
        with self.store.locked(self.name):
            self._serve(sorted({version, *self.loadable[-1:]}), not_running)

    def serve(self, versions: Sequence[int], reload: Reload) -> None:
        """Have Triton serve `versions`, ascending, and no others.

        Args:
            reload: Has a running server take a model as it is in the repository.
        """
        with self.store.locked(self.name):
            self._serve(versions, reload)

    def promote(self, version: int, reload: Reload) -> None:
        """Make a version live; the one that was live stays served where it is lower.

        Raises:
            RepositoryFailed: There is no such version, or its files are not the ones recorded.
        """
        if faults := self.faults(version):
            raise RepositoryFailed(f"{faults[0]}; {self.name} {version} is not promoted")
        with self.store.locked(self.name):
            if version in self.loadable:
                # Named since it was published, and perhaps not yet taken.
                reload(self.name)
            lower = [each for each in self.loadable if each < version]
            self._serve([*lower[-1:], version], reload)

    def withdraw(self, version: int, reload: Reload) -> int | None:
        """Make a lower version live: the highest that is served already, else the highest that is there.

        Returns:
            The version; None where none is left whose files are the ones recorded, and nothing was changed.
        """
        with self.store.locked(self.name):
            for candidates in (self.loadable, self.published):
                for lower in reversed([each for each in candidates if each < version]):
                    if not self.faults(lower):
                        self._serve([lower], reload)
                        return lower
        return None

    def tune(self, version: int, model: str, tuned: Tuned, reload: Reload) -> None:
        """Run a model of the live version so from now on; its artifacts stay as they are.

        The manifests are written before the configs that follow from them: after a crash between, the next change of what is
        served writes these.

        Args:
            model: NAME or NAME_encoded.

        Raises:
            RepositoryFailed: Another version is live.
        """
        with self.store.locked(self.name):
            if version != self.live:
                raise RepositoryFailed(f"{self.name} {version} is no longer live; {self.live} is")
            manifest = self.manifest(version)
            text = manifest.model_copy(update={"tuned": {**manifest.tuned, model: tuned}}).to_json().encode()
            self._write({f"{each}/{version}/{MANIFEST}": text for each in (self._encoded_name, self.name)})
            self._serve(self.loadable, reload)

    def collect(self, keep: int) -> tuple[int, ...]:
        """Remove the versions that are not served, but for the `keep` newest of all; those that were removed.

        Args:
            keep: At least 1, so that the number of a removed version is never given to another.
        """
        with self.store.locked(self.name):
            served = self.served
            removed = tuple(version for version in self.published[:-keep] if version not in served)
            for version in removed:
                self.store.remove_version(self.name, version)
        return removed

    def _serve(self, versions: Sequence[int], reload: Reload) -> None:
        """Write the configs of both models.

        A version of NAME_encoded asks NAME for the version of the same number. NAME therefore gets what is new first and
        loses what is old last: at every moment, and after a crash at any, it serves what NAME_encoded does.
        """
        live, before = self.manifest(versions[-1]), self.loadable
        steps = [(self._encoded_name, versions), (self.name, versions)]
        if not set(versions) <= set(before):
            # One whose bytes are wrong would keep Triton from loading the others.
            kept = [version for version in before if not self.faults(version)]
            steps.insert(0, (self.name, sorted({*kept, *versions})))
        for model, shown in steps:
            self._write(shared_files(model, live, [self.manifest(version) for version in shown]))
            reload(model)

    def _write(self, files: Mapping[str, bytes | None]) -> None:
        for path, data in files.items():
            if data is None:
                self.store.remove(path)
            elif data != self.store.read(path):
                self.store.replace(path, data)

    def _is_readable(self, version: int) -> bool:
        try:
            self.manifest(version)
        except (ManifestInvalid, RepositoryFailed):
            return False
        return True

    def _manifest_text(self, version: int) -> bytes | None:
        return self.store.read(f"{self.name}/{version}/{MANIFEST}")
