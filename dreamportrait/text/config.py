"""What a text-conditioned generator has beyond a plain one; saved beside its weights as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from eg3d_ops._checks import check_int


@dataclass(frozen=True)
class ConditioningConfig:
    """The defaults are the paper's method; each of its ablations changes one value."""

    text_width: int  # channels of the text features
    global_path: bool = True  # the semantics mapper: the whole prompt changes w
    local_path: bool = True  # the adapters: words change features
    # Resolutions after whose blocks adapters sit. None = all but the last: six for planes of 256.
    adapters: tuple[int, ...] | None = None
    pooling: bool = True  # False: a token sees the other planes at its own pixel, not the columns through its point
    gate: bool = True  # False: a plain residual
    plain_mapper: bool = False  # True: the paper's mapper, which does not add to w
    token_dim: int = 64
    heads: int = 4

    def __post_init__(self) -> None:
        for name in ("text_width", "token_dim", "heads"):
            check_int(name, getattr(self, name), 1)
        if self.token_dim % self.heads:
            raise ValueError(f"heads={self.heads}: must divide token_dim={self.token_dim}")
        if not (self.global_path or self.local_path):
            raise ValueError("global_path and local_path are both off, so no text would act; turn one on")
        if self.adapters is not None:
            if not self.adapters:
                raise ValueError("adapters is empty; name resolutions, or turn local_path off")
            if list(self.adapters) != sorted(set(self.adapters)):
                raise ValueError(f"adapters={list(self.adapters)}: must be ascending, each resolution once")

    def sites(self, resolutions: Sequence[int]) -> tuple[int, ...]:
        """Where adapters sit in a backbone with blocks of these resolutions."""
        if not self.local_path:
            return ()
        between = tuple(resolutions[:-1])
        if self.adapters is None:
            return between
        if wrong := [r for r in self.adapters if r not in between]:
            raise ValueError(f"adapters={list(self.adapters)}: {wrong} not among the backbone's {list(between)}")
        return self.adapters

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
