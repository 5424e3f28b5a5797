"""How a head's look-ahead is spread over its layers: the dial between causal and offline.

A layer that reaches r frames to either side may use some of the r frames after its own, and moves the rest of its padding to the
past, as in Bounded-Future MS-TCN++ (Goldbraikh et al., 2022; there one limit for all layers). The limits of all layers add up to what
the head as a whole looks ahead, so that they are chosen to add up to exactly that many frames.
"""

from collections.abc import Sequence


def future_limits(reaches: Sequence[int], frames: int | None) -> list[int]:
    """Frames of the future that each layer may use, for layers of these reaches in the order of the forward pass.

    They add up to `frames`, or to all that layers reach where that is less (None: no limit). All share the largest common limit
    that does not exceed this sum; the first layers that reach further get one frame more, until it is met.
    """
    if frames is None or frames >= sum(reaches):
        return list(reaches)
    low, high = 0, max(reaches)  # the largest common limit lies in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if sum(min(middle, reach) for reach in reaches) <= frames else (low, middle)
    limits = [min(low, reach) for reach in reaches]
    left = frames - sum(limits)
    for place, reach in enumerate(reaches):
        if left and reach > low:
            limits[place] += 1
            left -= 1
    return limits
