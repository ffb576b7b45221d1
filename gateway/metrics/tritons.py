"""The metrics of several Tritons in one text: the same names, told apart by the label `replica`."""

import re
from collections.abc import Sequence

_SAMPLE = re.compile(rb"^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{)?", re.MULTILINE)


def merged(texts: Sequence[bytes | None]) -> bytes:
    """Each text's samples with the number of its place as `replica`, grouped by metric as the format asks.

    Args:
        texts: In the order of the replicas; None where one did not answer.
    """
    families: dict[bytes, tuple[list[bytes], list[bytes]]] = {}
    for number, text in enumerate(texts):
        for line in (text or b"").splitlines():
            if line.startswith(b"# "):
                head, _ = families.setdefault(line.split(b" ", 3)[2], ([], []))
                if line not in head:
                    head.append(line)
            elif line and (name := _SAMPLE.match(line)):
                _, samples = families.setdefault(name[1], ([], []))
                samples.append(_labelled(line, name, b'replica="%d"' % number))
    return b"".join(line + b"\n" for head, samples in families.values() for line in (*head, *samples))


def _labelled(line: bytes, name: re.Match[bytes], label: bytes) -> bytes:
    rest = line[name.end() :]
    return b"%s{%s%s" % (
        name[1],
        label,
        (b"," if not rest.startswith(b"}") else b"") + rest if name[2] else b"}" + rest,
    )
