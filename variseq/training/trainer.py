"""The training loop: batches, validation, the best epoch, and exact resumption after an interrupt."""

from __future__ import annotations

import copy
import math
import signal
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from variseq.distinct import distinct
from variseq.errors import InputError, TrainingDivergedError
from variseq.evaluation.evaluate import EvaluationOptions, evaluate
from variseq.evaluation.splits import Part
from variseq.evaluation.user_sample import sampled_users, with_targets_of
from variseq.model.losses import ItemFrequency
from variseq.model.network import ITEM_TABLES, Counts, Network, NetworkConfig, Objective, Weights, objective_with
from variseq.model.optimizers import AdamW
from variseq.model.posterior import NetworkScorer
from variseq.model.processes import add_gradients, gathered, num_processes, process_index, totals
from variseq.ranking.calibration import repeat_share
from variseq.sequences.batches import Batch, Windows, group_by_length, make_batch, training_windows
from variseq.sequences.histories import Histories
from variseq.training.callbacks import TrainingCallback
from variseq.training.config import TrainingConfig
from variseq.training.lazy_adamw import BETAS, EPSILON, LazyAdamW
from variseq.training.posterior_health import examine
from variseq.training.proximal import ProximalTerm
from variseq.training.schedule import adapted_beta, learning_rate, noise_share, seconds_left
from variseq.training.state import (
    Progress,
    load_network,
    load_optimizer,
    load_state,
    network_tensors,
    optimizer_tensors,
    save_state,
)

STATE = "state.safetensors"
SEEDS_OF_PROCESSES = 1_000_033
"""Between the seeds of processes."""
GRACE_EPOCHS = 3
"""Alarms are not raised before this epoch: a network that has hardly learned looks collapsed."""


class Interrupt:
    """While entered, the first SIGINT only sets `requested`; a second one interrupts at once.

    A step that is cut in half could not be resumed to the same result. Outside the main thread signals are not handled.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: Any = None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


class Validation:
    """The queries that choose the best epoch: the validation part, or those of a fixed sample of its users."""

    def __init__(self, part: Part, config: TrainingConfig) -> None:
        self.part = sampled_users(part, config.targets, config.validation_users)
        self.options = EvaluationOptions(
            k=min(10, part.num_items),
            exclude_seen=config.exclude_seen,
            targets=config.targets,
            # Counted once, and not in each epoch.
            repeat_share=repeat_share(part.history()),
        )

    def diagnostic_histories(self) -> Histories:
        """The histories of the queries with their targets, on which the posterior is examined.

        All histories are taken where fewer than two have a query, as posteriors are swapped between histories.
        """
        part = self.part
        queried = np.flatnonzero(part.target_end > part.history_end)
        rows = queried if len(queried) >= 2 else np.arange(len(part.target_end))
        return part.histories.select(part.histories.offsets[rows], part.target_end[rows])

    def score(self, network: Network) -> dict[str, float]:
        """Mean NDCG and recall at 10, and −log p in nats, of a network that ranks by the posterior mean.

        The users are dealt to the processes.
        """
        was_training, names = network.training, ("ndcg", "recall", "nll")
        users = distinct(self.part.queries(self.options.targets).user)
        own = users[process_index() :: num_processes()]
        sums, num_queries = [0.0] * len(names), 0
        if len(own):
            part = self.part if len(own) == len(users) else with_targets_of(self.part, own)
            result = evaluate(NetworkScorer(network), part, self.options)
            metrics = [result.metric(name) for name in names]
            sums, num_queries = [float(metric.sum()) for metric in metrics], len(metrics[0])
        network.train(was_training)
        *sums, total = totals([*sums, float(num_queries)], network.item_bias.device)
        return {f"validation_{name}": value / total for name, value in zip(names, sums, strict=True)}


def epoch_plan(
    histories: Histories, network: NetworkConfig, config: TrainingConfig, epoch: int
) -> tuple[Windows, list[Any]]:
    """The windows and batches of an epoch; the same for the same seed and epoch.

    Raises InputError where there are more processes than windows.
    """
    generator = np.random.default_rng([config.seed, epoch])
    windows = training_windows(histories, network.max_seq_len, generator)
    groups = group_by_length(windows.lengths, config.batch_tokens, generator.permutation(len(windows.first)))
    groups = of_each_process(groups, num_processes())
    return windows, [groups[index] for index in generator.permutation(len(groups))]


def of_each_process(groups: list[np.ndarray], number: int) -> list[np.ndarray]:
    """Batches with a window for each process: smaller ones are joined with the next.

    >>> [len(group) for group in of_each_process([np.arange(3), np.arange(1), np.arange(1), np.arange(1)], 2)]
    [3, 3]
    """
    if number == 1:
        return groups
    found: list[np.ndarray] = []
    for group in groups:
        if found and len(found[-1]) < number:
            found[-1] = np.concatenate([found[-1], group])
        else:
            found.append(group)
    if len(found) > 1 and len(found[-1]) < number:
        found[-2:] = [np.concatenate(found[-2:])]
    if len(found[-1]) < number:
        raise InputError(
            f"The log has {len(found[-1])} windows to train on, and there are {number} processes. Start fewer of them."
        )
    return found


def item_frequency(histories: Histories, network: Network, config: TrainingConfig) -> ItemFrequency | None:
    """Each item is drawn as a negative by its events and one more. None where the softmax is over all items."""
    num_items = network.config.num_items
    if num_items <= config.full_softmax_max_items:
        return None
    count = np.bincount(histories.item, minlength=num_items) + 1.0
    log_share = torch.from_numpy(np.log(count / count.sum())).float()
    return ItemFrequency.of(log_share.to(network.item_bias.device))


def seed_of_step(seed: int, step: int) -> int:
    """The seed of what is drawn in a step, alike in all processes."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0])


def gradient_step(
    parameters: Iterable[Tensor], optimizer: torch.optim.Optimizer, loss: Tensor, max_grad_norm: float
) -> None:
    """Backward, add the gradients of all processes, clip, update."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = list(parameters)
    add_gradients(parameters)
    nn.utils.clip_grad_norm_(parameters, max_grad_norm)
    optimizer.step()


def weight_decays(network: Network, config: TrainingConfig) -> dict[str, float]:
    """Decay of matrices, and of the items' own vectors what is set for them; biases and gains are left alone."""
    decay_of = {
        name: config.weight_decay if parameter.ndim > 1 and not name.startswith("embedding.") else 0.0
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    }
    return decay_of | {"embedding.item": config.item_weight_decay}


def build_optimizer(network: Network, config: TrainingConfig, without: Collection[str] = ()) -> torch.optim.Optimizer:
    """AdamW of all parameters but those whose names are in `without`."""
    parameters, decay_of = dict(network.named_parameters()), weight_decays(network, config)
    of_decay: dict[float, list[nn.Parameter]] = {}
    for name, decay in decay_of.items():
        if name not in without:
            of_decay.setdefault(decay, []).append(parameters[name])
    groups = [{"params": members, "weight_decay": decay} for decay, members in of_decay.items()]
    return AdamW(groups, lr=config.learning_rate, betas=BETAS, eps=EPSILON, fused=True)


class Trainer:
    """Trains until the epochs are over or validation stops improving; the best weights end up in `network`.

    `network` is trained; `averaged`, a moving average of it, is validated, and the weights of the best epoch are kept
    (without `validation` those of the last). With a `folder`, the state is written there after each epoch and at
    Ctrl-C; a trainer that finds a state there goes on from it, and ends with the same bits. `epochs_later` counts the
    epochs of refits that follow, so that the time left is that of the whole.
    """

    def __init__(
        self,
        network: Network,
        histories: Histories,
        validation: Validation | None,
        config: TrainingConfig,
        folder: Path | None = None,
        epochs_later: int = 0,
    ) -> None:
        self.network, self.histories, self.validation = network, histories, validation
        self.config, self.folder, self.epochs_later = config, folder, epochs_later
        self.averaged = copy.deepcopy(network)
        self.best: dict[str, Tensor] = network_tensors("best", network)
        self.progress = Progress(beta=config.beta)
        self.proximal: ProximalTerm | None = None
        self.frequency = item_frequency(histories, network, config)
        # With negatives a step touches a few rows of what there is of each item.
        self.items = (
            None if self.frequency is None else LazyAdamW(network, self.averaged, weight_decays(network, config))
        )
        lazy = () if self.items is None else ITEM_TABLES
        self.optimizer = build_optimizer(network, config, lazy)
        # What `items` does not move, and its average.
        self._others: list[Tensor] = [one for name, one in network.named_parameters() if name not in lazy]
        self._averages: list[Tensor] = [one for name, one in self.averaged.named_parameters() if name not in lazy]
        self.num_steps = 1
        self.records: list[dict[str, Any]] = []
        # Each process has noise of its own.
        torch.manual_seed(config.seed + process_index() * SEEDS_OF_PROCESSES)
        if folder is not None and (folder / STATE).exists():
            self._resume(folder / STATE)

    def _resume(self, state: Path) -> None:
        self.progress, tensors = load_state(state)
        load_network("network", self.network, tensors)
        load_network("averaged", self.averaged, tensors)
        load_optimizer(self.optimizer, tensors)
        if self.items is not None:
            self.items.load(tensors)
        self.best = {name: tensor for name, tensor in tensors.items() if name.startswith("best.")}
        number = sum(name.startswith("random.") for name in tensors)
        if number != num_processes():
            raise InputError(
                f"The unfinished run in {state.parent} was trained by {number} processes, and now there are "
                f"{num_processes()}. Resume it with --nproc-per-node {number}, or remove the folder and start again."
            )
        torch.set_rng_state(tensors[f"random.{process_index()}"])

    def save(self) -> None:
        """Write the state, if there is a folder."""
        states = gathered(torch.get_rng_state(), self.network.item_bias.device)
        if self.folder is None or process_index() > 0:
            return
        tensors = network_tensors("network", self.network) | network_tensors("averaged", self.averaged)
        tensors |= optimizer_tensors(self.optimizer) | self.best
        tensors |= {f"random.{index}": state for index, state in enumerate(states)}
        tensors |= {} if self.items is None else self.items.tensors()
        self.folder.mkdir(parents=True, exist_ok=True)
        save_state(self.folder / STATE, self.progress, tensors)

    def run(self, callbacks: Sequence[TrainingCallback] = ()) -> None:
        """Train to the end. KeyboardInterrupt comes after the running step, with the state saved."""
        with Interrupt() as interrupt:
            try:
                for callback in callbacks:
                    callback.on_begin(self.config.max_epochs)
                while not self.is_finished:
                    self._epoch(callbacks, interrupt)
            finally:
                for callback in callbacks:
                    callback.on_end(self.is_finished)
        load_network("best", self.network, self.best)

    @property
    def is_finished(self) -> bool:
        """Out of epochs, or out of patience, which begins with the first epoch that may be chosen."""
        config, last_better = self.config, self.progress.best_epoch
        if config.chooses_noise:
            # What noise is worth is not known before the first epoch that has it wholly.
            begins = math.ceil((config.deterministic_fraction + config.kl_anneal_fraction) * config.max_epochs)
            last_better = max(last_better, begins - 1)
        waited = self.progress.epoch - 1 - last_better
        out_of_patience = self.progress.best_epoch >= 0 and waited >= self.config.patience
        return self.progress.epoch >= self.config.max_epochs or out_of_patience

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """Train as in one epoch of the schedule alone, without validation; the sums of its losses, tokens and targets.

        KeyboardInterrupt comes after the running step.
        """
        progress = self.progress
        if not progress.step:
            # A trainer that goes on counts its own steps, which its moments belong to.
            _, groups = epoch_plan(self.histories, self.network.config, self.config, epoch)
            progress.step = epoch * len(groups)
        progress.epoch = epoch
        progress.batch, progress.seconds, progress.sums = 0, 0.0, {}
        with Interrupt() as interrupt:
            self._train_epoch((), interrupt)
            self._stop_if_requested(interrupt)
        self._check_weights()
        return self.progress.sums

    def _epoch(self, callbacks: Sequence[TrainingCallback], interrupt: Interrupt) -> None:
        # An epoch that was interrupted has also cost what its batches took.
        begun = time.perf_counter() - self.progress.seconds
        self._train_epoch(callbacks, interrupt)
        self._check_weights()
        record = self._close_epoch()
        self.progress.total_seconds += time.perf_counter() - begun
        self.records.append(record)
        for callback in callbacks:
            callback.on_epoch(record)
        self.save()
        self._stop_if_requested(interrupt)

    def _train_epoch(self, callbacks: Sequence[TrainingCallback], interrupt: Interrupt) -> None:
        """The batches of the epoch that are still to be done."""
        windows, groups = epoch_plan(self.histories, self.network.config, self.config, self.progress.epoch)
        self.num_steps = len(groups) * self.config.max_epochs
        if self.items is not None:
            rate = partial(learning_rate, self.config, num_steps=self.num_steps)
            self.items.plan(self.progress.step - self.progress.batch, len(groups), rate, self._average_decay)
        self.network.train()
        for index in range(self.progress.batch, len(groups)):
            begun = time.perf_counter()
            whole = make_batch(self.histories, windows, groups[index], self.network.config.num_items)
            self._train_batch(whole, self._own_part(whole, windows, groups[index]))
            self.progress.batch = index + 1
            self.progress.seconds += time.perf_counter() - begun
            done, speed = (index + 1) / len(groups), self.progress.sums["tokens"] / max(self.progress.seconds, 1e-9)
            for callback in callbacks:
                callback.on_batch(self.progress.epoch, done, speed, self._seconds_left(done))
            if index + 1 < len(groups):
                self._stop_if_requested(interrupt)
        if self.items is not None:
            self.items.finish(self.progress.step)

    def _own_part(self, whole: Batch, windows: Windows, group: Any) -> Batch:
        """Of the windows of a batch those of this process, which the processes take in turn."""
        if num_processes() == 1:
            return whole
        own = group[process_index() :: num_processes()]
        return make_batch(self.histories, windows, own, self.network.config.num_items)

    def _train_batch(self, whole: Batch, batch: Batch) -> None:
        """One step on a batch, of which this process computes its own part."""
        progress, network, device = self.progress, self.network, self.network.item_bias.device
        config, share = self.config, noise_share(self.config, progress.step / self.num_steps)
        weights = Weights(
            beta=progress.beta * share,
            free_nats=config.free_nats,
            regression=config.value_loss_weight,
            noise=share,
            num_samples=config.num_samples,
            skip_gram=config.skip_gram_weight,
            mask_seen=config.masks_seen,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, progress.step, self.num_steps)
        counts = None if batch is whole else Counts.of(whole)
        batch = batch.to(device)
        if self.frequency is None or self.items is None:
            objective = self._held(network.objective(batch, weights, None, counts))
            nll, kl, regression = self._move(objective, self._others)
        else:
            negatives = self.frequency.draw(config.num_negatives, seed_of_step(config.seed, progress.step))
            of_batch = batch if counts is None else whole.to(device)
            rows = of_batch.rows(negatives.items, start=network.config.num_items)
            taken = self.items.take(rows, progress.step)
            tensors, of_rows = network.of_rows(rows) | taken, negatives.among(rows)
            objective = objective_with(network, tensors, batch.among(rows), weights, of_rows, counts)
            objective = self._held(objective, taken, rows)
            nll, kl, regression = self._move(objective, [*self._others, *taken.values()])
            self.items.step(rows, {name: one.grad for name, one in taken.items()}, progress.step)
        self._average_weights()
        if share > 0:
            progress.beta = adapted_beta(progress.beta, kl, config.kl_target)
        progress.step += 1
        added = {
            "nll": nll * whole.num_targets,
            "kl": kl * whole.num_tokens,
            "regression": regression * whole.num_targets,
            "tokens": whole.num_tokens,
            "targets": whole.num_targets,
        }
        for name, value in added.items():
            progress.sums[name] = progress.sums.get(name, 0.0) + value

    def _held(self, objective: Objective, taken: dict[str, Tensor] | None = None, rows: Any = None) -> Objective:
        """The objective with the proximal term, where there is one."""
        if self.proximal is None:
            return objective
        return replace(objective, loss=objective.loss + self.proximal.penalty(self.network, taken, rows))

    def _move(self, objective: Objective, parameters: Iterable[Tensor]) -> list[float]:
        """Update the parameters; NLL, KL and regression of the whole batch."""
        terms = (objective.loss.detach(), objective.nll, objective.kl, objective.regression)
        loss, *of_terms = totals([float(term) for term in terms], self.network.item_bias.device)
        if not math.isfinite(loss):
            nll, kl, regression = of_terms
            self._stop(
                f"The loss is {loss} in epoch {self.progress.epoch + 1}, batch {self.progress.batch + 1} "
                f"(NLL {nll:.4g}, KL {kl:.4g}, regression {regression:.4g})."
            )
        # Members of an ensemble have gradients of their own, whose norms are those of networks alone.
        max_norm = self.config.max_grad_norm * math.sqrt(self.network.config.num_members)
        gradient_step(parameters, self.optimizer, objective.loss, max_norm)
        return of_terms

    def _check_weights(self) -> None:
        # No loss follows the last update of an epoch, so broken weights would go unnoticed.
        if not all(bool(parameter.isfinite().all()) for parameter in self.network.parameters()):
            self._stop(
                f"The weights are not finite after epoch {self.progress.epoch + 1}, batch {self.progress.batch}."
            )

    def _stop(self, what: str) -> NoReturn:
        has_state = self.folder is not None and self.progress.epoch > 0
        saved = f" The state after epoch {self.progress.epoch} is in {self.folder}." if has_state else ""
        raise TrainingDivergedError(f"{what} Lower training.learning_rate, or check the values of the log.{saved}")

    def _average_decay(self, step: int) -> float:
        # The decay grows from 0.1, so that the untrained weights soon have no part in the average.
        return min(self.config.ema_decay, (1 + step) / (10 + step)) if self.config.ema_decay else 0.0

    @torch.no_grad()
    def _average_weights(self) -> None:
        torch._foreach_lerp_(self._averages, self._others, 1 - self._average_decay(self.progress.step))

    def _close_epoch(self) -> dict[str, Any]:
        """The record of the epoch, with its validation metrics; keeps the weights of the best epoch."""
        progress, sums = self.progress, dict(self.progress.sums)
        tokens, targets = sums.pop("tokens"), sums.pop("targets")
        share = noise_share(self.config, progress.step / self.num_steps)
        record = {
            "epoch": progress.epoch,
            "seconds": progress.seconds,
            "tokens_per_second": tokens / max(progress.seconds, 1e-9),
            "seconds_left": self._seconds_left(1.0),
            "learning_rate": learning_rate(self.config, progress.step, self.num_steps),
            "noise": share,
            "beta": progress.beta * share,
            **{name: total / (tokens if name == "kl" else targets) for name, total in sums.items()},
        }
        if self.validation is None:
            self.best = network_tensors("best", self.averaged)
        else:
            record |= self._validate(self.validation, share)
        progress.epoch, progress.batch, progress.seconds, progress.sums = progress.epoch + 1, 0, 0.0, {}
        return record

    def _validate(self, validation: Validation, share: float) -> dict[str, Any]:
        """Validation metrics and the health of the posterior; keeps the weights where they are the best."""
        progress, network = self.progress, self.averaged.folded()
        score = validation.score(network)
        health = examine(network, validation.diagnostic_histories(), self.config.seed, self.config.masks_seen)
        # σ is trained only under full noise, so earlier epochs are not chosen, except in a run without noise and where
        # validation chooses between the two. The last epoch may be chosen in any case.
        is_last = progress.epoch + 1 == self.config.max_epochs
        may_be_without = self.config.deterministic_fraction >= 1 or (self.config.chooses_noise and not share)
        eligible = share >= 1 or may_be_without or is_last
        is_best = eligible and score["validation_ndcg"] > progress.best_metric
        if is_best:
            progress.best_metric, progress.best_epoch = score["validation_ndcg"], progress.epoch
            self.best = network_tensors("best", self.averaged)
        return {
            **score,
            "health": asdict(health),
            "alarms": health.alarms if progress.epoch + 1 >= min(GRACE_EPOCHS, self.config.max_epochs) else [],
            "is_best": is_best,
        }

    def _seconds_left(self, done: float) -> float:
        progress = self.progress
        return seconds_left(self.config, progress.epoch, done, progress.seconds, self.epochs_later)

    def _stop_if_requested(self, interrupt: Interrupt) -> None:
        if totals([float(interrupt.requested)], self.network.item_bias.device)[0]:
            self.save()
            raise KeyboardInterrupt
