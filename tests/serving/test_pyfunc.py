"""Loading and asking a registered model, in a process of its own that listens for pickles."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from pathlib import Path

import numpy as np
import torch

from segraft.checkpoint import ClassCard, ModelCard, Preprocessing, save_model
from segraft.evaluation.predict import Predictor
from segraft.models import create_model
from segraft.params import Tracking
from segraft.registry import load_registered, open_registered
from segraft.registry.artifact import pack
from segraft.registry.versions import publish
from segraft.tracking import Record, connect

images = np.random.default_rng(0).integers(0, 256, (2, 40, 72, 3), dtype=np.uint8)
torch.manual_seed(0)
card = ModelCard(
    arch="unet", encoder="efficientnet_lite0", taxonomy="t",
    classes=tuple(ClassCard(name=n, color=(0, 0, 0)) for n in "abc"),
    preprocessing=Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
)
save_model(Path("model"), create_model(card.arch, card.encoder, 3), card)
expected = Predictor(Path("model"))(list(images))
tracking = Tracking(uri="sqlite:///mlflow.db", experiment="e", required=True, timeout=1)
with connect(tracking) as tracker:
    run = tracker.log(Record("run", "run", 1.0, 2.0))
    publish(tracker, "m", run, Path("artifact"), pack(Path("model"), images[:1, :32, :32], Path("artifact")), {})

unpickled = []
sys.addaudithook(lambda event, args: unpickled.append(args) if event == "pickle.find_class" else None)

network, loaded = load_registered("models:/m@challenger", tracking)
assert loaded.classes == card.classes and not network.training

from mlflow.pyfunc import load_model
artifact = open_registered("models:/m/1", tracking, Path("opened")).parent
served = load_model(str(artifact))
answer = served.predict(images)
assert answer.dtype == np.uint8 and answer.shape == (2, 40, 72), (answer.dtype, answer.shape)
assert all((a == e).all() for a, e in zip(answer, expected)) and len(np.unique(answer)) > 1
assert served.predict(images[:1, :32, :32]).shape == (1, 32, 32), "the input example's size"
from mlflow.exceptions import MlflowException
for wrong in (images.astype(np.float32), images[..., :2], images[0]):
    try:
        served.predict(wrong)
    except MlflowException:
        continue
    raise SystemExit(f"accepted {wrong.dtype} {wrong.shape}")

assert not unpickled, unpickled
import pickle
pickle.loads(pickle.dumps(Path("x")))
assert unpickled, "the hook hears"
print("heard nothing")
"""


def test_a_registered_model_loads_and_answers_without_a_pickle(tmp_path: Path):
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("heard nothing")
