"""The number of usable cores, and the limit of BLAS to one thread."""

import os
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from pipelines.config.cpu import single_threaded_products, usable_cores


@pytest.mark.parametrize(("quota", "cores"), [("150000 100000", 2), ("50000 100000", 1), ("9900000 100000", None)])
def test_usable_cores_are_bounded_by_the_containers_quota(quota: str, cores: int | None, tmp_path: Path):
    file = tmp_path / "cpu.max"
    file.write_text(f"{quota}\n")
    own = len(os.sched_getaffinity(0))
    assert usable_cores(file) == min(own, cores or own)


@pytest.mark.parametrize("quota", ["max 100000\n", "", None])
def test_usable_cores_without_a_quota_are_those_of_the_process(quota: str | None, tmp_path: Path):
    file = tmp_path / "cpu.max"
    if quota is not None:
        file.write_text(quota)
    assert usable_cores(file) == len(os.sched_getaffinity(0))


def threads() -> set[int]:
    np.ones((2, 2)) @ np.ones((2, 2))
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_single_threaded_products_until_the_last_who_asked_is_done():
    with threadpool_limits(3, user_api="blas"):
        first, second = single_threaded_products(), single_threaded_products()
        first.__enter__()
        assert threads() == {1}
        second.__enter__()
        first.__exit__(None, None, None)
        assert threads() == {1}
        second.__exit__(None, None, None)
        assert threads() == {3}
        with pytest.raises(ValueError, match="broken"), single_threaded_products():
            raise ValueError("broken")
        assert threads() == {3}
