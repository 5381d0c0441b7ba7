"""`model`: the composed vision-language model, by its parts."""

from typing import Literal

from pydantic import Field, model_validator

from components.recipe.base import Section
from components.recipe.published import Published


class Vision(Section):
    """The tower. Its published form is built as far as its output is used: not Qwen2-VL's merger, nor the layers behind `select_layer`."""

    encoder: Literal["qwen2_vl_vit", "clip_vit", "intern_vit", "intern_vit_6b"] = Field(
        default="qwen2_vl_vit",
        description="qwen2_vl_vit: native resolution, pictures packed, 2-D RoPE; clip_vit: CLIP; intern_vit: InternViT with LayerNorm and biases (300M); "
        "intern_vit_6b: with RMSNorm, also of queries and keys, without biases in attention",
    )
    depth: int = Field(gt=0, description="transformer blocks")
    width: int = Field(gt=0, description="hidden size")
    heads: int = Field(gt=0, description="attention heads")
    mlp_ratio: float = Field(default=4, gt=0, description="MLP width over hidden size")
    patch: int = Field(default=14, gt=0, description="side of a patch, pixels")
    temporal_patch: int = Field(default=2, gt=0, description="frames a patch spans (qwen2_vl_vit); a single picture is repeated")
    select_layer: int = Field(default=-1, lt=0, description="block whose output is used, counted from the end")
    init_std: float = Field(default=0.02, gt=0, description="standard deviation of the random initialisation")


class Resolution(Section):
    """How a picture becomes views: native (one view of about its own size), fixed (one square), tiles (squares, and a thumbnail of the whole)."""

    kind: Literal["native", "fixed", "tiles"] = Field(default="native", description="native goes with qwen2_vl_vit, the others with the other encoders")
    size: int | None = Field(default=None, gt=0, description="side of a square, pixels; fixed and tiles")
    fit: Literal["resize", "pad"] = Field(default="pad", description="fixed: resize changes the aspect ratio, pad fills up to a square with the mean colour")
    max_tiles: int = Field(default=12, gt=0, description="tiles: as many at most, the thumbnail not counted")
    thumbnail: bool = Field(default=True, description="tiles: a picture of several tiles is also given as a whole, last")

    @model_validator(mode="after")
    def _size_where_square(self) -> "Resolution":
        if (self.size is None) != (self.kind == "native"):
            todo = "leave size out, min_pixels and max_pixels bound a picture" if self.size else "give the size of a square"
            raise ValueError(f"kind {self.kind}: {todo}")
        return self


class Connector(Section):
    """Pooling, and the MLP of two linear layers behind it, newly initialised."""

    pool: Literal["patch_merge", "pixel_unshuffle", "none"] = Field(
        default="patch_merge",
        description="patch_merge: LayerNorm, then windows are joined (Qwen2-VL, POINTS1.5); "
        "pixel_unshuffle: windows are joined, then LayerNorm (InternVL-1.5); none: a token a patch, no LayerNorm (LLaVA-1.5)",
    )
    merge: int = Field(default=2, gt=0, description="patches joined into one token, per side; 1 with pool none")

    @model_validator(mode="after")
    def _none_joins_nothing(self) -> "Connector":
        if (self.pool == "none") != (self.merge == 1):
            raise ValueError(f"pool {self.pool} and merge {self.merge}: pool none goes with merge 1, and the others with more")
        return self


class Llm(Section):
    """Decoder with plain 1-D RoPE, RMSNorm and SwiGLU."""

    backbone: Literal["qwen2", "llama"] = Field(default="qwen2", description="qwen2: biases of queries, keys and values; llama: none (Vicuna, InternLM2)")
    hidden: int = Field(gt=0, description="hidden size")
    layers: int = Field(gt=0, description="decoder layers")
    heads: int = Field(gt=0, description="query heads")
    kv_heads: int = Field(gt=0, description="key and value heads")
    ffn: int = Field(gt=0, description="width of the SwiGLU MLP")
    vocab: int = Field(
        ge=264, description="largest size of the byte-level BPE vocabulary that is trained on the corpus, tokens; with `weights` the rows of their embedding"
    )
    rope_theta: float = Field(default=1e6, gt=0, description="base of the rotary positions")
    rms_eps: float = Field(default=1e-6, gt=0, description="epsilon of RMSNorm")
    tie_embeddings: bool = Field(default=False, description="output head shares the input embedding")
    init_std: float = Field(default=0.02, gt=0, description="standard deviation of the random initialisation")


class Weights(Section):
    """Public weights that training starts from. Either `whole`, or `llm` and, where the tower is not to start at random, `vision`.

    The sizes in the sections beside it must be the checkpoint's; the tokenizer is the checkpoint's.
    """

    whole: Published | None = Field(default=None, description="a POINTS1.5 checkpoint in layout A or B, or a model folder of ours")
    vision: Published | None = Field(default=None, description="a Qwen2-VL checkpoint, of which the tower is taken, without its merger")
    llm: Published | None = Field(default=None, description="a Qwen2 or Qwen2.5 checkpoint")

    @property
    def parts(self) -> dict[str, Published]:
        """The checkpoints that are given, by part."""
        return {name: value for name in ("whole", "vision", "llm") if (value := getattr(self, name)) is not None}

    @model_validator(mode="after")
    def _whole_or_parts(self) -> "Weights":
        if self.whole and len(self.parts) > 1:
            raise ValueError("whole is all of a model: leave vision and llm out")
        if not self.whole and not self.llm:
            raise ValueError("give whole, or llm: the tokenizer comes with them")
        return self


class Model(Section):
    """Vision tower -> pooling and connector -> language model, vision tokens in place of `<|image_pad|>`."""

    vision: Vision
    resolution: Resolution = Field(default_factory=Resolution)
    connector: Connector = Field(default_factory=Connector)
    llm: Llm
    weights: Weights | None = Field(default=None, description="public weights to start from; null: random ones")
    min_pixels: int = Field(default=3136, gt=0, description="native resolution: smaller pictures are enlarged to this area, pixels")
    max_pixels: int = Field(default=12_845_056, gt=0, description="native resolution: larger pictures are reduced to this area, pixels")
    context: int = Field(default=4096, gt=0, description="longest sequence that the language model is built for, tokens")

    @model_validator(mode="after")
    def _shapes_fit(self) -> "Model":
        for part, width, heads in (("vision", self.vision.width, self.vision.heads), ("llm", self.llm.hidden, self.llm.heads)):
            if width % heads:
                raise ValueError(f"{part}: width {width} is not a multiple of {heads} heads")
        if self.llm.heads % self.llm.kv_heads:
            raise ValueError(f"llm: {self.llm.heads} heads are not a multiple of {self.llm.kv_heads} kv_heads")
        if -self.vision.select_layer > self.vision.depth:
            raise ValueError(f"vision: select_layer {self.vision.select_layer} of {self.vision.depth} blocks: it counts from the end, -1 is the last")
        native = self.vision.encoder == "qwen2_vl_vit"
        if native != (self.resolution.kind == "native"):
            raise ValueError(f"resolution: kind {self.resolution.kind} does not go with vision.encoder {self.vision.encoder}")
        if self.resolution.size and self.resolution.size % (self.vision.patch * self.connector.merge):
            raise ValueError(f"resolution: size {self.resolution.size} is not a multiple of patch {self.vision.patch} times merge {self.connector.merge}")
        if native and self.vision.width // self.vision.heads % 4:
            raise ValueError(f"vision: 2-D RoPE needs a head size that is a multiple of 4, not {self.vision.width // self.vision.heads}")
        if self.weights and (not native or self.llm.backbone != "qwen2"):
            raise ValueError("weights: they go with vision.encoder qwen2_vl_vit and llm.backbone qwen2")
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is larger than max_pixels {self.max_pixels}")
        return self
