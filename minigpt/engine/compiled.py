"""The forward pass of a step in C, and its pages of keys and values: what `step/` needs, prepared once.

Weights are copied into panels, so that one load brings 16 outputs' weights and no output's sum waits for another:

    floats       (N/64, K, 64)           panel, input, output
    eight bits   (N/64, K/4, 64, 4)      four inputs of an output together, as the instruction for them wants it
    four bits    (N/64, K/8, 64, 4)      a byte holds the numbers of inputs k and k + 4

Everything a step writes to is set aside when the engine is made.
"""

from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_float, c_int32, c_void_p

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.quantization import grouped
from minigpt.engine.arena import Arena
from minigpt.engine.compiler import NotCompiled, library
from minigpt.engine.config import EngineConfig
from minigpt.engine.forward import ordered
from minigpt.engine.integer_embedding import IntegerEmbedding
from minigpt.engine.integer_linear import IntegerLinear
from minigpt.engine.packed_linear import PackedLinear
from minigpt.engine.paged import InPlace
from minigpt.engine.scheduler import Work
from minigpt.model.attention import Attention
from minigpt.model.config import GPTConfig
from minigpt.model.gpt import GPT, Block
from minigpt.model.mlp import GeluMLP, Relu2MLP, SwiGLUMLP
from minigpt.model.norm import LayerNorm, RMSNorm
from minigpt.model.positions import Alibi
from minigpt.model.short_conv import ShortConv

OUTS, GROUP, LANES = 64, 32, 16
TOGETHER = 4  # queries computed together
TILE = 16  # rows of a sequence that look back one after the other, while its keys are in the cache
THREADS = 64  # at most
FLOAT32, BFLOAT16, INT8, INT4 = range(4)
BENDS = {SwiGLUMLP: 0, GeluMLP: 1, Relu2MLP: 2}
CACHES = {"weights": FLOAT32, "float32": FLOAT32, "bfloat16": BFLOAT16, "int8": INT8}
LAYERS = (nn.Linear, IntegerLinear, PackedLinear)
NORMS = (RMSNorm, LayerNorm)


# --- the structures of step/model.h, field by field -------------------------------------------------------------------


class _Linear(Structure):
    _fields_ = [("outs", c_int32), ("ins", c_int32), ("kind", c_int32), ("weight", c_void_p), ("scale", c_void_p),
                ("sums", c_void_p), ("bias", c_void_p)]  # fmt: skip


class _Norm(Structure):
    _fields_ = [("weight", c_void_p), ("bias", c_void_p), ("eps", c_float), ("centred", c_int32)]


class _Block(Structure):
    _fields_ = [(name, _Norm) for name in ("attention_norm", "mlp_norm", "q_norm", "k_norm")] + [
        (name, _Linear) for name in ("q", "k", "v", "out", "gate", "up", "down")
    ]


class _Model(Structure):
    _fields_ = (
        [(name, c_int32) for name in ("layers", "C", "H", "G", "D", "F", "context", "window", "mlp", "cache")]
        + [(name, c_int32) for name in ("page", "held")]
        + [("of_embedding", c_int32), ("group", c_int32), ("embedding", c_void_p), ("row_scales", c_void_p)]
        + [("earlier", c_int32), ("short_conv", c_void_p), ("embedding_scale", c_float)]
        + [(name, c_void_p) for name in ("start", "cos", "sin", "alibi")]
        + [("blocks", POINTER(_Block)), ("final_norm", _Norm), ("head", _Linear)]
        + [(name, c_void_p) for name in ("keys", "values", "key_scale", "value_scale")]
        + [(name, c_void_p) for name in ("x", "h", "q", "k", "v", "y", "gate", "up", "row_scale", "scores", "numbers")]
    )


class _Step(Structure):
    _fields_ = [(name, c_int32) for name in ("rows", "wanted", "tiles", "threads")] + [
        (name, c_void_p) for name in ("ids", "earlier", "position", "table", "pages", "tile", "which", "logits")
    ]


# --- what it covers -----------------------------------------------------------------------------------------------


def uncovered(model: GPT, config: EngineConfig) -> str | None:
    """Why torch must compute this model's steps; none: C can."""
    if not config.compiled:
        return "--compiled off asks for torch"
    weights = [*model.parameters(), *model.buffers()]
    if any(weight.device.type != "cpu" for weight in weights) or any(
        weight.dtype != torch.float32 for weight in model.parameters()
    ):
        return "the step in C is for float32 on a CPU, and not all of this model is"
    if (reason := _unknown_part(model) or _odd_shape(model)) is not None:
        return reason
    try:
        library()
    except NotCompiled as reason:
        return str(reason)
    return None


def _unknown_part(model: GPT) -> str | None:
    """What C would compute otherwise than the model's own modules do."""
    known: dict[str, tuple[type, ...]] = {"token_embedding": (nn.Embedding, IntegerEmbedding), "lm_head": LAYERS,
                                          "final_norm": NORMS}  # fmt: skip
    for i, block in enumerate(model.blocks):
        known |= {f"blocks.{i}": (Block,), f"blocks.{i}.attention": (Attention,), f"blocks.{i}.mlp": tuple(BENDS),
                  f"blocks.{i}.attention_norm": NORMS, f"blocks.{i}.mlp_norm": NORMS}  # fmt: skip
        known |= {f"blocks.{i}.attention.{name}": (*NORMS, nn.Identity) for name in ("q_norm", "k_norm")}
        for part in ("attention", "mlp"):
            inside = block.get_submodule(part).named_children()
            known |= {f"blocks.{i}.{part}.{name}": LAYERS for name, _ in inside if name.endswith("_proj")}
    if type(model.short_conv) is not (ShortConv if model.config.short_conv else type(None)):
        return f"short_conv is a {type(model.short_conv).__name__}, which the step in C does not know"
    for name, types in known.items():
        if type(module := model.get_submodule(name)) not in types:
            return f"{name} is a {type(module).__name__}, which the step in C does not know"
    for name, module in model.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            return f"{name or 'the model'} has a hook, which the step in C would pass over"
    return None


def _odd_shape(model: GPT) -> str | None:
    """Where a model is not what its config says, or not the same in all blocks."""
    config = model.config
    if len(model.blocks) != config.n_layer or model.lm_head.out_features != config.vocab_size:
        return "the model has another number of blocks or of outputs than its config says"
    D = config.dims_per_head
    shape = config.n_head * D, config.kv_heads * D, model.blocks[0].mlp.up_proj.out_features
    for i, block in enumerate(model.blocks):
        own = (block.attention.q_proj, block.attention.k_proj, block.mlp.up_proj)
        if tuple(layer.out_features for layer in own) != shape:
            return f"blocks.{i} has other widths than the step in C expects"
    return None


class Memory(InPlace):
    """Keys and values in pages, as C reads them.

    Arrays: keys (L, pages, G, D, page), values (L, pages, G, page, D rounded up to vectors); in eight bits with a scale
    for each key and each value, (L, pages, G, page).
    """

    def __init__(self, shape: GPTConfig, config: EngineConfig, pages: int) -> None:
        kind, D, page = CACHES[config.cache_dtype], shape.dims_per_head, config.page
        dtype = {FLOAT32: np.float32, BFLOAT16: np.uint16, INT8: np.int8}[kind]
        heads = (shape.n_layer, pages, shape.kv_heads)
        arrays = {"keys": zeros(*heads, D, page, dtype=dtype),
                  "values": zeros(*heads, page, _up(D, LANES), dtype=dtype)}  # fmt: skip
        if kind == INT8:
            arrays |= {"key_scale": zeros(*heads, page), "value_scale": zeros(*heads, page)}
        super().__init__(arrays)
        self.pages = pages


class CompiledForward:
    """Logits by C. A row has the same bits in any company, whatever the weights and the cache are stored as.

    Weights are read when it is made: after training, make anew.
    """

    invariant = True

    def __init__(self, model: GPT, config: EngineConfig, pages: int) -> None:
        self.config, self.shape, self.library = config, model.config, library()
        self.arena, self.kept = Arena(), list[Tensor]()  # weights that C has an address of
        self.store = Memory(model.config, config, pages)
        self.blocks = (_Block * len(model.blocks))(*map(self._block, model.blocks))
        self.model = self._model(model)
        self._set_aside()

    # --- one step -------------------------------------------------------------------------------------------------

    def logits(self, works: Sequence[Work]) -> Tensor:
        """Compute the tokens of `works`; the logits of those that choose: (rows that choose, V), good for one step."""
        ids, which, tile, at = [], [], [], 0
        for i, work in enumerate(works):
            sequence, count = work.sequence, work.count
            ids += work.ids
            if self.shape.short_conv:
                self.earlier[at : at + count] = work.earlier(self.shape.short_conv)
            self.position[at : at + count] = self.counting[sequence.computed : sequence.computed + count]
            self.table[at : at + count] = i * self.page_table.shape[1]
            self.page_table[i, : len(sequence.pages)] = sequence.pages
            tile += range(at, at + count, TILE)
            at += count
            which += range(at - work.choosing, at)
        assert len(which) <= len(self.out), f"{len(which)} rows choose, and there is room for {len(self.out)}"
        self.ids[:at], self.which[: len(which)], self.tile[: len(tile) + 1] = ids, which, [*tile, at]
        step = self.step
        step.rows, step.wanted, step.tiles = at, len(which), len(tile)
        step.threads = min(THREADS, torch.get_num_threads())
        self.library.step(byref(self.model), byref(step))
        return self.out[: len(which)]

    # --- what C reads and writes ------------------------------------------------------------------------------------

    def _address(self, weight: Tensor | None) -> int | None:
        """Where C finds a copy of it; none: NULL."""
        if weight is None:
            return None
        self.kept.append(self.arena.keep(weight))
        return self.kept[-1].data_ptr()

    def _model(self, model: GPT) -> _Model:
        config = model.config
        order = ordered(model)
        alibi = model.position_embedding.slopes.float() if isinstance(model.position_embedding, Alibi) else None
        made = _Model(
            layers=config.n_layer, C=config.n_embd, H=config.n_head, G=config.kv_heads, D=config.dims_per_head,
            F=model.blocks[0].mlp.up_proj.out_features, context=config.context_length, window=config.window or 0,
            mlp=BENDS[type(model.blocks[0].mlp)], cache=CACHES[self.config.cache_dtype], page=self.config.page,
            held=self.store.pages, earlier=config.short_conv,
            embedding_scale=order.scale, blocks=self.blocks, final_norm=self._norm(model.final_norm),
            head=self._linear(model.lm_head),
        )  # fmt: skip
        made.of_embedding, made.group, made.embedding, made.row_scales = self._embedding(model.token_embedding)
        if config.short_conv:
            made.short_conv = self._address(model.short_conv.weight)
        made.start, made.alibi = self._address(order.start), self._address(alibi)
        made.cos, made.sin = self._address(order.cos), self._address(order.sin)
        return made

    def _embedding(self, embedding: nn.Embedding | IntegerEmbedding) -> tuple[int, int, int, int | None]:
        """(kind, numbers with one scale, rows, their scales)"""
        if isinstance(embedding, nn.Embedding):
            return FLOAT32, 0, self._address(embedding.weight), None
        table = embedding.table
        scale = table.scale.float()
        group = table.in_features // (scale.numel() // table.out_features)
        kind = INT8 if isinstance(table, IntegerLinear) else INT4
        return kind, group, self._address(table.weight), self._address(scale)

    def _block(self, block: Block) -> _Block:
        attention: Attention = block.attention
        norms = {"attention_norm": block.attention_norm, "mlp_norm": block.mlp_norm}
        if isinstance(attention.q_norm, RMSNorm):
            norms |= {"q_norm": attention.q_norm, "k_norm": attention.k_norm}
        linears = {"q": attention.q_proj, "k": attention.k_proj, "v": attention.v_proj, "out": attention.o_proj,
                   "up": block.mlp.up_proj, "down": block.mlp.down_proj}  # fmt: skip
        if isinstance(block.mlp, SwiGLUMLP):
            linears["gate"] = block.mlp.gate_proj
        return _Block(**{name: self._norm(norm) for name, norm in norms.items()},
                      **{name: self._linear(layer) for name, layer in linears.items()})  # fmt: skip

    def _norm(self, norm: RMSNorm | LayerNorm) -> _Norm:
        bias = getattr(norm, "bias", None)
        addresses = self._address(norm.weight), self._address(bias)
        return _Norm(*addresses, norm.eps, isinstance(norm, LayerNorm))

    def _linear(self, layer: nn.Module) -> _Linear:
        bias = None if layer.bias is None else F.pad(layer.bias.detach().float(), (0, -layer.bias.numel() % OUTS))
        kind, weight, scale, sums = _panels(layer)
        N, K = layer.out_features, layer.in_features
        addresses = [self._address(tensor) for tensor in (weight, scale, sums, bias)]
        return _Linear(N, K, kind, *addresses)

    def _set_aside(self) -> None:
        """Memory for the rows of a step, and for what says which rows these are."""
        c, m, config = self.shape, self.model, self.config
        room = config.max_batch * (1 + config.drafts) + max(config.chunk, config.chunk_beside)
        widths = {"x": m.C, "h": m.C, "q": m.H * m.D, "k": m.G * m.D, "v": m.G * m.D, "y": m.H * m.D, "gate": m.F,
                  "up": m.F}  # fmt: skip
        rows = {name: zeros(room, _up(width, LANES)) for name, width in widths.items()}
        rows["numbers"] = zeros(room, _up(max(widths.values()), GROUP), dtype=np.int8)
        rows["row_scale"] = zeros(room)
        rows["scores"] = zeros(THREADS * TOGETHER, c.context_length + m.page + LANES)
        self.buffers = rows | self.store.arrays
        for name, array in self.buffers.items():
            setattr(m, name, array.data_ptr())
        self.ids, self.position, self.table, self.tile, self.which = np.zeros((5, room + 1), dtype=np.int32)
        self.earlier = np.zeros((room + 1, c.short_conv), dtype=np.int32)
        self.page_table = np.zeros((config.max_batch, -(-c.context_length // m.page)), dtype=np.int32)
        self.counting = np.arange(c.context_length, dtype=np.int32)
        self.out = torch.zeros(config.max_batch * (1 + config.drafts), c.vocab_size)
        told = {"ids": self.ids, "earlier": self.earlier, "position": self.position, "table": self.table,
                "pages": self.page_table, "tile": self.tile, "which": self.which}  # fmt: skip
        addresses = {name: array.ctypes.data for name, array in told.items()}
        self.step = _Step(**addresses, logits=self.out.data_ptr())


def zeros(*shape: int, dtype: type = np.float32) -> Tensor:
    """Zeros that take memory only when they are written to, with room behind them for a vector's end."""
    count = int(np.prod(shape))
    return torch.from_numpy(np.zeros(count + 4 * LANES, dtype=dtype))[:count].view(shape)


def _up(n: int, unit: int) -> int:
    return -(-n // unit) * unit


# --- panels -------------------------------------------------------------------------------------------------------


def _panels(layer: nn.Module) -> tuple[int, Tensor, Tensor | None, Tensor | None]:
    """(kind, weights in panels, scale, sums) of a linear layer, as step/products.h reads them."""
    if type(layer) is nn.Linear:
        weight = _padded(layer.weight.detach().float(), 1)                        # (N', K)
        return FLOAT32, weight.unflatten(0, (-1, OUTS)).mT, None, None
    if isinstance(layer, IntegerLinear):
        weight = _padded(layer.weight, GROUP)                                     # (N', K')
        four = weight.view(-1, OUTS, weight.size(1) // 4, 4).transpose(1, 2)      # (N'/64, K'/4, 64, 4)
        sums = -128 * weight.numpy().sum(-1, dtype=np.int32)                      # (N',): torch would widen it all
        return INT8, four, _padded(layer.scale.float()[:, None], 1).flatten(), torch.from_numpy(sums)
    numbers, scale = grouped(layer.weight, layer.scale)                           # (N, groups, size), (N, groups, 1)
    scale = _padded(scale[..., 0].repeat_interleave(numbers.size(2) // GROUP, 1), 1)
    numbers = F.pad(numbers.flatten(1) + 8, (0, 0, 0, -len(numbers) % OUTS), value=8).to(torch.uint8)
    eight = numbers.view(-1, OUTS, numbers.size(1) // 8, 2, 4)                    # (N'/64, 64, K/8, 2, 4)
    packed = eight[..., 0, :] | (eight[..., 1, :] << 4)
    return INT4, packed.transpose(1, 2), scale.T, None


def _padded(weight: Tensor, inputs: int) -> Tensor:
    """Zeros for outputs up to whole panels, and for inputs up to a multiple; no copy where none are missing."""
    columns, rows = -weight.size(1) % inputs, -weight.size(0) % OUTS
    return F.pad(weight, (0, columns, 0, rows)) if columns or rows else weight    # (N', K')
