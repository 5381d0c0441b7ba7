"""A published image-text-to-text model of the `transformers` library: from a folder, a bucket or the hub. Safetensors alone, no code from outside."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from components.errors import DataError
from components.recipe.published import Published
from components.weights.sources import checked_digest, fetch


def open_published(published: Published, cache: Path) -> tuple[Any, Any, str]:
    """Model (evaluation mode, CPU, stored dtype), processor (pictures and text), and the weights' digest (hex). `cache`: see `fetch`.

    Raises DataError when there is no such model or it is not what the recipe says, TransientError when the other side does not answer.
    """
    folder = fetch(published.source, cache)
    found = checked_digest(published, folder, ("",))
    try:
        model: Any = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=False, use_safetensors=True)
        return model.eval(), _processor(folder), found
    except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
        raise DataError(f"{published.source}: not an image-text-to-text model that `transformers` knows: {' '.join(str(error).split())[:300]}") from error


def _processor(folder: Path) -> Any:
    """The model's own processor. One that is made for videos too would need torchvision, which is not here: it gets none for videos."""
    try:
        return AutoProcessor.from_pretrained(folder, trust_remote_code=False, backend="pil")
    except ImportError as error:
        if "ideo processor" not in str(error) and "VideoProcessor" not in str(error):
            raise
    kind: Any = PROCESSOR_MAPPING[type(AutoConfig.from_pretrained(folder, trust_remote_code=False))]
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    images = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False, backend="pil")
    made: Any = type(kind.__name__, (kind,), {"check_argument_for_proper_class": lambda _, __, argument: type(argument)})
    return made(image_processor=images, tokenizer=tokenizer, video_processor=None, chat_template=tokenizer.chat_template)
