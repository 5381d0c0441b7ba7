import json
import random
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.models.errors import ModelError
from components.models.tokenizer import SMALLEST_VOCAB, SPECIAL_TOKENS, train_tokenizer
from tests.components.models.conftest import TEXTS


@given(text=st.text(max_size=80))
def test_every_text_survives_encoding_and_decoding(processor, text):
    assert processor.decode(processor.text_ids(text)) == unicodedata.normalize("NFC", text)


@given(text=st.lists(st.sampled_from([*SPECIAL_TOKENS, "<image>", " ", "\n", "red", "<|", "|>"]), max_size=8).map("".join))
def test_no_text_can_forge_a_special_token(processor, tokenizer, text):
    special = set(tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)))
    assert not special & set(processor.text_ids(text))
    assert processor.decode(processor.text_ids(text)) == text


def test_special_tokens_stand_in_qwens_order(tokenizer):
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(8))
    assert tokenizer.eos_token == "<|im_end|>"


def test_the_same_texts_give_the_same_tokenizer_in_any_order():
    texts = [f"{a} {b} {c}s" for a in ("one", "two", "three") for b in ("red", "blue", "绿色") for c in ("circle", "square")] * 3
    shuffled = random.Random(1).sample(texts, len(texts))
    first, second = (json.loads(train_tokenizer(t, 300).backend_tokenizer.to_str()) for t in (texts, shuffled))
    assert first == second
    assert len(first["model"]["vocab"]) == 300


def test_words_of_the_corpus_and_the_roles_become_tokens(tokenizer, processor):
    assert [tokenizer.convert_ids_to_tokens(i) for i in processor.text_ids("user\n")] == ["user", "Ċ"]
    assert len(processor.text_ids("assistant\n")) == 2
    assert len(processor.text_ids("two red circles")) < len("two red circles")


def test_a_vocabulary_without_room_for_all_bytes_is_refused():
    with pytest.raises(ModelError, match=f"at least {SMALLEST_VOCAB}"):
        train_tokenizer(TEXTS, SMALLEST_VOCAB - 1)
    smallest = train_tokenizer(TEXTS, SMALLEST_VOCAB)
    assert len(smallest) == SMALLEST_VOCAB
