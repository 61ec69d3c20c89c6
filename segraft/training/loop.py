"""The training loop: one run from its first step, or its newest checkpoint, to its best weights."""

from __future__ import annotations

import copy
import math
import os
import time
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

from segraft.checkpoint import ModelCard
from segraft.data.loader import Batch, Loader
from segraft.data.packed import PackedDataset
from segraft.device import autocast
from segraft.errors import UserError
from segraft.evaluation.confusion import ConfusionMatrix
from segraft.evaluation.predict import batches, network_input, predict
from segraft.evaluation.scores import miou
from segraft.machine import cores
from segraft.params import Training
from segraft.progress import bar
from segraft.training import STRATEGY
from segraft.training.batchnorm import check_lone_image, reestimate
from segraft.training.checkpoints import Tensors
from segraft.training.cpu import fit_convolutions, give_upsamplings_dense_gradients
from segraft.training.distill import Distillation
from segraft.training.distributed import Store, World
from segraft.training.layers import Layers
from segraft.training.losses import Loss
from segraft.training.monitor import Stop
from segraft.training.optimizers import flat_state, load_flat_state, make_optimizer
from segraft.training.regularise import StartingPoint
from segraft.training.schedules import learning_rate
from segraft.training.selftrain import SelfTraining
from segraft.training.sharding import local, spread
from segraft.training.unused import without_effect

LOG_EVERY = 10
MOST_THREADS = 8
"""Each holds a batch."""
BATCH_NORM_MOMENTUM = 0.1


def _loader_threads(device: torch.device) -> int:
    """Threads that make batches: one beside steps that take the CPU themselves, more to keep up with a GPU."""
    if device.type == "cpu":
        return 1
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes on this machine
    return max(1, min(MOST_THREADS, cores() // (2 * beside)))


@dataclass
class Progress:
    """How far a run is; all that a checkpoint holds besides tensors."""

    step: int = 0
    best_miou: float = -1.0
    best_epoch: int = 0
    stale_epochs: int = 0
    seconds: float = 0.0
    stopped_early: bool = False
    refused: bool = False
    """self-training made the probe set worse, and was stopped"""
    history: list[dict[str, float]] = field(default_factory=list)


class Run:
    """One training run.

    Args:
        model: trained in place, on `device`.
        card: the model's card.
        dataset: the packed dataset; `train` is trained on, `val`, if it has samples, chooses the epoch.
        training: the knobs.
        device: where the model is.
        store: where checkpoints go.
        world: the processes that train together; None: those that the environment names.
        kept: names of the parameters that came from the pretrained model.
        teacher: a network to learn from, in eval mode on the device, and its card.
    """

    def __init__(
        self,
        model: nn.Module,
        card: ModelCard,
        dataset: PackedDataset,
        training: Training,
        device: torch.device,
        store: Store,
        world: World | None = None,
        kept: frozenset[str] = frozenset(),
        teacher: tuple[nn.Module, ModelCard] | None = None,
    ) -> None:
        self.model, self.card, self.training, self.device, self.store = model, card, training, device, store
        self.world = world or World(device)
        if training.batch_norm == "reestimate":
            train = batches(dataset.split("train"), training.batch_size)
            where = next(model.parameters()).device
            reestimate(model, (network_input(card, [s.image for s in samples], where) for samples in train))
        self.averaged = copy.deepcopy(model).requires_grad_(False) if training.ema else model
        self.val = dataset.split("val")
        self.scored = any(self.val.card.class_pixels)
        part = self.world.part_of(training.batch_size)
        threads = _loader_threads(device)
        self.loader = Loader(
            dataset, training.batch_size, training.seed, threads, part, source_share=training.source_share
        )
        if training.epochs and not len(self.loader.split):
            raise UserError(f"{dataset.location}: no train samples to train on")
        self.steps_per_epoch = training.steps_per_epoch or math.ceil(
            len(self.loader) / (training.batch_size * (1 - training.source_share))
        )
        self.total = training.epochs * self.steps_per_epoch
        if not self.world.rank:
            answering = teacher[0] if teacher else None
            for line in without_effect(training, model, kept, self.total, self.scored, answering):
                print(line)
        self.progress = Progress()
        self.best: dict[str, Tensor] = {}
        self._shown: dict[str, str] = {}
        how = card.preprocessing
        self._mean, self._std = (torch.tensor(v, device=device).view(3, 1, 1) * 255 for v in (how.mean, how.std))
        self._autocast = autocast(device, training.precision)
        self._loss = Loss(training, self.loader.card, card.ignore_index, device, dataset.card.coarse)
        self._losses: list[Tensor] = []
        self._clock = time.perf_counter()
        """since when steps, and the waiting for their data, are not yet in `progress.seconds`"""
        self._distillation = Distillation(training.distill, *teacher, model) if teacher else None
        self._self_training: SelfTraining | None = None
        if training.self_train.weight:
            if not self.scored:
                raise UserError(f"self_train: {dataset.location} has no val labels that could show that it does harm")
            bare = Loader(dataset, training.batch_size, training.seed, threads, part, "unlabelled")
            first = part[0] * training.batch_size // part[1]
            self._self_training = SelfTraining(training.self_train, training.seed, bare, card.ignore_index, first)
        self.layers = Layers(model, training, self.total, kept if training.l2_sp else frozenset())
        if self.total and training.batch_size == 1:
            check_lone_image(model, torch.zeros(1, 3, *dataset.card.crop, device=device))
        if self.world.sharded:
            if training.freeze == "gradual":
                raise UserError(f"freeze: gradual: {STRATEGY}=fsdp cannot thaw weights; say ddp, or freeze otherwise")
            networks = [self.model, self.averaged] if training.ema else [self.model]
            self.world.spread(networks, self.layers.groups)
        self._start = StartingPoint(model, training.l2_sp, kept) if training.l2_sp else None
        self._prepare()
        self._forward = self.world.parallel(self.model)

    def _prepare(self) -> None:
        if not self.world.sharded:  # which wants contiguous weights
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                # TensorFlow's encoders come with 0.01: their statistics would trail a run of a few hundred steps.
                module.momentum = BATCH_NORM_MOMENTUM
        if self.device.type == "cpu":
            fit_convolutions(self.model)
            self._loss.take_upsampling(self.model)
        self.optimizer = make_optimizer(self.layers.groups, self.training)

    def fit(self, stop: Stop) -> None:
        """Train to the end; `progress` and `best` then hold the outcome.

        Raises:
            UserError: the loss is no longer a number.
            SystemExit: a signal asked to stop; the state is in a checkpoint.
        """
        self._resume()
        if self.progress.stopped_early:
            return
        with bar(self.total, self.progress.step, "training", "step") as shown:
            self._clock = time.perf_counter()
            for batch in self.loader.batches(self.progress.step, self.total):
                self._step(batch)
                self._after_step(stop)
                shown.set_postfix(self._shown, refresh=False)
                shown.update()
                if self.progress.stopped_early:
                    break

    def _step(self, batch: Batch) -> None:
        progress, training = self.progress, self.training
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(group, progress.step, self.total, self.steps_per_epoch, training)
        self.layers.at(progress.step)
        self.world.own_chance(training.seed + progress.step)
        self.model.train()
        loss, logits, masks = self._labels_loss(batch)
        if (further := self._further_loss(batch, logits, masks)) is not None:
            loss = loss + further
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cpu":
            give_upsamplings_dense_gradients(loss)
        loss.backward()  # type: ignore[no-untyped-call]
        if training.clip_norm:
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), training.clip_norm)
            if not self.world.sharded:
                loss = loss + 0 * norm  # where a gradient is no number, the loss that is judged is none
        self.optimizer.step()
        if self._start:
            self._start.pull(self.optimizer)
        self._average()
        self._losses.append(loss.detach())
        progress.step += 1

    def _labels_loss(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of a batch, the logits that it comes from, and the masks on the device."""
        images = self._normalised(torch.from_numpy(batch.images))
        masks = torch.from_numpy(batch.masks).to(self.device, non_blocking=True).long()
        with self._autocast():
            logits = self._forward(images)
        return self.world.weigh(self._loss(logits, masks), masks, self.card.ignore_index), logits, masks

    def _further_loss(self, batch: Batch, logits: Tensor, masks: Tensor) -> Tensor | None:
        """What the teacher and the unlabelled images add to the labels' loss."""
        progress, terms = self.progress, list[Tensor]()
        if self._distillation:
            images = torch.from_numpy(batch.images).to(self.device)
            terms.append(self._distillation(images, logits, self._autocast))
        begins = self.training.self_train.start * self.steps_per_epoch
        if self._self_training and not progress.refused and progress.step >= begins:
            images = torch.from_numpy(batch.images).to(self.device)
            labelled = (images, masks)
            steps = (progress.step, self.total)
            terms.append(self._self_training(*steps, *labelled, self._normalised, self._student, self._teacher))
        return torch.stack(terms).sum() if terms else None

    def _student(self, images: Tensor) -> Tensor:
        with self._autocast():
            return self._loss.full_size(self._forward(images))

    def _teacher(self, images: Tensor) -> Tensor:
        with self._autocast():
            logits: Tensor = self.averaged.eval()(images)
        return logits

    def _normalised(self, images: Tensor) -> Tensor:
        """(N, 3, h, w) float32, channels_last as it comes, from (N, h, w, 3) uint8."""
        images = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        return images.float().sub_(self._mean).div_(self._std)

    @torch.no_grad()
    def _average(self) -> None:
        """Exponential moving average of weights and BatchNorm statistics, with a short memory at first."""
        if not self.training.ema:
            return
        step = self.progress.step
        decay = min(self.training.ema, (1 + step) / (10 + step))
        now, averaged = self.model.state_dict(), self.averaged.state_dict()
        floating = [name for name, tensor in now.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([local(averaged[n]) for n in floating], [local(now[n]) for n in floating], 1 - decay)

    def _after_step(self, stop: Stop) -> None:
        progress, every = self.progress, self.training.checkpoint_every
        epoch_ends = progress.step % self.steps_per_epoch == 0
        signal = stop.signal if self.world.size == 1 else 0
        if epoch_ends or progress.step % LOG_EVERY == 0:
            self._write_down()
            signal = self.world.largest(stop.signal)  # many processes stop at one step
        if epoch_ends:
            self._end_epoch()
        if signal or epoch_ends or (every and progress.step % every == 0):
            self._save()
            self._clock = time.perf_counter()  # validating and saving are not training
        if signal:
            raise SystemExit(128 + signal)

    def _end_epoch(self) -> None:
        progress = self.progress
        epoch = progress.step // self.steps_per_epoch
        score = self._validate() if self.scored else 0.0
        if self.scored:
            progress.history.append(self._record(val_miou=score))
        if self._self_training and not progress.refused and epoch > self.training.self_train.start:
            self._refuse_harm(score)
        if score > progress.best_miou or not self.scored:
            progress.best_miou, progress.best_epoch, progress.stale_epochs = score, epoch, 0
            self.best = {name: tensor.detach().clone() for name, tensor in self.averaged.state_dict().items()}
        else:
            progress.stale_epochs += 1
        progress.stopped_early = 0 < self.training.patience <= progress.stale_epochs

    def _refuse_harm(self, score: float) -> None:
        """Go back to the best weights and stop self-training if it has made the probe set, val, worse."""
        if score >= self.progress.best_miou - self.training.self_train.tolerance:
            return
        self.progress.refused = True
        self.model.load_state_dict(self.best)
        self.averaged.load_state_dict(self.best)
        print(
            f"self-training is stopped: val mIoU fell from {self.progress.best_miou:.4f} to {score:.4f}; "
            f"training goes on from the weights of epoch {self.progress.best_epoch}, with labels alone"
        )

    def _validate(self) -> float:
        matrix = ConfusionMatrix(len(self.card.classes), self.card.ignore_index)
        self.averaged.eval()
        mine = (self.val[i] for i in range(self.world.rank, len(self.val), self.world.size))
        with self.world.gathered(self.averaged):
            for samples in batches(mine, self.training.batch_size):
                masks = predict(self.averaged, self.card, [sample.image for sample in samples])
                for sample, mask in zip(samples, masks, strict=True):
                    matrix.update(sample.mask, mask)
        return float(miou(self.world.total(torch.from_numpy(matrix.matrix)).cpu().numpy()))

    def _write_down(self) -> None:
        """Add the mean loss since the last record to the history."""
        if not self._losses:
            return
        loss = float(self.world.total(torch.stack(self._losses).mean())) / self.world.size
        if not math.isfinite(loss):
            raise UserError(
                f"the loss is {loss} near step {self.progress.step}: lower lr, or set clip_norm; that was not saved"
            )
        done = len(self._losses) * self.training.batch_size
        now = time.perf_counter()  # a GPU's steps are over, too: their loss is known
        self.progress.seconds += now - self._clock
        self._clock = now
        seconds = self.progress.seconds - self._seconds_written
        self._losses.clear()
        rate = self.optimizer.param_groups[-1]["lr"]
        self.progress.history.append(self._record(loss=loss, lr=rate, images_per_second=done / max(seconds, 1e-9)))

    @property
    def _seconds_written(self) -> float:
        return next((r["seconds"] for r in reversed(self.progress.history) if "loss" in r), 0.0)

    def _record(self, **scalars: float) -> dict[str, float]:
        progress = self.progress
        self._shown |= {name: f"{value:.4g}" for name, value in scalars.items()}
        epoch = progress.step / self.steps_per_epoch
        return {
            "step": progress.step,
            "epoch": round(epoch, 4),
            "time": time.time(),
            "seconds": round(progress.seconds, 3),
            **scalars,
        }

    def _save(self) -> None:
        self._write_down()
        parts: dict[str, Tensors] = {
            "model": self.model.state_dict(),
            "optimizer": flat_state(self.optimizer),
            "chance": {"cpu": torch.get_rng_state()},
        }
        if self.device.type == "cuda":
            parts["chance"] = {**parts["chance"], "cuda": torch.cuda.get_rng_state()}
        if self.training.ema:
            parts["averaged"] = self.averaged.state_dict()
        if self.best:
            parts["best"] = self.best
        self.store.save(self.progress.step, parts, asdict(self.progress))

    def _resume(self) -> None:
        found = self.store.load()
        if found is None:
            return
        parts, state = found
        self.progress = Progress(**state)
        own = self.model.state_dict()
        self.model.load_state_dict(spread(parts["model"], own))
        load_flat_state(self.optimizer, parts["optimizer"])
        torch.set_rng_state(parts["chance"]["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(parts["chance"]["cuda"])
        if self.training.ema:
            self.averaged.load_state_dict(spread(parts["averaged"], own))
        best = spread(parts.get("best", {}), own)
        self.best = {name: tensor.to(self.device) for name, tensor in best.items()}
        print(f"resuming at step {self.progress.step} of {self.total}")
