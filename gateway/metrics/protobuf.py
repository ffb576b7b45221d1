"""Prometheus's protobuf exposition: it alone has native histograms, and prometheus_client does not write it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.proto import serialize_length_prefixed
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar, Sample

from gateway.metrics.native import NATIVE, make_native

CONTENT_TYPE = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"

_MEDIA_TYPE = "application/vnd.google.protobuf"
_PACKAGE = "io.prometheus.client"
# Those of its fields that are written here: the number, and the type; * is repeated.
_MESSAGES: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "LabelPair": {"name": (1, "string"), "value": (2, "string")},
    "Value": {"value": (1, "double")},
    "Timestamp": {"seconds": (1, "int64"), "nanos": (2, "int32")},
    "Exemplar": {"label": (1, "LabelPair*"), "value": (2, "double"), "timestamp": (3, "Timestamp")},
    "Bucket": {"cumulative_count": (1, "uint64"), "upper_bound": (2, "double"), "exemplar": (3, "Exemplar")},
    "BucketSpan": {"offset": (1, "sint32"), "length": (2, "uint32")},
    "Histogram": {
        "sample_count": (1, "uint64"),
        "sample_sum": (2, "double"),
        "bucket": (3, "Bucket*"),
        "schema": (5, "sint32"),
        "zero_threshold": (6, "double"),
        "zero_count": (7, "uint64"),
        "positive_span": (12, "BucketSpan*"),
        "positive_delta": (13, "sint64*"),
    },
    "Metric": {
        "label": (1, "LabelPair*"),
        "gauge": (2, "Value"),
        "counter": (3, "Value"),
        "untyped": (5, "Value"),
        "histogram": (7, "Histogram"),
    },
    "MetricFamily": {"name": (1, "string"), "help": (2, "string"), "type": (3, "int32"), "metric": (4, "Metric*")},
}
# The field of a Metric by the type of its family, and the type's number.
_TYPES = {"counter": ("counter", 0), "gauge": ("gauge", 1)}
_UNTYPED = ("untyped", 3)
_HISTOGRAM = 4


def _family_class() -> type[Any]:
    file = FileDescriptorProto(name="metrics.proto", package=_PACKAGE, syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            repeated, kind = kind.endswith("*"), kind.rstrip("*")
            label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
            made = message.field.add(name=field, number=number, label=label)
            if kind in _MESSAGES:
                made.type, made.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                made.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.MetricFamily"))


MetricFamily = _family_class()


def wanted(accept: str) -> bool:
    """Whether a scraper likes it best."""
    best, most = "", 0.0
    for asked in accept.split(","):
        media_type, *parameters = (part.strip() for part in asked.split(";"))
        weights = [parameter.removeprefix("q=") for parameter in parameters if parameter.startswith("q=")]
        try:
            weight = float(weights[0]) if weights else 1.0
        except ValueError:
            continue
        if weight > most:
            best, most = media_type, weight
    return best == _MEDIA_TYPE


def encode(families: Iterable[Metric]) -> bytes:
    """Every family, each behind its length."""
    written = BytesIO()
    for family in families:
        for message in _histograms(family) if family.type == "histogram" else _values(family):
            serialize_length_prefixed(message, written)
    return written.getvalue()


def _values(family: Metric) -> Iterator[Any]:
    """One for each name: the samples of a counter are not called as it is."""
    field, number = _TYPES.get(family.type, _UNTYPED)
    messages: dict[str, Any] = {}
    for sample in family.samples:
        if sample.name not in messages:
            messages[sample.name] = MetricFamily(name=sample.name, help=family.documentation, type=number)
        metric = messages[sample.name].metric.add(label=_labels(sample.labels))
        getattr(metric, field).value = sample.value
    yield from messages.values()


def _histograms(family: Metric) -> Iterator[Any]:
    message = MetricFamily(name=family.name, help=family.documentation, type=_HISTOGRAM)
    series: dict[tuple[tuple[str, str], ...], list[Sample]] = defaultdict(list)
    for sample in family.samples:
        series[tuple((name, value) for name, value in sample.labels.items() if name != "le")].append(sample)
    for labels, samples in series.items():
        histogram = message.metric.add(label=_labels(dict(labels))).histogram
        for sample in samples:
            if sample.name.endswith("_count"):
                histogram.sample_count = int(sample.value)
            elif sample.name.endswith("_sum"):
                histogram.sample_sum = sample.value
            elif family.name != NATIVE and "le" in sample.labels:
                _add_bucket(histogram, sample)
        if family.name == NATIVE:
            make_native(histogram, [int(sample.value) for sample in samples if "le" in sample.labels])
    yield message


def _add_bucket(histogram: Any, sample: Sample) -> None:
    bucket = histogram.bucket.add(cumulative_count=int(sample.value), upper_bound=float(sample.labels["le"]))
    if sample.exemplar is not None:
        _set(bucket.exemplar, sample.exemplar)


def _set(message: Any, exemplar: Exemplar) -> None:
    message.value = exemplar.value
    for label in _labels(exemplar.labels):
        message.label.add(**label)
    seconds, fraction = divmod(float(exemplar.timestamp or 0), 1)
    message.timestamp.seconds, message.timestamp.nanos = int(seconds), int(fraction * 1e9)


def _labels(labels: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in labels.items()]
