"""Private training of fewer steps than users get, as each costs a third of a second here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from variseq.privacy.schedule import StepSchedule

FEW_STEPS = 8


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> int:
    of_users = StepSchedule.of_users
    monkeypatch.setattr(StepSchedule, "of_users", lambda *given: replace(of_users(*given), num_steps=FEW_STEPS))
    return FEW_STEPS
