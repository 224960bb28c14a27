"""Distinct numbers."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from variseq.distinct import distinct


@given(
    arrays(
        st.sampled_from([np.int32, np.int64, np.bool_, np.float32]), st.integers(0, 30), elements={"allow_nan": False}
    )
)
def test_distinct_values_are_those_of_numpy(values: np.ndarray) -> None:
    found = distinct(values)
    assert found.dtype == values.dtype
    assert found.tolist() == np.unique(values).tolist()
