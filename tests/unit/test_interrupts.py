"""Ctrl-C, delayed."""

from __future__ import annotations

import signal

import pytest

from mdtool.core.interrupts import uninterrupted


def test_an_interrupt_waits_for_the_end_of_a_step():
    steps = []

    def step():
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            steps.append("done")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        step()
    assert steps == ["done"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interrupt_does_not_wait():
    steps = []

    def step():
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            steps.append("done")

    with pytest.raises(KeyboardInterrupt):
        step()
    assert steps == []
