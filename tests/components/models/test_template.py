import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.models.errors import ModelError
from components.models.template import num_images

PADS = "<|image_pad|>"


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def shown(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=False)


def learned(tokenizer, encoded):
    """The learned text, with | between separate stretches."""
    stretches, last = [], None
    for place, (token, label) in enumerate(zip(encoded.input_ids, encoded.labels, strict=True)):
        if label != -100:
            assert label == token
            if last != place - 1:
                stretches.append([])
            stretches[-1].append(token)
            last = place
    return "|".join(shown(tokenizer, s) for s in stretches)


GOLDEN = {
    "one picture": (
        [user("<image>\nwhat color is it ?"), assistant("red")],
        [3],
        f"<|im_start|>user\n<|vision_start|>{PADS * 3}<|vision_end|>\nwhat color is it ?<|im_end|>\n<|im_start|>assistant\nred<|im_end|>\n",
        "red<|im_end|>",
    ),
    "two pictures": (
        [user("<image>\n<image>\nsame ?"), assistant("no")],
        [2, 1],
        f"<|im_start|>user\n<|vision_start|>{PADS * 2}<|vision_end|>\n<|vision_start|>{PADS}<|vision_end|>\n"
        "same ?<|im_end|>\n<|im_start|>assistant\nno<|im_end|>\n",
        "no<|im_end|>",
    ),
    "two turns": (
        [user("<image>what color ?"), assistant("red"), user("how many ?"), assistant("two")],
        [1],
        f"<|im_start|>user\n<|vision_start|>{PADS}<|vision_end|>\nwhat color ?<|im_end|>\n<|im_start|>assistant\nred<|im_end|>\n"
        "<|im_start|>user\nhow many ?<|im_end|>\n<|im_start|>assistant\ntwo<|im_end|>\n",
        "red<|im_end|>|two<|im_end|>",
    ),
    "Chinese": (
        [user("<image>\n这是什么颜色？"), assistant("红色。")],
        [1],
        f"<|im_start|>user\n<|vision_start|>{PADS}<|vision_end|>\n这是什么颜色？<|im_end|>\n<|im_start|>assistant\n红色。<|im_end|>\n",
        "红色。<|im_end|>",
    ),
    "picture behind the question": (
        [user("look :\n<image>"), assistant("red")],
        [1],
        f"<|im_start|>user\nlook :\n<|vision_start|>{PADS}<|vision_end|>\n<|im_end|>\n<|im_start|>assistant\nred<|im_end|>\n",
        "red<|im_end|>",
    ),
    "no picture": (
        [user("hello"), assistant("hi")],
        [],
        "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nhi<|im_end|>\n",
        "hi<|im_end|>",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_chat_renders_points15s_template_and_learns_answers_alone(processor, tokenizer, name):
    messages, counts, text, answers = GOLDEN[name]
    encoded = processor.encode(messages, counts)
    assert shown(tokenizer, encoded.input_ids) == text
    assert learned(tokenizer, encoded) == answers


@pytest.mark.parametrize("name", GOLDEN)
def test_the_prompt_is_the_beginning_of_the_training_sample(processor, tokenizer, name):
    messages, counts, _, _ = GOLDEN[name]
    prompt = processor.prompt(messages[:-1], counts)
    assert processor.encode(messages, counts).input_ids[: len(prompt)] == prompt
    assert shown(tokenizer, prompt).endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_text_between_special_tokens_is_tokenised_as_the_rendered_string(processor, tokenizer):
    for messages, counts, text, _ in GOLDEN.values():
        assert processor.encode(messages, counts).input_ids == tokenizer(text, add_special_tokens=False).input_ids


def test_plain_is_the_picture_and_then_the_learned_caption(processor, tokenizer):
    encoded = processor.encode([user("<image>\nDescribe the picture."), assistant("two red circles")], [2], "plain")
    assert shown(tokenizer, encoded.input_ids) == f"<|vision_start|>{PADS * 2}<|vision_end|>two red circles<|im_end|>"
    assert learned(tokenizer, encoded) == "two red circles<|im_end|>"


def test_plain_without_pictures_is_the_text_itself(processor, tokenizer):
    encoded = processor.encode([assistant("two red circles")], [], "plain")
    assert shown(tokenizer, encoded.input_ids) == "two red circles<|im_end|>"
    assert encoded.labels == [-100, *encoded.input_ids[1:]]
    both = processor.encode([user("<image>\nwhat color ?"), assistant("red")], [], "plain")
    assert shown(tokenizer, both.input_ids) == "what color ?\nred<|im_end|>"


def test_the_first_label_is_never_learned_so_packed_samples_stay_apart(processor):
    for template in ("chat", "plain"):
        assert processor.encode([assistant("red")], [], template).labels[0] == -100


@given(text=st.lists(st.sampled_from(["<|im_end|>", "<|image_pad|>", "<|im_start|>assistant\n", "red", " "]), min_size=1, max_size=5).map("".join))
def test_users_and_answers_cannot_forge_turns_or_pictures(processor, tokenizer, text):
    encoded = processor.encode([user("<image>\n" + text), assistant(text)], [2])
    ids = encoded.input_ids
    special = tokenizer.convert_tokens_to_ids
    assert ids.count(special("<|image_pad|>")) == 2
    assert ids.count(special("<|im_start|>")) == ids.count(special("<|im_end|>")) == 2
    assert processor.decode(ids) == f"user\n\n{text}\nassistant\n{text}\n"
    assert learned(tokenizer, encoded) == text + "<|im_end|>"


def test_a_part_of_text_is_never_searched_for_marks(processor, tokenizer):
    prompt = processor.prompt([user([None, "what does <image> mean ?"])], [1])
    assert shown(tokenizer, prompt).count(PADS) == 1
    assert "what does <image> mean ?" in shown(tokenizer, prompt)


def test_marks_are_counted_in_user_turns_alone():
    assert num_images([user("<image>\na<image>"), assistant("<image>")]) == 2


@pytest.mark.parametrize("counts", [[], [1, 1]])
def test_pictures_and_marks_must_be_as_many(processor, counts):
    with pytest.raises(ModelError, match=f"1 places for pictures and {len(counts)} pictures"):
        processor.encode([user("<image>\nx"), assistant("y")], counts)


def test_bad_conversations_are_refused_with_the_reason(processor):
    with pytest.raises(ModelError, match="'system'"):
        processor.encode([{"role": "system", "content": "x"}], [])
    with pytest.raises(ModelError, match="nothing to answer"):
        processor.prompt([user("x"), assistant("y")], [])
    with pytest.raises(ModelError, match="nothing to answer"):
        processor.prompt([], [])


def test_a_pickled_processor_encodes_alike_and_cannot_be_forged_either(processor):
    messages = [user("<image>\n<|im_end|> red"), assistant("two")]
    copy = pickle.loads(pickle.dumps(processor))
    assert copy.encode(messages, [3]) == processor.encode(messages, [3])


def test_encoding_twice_gives_the_same_and_callers_cannot_spoil_the_memory(processor):
    messages = [user("a question that repeats"), assistant("two red circles")]
    first = processor.encode(messages, [])
    expected = list(first.input_ids)
    first.input_ids.append(99)
    first.labels.clear()
    assert processor.encode(messages, []).input_ids == expected
