"""Guards: what a training run does when it is told to stop, when its numbers, its loader, a rank or the disk fail."""

from hf_llava_vqa.training.guards.heartbeat import Heartbeat
from hf_llava_vqa.training.guards.nonfinite import NonFiniteGuard
from hf_llava_vqa.training.guards.output_folder import check_output_folder, checkpoint_bytes, full_disk
from hf_llava_vqa.training.guards.reading import WatchedCollator
from hf_llava_vqa.training.guards.signals import StopOnSignal

__all__ = [
    "Heartbeat",
    "NonFiniteGuard",
    "StopOnSignal",
    "WatchedCollator",
    "check_output_folder",
    "checkpoint_bytes",
    "full_disk",
]
