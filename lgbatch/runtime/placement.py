"""Where ONNX Runtime runs the nodes of a model: its execution providers, by its graph assignment API."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnxruntime as ort

from lgbatch.runtime.devices import PROVIDERS, Device
from lgbatch.runtime.providers import provider_options

Placement = dict[str, dict[str, int]]
"""Number of nodes by provider and operator. Operators of other domains than ONNX's are domain.Operator."""


def placement(paths: Iterable[Path], device: Device) -> Placement:
    """Return where the nodes of ONNX files run if their sessions are opened on `device`, the CPU for what it lacks.

    Nodes are counted before ONNX Runtime fuses them. It keeps the arithmetic with shapes on the CPU even if the device
    has kernels for it. Raises exceptions of ONNX Runtime.
    """
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for path in paths:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        providers: list[Any] = [PROVIDERS["cpu"].name]
        if device != "cpu":
            providers = provider_options(device, path, threads=1, max_side=0)
        session = ort.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
        for subgraph in session.get_provider_graph_assignment_info():
            counts[subgraph.ep_name].update(
                f"{node.domain}.{node.op_type}" if node.domain else node.op_type for node in subgraph.get_nodes()
            )
    return {provider: dict(sorted(operators.items())) for provider, operators in sorted(counts.items())}


def describe(found: Placement) -> str:
    """Describe a placement in one line: the nodes of each provider, and the operators of the CPU beside another one."""
    parts = []
    for provider, operators in found.items():
        listed = ", ".join(f"{count} {name}" for name, count in operators.items())
        on_cpu = provider == PROVIDERS["cpu"].name and len(found) > 1
        parts.append(f"{sum(operators.values())} nodes on {provider}" + (f" ({listed})" if on_cpu else ""))
    return ", ".join(reversed(parts))
