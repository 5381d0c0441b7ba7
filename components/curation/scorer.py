"""How likely answers are under a language model, from the text alone; perplexity as in POINTS1.5 (arXiv:2412.08443, equation 2)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from components.curation.row import without_marks
from components.errors import DataError
from components.models.checkpoint import load_model
from components.models.errors import ModelError
from components.models.processor import Encoded

BATCH_TOKENS = 8192
"""Tokens of a batch, padding included, unless one sample alone is longer."""

Conversation = Sequence[dict[str, str]]


def batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices by rising length, cut so that a batch padded to its longest has at most `max_tokens` tokens (or one sample)."""
    found: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if not found or (len(found[-1]) + 1) * lengths[i] > max_tokens:
            found.append([])
        found[-1].append(i)
    return found


class Scorer:
    """A language model that says how likely answers are. Equal texts get equal scores: each is scored once and remembered."""

    def __init__(self, folder: Path):
        """Raises DataError when the folder holds no whole model."""
        try:
            model, self.processor = load_model(folder)
        except ModelError as error:
            raise DataError(f"{error} Run the stage that trains the scorer again.") from error
        self.folder = folder
        self.context: int = model.config.llm.max_position_embeddings
        self.llm = model.llm.float().eval()
        self._known: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[float, int]] = {}

    def perplexities(self, conversations: Sequence[Conversation], max_tokens: int = BATCH_TOKENS) -> np.ndarray:
        """exp of the mean negative natural log-probability of all answer tokens and their `<|im_end|>`, float64 (conversations,).

        The probability of a token is conditioned on the whole conversation before it. A conversation longer than the model's
        context is not scored and gets infinity. Raises DataError when the model gives no numbers.
        """
        sums, tokens = self._likelihoods(conversations, max_tokens).T
        with np.errstate(over="ignore"):
            return np.exp(-sums / tokens)

    def log_likelihoods(self, conversations: Sequence[Conversation], max_tokens: int = BATCH_TOKENS) -> np.ndarray:
        """Sum of the natural log-probabilities of all answer tokens and their `<|im_end|>`, float64 (conversations,).

        Minus infinity for a conversation longer than the model's context. Raises DataError when the model gives no numbers.
        """
        return self._likelihoods(conversations, max_tokens)[:, 0]

    def _likelihoods(self, conversations: Sequence[Conversation], max_tokens: int) -> np.ndarray:
        """Sum of log-probabilities and number of scored tokens, float64 (conversations, 2)."""
        encoded = [self.processor.encode(without_marks(messages), []) for messages in conversations]
        keys = [(tuple(e.input_ids), tuple(e.labels)) for e in encoded]
        new = dict(zip(keys, encoded, strict=True))
        new = {key: e for key, e in new.items() if key not in self._known}
        fitting = [key for key, e in new.items() if len(e.input_ids) <= self.context]
        self._known.update(dict.fromkeys(new, (-np.inf, 1)))
        for batch in batches([len(key[0]) for key in fitting], max_tokens):
            chosen = [fitting[i] for i in batch]
            self._known.update(zip(chosen, self._score([new[key] for key in chosen]), strict=True))
        return np.array([self._known[key] for key in keys], dtype=np.float64).reshape(-1, 2)

    @torch.inference_mode()
    def _score(self, samples: list[Encoded]) -> list[tuple[float, int]]:
        """Right-padded: under causal attention no token sees the padding behind it, so no mask is needed."""
        length = max(len(s.input_ids) for s in samples)
        pad = self.processor.pad_token_id
        input_ids = torch.tensor([s.input_ids + [pad] * (length - len(s.input_ids)) for s in samples])
        labels = torch.tensor([s.labels + [-100] * (length - len(s.labels)) for s in samples])[:, 1:]
        hidden = self.llm.model(input_ids=input_ids, use_cache=False).last_hidden_state[:, :-1]
        learned = labels != -100
        log_probs = torch.log_softmax(self.llm.lm_head(hidden[learned]).float(), dim=-1)
        tokens = log_probs.gather(1, labels[learned][:, None])[:, 0].double()
        sums = torch.zeros(len(samples), dtype=torch.float64).index_add_(0, learned.nonzero()[:, 0], tokens)
        if sums.isnan().any():
            raise DataError(f"{self.folder}: the scorer gives no numbers: its training diverged; lower the learning rate of its stage")
        return list(zip(sums.tolist(), learned.sum(1).tolist(), strict=True))
