"""The training step of the text-to-3D generator: it updates the networks from one batch.

Everything that changes during training is a function of the number of images seen, because Lightning's step counter
counts the steps of both optimisers. Each part of a batch holds every k-th image of the batch and has its own random
seed, made of the run's seed and the number of the part's first image. Therefore a run that was stopped and resumed is
bit-identical to an uninterrupted one, and N processes compute the same as one process with N accumulated parts.
"""

import copy
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from dreamportrait.core.processes import average_over_processes
from dreamportrait.data.dataset import Batch, Conditions
from dreamportrait.eg3d.triplane import Rendering
from dreamportrait.geometry.images import antialiased
from dreamportrait.guidance.differences import js_weights
from dreamportrait.guidance.fake_score import Fakes, Lesson
from dreamportrait.guidance.guides import Guide, MatchingGuide
from dreamportrait.prior.pair_critic import Drawn, PairGame
from dreamportrait.systems.dreamportrait.balance import GAN, GUIDANCE, Balance, gradient_lengths
from dreamportrait.systems.dreamportrait.config import Config
from dreamportrait.systems.dreamportrait.continuing import fitted
from dreamportrait.systems.dreamportrait.critic import Critic
from dreamportrait.systems.dreamportrait.generator import PortraitGenerator
from dreamportrait.systems.dreamportrait.mapper import PriorMapper
from dreamportrait.systems.dreamportrait.step_settings import (
    StepSettings,
    adam_settings,
    make_optimizers,
    step_settings,
)
from dreamportrait.systems.dreamportrait.warming import warm_up
from dreamportrait.training.every import CountedModule
from dreamportrait.training.loop import step_seed
from dreamportrait.training.losses import (
    blur,
    density_points,
    density_regularization,
    discriminator_loss,
    generator_loss,
    mismatch_loss,
    r1_penalty,
    swapped,
)
from dreamportrait.training.resting import resting
from dreamportrait.training.scaling import LossScale
from dreamportrait.training.schedule import Ema, ema_beta

Identities = tuple[Tensor, Tensor]  # z [N, z_dim], the cameras that condition them [N, 25]
Lessons = tuple[Fakes, list[Lesson]]  # latents of a part, the draws of each update of the fake score
OPTIMIZERS = {
    "generator": ("generator", "mapper", "adapters"),
    "discriminator": ("discriminator",),
    "fake_score": ("fake_score",),
    "pair_critic": ("pair_critic",),
}  # the parameter groups of each optimiser
PAIRS = 8  # of w and text, for each picture of a batch


class DreamPortraitModule(CountedModule):
    """The networks of a training with their losses and optimisers, for Lightning's trainer."""

    def __init__(
        self,
        generator: PortraitGenerator,
        critic: Critic,
        config: Config,
        guide: Guide | None = None,
        pair_game: PairGame | None = None,  # needed if loss.pair_weight is above 0
    ) -> None:
        super().__init__()
        if config.needs_guidance and guide is None:
            raise ValueError(f"guidance.kind={config.guidance.kind} and no guide was given; make one, or choose none")
        if config.loss.pair_weight and pair_game is None:
            raise ValueError(f"loss.pair_weight={config.loss.pair_weight} and no pairs were given; give some, or set 0")
        self.automatic_optimization = False  # several optimisers take turns
        self.config: Config = config
        self.generator, self.critic, self.guide = generator, critic, guide
        self.matching = guide if isinstance(guide, MatchingGuide) else None
        self.fake_score = None if self.matching is None else self.matching.fake_score
        self.pair_game = pair_game
        self.pair_critic = None if pair_game is None else pair_game.critic
        self.generator.generator.requires_grad_(not config.model.freeze_generator)
        self.critic.requires_grad_(not config.model.freeze_discriminator)
        # The mapper as a text prior filled it: the identity is preserved relative to what the prior says.
        prior = generator.mapper if isinstance(generator.mapper, PriorMapper) else None
        self.prior = None if prior is None else copy.deepcopy(prior).requires_grad_(False)
        self.balance = Balance(config.loss)
        self.average = Ema(generator)
        assert isinstance(self.average.module, PortraitGenerator)
        # The average does not depend on the mode, but Lightning warns about modules in evaluation mode.
        self.averaged = self.average.module.train()
        self.images, self.losses, self.measured = 0, {}, {}
        half = config.trainer.precision == "float16"
        self.scales = {name: LossScale(dynamic=half) for name in OPTIMIZERS}

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        now, c = step_settings(self.config, self.images), self.config.loss
        parts = self.split(batch, now.stage.accumulate)
        identities, fakes, lessons, pairs = [], [], [], []
        self.losses = {}
        if now.taught:
            warm_up(self, now)
        if now.weighed or not self.balance.knows(now.guided):
            self.weigh(parts, now)

        # Generator step: adversarial loss, guidance, identity preservation, density smoothness.
        with resting(self.critic):
            for i, part in enumerate(parts):
                self._seed_part(i)
                identity = self.draw_identities(part, now)
                planes, fake = self.portray(identity, part.fake)
                logits = self.judge_fake(fake, part.fake, now)
                loss = c.gan_weight * self.note("generator", generator_loss(logits))
                if now.guided and self.guide:
                    aligned = self.align(fake.image, part.fake, logits)
                    loss = loss + self.balance.guidance_weight * self.note("guidance", aligned)
                if c.keep_weight and self.generator.mapper is not None and part.fake.text is not None:
                    moved = self.generator.moved(*identity, part.fake.text, self.prior).square().mean()
                    loss = loss + c.keep_weight * self.note("keep", moved)
                if self.pair_game is not None:
                    drawn = self.draw_pairs(self.pair_game, part)
                    told = self.note("pairs", self.pair_game.mapper_loss(drawn))
                    loss = loss + c.pair_weight * told
                    pairs.append(Drawn(*(x.detach() for x in drawn)))
                if now.density_due:
                    points = density_points(len(part), device=planes.device)
                    smooth = density_regularization(self.generator.generator, planes, *points)
                    loss = loss + c.density_every * c.density_weight * self.note("density", smooth)
                self.backpropagate("generator", loss / len(parts))
                if now.taught and self.matching is not None:
                    lessons.append(self.matching.draw_lessons(self.config.fake.updates))
                identities.append(identity)
                fakes.append(Rendering(*(x.detach() for x in fake)))
        self.update("generator")
        self.follow_centre(identities)

        # Fake score step: the loss of a denoiser on the latents of the generated pictures.
        if now.taught:
            self.teach(lessons, now)

        # Step of the critic of pairs: adversarial loss, mismatched captions, R1 penalty.
        if self.pair_game is not None:
            for drawn in pairs:
                loss = self.note("pair_critic", self.pair_game.critic_loss(drawn))
                self.backpropagate("pair_critic", loss / len(parts))
            self.update("pair_critic")

        # Discriminator step: adversarial loss, mismatched prompts, R1 penalty.
        if not self.config.model.freeze_discriminator:
            for part, fake in zip(parts, fakes, strict=True):
                real, passed = self.judge_real(part, now), self.judge_fake(fake, part.fake, now)
                loss = self.note("discriminator", discriminator_loss(real, passed))
                if self.critic.reads:
                    loss = loss + self.note("mismatch", mismatch_loss(self.judge_mismatched(part, now)))
                self.backpropagate("discriminator", loss / len(parts))
                if now.r1_due:
                    slope = self.note("r1", self.r1_at_real(part, now))
                    self.backpropagate("discriminator", c.r1_every * c.r1_gamma / 2 * slope / len(parts))
            self.update("discriminator")

        self.average.update(self.generator, self._ema_beta())
        self.images += self.config.data.batch

    # Parts of the training step.

    def draw_identities(self, part: Batch, now: StepSettings) -> Identities:
        """Draw latents and the cameras that condition them. Drawing on the CPU makes them the same on every device."""
        z, draws = torch.randn(len(part), self.generator.config.z_dim), torch.rand(len(part), 1)
        camera = part.fake.camera
        return z.to(camera), swapped(camera, now.swap, draws.to(camera), other=part.real.camera)

    def portray(self, identity: Identities, asked: Conditions) -> tuple[Tensor, Rendering]:
        """Return planes [N, 3, C, H, W] and their rendering from the cameras of `asked`."""
        ws = self.generator.map(*identity, asked.text)
        planes = self.generator.synthesize_planes(ws, asked.text, noise="random")
        return planes, self.generator.render(planes, asked.camera, w=ws, draws="random")

    def draw_pairs(self, game: PairGame, part: Batch) -> Drawn:
        """Draw pairs of the text prior, and let the mapper answer their captions for new seeds."""
        mapper = self.generator.mapper
        assert isinstance(mapper, PriorMapper)  # checked with the configuration
        camera = part.fake.camera.repeat(PAIRS, 1)
        x, text = game.draw(len(camera), camera.device)
        z = torch.randn(len(camera), self.generator.config.z_dim).to(camera)
        with torch.no_grad():
            w = self.generator.generator.map(z, camera)[:, 0]
        return Drawn(x, text, mapper.space.enter(w) + mapper.offset(w, text))

    def align(self, images: Tensor, asked: Conditions, logits: Tensor) -> Tensor:  # []
        """Return the guidance loss. logits: of the discriminator, by which divergence=js weights the samples."""
        assert self.guide is not None
        given = images, asked.prompts, asked.camera
        if self.config.guidance.divergence == "js":
            return self.guide(*given, js_weights(logits))
        return self.guide(*given)

    def weigh(self, parts: Sequence[Batch], now: StepSettings) -> None:
        """Measure the gradients of adversarial loss and guidance at this step's pictures. The step draws them again."""
        if now.stage_begins:
            self.balance.start()
        found: dict[str, Tensor] = {}
        with resting(self.critic):
            for i, part in enumerate(parts):
                self._seed_part(i)
                with torch.no_grad():
                    _, fake = self.portray(self.draw_identities(part, now), part.fake)
                fake = fake._replace(image=fake.image.requires_grad_())
                logits = self.judge_fake(fake, part.fake, now)
                losses = {GAN: generator_loss(logits)}
                if now.guided:
                    losses[GUIDANCE] = self.align(fake.image, part.fake, logits.detach())
                for name, length in gradient_lengths(fake.image, losses).items():
                    found[name] = found.get(name, torch.zeros_like(length)) + length / len(parts)
        average_over_processes(list(found.values()))
        self.balance.add({name: float(length) for name, length in found.items()})
        self.measured |= self.balance.report()

    def teach(self, lessons: Sequence[Lessons], now: StepSettings) -> None:
        """Update the fake score on the latents of this step, once for each of their draws."""
        assert self.fake_score is not None
        if now.monitored:
            for fakes, draws in lessons:
                for name, value in self.fake_score.monitors(fakes, draws[0]).items():
                    self.note(name, value)
        for k in range(self.config.fake.updates):
            for fakes, draws in lessons:
                loss = self.fake_score.loss(fakes, draws[k])
                self.backpropagate("fake_score", loss / len(lessons))
                if k == 0:
                    self.note("fake_score", loss)
            self.update("fake_score")

    def judge_fake(self, fake: Rendering, asked: Conditions, now: StepSettings) -> Tensor:  # logits [N, 1]
        logits: Tensor = self.critic(blur(fake.image, now.sigma), fake.image_raw, asked.camera, self._read(asked))
        return logits

    def judge_real(self, part: Batch, now: StepSettings) -> Tensor:  # logits [N, 1]
        logits: Tensor = self.critic(*self._shown(part, now), part.real.camera, self._read(part.real))
        return logits

    def judge_mismatched(self, part: Batch, now: StepSettings) -> Tensor:  # logits [N, 1]
        """Return the logits of real pictures, each with the prompt of another picture."""
        read = self._read(part.real)
        assert read is not None
        logits: Tensor = self.critic(*self._shown(part, now), part.real.camera, read.roll(1, 0))
        return logits

    def r1_at_real(self, part: Batch, now: StepSettings) -> Tensor:  # []
        def judge(image: Tensor, raw: Tensor, camera: Tensor) -> Tensor:
            logits: Tensor = self.critic(image, raw, camera, self._read(part.real))
            return logits

        return r1_penalty(judge, *self._shown(part, now), part.real.camera).mean()

    def backpropagate(self, name: str, loss: Tensor) -> None:
        """Add the gradients of a loss for the named optimiser, multiplied by its scale."""
        (loss * self.scales[name].value).backward()

    def scale_of(self, optimizer: torch.optim.Optimizer) -> LossScale:
        # A group without weights to train is left out, so the first one need not have the optimiser's name.
        group = optimizer.param_groups[0]["name"]
        return next(self.scales[name] for name, groups in OPTIMIZERS.items() if group in groups)

    def update(self, name: str) -> None:
        """Average the gradients over all processes and take one step of the named optimiser.

        In float16, the guard leaves out a step whose gradients are not finite.
        """
        optimizer = self._optimizer(name)
        parameters = (p for group in optimizer.param_groups for p in group["params"])
        gradients = [p.grad for p in parameters if p.grad is not None]
        average_over_processes(gradients)
        self.scales[name].unscale(gradients)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def follow_centre(self, identities: Sequence[Identities]) -> None:
        """Update the average w, towards which truncation draws, with the newest identities."""
        if self.config.model.freeze_generator:
            return
        z, camera = (torch.cat(values) for values in zip(*identities, strict=True))
        self.generator.generator.map(z, camera, update_average=True)
        average_over_processes([self.generator.generator.backbone.mapping.w_avg])

    def note(self, name: str, loss: Tensor) -> Tensor:
        """Record a loss for the log and the guard, as the mean over the parts of this process, and return it."""
        part = loss.detach() / step_settings(self.config, self.images).stage.accumulate
        self.losses[name] = self.losses[name] + part if name in self.losses else part
        return loss

    # Optimisers and checkpoints.

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        groups = {
            "generator": list(self.generator.generator.parameters()),
            "mapper": [] if self.generator.mapper is None else list(self.generator.mapper.parameters()),
            "adapters": list(self.generator.adapters.parameters()),
            "discriminator": list(self.critic.parameters()),
            "fake_score": [] if self.fake_score is None else list(self.fake_score.parameters()),
            "pair_critic": [] if self.pair_critic is None else list(self.pair_critic.parameters()),
        }
        return make_optimizers(groups, OPTIMIZERS.values(), self.config)

    def on_train_start(self) -> None:
        """Set the configured learning rates after a checkpoint was loaded, so that a resumed run may change them."""
        settings = adam_settings(self.config)
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group.update(asdict(settings[group["name"]]))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["images"] = self.images
        checkpoint["measured"] = dict(self.measured)
        checkpoint["scales"] = {name: scale.state_dict() for name, scale in self.scales.items()}
        checkpoint["balance"] = self.balance.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint.update(fitted(checkpoint, self, self.configure_optimizers(), self.config))
        self.images, self.measured = int(checkpoint["images"]), dict(checkpoint["measured"])
        if "balance" in checkpoint:  # older checkpoints have none; it is measured again
            self.balance.load_state_dict(checkpoint["balance"])
        for name, state in checkpoint.get("scales", {}).items():
            self.scales[name].load_state_dict(state)

    # Helpers.

    def split(self, batch: Batch, count: int) -> list[Batch]:
        processes, whole = self.trainer.world_size, self.config.data.batch
        if len(batch) * processes != whole or len(batch) % count:
            raise ValueError(
                f"a batch of {len(batch)} in each of {processes} processes, in {count} parts: must be equal parts of "
                f"data.batch={whole}; choose data.batch and accumulate accordingly"
            )
        return [batch.part(i, count) for i in range(count)]

    def _seed_part(self, index: int) -> None:
        first = self.images + self.trainer.global_rank + index * self.trainer.world_size
        torch.manual_seed(step_seed(self.config.run.seed, first))

    def _shown(self, part: Batch, now: StepSettings) -> tuple[Tensor, Tensor]:
        """Return the real pictures as the discriminator sees them: final and raw."""
        image = part.image
        raw = antialiased(image, self.generator.config.render_resolution)
        return blur(image, now.sigma), blur(raw, now.sigma)

    def _read(self, conditions: Conditions) -> Tensor | None:
        return conditions.text.eot if self.critic.reads and conditions.text is not None else None

    def _optimizer(self, name: str) -> Any:
        """Return the optimiser in Lightning's wrapper, which notifies the callbacks of each update."""
        optimizers = self.optimizers()
        found = optimizers if isinstance(optimizers, list) else [optimizers]
        return next(each for each in found if each.param_groups[0]["name"] in OPTIMIZERS[name])

    def _ema_beta(self) -> float:
        # The networks are pretrained, so the average needs no ramp-up, which would discard a random initialisation.
        return ema_beta(self.images, self.config.data.batch, self.config.optim.ema_images, rampup=None)
