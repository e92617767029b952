"""What calls to a language model cost, known or expected. An unknown price or count gives None."""

from __future__ import annotations

from dataclasses import dataclass

from ...config import LLMConfig

CHARS_PER_TOKEN = 3.5  # of Python and English under current tokenizers: a rough figure
CALLS_PER_CANDIDATE = (1, 3)  # the proposal; one repair of its form; one repair after a gate
OUTPUT_TOKENS_PER_CALL = (1_500, 16_000)  # a short answer; a long one with its reasoning


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What a search may ask of the endpoint: (least, most)."""

    calls: tuple[int, int]
    input_tokens_per_call: int
    usd: tuple[float, float] | None


def cost_usd(
    config: LLMConfig, input_tokens: int | None, output_tokens: int | None
) -> float | None:
    """Dollars of one call; None unless both prices are configured and both counts known."""
    prices = config.usd_per_million_input, config.usd_per_million_output
    if None in (*prices, input_tokens, output_tokens):
        return None
    price_in, price_out = prices
    assert price_in is not None
    assert price_out is not None
    assert input_tokens is not None
    assert output_tokens is not None
    return (input_tokens * price_in + output_tokens * price_out) / 1e6


def forecast(config: LLMConfig, candidates: int, prompt_chars: int) -> Forecast:
    """Calls and dollars for so many candidates with prompts of about `prompt_chars` characters."""
    calls = tuple(candidates * share for share in CALLS_PER_CANDIDATE)
    input_tokens = round(prompt_chars / CHARS_PER_TOKEN)
    each = [cost_usd(config, input_tokens, tokens) for tokens in OUTPUT_TOKENS_PER_CALL]
    least, most = each
    return Forecast(
        calls=(calls[0], calls[1]),
        input_tokens_per_call=input_tokens,
        usd=None if least is None or most is None else (calls[0] * least, calls[1] * most),
    )
