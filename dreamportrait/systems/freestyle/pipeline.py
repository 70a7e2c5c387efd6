"""The pipeline of free-style portraits: a photo and a sentence, or a photo and a learnt style, become a head.

    pipe = StylePipeline.from_pretrained("mini")
    head = pipe("photo.png", "turn the head into an elf")           # a Portrait: .view(yaw=20), .save_sheet(), .planes
    gold = pipe.learn("a gold statue", seed=3, progress=print)      # a StyleAdapter; gold.save("styles/gold")
    pipe.apply("photo.png", gold, strength=0.8)
    pipe.mix("photo.png", {gold: 0.5, "styles/elf": 0.5})

A photo must be square, show the face from the front, and be cropped as the generator's pictures are.
"""

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from dreamportrait.core.signals import Signals
from dreamportrait.eg3d.planes import Planes
from dreamportrait.eg3d.viewpoints import YAW_RANGE, view_cameras
from dreamportrait.export.portraits import NOBODY, Portrait
from dreamportrait.export.provenance import Claim, claim_for
from dreamportrait.geometry.cameras import Cameras
from dreamportrait.geometry.photos import read_photo
from dreamportrait.systems.freestyle import learning
from dreamportrait.systems.freestyle.adapter import StyleAdapter, check_strength
from dreamportrait.systems.freestyle.evaluation import Reader
from dreamportrait.systems.freestyle.folder import FreestyleModel, load_generator_of, load_network_of, read_model
from dreamportrait.systems.freestyle.generator import PictureTo3D
from dreamportrait.systems.freestyle.instruct import InstructPix2Pix, Sampling, load_instruct_pix2pix
from dreamportrait.systems.freestyle.instructions import check_words, in_turn, instruct
from dreamportrait.systems.freestyle.judges import NONE, ORACLE, load_judges
from dreamportrait.systems.freestyle.learning import Learnt, Request, as_in_the_paper, work_folder
from dreamportrait.systems.freestyle.mixing import mix, shares
from dreamportrait.systems.freestyle.names import MINI, locate_instant, locate_model, locate_style
from dreamportrait.systems.freestyle.perceptual import make_perceptual
from dreamportrait.systems.freestyle.prompts import Instruction
from dreamportrait.systems.freestyle.refine import REFINEMENT, Refinement, refine
from dreamportrait.text.encoder import TextEncoder
from dreamportrait.text.loading import load_text_encoder
from dreamportrait.weights.diffusion import read_layout
from dreamportrait.weights.diffusion_sources import locate_diffusion
from dreamportrait.weights.hashing import weights_hash

FRONTAL = 15.0  # degrees of yaw up to which a photo counts as frontal
Photo = str | Path | Image.Image
Style = StyleAdapter | str | Path  # an adapter, its folder, or the name of one that comes with the package

_log = logging.getLogger(__name__)


class Editing(NamedTuple):
    """An editor of pictures with its text encoder. None = the editor has one of its own, which knows all words."""

    editor: InstructPix2Pix
    text: TextEncoder | None = None


@dataclass(eq=False, repr=False)
class StylePipeline:
    """H with its frozen generator, and an editor that is loaded when it is first used."""

    base: PictureTo3D
    model: FreestyleModel
    load_editing: Callable[[], Editing] | None = None  # None = photos cannot be edited, nor styles learnt
    instant: PictureTo3D | None = None  # H tuned on edited fronts of many styles. None = the base sees edited fronts
    claim: Claim = NOBODY  # what files of portraits say about their origin
    yaw_of: Callable[[Tensor], Tensor] | None = None  # reads the yaw of photos in degrees. None = nobody checks it
    offline: bool = False

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        generator: str | Path | None = None,  # where H's generator is now. None = where the model's folder says
        editor: str | Path | None = None,  # None = that of the model's folder
        precision: str = "float32",  # of the editor's UNet
        device: torch.device | str = "cpu",
        offline: bool = False,  # never use the network
    ) -> "StylePipeline":
        """Load "mini", which comes with the package, a folder that training wrote, or the folder of a run."""
        folder = locate_model(source)
        model = read_model(folder)
        drawn = load_generator_of(folder, None if generator is None else str(generator)).to(device)
        base = PictureTo3D(load_network_of(folder).to(device), drawn)
        there = locate_instant(source)
        instant = None if there is None else PictureTo3D(load_network_of(there).to(device), drawn)
        name = model.editor if editor is None else str(editor)

        def load_editing() -> Editing:
            assert name is not None
            layout, text = read_layout(locate_diffusion(name, offline)), None
            if layout.words is not None:
                text = load_text_encoder(layout.words, offline, device)
            given: dict[str, Any] = {"offline": offline, "precision": precision, "device": device, "text": text}
            return Editing(load_instruct_pix2pix(name, **given), text)

        claim = claim_for(source, weights_hash(base.i2t))
        yaw_of = read_yaw(device) if source == MINI else None
        return cls(base, model, None if name is None else load_editing, instant, claim, yaw_of, offline)

    @cached_property
    def editing(self) -> Editing:
        """The editor, loaded at its first use."""
        if self.load_editing is None:
            raise ValueError(
                "this model has no editor of pictures, which instructions and learning need; name one: --editor, or "
                "from_pretrained(..., editor=...)"
            )
        return self.load_editing()

    @property
    def device(self) -> torch.device:
        return next(self.base.generator.parameters()).device

    @property
    def size(self) -> int:
        """Pixels of the photos that H reads. Larger ones are made smaller."""
        return self.base.generator.config.image_resolution

    @torch.no_grad()
    def __call__(
        self,
        photo: Photo,
        instruction: str,  # "turn the head into an elf"; several, with semicolons, are carried out one after another
        seed: int = 0,  # of the editor's noise
        num_views: int = 1,  # evenly spaced over yaw_range; a single one is in its middle
        *,
        cameras: Cameras | None = None,  # labels of 25 numbers, replaces num_views
        yaw_range: tuple[float, float] = YAW_RANGE,  # degrees
        crop: bool = False,  # cut the middle out of a photo that is not square
        sampling: Sampling | None = None,  # None = that of the model
        refine: int | None = None,  # steps in which the head then follows the edited photo. 0 = one pass, None = 12
    ) -> Portrait:
        """Edit a photo as a sentence says, and return the result as a head."""
        how = REFINEMENT if refine is None else Refinement(refine)
        labels = view_cameras(self.base.generator.config, num_views, cameras, yaw_range)
        told = instruct(instruction, self.model.few_shot.wording)
        front = self.front(photo, crop)
        self._warn(check_words(in_turn(instruction), self.editing.text))
        heads = self.instant_heads(front, told, sampling or self.model.few_shot.sampling, seed, how)
        return self._portrait(instruction, seed, heads, labels)

    def learn(
        self,
        style: str | Sequence[str],  # a noun phrase, "a gold statue", or several wordings of one style
        *,
        seed: int = 0,  # of the first identity and of tuning
        paper: bool = False,  # one identity, 100 views, edited fronts, all weights
        work: str | Path | None = None,  # keeps the few-shot set; a stopped call continues there. None = nothing stays
        progress: Callable[[str], object] = lambda line: None,  # gets lines of text
        few_shot: Mapping[str, Any] | None = None,  # changes of FewShotSettings, such as identities
        tuning: Mapping[str, Any] | None = None,  # changes of TuneSettings, such as steps
    ) -> StyleAdapter:
        """Learn a style and return it as an adapter, which `save` writes to a folder."""
        request = self.request(style, seed=seed, paper=paper, few_shot=few_shot, tuning=tuning)
        if work is not None:
            return self.learnt(request, Path(work), progress).adapter
        with tempfile.TemporaryDirectory() as place:
            return self.learnt(request, work_folder(Path(place) / "style"), progress).adapter

    def request(
        self,
        style: str | Sequence[str],
        *,
        seed: int = 0,
        paper: bool = False,
        few_shot: Mapping[str, Any] | None = None,
        tuning: Mapping[str, Any] | None = None,
    ) -> Request:
        """Return what `learn` would do: the model's settings with these changes. Nothing is loaded."""
        styles = (style,) if isinstance(style, str) else tuple(style)
        how, settings = self.model.few_shot, self.model.tuning
        found = Request(styles, replace(how, seed=seed), replace(settings, seed=seed), self.model.perceptual)
        found = as_in_the_paper(found) if paper else found
        found = replace(
            found,
            few_shot=replace(found.few_shot, **few_shot or {}),
            tuning=replace(found.tuning, **tuning or {}),
        )
        for each in styles:
            found.few_shot.wording.instruct(each)  # refuses an empty one
        return found

    def learnt(
        self, request: Request, work: Path, say: Callable[[str], object], signals: Signals | None = None
    ) -> Learnt:
        """Learn a style in a folder, or continue to."""
        self._warn(check_words(request.styles, self.editing.text))
        distance = make_perceptual(request.perceptual, self.offline, self.device)
        about: dict[str, Any] = {"base_name": self.claim.model or "a model in memory", "licence": self.model.licence}
        return learning.learn(
            self.base, self.editing.editor, request, work, **about, perceptual=distance, signals=signals, say=say
        )

    @torch.no_grad()
    def apply(
        self,
        photo: Photo,
        style: Style,
        strength: float = 1.0,  # 0 = the photo without the style, 1 = as learnt
        num_views: int = 1,
        *,
        cameras: Cameras | None = None,
        yaw_range: tuple[float, float] = YAW_RANGE,
        crop: bool = False,
        seed: int = 0,  # of the editor's noise, for adapters that read edited fronts
    ) -> Portrait:
        """Return the head of a photo in a style. An adapter that reads unedited fronts needs no editor."""
        labels = view_cameras(self.base.generator.config, num_views, cameras, yaw_range)
        check_strength(strength)
        adapter = self.style(style)
        front = self.front(photo, crop)
        network = adapter.applied(self.base.i2t, strength)
        heads = PictureTo3D(network, self.base.generator).heads(self.read_by(adapter, front, seed))
        return self._portrait(adapter.about.styles[0], None, heads, labels)

    @torch.no_grad()
    def mix(
        self,
        photo: Photo,
        styles: Mapping[Any, float],  # weights by style; they are divided by their sum
        strength: float = 1.0,
        num_views: int = 1,
        *,
        cameras: Cameras | None = None,
        yaw_range: tuple[float, float] = YAW_RANGE,
        crop: bool = False,
        seed: int = 0,
    ) -> Portrait:
        """Return the head of a photo in a mixture of styles."""
        labels = view_cameras(self.base.generator.config, num_views, cameras, yaw_range)
        parts, strength = shares(list(styles.values())), check_strength(strength)
        adapters = [self.style(style) for style in styles]
        front = self.front(photo, crop)
        fronts = [self.read_by(adapter, front, seed) for adapter in adapters]
        heads = mix(self.base, adapters, parts, fronts, strength)
        pairs = zip(adapters, parts, strict=True)
        title = " + ".join(f"{share:.2g} {adapter.about.styles[0]}" for adapter, share in pairs)
        return self._portrait(title, None, heads, labels)

    def style(self, style: Style) -> StyleAdapter:
        """Return an adapter, read from its folder if it is a name, after checking that it is of this model's H."""
        adapter = style if isinstance(style, StyleAdapter) else StyleAdapter.load(locate_style(style))
        adapter.check_base(self.base.i2t)
        self._warn([note] if (note := adapter.note()) else [])
        return adapter

    def front(self, photo: Photo, crop: bool = False) -> Tensor:  # [1, 3, R, R]
        """Read a photo. Warn if it is known to be turned away."""
        front = read_photo(photo, self.size, crop=crop, least=self.size // 2).to(self.device)
        if self.yaw_of is not None and abs(yaw := float(self.yaw_of(front))) > FRONTAL:
            _log.warning(
                f"the photo shows the face from about {abs(yaw):.0f} degrees to the side, and this model reads faces "
                f"from the front, up to {FRONTAL:.0f} degrees; the head will be distorted"
            )
        return front

    def read_by(self, adapter: StyleAdapter, front: Tensor, seed: int = 0) -> Tensor:  # [1, 3, R, R] -> same
        """Return what an adapter reads: the front, or the front edited by its own style."""
        if adapter.about.input == "source":
            return front
        return self._edited(front, adapter.instruction, adapter.sampling, seed)

    @torch.no_grad()
    def instant_heads(
        self,
        front: Tensor,  # [1, 3, R, R]
        told: Sequence[Instruction],  # edits, one after another
        sampling: Sampling,
        seed: int,
        how: Refinement = REFINEMENT,
    ) -> Planes:
        """Return the head of a front that is edited as told: the edits, one pass, and a refinement."""
        styled = self.instant or self.base
        for each in told:
            front = self._edited(front, each, sampling, seed)
        return refine(styled.heads(front), front, styled.i2t.deviation, how)

    def load_portrait(self, path: str | Path) -> Portrait:
        """Load a portrait that Portrait.save wrote, of this model's generator."""
        return Portrait.load(path, self.base.generator, self.claim)

    def _edited(self, front: Tensor, told: Instruction, sampling: Sampling, seed: int) -> Tensor:
        editor = self.editing.editor
        return editor.edit(front, told, editor.fixed_noise(seed), sampling).images.to(front)

    def _portrait(self, prompt: str, seed: int | None, heads: Planes, labels: Tensor) -> Portrait:
        (views,) = heads.views(labels)
        return Portrait(prompt, seed, heads, views, self.claim)

    def _warn(self, notes: Sequence[str]) -> None:
        for note in notes:
            _log.warning(note)

    def __repr__(self) -> str:
        g = self.base.generator.config
        millions = sum(p.numel() for p in self.base.i2t.parameters()) / 1e6
        lines = [
            f"network: {g.image_resolution} x {g.image_resolution} pictures, {millions:.2f} M parameters",
            f"generator: {self.model.pretrained}",
            f"editor: {self.model.editor or 'none'}",
            f"instructions: {'a network of their own' if self.instant else 'the same network'}",
            f"device: {self.device}",
            f"licence: {self.model.licence}",
        ]
        return "StylePipeline(\n" + "".join(f"  {line}\n" for line in lines) + ")"


def read_yaw(device: torch.device | str) -> Callable[[Tensor], Tensor]:
    """Return the function that reads the yaw of faces of the miniature world, in degrees. It loads at the first use."""

    @cache
    def reader() -> Reader:
        found = load_judges(ORACLE, NONE, device=device).reader
        assert found is not None
        return found

    return lambda front: reader().read(front).yaw
