"""Hostile stages in every sandbox."""

import pytest

pytest.register_assert_rewrite("tests.hostile.cases")  # its failed asserts show values, as those of test files do
