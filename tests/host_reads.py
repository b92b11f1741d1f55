"""Counting what makes the host wait for the device."""

import torch


class HostReads(torch.overrides.TorchFunctionMode):
    """Counts what makes the host wait for the device, or copies to it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = getattr(func, "__name__", "")
        if name in {"item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "nonzero"}:
            self.names.append(name)
        return func(*args, **(kwargs or {}))
