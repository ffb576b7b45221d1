"""Identity and limits in a running server of two workers, over PostgreSQL and Redis."""

import time
from collections.abc import Iterator

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse
from tritonclient.utils import InferenceServerException

from tests.gateway import postgres_server, redis_server
from tests.running import Server, images_input, running

_INFER = "/inference.GRPCInferenceService/ModelInfer"
_BLANK = np.zeros((1, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("shared")
    with postgres_server.running() as postgres, redis_server.running(directory) as redis:
        settings = {"DATABASE__URL": postgres.create_database("tidegate"), "REDIS__URL": redis.url}
        with running(directory / "state", WORKERS="2", **settings) as server:
            yield server


@pytest.fixture
def admin(shared: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{shared.http}/admin/v1", headers=shared.headers) as client:
        yield client


def _key(admin: httpx.Client, **wishes: object) -> str:
    made = admin.post("/keys", json={"name": "test", **wishes})
    assert made.status_code == 201, made.text
    return str(made.json()["key"])


def _infer(server: Server, key: str, model: str = "digits") -> None:
    with triton.InferenceServerClient(server.grpc) as client:
        client.infer(model, images_input(_BLANK), headers={"authorization": f"Bearer {key}"})


def test_a_key_may_name_its_models_and_sees_no_others(shared: Server, admin: httpx.Client) -> None:
    key = _key(admin, models=["cats*"], scopes=["infer", "read", "admin"])
    headers = {"authorization": f"Bearer {key}"}
    with triton.InferenceServerClient(shared.grpc) as client:
        for refused in (
            lambda: client.infer("digits", images_input(_BLANK), headers=headers),
            lambda: client.get_model_metadata("digits", headers=headers),
            lambda: client.get_model_config("digits", headers=headers),
            lambda: client.unload_model("digits", headers=headers),
        ):
            with pytest.raises(InferenceServerException, match="'digits'") as error:
                refused()  # type: ignore[no-untyped-call]  # The client is untyped.
            assert "PERMISSION_DENIED" in str(error.value.status())
        assert len(client.get_model_repository_index(headers=headers).models) == 0
        assert len(client.get_inference_statistics(headers=headers).model_stats) == 0
    _infer(shared, _key(admin, models=["digits"]))


def test_two_workers_keep_one_limit_and_say_when_to_come_back(shared: Server, admin: httpx.Client) -> None:
    headers = {"authorization": f"Bearer {_key(admin, limits={'images_per_day': 8})}"}
    body = {
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": _BLANK.ravel().tolist()}]
    }
    # A connection is one worker's; a client of its own for each call comes to both.
    replies = [
        httpx.post(f"http://{shared.http}/v2/models/digits/infer", headers=headers, json=body) for _ in range(12)
    ]
    assert [reply.status_code for reply in replies] == [200] * 8 + [429] * 4
    refused = replies[-1]
    assert 0 < int(refused.headers["retry-after"]) <= 86_400
    assert refused.headers["ratelimit-policy"] == '"key-images-today";q=8;w=86400'
    assert refused.headers["ratelimit"] == f'"key-images-today";r=0;t={refused.headers["retry-after"]}'
    assert "8 images a day" in refused.json()["error"]


def test_grpc_callers_are_told_when_to_come_back(shared: Server, admin: httpx.Client) -> None:
    key = _key(admin, limits={"requests_per_s": 0.5})
    request = ModelInferRequest(model_name="digits")
    request.inputs.add(name="images", datatype="UINT8", shape=_BLANK.shape)
    request.raw_input_contents.append(_BLANK.tobytes())
    with grpc.insecure_channel(shared.grpc) as channel:
        call = channel.unary_unary(_INFER, ModelInferRequest.SerializeToString, ModelInferResponse.FromString)
        metadata = (("authorization", f"Bearer {key}"),)
        call(request, metadata=metadata, timeout=30)
        with pytest.raises(grpc.RpcError) as refused:
            call(request, metadata=metadata, timeout=30)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailing = {item.key: item.value for item in refused.value.trailing_metadata() or ()}
    assert 0 < int(trailing["grpc-retry-pushback-ms"]) <= 2_000


def test_a_tenants_keys_share_its_limits(shared: Server, admin: httpx.Client) -> None:
    assert admin.post("/tenants", json={"name": "acme", "limits": {"images_per_day": 2}}).status_code == 204
    first, second = (_key(admin, tenant="acme") for _ in range(2))
    _infer(shared, first)
    _infer(shared, second)
    for key in (first, second):
        with pytest.raises(InferenceServerException, match="the tenant may use 2 images a day"):
            _infer(shared, key)
    (tenant,) = [tenant for tenant in admin.get("/tenants").json() if tenant["name"] == "acme"]
    assert tenant["limits"] == {
        "requests_per_s": None, "images_per_s": None, "images_per_day": 2, "max_in_flight": None
    }  # fmt: skip


def test_a_tenant_that_is_disabled_is_refused_within_five_seconds(shared: Server, admin: httpx.Client) -> None:
    assert admin.post("/tenants", json={"name": "gone"}).status_code == 204
    key = _key(admin, tenant="gone")
    _infer(shared, key)
    assert admin.put("/tenants/gone/state", json={"disabled": True}).status_code == 204
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            _infer(shared, key)
        except InferenceServerException as error:
            assert "UNAUTHENTICATED" in str(error.status())
            return
        time.sleep(0.1)
    raise AssertionError("still served after 5 s")


def test_keys_are_managed_over_rest_as_by_command(shared: Server, admin: httpx.Client) -> None:
    made = admin.post("/keys", json={"name": "managed", "models": ["digits"]}).json()
    rotated = admin.post(f"/keys/{made['key_id']}/rotate", json={"overlap_s": 60}).json()
    for key in (made["key"], rotated["key"]):
        _infer(shared, key)
    assert admin.put(f"/keys/{made['key_id']}/limits", json={"max_in_flight": 2}).status_code == 204
    (shown,) = [key for key in admin.get("/keys").json() if key["key_id"] == made["key_id"]]
    assert shown["limits"]["max_in_flight"] == 2 and shown["old_secret_until"] is not None
    assert admin.delete(f"/keys/{made['key_id']}").status_code == 204
    assert admin.delete(f"/keys/{made['key_id']}").status_code == 404
    row = next(line for line in shared.command("keys", "list").stdout.splitlines() if made["key_id"] in line)
    assert "revoked" in row
    acts = [(act["action"], act["result"]) for act in admin.get("/audit").json() if act["target"] == made["key_id"]]
    assert acts == [(f"keys.{action}", "ok") for action in ("revoke", "limit", "rotate", "create")]


def test_loads_are_in_the_audit_log(shared: Server, admin: httpx.Client) -> None:
    headers = shared.headers
    url = f"http://{shared.http}/v2/repository/models"
    assert httpx.post(f"{url}/digits/load", headers=headers, timeout=60).status_code == 200
    assert httpx.post(f"{url}/absent/load", headers=headers, timeout=60).status_code >= 400
    acts = [act for act in admin.get("/audit").json() if act["action"] == "RepositoryModelLoad"]
    assert [act["target"] for act in acts[:2]] == ["absent", "digits"]
    assert acts[1]["result"] == "ok" and acts[0]["result"] not in ("ok", "begun")
    assert acts[0]["actor"].startswith("key:")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "JSON"),
        (b'{"name": ""}', 400, "name"),
        (b'{"name": "a", "scopes": ["root"]}', 400, "infer"),
        (b'{"name": "a", "limits": {"requests_per_s": -1}}', 400, "requests_per_s"),
        (b'{"name": "a", "limit": {}}', 400, "limit"),
        (b'{"name": "a", "tenant": "absent"}', 404, "absent"),
        (b'{"name": "' + b"a" * 70_000 + b'"}', 413, "65536"),
    ],
)
def test_what_makes_no_sense_is_refused(admin: httpx.Client, body: bytes, status: int, words: str) -> None:
    reply = admin.post("/keys", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == status, reply.text
    assert words in reply.json()["error"]


def test_a_body_that_is_not_said_to_be_json_is_told_so(admin: httpx.Client) -> None:
    reply = admin.post("/keys", content=b'{"name": "a"}', headers={"content-type": "application/x-www-form-urlencoded"})
    assert (reply.status_code, reply.json()["error"]) == (400, "content-type: must be application/json")


def test_only_administrators_are_let_in_and_others_bodies_are_not_read(shared: Server, admin: httpx.Client) -> None:
    reader = _key(admin, scopes=["infer", "read"])
    for method, path in (("GET", "/keys"), ("POST", "/keys"), ("GET", "/audit"), ("DELETE", "/keys/a")):
        url = f"http://{shared.http}/admin/v1{path}"
        assert httpx.request(method, url, content=b"{").status_code == 401
        assert (
            httpx.request(method, url, content=b"{", headers={"authorization": f"Bearer {reader}"}).status_code == 403
        )


def test_the_admin_api_is_documented(shared: Server) -> None:
    paths = httpx.get(f"http://{shared.http}/openapi.json").json()["paths"]
    assert {"/admin/v1/keys", "/admin/v1/keys/{key_id}/rotate", "/admin/v1/tenants", "/admin/v1/audit"} <= paths.keys()
    body = paths["/admin/v1/keys"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["$ref"].endswith("NewKey")
