"""``TermsCost``: what the methods of a run cost in addition to its networks."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class TermsCost:
    """Additional cost of a run's methods.

    Attributes:
        macs: per image.
        parameters: trained parameters.
        kept: peak bytes in a step.
        remembered: bytes of buffers, such as memory banks.
        pretrains: whether there is a pretraining phase.
        phase_kept: peak bytes in a step of that phase.
        incompatible: why the methods cannot work on this pair, or "".
        fails: whether this is a mistake, such as a wrong option, that ends the run as failed.
        views: number of views of each image that both networks see.
    """

    macs: float = 0.0
    parameters: int = 0
    kept: float = 0.0
    remembered: int = 0
    pretrains: bool = False
    phase_kept: float = 0.0
    incompatible: str = ""
    fails: bool = False
    views: int = 1

    @property
    def problem(self) -> str:
        """How the run will end, and why: "skipped: why" or "fails: why"."""
        return f"{'fails' if self.fails else 'skipped'}: {self.incompatible}"

    def __add__(self, other: "TermsCost") -> "TermsCost":
        return TermsCost(
            macs=self.macs + other.macs,
            parameters=self.parameters + other.parameters,
            kept=self.kept + other.kept,
            remembered=self.remembered + other.remembered,
            pretrains=self.pretrains or other.pretrains,
            phase_kept=self.phase_kept + other.phase_kept,
            incompatible=self.incompatible or other.incompatible,
            fails=self.fails or other.fails,
            views=max(self.views, other.views),
        )

    def scaled(self, macs: float, parameters: float, kept: float) -> "TermsCost":
        """Return the cost multiplied by these factors."""
        return replace(
            self,
            macs=self.macs * macs,
            parameters=round(self.parameters * parameters),
            kept=self.kept * kept,
            phase_kept=self.phase_kept * kept,
        )
