"""Small ONNX models in place of DISK and LightGlue: they detect the points that scene.py paints and match them.

extractor   a pixel whose red is 255 is a keypoint; its descriptor holds the 16 bits of green and blue as -1/4 or 1/4
matcher     points whose first bit is set are pruned after the first layer; all points are confident after the third
            (early exit); equal descriptors match

`work` slows a network down: it is a number of 256 x 256 matrix products.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import pytest
from onnx import helper, parser

from lgbatch.config import Settings
from lgbatch.kernels.library import ISA_VARIABLE, NO_KERNELS
from lgbatch.runtime.registry import INTERFACE, PACK, family, model_path, stage_names

EXTRACTOR = Settings().extractor

_HEADER = '<ir_version: 10, opset_import: ["": 20]>'
_WORK = """
  largest = ReduceMax <keepdims = 0> ({seed})
  zero_factor = Constant <value_float = 0.0> ()
  begin = Mul (largest, zero_factor)
  square = Constant <value_ints = [256, 256]> ()
  matrix = Expand (begin, square)
  rounds = Constant <value_ints = [{work}]> ()
  yes = Constant <value = bool {{1}}> ()
  done = Loop (rounds, yes, matrix) <body = body (int64 i, bool condition, float[256,256] a)
    => (bool next, float[256,256] b) {{ next = Identity (condition) b = MatMul (a, matrix) }}>
  zero = ReduceMax <keepdims = 0> (done)
"""
_EXTRACTOR = """
extractor (float[b,3,h,w] image, int64 max_keypoints)
  => (float[b,n,2] keypoints, float[b,n] scores, float[b,n,16] descriptors, int64[b] counts) {{
{slow}
  flat = Constant <value_ints = [0, -1]> ()
  one = Constant <value_ints = [1]> ()
  two = Constant <value_ints = [2]> ()
  red, green, blue = Split <axis = 1, num_outputs = 3> (image)
  reds = Reshape (red, flat)
  greens = Reshape (green, flat)
  blues = Reshape (blue, flat)
  sides = Shape <start = 2, end = 4> (image)
  width = Shape <start = 3, end = 4> (image)
  area = ReduceProd (sides)
  requested = Reshape (max_keypoints, one)
  k = Min (requested, area)
  top, indices = TopK (reds, k)
  scores = Add (top, zero)
  almost = Constant <value_float = 0.999> ()
  detected = Greater (top, almost)
  ones = Cast <to = 7> (detected)
  counts = ReduceSum <keepdims = 0> (ones, one)
  x = Mod (indices, width)
  y = Div (indices, width)
  x1 = Unsqueeze (x, two)
  y1 = Unsqueeze (y, two)
  xy = Concat <axis = 2> (x1, y1)
  keypoints = Cast <to = 1> (xy)
  g = GatherElements <axis = 1> (greens, indices)
  b1 = GatherElements <axis = 1> (blues, indices)
  g2 = Unsqueeze (g, two)
  b2 = Unsqueeze (b1, two)
  gb = Concat <axis = 2> (g2, b2)
  white = Constant <value_float = 255.0> ()
  scaled = Mul (gb, white)
  bytes = Round (scaled)
  minus = Constant <value_ints = [-1]> ()
  column = Unsqueeze (bytes, minus)
  powers = Constant <value_floats = [128.0, 64.0, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0]> ()
  shifted = Div (column, powers)
  floors = Floor (shifted)
  base = Constant <value_float = 2.0> ()
  pairs = Mod <fmod = 1> (floors, base)
  row = Constant <value_ints = [0, 0, -1]> ()
  bits = Reshape (pairs, row)
  halves = Div (bits, base)
  quarter = Constant <value_float = 0.25> ()
  descriptors = Sub (halves, quarter)
}}"""
_STEM = """
stem (float[b,n,2] keypoints, float[b,n,16] descriptors, float[b,2] size, int64[b] lengths)
  => (float[b,n,16] x, float[b,n,2] cosines, float[b,n,2] sines) {{
  x = Identity (descriptors)
  cosines = Cos (keypoints)
  sines = Sin (keypoints)
}}"""
_LAYER = """
layer (float[b,m,16] x0, float[b,n,16] x1, int64[b] lengths0, int64[b] lengths1{rotary})
  => (float[b,m,16] y0, float[b,n,16] y1{decisions}) {{
{slow}
  y0 = Add (x0, zero)
  y1 = Add (x1, zero)
  start = Constant <value_ints = [0]> ()
  end = Constant <value_ints = [1]> ()
  axis = Constant <value_ints = [2]> ()
  limit = Constant <value_float = {limit}> ()
  one = Constant <value_float = 1.0> ()
  {decision_nodes}
}}"""
_ROTARY = ", float[b,m,2] cosines0, float[b,n,2] cosines1, float[b,m,2] sines0, float[b,n,2] sines1"
_DECISIONS = ", float[b,m] confidence0, float[b,m] matchability0, float[b,n] confidence1, float[b,n] matchability1"
_DECISION_NODES = """
  first{i} = Slice (x{i}, start, end, axis)
  bit{i} = Squeeze (first{i}, axis)
  confident{i} = Greater (bit{i}, limit)
  confidence{i} = Cast <to = 1> (confident{i})
  matchability{i} = Sub (one, confidence{i})
"""
_HEAD = """
head (float[b,m,16] x0, float[b,n,16] x1, int64[b] lengths0, int64[b] lengths1, float threshold)
  => (int64[b,m] matches0, float[b,m] scores) {{
  transposed = Transpose <perm = [0, 2, 1]> (x1)
  similarity = MatMul (x0, transposed)
  axis = Constant <value_ints = [2]> ()
  scores = ReduceMax <keepdims = 0> (similarity, axis)
  best = ArgMax <axis = 2, keepdims = 0> (similarity)
  almost = Constant <value_float = 0.99> ()
  equal = Greater (scores, almost)
  none = Constant <value_int = -1> ()
  matches0 = Where (equal, best, none)
}}"""

_PACK = """
pack (float[b,n,16] x, float[b,n,2] cosines, float[b,n,2] sines, int64[c,m] rows)
  => (float[c,m,16] packed_x, float[c,m,2] packed_cosines, float[c,m,2] packed_sines) {{
  wide = Constant <value_ints = [-1, 16]> ()
  narrow = Constant <value_ints = [-1, 2]> ()
  points = Reshape (x, wide)
  first = Reshape (cosines, narrow)
  second = Reshape (sines, narrow)
  packed_x = Gather (points, rows)
  packed_cosines = Gather (first, rows)
  packed_sines = Gather (second, rows)
}}"""


@contextmanager
def without_kernels() -> Iterator[None]:
    """Let the processes that start meanwhile, and this one, run all models in ONNX Runtime, as the stand-ins are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ISA_VARIABLE, NO_KERNELS)
        yield


def write(folder: Path, *, extractor_work: int = 0, matcher_work: int = 0) -> Path:
    """Write an extractor and matcher stages into `folder`, named as for the default extractor; returns it."""
    slow = _WORK.format(seed="image", work=extractor_work)
    _save(model_path(folder, EXTRACTOR, "extractor"), "extractor", _EXTRACTOR.format(slow=slow))
    stages = model_path(folder, EXTRACTOR, "stages")
    for stage, kind in (stage_names(9) | PACK).items():
        if "layer" in kind:
            _save(stages / f"{stage}.onnx", kind, _layer(int(stage.removeprefix("layer")), kind, matcher_work))
        else:
            _save(stages / f"{stage}.onnx", kind, {"stem": _STEM, "head": _HEAD, "pack": _PACK}[kind].format())
    return folder


def _layer(number: int, kind: str, work: int) -> str:
    last = kind == "last layer"
    return _LAYER.format(
        rotary="" if kind == "first layer" else _ROTARY,
        decisions="" if last else _DECISIONS,
        slow=_WORK.format(seed="x0", work=work if number == 0 else 0),
        limit=(0.0, 5.0)[number] if number < 2 else -5.0,
        decision_nodes="" if last else "".join(_DECISION_NODES.format(i=i) for i in (0, 1)),
    )


def _save(path: Path, kind: str, text: str) -> None:
    model = parser.parse_model(_HEADER + text)
    inputs, outputs = INTERFACE[kind]
    assert sorted(i.name for i in model.graph.input) == sorted(inputs), f"the interface of {kind} has changed"
    assert [o.name for o in model.graph.output] == outputs, f"the interface of {kind} has changed"
    properties = {
        "lgbatch.kind": kind,
        "lgbatch.extractor": EXTRACTOR if kind == "extractor" else family(EXTRACTOR),
        "lgbatch.weights_sha256": "0" * 64,
    }
    helper.set_model_props(model, properties)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(model, path)
