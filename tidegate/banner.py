"""What `tidegate up` says when it is ready."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.settings import AuthMode
from tidegate.client import DEV_KEY
from tidegate.settings import UpSettings
from tidegate.tls import ServerTrust

_SAMPLE = Path("examples/seven.png")
_PACKAGED_SAMPLE = Path(__file__).parent / "demo" / "seven.png"


def text(
    settings: UpSettings, http: str, grpc: str, metrics: str, ready: Sequence[str], unavailable: Mapping[str, str]
) -> str:
    """The addresses, where the key is, and two calls to paste.

    Args:
        http: host:port, as are `grpc` and `metrics`.
        ready: Names of the models that are served.
        unavailable: Why the others are not.
    """
    key = settings.state_dir / DEV_KEY
    with_key = settings.auth.mode is AuthMode.KEYS
    trust = ServerTrust.of(settings.tls)
    rest = f"http://{http}" if trust is None else f"https://{http}"
    curl = "curl" + _curl_tls(trust) + _curl_key(key, with_key)
    lines = [
        "",
        f"Tidegate serves {', '.join(ready) or 'no models'} from {settings.model_repository}",
        "",
        f"  REST     {rest}  (documented at /docs)",
        f"  console  {rest}/console",
        f"  gRPC     {grpc}",
        f"  metrics  http://{metrics}/metrics",
        f"  key      {key}" if with_key else "  key      none needed: TIDEGATE_AUTH__MODE=off",
        *([f"  TLS      {trust.certificate}"] if trust is not None else []),
        "",
        *(f"  not served: {name}: {reason}" for name, reason in sorted(unavailable.items())),
        *(_digits(curl, rest, grpc, key, with_key, trust) if "digits" in ready else _any_model(curl, rest, ready)),
        "",
        "Ctrl-C stops it.",
        "",
    ]
    return "\n".join(lines)


def _digits(curl: str, rest: str, grpc: str, key: Path, with_key: bool, trust: ServerTrust | None) -> list[str]:
    headers = f', headers={{"authorization": "Bearer " + open("{key}").read()}}' if with_key else ""
    sample = _SAMPLE if _SAMPLE.is_file() else _PACKAGED_SAMPLE
    # Flush left: an indented here-document would not end, and Python would not take it.
    return [
        f"{curl} --data-binary @{sample} {rest}/v1/models/digits/classify",
        "",
        f"{sys.executable} - <<'PYTHON'",
        "import numpy as np, tritonclient.grpc as triton",
        f'client = triton.InferenceServerClient("{grpc}"{_triton_tls(trust)})',
        'images = triton.InferInput("images", [1, 32, 32, 3], "UINT8")',
        "images.set_data_from_numpy(np.zeros((1, 32, 32, 3), np.uint8))",
        f'print(client.infer("digits", [images]{headers}).as_numpy("scores"))',
        "PYTHON",
    ]


def _any_model(curl: str, rest: str, ready: Sequence[str]) -> list[str]:
    return [f"{curl} {rest}/v2/models/{ready[0]}"] if ready else []


def _curl_key(key: Path, with_key: bool) -> str:
    return f' -H "Authorization: Bearer $(cat {key})"' if with_key else ""


def _curl_tls(trust: ServerTrust | None) -> str:
    """The certificate stands for itself; it must be for the address that is called."""
    if trust is None:
        return ""
    shown = f" --cert {trust.client_certificate} --key {trust.client_key}" if trust.client_certificate else ""
    return f" --cacert {trust.certificate}{shown}"


def _triton_tls(trust: ServerTrust | None) -> str:
    if trust is None:
        return ""
    shown = f', certificate_chain="{trust.client_certificate}", private_key="{trust.client_key}"'
    return f', ssl=True, root_certificates="{trust.certificate}"' + (shown if trust.client_certificate else "")
