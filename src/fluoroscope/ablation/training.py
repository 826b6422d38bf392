"""Train heads that see the same batches in one pass."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from fluoroscope.ablation.bank import HeadBank
from fluoroscope.ablation.members import Batches, Lane, Member, Row, draws, lanes
from fluoroscope.ablation.record import HeadRecord, SharedFeatures
from fluoroscope.build import build_descent
from fluoroscope.diagnostics.keys import START, Window
from fluoroscope.errors import InputError
from fluoroscope.model.centering import CenteredBias
from fluoroscope.model.scores import Predictions, choose_thresholds, score

ROWS = 256  # images per batch of an evaluation


class Pass:
    """Trains members on the same batches; each ends as if trained by itself.

    The members' configurations may differ only in `seed`, `head` and `optimizer`. Heads with equal
    optimizer settings form a bank. The backbone runs once per batch for all heads.

    Args:
        shared: the frozen backbone, data and loss.
        on_batch: called after each training batch.
    """

    def __init__(
        self, members: Sequence[Member], shared: Batches, on_batch: Callable[[], None]
    ) -> None:
        self.members, self.shared, self.on_batch = list(members), shared, on_batch
        self.cfg = members[0].cfg
        self.loader = shared.data.train_dataloader()
        self._center()
        self.lanes = [self._lane(lane) for lane in lanes(members)]
        width = self.members[0].head.dense.in_features
        self.features = SharedFeatures(width, shared.device)

    def run(self) -> None:
        """Train all epochs; afterwards the members hold their results."""
        epochs = self.cfg.trainer.max_epochs
        self._measure_start()
        for epoch in range(epochs):
            self._train(epoch)
            self._validate(epoch, last=epoch + 1 == epochs)
        for member in self.members:
            member.record.close()
            if member.failed is None:
                member.scores["test"] = self._score(member, "test", member.predictions["test"])
                values = {f"test/{key}": value for key, value in member.scores["test"].items()}
                member.log(member.steps, epochs, values)

    def _lane(self, members: list[Member]) -> Lane:
        cfg, bank = members[0].cfg, HeadBank([member.head for member in members])
        bank = bank.to(self.shared.device)
        self.shared.precision.convert_module(bank)
        steps = len(self.loader) * cfg.trainer.max_epochs
        # The backbone is frozen: nn.Identity adds no parameter group.
        optimizer, schedule = build_descent(cfg).bind(nn.Identity(), bank, steps, fused=True)
        diagnostics = cfg.diagnostics
        for index, member in enumerate(members):
            member.record = HeadRecord(
                bank, index, diagnostics.every_n_steps, diagnostics.tolerance
            )
        return Lane(members, bank, optimizer, schedule)

    @torch.no_grad()
    def _center(self) -> None:
        """Center biases on the mean features of the first batches, as `CenteredBias` does."""
        wanting = [member for member in self.members if member.cfg.head.bias_init == "centered"]
        if not wanting:
            return
        count = max(1, CenteredBias().images // self.shared.data.batch_size)
        batches = [self._features(batch) for batch in islice(self.loader, count)]
        mean = torch.cat(batches).double().mean(dim=0)
        for member in wanting:
            member.head.center(mean.to(member.head.dense.weight.device))

    def _features(self, batch: dict[str, Tensor]) -> Tensor:
        image = self.shared.precision.convert_input(batch["image"].to(self.shared.device))
        with torch.no_grad(), self.shared.precision.forward_context():
            return self.shared.backbone(image)  # [B, F]

    @torch.no_grad()
    def _measure_start(self) -> None:
        """The census of the validation images before the first step."""
        for lane in self.lanes:
            lane.bank.eval()
        for member in self.members:
            member.record.window = START
        with isolate_rng():
            self._predict("val", START)
        features = self.features.close(START)
        for member in self.members:
            member.log(0, 0, member.record.end_start(features))

    def _train(self, epoch: int) -> None:
        self.loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for lane in self.lanes:
            lane.bank.train()
        for i, batch in enumerate(self.loader):
            features, target = self._features(batch), batch["target"].to(self.shared.device)
            self.features.update("train", features)
            for lane in self.lanes:
                self._step(lane, features, target, (epoch, i))
            self.on_batch()

    def _step(self, lane: Lane, features: Tensor, target: Tensor, place: tuple[int, int]) -> None:
        step, known = lane.members[0].steps, ~target.isnan().all(dim=1)
        for member in lane.members:
            member.record.begin_step(features, step)
        with self.shared.precision.forward_context():
            z = lane.bank.preactivations(features)
            z.retain_grad()
            logits = lane.bank.logits(z, draws(lane, place))  # [B, M, K]
            count = len(lane.members)
            # The loss is a mean over entries, and every head has the same number of entries.
            loss = self.shared.loss(logits.flatten(0, 1), target.repeat_interleave(count, dim=0))
        (count * loss).backward()
        assert z.grad is not None
        self._update(lane, z.grad, known)
        if (step + 1) % self.cfg.trainer.log_every_n_steps == 0:
            self._log_losses(lane, logits.detach(), target, place[0])
        for member in lane.members:
            member.steps += 1

    def _update(self, lane: Lane, dz: Tensor, known: Tensor) -> None:
        clip, records = self.cfg.trainer.gradient_clip_val, [m.record for m in lane.members]
        if clip or records[0].logged:
            lane.bank.tie_gradients()
        for record in records:
            record.before_update(dz, known)
        if clip:
            for member in lane.members:
                nn.utils.clip_grad_norm_(member.head.parameters(), clip)
        lane.optimizer.step()
        lane.schedule.step()
        for member in lane.members:
            if values := member.record.after_update():
                member.log(member.steps, member.epochs, values)
        lane.optimizer.zero_grad()
        for member in lane.members:
            member.head.zero_grad()

    @torch.no_grad()
    def _log_losses(self, lane: Lane, logits: Tensor, target: Tensor, epoch: int) -> None:
        losses = [self.shared.loss(logits[:, m], target) for m in range(len(lane.members))]
        for member, loss in zip(lane.members, torch.stack(losses).tolist(), strict=True):
            member.log(member.steps, epoch, {"train/loss": loss})

    @torch.no_grad()
    def _validate(self, epoch: int, last: bool) -> None:
        for lane in self.lanes:
            lane.bank.eval()
        for member in self.members:
            member.record.begin_validation(last)
        predictions = self._predict("val", "val")
        features = self.features.end_epoch()
        for member in self.members:
            member.epochs = epoch + 1
            values = member.record.end_epoch(features)
            if member.failed is None:
                values |= self._judge(member, predictions[id(member)])
            member.log(member.steps - 1, epoch, values)
        improved = [m for m in self.members if m.best_epoch == epoch]
        if improved:
            predictions = self._predict("test")
            for member in improved:
                member.predictions["test"] = predictions[id(member)]

    def _judge(self, member: Member, predictions: Predictions) -> Row:
        """Score a validation; keep the scores and predictions if it is the best so far."""
        if not predictions.logits.isfinite().all():
            member.failed = InputError(
                f"training diverged: the val logits are not finite in epoch {member.epochs}; lower "
                "optimizer.lr or set trainer.gradient_clip_val"
            )
            return {}
        thresholds = choose_thresholds(predictions.probability, predictions.target)
        before, member.thresholds = member.thresholds, thresholds
        scores = self._score(member, "val", predictions)
        auroc = scores["auroc"]
        if member.best_epoch < 0 or auroc > member.best_auroc:
            member.best_epoch = member.epochs - 1
            member.best_auroc = -math.inf if math.isnan(auroc) else auroc
            member.scores["val"], member.predictions["val"] = scores, predictions
        else:
            member.thresholds = before
        return {f"val/{key}": value for key, value in scores.items()}

    def _score(self, member: Member, split: str, whole: Predictions) -> dict[str, float]:
        labels = self.shared.data.labels
        given = whole.probability, whole.target, member.thresholds, labels
        values = score(*given, self.shared.own_scores)
        device = self.shared.device
        values["loss"] = float(self.shared.loss(whole.logits.to(device), whole.target.to(device)))
        return values

    def _predict(self, split: str, window: Window | None = None) -> dict[int, Predictions]:
        """Predictions of each member on a split, by the member's `id`.

        Args:
            window: to which its features belong, if to any.
        """
        index, target, logits = [], [], []
        for batch in self._several(self.shared.data.evaluation_dataloader(split)):
            if window is not None:
                self.features.update(window, batch["features"])
            with self.shared.precision.forward_context():
                outs = [lane.bank(batch["features"]) for lane in self.lanes]
            logits.append(torch.cat(outs, dim=1).float().cpu())  # [B, members, K]
            index.append(batch["index"])
            target.append(batch["target"])
        rows = torch.cat(index)
        order = rows.argsort()
        whole, truth = torch.cat(logits)[order], torch.cat(target)[order]
        members = [member for lane in self.lanes for member in lane.members]
        return {
            id(member): Predictions(rows[order], whole[:, m], truth)
            for m, member in enumerate(members)
        }

    def _several(self, loader: Iterable[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
        """Evaluation batches with features, joined to `ROWS` images or more to save time."""
        waiting: list[dict[str, Tensor]] = []
        for batch in loader:
            waiting.append({**batch, "features": self._features(batch)})
            if sum(len(b["index"]) for b in waiting) >= ROWS:
                yield _joined(waiting)
                waiting = []
        if waiting:
            yield _joined(waiting)


def _joined(batches: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {key: torch.cat([b[key] for b in batches]) for key in ("features", "index", "target")}
