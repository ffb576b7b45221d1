"""For `locust`. For example: `locust -f loadtest/locustfile.py --headless -u 16 -t 30s`.

TIDEGATE_LOAD_KIND and TIDEGATE_LOAD_TENANTS say what the users send; TIDEGATE_LOAD_SHAPE names a shape, in place of
`-u` and `-t`.
"""

from loadtest.settings import LoadSettings
from loadtest.shapes import SHAPES
from loadtest.users import Images

__all__ = ["Images"]

_shape = LoadSettings().shape
if _shape is not None:
    Shape = SHAPES[_shape]  # Locust takes the classes that it finds here.
