"""Seconds of a piece of work, as long as the device takes."""

import time

import torch


class Clock:
    """Runs from when it is made.

    `busy` counts the processor's time where one thread does all the work: what runs beside it on a
    shared machine does not count then, so that two ways of doing the same can be compared.
    """

    def __init__(self, device: str, *, busy: bool = False) -> None:
        self._device = device
        alone = busy and device == "cpu" and torch.get_num_threads() == 1
        self._now = time.process_time if alone else time.perf_counter
        self._wait()
        self._began = self._now()

    def seconds(self) -> float:
        """Since then; what a GPU was given is awaited."""
        self._wait()
        return self._now() - self._began

    def _wait(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()
