"""Exports: what was benchmarked is what ships, and each export proves it before it exists."""

from __future__ import annotations

from inlay.tuner.export.making import export
from inlay.tuner.export.order import Order
from inlay.tuner.export.push import destination, push
from inlay.tuner.export.terminal import told

__all__ = ["Order", "destination", "export", "push", "told"]
