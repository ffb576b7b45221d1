"""Publishing to a real S3 server."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from export.errors import RepositoryFailed
from export.locations import open_store
from export.s3 import S3Address
from export.versions import Versions
from tests.publishable import Publishable
from tests.s3 import S3Server

CONCURRENT = 4


@pytest.fixture
def bucket(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a repository in a new bucket, as Triton spells it."""
    (s3.directory / tmp_path.name).mkdir()
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    return f"s3://{s3.endpoint}/{tmp_path.name}/some/models"


@pytest.mark.parametrize(
    ("location", "address"),
    [
        ("s3://bucket", S3Address(None, "bucket", "")),
        ("s3://bucket/some/models/", S3Address(None, "bucket", "some/models/")),
        ("s3://http://127.0.0.1:9000/bucket", S3Address("http://127.0.0.1:9000", "bucket", "")),
        ("s3://https://minio:9000/bucket/models", S3Address("https://minio:9000", "bucket", "models/")),
        ("s3://minio:9000/bucket/models", S3Address("http://minio:9000", "bucket", "models/")),
    ],
)
def test_address_is_read_as_triton_reads_it(location: str, address: S3Address) -> None:
    assert S3Address.parse(location) == address


@pytest.mark.parametrize("location", ["s3://", "s3://http://127.0.0.1/bucket", "s3://http://127.0.0.1:9000"])
def test_other_addresses_are_refused(location: str) -> None:
    with pytest.raises(RepositoryFailed, match="not s3://"):
        S3Address.parse(location)


def test_published_versions_are_whole_and_named(digits: Publishable, bucket: str) -> None:
    assert [digits.publish(bucket) for _ in range(3)] == [1, 2, 3]
    store = open_store(bucket)
    versions = Versions(store, "digits")
    assert versions.published == (1, 2, 3)
    assert versions.served == Versions(store, "digits_encoded").served == (2, 3)
    assert [versions.faults(version) for version in (1, 2, 3)] == [[], [], []]
    assert store.directories() == ("digits", "digits_encoded")


def test_changed_and_missing_objects_are_named(digits: Publishable, bucket: str) -> None:
    digits.publish(bucket)
    store = open_store(bucket)
    store.replace("digits/1/model.onnx", b"another model")
    store.remove("digits_encoded/1/preprocessing.json")
    changed, missing = Versions(store, "digits").faults(1)
    assert changed.startswith("digits/1/model.onnx: SHA-256 is")
    assert missing == "digits_encoded/1/preprocessing.json: listed in the manifest, but missing"


def test_upload_killed_at_any_point_leaves_whole_versions_alone(digits: Publishable, bucket: str) -> None:
    killed = digits.publish_killed_at_every_step(bucket, stride=13, environment=os.environ)
    assert killed > 5
    versions = Versions(open_store(bucket), "digits")
    # The numbers of those that were killed are passed over.
    assert len(versions.existing) < killed + 2
    assert versions.live == versions.published[-1]
    assert set(Versions(versions.store, "digits_encoded").served) <= set(versions.served) <= set(versions.published)
    for version in versions.published:
        assert versions.faults(version) == []


def test_first_upload_that_is_killed_gives_triton_no_version(
    digits: Publishable, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(bucket)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    # In place of cleaning up, which a killed process cannot, when the first file is to be uploaded.
    monkeypatch.setattr("export.s3.S3Store.remove_version", crash)
    monkeypatch.setattr("export.s3.S3Store._upload", crash)
    with pytest.raises(KeyboardInterrupt):
        digits.publish(bucket)
    assert Versions(store, "digits_encoded").existing == (1,)
    assert Versions(store, "digits_encoded").served == Versions(store, "digits").served == ()


def test_failed_upload_leaves_nothing(digits: Publishable, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RepositoryFailed("the network is gone")

    monkeypatch.setattr("export.s3.S3Store._upload", fail)
    with pytest.raises(RepositoryFailed, match="network"):
        digits.publish(bucket)
    assert Versions(open_store(bucket), "digits_encoded").existing == ()


def test_concurrent_exports_each_get_a_version(digits: Publishable, bucket: str) -> None:
    barrier = Barrier(CONCURRENT)

    def export() -> int:
        barrier.wait()
        return digits.publish(bucket)

    with ThreadPoolExecutor(CONCURRENT) as pool:
        found = [future.result() for future in [pool.submit(export) for _ in range(CONCURRENT)]]
    versions = Versions(open_store(bucket), "digits")
    assert sorted(found) == list(versions.published)
    for version in found:
        assert versions.faults(version) == []


def test_removed_version_is_gone_from_both_models(digits: Publishable, bucket: str) -> None:
    for _ in range(4):
        digits.publish(bucket)
    versions = Versions(open_store(bucket), "digits")
    assert versions.collect(keep=1) == (1, 2)
    assert versions.existing == Versions(versions.store, "digits_encoded").existing == (3, 4)


def test_bucket_that_is_not_there_is_one_line(bucket: str) -> None:
    with pytest.raises(RepositoryFailed) as caught:
        open_store(bucket.replace("/some/", "-absent/some/")).directories()
    assert "\n" not in str(caught.value) and "-absent" in str(caught.value)
