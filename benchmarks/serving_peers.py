"""`python -m benchmarks.serving_peers KIND PORT [MODEL]`: one of the servers that benchmarks.serving compares.

stock-noop  KServe as it comes, a model that answers zeros
noop        ours, a runtime that answers zeros
naive       KServe as its documentation shows: PyTorch in fp32, JSON floats in, JSON class ids out
naive-logits  the same, JSON logits out
ours        `segraft serve MODEL`
"""

import sys
from pathlib import Path

import numpy as np


def stock(model, port: int) -> None:
    """Run KServe's own server."""
    from kserve import ModelServer

    model.load()
    ModelServer(http_port=port, enable_grpc=False, enable_latency_logging=False).start([model])


def stock_noop(port: int) -> None:
    """Binary in, binary out, as the V2 protocol has it."""
    from kserve import InferOutput, InferResponse, Model

    class Zeros(Model):
        async def predict(self, payload, headers=None):
            shape = payload.inputs[0].as_numpy().shape[:3]
            ids = InferOutput("ids", list(shape), "UINT8")
            ids.set_data_from_numpy(np.zeros(shape, np.uint8))
            wanted, binary = payload.request_outputs, payload.use_binary_outputs
            return InferResponse(payload.id, self.name, [ids], requested_outputs=wanted, use_binary_outputs=binary)

    stock(Zeros("segraft"), port)


def naive(port: int, folder: Path, logits: bool) -> None:
    """The documentation's predictor."""
    import torch
    from kserve import Model

    from segraft.checkpoint import load_model

    class Naive(Model):
        def load(self):
            self.net, self.card = load_model(folder)
            self.ready = True
            return True

        def predict(self, payload, headers=None):
            how = self.card.preprocessing
            with torch.no_grad():
                batch = torch.tensor(payload["instances"]).permute(0, 3, 1, 2) / 255
                batch = (batch - torch.tensor(how.mean)[:, None, None]) / torch.tensor(how.std)[:, None, None]
                out = self.net(batch)
            return {"predictions": (out if logits else out.argmax(1)).tolist()}

    stock(Naive("segraft"), port)


def noop(port: int) -> None:
    """Our server around a runtime that does nothing."""
    from segraft.checkpoint import ClassCard, ModelCard, Preprocessing
    from segraft.params import load_params
    from segraft.serving.logs import configure
    from segraft.serving.model import SegmentationModel
    from segraft.serving.runtime import Prediction
    from segraft.serving.server import Server
    from segraft.serving.stamp import Stamp

    class Zeros:
        name, stride = "zeros", 1
        card = ModelCard(
            arch="unet",
            encoder="resnet18",
            taxonomy="t",
            classes=tuple(ClassCard(name=n, color=(0, 0, 0)) for n in "ab"),
            preprocessing=Preprocessing(mean=(0, 0, 0), std=(1, 1, 1)),
        )

        def predict(self, images, logits=False):
            shape = images.shape[:3]
            scores = np.zeros((shape[0], 2, *shape[1:]), np.float32) if logits else None
            return Prediction(np.zeros(shape, np.uint8), scores)

    configure()
    settings = load_params(Path("params.yaml"), [f"serve.http_port={port}", "serve.grpc_port=0", "serve.drain=0"]).serve
    model = SegmentationModel(settings, Path("/nowhere"), Zeros, Stamp("segraft", "", ""))
    model.load()
    Server(model).run()


def main(kind: str, port: str, folder: str = "") -> None:
    """Run one server until SIGTERM."""
    sys.argv = sys.argv[:1]
    if kind == "stock-noop":
        stock_noop(int(port))
    elif kind == "noop":
        noop(int(port))
    elif kind in ("naive", "naive-logits"):
        naive(int(port), Path(folder), kind == "naive-logits")
    else:
        from segraft.__main__ import main as segraft

        flags = [f"serve.http_port={port}", "serve.grpc_port=0", "serve.drain=0"]
        sys.exit(segraft(["serve", folder, *(part for flag in flags for part in ("-S", flag))]))


if __name__ == "__main__":
    main(*sys.argv[1:])
