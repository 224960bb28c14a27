"""What one party adds to the rounds of a network: its trained parameters, its metrics, its losses of calibration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int

from variseq.errors import InputError
from variseq.evaluation.evaluate import EvaluationOptions
from variseq.evaluation.splits import Part
from variseq.federation.shared_network import (
    LARGEST_PARAMETER,
    NUM_SCORES,
    NUM_TRIED,
    VALIDATED,
    WEIGHTS,
    SharedNetwork,
    in_steps,
    parameters_of,
    set_parameters,
)
from variseq.model.network import seeded
from variseq.privacy.private_run import NetworkShare, calibration, mixture_model
from variseq.privacy.release import PairCounts
from variseq.recommend.calibrate import Calibrator
from variseq.recommend.network_model import NetworkEncoder
from variseq.training.proximal import ProximalTerm
from variseq.training.trainer import Trainer, Validation


def plain_part(part: Part) -> Part:
    """The part as every log has it: with one behavior, and without visits."""
    histories = replace(part.histories, behavior=np.zeros_like(part.histories.behavior), visit_gap=None)
    return replace(part, histories=histories)


def trained_sums(
    shared: SharedNetwork, part: Part, party: int, trainer: Trainer | None = None
) -> tuple[Int[np.ndarray, " number"], Trainer | None]:
    """One epoch on the training events of a log: the parameters times their weight, and what comes after them.

    The same log, round and trainer give the same numbers.

    Args:
        shared: The network of all.
        part: The validation part of the log.
        party: The number of the party; its random numbers are its own.
        trainer: That of the round before, with the moments of its optimizer; None: they begin at zero.

    Returns:
        The numbers, and the trainer for the next round.

    Raises:
        InputError: For parameters that are not finite or too large.
        TrainingDivergedError: When the loss is no number.
    """
    histories, scores = part.history().latest(shared.terms.max_user_events), _scores(shared, part)
    if not (histories.lengths >= 2).any():
        return np.concatenate([np.zeros(shared.size - NUM_SCORES, dtype=np.int64), in_steps(scores)]), None
    seed = int(np.random.SeedSequence([shared.config.seed, party, shared.round]).generate_state(1)[0])
    with seeded(seed):
        if trainer is None:
            trainer = Trainer(shared.copy(), histories, None, shared.config.model_copy(update={"seed": seed}))
        torch.manual_seed(seed)
        set_parameters(trainer.network, parameters_of(shared.network))
        if shared.proximal:
            trainer.proximal = ProximalTerm(trainer.network, shared.proximal)
        trainer.progress.beta = shared.beta
        weight = trainer.run_epoch(shared.round)["targets"]
    parameters = parameters_of(trainer.network)
    if not np.abs(parameters).max() <= LARGEST_PARAMETER:
        raise InputError(
            f"A parameter of the network that was trained here is not between ±{LARGEST_PARAMETER:,.0f}. Nothing was "
            "sent. Check the log."
        )
    last = [weight, weight * trainer.progress.beta]
    return in_steps(np.concatenate([weight * parameters, last, scores])), trainer


def validation_sums(shared: SharedNetwork, part: Part) -> Int[np.ndarray, " number"]:
    """The sums of the metrics of the network on the validation events of a log, and how many these are."""
    return in_steps(_scores(shared, part))


def calibration_sums(shared: SharedNetwork, part: Part, counts: PairCounts) -> Int[np.ndarray, " number"]:
    """The sum of −log p of the validation events under each temperature and weight, and how many these are.

    Args:
        shared: The network of all, which was chosen.
        part: The validation part of the log.
        counts: Those of all parties.
    """
    options, network = shared.terms.options(), shared.network.folded()
    if not len(part.queries(shared.config.targets)):
        return np.zeros(NUM_TRIED + 1, dtype=np.int64)
    encoder = NetworkEncoder(network), network.vectors_with_bias, NetworkShare(WEIGHTS[0])
    evaluation = EvaluationOptions(targets=shared.config.targets, exclude_seen=options.exclude_seen)
    calibrator = Calibrator(mixture_model(counts, options, encoder), part, evaluation)
    gates = [calibration(options, counts.chosen_share, NetworkShare(weight)).gate for weight in WEIGHTS]
    losses = calibrator.losses(gates).double()
    return in_steps(np.append(losses.sum(dim=2).numpy().ravel(), losses.shape[2]))


def _scores(shared: SharedNetwork, part: Part) -> Float[np.ndarray, " score"]:
    validation = Validation(part, shared.config)
    queries = len(validation.part.queries(shared.config.targets))
    if not queries or not shared.is_validated:
        return np.zeros(NUM_SCORES)
    found = validation.score(shared.network.folded())
    return np.array([*(queries * found[f"validation_{name}"] for name in VALIDATED), queries])
