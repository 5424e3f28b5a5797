"""The pictures of the 19 phases: the instruments, and one scene per phase (a method named like the phase)."""

from __future__ import annotations

import cmath
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sample_eye import SIDEPORT, WHITE, Canvas, Colour, Look, Points, Wander, arc, implant, nucleus_pose

WOUND = 1.16j  # where the scleral tunnel opens, on the surgeon's side
RIGHT_HAND, LEFT_HAND, ACROSS = 58.0, 128.0, -40.0  # directions (degrees) that instruments come from

Held = tuple[complex, complex]  # an instrument: where its tip is, and which way (unit vector) its handle lies

# Outlines of parts, in their own frame: the tip at 0, the handle along +x.
LANCE = [0, 0.3 + 0.05j, 0.7 + 0.05j, 0.7 - 0.05j, 0.45 - 0.05j]
CRESCENT = [*arc(0.16, 0.16, 270, 90), 0.66 - 0.05j, 0.66 + 0.05j]
KERATOME = [0, 0.36 + 0.24j, 0.46 + 0.23j, 0.75 + 0.06j, 0.75 - 0.06j, 0.46 - 0.23j, 0.36 - 0.24j]
STRAIGHT = [0, 0.12 + 0.08j, 0.7 + 0.08j, 0.7 - 0.05j, 0.1 - 0.03j]
FORCEPS_ARM = np.array([0.06j, 0.06 + 0.08j, 0.7 + 0.24j, 4 + 0.16j, 4 + 0.05j, 0.7 + 0.18j, 0.05 + 0.05j])
SCISSORS_JAW = np.array([0, 0.45 + 0.07j, 0.6 + 0.05j, 0.6 - 0.03j, 0.4 - 0.02j])
SCISSORS_HANDLE = np.array([0.45, 0.6 + 0.06j, 4 + 0.2j, 4 + 0.1j, 0.6])
PENCIL = [0.42 + 0.05j, 0.6 + 0.11j, 4 + 0.2j, 4 - 0.2j, 0.6 - 0.11j, 0.42 - 0.05j]
NEEDLE_HOLDER = [0.1j, 0.5 + 0.13j, 4 + 0.26j, 4 - 0.2j, 0.5 - 0.12j, -0.05j]


@dataclass(frozen=True)
class Instruments:
    """The instruments in the surgeon's hands at one instant, and how hands move."""

    canvas: Canvas
    look: Look
    done: Mapping[str, float]  # share 0..1 of each phase that is over
    progress: float  # the same for the present phase
    seconds: float
    reach: float  # 1 = instruments at work, 0 = drawn back
    tremor: Wander
    rng: np.random.Generator  # for what flickers: smoke, bubbles

    def hand(self, target: complex, degrees: float, tremor: float = 0.03) -> Held:
        """Tip and direction (towards the handle) of an instrument that comes from `degrees`."""
        direction = cmath.rect(1, math.radians(degrees + 4 * self.tremor(self.seconds * 0.5).real))
        return target + tremor * self.tremor(self.seconds) + 1.7 * (1 - self.reach) * direction, direction

    def through(self, port: complex, target: complex) -> Held:
        """Tip and direction of an instrument that reaches `target` through an opening at `port`."""
        return self.hand(target, math.degrees(cmath.phase(port - target)))

    def swing(self, hertz: float) -> float:
        """A to-and-fro movement, -1 to 1."""
        return math.sin(2 * math.pi * hertz * self.seconds)

    def _part(self, held: Held, shape: Points, colour: Colour | None = None, alpha: float = 1.0) -> None:
        """One part (of metal unless `colour` is given) with its shadow, a light upper edge and a dark lower edge."""
        tip, direction = held
        points = tip + direction * np.asarray(shape)
        self.canvas.fill(points + 0.05 + 0.07j, (30, 14, 12), 0.35 * alpha, blur=0.035)
        self.canvas.fill(points, self.look.metal if colour is None else colour, alpha)
        self.canvas.stroke(np.append(points, points[0]), 0.012, (50, 50, 56), 0.7 * alpha)
        half = len(points) // 2
        inward = 0.25 * (points[half:].mean() - points[:half].mean())
        self.canvas.stroke(points[:half] + inward, 0.02, WHITE, 0.75 * alpha)

    def _shaft(self, held: Held, *, tip: float, tail: float, start: float = 0.0) -> None:
        """A rod from `start` behind the tip to beyond the picture, half width growing from `tip` to `tail`."""
        edge = np.array([start + 1j * tip, start + 0.5 + 0.5j * (tip + tail), start + 4 + 1j * tail])
        self._part(held, np.concatenate([edge, edge.conj()[::-1]]))

    def forceps(self, held: Held, spread: float = 1.0) -> None:
        for arm in (FORCEPS_ARM, FORCEPS_ARM.conj()):
            self._part(held, arm.real + 1j * spread * arm.imag)

    def scissors(self, held: Held, opening: float) -> None:
        """Opened by `opening` radians a blade, about their joint."""
        jaw = 0.45 + (SCISSORS_JAW - 0.45) * cmath.rect(1, opening)
        for outline in (jaw, SCISSORS_HANDLE, jaw.conj(), SCISSORS_HANDLE.conj()):
            self._part(held, outline)

    def blade(self, held: Held, shape: Points) -> None:
        self._shaft(held, start=0.62, tip=0.05, tail=0.12)
        self._part(held, shape, np.minimum(self.look.metal * 1.15, 250))

    def cannula(self, held: Held, *, gauge: float = 0.02, hub: Colour = (90, 150, 120)) -> None:
        """A needle on a syringe, of which the coloured hub is in the picture."""
        self._shaft(held, tip=gauge, tail=gauge * 2)
        self._part(held, [1.15 + 0.05j, 1.5 + 0.11j, 1.5 - 0.11j, 1.15 - 0.05j], hub)
        self._part(held, [1.5 + 0.16j, 4 + 0.16j, 4 - 0.16j, 1.5 - 0.16j], (214, 220, 222), 0.7)

    def simcoe(self, held: Held) -> None:
        """The two-way irrigation-aspiration cannula: two tubes side by side."""
        tip, direction = held
        self._shaft((tip + 0.10 * direction + 0.045j * direction, direction), tip=0.026, tail=0.05)
        self._shaft((tip - 0.03j * direction, direction), tip=0.036, tail=0.06)
        self.canvas.disc(tip + 0.07 * direction, 0.035, (30, 30, 34), 1, soft=0.3)
        self._part(held, [1.1 + 0.13j, 4 + 0.17j, 4 - 0.17j, 1.1 - 0.13j], (226, 226, 214), 0.75)

    def hook(self, held: Held, bend: float = 0.14) -> None:
        tip, direction = held
        self._shaft(held, tip=0.018, tail=0.08)
        self.canvas.stroke([tip, tip + 1j * bend * direction], 0.032, self.look.metal * 0.8)

    def vectis(self, held: Held) -> None:
        tip, direction = held
        loop = tip + direction * arc(0.34, 0.34, 0, 360, 0.62)
        self.canvas.stroke(loop + 0.03 + 0.04j, 0.05, (30, 14, 12), 0.4, blur=0.02)
        self.canvas.stroke(loop, 0.05, self.look.metal)
        self._shaft(held, start=0.66, tip=0.03, tail=0.1)


class Scene(Instruments):
    """One method a phase, called like it: what is in the picture besides the eye itself."""

    def background(self) -> None:
        """The eye alone."""

    def peritomy(self) -> None:
        at = cmath.rect(1.3, math.radians(90 + 50 * (2 * self.progress - 1) * self.reach))
        tent = [at - 0.3, at + 0.1 - 0.16j, at + 0.3, at + 0.12 + 0.2j]
        self.canvas.fill(tent, (206, 130, 118), 0.8 * self.reach, blur=0.04)
        self.scissors(self.hand(at - 0.05, RIGHT_HAND), 0.16 + 0.14 * self.swing(1.1))
        self.forceps(self.hand(at - 0.2 + 0.06j, LEFT_HAND))

    def cautery(self) -> None:
        tip, direction = self.hand(1.27j + 0.5 * self.swing(0.23), RIGHT_HAND, 0.08)
        self.canvas.disc(tip, 0.16, (90, 62, 48), 0.6 * self.reach, soft=0.9)
        self._shaft((tip, direction), tip=0.012, tail=0.03)
        self._part((tip, direction), PENCIL, (60, 96, 150))
        for z in self.rng.normal(0, 0.09, (4, 2)) if self.reach > 0.8 else ():
            self.canvas.disc(tip + complex(*z) - 0.1j, 0.11, (226, 226, 228), 0.35, soft=1)

    def scleral_groove(self) -> None:
        at = arc(2.42j, 1.2, -110, -110 + 40 * max(self.progress, 0.03))[-1]
        self.blade(self.hand(at, RIGHT_HAND + 14, 0.02), STRAIGHT)
        self.forceps(self.hand(cmath.rect(1.12, math.radians(20)), ACROSS + 50))

    def incision(self) -> None:
        self.canvas.stroke(arc(2.42j, 1.2, -110, -70), 0.08, (150, 30, 28), 0.8, blur=0.03)
        self.canvas.disc(1.34j + 0.15, 0.2, (150, 30, 28), 0.5, soft=0.9, squeeze=0.6)
        self.blade(self.hand(1.18j + 0.2 * self.swing(0.6), 96), LANCE)

    def tunnel(self) -> None:
        depth = 0.30 * self.progress * (0.6 + 0.4 * self.swing(0.45))
        self.blade(self.hand(WOUND - 1j * depth + 0.28 * self.swing(0.31), 90 + 16 * self.swing(0.31)), CRESCENT)
        self.forceps(self.hand(1.36j - 0.34, LEFT_HAND + 8), 0.7)

    def sideport(self) -> None:
        self.blade(self.through(SIDEPORT, SIDEPORT * (0.85 + 0.15 * self.swing(0.4))), LANCE)
        self.forceps(self.hand(1.08 + 0.05j, ACROSS + 30))

    def AB_injection_and_wash(self) -> None:
        """Air bubble, blue dye under it, then the wash that carries the dye away."""
        tip, direction = self.through(SIDEPORT, -0.42 + 0.1j * self.swing(0.3))
        dye = math.sin(math.pi * min(1.0, 1.2 * self.progress))
        for step, sway in enumerate((0.0, 1.9, 3.7, 5.1)):
            cloud = 0.12 * step + cmath.rect(0.22, sway + self.seconds)
            self.canvas.disc(cloud, 0.26, (52, 80, 168), 0.4 * dye, soft=0.9)
        size = 0.2 + 0.35 * min(1.0, 3 * self.progress) * (1 - 0.5 * self.progress)
        self.canvas.stroke(arc(0.08 - 0.06j, size, 0, 360), 0.03, WHITE, 0.85)
        self.canvas.disc(0.08 - 0.06j - 0.5 * size * (1 + 1j), 0.08, WHITE, 0.9, soft=0.6)
        self.cannula((tip, direction), hub=(70, 110, 190))

    def OVD_injection(self) -> None:
        """A front of clear gel with small bubbles spreads from the tip."""
        source = -0.45 + 0.65 * self.progress + 0.12j * self.swing(0.4)
        radius = 0.25 + 0.45 * self.progress
        self.canvas.disc(source, radius, (240, 236, 232), 0.22, soft=0.2, squeeze=0.8)
        self.canvas.stroke(arc(source, radius, 150, 330, 0.8), 0.03, WHITE, 0.55, blur=0.012)
        for z, size in zip(self.rng.normal(0, 0.14, (5, 2)), self.rng.uniform(0.015, 0.05, 5), strict=True):
            self.canvas.stroke(arc(source + complex(*z), size, 0, 360), 0.012, WHITE, 0.7)
        self.cannula(self.through(SIDEPORT, source - 0.1), gauge=0.034, hub=(210, 160, 60))

    def capsulorrhexis(self) -> None:
        """The needle leads the folded flap round; the torn edge follows it."""
        radius = 0.8 * self.look.pupil_radius
        angle = -90 + 360 * self.progress
        tear = arc(0, radius, angle - 8, angle)[-1]
        start = arc(0, radius, angle - 75, angle)[0]
        middle = 0.25 * cmath.rect(1, math.radians(angle - 40))
        self.canvas.fill([start, tear, middle + 0.5 * tear, middle], (236, 222, 214), 0.6, blur=0.015)
        self.canvas.stroke([start, middle, middle + 0.5 * tear, tear], 0.022, WHITE, 0.8)
        self.hook(self.through(WOUND, 0.5 * tear + middle), 0.09)

    def main_incision_entry(self) -> None:
        depth = 0.15 + 0.5 * math.sin(math.pi * self.progress)
        self.blade(self.hand(WOUND - 1j * depth + 0.1 * self.swing(0.5), 90), KERATOME)
        self.forceps(self.hand(-1.06 + 0.2j, LEFT_HAND + 20), 0.7)

    def hydroprocedure(self) -> None:
        """Fluid waves run under the capsule and loosen the nucleus."""
        source = 0.34j + 0.22 * self.swing(0.2)
        for wave in range(3):
            spread = (0.9 * self.seconds + wave / 3) % 1
            front = arc(source - 0.1j, 0.7 * spread, -160, -20)
            self.canvas.stroke(front, 0.035, (246, 226, 206), 0.8 * (1 - spread) * self.reach, blur=0.012)
        self.cannula(self.through(WOUND, source), gauge=0.016, hub=(190, 90, 130))

    def nucleus_prolapse(self) -> None:
        centre, radius, _ = nucleus_pose(self.done)
        spin = cmath.rect(0.8 * radius, 2 * self.seconds)
        self.canvas.stroke([centre - spin, centre + 0.3j * spin, centre + spin], 0.03, (110, 80, 60), 0.5, blur=0.01)
        self.hook(self.through(WOUND, centre + radius * (0.8 - 0.3j) + 0.1j * self.swing(0.5)))
        self.hook(self.through(SIDEPORT, centre - 0.75 * radius - 0.1j * self.swing(0.4)))

    def nucleus_delivery(self) -> None:
        centre, _, _ = nucleus_pose(self.done)
        self.vectis(self.hand(centre - 0.34j, 84, 0.02))
        self.canvas.stroke(arc(0, 1.2, 62, 118), 0.06, (90, 30, 30), 0.7, blur=0.01)
        self.forceps(self.hand(1.42j - 0.4, LEFT_HAND + 12), 0.6)

    def cortical_wash(self) -> None:
        rim = cmath.rect(0.74 * self.look.pupil_radius, 2.4 * 11 * self.progress)
        tip, direction = self.through(WOUND, rim)
        for way in (-0.5, 0.0, 0.5):  # strands of cortex drawn into the port
            strand = np.array([0.02, 0.12, 0.24, 0.34]) + 0.03j * self.swing(0.9) * np.array([0, 1, -1, 1])
            strand = tip - direction * cmath.rect(1, way) * strand
            self.canvas.stroke(strand, 0.04, (236, 230, 216), 0.6 * self.reach, blur=0.012)
        self.simcoe((tip, direction))

    def OVD_IOL_insertion(self) -> None:
        """Gel first, then the implant slides in, held by its optic, and is dialled into place."""
        inside = min(1.0, max(0.0, self.progress - 0.15) / 0.6)
        centre = 1.5j * (1 - inside) + 1j * 1.5 * (1 - self.reach) * (inside < 1)
        implant(self.canvas, centre, 0.95, 0.5 + 2.4 * max(0.0, self.progress - 0.75) * 4)
        if inside < 1:
            self.forceps(self.hand(centre + 0.28j, 82))
        else:
            self.hook(self.through(WOUND, centre + 0.36j + 0.15 * self.swing(0.7)))

    def OVD_wash(self) -> None:
        tip, direction = self.through(WOUND, 0.34 * cmath.rect(1, 1.7 * self.seconds) + 0.05)
        for step in range(4):  # gel leaves in glistening streaks
            streak = arc(tip, 0.16 + 0.09 * step, 200 + 70 * step, 300 + 70 * step)
            self.canvas.stroke(streak, 0.022, WHITE, 0.5 * self.reach, blur=0.01)
        self.simcoe((tip, direction))

    def stromal_hydration(self) -> None:
        """The cornea at the openings swells and turns white; air often fills the chamber."""
        main_port = 0.97j
        for port, amount in ((SIDEPORT, min(1.0, 2 * self.progress)), (main_port, max(0.0, 2 * self.progress - 1))):
            self.canvas.disc(port * 0.9, 0.3, (232, 234, 236), 0.8 * amount, soft=0.9)
        port, degrees = (SIDEPORT, LEFT_HAND + 26) if self.progress < 0.5 else (main_port, RIGHT_HAND)
        self.cannula(self.hand(port * 0.97, degrees), gauge=0.016)

    def tunnel_suture(self) -> None:
        at = 1.24j + 0.2 * (2 * self.progress - 1)
        sway = 0.25 * self.swing(0.3)
        thread = [at, at + 0.3 + sway - 0.2j, at + 0.7 - 0.1j + sway, at + 0.9 + 0.35j, at + 0.4 + 0.42j]
        self.canvas.stroke(thread, 0.022, (24, 24, 40))
        self.canvas.stroke(at + arc(0.14, 0.16, 150, 330), 0.035, self.look.metal * 0.9)
        self._part(self.hand(at + 0.24 + 0.06j, RIGHT_HAND - 16), NEEDLE_HOLDER)
        self.forceps(self.hand(at - 0.2 + 0.05j, LEFT_HAND), 0.7)
