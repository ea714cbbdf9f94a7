"""How a network is trained."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ouroloop.config.section import Added, Number, Section, Temperature, Whole


class TrainConfig(Section):
    """AdamW, or Muon and AdamW, with warm-up and a cosine decay; the weights of the lowest validation loss win."""

    num_steps: Whole = Field(ge=1)
    """Length of the training of each generation, at most. Unit: optimizer steps."""
    batch_size: Whole = Field(ge=1)
    """How much is computed at once, drawn at random, and how much a step sees unless it accumulates. The epochs are
    num_steps x batch_size / m, with m a tenth less for validation. Unit: texts."""
    accumulate: Annotated[Whole, Added()] = Field(default=1, ge=1, le=100_000)
    """How many batches a step sums the gradients of: in effect one batch of that many times batch_size, in the
    memory of one. Unit: batches."""
    batching: Literal["packed", "padded"] = "packed"
    """Whether a batch is one row of all its tokens or, the plain way, which works for any causal LM, has a row for each
    text, padded to the longest."""
    learning_rate: Number = Field(gt=0, le=1)
    """Peak of AdamW's learning rate. Unit: per optimizer step."""
    muon_learning_rate: Number | None = Field(default=None, gt=0, le=1)
    """When given, Muon trains the weight matrices of the blocks, with this peak learning rate, and AdamW only the rest.
    Unit: per optimizer step."""
    final_learning_rate_ratio: Number = Field(default=0.1, ge=0, le=1)
    """Where the cosine ends, over the peak. Unit: ratio."""
    num_warmup_steps: Whole = Field(default=50, ge=0)
    """Steps in which the learning rate rises to its peak. Unit: optimizer steps."""
    weight_decay: Number = Field(default=0.1, ge=0)
    """Decoupled, for matrices only: each step shrinks a weight by this times the learning rate. Unit: factor."""
    adam_beta1: Number = Field(default=0.9, ge=0, lt=1)
    """How much of itself AdamW's running mean of the gradient keeps in a step. Unit: factor."""
    adam_beta2: Number = Field(default=0.99, ge=0, lt=1)
    """How much of itself AdamW's running mean of the squared gradient keeps in a step. Unit: factor."""
    gradient_clip: Number = Field(default=1.0, gt=0)
    """Longer gradients are scaled down to this. Unit: L2 norm over all weights."""
    validation_fraction: Number = Field(default=0.1, gt=0, lt=1)
    """The part of a training set that is held back to choose the weights by. Unit: share."""
    max_validation_examples: Whole | None = Field(default=None, ge=1)
    """At most this much of an expanding dataset is held back; null for no limit. Unit: texts."""
    validate_every: Whole = Field(ge=1)
    """Interval between validations. Unit: optimizer steps."""
    stop_gap_nats: Number = Field(default=0.0, ge=0)
    """Training ends early once the validation loss is this close to the entropy of the validation set, below which no
    model can go; 0 for never. Unit: nats per text."""
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    """What it is trained on; `auto` takes a GPU where there is one."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Precision of the arithmetic in training, as Lightning names it."""
    devices: Annotated[Whole, Added()] = Field(default=1, ge=1, le=64)
    """How many devices one model is trained and sampled on, each by a process of its own, with batch_size divided among
    them. Another number rounds sums differently, and draws other texts. Unit: devices."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """Lightning's: `ddp`, which `auto` means on several devices, has the whole model on each; `fsdp` shares out the
    weights, their gradients and the optimizer's state while training."""
    compile: bool = False
    """Whether torch.compile builds kernels for the network first."""
    num_threads: Whole = Field(default=1, ge=1, le=1024)
    """How many torch uses. Part of what a loop is: another number may round sums differently. Unit: threads."""
    targets: Annotated[Literal["tokens", "soft"], Added()] = "tokens"
    """What a text that a model wrote teaches: its tokens or, if soft, at each of them how probable earlier models find
    every token. Original and fresh texts teach their tokens."""
    num_teachers: Annotated[Whole | None, Added()] = Field(default=1, ge=1)
    """Soft targets are the mean of this many of the latest models, M_t first; null for all since M_1. Unit: models."""
    teaching: Annotated[Literal["mean", "drawn"], Added()] = "mean"
    """Whether a text is taught by the mean of its teachers, or by one of them, drawn for that text: the same in
    expectation, at the cost of one teacher, however many there are."""
    soft_top_k: Annotated[Whole | None, Added()] = Field(default=None, ge=1)
    """Soft targets tell this many of the likeliest tokens apart and take the others together, cutting none; null for
    all, for which a vocabulary of more than 4,096 is too large. Unit: tokens."""
    loss_temperature: Annotated[Temperature, Added()] = 1.0
    """What logits are divided by in the loss, a teacher's too. At the sampling temperature, what is sampled is what was
    fitted, and no generation sharpens the one before. Unit: ratio."""
    start: Annotated[Literal["scratch", "previous"], Added()] = "scratch"
    """Where the weights of M_{t+1} start: at random, or at those of M_t."""
    num_tuning_steps: Annotated[Whole | None, Added()] = Field(default=None, ge=1)
    """Length of a training that starts at the weights of M_t; null for num_steps. Unit: optimizer steps."""
    extrapolation: Annotated[Number, Added()] = Field(default=0.0, ge=0, le=10)
    """How far M_{t+1} goes from M_t in the direction opposite to training, over how far training went (Neon, arXiv
    2510.03597); its validation loss is that of the training. Unit: ratio."""

    @model_validator(mode="after")
    def _precision_suits_optimizer(self) -> Self:
        if self.precision == "16-mixed" and self.muon_learning_rate is not None:
            raise ValueError(
                "16-mixed scales gradients for torch's own optimizers, and Muon is not one of them: "
                "choose bf16-mixed, or train.muon_learning_rate=null"
            )
        return self

    @model_validator(mode="after")
    def _every_device_has_work(self) -> Self:
        if self.batch_size < self.devices:
            raise ValueError(f"devices {self.devices} must be at most batch_size {self.batch_size}")
        return self

    @model_validator(mode="after")
    def _has_what_it_acts_on(self) -> Self:
        needs_soft = (self.num_teachers, self.teaching, self.soft_top_k) != (1, "mean", None)
        if self.targets != "soft" and needs_soft:
            raise ValueError(
                "num_teachers, teaching and soft_top_k need soft targets: choose targets=soft, or leave them out"
            )
        if self.start != "previous" and (self.num_tuning_steps is not None or self.extrapolation):
            raise ValueError(
                "num_tuning_steps and extrapolation start at an earlier model: choose start=previous, or leave them out"
            )
        return self

    def of_first(self) -> "TrainConfig":
        """The same with only what acts on M_1, which has no earlier model to learn from."""
        fields = ("targets", "num_teachers", "teaching", "soft_top_k", "start", "num_tuning_steps", "extrapolation")
        return self.changed(**{name: type(self).model_fields[name].default for name in fields})

    def num_steps_of(self, generation: int) -> int:
        """Optimizer steps of each network of M_t; M_1 has no earlier model to start at, hence no tuning steps."""
        return self.num_steps if generation == 1 or self.num_tuning_steps is None else self.num_tuning_steps

    @property
    def num_previous(self) -> int | None:
        """How many of the latest models a training is given; None for all of them."""
        of_teachers = self.num_teachers if self.targets == "soft" else 0
        return None if of_teachers is None else max(of_teachers, int(self.start == "previous"))

    def num_validation_examples(self, num_examples: int) -> int:
        """How many of a dataset's examples are validated on; at least one is, and one is left to train on."""
        wanted = min(max(1, round(self.validation_fraction * num_examples)), num_examples - 1)
        return wanted if self.max_validation_examples is None else min(wanted, self.max_validation_examples)
