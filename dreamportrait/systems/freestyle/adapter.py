"""Adapters of styles: what a tuning changed, in a folder with checksums.

OUT/adapter.json          the style, how it was learnt, and the hash of the network that it changes
OUT/deltas.safetensors    NAME.down and NAME.up of low-rank deltas, and perhaps the offset of the planes, in eight bits;
                          or NAME of a tuning of all weights
OUT/sheet.png             a picture of the style, if one was given
OUT/files.json            sizes and checksums of the files above

An adapter belongs to one network: it is refused for any other.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from PIL import Image
from torch import Tensor, nn

from dreamportrait import __version__
from dreamportrait.core.errors import WeightsError, listed, shown
from dreamportrait.core.files import new_folder
from dreamportrait.core.schema import from_dict
from dreamportrait.export.sheets import save_picture
from dreamportrait.systems.freestyle.adapted import LowRankNetwork, differences, with_changes
from dreamportrait.systems.freestyle.fewshot import FewShot, FewShotSettings
from dreamportrait.systems.freestyle.instruct import Sampling
from dreamportrait.systems.freestyle.names import ABOUT
from dreamportrait.systems.freestyle.network import OFFSET, ImageToTriplane
from dreamportrait.systems.freestyle.prompts import Instruction, Wording
from dreamportrait.systems.freestyle.smooth import enlarged
from dreamportrait.systems.freestyle.start import Rule
from dreamportrait.systems.freestyle.tuning import Input, TuneSettings
from dreamportrait.weights.eight_bits import packed, unpacked
from dreamportrait.weights.folder import FORMAT_VERSION, check_finite, read_json, read_tensors, write_tensors
from dreamportrait.weights.hashing import weights_hash
from dreamportrait.weights.seals import SEAL, seal, verify
from eg3d_ops._checks import check_number

DELTAS, SHEET = "deltas.safetensors", "sheet.png"
FILES = (ABOUT, DELTAS, SHEET, SEAL)
STRONGEST = 2.0
_DOWN, _UP = ".down", ".up"
_REMEDY = "copy the folder again, or learn the style again"


@dataclass(frozen=True)
class Score:
    name: str
    value: float


@dataclass(frozen=True)
class About:
    """The content of adapter.json."""

    format_version: int
    code_version: str
    licence: str  # of the adapter
    base: str  # name or path of the network that it changes
    base_sha256: str
    styles: tuple[str, ...]  # wordings of the style
    template: str  # of the instruction, see prompts.py
    decorative: str
    negative: str
    steps: int  # of the editor's sampling, see instruct.py
    start: float | None  # tau
    steps_after_start: Rule
    image_scale: float
    text_scale: float
    seeds: tuple[str, ...]  # of the identities, as text, because they may be large
    views: int  # of each identity, with the front
    input: Input  # what the network reads: an unedited or an edited front
    train: Literal["lora", "all"]
    rank: int | None  # None = all weights
    scores: tuple[Score, ...] = ()


@dataclass(frozen=True, eq=False)
class StyleAdapter:
    about: About
    tensors: dict[str, Tensor]  # as in deltas.safetensors

    @classmethod
    def of(
        cls,
        tuned: nn.Module,  # what `tune` returned
        base: ImageToTriplane,
        data: FewShot,
        how: FewShotSettings,
        settings: TuneSettings,
        *,
        base_name: str,
        licence: str,
        scores: tuple[Score, ...] = (),
    ) -> "StyleAdapter":
        """Return the adapter of a tuning. Its numbers are rounded as the file stores them."""
        about = About(
            format_version=FORMAT_VERSION,
            code_version=__version__,
            licence=licence,
            base=base_name,
            base_sha256=weights_hash(base),
            styles=tuple(dict.fromkeys(data.styles)),
            template=how.wording.template,
            decorative=how.wording.decorative,
            negative=how.wording.negative,
            steps=how.sampling.steps,
            start=how.sampling.start,
            steps_after_start=how.sampling.steps_after_start,
            image_scale=how.sampling.image_scale,
            text_scale=how.sampling.text_scale,
            seeds=tuple(map(str, data.seeds)),
            views=len(data.cameras),
            input=settings.input,
            train=settings.train,
            rank=settings.rank if settings.train == "lora" else None,
            scores=scores,
        )
        tensors = {name: x.detach().cpu().float() for name, x in _tensors(tuned, base).items()}
        check_finite(tensors, "the adapter")
        return cls(about, unpacked(cls(about, tensors).stored()))

    def stored(self) -> dict[str, Tensor]:
        """Return the tensors of the file: low-rank deltas and the offset in eight bits, all weights in half precision.

        Heads of an adapter in eight bits differ from those of one in half precision by 47 dB.
        """
        if self.about.train == "lora":
            return packed(self.tensors)
        return {name: x.half() for name, x in self.tensors.items()}

    def changes(self) -> dict[str, Tensor]:
        """Return what is added to the weights of the network, by their names, and the offset of the planes."""
        if self.about.train == "all":
            return self.tensors
        names = [name.removesuffix(_DOWN) for name in self.tensors if name.endswith(_DOWN)]
        deltas = {name: self.tensors[name + _UP] @ self.tensors[name + _DOWN] for name in names}
        return deltas | {name: x for name, x in self.tensors.items() if name == OFFSET}

    def applied(self, base: ImageToTriplane, strength: float = 1.0) -> ImageToTriplane:
        """Return a copy of the network with the style. strength: 0 = the network as it is, 1 = as learnt."""
        self.check_base(base)
        return with_changes(base, [(check_strength(strength), self.shaped_changes(base))])

    def shaped_changes(self, base: ImageToTriplane) -> dict[str, Tensor]:
        """Return the changes in the shapes of weights and planes. Raise WeightsError if they do not fit the network."""
        weights, changes, offset = dict(base.named_parameters()), self.changes(), {}
        if (numbers := changes.pop(OFFSET, None)) is not None:
            if numbers.ndim != 4 or numbers.shape[:2] != base.deviation.shape[:2]:
                raise WeightsError(f"the adapter's offset {list(numbers.shape)} does not fit the planes; {_REMEDY}")
            offset = {OFFSET: enlarged(numbers, base.config.plane_resolution)}
        wrong = [
            shown(name)
            for name, delta in changes.items()
            if name not in weights or weights[name].numel() != delta.numel()
        ]
        if wrong:
            raise WeightsError(f"the adapter changes what the network has not: {listed(wrong)}; {_REMEDY}")
        return {name: delta.reshape(weights[name].shape) for name, delta in changes.items()} | offset

    def check_base(self, base: ImageToTriplane) -> None:
        """Raise WeightsError unless this is the network that the adapter was learnt on."""
        own = weights_hash(base)
        if own != self.about.base_sha256:
            raise WeightsError(
                f"the adapter is of the network {self.about.base} ({self.about.base_sha256[:12]}), this one is "
                f"{own[:12]}; choose that network, or learn the style again"
            )

    @property
    def sampling(self) -> Sampling:
        """How the editor made the pictures, and makes the front of another face for an adapter of edited fronts."""
        a = self.about
        return Sampling(a.steps, a.start, a.steps_after_start, a.image_scale, a.text_scale)

    @property
    def instruction(self) -> Instruction:
        """Return the instruction of the style's first wording."""
        a = self.about
        return Wording(a.template, a.decorative, a.negative).instruct(a.styles[0])

    def note(self) -> str | None:
        """Return what a user should know before applying it to another face, or None."""
        if len(self.about.seeds) > 1:
            return None
        return (
            "this adapter was learnt on one face and is not made for others; learn the style on several identities "
            "(--identities) for that"
        )

    def save(self, folder: str | Path, sheet: Image.Image | None = None, overwrite: bool = False) -> None:
        """Write the folder, completely or not at all."""
        with new_folder(folder, overwrite, FILES) as staging:
            write_tensors(staging / DELTAS, self.stored())
            text = json.dumps(asdict(self.about), indent=2, allow_nan=False) + "\n"
            (staging / ABOUT).write_text(text, encoding="utf-8")
            if sheet is not None:
                save_picture(sheet, staging / SHEET)
            seal(staging)

    @classmethod
    def load(cls, folder: str | Path) -> "StyleAdapter":
        """Read and check a folder."""
        folder = Path(folder)
        about = read_about(folder)
        verify(folder, _REMEDY)
        try:
            tensors = unpacked(read_tensors(folder / DELTAS))
        except ValueError as error:
            raise WeightsError(f"{folder / DELTAS}: {error}; {_REMEDY}") from None
        check_finite(tensors, str(folder / DELTAS))
        made = cls(about, tensors)
        made._check_pairs(folder / DELTAS)
        return made

    def _check_pairs(self, path: Path) -> None:
        """Raise WeightsError unless low-rank deltas come in pairs of the adapter's rank."""
        if self.about.train == "all":
            return
        names = {name.removesuffix(_DOWN).removesuffix(_UP) for name in self.tensors if name != OFFSET}
        rank, wrong = self.about.rank, []
        for name in sorted(names):
            down, up = self.tensors.get(name + _DOWN), self.tensors.get(name + _UP)
            if down is None or up is None or down.ndim != 2 or up.ndim != 2 or not len(down) == up.shape[1] == rank:
                wrong.append(shown(name))
        if wrong or not names:
            raise WeightsError(f"{path} holds no deltas of rank {rank} for {listed(wrong) or 'any weight'}; {_REMEDY}")


def read_about(folder: Path) -> About:
    """Read and check the adapter.json of a folder."""
    path = folder / ABOUT
    about = from_dict(About, read_json(path, "`dreamportrait style learn` writes such folders"), str(path))
    if not about.styles or not about.seeds:
        raise WeightsError(f"{path} names no {'seeds' if about.styles else 'styles'}; {_REMEDY}")
    return about


def check_strength(strength: float) -> float:
    """Raise ValueError unless this is a strength of a style; return it."""
    if not 0 <= check_number("strength", strength) <= STRONGEST:
        raise ValueError(f"strength={strength}: must be within 0 .. {STRONGEST:g}; 1 = as learnt")
    return strength


def _tensors(tuned: nn.Module, base: ImageToTriplane) -> dict[str, Tensor]:
    if isinstance(tuned, LowRankNetwork):
        return tuned.deltas.factors() | tuned.offset()
    assert isinstance(tuned, ImageToTriplane)
    return differences(tuned, base)
