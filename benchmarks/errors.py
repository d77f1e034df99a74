"""Errors that reach a person. Each carries the exit code that the command line ends with."""

from __future__ import annotations


class BenchError(Exception):
    """Something a person can act on: the message says what, where, what was expected and what to do next."""

    exit_code = 1


class WrongUse(BenchError):
    """The request itself is wrong: an unknown name, a bad value, a file that does not parse."""

    exit_code = 2


class EnvironmentCannot(BenchError):
    """The request is fine, but this machine cannot carry it out: no space, no permission, no engine."""

    exit_code = 3


class DataError(WrongUse):
    """Input data that cannot be used; names the file and, where there is one, the line."""
