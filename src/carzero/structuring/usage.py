"""What a run did and what it cost, counted as it happens."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Prices:
    """What a million tokens cost, in whatever currency the user thinks in; None where it is not known."""

    prompt: float | None = None
    completion: float | None = None


@dataclass(slots=True)
class Tally:
    """Counts of one run; rows of an interrupted run that were taken over are in `resumed` and nowhere else.

    Attributes:
        resumed: rows taken over from an interrupted run.
        asked: distinct texts put to the language model or answered from the cache.
        repeated: rows whose text another row of the run has asked already, at that moment or shortly before.
        requests: HTTP requests sent, repetitions among them.
        retries: requests that were sent again after a failure of server or connection, by reason.
        cache_hits: answers taken from the cache.
        prompt_tokens: as the server states them, for this run's requests.
        completion_tokens: likewise.
        unpriced: answers whose server stated no token counts.
        answer_form: how the server was asked for JSON; "" where it was not asked.
        invalid: answers that were not accepted, by reason.
        dropped: findings of accepted answers that were left out, by reason.
        blanked: details of findings that were emptied, by reason.
        unlike_rules: findings kept whose presence the rules read otherwise; one of the two is uncertain.
    """

    resumed: int = 0
    asked: int = 0
    repeated: int = 0
    requests: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    cache_hits: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unpriced: int = 0
    answer_form: str = ""
    invalid: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    blanked: Counter[str] = field(default_factory=Counter)
    unlike_rules: int = 0

    def cost(self, prices: Prices) -> float | None:
        """What this run's tokens cost; None where a price is missing."""
        if prices.prompt is None or prices.completion is None:
            return None
        return (self.prompt_tokens * prices.prompt + self.completion_tokens * prices.completion) / 1e6

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON; reasons in alphabetical order, so that equal runs read the same."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {
            name: dict(sorted(value.items())) if isinstance(value, Counter) else value for name, value in values.items()
        }
