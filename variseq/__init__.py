"""Variseq: from an event log to recommendations, with a variational attention model that says how sure it is."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from variseq.threads import compute_alone_after_fork, prepare_threads

if TYPE_CHECKING:
    from variseq.errors import (
        CheckpointError,
        InputError,
        MissingDependencyError,
        PosteriorCollapseWarning,
        TrainingDivergedError,
        VariseqError,
    )
    from variseq.estimator import VariationalAttention, compare, load
    from variseq.events.options import ReadOptions
    from variseq.events.simulate import SimulationOptions, simulate
    from variseq.log import read
    from variseq.privacy.release import PrivacyOptions
    from variseq.private_model import PrivateModel
    from variseq.training.callbacks import TrainingCallback

_MODULES = {
    "CheckpointError": "variseq.errors",
    "PosteriorCollapseWarning": "variseq.errors",
    "InputError": "variseq.errors",
    "MissingDependencyError": "variseq.errors",
    "PrivacyOptions": "variseq.privacy.release",
    "PrivateModel": "variseq.private_model",
    "ReadOptions": "variseq.events.options",
    "RecommendOptions": "variseq.ranking.options",
    "Recommendations": "variseq.ranking.recommendations",
    "SimulationOptions": "variseq.events.simulate",
    "TrainingCallback": "variseq.training.callbacks",
    "TrainingDivergedError": "variseq.errors",
    "VariationalAttention": "variseq.estimator",
    "VariseqError": "variseq.errors",
    "compare": "variseq.estimator",
    "load": "variseq.estimator",
    "read": "variseq.log",
    "simulate": "variseq.events.simulate",
}

__all__ = [
    "CheckpointError",
    "InputError",
    "MissingDependencyError",
    "PosteriorCollapseWarning",
    "PrivacyOptions",
    "PrivateModel",
    "ReadOptions",
    "RecommendOptions",
    "Recommendations",
    "SimulationOptions",
    "TrainingCallback",
    "TrainingDivergedError",
    "VariationalAttention",
    "VariseqError",
    "compare",
    "load",
    "read",
    "simulate",
]


# OpenMP reads these when torch is imported, which each part of the package may be the first to do.
prepare_threads()
compute_alone_after_fork()


def __getattr__(name: str) -> Any:
    # Names are imported when first asked for, so that `import variseq` does not wait for torch.
    if name not in _MODULES:
        raise AttributeError(f"module 'variseq' has no attribute {name!r}")
    try:
        return getattr(import_module(_MODULES[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from variseq.errors import MissingDependencyError

        raise MissingDependencyError("torch", "train") from error


def __dir__() -> list[str]:
    return __all__
