"""A real redis-server of one test."""

from __future__ import annotations

import pytest

from tests.serving.stores.faults_path import FAULTS  # noqa: F401  (puts it on the path)

from redis_server import SERVER, RedisServer  # isort: skip

__all__ = ["SERVER", "RedisServer", "needs_redis"]

needs_redis = pytest.mark.skipif(SERVER is None, reason="neither redis-server nor valkey-server is installed")
