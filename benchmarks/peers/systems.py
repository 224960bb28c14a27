"""The systems of the bench: which script, in which environment, with what settings on which data."""

from __future__ import annotations

from dataclasses import dataclass

from measure import Settings


@dataclass(frozen=True)
class Environment:
    """Packages of a rival; `first` is installed before the rest, so that pip looks for no other build of it."""

    name: str
    first: tuple[str, ...]
    packages: tuple[str, ...]


TORCH = ("setuptools", "torch==2.13.0")
RECTOOLS = Environment("rectools", TORCH, ("rectools[torch]==0.19.0", "torch==2.13.0"))
REPLAY = Environment("replay", TORCH, ("replay-rec[torch]==0.22.0", "torch==2.13.0"))
# Without the three bounds it installs, and fails when it is imported.
RECBOLE = Environment("recbole", TORCH, ("recbole==1.2.1", "setuptools<81", "numpy<2", "pandas<3", "torch==2.13.0"))
IMPLICIT = Environment("implicit", (), ("implicit==0.7.3",))


@dataclass(frozen=True)
class SystemEntry:
    """One row of the table. `environment` is None for what runs in the project's own.

    `rows_are_prefixes`: its rows are all prefixes of the users, where those of others are the users.
    """

    name: str
    script: str
    variant: str
    environment: Environment | None = None
    rows_are_prefixes: bool = False
    has_epochs: bool = True
    """False for what is fitted once, whose cost of training is next to nothing."""

    def settings(self, data: str, cpu_minutes: float, only_cost: bool, seed: int) -> Settings:
        """Width, blocks and learning rate are the same for all; dropout is what the literature settled on."""
        return Settings(
            variant=self.variant,
            max_seq_len=MAX_LENGTH[data],
            dropout=DROPOUT[data],
            batch_rows=(PREFIXES_PER_BATCH if self.rows_are_prefixes else USERS_PER_BATCH)[data],
            cpu_minutes=cpu_minutes,
            only_cost=only_cost,
            seed=seed,
        )


MAX_LENGTH = {"ml-100k": 50, "amazon-beauty": 50, "ml-1m": 200}
DROPOUT = {"ml-100k": 0.2, "amazon-beauty": 0.5, "ml-1m": 0.2}
"""0.2: default of RecTools and RePlay, and advised for MovieLens by RecBole's authors; 0.5: SASRec's on Amazon."""

USERS_PER_BATCH = {"ml-100k": 32, "amazon-beauty": 128, "ml-1m": 128}
"""128 is usual; the 943 users of MovieLens-100K would then make 8 steps an epoch: 32 learns as well in less time."""
PREFIXES_PER_BATCH = {"ml-100k": 512, "amazon-beauty": 512, "ml-1m": 128}
"""On MovieLens-1M, whose rows are four times as long, 512 would hold 9 GB."""

OURS = "variseq"
SYSTEMS = (
    SystemEntry(OURS, "variseq_model.py", "small"),
    SystemEntry("rectools-sasrec", "rectools_sasrec.py", "sasrec", RECTOOLS),
    SystemEntry("rectools-esasrec", "rectools_sasrec.py", "esasrec", RECTOOLS),
    SystemEntry("replay-sasrec", "replay_sasrec.py", "sasrec", REPLAY),
    SystemEntry("recbole-sasrec", "recbole_sasrec.py", "sasrec", RECBOLE, rows_are_prefixes=True),
    SystemEntry("implicit-als", "implicit_models.py", "als", IMPLICIT, has_epochs=False),
    SystemEntry("implicit-bm25", "implicit_models.py", "bm25", IMPLICIT, has_epochs=False),
    SystemEntry("popular", "yardsticks.py", "popular", has_epochs=False),
    SystemEntry("last-item-transitions", "yardsticks.py", "last-item-transitions", has_epochs=False),
    SystemEntry("item-knn", "yardsticks.py", "item-knn", has_epochs=False),
)
