"""The stage that fits a text prior in W and puts it into the mapper: what text means is learnt without rendering.

    1. renders     what the frozen generator draws for random seeds
    2. inverter    from pictures to w, learnt from the renders
    3. pictures    features of the data set's pictures, and of their captions
    4. content     what captions say of a picture, and what a w says
    5. pairs       w of the pictures, drawn around the network's guesses so that they say the same, with the captions
    6. flow        from the seed's own w to those of pictures with such a caption
    7. gaussian    what a text says of w, and what it leaves open
    8. answers     ends of the guided flow for random seeds and captions, drawn to what the Gaussian leaves as it was
    9. mapper      learns the answers in one pass

With `pairing: embeddings`, steps 2 to 4 are left out and step 5 needs no captions of pictures: a flow from CLIP's
embeddings of the renders to their w draws a w for the embedding of each prompt. Prompts are moved by the mean
difference between embeddings of pictures and of texts.

Every step is stored in RUN/prior/ and skipped if it is there, so that a stopped run continues. A signal that asks for
the end lets a training finish its update and save its state, and the other steps finish the batch they are at. Several
processes share one result: the first one computes it, the others wait.
"""

import logging
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from dreamportrait.core.config import Prior
from dreamportrait.core.errors import WeightsError
from dreamportrait.core.signals import Signals
from dreamportrait.data.dataset import Pictures
from dreamportrait.geometry.images import from_bytes
from dreamportrait.prior.content import Teller, draws, fit_reader, fit_teller
from dreamportrait.prior.fitting import HELD, Pairs, fit_flow, fit_inverter
from dreamportrait.prior.flow import TextFlow, transport
from dreamportrait.prior.gaussian import TextGaussian, fit_gaussian
from dreamportrait.prior.inversion import Inverter, PictureFeatures
from dreamportrait.prior.one_pass import Answers, answers, fit_one_pass
from dreamportrait.prior.renders import Renders, render
from dreamportrait.prior.residuals import Guesses
from dreamportrait.systems.dreamportrait.generator import PortraitGenerator
from dreamportrait.systems.dreamportrait.mapper import PriorMapper
from dreamportrait.text.clip_scorer import ClipScorer
from dreamportrait.text.encoder import PromptEncoder
from dreamportrait.text.loading import Clip

FOLDER, MAPPER, INVERTER, PAIRS = "prior", "mapper.safetensors", "inverter.safetensors", "pairs.safetensors"
TELLER = "teller.safetensors"
# Prompts that say nothing. The mapper learns to leave w as it is.
SILENT = ("", "a face", "a person", "a photo of a person", "portrait of a person", "a 3D head of a person")
_CAPTIONS = 512  # encoded at once
FAR = 1.5  # distance from the mean, relative to the generator's own w, that is warned of
_log = logging.getLogger(__name__)


def fit_prior(
    settings: Prior,
    portrait: PortraitGenerator,
    pictures: Pictures,
    text: PromptEncoder,
    load_clip: Callable[[], Clip],  # its picture tower reads pictures
    folder: Path,
    seed: int,
    device: torch.device | str = "cpu",  # renders and reads pictures; the generator returns to the CPU
    signals: Signals | None = None,  # None = a signal ends this process at once
) -> None:
    """Fit the prior of a frozen generator, or read it from the folder, and fill the generator's mapper."""
    mapper, path = portrait.mapper, folder / MAPPER
    assert isinstance(mapper, PriorMapper)  # checked with the configuration
    folder.mkdir(parents=True, exist_ok=True)
    signals = signals or Signals()
    with FileLock(folder / "lock"):  # a process that waits for it does not collect: a signal ends it at once
        if not path.exists():
            portrait.generator.to(device)
            with signals.collected():
                _Fitting(settings, portrait, pictures, text, load_clip(), folder, seed, signals).run()
            portrait.generator.to("cpu")
            stored(path, mapper.state_dict)
    mapper.load_state_dict(load_file(path))


def fitted_inverter(folder: Path) -> Inverter | None:
    """Return the network from pictures to w that a stage left in its folder, if it made one."""
    path = folder / INVERTER
    return Inverter.of(load_file(path)) if path.exists() else None


def fitted_pairs(path: Path, w_dim: int, text_width: int) -> Pairs:
    """Read the pairs that a stage left. Raise WeightsError if they are missing or of other networks."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such pairs of w and text; name the {PAIRS} in the folder of a text prior")
    found = _pairs(load_file(path))
    sizes = found.x.shape[-1], found.text.shape[-1]
    if sizes != (w_dim, text_width):
        raise WeightsError(
            f"{path}: pairs of {sizes[0]} numbers of w and {sizes[1]} of text, this run has {w_dim} and {text_width}; "
            "name pairs of the same generator and text encoder"
        )
    return found


class _Fitting:
    """The steps of one run of the stage. They run on the CPU, except those that render or encode."""

    def __init__(
        self,
        settings: Prior,
        portrait: PortraitGenerator,
        pictures: Pictures,
        text: PromptEncoder,
        clip: Clip,
        folder: Path,
        seed: int,
        signals: Signals,
    ) -> None:
        assert isinstance(portrait.mapper, PriorMapper)
        self.signals = signals
        self.settings, self.pictures, self.text, self.folder, self.seed = settings, pictures, text, folder, seed
        self.generator, self.mapper = portrait.generator, portrait.mapper
        self.see, self.scorer = PictureFeatures(clip.model), ClipScorer(clip.model, clip.tokenizer)

    def run(self) -> None:
        s = self.settings
        known = self._renders()
        starts = self.mapper.space.fit(known.w).enter(known.w)  # [N, w_dim]
        pairs = self._from_captions(known, starts) if s.pairing == "captions" else self._from_embeddings(known, starts)
        flow = self._flow(self.mapper.flow, starts, pairs, "flow", self._teller())
        self.mapper.flow.load_state_dict(flow.state_dict())
        self._one_pass(starts, pairs)

    @contextmanager
    def _bar(self, title: str, total: int) -> Iterator[Callable[[int], object]]:
        """Show a progress bar. The function that it yields raises Interrupted when a signal was noted."""
        with bar(title, total) as report:

            def reported(count: int) -> None:
                report(count)
                self.signals.check(f"stopped during {title}; the same command continues with what is in {self.folder}")

            yield reported

    def _training(self, steps: int) -> dict[str, Any]:
        """Return the arguments that all trainings share."""
        return {"steps": steps, "batch": self.settings.batch, "seed": self.seed, "signals": self.signals}

    def _renders(self) -> Renders:
        place, cameras, s = self.folder / "renders", self.pictures.cameras, self.settings
        with self._bar("renders of the generator", s.faces) as report:
            return render(self.generator, self.see, self.scorer, cameras, s.faces, place, seed=self.seed, report=report)

    def _flow(self, flow: TextFlow, starts: Tensor, pairs: Pairs, name: str, tell: Teller | None = None) -> TextFlow:
        s = self.settings
        flow = deepcopy(flow).requires_grad_(True)  # the mapper's own is frozen
        return fit_flow(
            flow,
            starts,
            pairs,
            self.folder / name,
            coupling=s.coupling,
            tell=tell,
            **self._training(s.flow_steps),
        )

    # Pairs of w and text.

    def _from_captions(self, known: Renders, starts: Tensor) -> Pairs:
        """Return the coordinates of the data set's pictures with the features of their captions."""
        s, place = self.settings, self.folder / "inverter"
        inverter, error = fit_inverter(
            self.see.maps(),
            known.features,
            starts,
            place,
            **self._training(s.inverter_steps),
        )
        stored(self.folder / INVERTER, inverter.state_dict)
        print(f"picture to w: {100 * error:.1f} % of the variance unexplained, on unseen renders", flush=True)
        return _pairs(stored(self.folder / PAIRS, partial(self._invert, inverter, known, starts)))

    def _invert(self, inverter: Inverter, known: Renders, starts: Tensor) -> dict[str, Tensor]:
        """Return draws of the pictures' w, and the features of their captions."""
        s, seen = self.settings, stored(self.folder / "pictures.safetensors", self._look)
        given = self._training(s.content_steps)
        place = self.folder / "content"
        both = seen["features"], seen["text"]
        read, error = fit_reader(self.see.maps(), *both, known.features, place / "reader", **given)
        print(f"what pictures say: {100 * error:.1f} % of what captions say unexplained", flush=True)
        teller, error = fit_teller(starts, read(known.features), place / "teller", **given)
        print(f"what w says: {100 * error:.1f} % of the variance unexplained, on unseen renders", flush=True)
        stored(self.folder / TELLER, teller.state_dict)
        guesses = Guesses.of(inverter, known.features, starts, held=len(starts) // HELD)
        with torch.no_grad():
            x = torch.cat([inverter(part.float()) for part in seen["features"].split(_CAPTIONS)])
        return {"x": draws(teller, x, guesses, read(seen["features"])).half(), "text": seen["text"]}

    def _teller(self) -> Teller | None:
        """Return the network that tells what a w says. Pairs without pictures have none."""
        return Teller.of(load_file(self.folder / TELLER)) if self.settings.pairing == "captions" else None

    @torch.no_grad()
    def _look(self) -> dict[str, Tensor]:
        """Return features of the data set's pictures [P, F], and of their captions [P, K, Ct]."""
        s, found, said = self.settings, [], []
        count = min(s.pictures or len(self.pictures), len(self.pictures))
        with self._bar("pictures of the data set", count) as report:
            for numbers in range(0, count, part := max(1, _CAPTIONS // s.captions)):
                chosen = range(numbers, min(numbers + part, count))
                found.append(self._seen(torch.stack([self.pictures.image(i) for i in chosen])).half())
                captions = [caption for i in chosen for caption in self._captions(i)]
                said.append(self.text.encode(captions).eot.half().cpu().view(len(chosen), s.captions, -1))
                report(len(chosen))
        return {"features": torch.cat(found), "text": torch.cat(said)}

    def _seen(self, images: Tensor) -> Tensor:  # uint8 [N, 3, R, R] -> [N, F]
        device = next(self.generator.parameters()).device
        return self.see(from_bytes(images.to(device))).float().cpu()

    def _captions(self, index: int) -> list[str]:
        """Return as many captions of a picture as are configured. If it has fewer, they are repeated."""
        captions = self.pictures.captions(index)
        return [captions[i % len(captions)] for i in range(self.settings.captions)]

    def _from_embeddings(self, known: Renders, starts: Tensor) -> Pairs:
        """Return coordinates that a language-free flow draws for prompts, with the features of these prompts."""
        s = self.settings
        own = Pairs(starts[:, None], known.embeddings[:, None], noise=s.noise)
        flow = self._flow(TextFlow(starts.shape[1], known.embeddings.shape[1]), starts, own, "language-free")
        draw = partial(self._draw, flow, starts, known.embeddings.mean(0))
        return _pairs(stored(self.folder / PAIRS, draw))

    @torch.no_grad()
    def _draw(self, flow: TextFlow, starts: Tensor, centre: Tensor) -> dict[str, Tensor]:
        s = self.settings
        count = min(s.pictures or len(self.pictures), len(self.pictures))
        prompts = [caption for i in range(count) for caption in self._captions(i)]
        embedded, said = [], []
        with self._bar("prompts", len(prompts)) as report:
            for i in range(0, len(prompts), _CAPTIONS):
                part = prompts[i : i + _CAPTIONS]
                embedded.append(self.scorer.text_features(part).cpu())
                said.append(self.text.encode(part).eot.half().cpu())
                report(len(part))
        texts = torch.cat(embedded)
        texts = texts - texts.mean(0) + centre
        draw = torch.Generator().manual_seed(self.seed)
        start = starts[torch.randint(len(starts), (len(texts),), generator=draw)]
        parts = zip(start.split(4096), texts.split(4096), strict=True)
        x = torch.cat([transport(flow, *part, s.steps, s.scale) for part in parts])
        return {"x": x[:, None], "text": torch.cat(said)[:, None]}

    # One pass.

    def _one_pass(self, starts: Tensor, pairs: Pairs) -> None:
        s, mapper = self.settings, self.mapper
        answer = partial(self._answer, starts, pairs)
        answered = Answers(**stored(self.folder / "answers.safetensors", answer))
        mapper.standard.fit(pairs.text.flatten(0, 1).float())
        heard = Answers(answered.start, mapper.standard(answered.text.float()), answered.end)
        net, place = deepcopy(mapper.net).train().requires_grad_(True), self.folder / "one-pass"
        net, error = fit_one_pass(net, heard, place, **self._training(s.one_pass_steps))
        mapper.net.load_state_dict(net.state_dict())
        _check_range(answered)
        print(f"one pass: mean squared error {error:.4f} on unseen seeds and captions", flush=True)

    def _answer(self, starts: Tensor, pairs: Pairs) -> dict[str, Tensor]:
        s, null = self.settings, self.text.encode(list(SILENT)).eot.cpu().float()
        gaussian = self._gaussian(pairs) if s.stay else None
        with self._bar("answers of the prior", s.answers) as report:
            found = answers(
                self.mapper.flow,
                starts,
                pairs.text.flatten(0, 1),
                null,
                s.answers,
                steps=s.steps,
                scale=s.scale,
                seed=self.seed,
                gaussian=gaussian,
                stay=s.stay,
                report=report,
            )
        return vars(found)

    def _gaussian(self, pairs: Pairs) -> TextGaussian:
        """Learn what a text says of w, and what it leaves open."""
        text = self.mapper.flow.standard(pairs.text.float())  # [P, K, Ct]
        given = self._training(2 * self.settings.content_steps)
        found, surprise = fit_gaussian(pairs.x, text, self.folder / "gaussian", **given)
        print(f"what texts leave open: surprise {surprise:.3f} at unseen pairs, 0.5 without texts", flush=True)
        return found


def _check_range(known: Answers) -> None:
    """Warn if the prior's w are much further from the mean than the generator's own."""
    own, ends = (float(x.square().mean().sqrt()) for x in (known.start, known.end))
    if ends > FAR * own:
        _log.warning(
            "the prior's w lie %.1f times as far from the mean as the generator's own, so its faces may break; "
            "lower stages.0.prior.scale, or give the flow more pairs",
            ends / own,
        )


def _pairs(tensors: dict[str, Tensor]) -> Pairs:
    if tensors["x"].ndim != 3:
        raise WeightsError("pairs of another version of dreamportrait; begin the run anew under another name")
    return Pairs(tensors["x"], tensors["text"])


def stored(path: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors in a file. If it is missing, write those of make() to it first."""
    if not path.exists():
        unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        save_file({name: value.contiguous() for name, value in make().items()}, unfinished)
        os.replace(unfinished, path)
    return load_file(path)


@contextmanager
def bar(title: str, total: int) -> Iterator[Callable[[int], object]]:
    """Show a progress bar. Yield a function to be called with the number of things that were done."""
    with tqdm(total=total, desc=title, mininterval=5) as shown:
        yield shown.update
