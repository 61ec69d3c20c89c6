import shutil

import pytest

from tests.exported import export

QUICK = ("onnx-fp32", "openvino-fp32", "openvino-bf16")
INT8 = ("onnx-int8", "openvino-int8")


@pytest.fixture(scope="session")
def exported(learned):
    """A model folder with graphs that are not quantised, beside `finetuned` and `packed`."""
    export(learned, learned / "exported", QUICK)
    return learned / "exported"


@pytest.fixture(scope="session")
def quantized(learned):
    """A model folder with every graph."""
    export(learned, learned / "quantized", QUICK + INT8)
    return learned / "quantized"


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "copy")
