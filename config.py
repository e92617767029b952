"""Everything a run can be told, as validated sections with units in their names.

A profile is a TOML file with these sections; `load_config` lays a file and single settings over it.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .errors import ConfigError

_Rate = Annotated[float, Field(gt=0)]
_Beta = Annotated[float, Field(ge=0, lt=1)]
_Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys, and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelConfig(Section):
    """The backbone that every mixer is put into."""

    d_model: int = Field(64, ge=8)
    n_layers: int = Field(2, ge=1)
    n_heads: int = Field(2, ge=1)
    vocab_size: int = Field(256, ge=2)
    window: int = Field(32, ge=1, description="tokens an `A` layer of a pattern sees")
    param_budget: int = Field(120_000, ge=1)
    param_tolerance: float = Field(0.02, gt=0, lt=0.5)
    mlp_multiple: int = Field(
        1, ge=1, description="of an MLP's width, where one comes within the tolerance"
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.d_model % self.n_heads:
            raise ValueError(f"n_heads={self.n_heads} must divide d_model={self.d_model}")
        return self


class DataConfig(Section):
    """The corpus, how it is coded and how it is cut; docs/data.md says what there is."""

    corpus: str = Field(
        "stdlib", description="or a path to text, JSONL, Parquet or tokens, or hf:OWNER/NAME"
    )
    text_field: str = Field("text", description="of a JSONL row or a table: what holds the text")
    max_bytes: int | None = Field(None, ge=1, description="of the first documents that are used")
    tokenizer: Literal["bytes", "bpe"] = Field(
        "bytes", description="bpe is trained on the training part, with model.vocab_size tokens"
    )
    seq_len: int = Field(128, ge=8)
    val_windows: int = Field(384, ge=8, description="held-out windows of seq_len that are scored")
    test_windows: int = Field(
        0, ge=0, description="windows of the test shard; a verification alone may open it"
    )

    @field_validator("corpus")
    @classmethod
    def _path_from_anywhere(cls, corpus: str) -> str:
        """Workers run in a folder of their own, and a run may be resumed from another."""
        if corpus == "stdlib" or corpus.startswith("hf:"):
            return corpus
        return str(Path(corpus).expanduser().absolute())

    @model_validator(mode="after")
    def _stdlib_is_whole(self) -> Self:
        if self.corpus == "stdlib" and self.max_bytes is not None:
            raise ValueError("max_bytes is for other corpora: what stdlib holds out is fixed")
        return self


class TrainingConfig(Section):
    """One recipe for candidates and baselines alike: AdamW, warm-up, constant rate, cooldown."""

    batch_size: int = Field(8, ge=1)
    accumulation: int = Field(1, ge=1, description="parts that a batch goes through memory in")
    learning_rates: tuple[_Rate, ...] = Field((3e-3,), min_length=1)
    widen_rates: int = Field(
        2, ge=0, description="rates added to a grid of several while the best is at its edge"
    )
    warmup_steps: int = Field(16, ge=0)
    cooldown_fraction: float = Field(
        0.2, ge=0, lt=1, description="share of a rung's tokens in which the rate falls to zero"
    )
    weight_decay: float = Field(0.1, ge=0)
    betas: tuple[_Beta, _Beta] = (0.9, 0.95)
    clip_norm: float = Field(1.0, gt=0)
    precision: Literal["fp32", "bf16"] = "fp32"

    @model_validator(mode="after")
    def _parts_are_equal(self) -> Self:
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"accumulation={self.accumulation} must divide batch_size={self.batch_size}"
            )
        return self


class LadderConfig(Section):
    """How many tokens each rung trains on, who goes on to the next, and what is repeated."""

    rung_tokens: tuple[_Count, ...] = Field((131_072, 524_288), min_length=1)
    pruner: Literal["asha", "successive_halving", "hyperband", "wilcoxon"] = Field(
        "asha", description="who climbs: asynchronous successive halving, or one of Optuna's"
    )
    promote_fraction: float = Field(0.8, gt=0, le=1, description="that climbs, with asha")
    reduction_factor: int = Field(2, ge=2, description="one in so many climbs, with Optuna's")
    wilcoxon_p: float = Field(
        0.1, gt=0, lt=1, description="below it one is worse than the best so far, with wilcoxon"
    )
    random_promote_fraction: float = Field(
        0.1, ge=0, le=1, description="of the others that climbs by lot, to measure the ranking"
    )
    noise_baseline: str = "gated_deltanet"
    noise_seeds: int = Field(3, ge=2)
    baseline_seeds: int = Field(1, ge=1, description="seeds of every other baseline")
    elite: int = Field(2, ge=0, description="best candidates measured again at the end")
    elite_seeds: int = Field(2, ge=1, description="fresh seeds of each, and the best baseline's")

    @model_validator(mode="after")
    def _rungs_grow(self) -> Self:
        if any(a >= b for a, b in zip(self.rung_tokens, self.rung_tokens[1:], strict=False)):
            raise ValueError(f"rung_tokens={self.rung_tokens} must grow from rung to rung")
        return self


class RecallConfig(Section):
    """Synthetic tasks, run on survivors while time allows; docs/tasks.md describes them."""

    enabled: bool = True
    tasks: tuple[str, ...] = ("mqar",)
    sizes: dict[str, dict[str, bool | int | float | str | tuple[int, ...]]] = Field(
        {}, description="what differs from a task's own sizes, by the task's name"
    )
    train_tokens: int = Field(524_288, ge=1, description="of each task")
    learning_rates: tuple[_Rate, ...] = Field(
        (), description="tried on each task, the best counts; none: the best on the corpus"
    )
    seeds: int = Field(1, ge=1, description="trainings of each rate")
    batch_size: int = Field(32, ge=1)
    test_sequences: int = Field(256, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _sizes_of_stored_runs(cls, table: Any) -> Any:
        """Runs stored before each task had sizes of its own keep those of mqar in the section."""
        if not isinstance(table, dict) or "sizes" in table:
            return table
        old = {name: table[name] for name in _STORED_MQAR_SIZES if name in table}
        rest = {name: value for name, value in table.items() if name not in old}
        return {**rest, "sizes": {"mqar": old}} if old else table

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks={list(self.tasks)} must name each task once")
        return self


_STORED_MQAR_SIZES = ("vocab_size", "seq_len", "n_pairs")


class GateConfig(Section):
    """Limits and tolerances of the checks that a score depends on."""

    deadline_s: float = Field(60.0, gt=0)
    tolerance: float = Field(1e-4, gt=0, description="relative to a channel's spread, in float32")
    tolerance_bf16: float = Field(3e-2, gt=0, description="the same where bfloat16 computes")
    max_source_bytes: int = Field(65_536, gt=0)
    max_buffer_share: float = Field(0.01, ge=0, description="of the parameters, in buffers")
    max_cost_exponent: float = Field(1.25, gt=1, description="of work and memory over T")
    canary_steps: int = Field(100, ge=1, description="training steps on uniform noise")
    canary_margin_bits: float = Field(0.02, gt=0, description="below the entropy: a leak")
    alarm_share: float = Field(
        0.15, gt=0, lt=1, description="this far below the best baseline is too good: quarantine"
    )


class SandboxConfig(Section):
    """How candidates are contained. `compile` allows the processes that compilers start: on a GPU
    kernels are then Triton's, else torch's.
    """

    profile: Literal["strict", "compile"] = "strict"
    allow_unsafe: bool = Field(False, description="start although layers are missing")


class LLMConfig(Section):
    """An OpenAI-compatible endpoint. The key is read from the environment alone."""

    base_url: str | None = None
    model: str = "gpt-5.1"
    api_key_env: str = "OPENAI_API_KEY"
    timeout_s: float = Field(600.0, gt=0, le=3600)
    max_retries: int = Field(3, ge=0)
    requests_in_flight: int = Field(4, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    usd_per_million_input: float | None = Field(None, ge=0)
    usd_per_million_output: float | None = Field(None, ge=0)


class ProposerConfig(Section):
    """Who writes the candidates."""

    kind: Literal["grammar", "random", "llm", "finalists", "files"] = "grammar"
    finalists: tuple[str, ...] = Field((), description="ids that `finalists` measures once more")
    files: tuple[str, ...] = Field((), description="paths whose mixers `files` measures")
    llm: LLMConfig = LLMConfig()


class BudgetConfig(Section):
    """When the search ends: whichever limit is met first. None means no limit."""

    max_candidates: int | None = Field(20, ge=0)
    max_minutes: float | None = Field(None, gt=0)
    max_gpu_hours: float | None = Field(None, gt=0)
    max_usd: float | None = Field(None, gt=0)


class WorkerConfig(Section):
    """Where trials run."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    trials_at_once: int = Field(
        2, ge=1, description="on one device at most; on a GPU fewer where their memory does not fit"
    )
    gpu_sharing: Literal["turns", "mps"] = Field(
        "turns", description="how trials at once share a GPU: in turns, or by NVIDIA's MPS"
    )
    threads_per_trial: int = Field(1, ge=1)
    memory_limit_mib: int = Field(4096, ge=256)
    trial_deadline_s: float = Field(600.0, gt=0)
    max_attempts: int = Field(3, ge=1)


class RunConfig(Section):
    """One search, completely described; stored whole with the run."""

    profile: str = "cpu"
    seed: int = Field(0, ge=0)
    baselines: tuple[str, ...] = (
        "softmax_attention",
        "linear_attention",
        "retnet",
        "gla",
        "mamba2",
        "deltanet",
        "gated_deltanet",
        "hgrn2",
    )
    objectives: tuple[str, ...] = ("val_bpb", "state_bytes")
    fitness: Literal[
        "pareto", "noise-units", "asi-arch", "asi-arch-above-chance", "asi-arch-paper"
    ] = Field("pareto", description="what parents and finalists are chosen by")
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    ladder: LadderConfig = LadderConfig()
    recall: RecallConfig = RecallConfig()
    gates: GateConfig = GateConfig()
    sandbox: SandboxConfig = SandboxConfig()
    proposer: ProposerConfig = ProposerConfig()
    budget: BudgetConfig = BudgetConfig()
    workers: WorkerConfig = WorkerConfig()


def profile_names() -> list[str]:
    """The profiles that ship with the package."""
    folder = resources.files(f"{__package__}.profiles")
    return sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")
    )


def load_config(
    profile: str, file: Path | None = None, settings: dict[str, Any] | None = None
) -> RunConfig:
    """The named profile, with a TOML file and then dotted `settings` laid over it.

    Raises ConfigError for an unknown profile, an unreadable file, an unknown key (with the nearest
    known one) or a value out of range.
    """
    merged = _profile_table(profile)
    if file is not None:
        _overlay(merged, _read_toml(file))
    lay_over(merged, settings or {})
    return validate_config({**merged, "profile": profile})


def lay_over(table: dict[str, Any], settings: dict[str, Any]) -> None:
    """Puts each of `settings`, by its dotted key, into the nested `table`."""
    for dotted, value in settings.items():
        _overlay(table, _nested(dotted, value))


def validate_config(table: dict[str, Any]) -> RunConfig:
    """A RunConfig from plain data; raises ConfigError naming the first thing wrong."""
    try:
        return RunConfig.model_validate(table)
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None


def parse_setting(text: str) -> tuple[str, Any]:
    """`key.sub=value` as its dotted key and a value read as JSON where it is JSON, else as text."""
    key, separator, raw = text.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {text!r} is not of the form key.sub=value.")
    try:
        return key, json.loads(raw)
    except json.JSONDecodeError:
        return key, raw


def _profile_table(name: str) -> dict[str, Any]:
    known = profile_names()
    if name not in known:
        raise ConfigError(f"There is no profile {name!r}; choose one of {', '.join(known)}.")
    text = resources.files(f"{__package__}.profiles").joinpath(f"{name}.toml").read_text()
    return tomllib.loads(text)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"Cannot read the configuration {file}: {error}") from None


def _nested(dotted: str, value: Any) -> dict[str, Any]:
    for key in reversed(dotted.split(".")):
        value = {key: value}
    assert isinstance(value, dict)
    return value


def _overlay(base: dict[str, Any], top: dict[str, Any]) -> None:
    for key, value in top.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _overlay(base[key], value)
        else:
            base[key] = value


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    dotted = ".".join(path)
    if first["type"] == "extra_forbidden":
        return f"Unknown setting {dotted!r}{_suggestion(path)}."
    problem = first["msg"].removeprefix("Value error, ")
    return f"Setting {dotted!r}: {problem} (got {first['input']!r})."


def _suggestion(path: list[str]) -> str:
    known = _dotted_names(RunConfig)
    near = difflib.get_close_matches(".".join(path), known, n=1, cutoff=0.5)
    if not near:  # right name, wrong section
        near = [name for name in known if name.split(".")[-1] == path[-1]][:1]
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(known))}"


def _dotted_names(section: type[BaseModel], prefix: str = "") -> list[str]:
    names = []
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            names += _dotted_names(inner, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names
