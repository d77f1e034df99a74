"""Stages that misbehave, in real sandboxes (docs/security.md)."""

import pytest

pytest.register_assert_rewrite("tests.hostile.cases")  # its failed asserts show values, as those of test files do
