from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import tritons

_TEXT = b"""# HELP nv_inference_count Inferences
# TYPE nv_inference_count counter
nv_inference_count{model="digits",version="1"} %d
# HELP nv_cpu_utilization CPU
# TYPE nv_cpu_utilization gauge
nv_cpu_utilization 0.5
"""


def test_several_tritons_are_told_apart_and_each_metric_is_described_once() -> None:
    text = tritons.merged([_TEXT % 3, None, _TEXT % 4])
    assert text.count(b"# TYPE") == 2
    families = {family.name: family for family in text_string_to_metric_families(text.decode())}
    counts = {sample.labels["replica"]: sample.value for sample in families["nv_inference_count"].samples}
    assert counts == {"0": 3, "2": 4}
    assert families["nv_inference_count"].samples[0].labels["model"] == "digits"
    assert [sample.labels for sample in families["nv_cpu_utilization"].samples] == [{"replica": "0"}, {"replica": "2"}]
