from pathlib import Path
from typing import Any

import pytest

from contract.formats import Format, Target
from export.errors import OptionsInvalid
from export.options import DEFAULT_FORMATS, ExportOptions, read_config


def test_file_and_command_line_spell_the_same(tmp_path: Path) -> None:
    path = tmp_path / "tidegate.yaml"
    path.write_text(
        "source: model.ckpt\nmodule: mine.net:Net\ninput: [3, 64, 48]\nmean: [0.5, 0.4, 0.3]\n"
        "formats: [onnx, openvino]\nint8: true\ntarget: gpu\nlabels: labels.txt\n"
    )
    told = {"source": "model.ckpt", "module": "mine.net:Net", "input": "3x64x48", "mean": "0.5,0.4,0.3"}
    told |= {"formats": "onnx,openvino", "int8": "true", "target": "gpu", "labels": "labels.txt"}
    options = ExportOptions.of(read_config(path), str(path))
    assert options == ExportOptions.of(told)
    assert (options.input, options.target) == ((3, 64, 48), Target.GPU)
    assert options.formats == (Format.ONNX, Format.OPENVINO)


def test_source_is_all_that_must_be_said() -> None:
    options = ExportOptions.of({"source": "model.ckpt"})
    assert (options.formats, options.target, options.int8) == (DEFAULT_FORMATS, Target.CPU, False)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "source: Field required"),
        ({"source": "a", "formts": "onnx"}, "formts: Extra inputs"),
        ({"source": "a", "formats": "onnx,tflite"}, "formats: .*'tensorrt'"),
        ({"source": "a", "formats": []}, "formats: .*at least 1"),
        ({"source": "a", "target": "tpu"}, "target: .*'cpu' or 'gpu'"),
        ({"source": "a", "int8": "perhaps"}, "int8: .*boolean"),
        ({"source": "a", "input": "224x224"}, "input: "),
        ({"source": "a", "input": "1x28x28"}, "input: three channels"),
        ({"source": "a", "mean": "0.5"}, "mean: "),
        ({"source": "a", "name": "../up"}, "name: "),
        ({"source": "a", "module": "no class"}, "module: "),
        ({"source": "a", "measure_s": 60}, "measure_s: "),
        ({"source": "a", "int8": True, "formats": "onnx"}, "int8: it is made from OpenVINO"),
        ({"source": "a", "target": "gpu", "formats": "openvino"}, "formats: they leave out onnx"),
        ({"source": "a", "serve": "torchscript", "formats": "onnx"}, "formats: they leave out torchscript"),
    ],
)
def test_wrong_field_is_named_in_one_line(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionsInvalid, match=rf"^tidegate\.yaml: {words}") as caught:
        ExportOptions.of(fields, "tidegate.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("source: [unclosed", r"tidegate\.yaml:1:18: not YAML"),
        ("source: !!python/object/apply:os.getcwd []", "not YAML: could not determine a constructor"),
        ("- source", "fields are wanted"),
        ("", "fields are wanted"),
    ],
)
def test_file_that_holds_no_fields_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "tidegate.yaml"
    path.write_text(text)
    with pytest.raises(OptionsInvalid, match=words):
        read_config(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionsInvalid, match="No such file"):
        read_config(tmp_path / "tidegate.yaml")
