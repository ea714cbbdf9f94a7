"""The model card of a registered model: what made it, what it writes, why it is this one, how to load it."""

from collections.abc import Mapping
from math import sqrt
from textwrap import dedent

from pydantic import BaseModel

from ouroloop.config import LoopConfig, StageConfig, flatten
from ouroloop.science.dataset import Source
from ouroloop.science.metrics import CollapseStage

_RATES = {"share_in_original": "texts that occur in D_0"}
_MEANS = {
    "diversity_levenshtein": "diversity: mean edit distance of two texts / longer length",
    "diversity_retention": "diversity over D_0's",
    "unique_fraction": "distinct texts / all texts",
    "mean_length_tokens": "words of a text",
}
_ROWS = 12  # origins that are listed one by one
_Z = 1.96  # 95 % of a normal distribution


def criterion(stages: StageConfig) -> str:
    """The rule of all stages in one line, with its thresholds."""
    healthy, onset, decline = (f"{value:g}" for value in (stages.healthy, stages.onset, stages.decline))
    return (
        "r = diversity_levenshtein(S_t) / diversity_levenshtein(D_0): "
        f"healthy r >= {healthy}, onset {onset} <= r < {healthy}, decline {decline} <= r < {onset}, "
        f"collapsed r < {decline}"
    )


def model_card(
    name: str,
    stage: CollapseStage,
    generation: int,
    config: LoopConfig,
    *,
    facts: Mapping[str, str],
    mixture: Mapping[str, int],
    metrics: Mapping[str, float],
) -> str:
    """Markdown, at most 5,000 characters, which is what a registry's description holds.

    `facts` are lines of "Which model this is"; `mixture` counts the examples of D_{t-1} by origin;
    `metrics` are those of the generation.
    """
    cycle = config.cycle
    proportion = "" if cycle.synthetic_proportion is None else f" at λ = {cycle.synthetic_proportion:g}"
    introduction = f"""\
        # {name}@{stage}

        M_{generation} of a self-consuming training loop on logic expressions ({cycle.kind.value}{proportion}): the
        first model whose texts are in the stage **{stage}**. Trained from scratch: {_settings(config.model)}."""
    loading = f"""\
        ## How to load it

        ```python
        # MLFLOW_TRACKING_URI names the store
        pipe = mlflow.transformers.load_model("models:/{name}@{stage}")
        pipe("( not")
        mlflow.pyfunc.load_model("models:/{name}@{stage}").predict("( not")
        folder = mlflow.artifacts.download_artifacts("models:/{name}@{stage}")
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ```

        ```sh
        ouroloop sample models:/{name}@{stage} -n 20
        ```

        The weights are safetensors; nothing is unpickled. Eight words; `<eos>` starts and ends a text."""
    parts = [dedent(introduction), _trained_on(generation, mixture), _writes(config, generation, metrics)]
    which = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    return "\n\n".join([*parts, f"## Which model this is\n\n{which}", dedent(loading)]) + "\n"


def _settings(section: BaseModel) -> str:
    return ", ".join(f"{key} {value}" for key, value in flatten(section).items())


def _trained_on(generation: int, mixture: Mapping[str, int]) -> str:
    total = sum(mixture.values())
    sampled = sum(count for origin, count in mixture.items() if origin.startswith(Source.SAMPLED.name.lower()))
    largest = sorted(mixture, key=lambda origin: -mixture[origin])[:_ROWS]
    rows = [(origin, mixture[origin]) for origin in mixture if origin in largest]
    if len(largest) < len(mixture):
        rows.append((f"{len(mixture) - len(largest)} other origins", total - sum(count for _, count in rows)))
    lines = [f"| {origin} | {count:,} | {count / total:.1%} |" for origin, count in rows]
    return "\n".join(
        [
            f"## What it was trained on\n\nD_{generation - 1}, {total:,} examples, {sampled / total:.1%} written by "
            "earlier models.\n\n| origin-generation | examples | share |\n|---|---:|---:|",
            *lines,
        ]
    )


def _writes(config: LoopConfig, generation: int, metrics: Mapping[str, float]) -> str:
    size, sampling = config.data.num_examples, config.sampling
    rates = {**config.data.testbed.descriptions, **_RATES}
    rows = [
        f"| {meaning} (`{key}`) | {metrics[key]:.4g} | {_interval(metrics, key, key in rates, size)} |"
        for key, meaning in (rates | _MEANS).items()
        if key in metrics
    ]
    heading = (
        f"## What it writes\n\nS_{generation}: {size:,} texts at temperature {sampling.temperature:g}, no top-k, no "
        f"top-p, at most {sampling.max_new_tokens} words.\n\n| measure | value | 95 % interval |\n|---|---:|---|"
    )
    note = "\nIntervals cover the finite sample from this one model; they say nothing about other seeds."
    return "\n".join([heading, *rows, note])


def _interval(metrics: Mapping[str, float], key: str, is_rate: bool, size: int) -> str:
    """Wilson's for a rate, which is honest at 0 and 1 too; for a mean, the normal one of its standard error."""
    value = metrics[key]
    if is_rate:
        middle = (value + _Z**2 / (2 * size)) / (1 + _Z**2 / size)
        half = _Z / (1 + _Z**2 / size) * sqrt(value * (1 - value) / size + _Z**2 / (4 * size**2))
        return f"{max(middle - half, 0):.4g} to {min(middle + half, 1):.4g}"
    error = metrics.get(f"{key}_stderr")
    return "" if error is None else f"{max(value - _Z * error, 0):.4g} to {value + _Z * error:.4g}"
