"""The pipeline that makes portraits from prompts. Portraits can be rendered from any side.

    pipe = DreamPortraitPipeline.from_pretrained("mini")
    portrait = pipe("a woman with red hair", seed=3, num_views=5)
    portrait.images                                 # [5, R, R, 3] uint8
    portrait.view(yaw=40, pitch=10).pictures[0]     # rendered from its planes: the backbone does not run again
    pipe(["a man", "an old man"]).save_sheet("sheet.png")
    portrait.save("head.safetensors")
    pipe.load_portrait("head.safetensors")
    pipe.mix(["a man", "an old man"]).steps(7)      # see mixing.py

A prompt takes one pass through the networks and changes no weight. The same seed and prompt give the same portrait in
any list, up to rounding: on some devices the batch size changes the order of sums.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import torch
from huggingface_hub import ModelCard, ModelHubMixin
from PIL import Image
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from dreamportrait.core.files import new_folder
from dreamportrait.eg3d.config import PRECISIONS
from dreamportrait.eg3d.viewpoints import YAW_RANGE, view_cameras
from dreamportrait.export.portraits import Portrait, Portraits
from dreamportrait.export.provenance import Claim, claim_for
from dreamportrait.geometry.cameras import Cameras, camera_labels
from dreamportrait.geometry.photos import read_photo
from dreamportrait.prior.inversion import Inverter, PictureFeatures
from dreamportrait.systems.dreamportrait import hub
from dreamportrait.systems.dreamportrait.arguments import check_shares
from dreamportrait.systems.dreamportrait.folder import (
    FILES,
    TextSource,
    load_portrait,
    load_portrait_config,
    save_portrait,
)
from dreamportrait.systems.dreamportrait.generator import FLOW_SCALE, PortraitGenerator, in_precision
from dreamportrait.systems.dreamportrait.identities import RandomNumbers, draw_identities, seeds_of_each
from dreamportrait.systems.dreamportrait.mixing import Mix
from dreamportrait.systems.dreamportrait.names import locate_portrait
from dreamportrait.systems.dreamportrait.own_world import PICTURES, OwnWorld, features_of_own_pictures
from dreamportrait.systems.dreamportrait.photo import Inversion, invert
from dreamportrait.systems.dreamportrait.prompt_notes import check_prompts, prompt_notes, warn_of
from dreamportrait.text.encoder import TextEncoder, TextFeatures
from dreamportrait.text.loading import load_clip, load_text_encoder
from dreamportrait.weights.hashing import weights_hash
from dreamportrait.weights.seals import seal
from eg3d_ops._checks import check_int, check_number

BATCH = 8  # portraits made at once
EMBEDDED = "(prompt_embeds)"  # the prompt of portraits that were made from text features

_log = logging.getLogger(__name__)


class DreamPortraitPipeline(ModelHubMixin):
    """A text-conditioned generator with the text encoder it was trained with."""

    def __init__(
        self,
        generator: PortraitGenerator,
        encoder: TextEncoder,
        text: TextSource,  # what the encoder was loaded from
        *,
        licence: str,  # of the generator's weights
        pretrained: str,  # the generator that the training started from
        name: str | None = None,  # of the model, which files that it makes state as their origin
        inverter: Inverter | None = None,  # from pictures to w; `invert` starts there
    ) -> None:
        wanted = generator.conditioning.text_width
        if encoder.tower.width != wanted:
            raise ValueError(
                f"{text.clip} gives text features of {encoder.tower.width} channels, but the generator was equipped "
                f"for {wanted}; load the text encoder that it was trained with"
            )
        self.generator, self.encoder, self.text = generator, encoder, text
        self.licence, self.pretrained, self.name, self.inverter = licence, pretrained, name, inverter
        self._progress: dict[str, Any] = {"disable": None, "leave": False}  # None: shown on terminals only
        self._world: OwnWorld | None = None  # of the model's pictures; made for the first photo

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the base class reads arguments of __init__ from config.json
        cls,
        source: str | Path,
        *,
        precision: str = "float32",  # of the layers that tolerate "float16" or "bfloat16"
        device: torch.device | str = "cpu",
        offline: bool = False,  # never use the network; what comes from the hub must be in the hub's cache
        revision: str | None = None,  # of a model on the hub: branch, tag or commit. None = the newest
        token: str | bool | None = None,  # for the hub. None = the one that `hf auth login` stored
        cache_dir: str | Path | None = None,  # of the hub. None = its own
    ) -> "DreamPortraitPipeline":
        """Load "mini", which comes with the package, a folder that training or save_pretrained wrote, or owner/name.

        The last is a model on the Hugging Face hub. A folder of that name goes first.
        """
        if hub.is_hub_id(source):
            where: Any = {"revision": revision, "token": token, "cache_dir": cache_dir, "offline": offline}
            place: AbstractContextManager[Path] = hub.fetched(str(source), FILES, **where)
        else:
            place = nullcontext(locate_portrait(source))
        with place as folder:
            config, portrait = load_portrait_config(folder), load_portrait(folder, precision)
        encoder = load_text_encoder(config.text.clip, offline, device)
        generator = portrait.generator.to(device).requires_grad_(False)
        about: dict[str, Any] = {"licence": config.licence, "pretrained": config.pretrained, "name": str(source)}
        return cls(generator, encoder, config.text, **about, inverter=portrait.inverter)

    def save_pretrained(  # type: ignore[override]  # the base class deletes an old config.json before it writes
        self,
        folder: str | Path,
        overwrite: bool = False,
        *,
        push_to_hub: bool = False,
        repo_id: str | None = None,  # on the hub. None = the folder's name
        **push: Any,  # arguments of push_to_hub
    ) -> str | None:
        """Save the generator, the name of its text encoder and a model card. There is no discriminator to save.

        Return the address of the commit if it is pushed.
        """
        card = {"name": repo_id or Path(folder).name, **(push.pop("model_card_kwargs", None) or {})}
        if not push_to_hub and (unused := [name for name, value in push.items() if value is not None]):
            raise TypeError(f"{', '.join(unused)}: only with push_to_hub=True")
        with new_folder(folder, overwrite, (*FILES, hub.CARD)) as staging:
            about: dict[str, Any] = {"licence": self.licence, "pretrained": self.pretrained, "inverter": self.inverter}
            save_portrait(staging, self.generator, None, self.text, **about)
            self.generate_model_card(**card).save(staging / hub.CARD)
            seal(staging)
        return self.push_to_hub(card["name"], **push) if push_to_hub else None

    def push_to_hub(self, repo_id: str, **settings: Any) -> str:
        """Upload the model to the Hugging Face hub and return the address of the commit.

        Settings: private, token, branch, create_pr, commit_message and others of huggingface_hub's ModelHubMixin.
        """
        if Path(self.text.clip).exists():
            _log.warning(
                f"the text encoder is {self.text.clip}, a path on this machine; elsewhere the model cannot load"
            )
        return str(super().push_to_hub(repo_id, model_card_kwargs={"name": repo_id}, **settings))

    def generate_model_card(self, name: str = "model") -> ModelCard:
        """Return a card with licence, text encoder and use, for people and for the hub's search."""
        g = self.generator
        millions = sum(parameter.numel() for parameter in g.parameters()) / 1e6
        facts = [
            ("pictures", f"{g.config.image_resolution} x {g.config.image_resolution}"),
            ("parameters", f"{millions:.2f} million"),
            ("trained from", self.pretrained),
            ("text encoder", self.text.clip),
            ("licence of the weights", self.licence),
        ]
        text = hub.card_text(name, facts, self.licence)
        return ModelCard(f"---\n{hub.card_data(self.licence).to_yaml()}\n---\n\n{text}")

    @cached_property
    def claim(self) -> Claim:
        """What files of its portraits say about their origin, unless `provenance=False` is given."""
        digest = weights_hash(self.generator.generator)
        return Claim(model_sha256=digest) if self.name is None else claim_for(self.name, digest)

    @property
    def device(self) -> torch.device:
        return next(self.generator.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the layers that tolerate less than float32. Weights and all other layers are float32."""
        return self.generator.config.low_precision_dtype

    def to(
        self, device: torch.device | str | torch.dtype | None = None, dtype: torch.dtype | None = None
    ) -> "DreamPortraitPipeline":
        """Move the networks to a device, set the dtype of the layers that tolerate it, and return the pipeline."""
        if isinstance(device, torch.dtype):  # pipe.to(torch.float16)
            device, dtype = None, device
        if dtype is not None:
            names = {value: name for name, value in PRECISIONS.items()}
            if dtype not in names:
                raise ValueError(f"dtype={dtype}: must be one of {', '.join(f'torch.{name}' for name in PRECISIONS)}")
            self.generator = in_precision(self.generator, names[dtype])
        if device is not None:
            self.generator.to(device)
            self.encoder.to(device)
        return self

    def set_progress_bar_config(self, **settings: Any) -> None:
        """Change the progress bar by settings of tqdm; `disable=True` turns it off."""
        self._progress |= settings

    def encode_prompt(self, prompt: str | list[str] | tuple[str, ...]) -> TextFeatures:
        """Return the text features of one or several prompts, to be given as `prompt_embeds`."""
        prompts = check_prompts(prompt)
        warn_of(prompts, self.encoder)
        return self.encoder.encode(prompts)

    def prompt_notes(self, prompt: str) -> list[str]:
        """Return what is to be said about a prompt: unknown words, what is cut, that it is empty. See the warnings."""
        return prompt_notes(prompt, self.encoder)

    def load_portrait(self, path: str | Path) -> Portrait:
        """Load a portrait that Portrait.save wrote. It must have been made by this model."""
        return Portrait.load(path, self.generator.generator, self.claim)

    def invert(
        self,
        photo: str | Path | Image.Image,  # square, cropped as the training pictures are
        *,
        cameras: Cameras | None = None,  # one, that the photo was taken with. None = found by trial
        steps: int = 100,
        tuning_steps: int = 60,
        num_views: int = 5,
        offline: bool = False,  # never use the network for the CLIP that looks at the photo
    ) -> Inversion:
        """Find the portrait that looks like a photo. It can be turned, exported, and edited by text."""
        image = read_photo(photo, self.generator.config.image_resolution).to(self.device)
        camera = None if cameras is None else camera_labels(cameras)
        if camera is not None and len(camera) != 1:
            raise ValueError(f"{len(camera)} cameras for one photo; give the one that it was taken with")
        check_int("steps", steps, 0)
        check_int("tuning_steps", tuning_steps, 0)
        see = world = None
        if self.inverter is not None:
            see = PictureFeatures(load_clip(self.text.clip, offline, self.device).model)
            world = self._world = self._world or self._own_world(see)
        labels = view_cameras(self.generator.config, num_views)
        rest: dict[str, Any] = {"steps": steps, "tuning_steps": tuning_steps, "progress": self._progress}
        return invert(self, image, see, world, camera=camera, cameras=labels, **rest)

    def _own_world(self, see: PictureFeatures) -> OwnWorld:
        """Look at pictures of the model's own, to know later whether a photo is like them."""
        with tqdm(total=PICTURES, desc="own pictures", **self._progress) as bar:
            return OwnWorld(features_of_own_pictures(self.generator.generator, see, bar.update))

    @torch.no_grad()
    def mix(
        self,
        prompts: str | list[str] | tuple[str, ...],
        seed: int | Sequence[int] = 0,  # of the identity: one for all prompts, or one for each
        num_views: int = 1,
        *,
        cameras: Cameras | None = None,
        truncation: float = 1.0,
        strength: float = 1.0,
        yaw_range: tuple[float, float] = YAW_RANGE,
    ) -> Mix:
        """Prepare a mix of several prompts, or of several seeds of one prompt. The Mix makes the portraits."""
        texts = check_prompts(prompts)
        count = len(seed) if isinstance(seed, Sequence) and len(texts) == 1 else len(texts)
        if count < 2:
            raise ValueError("a mix needs several prompts, or several seeds of one prompt")
        texts = texts * count if len(texts) == 1 else texts
        seeds, z = draw_identities(seed, None, count, self.generator.config.z_dim)
        check_shares(truncation, strength)
        labels = view_cameras(self.generator.config, num_views, cameras, yaw_range)
        warn_of(texts, self.encoder)
        text, front = self.encoder.encode(texts).to(self.device), self.generator.config.around([0.0]).to(self.device)
        ws = self.generator.map(z.to(self.device), front.expand(count, -1), text, truncation, strength=strength)
        return Mix(self.generator, tuple(texts), tuple(seeds), ws, text, labels, strength, self.claim)

    @overload
    def __call__(
        self,
        prompt: str,
        seed: int | None = ...,
        num_views: int = ...,
        *,
        generator: RandomNumbers | None = ...,
        cameras: Cameras | None = ...,
        truncation: float = ...,
        strength: float = ...,
        yaw_range: tuple[float, float] = ...,
        batch_size: int = ...,
        steps: int | None = ...,
        guidance_scale: float = ...,
    ) -> Portrait: ...

    @overload
    def __call__(
        self,
        prompt: str,
        seed: int | Sequence[int] | None = ...,
        num_views: int = ...,
        *,
        num_images_per_prompt: int,
        generator: RandomNumbers | None = ...,
        cameras: Cameras | None = ...,
        truncation: float = ...,
        strength: float = ...,
        yaw_range: tuple[float, float] = ...,
        batch_size: int = ...,
        steps: int | None = ...,
        guidance_scale: float = ...,
    ) -> Portraits: ...

    @overload
    def __call__(
        self,
        prompt: list[str] | tuple[str, ...] | None = ...,
        seed: int | Sequence[int] | None = ...,
        num_views: int = ...,
        *,
        num_images_per_prompt: int | None = ...,
        prompt_embeds: TextFeatures | None = ...,
        generator: RandomNumbers | None = ...,
        cameras: Cameras | None = ...,
        truncation: float = ...,
        strength: float = ...,
        yaw_range: tuple[float, float] = ...,
        batch_size: int = ...,
        steps: int | None = ...,
        guidance_scale: float = ...,
    ) -> Portraits: ...

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | tuple[str, ...] | None = None,
        # Of the identity: one for all prompts, or one for each. None = 0. With num_images_per_prompt it is the first.
        seed: int | Sequence[int] | None = None,
        num_views: int = 1,  # evenly spaced over yaw_range; a single one is in its middle
        *,
        num_images_per_prompt: int | None = None,  # identities of each prompt. None = one
        prompt_embeds: TextFeatures | None = None,  # from encode_prompt, replaces prompt
        generator: RandomNumbers | None = None,  # draws the identities, replaces seed: one, or one for each portrait
        cameras: Cameras | None = None,  # labels of 25 numbers, replaces num_views
        truncation: float = 1.0,  # 0 .. 1: smaller is closer to the average face, before the text acts
        strength: float = 1.0,  # of the text: 0 = the seed's own face, 1 = as trained, up to 1.5 = exaggerated
        yaw_range: tuple[float, float] = YAW_RANGE,  # degrees; see Portrait.view
        batch_size: int = BATCH,  # portraits made at once
        steps: int | None = None,  # of the text prior's flow. None = one pass, which is faster and nearly as exact
        guidance_scale: float = FLOW_SCALE,  # of these steps: larger values follow the text more closely
    ) -> Portrait | Portraits:
        """Make a Portrait from a text, or Portraits from a list of texts, or several of each text."""
        if (prompt is None) == (prompt_embeds is None):
            raise ValueError("give either prompt or prompt_embeds")
        texts = None if prompt is None else check_prompts(prompt)
        count = len(prompt_embeds.eot) if prompt_embeds is not None else len(texts or [])
        each = 1 if num_images_per_prompt is None else check_int("num_images_per_prompt", num_images_per_prompt, 1)
        if generator is None:
            seed = seeds_of_each(0 if seed is None else seed, count, each)
        seeds, z = draw_identities(seed, generator, count * each, self.generator.config.z_dim)
        check_shares(truncation, strength)
        labels = view_cameras(self.generator.config, num_views, cameras, yaw_range)
        check_int("batch_size", batch_size, 1)
        if steps is not None:
            check_int("steps", steps, 1)
        if check_number("guidance_scale", guidance_scale) < 0:
            raise ValueError(f"guidance_scale={guidance_scale}: must be at least 0; 1 is no guidance")
        names = [name for name in texts or [EMBEDDED] * count for _ in range(each)]
        if texts:
            warn_of(texts, self.encoder)
        found = []
        with self._bar(len(z)) as bar:
            for i in range(0, len(z), batch_size):
                part = slice(i, i + batch_size)
                if prompt_embeds is None:
                    text = self.encoder.encode(names[part])
                else:
                    text = _rows(prompt_embeds, [k // each for k in range(len(z))[part]])
                heads = self.generator.portray(z[part], text, truncation, steps, guidance_scale, strength)
                made = zip(names[part], seeds[part], heads, heads.views(labels), strict=True)
                found += [Portrait(*parts, self.claim) for parts in made]
                bar.update(len(heads))
        return found[0] if isinstance(prompt, str) and num_images_per_prompt is None else Portraits(found)

    def __repr__(self) -> str:
        c, g = self.generator.conditioning, self.generator
        millions = sum(p.numel() for p in g.parameters()) / 1e6
        parts = [*(["mapper"] if c.global_path else []), *(f"adapter at {name}" for name in g.adapters)]
        lines = [
            f"generator: {g.config.image_resolution} x {g.config.image_resolution}, {millions:.2f} M parameters",
            f"trained from: {self.pretrained}",
            f"text: {self.text.clip}, through {', '.join(parts)}",
            f"device: {self.device}, {str(self.dtype).removeprefix('torch.')}",
            f"licence: {self.licence}",
        ]
        return "DreamPortraitPipeline(\n" + "".join(f"  {line}\n" for line in lines) + ")"

    @contextmanager
    def _bar(self, total: int) -> Iterator[tqdm]:
        """Yield a progress bar that counts portraits."""
        with tqdm(total=total, unit=" portraits", **self._progress) as bar:
            yield bar


def _rows(text: TextFeatures, rows: list[int]) -> TextFeatures:
    return TextFeatures(text.words[rows], text.eot[rows], text.mask[rows])
