"""Everything that Variseq itself raises or warns about, drawn as one tree.

Exception
└── VariseqError              anything that Variseq raises on purpose
    ├── InputError            a user's mistake: what came, what is allowed, what to do (exit code 2)
    │   └── CheckpointError   a run folder that cannot be read
    ├── TrainingDivergedError       training cannot go on (a loss that is not a number)
    └── MissingDependencyError          an optional library is not installed; the message has the command
UserWarning
└── PosteriorCollapseWarning           the latent is not used (posterior collapse)
"""


class VariseqError(Exception):
    """Anything that Variseq raises on purpose."""


class InputError(VariseqError, ValueError):
    """A user's mistake. The message says what came, what is allowed and what to do."""


class CheckpointError(InputError):
    """A run folder that is missing, damaged or of a version this release cannot read."""


class TrainingDivergedError(VariseqError, RuntimeError):
    """Training cannot go on; the message names the batch and the last good checkpoint."""


class MissingDependencyError(VariseqError, ImportError):
    """An optional library is missing."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(
            f"{library} is not installed, and this step needs it. Install it with: pip install 'variseq[{extra}]'"
        )


class PosteriorCollapseWarning(UserWarning):
    """The latent variables carry (almost) no information about the history."""
